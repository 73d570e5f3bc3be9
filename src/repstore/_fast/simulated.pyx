"""The simulated backend: see simulated.pxd for the rules."""
from typing import NamedTuple

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport abort, free, malloc, realloc
from libc.string cimport memcpy, memset

from repstore._fast.backend cimport DISK_FLUSH, DISK_READ, DISK_WRITE
from repstore._fast.control cimport Engine
from repstore._fast.engine cimport (
    engine_begin, engine_disk_done, engine_frame, engine_link_down, engine_link_up, engine_sent, engine_turn,
)
from repstore._fast.layout cimport FRAME_HEADER_BYTES, frame_header_t
from repstore._fast.transport cimport LINKS_MAX, frame_crc, is_plausible


class DiskRead(NamedTuple):
    """The engine wants `length` bytes from `offset`."""
    operation: int
    offset: int
    length: int


class DiskWrite(NamedTuple):
    """The engine wants `data` written at `offset`."""
    operation: int
    offset: int
    data: bytes


class DiskFlush(NamedTuple):
    """The engine wants every write durable that was answered before."""
    operation: int


class Send(NamedTuple):
    """One whole message for a link; `token`, unless 0, waits for its answer."""
    link: int
    token: int
    data: bytes


class Close(NamedTuple):
    """Drop a link."""
    link: int


class Hold(NamedTuple):
    """Stop delivering from a link, or go on."""
    link: int
    stopped: bool


# ------------------------------------------------------------------- what the engine calls

cdef void* grown(void* items, uint32_t* capacity, uint32_t item_bytes) noexcept nogil:
    """Twice the room. A simulation without memory has nothing to say: it ends at once."""
    cdef uint32_t old = capacity[0]
    cdef void* larger
    capacity[0] = 2 * old if old else 64
    larger = realloc(items, <size_t>capacity[0] * item_bytes)
    if larger == NULL:
        abort()
    memset(<uint8_t*>larger + <size_t>old * item_bytes, 0, <size_t>(capacity[0] - old) * item_bytes)
    return larger


cdef ask_t* next_ask(recorder_t* self, int kind, uint32_t number) noexcept nogil:
    cdef ask_t* ask
    if self.ask_count == self.ask_capacity:
        self.asks = <ask_t*>grown(self.asks, &self.ask_capacity, sizeof(ask_t))
    ask = &self.asks[self.ask_count]
    self.ask_count += 1
    memset(ask, 0, sizeof(ask_t))
    ask.kind = <uint8_t>kind
    ask.number = number
    return ask


cdef void copy_bytes(ask_t* ask, const void* head, uint32_t head_bytes, const void* body,
                     uint32_t body_bytes) noexcept nogil:
    ask.byte_count = head_bytes + body_bytes
    if ask.byte_count == 0:
        return
    ask.bytes = <uint8_t*>malloc(ask.byte_count)
    if ask.bytes == NULL:
        abort()
    if head_bytes:
        memcpy(ask.bytes, head, head_bytes)
    if body_bytes:
        memcpy(ask.bytes + head_bytes, body, body_bytes)


cdef uint32_t free_operation(recorder_t* self) noexcept nogil:
    """The lowest free number: the same run gives the same numbers."""
    cdef uint32_t number = 0
    while number < self.operation_capacity and self.operations[number].kind:
        number += 1
    if number == self.operation_capacity:
        self.operations = <operation_t*>grown(self.operations, &self.operation_capacity, sizeof(operation_t))
    return number


cdef void record_disk(void* context, int kind, uint64_t offset, void* buffer, uint32_t length,
                      uint64_t token) noexcept nogil:
    cdef recorder_t* self = <recorder_t*>context
    cdef uint32_t number = free_operation(self)
    cdef operation_t* operation = &self.operations[number]
    cdef ask_t* ask = next_ask(self, ASK_DISK, number)
    operation.kind = <uint8_t>kind
    operation.offset = offset
    operation.buffer = buffer
    operation.length = length
    operation.token = token
    self.flying += 1
    if kind == DISK_WRITE:
        copy_bytes(ask, buffer, length, NULL, 0)


cdef void record_send(void* context, uint32_t link, const void* head, uint32_t head_bytes,
                      const void* body, uint32_t body_bytes, uint64_t token) noexcept nogil:
    cdef ask_t* ask = next_ask(<recorder_t*>context, ASK_SEND, link)
    ask.token = token
    copy_bytes(ask, head, head_bytes, body, body_bytes)


cdef void record_close(void* context, uint32_t link) noexcept nogil:
    next_ask(<recorder_t*>context, ASK_CLOSE, link)


cdef void record_hold(void* context, uint32_t link, int stopped) noexcept nogil:
    next_ask(<recorder_t*>context, ASK_HOLD, link).argument = stopped


# ---------------------------------------------------------------------- what its owner calls

