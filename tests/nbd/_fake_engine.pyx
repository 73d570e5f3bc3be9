"""An engine of memory for the frontend to talk to: inline, deferred, failing, or starving.

It plays the loop's part as well: it keeps what a link did not consume, hands it over in a
buffer of exactly that size which is freed after the call, copies a lent body only when it
answers `sent`, and writes down every broken promise in `violations`.
"""
from cpython.pycapsule cimport PyCapsule_GetPointer
from libc.errno cimport ENOENT
from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset

from frontend_api cimport (
    REPSTORE_FRONTEND_VERSION, RS_BLOCK_STATUS, RS_EXTENT_HOLE, RS_EXTENT_ZERO, RS_FLUSH, RS_NO_HOLE,
    RS_READ, RS_REQUEST_BYTES_MAX, RS_STREAM_WINDOW, RS_WRITE, RS_WRITE_ZEROES, rs_engine, rs_engine_api,
    rs_export, rs_extent, rs_frontend, rs_request)

cdef extern from "<malloc.h>":
    struct mallinfo2_t "mallinfo2":
        size_t uordblks
    mallinfo2_t mallinfo2()

cdef uint64_t BLOCK_BYTES = 4096


class Link:
    """One connection as the loop sees it."""

    def __init__(self) -> None:
        self.state = 0                   # address of the frontend's connection
        self.unread = bytearray()
        self.output = bytearray()
        self.unsent = []                 # (body address, body bytes, head, token)
        self.alive = True
        self.closed = False
        self.resumed = False


