"""Feeding in-process calls into exports; see calls.pxd."""
from libc.errno cimport ESHUTDOWN
from libc.stdint cimport uint8_t
from libc.string cimport memcpy

from repstore._fast.exports cimport export_by_id, export_submit
from repstore._fast.frontend cimport RS_READ, RS_WRITE, rs_request
from repstore._fast.layout cimport BLOCK_SHIFT, BLOCK_SIZE
from repstore._fast.requests cimport request_new, request_release
from repstore._fast.state cimport REQUEST_TARGET, export_t, io_t, request_t


# whoever polls `Call.done` without the lock sees the data and the errors too
cdef extern from * nogil:
    void store_release "__atomic_store_n"(uint64_t* number, uint64_t value, int order)
    int RELEASE "__ATOMIC_RELEASE"

cdef extern from "<pthread.h>" nogil:
    ctypedef struct pthread_cond_t:
        pass
    int pthread_cond_broadcast(pthread_cond_t* condition)


cdef void call_begin(engine_t* engine, call_t* call) noexcept nogil:
    """Queue a call; its memory is lent until every operation is finished."""
    call.next = engine.calls
    engine.calls = call


cdef void call_end(engine_t* engine, call_t* call) noexcept nogil:
    """Forget a finished call."""
    cdef call_t** place = &engine.calls
    while place[0] != NULL and place[0] != call:
        place = &place[0].next
    if place[0] == call:
        place[0] = call.next


cdef bint calls_pump(engine_t* engine) noexcept nogil:
    """Start operations until each call has `depth` under way. Returns whether any was started."""
    cdef call_t* call = engine.calls
    cdef bint moved = False
    while call != NULL:
        while call.started < call.count and call.started - call.finished < call.depth:
            if not start_next(engine, call):
                break
            moved = True
        call = call.next
    return moved


cdef bint start_next(engine_t* engine, call_t* call) noexcept nogil:
    """Start its next operation. False: its volume has as many under way as it may."""
    cdef export_t* export = export_by_id(engine, call.ios[call.started].export_id)
    cdef request_t* request
    if export == NULL:
        call.ios[call.started].error = ESHUTDOWN
        call.started += 1
        call.failed += 1
        count_finished(call)
        return True
    request = request_new(engine, export.index)
    if request != NULL:
        start(engine, call, request)
    return request != NULL


cdef void start(engine_t* engine, call_t* call, request_t* request) noexcept nogil:
    """Aligned reads go straight into the caller's memory, others over a buffer of ours."""
    cdef io_t* io = &call.ios[call.started]
    cdef uint8_t* memory = call.buffer + io.buffer_offset
    request.front.kind = io.kind
    request.front.flags = io.flags
    request.front.export_id = io.export_id
    request.front.offset = io.offset
    request.front.length = io.length
    request.front.done = finished
    request.front.owner = call
    request.front.cookie = call.started
    request.front.data = memory
    if io.kind == RS_READ and (<uint64_t>memory | io.offset | io.length) % BLOCK_SIZE == 0:
        request.buffer = memory
        request.buffer_blocks = io.length >> BLOCK_SHIFT
        request.flags = REQUEST_TARGET
    call.started += 1
    call.starting = True
    export_submit(engine, request)
    call.starting = False


cdef void read_on(engine_t* engine, call_t* call) noexcept nogil:
    """A read is through: the next one starts now, not when all answers of this round are looked at.
    The disk would stand still for so long (what finishes inside its start waits for the pump)."""
    if not call.starting and call.started < call.count and call.ios[call.started].kind == RS_READ:
        start_next(engine, call)


cdef void finished(rs_request* front) noexcept nogil:
    cdef request_t* request = <request_t*>front
    cdef call_t* call = <call_t*>front.owner
    cdef engine_t* engine = request.engine
    cdef io_t* io = &call.ios[front.cookie]
    cdef bint was_read = front.kind == RS_READ and front.error == 0
    io.error = front.error
    if front.error:
        call.failed += 1
    elif front.kind == RS_READ and not request.flags & REQUEST_TARGET:
        memcpy(call.buffer + io.buffer_offset, front.data, front.data_bytes)
    elif front.kind != RS_READ and front.kind != RS_WRITE and front.data_bytes:
        io.length = front.data_bytes           # block status: what was found
        memcpy(call.buffer + io.buffer_offset, front.data, front.data_bytes)
    request_release(engine, request)
    engine.more = True
    count_finished(call)
    if was_read:
        read_on(engine, call)


cdef void count_finished(call_t* call) noexcept nogil:
    store_release(&call.finished, call.finished + 1, RELEASE)
    if call.finished == call.count and call.waiter != NULL:
        pthread_cond_broadcast(<pthread_cond_t*>call.waiter)
