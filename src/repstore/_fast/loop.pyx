"""The production loop: see loop.pxd for the rules."""
import logging
import os

from cpython.pycapsule cimport PyCapsule_GetPointer
from libc.errno cimport (
    EAGAIN, ECONNABORTED, EINTR, EINVAL, EIO, EMFILE, ENOMEM, ENOSYS, EPERM, ESHUTDOWN,
)
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t
from libc.stdlib cimport abort, calloc, free
from posix.time cimport clock_gettime, timespec
from posix.unistd cimport close

from repstore._fast.aio cimport AIO_ANSWERS_MAX, aio_answer_t, aio_driver_t
from repstore._fast.backend cimport DISK_FLUSH, DISK_READ
from repstore._fast.transport cimport (
    transport_add, transport_close, transport_cut_all, transport_destroy, transport_flush,
    transport_has_work, transport_hold, transport_new, transport_received, transport_send,
    transport_sent, transport_work,
)

from repstore._fast import threads


cdef extern from "<pthread.h>" nogil:
    int pthread_mutex_init(pthread_mutex_t* mutex, void* attributes)
    int pthread_mutex_lock(pthread_mutex_t* mutex)
    int pthread_mutex_unlock(pthread_mutex_t* mutex)
    int pthread_mutex_destroy(pthread_mutex_t* mutex)


cdef extern from "<time.h>" nogil:
    int CLOCK_BOOTTIME


cdef extern from "<sys/socket.h>" nogil:
    int SHUT_RDWR
    int shutdown(int fd, int how)


# What an answer of the kernel is about; the rest of the token says which one.
cdef uint64_t TAG_DISK = 1ull << 56
cdef uint64_t TAG_RECEIVE = 2ull << 56
cdef uint64_t TAG_SEND = 3ull << 56
cdef uint64_t TAG_ACCEPT = 4ull << 56
cdef uint64_t TAG_MASK = 0xFFull << 56

_log = logging.getLogger("repstore")
_REFUSALS = (EPERM, ENOSYS, ENOMEM)


# ---- the lock --------------------------------------------------------------------------


cdef void loop_lock(loop_t* self) noexcept nogil:
    # The one who waits holds the gate, so a loop that is always busy queues up behind it.
    pthread_mutex_lock(&self.gate)
    pthread_mutex_lock(&self.mutex)
    pthread_mutex_unlock(&self.gate)


cdef void loop_unlock(loop_t* self) noexcept nogil:
    pthread_mutex_unlock(&self.mutex)


cdef void loop_wake(loop_t* self) noexcept nogil:
    """Has the loop do a round; inside a round that is done anyway."""
    if not self.in_round and not self.woken:
        self.woken = True
        self.aio.wake(self.aio.context)


# ---- the disk --------------------------------------------------------------------------


cdef bint may_issue(const loop_t* self, int kind) noexcept nogil:
    if self.issued >= DISK_ISSUED_MAX:
        return False
    return kind != DISK_READ or self.reads_issued < READS_FLOWING or self.read_answered


cdef void issue(loop_t* self, uint32_t index) noexcept nogil:
    cdef disk_slot_t* slot = &self.slots[index]
    self.issued += 1
    self.reads_issued += slot.kind == DISK_READ
    self.aio.disk(self.aio.context, slot.kind, slot.offset, slot.buffer, slot.length, TAG_DISK | index)


cdef void issue_waiting(loop_t* self, slot_list_t* waiting) noexcept nogil:
    cdef uint32_t index
    while waiting.first and may_issue(self, self.slots[waiting.first].kind):
        index = waiting.first
        waiting.first = self.slots[index].next
        issue(self, index)


cdef void issue_all_waiting(loop_t* self) noexcept nogil:
    issue_waiting(self, &self.waiting)
    issue_waiting(self, &self.waiting_reads)


cdef void backend_disk(void* context, int kind, uint64_t offset, void* buffer, uint32_t length,
                       uint64_t token) noexcept nogil:
    cdef loop_t* self = <loop_t*>context
    cdef slot_list_t* waiting = &self.waiting
    cdef uint32_t index = self.free_slot
    cdef disk_slot_t* slot = &self.slots[index]
    if index == 0:
        # the engine broke its own limits, which add up to far less: nothing it says holds
        abort()
    self.free_slot = slot.next
    slot.token = token
    slot.offset = offset
    slot.buffer = buffer
    slot.length = length
    slot.kind = kind
    slot.next = 0
    if kind == DISK_READ:
        waiting = &self.waiting_reads
    if self.in_round and waiting.first == 0 and may_issue(self, kind):
        issue(self, index)
        return
    if waiting.first:
        self.slots[waiting.last].next = index
    else:
        waiting.first = index
    waiting.last = index
    loop_wake(self)