cdef class FakeEngine:
    cdef rs_engine_api api
    cdef rs_frontend* frontend
    cdef rs_request* pool
    cdef readonly bytearray disk
    cdef readonly bytearray states       # RS_EXTENT_* of each block
    cdef readonly dict links
    cdef readonly list violations, log, pending, free_requests
    cdef readonly set lent               # requests done and not released
    cdef readonly int export_users
    cdef public object error_of          # (kind, offset, length) -> errno
    cdef public bint inline_completion, inline_sent, inline_open, starved, read_only
    cdef public list names
    cdef public int open_error
    cdef list opening
    cdef int next_link

    def __cinit__(self, capsule, size_bytes=1 << 20, requests=64, inline=True):
        self.frontend = <rs_frontend*>PyCapsule_GetPointer(capsule, b"repstore.frontend")
        self.disk = bytearray(size_bytes)
        self.states = bytearray([RS_EXTENT_HOLE | RS_EXTENT_ZERO]) * -(-size_bytes // BLOCK_BYTES)
        self.links, self.violations, self.log, self.pending = {}, [], [], []
        self.lent, self.names, self.opening = set(), [b"demo"], []
        self.inline_completion = self.inline_sent = self.inline_open = inline
        self.free_requests = list(range(requests))
        self.pool = <rs_request*>calloc(requests, sizeof(rs_request))
        self.api.version = REPSTORE_FRONTEND_VERSION
        self.api.request_new = request_new
        self.api.request_submit = request_submit
        self.api.request_release = request_release
        self.api.send = send
        self.api.close = close
        self.api.export_open = export_open
        self.api.export_close = export_close
        self.api.export_name = export_name
        self.api.resume = resume
        self.api.export_describe = export_describe

    def __dealloc__(self):
        free(self.pool)

    # ---- the loop's part

    def connect(self) -> int:
        link = self.next_link
        self.next_link += 1
        self.links[link] = Link()
        self.links[link].state = <uint64_t>self.frontend.connected(
            &self.api, <rs_engine*><void*>self, link)
        return link

    def feed(self, link, data=b"") -> None:
        """Bytes arrive; what is not consumed comes again with the next ones."""
        entry = self.links[link]
        entry.unread += data
        entry.resumed = False
        while entry.unread and not entry.closed:       # an empty window is never handed over
            full = len(entry.unread) > RS_STREAM_WINDOW
            consumed = self.hand_over(entry, bytes(entry.unread[:RS_STREAM_WINDOW]))
            if consumed == 0 or not (full or entry.resumed):
                return
            entry.resumed = False

    cdef uint32_t hand_over(self, entry, bytes arrived):
        """One call of `received`; the buffer is as long as what is in it, and short-lived."""
        cdef uint32_t count = len(arrived)
        cdef uint8_t* window = <uint8_t*>malloc(count if count else 1)
        memcpy(window, <const uint8_t*>arrived, count)
        cdef uint32_t consumed = self.frontend.received(<void*><uint64_t>entry.state, window, count)
        free(window)
        if consumed > count:
            self.violations.append(f"consumed {consumed} of {count} bytes")
        del entry.unread[:consumed]
        return consumed

    def complete(self, index=0) -> None:
        """The pending request at `index` is carried out and answered."""
        cdef int slot
        slot, payload = self.pending.pop(index)
        self.perform(slot, payload)

    def sent(self, link) -> None:
        """The oldest send of a link has left: only now its body is looked at."""
        entry = self.links[link]
        address, count, head, token = entry.unsent.pop(0)
        entry.output += head
        entry.output += (<const uint8_t*><uint64_t>address)[:count] if count else b""
        if token:
            self.frontend.sent(<void*><uint64_t>entry.state, token)

    def open_answered(self) -> None:
        link, name, describing = self.opening.pop(0)
        self.answer_open(link, name, describing)

    def pump(self, choose=None) -> None:
        """Everything that can happen happens; `choose(n)` picks the next completion."""
        busy = True
        while busy:
            busy = False
            while self.opening:
                self.open_answered()
            while self.pending:
                self.complete(choose(len(self.pending)) if choose else 0)
                busy = True
            for link, entry in list(self.links.items()):
                while entry.unsent:
                    self.sent(link)
                    busy = True
                if entry.alive and self.starved and self.free_requests:
                    self.frontend.writable(<void*><uint64_t>entry.state)
                    entry.resumed = busy = True
                if entry.alive and entry.resumed:
                    self.feed(link)
                    busy = True
                if entry.alive and entry.closed:
                    self.disconnect(link)
                    busy = True
            if self.free_requests:
                self.starved = False

    def disconnect(self, link) -> None:
        entry = self.links[link]
        entry.alive = False
        entry.closed = True
        self.opening = [waiting for waiting in self.opening if waiting[0] != link]
        self.frontend.disconnected(<void*><uint64_t>entry.state)

    def output(self, link) -> bytes:
        """What the client got since the last call."""
        entry = self.links[link]
        taken = bytes(entry.output)
        entry.output.clear()
        return taken

    @property
    def opening_count(self) -> int:
        return len(self.opening)

    @property
    def requests_in_use(self) -> int:
        return len(self.lent) + len(self.pending)

    # ---- the engine's part

    cdef answer_open(self, link, name, describing):
        cdef rs_export info
        cdef int32_t error = 0 if name in self.names else ENOENT
        if self.open_error:
            error = self.open_error
        memset(&info, 0, sizeof(info))
        if error == 0:
            info.export_id = 0 if describing else 7
            info.read_only = self.read_only
            info.size_bytes = len(self.disk)
            self.export_users += not describing
        self.frontend.opened_export(
            <void*><uint64_t>self.links[link].state, error, &info if error == 0 else NULL)

    cdef asked(self, link, name, describing):
        name = name or b"demo"
        if self.inline_open:
            self.answer_open(link, name, describing)
        else:
            self.opening.append((link, name, describing))

    cdef perform(self, int slot, bytes payload):
        cdef rs_request* request = &self.pool[slot]
        begin, length = request.offset, request.length
        error = self.error_of(request.kind, begin, length) if self.error_of else 0
        self.lent.add(slot)
        request.error = error
        request.data = NULL
        if error == 0 and request.kind == RS_READ:
            self.give(request, bytes(self.disk[begin:begin + length]))
        elif error == 0 and request.kind == RS_BLOCK_STATUS:
            self.give(request, self.extents(begin, length))
        elif error == 0 and request.kind == RS_WRITE:
            self.change(begin, length, payload, 0)
        elif error == 0 and request.kind != RS_FLUSH:
            hole = 0 if request.flags & RS_NO_HOLE else RS_EXTENT_HOLE
            self.change(begin, length, bytes(length), hole | RS_EXTENT_ZERO)
        request.done(request)

    cdef give(self, rs_request* request, bytes data):
        request.data = malloc(len(data))
        memcpy(request.data, <const uint8_t*>data, len(data))
        request.data_bytes = len(data)

    cdef change(self, begin, length, data, state):
        self.disk[begin:begin + length] = data
        for block in range(begin // BLOCK_BYTES, -(-(begin + length) // BLOCK_BYTES)):
            whole = begin <= block * BLOCK_BYTES and (block + 1) * BLOCK_BYTES <= begin + length
            if whole or state == 0:
                self.states[block] = state

    cdef bytes extents(self, begin, length):
        cdef rs_extent extent
        found = b""
        position = begin
        while position < begin + length:
            state = self.states[position // BLOCK_BYTES]
            end = position
            while end < begin + length and self.states[end // BLOCK_BYTES] == state:
                end = (end // BLOCK_BYTES + 1) * BLOCK_BYTES
            extent.length = end - position
            extent.state = state
            found += (<const uint8_t*>&extent)[:sizeof(extent)]
            position = end
        return found

    cdef check(self, const rs_request* request):
        touched = (request.offset + request.length - 1) // BLOCK_BYTES - request.offset // BLOCK_BYTES + 1
        if request.kind == RS_FLUSH:
            return
        if request.length == 0 or request.offset + request.length > <uint64_t>len(self.disk):
            self.violations.append(f"request [{request.offset}, +{request.length}) is out of range")
        if request.kind in (RS_READ, RS_WRITE) and touched > RS_REQUEST_BYTES_MAX // BLOCK_BYTES:
            self.violations.append(f"a request touches {touched} blocks")
        if request.kind == RS_WRITE_ZEROES and (request.offset % BLOCK_BYTES or request.length % BLOCK_BYTES):
            self.violations.append(f"zeroes of a part of a block: [{request.offset}, +{request.length})")


def heap_bytes() -> int:
    """Bytes malloc has handed out: what leaks, grows."""
    return mallinfo2().uordblks


cdef rs_request* request_new(rs_engine* engine, uint32_t link) noexcept with gil:
    self = <FakeEngine><void*>engine
    if not self.free_requests:
        self.starved = True
        return NULL
    return &self.pool[<int>self.free_requests.pop()]


cdef void request_submit(rs_engine* engine, rs_request* request) noexcept with gil:
    self = <FakeEngine><void*>engine
    cdef int slot = request - self.pool
    self.check(request)
    self.log.append((request.kind, request.flags, request.offset, request.length))
    payload = b""
    if request.kind == RS_WRITE:
        payload = (<const uint8_t*>request.data)[:request.length]
    if self.inline_completion:
        self.perform(slot, payload)
    else:
        self.pending.append((slot, payload))


cdef void request_release(rs_engine* engine, rs_request* request) noexcept with gil:
    self = <FakeEngine><void*>engine
    cdef int slot = request - self.pool
    if slot not in self.lent:
        self.violations.append("a request was released that was not done")
        return
    self.lent.remove(slot)
    free(request.data)
    request.data = NULL
    self.free_requests.append(slot)


cdef void send(rs_engine* engine, uint32_t link, const void* head, uint32_t head_bytes,
               const void* body, uint32_t body_bytes, uint64_t token) noexcept with gil:
    self = <FakeEngine><void*>engine
    entry = self.links[link]
    if entry.closed or not entry.alive:
        self.violations.append("a send on a link that is closed")
    entry.unsent.append(
        (<uint64_t>body, body_bytes, (<const uint8_t*>head)[:head_bytes], token))
    if self.inline_sent:
        self.sent(link)


cdef void close(rs_engine* engine, uint32_t link) noexcept with gil:
    self = <FakeEngine><void*>engine
    entry = self.links[link]
    if entry.closed:
        self.violations.append("a link was closed twice")
    entry.closed = True


cdef void export_open(rs_engine* engine, uint32_t link, const char* name,
                      uint32_t name_bytes) noexcept with gil:
    (<FakeEngine><void*>engine).asked(link, name[:name_bytes], False)


cdef void export_close(rs_engine* engine, uint32_t link, uint32_t export_id) noexcept with gil:
    self = <FakeEngine><void*>engine
    if export_id != 7:
        self.violations.append(f"export {export_id} was closed")
    self.export_users -= 1


cdef int32_t export_name(rs_engine* engine, uint32_t i, char* name, uint32_t room) noexcept with gil:
    cdef bytes found
    self = <FakeEngine><void*>engine
    if i >= len(self.names):
        return -1
    found = self.names[i]
    memcpy(name, <const char*>found, min(<uint32_t>len(found), room))
    return len(found)


cdef void resume(rs_engine* engine, uint32_t link) noexcept with gil:
    self = <FakeEngine><void*>engine
    if not self.links[link].alive:
        self.violations.append("a dead link was resumed")
    self.links[link].resumed = True


cdef void export_describe(rs_engine* engine, uint32_t link, const char* name,
                          uint32_t name_bytes) noexcept with gil:
    (<FakeEngine><void*>engine).asked(link, name[:name_bytes], True)
