"""Asynchronous I/O on file descriptors: what the loop asks of the kernel.

Two drivers stand behind this table, io_uring and a thread pool with epoll.

1. Every verb but `wake` is called by the loop thread only.
2. A verb with a token is answered exactly once, by `wait`, never inside the verb. The answer
   is what the system call would return: bytes, a new descriptor, or a negative errno.
3. Buffers and messages are lent until the answer.
4. On one descriptor at most one receive (or accept) and one send are under way. They are
   ended early by shutdown(2); `close` is for a descriptor with none under way.
5. At most AIO_INFLIGHT_MAX verbs are under way at once.
"""
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t


cdef extern from "<sys/socket.h>" nogil:
    struct iovec:
        void* iov_base
        size_t iov_len
    struct msghdr:
        iovec* msg_iov
        size_t msg_iovlen


cdef enum:
    AIO_INFLIGHT_MAX = 8000
    AIO_ANSWERS_MAX = 256            # answers one `wait` gives at most


ctypedef struct aio_answer_t:
    uint64_t token
    int32_t result


ctypedef struct aio_t:
    void* context
    # once, in the loop thread, before any other verb but `wake`; 0 or a negative errno
    int (*start)(void* context) noexcept nogil
    # kind: disk_kind_t of backend.pxd, on the store's descriptor
    void (*disk)(void* context, int kind, uint64_t offset, void* buffer, uint32_t length,
                 uint64_t token) noexcept nogil
    void (*receive)(void* context, int fd, void* buffer, uint32_t room, uint64_t token) noexcept nogil
    void (*send)(void* context, int fd, const msghdr* message, uint64_t token) noexcept nogil
    void (*accept)(void* context, int fd, uint64_t token) noexcept nogil
    void (*close)(void* context, int fd) noexcept nogil
    # Hands over what was asked and waits for the first answer: timeout_ns < 0 for ever, 0 not
    # at all. Gives the number of answers, or a negative errno when the driver is broken.
    int (*wait)(void* context, int64_t timeout_ns, aio_answer_t* answers, int room) noexcept nogil
    # ends the wait under way, or the next one; any thread
    void (*wake)(void* context) noexcept nogil
    # with nothing under way
    void (*destroy)(void* context) noexcept nogil


# A driver is handed from its extension to the loop as a capsule of this name.
ctypedef struct aio_driver_t:
    const char* name
    # fills `aio`; 0, or a negative errno when this machine does not let us
    int (*create)(aio_t* aio, int disk_fd) noexcept nogil