cdef void disk_answered(loop_t* self, uint32_t index, int32_t result) noexcept nogil:
    cdef disk_slot_t* slot = &self.slots[index]
    cdef uint64_t token = slot.token
    if result >= 0 and slot.kind != DISK_FLUSH and <uint32_t>result != slot.length:
        # the store's file is as long as its superblock says: short is broken
        result = -EIO
    slot.next = self.free_slot
    self.free_slot = index
    self.issued -= 1
    if slot.kind == DISK_READ:
        self.reads_issued -= 1
        self.read_answered = True
        issue_waiting(self, &self.waiting_reads)
    self.vtable.disk_done(self.engine, token, result)


# ---- the links -------------------------------------------------------------------------


cdef void backend_send(void* context, uint32_t link, const void* head, uint32_t head_bytes,
                       const void* body, uint32_t body_bytes, uint64_t token) noexcept nogil:
    cdef loop_t* self = <loop_t*>context
    transport_send(self.transport, link, head, head_bytes, body, body_bytes, token)
    loop_wake(self)


cdef void backend_close(void* context, uint32_t link) noexcept nogil:
    cdef loop_t* self = <loop_t*>context
    transport_close(self.transport, link)
    loop_wake(self)


cdef void backend_hold(void* context, uint32_t link, int stopped) noexcept nogil:
    cdef loop_t* self = <loop_t*>context
    transport_hold(self.transport, link, stopped)
    loop_wake(self)


cdef int32_t loop_add_socket(loop_t* self, int fd, int kind) noexcept nogil:
    """A link over a connected socket; it owns `fd` unless the answer is a negative errno."""
    cdef int32_t link
    if self.stopping:
        return -ESHUTDOWN
    link = transport_add(self.transport, fd, kind)
    loop_wake(self)
    return link


cdef void accepted(loop_t* self, uint32_t index, int32_t result) noexcept nogil:
    cdef accepting_t* listener = &self.listeners[index]
    listener.under_way = False
    if result >= 0:
        if self.stopping or transport_add(self.transport, result, listener.kind) < 0:
            # the peer sees its connection closed; nobody is asked to wait for a free link
            close(result)
    elif result == -EINVAL and self.stopping:
        return
    elif result not in (-EAGAIN, -EINTR, -ECONNABORTED):
        listener.retry_ns = self.now_ns + ACCEPT_RETRY_NS


cdef uint64_t start_accepting(loop_t* self, uint64_t deadline_ns) noexcept nogil:
    """Arms the listeners that are free to accept; gives the deadline with their retries."""
    cdef accepting_t* listener
    cdef uint32_t i
    if self.stopping:
        return deadline_ns
    for i in range(self.listener_count):
        listener = &self.listeners[i]
        if listener.under_way:
            continue
        if listener.retry_ns > self.now_ns:
            deadline_ns = earlier(deadline_ns, listener.retry_ns)
            continue
        listener.under_way = True
        self.aio.accept(self.aio.context, listener.fd, TAG_ACCEPT | i)
    return deadline_ns


# ---- the rounds ------------------------------------------------------------------------


cdef inline uint64_t earlier(uint64_t one_ns, uint64_t other_ns) noexcept nogil:
    """The earlier of two deadlines, where 0 is none."""
    if one_ns == 0 or other_ns == 0:
        return one_ns + other_ns
    return one_ns if one_ns < other_ns else other_ns


cdef inline uint64_t boot_clock_ns() noexcept nogil:
    cdef timespec now
    clock_gettime(CLOCK_BOOTTIME, &now)
    return <uint64_t>now.tv_sec * 1000000000 + <uint64_t>now.tv_nsec


cdef void take_answer(loop_t* self, const aio_answer_t* answer) noexcept nogil:
    cdef uint64_t tag = answer.token & TAG_MASK
    cdef uint32_t index = <uint32_t>answer.token
    if tag == TAG_DISK:
        disk_answered(self, index, answer.result)
    elif tag == TAG_RECEIVE:
        transport_received(self.transport, index, answer.result)
    elif tag == TAG_SEND:
        transport_sent(self.transport, index, answer.result)
    else:
        accepted(self, index, answer.result)