cdef class SimulatedBackend:
    """All that one engine asks of the world, and the one who answers it.

    Binds to `engine` for good. Drain it with `take` after every call that can make the engine
    ask for something: the ones below, and the verbs of the engine itself.
    """
    cdef recorder_t recorder
    cdef Engine engine
    cdef uint8_t[1024] up              # by link

    def __cinit__(self, Engine engine not None):
        memset(&self.recorder, 0, sizeof(recorder_t))
        memset(self.up, 0, sizeof(self.up))
        if engine.engine.backend != NULL:
            raise ValueError("the engine has a backend already")
        self.recorder.backend.context = &self.recorder
        self.recorder.backend.disk = record_disk
        self.recorder.backend.send = record_send
        self.recorder.backend.close = record_close
        self.recorder.backend.hold = record_hold
        self.engine = engine
        engine.attach_backend(self, &self.recorder.backend)

    def __dealloc__(self):
        cdef uint32_t i
        for i in range(self.recorder.ask_count):
            free(self.recorder.asks[i].bytes)
        free(self.recorder.asks)
        free(self.recorder.operations)

    @property
    def flying(self):
        """Disk operations that wait for their answer."""
        return self.recorder.flying

    @property
    def events_waiting(self):
        """Events that the engine has for its control code."""
        return self.engine.engine.events.count

    @property
    def woken(self):
        """A verb of the engine was called that a loop would have been woken for."""
        return self.engine.woken

    def take(self):
        """What the engine asked for since the last call, oldest first (B1)."""
        cdef uint32_t i
        found = []
        for i in range(self.recorder.ask_count):
            found.append(self.taken(&self.recorder.asks[i]))
        self.recorder.ask_count = 0
        return found

    cdef object taken(self, ask_t* ask):
        cdef operation_t* operation
        cdef object data = PyBytes_FromStringAndSize(<char*>ask.bytes, ask.byte_count) if ask.byte_count else b""
        free(ask.bytes)
        ask.bytes = NULL
        if ask.kind == ASK_SEND:
            return Send(ask.number, ask.token, data)
        if ask.kind == ASK_CLOSE:
            return Close(ask.number)
        if ask.kind == ASK_HOLD:
            return Hold(ask.number, ask.argument != 0)
        operation = &self.recorder.operations[ask.number]
        if operation.kind == DISK_READ:
            return DiskRead(ask.number, operation.offset, operation.length)
        if operation.kind == DISK_WRITE:
            return DiskWrite(ask.number, operation.offset, data)
        return DiskFlush(ask.number)

    # ------------------------------------------------------------------------------ answers

    def disk_done(self, uint32_t number, int32_t result, const uint8_t[::1] data=None):
        """Answer a disk operation: its length (a flush: 0), or a negative errno.

        A read that went well comes with its bytes. Raises ValueError, before anything
        changes, for a number that waits for no answer and for an answer that cannot be.
        """
        cdef operation_t operation
        cdef uint32_t length
        if number >= self.recorder.operation_capacity or not self.recorder.operations[number].kind:
            raise ValueError(f"disk operation {number} waits for no answer")
        operation = self.recorder.operations[number]
        length = 0 if operation.kind == DISK_FLUSH else operation.length
        if result >= 0 and <uint32_t>result != length:
            raise ValueError(f"disk operation {number}: {result} bytes done, {length} were asked for")
        if operation.kind == DISK_READ and result >= 0:
            if data is None or <uint32_t>data.shape[0] != length:
                raise ValueError(f"disk operation {number}: a read of {length} bytes needs them all")
            memcpy(operation.buffer, &data[0], length)
        self.recorder.operations[number].kind = 0
        self.recorder.flying -= 1
        engine_disk_done(self.engine.engine, operation.token, result)

    def sent(self, uint32_t link, uint64_t token):
        """What was lent to this send is the engine's again."""
        self.check_link(link)
        engine_sent(self.engine.engine, link, token)

    def link_up(self, uint32_t link, int kind):
        """A new connection of a peer: 1 accepted, 3 connected. A number in use is refused."""
        self.check_link(link)
        if kind not in (1, 3):
            raise ValueError(f"link kind {kind}: must be 1 (accepted) or 3 (connected)")
        if self.up[link]:
            raise ValueError(f"link {link} is up already")
        self.up[link] = True
        engine_link_up(self.engine.engine, link, kind)

    def link_down(self, uint32_t link):
        """The connection is gone; all its tokens were answered."""
        self.check_link(link)
        if not self.up[link]:
            raise ValueError(f"link {link} is not up")
        self.up[link] = False
        engine_link_down(self.engine.engine, link)

    def frame(self, uint32_t link, const uint8_t[::1] data not None):
        """Deliver one message. False: it is no frame, and a transport would cut the link (B4)."""
        cdef frame_header_t header
        cdef const uint8_t* meta
        self.check_link(link)
        if not self.up[link]:
            raise ValueError(f"link {link} is not up")
        if data.shape[0] < FRAME_HEADER_BYTES:
            return False
        memcpy(&header, &data[0], FRAME_HEADER_BYTES)
        if not is_plausible(&header) or (
                <uint64_t>data.shape[0] != <uint64_t>FRAME_HEADER_BYTES + header.meta_bytes + header.body_bytes):
            return False
        meta = &data[0] + FRAME_HEADER_BYTES
        if header.crc != frame_crc(&header, meta):
            return False
        engine_frame(self.engine.engine, link, &header, meta, meta + header.meta_bytes)
        return True

    def begin(self, uint64_t now_ns):
        """What is handed in from here to the next turn has happened by this time."""
        engine_begin(self.engine.engine, now_ns)

    def turn(self, uint64_t now_ns):
        """One turn at this time. Gives when the next is due (0: only when something happens),
        and whether the engine wants another one at once."""
        cdef int busy = 0
        cdef uint64_t deadline_ns
        self.engine.woken = False
        engine_begin(self.engine.engine, now_ns)
        deadline_ns = engine_turn(self.engine.engine, &busy)
        return deadline_ns, busy != 0

    cdef int check_link(self, uint32_t link) except -1:
        if link >= LINKS_MAX:
            raise ValueError(f"link {link}: must be below {LINKS_MAX}")
        return 0
