"""The thread pool driver of the loop: for machines that refuse io_uring, as most containers do.

1. Disk verbs go to POOL_THREADS workers (pread, pwrite, fdatasync); their answers come back on
   a list under a mutex, and one eventfd write wakes the loop when the list was empty.
2. Sockets are driven by the loop thread itself: a verb is tried at once without blocking, and
   again at the edge that epoll reports. A descriptor is registered once, edge-triggered.
3. Nothing here allocates for a verb: jobs live in a fixed pool, socket verbs in a table by
   descriptor that grows only when a higher descriptor appears.
"""
from cpython.pycapsule cimport PyCapsule_New
from libc.errno cimport EAGAIN, EINTR, EINVAL, ENOMEM, errno
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memset
from posix.fcntl cimport F_GETFL, F_SETFL, O_NONBLOCK, fcntl
from posix.types cimport off_t
from posix.unistd cimport close, fdatasync

from repstore._fast.aio cimport (
    AIO_INFLIGHT_MAX, aio_answer_t, aio_driver_t, aio_t, msghdr,
)
from repstore._fast.backend cimport DISK_READ, DISK_WRITE


cdef extern from "<pthread.h>" nogil:
    ctypedef struct pthread_t:
        pass
    ctypedef struct pthread_mutex_t:
        pass
    ctypedef struct pthread_cond_t:
        pass
    int pthread_create(pthread_t* thread, void* attributes, void* (*body)(void*) noexcept nogil,
                       void* argument)
    int pthread_join(pthread_t thread, void** result)
    int pthread_mutex_init(pthread_mutex_t* mutex, void* attributes)
    int pthread_mutex_lock(pthread_mutex_t* mutex)
    int pthread_mutex_unlock(pthread_mutex_t* mutex)
    int pthread_mutex_destroy(pthread_mutex_t* mutex)
    int pthread_cond_init(pthread_cond_t* condition, void* attributes)
    int pthread_cond_wait(pthread_cond_t* condition, pthread_mutex_t* mutex)
    int pthread_cond_signal(pthread_cond_t* condition)
    int pthread_cond_broadcast(pthread_cond_t* condition)
    int pthread_cond_destroy(pthread_cond_t* condition)


cdef extern from "<sys/epoll.h>" nogil:
    ctypedef union epoll_data_t:
        int fd
    struct epoll_event:
        uint32_t events
        epoll_data_t data
    int EPOLL_CLOEXEC
    int EPOLL_CTL_ADD
    uint32_t EPOLLIN
    uint32_t EPOLLOUT
    uint32_t EPOLLRDHUP
    uint32_t EPOLLERR
    uint32_t EPOLLHUP
    uint32_t EPOLLET
    int epoll_create1(int flags)
    int epoll_ctl(int epoll, int operation, int fd, epoll_event* event)
    int epoll_wait(int epoll, epoll_event* events, int room, int timeout_ms)


cdef extern from "<sys/eventfd.h>" nogil:
    int eventfd(unsigned int count, int flags)
    int eventfd_write(int fd, uint64_t value)
    int eventfd_read(int fd, uint64_t* value)
    int EFD_CLOEXEC
    int EFD_NONBLOCK


cdef extern from "<sys/socket.h>" nogil:
    int MSG_NOSIGNAL
    int MSG_DONTWAIT
    int SOCK_CLOEXEC
    ssize_t recv(int fd, void* buffer, size_t room, int flags)
    ssize_t sendmsg(int fd, const msghdr* message, int flags)


cdef extern from *:
    """
    #define _GNU_SOURCE 1
    #include <sys/socket.h>
    #include <unistd.h>
    extern int accept4(int fd, struct sockaddr *address, socklen_t *length, int flags);
    """
    int accept4(int fd, void* address, void* length, int flags) nogil
    ssize_t pread(int fd, void* buffer, size_t length, off_t offset) nogil
    ssize_t pwrite(int fd, const void* buffer, size_t length, off_t offset) nogil


cdef enum:
    POOL_THREADS = 4
    EPOLL_EVENTS = 128
    DESCRIPTORS_MIN = 64


ctypedef struct job_t:
    job_t* next
    uint64_t token
    uint64_t offset
    void* buffer
    uint32_t length
    int kind


ctypedef struct job_list_t:
    job_t* first
    job_t* last


# What is under way on one descriptor: at most one verb in each direction.
ctypedef struct descriptor_state_t:
    bint registered
    bint reading
    bint accepting
    bint writing
    uint64_t read_token
    uint64_t write_token
    void* buffer
    uint32_t room
    const msghdr* message