cdef int64_t round_of_work(loop_t* self, const aio_answer_t* answers, int count) noexcept nogil:
    """One round under the lock; gives how long to wait after it (-1: for ever)."""
    cdef uint64_t deadline_ns = 0
    cdef int busy = 0
    cdef int i
    self.woken = False
    self.read_answered = False
    self.now_ns = boot_clock_ns()
    self.vtable.begin(self.engine, self.now_ns)
    issue_all_waiting(self)
    for i in range(count):
        take_answer(self, &answers[i])
    transport_work(self.transport, self.now_ns)
    if self.stopping:
        transport_cut_all(self.transport)
    else:
        deadline_ns = self.vtable.turn(self.engine, &busy)
    issue_all_waiting(self)
    transport_flush(self.transport)
    deadline_ns = start_accepting(self, deadline_ns)
    if busy or transport_has_work(self.transport):
        return 0
    deadline_ns = earlier(deadline_ns, self.transport.linger_check_ns)
    if deadline_ns == 0:
        return -1
    return <int64_t>(deadline_ns - self.now_ns) if deadline_ns > self.now_ns else 0


cdef bint is_quiet(const loop_t* self) noexcept nogil:
    """Nothing is under way in the kernel and no link is left."""
    cdef uint32_t i
    for i in range(self.listener_count):
        if self.listeners[i].under_way:
            return False
    return self.issued == 0 and self.waiting.first == 0 and self.waiting_reads.first == 0 and self.transport.used == 0


cdef int run_rounds(loop_t* self) noexcept nogil:
    """Rounds until stopped and quiet; 0, or the negative errno of a driver that broke."""
    cdef aio_answer_t answers[AIO_ANSWERS_MAX]
    cdef int64_t timeout_ns = 0
    cdef bint quiet
    cdef int count = self.aio.start(self.aio.context)
    if count < 0:
        return count
    while True:
        count = self.aio.wait(self.aio.context, timeout_ns, answers, AIO_ANSWERS_MAX)
        if count < 0:
            return count
        loop_lock(self)
        self.in_round = True
        timeout_ns = round_of_work(self, answers, count)
        quiet = self.stopping and is_quiet(self)
        self.finished = quiet
        self.in_round = False
        loop_unlock(self)
        if quiet:
            return 0


# ---- making and unmaking ---------------------------------------------------------------


cdef loop_t* loop_new() noexcept nogil:
    cdef loop_t* self = <loop_t*>calloc(1, sizeof(loop_t))
    cdef uint32_t i
    if self == NULL:
        return NULL
    self.slots = <disk_slot_t*>calloc(DISK_SLOTS + 1, sizeof(disk_slot_t))
    self.transport = transport_new(&self.aio, TAG_RECEIVE, TAG_SEND)
    if self.slots == NULL or self.transport == NULL:
        free(self.slots)
        free(self.transport)
        free(self)
        return NULL
    for i in range(1, DISK_SLOTS):
        self.slots[i].next = i + 1
    self.free_slot = 1
    pthread_mutex_init(&self.mutex, NULL)
    pthread_mutex_init(&self.gate, NULL)
    self.backend.context = self
    self.backend.disk = backend_disk
    self.backend.send = backend_send
    self.backend.close = backend_close
    self.backend.hold = backend_hold
    return self


cdef void loop_free(loop_t* self) noexcept nogil:
    cdef uint32_t i
    for i in range(self.listener_count):
        close(self.listeners[i].fd)
    transport_destroy(self.transport)
    if self.aio.destroy != NULL:
        self.aio.destroy(self.aio.context)
    pthread_mutex_destroy(&self.mutex)
    pthread_mutex_destroy(&self.gate)
    free(self.slots)
    free(self)


cdef void loop_attach(Loop loop, void* engine, const engine_vtable_t* vtable) noexcept:
    cdef loop_t* self = loop.loop
    self.engine = engine
    self.vtable = vtable[0]
    self.transport.listener.engine = engine
    self.transport.listener.sent = vtable.sent
    self.transport.listener.link_up = vtable.link_up
    self.transport.listener.link_down = vtable.link_down
    self.transport.listener.frame = vtable.frame
    self.transport.listener.stream = vtable.stream


