"""An engine that does nothing but answer: what the loop and its drivers are tested with.

Frames and bytes come back to whoever sent them; everything the loop tells is kept as an event
for the test to read, and one eventfd says after every turn that there may be some.
"""
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t, uintptr_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcmp, memcpy

import os

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from repstore._fast.aio cimport aio_answer_t, aio_t
from repstore._fast.backend cimport backend_t
from repstore._fast.layout cimport frame_header_t
from repstore._fast.loop cimport (
    Loop, engine_vtable_t, loop_attach, loop_backend, loop_lock, loop_t, loop_unlock,
)


cdef extern from "<sys/eventfd.h>" nogil:
    int eventfd_write(int fd, uint64_t value)

cdef extern from * nogil:
    uint32_t load_acquire "__atomic_load_n"(uint32_t* number, int order)
    void store_release "__atomic_store_n"(uint32_t* number, uint32_t value, int order)
    int ACQUIRE "__ATOMIC_ACQUIRE"
    int RELEASE "__ATOMIC_RELEASE"


cdef enum:
    EVENTS_MAX = 65536
    KEPT_MAX = 64                    # disk verbs kept back over a loop's life

cdef enum event_kind_t:
    EVENT_DISK = 0
    EVENT_SENT = 1
    EVENT_UP = 2
    EVENT_DOWN = 3
    EVENT_FRAME = 4
    EVENT_BYTES = 5

_NAMES = ("disk", "sent", "up", "down", "frame", "bytes")


ctypedef struct event_t:
    int kind
    uint32_t link
    uint64_t token
    long long value


ctypedef struct echo_t:
    backend_t* backend
    int event_fd
    event_t events[EVENTS_MAX]
    uint32_t count
    uint32_t lent                    # copies the loop still has
    uint32_t unit                    # bytes of a stream are consumed in multiples of this
    uint64_t now_ns
    bint told_the_time               # in this round
    uint32_t untimely                # inputs that came before the time of their round
    uint32_t turns
    uint32_t busy_turns              # so many turns ask for another one
    uint64_t deadline_after_ns       # a deadline this long after the first turn
    uint64_t deadline_ns
    uint64_t late_ns                 # how late the turn after the deadline was; 0: not yet
    bint hold_next                   # hold a link at its next frame


cdef void note(echo_t* self, int kind, uint32_t link, uint64_t token, long long value) noexcept nogil:
    cdef event_t* event
    if self.count == EVENTS_MAX:
        return
    event = &self.events[self.count]
    event.kind = kind
    event.link = link
    event.token = token
    event.value = value
    self.count += 1
    self.untimely += not self.told_the_time
    eventfd_write(self.event_fd, 1)


cdef void disk_done(void* engine, uint64_t token, int32_t result) noexcept nogil:
    note(<echo_t*>engine, EVENT_DISK, 0, token, result)


cdef void sent(void* engine, uint32_t link, uint64_t token) noexcept nogil:
    cdef echo_t* self = <echo_t*>engine
    if token > EVENTS_MAX:
        # the address of one of our copies
        free(<void*><uintptr_t>token)
        self.lent -= 1
        return
    note(self, EVENT_SENT, link, token, 0)


cdef void link_up(void* engine, uint32_t link, int kind) noexcept nogil:
    note(<echo_t*>engine, EVENT_UP, link, 0, kind)


cdef void link_down(void* engine, uint32_t link) noexcept nogil:
    note(<echo_t*>engine, EVENT_DOWN, link, 0, 0)


cdef void give_back(echo_t* self, uint32_t link, const void* head, uint32_t head_bytes,
                    const uint8_t* body, uint32_t body_bytes) noexcept nogil:
    cdef uint8_t* copy = <uint8_t*>malloc(body_bytes + 1)
    memcpy(copy, body, body_bytes)
    self.lent += 1
    self.backend.send(self.backend.context, link, head, head_bytes, copy, body_bytes,
                      <uint64_t><uintptr_t>copy)


cdef void frame(void* engine, uint32_t link, const frame_header_t* header, const uint8_t* meta,
                const uint8_t* body) noexcept nogil:
    cdef echo_t* self = <echo_t*>engine
    cdef uint8_t head[64 + 8192]
    memcpy(head, header, 64)
    memcpy(head + 64, meta, header.meta_bytes)
    note(self, EVENT_FRAME, link, header.lsn, header.body_bytes)
    give_back(self, link, head, 64 + header.meta_bytes, body, header.body_bytes)
    if self.hold_next:
        self.hold_next = False
        self.backend.hold(self.backend.context, link, 1)