ctypedef struct threads_t:
    int disk_fd
    int epoll_fd
    int wake_fd
    bint stopping
    int thread_count
    pthread_t threads[POOL_THREADS]
    pthread_mutex_t mutex            # guards todo, done, free and stopping
    pthread_cond_t work
    job_t* jobs
    job_list_t todo
    job_list_t done
    job_list_t free
    descriptor_state_t* descriptors
    int descriptor_count
    aio_answer_t* ready              # socket verbs answered at once: a ring
    uint32_t ready_first
    uint32_t ready_count


# ---- lists of jobs ---------------------------------------------------------------------


cdef void push(job_list_t* jobs, job_t* job) noexcept nogil:
    job.next = NULL
    if jobs.last == NULL:
        jobs.first = job
    else:
        jobs.last.next = job
    jobs.last = job


cdef job_t* pop(job_list_t* jobs) noexcept nogil:
    cdef job_t* job = jobs.first
    if job != NULL:
        jobs.first = job.next
        if jobs.first == NULL:
            jobs.last = NULL
    return job


# ---- the pool --------------------------------------------------------------------------


cdef int32_t carried_out(int disk_fd, job_t* job) noexcept nogil:
    cdef ssize_t result
    while True:
        if job.kind == DISK_READ:
            result = pread(disk_fd, job.buffer, job.length, <off_t>job.offset)
        elif job.kind == DISK_WRITE:
            result = pwrite(disk_fd, job.buffer, job.length, <off_t>job.offset)
        else:
            # interrupted or not: a flush that failed once is never tried again
            return 0 if fdatasync(disk_fd) == 0 else -errno
        if result >= 0:
            return <int32_t>result
        if errno != EINTR:
            return -errno


cdef void* worker(void* context) noexcept nogil:
    cdef threads_t* self = <threads_t*>context
    cdef job_t* job
    cdef bint first
    pthread_mutex_lock(&self.mutex)
    while True:
        job = pop(&self.todo)
        if job == NULL:
            if self.stopping:
                break
            pthread_cond_wait(&self.work, &self.mutex)
            continue
        pthread_mutex_unlock(&self.mutex)
        # the length has done its duty after the call: the result takes its place
        job.length = <uint32_t>carried_out(self.disk_fd, job)
        pthread_mutex_lock(&self.mutex)
        first = self.done.first == NULL
        push(&self.done, job)
        if first:
            eventfd_write(self.wake_fd, 1)
    pthread_mutex_unlock(&self.mutex)
    return NULL


cdef int threads_start(void* context) noexcept nogil:
    cdef threads_t* self = <threads_t*>context
    cdef int result
    while self.thread_count < POOL_THREADS:
        result = pthread_create(&self.threads[self.thread_count], NULL, worker, self)
        if result != 0:
            return -result
        self.thread_count += 1
    return 0


cdef void threads_disk(void* context, int kind, uint64_t offset, void* buffer, uint32_t length,
                       uint64_t token) noexcept nogil:
    cdef threads_t* self = <threads_t*>context
    cdef job_t* job
    pthread_mutex_lock(&self.mutex)
    job = pop(&self.free)
    job.kind = kind
    job.offset = offset
    job.buffer = buffer
    job.length = length
    job.token = token
    push(&self.todo, job)
    pthread_cond_signal(&self.work)
    pthread_mutex_unlock(&self.mutex)


cdef int take_done(threads_t* self, aio_answer_t* answers, int room) noexcept nogil:
    """Moves finished disk jobs into answers; what finds no room keeps the loop awake."""
    cdef job_t* job
    cdef int count = 0
    pthread_mutex_lock(&self.mutex)
    while count < room:
        job = pop(&self.done)
        if job == NULL:
            break
        answers[count].token = job.token
        answers[count].result = <int32_t>job.length
        count += 1
        push(&self.free, job)
    if self.done.first != NULL:
        eventfd_write(self.wake_fd, 1)
    pthread_mutex_unlock(&self.mutex)
    return count


# ---- sockets ---------------------------------------------------------------------------


cdef void answer(threads_t* self, uint64_t token, ssize_t result) noexcept nogil:
    cdef uint32_t at = (self.ready_first + self.ready_count) % AIO_INFLIGHT_MAX
    self.ready[at].token = token
    self.ready[at].result = <int32_t>result
    self.ready_count += 1


