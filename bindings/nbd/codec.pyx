"""The NBD frontend: the table of calls that the engine's loop makes on a connection.

Bytes in, bytes out: no socket, no thread, no clock. Everything in the table is native and
runs in the loop thread under the engine's lock; none of it touches a Python object.
"""
from cpython.pycapsule cimport PyCapsule_New
from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t, uintptr_t

from repstore_nbd.connection cimport (
    PHASE_CLOSED, PHASE_DRAINING, PHASE_OPENING, PHASE_TRANSMISSION, TOKEN_FAREWELL, TOKEN_KINDS,
    TOKEN_OPERATION, connection_new, connection_t, operation_let_go, operation_t, reference_drop)
from repstore_nbd.frontend_api cimport (
    REPSTORE_FRONTEND_VERSION, rs_engine, rs_engine_api, rs_export, rs_frontend, rs_request)
from repstore_nbd.handshake cimport handshake_greet, handshake_opened, handshake_received
from repstore_nbd.protocol cimport (
    nbd_chunk_t, nbd_data_chunk_t, nbd_error_chunk_t, nbd_export_t, nbd_greeting_t,
    nbd_info_block_size_t, nbd_info_export_t, nbd_option_reply_t, nbd_option_t, nbd_request_t,
    nbd_simple_reply_t, nbd_status_chunk_t)
from repstore_nbd.transmission cimport (
    request_lent_no_more, transmission_abandon, transmission_received, transmission_writable)


cdef void* connected(const rs_engine_api* api, rs_engine* engine, uint32_t link) noexcept nogil:
    cdef connection_t* connection
    if api.version != REPSTORE_FRONTEND_VERSION:
        return NULL
    connection = connection_new(api, engine, link)
    if connection != NULL:
        handshake_greet(connection)
    return connection


cdef uint32_t received(void* state, const uint8_t* data, uint32_t count) noexcept nogil:
    cdef connection_t* connection = <connection_t*>state
    cdef uint32_t consumed = 0
    cdef uint32_t step
    connection.receiving = 1
    while True:
        if connection.phase == PHASE_OPENING:
            break
        if connection.phase == PHASE_DRAINING or connection.phase == PHASE_CLOSED:
            consumed = count             # nothing a client says now has a meaning
            break
        if connection.phase == PHASE_TRANSMISSION:
            consumed += transmission_received(connection, data + consumed, count - consumed)
            break
        step = handshake_received(connection, data + consumed, count - consumed)
        consumed += step
        if step == 0 and connection.phase != PHASE_CLOSED:
            break
    connection.receiving = 0
    return consumed


cdef void sent(void* state, uint64_t token) noexcept nogil:
    cdef uint64_t kind = token & TOKEN_KINDS
    cdef void* pointer = <void*><uintptr_t>(token & ~<uint64_t>TOKEN_KINDS)
    if kind == TOKEN_FAREWELL:
        reference_drop(<connection_t*>state)
    elif kind == TOKEN_OPERATION:
        operation_let_go(<operation_t*>pointer)
    else:
        request_lent_no_more(<rs_request*>pointer)


cdef void opened_export(void* state, int32_t error, const rs_export* info) noexcept nogil:
    cdef connection_t* connection = <connection_t*>state
    handshake_opened(connection, error, info)
    if not connection.receiving and not connection.mute:
        connection.api.resume(connection.engine, connection.link)


cdef void writable(void* state) noexcept nogil:
    transmission_writable(<connection_t*>state)


cdef void disconnected(void* state) noexcept nogil:
    cdef connection_t* connection = <connection_t*>state
    connection.phase = PHASE_CLOSED
    connection.mute = 1
    if connection.opened:
        connection.api.export_close(connection.engine, connection.link, connection.export_id)
    transmission_abandon(connection)
    reference_drop(connection)


cdef rs_frontend table = [
    REPSTORE_FRONTEND_VERSION, b"nbd", connected, received, sent, opened_export, writable, disconnected]


def frontend_capsule() -> object:
    """The frontend as a capsule named "repstore.frontend", for the engine to plug in."""
    return PyCapsule_New(&table, b"repstore.frontend", NULL)


def wire_sizes() -> dict[str, int]:
    """Bytes of every packed struct of the wire: what padding would silently change."""
    return {
        "greeting": sizeof(nbd_greeting_t),
        "option": sizeof(nbd_option_t),
        "option_reply": sizeof(nbd_option_reply_t),
        "info_export": sizeof(nbd_info_export_t),
        "info_block_size": sizeof(nbd_info_block_size_t),
        "export": sizeof(nbd_export_t),
        "request": sizeof(nbd_request_t),
        "simple_reply": sizeof(nbd_simple_reply_t),
        "chunk": sizeof(nbd_chunk_t),
        "data_chunk": sizeof(nbd_data_chunk_t),
        "status_chunk": sizeof(nbd_status_chunk_t),
        "error_chunk": sizeof(nbd_error_chunk_t),
    }