cdef uint32_t stream(void* engine, uint32_t link, const uint8_t* bytes, uint32_t count) noexcept nogil:
    cdef echo_t* self = <echo_t*>engine
    cdef uint32_t consumed = count - count % self.unit
    note(self, EVENT_BYTES, link, 0, count)
    if consumed:
        give_back(self, link, NULL, 0, bytes, consumed)
        if consumed == 4 and memcmp(bytes, b"QUIT", 4) == 0:
            self.backend.close(self.backend.context, link)
    return consumed


cdef void begin(void* engine, uint64_t now_ns) noexcept nogil:
    cdef echo_t* self = <echo_t*>engine
    self.now_ns = now_ns
    self.told_the_time = True


cdef uint64_t turn(void* engine, int* busy) noexcept nogil:
    cdef echo_t* self = <echo_t*>engine
    cdef uint64_t now_ns = self.now_ns
    self.told_the_time = False
    self.turns += 1
    eventfd_write(self.event_fd, 1)
    if self.turns <= self.busy_turns:
        busy[0] = 1
    if self.deadline_after_ns and self.deadline_ns == 0:
        self.deadline_ns = now_ns + self.deadline_after_ns
    if self.deadline_ns and now_ns >= self.deadline_ns and self.late_ns == 0:
        self.late_ns = now_ns - self.deadline_ns + 1
    return 0 if self.late_ns else self.deadline_ns


# ---- a disk that answers when it is told ------------------------------------------------
# It stands between the loop and its driver and keeps the disk verbs back. Without links.


ctypedef struct verb_t:
    uint64_t offset
    void* buffer
    uint64_t token
    uint32_t length
    int kind


ctypedef struct kept_disk_t:
    aio_t driver
    verb_t verbs[KEPT_MAX]
    uint32_t count
    uint32_t passed_on
    uint32_t allowed                 # so many may be passed on; read by the loop's thread without the lock


cdef void keep_back(void* context, int kind, uint64_t offset, void* buffer, uint32_t length,
                    uint64_t token) noexcept nogil:
    cdef kept_disk_t* self = <kept_disk_t*>context
    self.verbs[self.count] = verb_t(offset=offset, buffer=buffer, token=token, length=length, kind=kind)
    self.count += 1


cdef int start_driver(void* context) noexcept nogil:
    cdef kept_disk_t* self = <kept_disk_t*>context
    return self.driver.start(self.driver.context)


cdef int pass_on_and_wait(void* context, int64_t timeout_ns, aio_answer_t* answers, int room) noexcept nogil:
    cdef kept_disk_t* self = <kept_disk_t*>context
    cdef verb_t* verb
    while self.passed_on < min(load_acquire(&self.allowed, ACQUIRE), self.count):
        verb = &self.verbs[self.passed_on]
        self.passed_on += 1
        self.driver.disk(self.driver.context, verb.kind, verb.offset, verb.buffer, verb.length, verb.token)
    return self.driver.wait(self.driver.context, timeout_ns, answers, room)


cdef void wake_driver(void* context) noexcept nogil:
    cdef kept_disk_t* self = <kept_disk_t*>context
    self.driver.wake(self.driver.context)


cdef void destroy_driver(void* context) noexcept nogil:
    cdef kept_disk_t* self = <kept_disk_t*>context
    self.driver.destroy(self.driver.context)
    free(self)