cdef backend_t* loop_backend(Loop loop) noexcept:
    return &loop.loop.backend


cdef int create_driver(loop_t* loop, capsule, int disk_fd) except? -1:
    cdef aio_driver_t* driver = <aio_driver_t*>PyCapsule_GetPointer(capsule, "repstore.aio_driver")
    return driver.create(&loop.aio, disk_fd)


cdef class Loop:
    """The I/O loop of one engine: disk, links and turns, in one thread without the GIL.

    `backend` is "uring", "threads" or "auto": io_uring where this machine lets us.
    """

    def __cinit__(self, int disk_fd, str backend="auto"):
        if backend not in ("auto", "uring", "threads"):
            raise ValueError(f"backend {backend!r} is none of 'auto', 'uring', 'threads'")
        self.loop = loop_new()
        if self.loop == NULL:
            raise MemoryError("no memory for an I/O loop")
        if backend != "threads" and self._try_uring(disk_fd, backend == "uring"):
            self.backend = "uring"
            return
        result = create_driver(self.loop, threads.driver, disk_fd)
        if result < 0:
            raise OSError(-result, f"thread pool: {os.strerror(-result)}")
        self.backend = "threads"

    def _try_uring(self, int disk_fd, bint insist):
        """Whether io_uring carries this loop; with `insist` a refusal is an error."""
        try:
            from repstore._fast import uring
        except ImportError:
            if insist:
                raise ValueError("backend 'uring': repstore was built without liburing") from None
            return False
        result = create_driver(self.loop, uring.driver, disk_fd)
        if result == 0:
            return True
        if insist or -result not in _REFUSALS:
            raise OSError(-result, f"io_uring: {os.strerror(-result)}")
        _log.warning("io_uring is refused here (%s): I/O goes through the thread pool",
                     os.strerror(-result))
        return False

    def __dealloc__(self):
        # a loop that broke has buffers in the kernel's hands: its memory is given up
        if self.loop != NULL and (not self.started or self.loop.finished):
            loop_free(self.loop)

    def add_listener(self, int fd, int kind):
        """Accepts connections on a listening socket. The descriptor is duplicated."""
        cdef int own_fd = os.dup(fd)
        cdef bint added
        cdef accepting_t* listener
        with nogil:
            loop_lock(self.loop)
            added = self.loop.listener_count < LISTENERS_MAX and not self.loop.stopping
            if added:
                listener = &self.loop.listeners[self.loop.listener_count]
                listener.fd = own_fd
                listener.kind = kind
                self.loop.listener_count += 1
                loop_wake(self.loop)
            loop_unlock(self.loop)
        if not added:
            os.close(own_fd)
            raise OSError(EMFILE, f"a loop has at most {LISTENERS_MAX} listeners, or it is stopped")

    def add_socket(self, int fd, int kind):
        """A link over a connected socket; gives its number. The descriptor is duplicated."""
        cdef int own_fd = os.dup(fd)
        cdef int32_t link
        with nogil:
            loop_lock(self.loop)
            link = loop_add_socket(self.loop, own_fd, kind)
            loop_unlock(self.loop)
        if link < 0:
            os.close(own_fd)
            raise OSError(-link, f"no link for a socket: {os.strerror(-link)}")
        return link

    def wake(self):
        """Has the loop do a round."""
        with nogil:
            loop_lock(self.loop)
            loop_wake(self.loop)
            loop_unlock(self.loop)

    def stop(self):
        """Has `run` cut its links, wait for what the kernel has, and return."""
        cdef uint32_t i
        with nogil:
            loop_lock(self.loop)
            self.loop.stopping = True
            for i in range(self.loop.listener_count):
                shutdown(self.loop.listeners[i].fd, SHUT_RDWR)
            loop_wake(self.loop)
            loop_unlock(self.loop)

    def run(self):
        """The loop itself: the body of a thread of its own, once."""
        cdef int result
        if self.loop.engine == NULL:
            raise RuntimeError("no engine is attached to this loop")
        if self.started:
            raise RuntimeError("a loop runs once")
        self.started = True
        with nogil:
            result = run_rounds(self.loop)
        if result < 0:
            raise OSError(-result, f"{self.backend} broke: {os.strerror(-result)}")