cdef int take_ready(threads_t* self, aio_answer_t* answers, int room) noexcept nogil:
    cdef int count = 0
    while count < room and self.ready_count:
        answers[count] = self.ready[self.ready_first]
        self.ready_first = (self.ready_first + 1) % AIO_INFLIGHT_MAX
        self.ready_count -= 1
        count += 1
    return count


cdef int register(threads_t* self, int fd) noexcept nogil:
    """Makes room in the table and has epoll watch the descriptor; 0 or a negative errno."""
    cdef descriptor_state_t* grown
    cdef epoll_event event
    cdef int count = self.descriptor_count
    if fd >= count:
        while fd >= count:
            count *= 2
        grown = <descriptor_state_t*>realloc(self.descriptors, count * sizeof(descriptor_state_t))
        if grown == NULL:
            return -ENOMEM
        memset(grown + self.descriptor_count, 0,
               (count - self.descriptor_count) * sizeof(descriptor_state_t))
        self.descriptors = grown
        self.descriptor_count = count
    if self.descriptors[fd].registered:
        return 0
    memset(&event, 0, sizeof(event))
    event.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET
    event.data.fd = fd
    if epoll_ctl(self.epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0:
        return -errno
    self.descriptors[fd].registered = True
    return 0


cdef void try_read(threads_t* self, int fd) noexcept nogil:
    """Carries out the receive or accept of a descriptor if it can be done now."""
    cdef descriptor_state_t* state = &self.descriptors[fd]
    cdef ssize_t result
    if state.accepting:
        result = accept4(fd, NULL, NULL, SOCK_CLOEXEC)
    elif state.reading:
        result = recv(fd, state.buffer, state.room, MSG_DONTWAIT)
    else:
        return
    if result < 0:
        result = -errno
        if result == -EAGAIN or result == -EINTR:
            return
    state.accepting = False
    state.reading = False
    answer(self, state.read_token, result)


cdef void try_write(threads_t* self, int fd) noexcept nogil:
    cdef descriptor_state_t* state = &self.descriptors[fd]
    cdef ssize_t result
    if not state.writing:
        return
    result = sendmsg(fd, state.message, MSG_DONTWAIT | MSG_NOSIGNAL)
    if result < 0:
        result = -errno
        if result == -EAGAIN or result == -EINTR:
            return
    state.writing = False
    answer(self, state.write_token, result)


cdef void threads_receive(void* context, int fd, void* buffer, uint32_t room,
                          uint64_t token) noexcept nogil:
    cdef threads_t* self = <threads_t*>context
    cdef int result = register(self, fd)
    if result < 0:
        answer(self, token, result)
        return
    self.descriptors[fd].reading = True
    self.descriptors[fd].read_token = token
    self.descriptors[fd].buffer = buffer
    self.descriptors[fd].room = room
    try_read(self, fd)


cdef void threads_accept(void* context, int fd, uint64_t token) noexcept nogil:
    cdef threads_t* self = <threads_t*>context
    cdef int result = register(self, fd)
    if result < 0:
        answer(self, token, result)
        return
    # a connection may be gone again when it is accepted, and that must not block the loop
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL, 0) | O_NONBLOCK)
    self.descriptors[fd].accepting = True
    self.descriptors[fd].read_token = token
    try_read(self, fd)


cdef void threads_send(void* context, int fd, const msghdr* message, uint64_t token) noexcept nogil:
    cdef threads_t* self = <threads_t*>context
    cdef int result = register(self, fd)
    if result < 0:
        answer(self, token, result)
        return
    self.descriptors[fd].writing = True
    self.descriptors[fd].write_token = token
    self.descriptors[fd].message = message
    try_write(self, fd)


cdef void threads_close(void* context, int fd) noexcept nogil:
    cdef threads_t* self = <threads_t*>context
    if fd < self.descriptor_count:
        memset(&self.descriptors[fd], 0, sizeof(descriptor_state_t))
    close(fd)


# ---- waiting ---------------------------------------------------------------------------


cdef int rounded_up_ms(int64_t timeout_ns) noexcept nogil:
    cdef int64_t timeout_ms = (timeout_ns + 999999) // 1000000
    if timeout_ns < 0:
        return -1
    return <int>timeout_ms if timeout_ms < 3600000 else 3600000


