"""The io_uring driver of the loop.

1. One ring a loop, made disabled by the constructor's thread and enabled by the loop thread:
   the kernel then knows its single issuer, and completions run only when that thread waits.
2. File reads are handed over early, every READS_A_SUBMIT: 32 at once would make disk and
   loop take turns. Everything else goes with the next wait, in the same system call.
3. Sockets must be blocking ones: on a non-blocking socket the ring answers EAGAIN instead of
   waiting for it.
"""
from cpython.pycapsule cimport PyCapsule_New
from libc.errno cimport EAGAIN, EBUSY, EINTR, EINVAL, ENOMEM, ETIME, errno
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from posix.unistd cimport close

from repstore._fast.aio cimport (
    AIO_ANSWERS_MAX, aio_answer_t, aio_driver_t, aio_t, msghdr,
)
from repstore._fast.backend cimport DISK_READ, DISK_WRITE


cdef extern from "<sys/eventfd.h>" nogil:
    int eventfd(unsigned int count, int flags)
    int eventfd_write(int fd, uint64_t value)
    int EFD_CLOEXEC


cdef extern from "<sys/socket.h>" nogil:
    int MSG_NOSIGNAL
    int MSG_WAITALL
    int SOCK_CLOEXEC


cdef extern from "liburing.h" nogil:
    struct io_uring:
        pass
    struct io_uring_sqe:
        pass
    struct io_uring_cqe:
        uint64_t user_data
        int32_t res
    struct io_uring_params:
        unsigned int flags
        unsigned int cq_entries
    struct __kernel_timespec:
        int64_t tv_sec
        long long tv_nsec
    unsigned int IORING_SETUP_CLAMP
    unsigned int IORING_SETUP_CQSIZE
    unsigned int IORING_SETUP_R_DISABLED
    unsigned int IORING_SETUP_COOP_TASKRUN
    unsigned int IORING_SETUP_SINGLE_ISSUER
    unsigned int IORING_SETUP_DEFER_TASKRUN
    unsigned int IORING_FSYNC_DATASYNC
    int io_uring_queue_init_params(unsigned int entries, io_uring* ring, io_uring_params* params)
    int io_uring_enable_rings(io_uring* ring)
    void io_uring_queue_exit(io_uring* ring)
    io_uring_sqe* io_uring_get_sqe(io_uring* ring)
    void io_uring_sqe_set_data64(io_uring_sqe* sqe, uint64_t data)
    void io_uring_prep_read(io_uring_sqe* sqe, int fd, void* to, unsigned int length, uint64_t offset)
    void io_uring_prep_write(io_uring_sqe* sqe, int fd, void* data, unsigned int length, uint64_t offset)
    void io_uring_prep_fsync(io_uring_sqe* sqe, int fd, unsigned int flags)
    void io_uring_prep_recv(io_uring_sqe* sqe, int fd, void* to, size_t room, int flags)
    void io_uring_prep_sendmsg(io_uring_sqe* sqe, int fd, const msghdr* message, unsigned int flags)
    void io_uring_prep_accept(io_uring_sqe* sqe, int fd, void* address, void* length, int flags)
    int io_uring_submit(io_uring* ring)
    int io_uring_submit_and_wait(io_uring* ring, unsigned int count)
    int io_uring_submit_and_get_events(io_uring* ring)
    int io_uring_submit_and_wait_timeout(io_uring* ring, io_uring_cqe** cqe, unsigned int count,
                                         __kernel_timespec* timeout, void* mask)
    unsigned int io_uring_peek_batch_cqe(io_uring* ring, io_uring_cqe** cqes, unsigned int count)
    void io_uring_cq_advance(io_uring* ring, unsigned int count)


cdef enum:
    SUBMISSIONS = 1024
    COMPLETIONS = 8192               # > AIO_INFLIGHT_MAX: the completion queue never overflows
    READS_A_SUBMIT = 4

cdef uint64_t WAKE_TOKEN = 0xFFFFFFFFFFFFFFFF


ctypedef struct uring_t:
    io_uring ring
    int disk_fd
    int wake_fd
    uint64_t wake_count              # the eventfd's value is read in here
    int unsubmitted_reads


cdef io_uring_sqe* next_entry(uring_t* self, uint64_t token) noexcept nogil:
    """A free submission entry; makes room by handing over what there is."""
    cdef io_uring_sqe* entry = io_uring_get_sqe(&self.ring)
    while entry == NULL:
        io_uring_submit(&self.ring)
        entry = io_uring_get_sqe(&self.ring)
    io_uring_sqe_set_data64(entry, token)
    return entry


cdef void set_token(io_uring_sqe* entry, uint64_t token) noexcept nogil:
    # the prep functions of liburing >= 2.4 clear it, so it is set after them
    io_uring_sqe_set_data64(entry, token)


cdef void arm_wake(uring_t* self) noexcept nogil:
    cdef io_uring_sqe* entry = next_entry(self, WAKE_TOKEN)
    io_uring_prep_read(entry, self.wake_fd, &self.wake_count, sizeof(self.wake_count), 0)
    set_token(entry, WAKE_TOKEN)


cdef int uring_start(void* context) noexcept nogil:
    cdef uring_t* self = <uring_t*>context
    cdef int result = io_uring_enable_rings(&self.ring)
    if result < 0:
        return result
    arm_wake(self)
    return 0


