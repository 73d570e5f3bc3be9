"""Operations under way, and waiting for them; see waiting.pxd."""
from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memset
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec

from repstore._fast.calls cimport call_end
from repstore._fast.layout cimport BLOCK_SIZE
from repstore._fast.loop cimport loop_lock, loop_unlock, pthread_mutex_t
from repstore._fast.state cimport io_t


# polled without the engine's lock; `finished` of calls.pyx is stored with release order
cdef extern from * nogil:
    uint64_t load_acquire "__atomic_load_n"(uint64_t* number, int order)
    int ACQUIRE "__ATOMIC_ACQUIRE"

cdef extern from "<pthread.h>" nogil:
    ctypedef struct pthread_condattr_t:
        pass
    int pthread_condattr_init(pthread_condattr_t* attributes)
    int pthread_condattr_setclock(pthread_condattr_t* attributes, int clock)
    int pthread_condattr_destroy(pthread_condattr_t* attributes)
    int pthread_cond_init(pthread_cond_t* condition, pthread_condattr_t* attributes)
    int pthread_cond_destroy(pthread_cond_t* condition)
    int pthread_cond_wait(pthread_cond_t* condition, pthread_mutex_t* mutex)
    int pthread_cond_timedwait(pthread_cond_t* condition, pthread_mutex_t* mutex, const timespec* until)


IO_FIELDS = (
    ("kind", "u1"), ("flags", "u1"), ("reserved", "<u2"), ("export_id", "<u4"), ("offset", "<u8"),
    ("length", "<u4"), ("error", "<i4"), ("buffer_offset", "<u8"),
)
assert sizeof(io_t) == 32


cdef class Call:
    """Operations handed to the engine: `wait()` for all of them, or poll `done`.

    The arrays stay in use until then; the call keeps them alive.
    """

    cdef void lock(self) noexcept:
        if self.lock_owner != NULL:
            with nogil:
                loop_lock(self.lock_owner)

    cdef void unlock(self) noexcept:
        if self.lock_owner != NULL:
            loop_unlock(self.lock_owner)

    @property
    def done(self):
        """All operations are finished: what they read and their errors are there."""
        return load_acquire(&self.call.finished, ACQUIRE) == self.call.count

    @property
    def finished(self):
        """Operations finished so far."""
        return load_acquire(&self.call.finished, ACQUIRE)

    @property
    def failed(self):
        """Operations that ended with an error; each has its errno in `error`."""
        self.lock()
        failed = self.call.failed
        self.unlock()
        return failed

    def wait(self):
        """Block, without the GIL, until all operations are finished. Returns how many failed."""
        with nogil:
            loop_lock(self.lock_owner)
            while self.call.finished < self.call.count:
                pthread_cond_wait(&self.condition, &self.lock_owner.mutex)
            loop_unlock(self.lock_owner)
        self.end()
        return self.call.failed

    def wait_at_most(self, double seconds):
        """Like `wait`, for so long at most, so that the caller may look at its signals in between.
        Returns whether all operations are finished; `wait` then returns at once."""
        cdef timespec until
        cdef int answer = 0
        cdef uint64_t until_ns
        with nogil:
            clock_gettime(CLOCK_MONOTONIC, &until)
            until_ns = <uint64_t>until.tv_sec * 1000000000ULL + until.tv_nsec + <uint64_t>(seconds * 1e9)
            until.tv_sec = until_ns // 1000000000ULL
            until.tv_nsec = until_ns % 1000000000ULL
            loop_lock(self.lock_owner)
            while self.call.finished < self.call.count and answer == 0:
                answer = pthread_cond_timedwait(&self.condition, &self.lock_owner.mutex, &until)
            loop_unlock(self.lock_owner)
        return self.done

    def end(self):
        """Forget a finished call (simulators, which do not wait)."""
        if self.queued and self.done:
            self.lock()
            call_end(self.engine, &self.call)
            self.unlock()
            pthread_cond_destroy(&self.condition)
            self.queued = False
            self.running.discard(self)


cdef Call call_new(object owner, set running, engine_t* engine, loop_t* lock_owner,
                   unsigned char[::1] ios, unsigned char[::1] buffer, unsigned int depth):
    """The operations of an IO_FIELDS array, none of them begun. Raises ValueError as `Engine.start` does."""
    cdef Call call = Call.__new__(Call)
    cdef pthread_condattr_t attributes
    cdef uint64_t i, needed, room = buffer.shape[0] if buffer is not None else 0
    if ios.shape[0] == 0 or ios.shape[0] % <Py_ssize_t>sizeof(io_t):
        raise ValueError(f"{ios.shape[0]} bytes of operations: must be a multiple of {sizeof(io_t)}, at least one")
    if not 1 <= depth <= 1024:
        raise ValueError(f"depth {depth}: must be 1 to 1024")
    memset(&call.call, 0, sizeof(call_t))
    call.owner = owner
    call.running = running
    call.engine = engine
    call.lock_owner = lock_owner
    call.ios = ios
    call.buffer = buffer
    call.call.ios = <io_t*>&ios[0]
    call.call.buffer = &buffer[0] if room else <uint8_t*>NULL
    call.call.count = ios.shape[0] // sizeof(io_t)
    for i in range(call.call.count):
        if call.call.ios[i].kind not in (1, 2, 6):
            continue
        # block status: the length is that of the volume's range, its answer fills a block
        needed = BLOCK_SIZE if call.call.ios[i].kind == 6 else call.call.ios[i].length
        if call.call.ios[i].buffer_offset > room or needed > room - call.call.ios[i].buffer_offset:
            raise ValueError(f"operation {i}: {needed} bytes at {call.call.ios[i].buffer_offset} "
                             f"reach outside a buffer of {room}")
    call.call.depth = depth
    pthread_condattr_init(&attributes)
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC)
    pthread_cond_init(&call.condition, &attributes)
    pthread_condattr_destroy(&attributes)
    call.call.waiter = &call.condition
    call.queued = True
    running.add(call)
    return call