cdef class Echo:
    """Attached to a loop it answers; keep it until the loop's thread has ended."""
    cdef echo_t* echo
    cdef Loop loop
    cdef loop_t* raw
    cdef kept_disk_t* kept_disk      # NULL, or the loop's own now
    cdef list lent_buffers
    cdef readonly int event_fd

    def __cinit__(self, Loop loop, int unit=1, int busy_turns=0, long deadline_after_ns=0, bint keep_disk=False):
        cdef engine_vtable_t vtable = engine_vtable_t(
            begin=begin, disk_done=disk_done, sent=sent, link_up=link_up, link_down=link_down, frame=frame,
            stream=stream, turn=turn,
        )
        self.echo = <echo_t*>calloc(1, sizeof(echo_t))
        self.loop = loop
        self.raw = loop.loop
        self.lent_buffers = []
        self.event_fd = os.eventfd(0, os.EFD_NONBLOCK)
        self.echo.event_fd = self.event_fd
        self.echo.unit = unit
        self.echo.busy_turns = busy_turns
        self.echo.deadline_after_ns = deadline_after_ns
        self.echo.backend = loop_backend(loop)
        loop_attach(loop, self.echo, &vtable)
        if keep_disk:
            self.keep_the_disk_back()

    cdef void keep_the_disk_back(self):
        cdef aio_t* aio = &self.raw.aio
        self.kept_disk = <kept_disk_t*>calloc(1, sizeof(kept_disk_t))
        self.kept_disk.driver = aio[0]
        aio[0] = aio_t(context=self.kept_disk, start=start_driver, disk=keep_back, receive=NULL, send=NULL,
                       accept=NULL, close=NULL, wait=pass_on_and_wait, wake=wake_driver,
                       destroy=destroy_driver)

    def __dealloc__(self):
        os.close(self.event_fd)
        free(self.echo)

    def disk(self, int kind, uint64_t offset, buffer, uint64_t token):
        """Asks for a disk verb from outside of the loop's thread."""
        cdef Py_buffer view
        PyObject_GetBuffer(buffer, &view, PyBUF_SIMPLE)
        self.lent_buffers.append(buffer)
        with nogil:
            loop_lock(self.raw)
            self.echo.backend.disk(self.echo.backend.context, kind, offset, view.buf,
                                   <uint32_t>view.len, token)
            loop_unlock(self.raw)
        PyBuffer_Release(&view)

    def pass_on(self, uint32_t count):
        """Lets the driver of a kept disk have `count` more verbs."""
        store_release(&self.kept_disk.allowed, self.kept_disk.allowed + count, RELEASE)
        self.loop.wake()

    @property
    def kept(self):
        """The kinds of the verbs that reached the kept disk so far, in order."""
        cdef uint32_t i, count
        with nogil:
            loop_lock(self.raw)
            count = self.kept_disk.count
            loop_unlock(self.raw)
        return [self.kept_disk.verbs[i].kind for i in range(count)]

    def send(self, uint32_t link, bytes head, bytes body, uint64_t token):
        cdef const char* head_bytes = head
        cdef const char* body_bytes = body
        cdef uint32_t head_count = <uint32_t>len(head)
        cdef uint32_t body_count = <uint32_t>len(body)
        self.lent_buffers.append(body)
        with nogil:
            loop_lock(self.raw)
            self.echo.backend.send(self.echo.backend.context, link, head_bytes, head_count,
                                   body_bytes, body_count, token)
            loop_unlock(self.raw)

    def close(self, uint32_t link):
        with nogil:
            loop_lock(self.raw)
            self.echo.backend.close(self.echo.backend.context, link)
            loop_unlock(self.raw)

    def hold(self, uint32_t link, int stopped):
        with nogil:
            loop_lock(self.raw)
            self.echo.backend.hold(self.echo.backend.context, link, stopped)
            loop_unlock(self.raw)

    def hold_at_next_frame(self):
        with nogil:
            loop_lock(self.raw)
            self.echo.hold_next = True
            loop_unlock(self.raw)

    def unit(self, int unit):
        with nogil:
            loop_lock(self.raw)
            self.echo.unit = unit
            loop_unlock(self.raw)

    def events(self):
        """All events so far: (name, link, token, value)."""
        cdef uint32_t i, count
        with nogil:
            loop_lock(self.raw)
            count = self.echo.count
            loop_unlock(self.raw)
        return [
            (_NAMES[self.echo.events[i].kind], self.echo.events[i].link, self.echo.events[i].token,
             self.echo.events[i].value)
            for i in range(count)
        ]

    @property
    def lent(self):
        cdef uint32_t lent
        with nogil:
            loop_lock(self.raw)
            lent = self.echo.lent
            loop_unlock(self.raw)
        return lent

    @property
    def untimely(self):
        return self.echo.untimely

    @property
    def turns(self):
        cdef uint32_t turns
        with nogil:
            loop_lock(self.raw)
            turns = self.echo.turns
            loop_unlock(self.raw)
        return turns

    @property
    def late_ns(self):
        cdef uint64_t late_ns
        with nogil:
            loop_lock(self.raw)
            late_ns = self.echo.late_ns
            loop_unlock(self.raw)
        return late_ns