cdef void uring_disk(void* context, int kind, uint64_t offset, void* buffer, uint32_t length,
                     uint64_t token) noexcept nogil:
    cdef uring_t* self = <uring_t*>context
    cdef io_uring_sqe* entry = next_entry(self, token)
    if kind == DISK_READ:
        io_uring_prep_read(entry, self.disk_fd, buffer, length, offset)
    elif kind == DISK_WRITE:
        io_uring_prep_write(entry, self.disk_fd, buffer, length, offset)
    else:
        io_uring_prep_fsync(entry, self.disk_fd, IORING_FSYNC_DATASYNC)
    set_token(entry, token)
    if kind == DISK_READ:
        self.unsubmitted_reads += 1
        if self.unsubmitted_reads >= READS_A_SUBMIT:
            io_uring_submit(&self.ring)
            self.unsubmitted_reads = 0


cdef void uring_receive(void* context, int fd, void* buffer, uint32_t room,
                        uint64_t token) noexcept nogil:
    cdef uring_t* self = <uring_t*>context
    cdef io_uring_sqe* entry = next_entry(self, token)
    io_uring_prep_recv(entry, fd, buffer, room, 0)
    set_token(entry, token)


cdef void uring_send(void* context, int fd, const msghdr* message, uint64_t token) noexcept nogil:
    cdef uring_t* self = <uring_t*>context
    cdef io_uring_sqe* entry = next_entry(self, token)
    # WAITALL: the kernel goes on by itself after a short send
    io_uring_prep_sendmsg(entry, fd, message, MSG_NOSIGNAL | MSG_WAITALL)
    set_token(entry, token)


cdef void uring_accept(void* context, int fd, uint64_t token) noexcept nogil:
    cdef uring_t* self = <uring_t*>context
    cdef io_uring_sqe* entry = next_entry(self, token)
    io_uring_prep_accept(entry, fd, NULL, NULL, SOCK_CLOEXEC)
    set_token(entry, token)


cdef void uring_close(void* context, int fd) noexcept nogil:
    close(fd)


cdef int hand_over_and_wait(uring_t* self, int64_t timeout_ns) noexcept nogil:
    cdef __kernel_timespec timeout
    cdef io_uring_cqe* first = NULL
    self.unsubmitted_reads = 0
    if timeout_ns == 0:
        return io_uring_submit_and_get_events(&self.ring)
    if timeout_ns < 0:
        return io_uring_submit_and_wait(&self.ring, 1)
    timeout.tv_sec = timeout_ns // 1000000000
    timeout.tv_nsec = timeout_ns % 1000000000
    return io_uring_submit_and_wait_timeout(&self.ring, &first, 1, &timeout, NULL)


cdef int uring_wait(void* context, int64_t timeout_ns, aio_answer_t* answers, int room) noexcept nogil:
    cdef uring_t* self = <uring_t*>context
    cdef io_uring_cqe* completed[AIO_ANSWERS_MAX]
    cdef int result = hand_over_and_wait(self, timeout_ns)
    cdef int given = 0
    cdef bint woken = False
    cdef unsigned int i, count
    if result < 0 and result not in (-ETIME, -EINTR, -EAGAIN, -EBUSY):
        return result
    if room > AIO_ANSWERS_MAX:
        room = AIO_ANSWERS_MAX
    count = io_uring_peek_batch_cqe(&self.ring, completed, <unsigned int>room)
    for i in range(count):
        if completed[i].user_data == WAKE_TOKEN:
            woken = True
            continue
        answers[given].token = completed[i].user_data
        answers[given].result = completed[i].res
        given += 1
    io_uring_cq_advance(&self.ring, count)
    if woken:
        arm_wake(self)
    return given


cdef void uring_wake(void* context) noexcept nogil:
    eventfd_write((<uring_t*>context).wake_fd, 1)


cdef void uring_destroy(void* context) noexcept nogil:
    cdef uring_t* self = <uring_t*>context
    io_uring_queue_exit(&self.ring)
    close(self.wake_fd)
    free(self)


cdef int make_ring(uring_t* self) noexcept nogil:
    """The best ring this kernel has: it answers EINVAL to flags it does not know."""
    cdef unsigned int wishes[4]
    cdef io_uring_params params
    cdef int result = -EINVAL
    cdef int i
    wishes[0] = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_COOP_TASKRUN
    wishes[1] = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_COOP_TASKRUN
    wishes[2] = IORING_SETUP_COOP_TASKRUN
    wishes[3] = 0
    for i in range(4):
        params = io_uring_params(
            flags=wishes[i] | IORING_SETUP_R_DISABLED | IORING_SETUP_CLAMP | IORING_SETUP_CQSIZE,
            cq_entries=COMPLETIONS,
        )
        result = io_uring_queue_init_params(SUBMISSIONS, &self.ring, &params)
        if result != -EINVAL:
            break
    return result


cdef int uring_create(aio_t* aio, int disk_fd) noexcept nogil:
    cdef uring_t* self = <uring_t*>calloc(1, sizeof(uring_t))
    cdef int result
    if self == NULL:
        return -ENOMEM
    self.disk_fd = disk_fd
    self.wake_fd = eventfd(0, EFD_CLOEXEC)
    if self.wake_fd < 0:
        result = -errno
        free(self)
        return result
    result = make_ring(self)
    if result < 0:
        close(self.wake_fd)
        free(self)
        return result
    aio.context = self
    aio.start = uring_start
    aio.disk = uring_disk
    aio.receive = uring_receive
    aio.send = uring_send
    aio.accept = uring_accept
    aio.close = uring_close
    aio.wait = uring_wait
    aio.wake = uring_wake
    aio.destroy = uring_destroy
    return 0


cdef aio_driver_t _driver = aio_driver_t(name=b"uring", create=uring_create)
driver = PyCapsule_New(&_driver, "repstore.aio_driver", NULL)