cdef int poll(threads_t* self, int timeout_ms) noexcept nogil:
    cdef epoll_event events[EPOLL_EVENTS]
    cdef uint64_t value
    cdef int i, fd
    cdef int count = epoll_wait(self.epoll_fd, events, EPOLL_EVENTS, timeout_ms)
    if count < 0:
        return 0 if errno == EINTR else -errno
    for i in range(count):
        fd = events[i].data.fd
        if fd == self.wake_fd:
            eventfd_read(self.wake_fd, &value)
            continue
        if events[i].events & (EPOLLIN | EPOLLRDHUP | EPOLLERR | EPOLLHUP):
            try_read(self, fd)
        if events[i].events & (EPOLLOUT | EPOLLERR | EPOLLHUP):
            try_write(self, fd)
        if events[i].events & EPOLLHUP and self.descriptors[fd].accepting:
            # a unix listener that was shut down says only EAGAIN to a non-blocking accept
            self.descriptors[fd].accepting = False
            answer(self, self.descriptors[fd].read_token, -EINVAL)
    return 0


cdef int threads_wait(void* context, int64_t timeout_ns, aio_answer_t* answers, int room) noexcept nogil:
    cdef threads_t* self = <threads_t*>context
    # sockets are looked at even when answers are ready, or a busy disk would starve them
    cdef int result = poll(self, 0 if self.ready_count else rounded_up_ms(timeout_ns))
    cdef int count
    if result < 0:
        return result
    # each kind leaves half of the room to the other
    count = take_ready(self, answers, room // 2)
    count += take_done(self, answers + count, room - count)
    return count + take_ready(self, answers + count, room - count)


cdef void threads_wake(void* context) noexcept nogil:
    eventfd_write((<threads_t*>context).wake_fd, 1)


# ---- making and unmaking ---------------------------------------------------------------


cdef void threads_destroy(void* context) noexcept nogil:
    cdef threads_t* self = <threads_t*>context
    cdef int i
    pthread_mutex_lock(&self.mutex)
    self.stopping = True
    pthread_cond_broadcast(&self.work)
    pthread_mutex_unlock(&self.mutex)
    for i in range(self.thread_count):
        pthread_join(self.threads[i], NULL)
    pthread_cond_destroy(&self.work)
    pthread_mutex_destroy(&self.mutex)
    release(self)


cdef void release(threads_t* self) noexcept nogil:
    if self.epoll_fd >= 0:
        close(self.epoll_fd)
    if self.wake_fd >= 0:
        close(self.wake_fd)
    free(self.descriptors)
    free(self.ready)
    free(self.jobs)
    free(self)


cdef int open_descriptors(threads_t* self) noexcept nogil:
    cdef epoll_event event
    self.epoll_fd = epoll_create1(EPOLL_CLOEXEC)
    self.wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)
    if self.epoll_fd < 0 or self.wake_fd < 0:
        return -errno
    memset(&event, 0, sizeof(event))
    event.events = EPOLLIN
    event.data.fd = self.wake_fd
    return 0 if epoll_ctl(self.epoll_fd, EPOLL_CTL_ADD, self.wake_fd, &event) == 0 else -errno


cdef int threads_create(aio_t* aio, int disk_fd) noexcept nogil:
    cdef threads_t* self = <threads_t*>calloc(1, sizeof(threads_t))
    cdef int i, result
    if self == NULL:
        return -ENOMEM
    self.disk_fd = disk_fd
    self.descriptor_count = DESCRIPTORS_MIN
    self.descriptors = <descriptor_state_t*>calloc(DESCRIPTORS_MIN, sizeof(descriptor_state_t))
    self.ready = <aio_answer_t*>calloc(AIO_INFLIGHT_MAX, sizeof(aio_answer_t))
    self.jobs = <job_t*>calloc(AIO_INFLIGHT_MAX, sizeof(job_t))
    result = open_descriptors(self)
    if self.descriptors == NULL or self.ready == NULL or self.jobs == NULL:
        result = -ENOMEM
    if result < 0:
        release(self)
        return result
    for i in range(AIO_INFLIGHT_MAX):
        push(&self.free, &self.jobs[i])
    pthread_mutex_init(&self.mutex, NULL)
    pthread_cond_init(&self.work, NULL)
    aio.context = self
    aio.start = threads_start
    aio.disk = threads_disk
    aio.receive = threads_receive
    aio.send = threads_send
    aio.accept = threads_accept
    aio.close = threads_close
    aio.wait = threads_wait
    aio.wake = threads_wake
    aio.destroy = threads_destroy
    return 0


cdef aio_driver_t _driver = aio_driver_t(name=b"threads", create=threads_create)
driver = PyCapsule_New(&_driver, "repstore.aio_driver", NULL)
