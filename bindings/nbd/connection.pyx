"""Connections and operations: taken, kept, given back (rules in the .pxd beside this).

No malloc on the hot path: operations come from a slab that a connection gets when it has
passed the handshake, so that an idle or half-open one costs a few hundred bytes.
"""
from libc.stdint cimport uint32_t
from libc.stdlib cimport calloc, free

from repstore_nbd.frontend_api cimport rs_engine, rs_engine_api


cdef connection_t* connection_new(const rs_engine_api* api, rs_engine* engine,
                                  uint32_t link) noexcept nogil:
    """A connection with the reference of its link; NULL without memory."""
    cdef connection_t* connection = <connection_t*>calloc(1, sizeof(connection_t))
    if connection == NULL:
        return NULL
    connection.api = api
    connection.engine = engine
    connection.link = link
    connection.references = 1
    return connection


cdef void connection_close(connection_t* connection) noexcept nogil:
    """Hang up; the memory stays until `disconnected` and the last answer of the engine."""
    if connection.mute:
        return
    connection.phase = PHASE_CLOSED
    connection.mute = 1
    connection.api.close(connection.engine, connection.link)


cdef void reference_drop(connection_t* connection) noexcept nogil:
    """One user less. The last frees; the last but the link hangs up, if we are draining."""
    connection.references -= 1
    if connection.references == 0:
        free(connection.operations)
        free(connection)
    elif connection.references == 1 and connection.phase == PHASE_DRAINING:
        connection_close(connection)


cdef bint operations_allocate(connection_t* connection) noexcept nogil:
    """The slab of operations; False without memory."""
    cdef uint32_t i
    connection.operations = <operation_t*>calloc(OPERATIONS_MAX, sizeof(operation_t))
    if connection.operations == NULL:
        return False
    for i in range(<uint32_t>OPERATIONS_MAX):
        connection.operations[i].connection = connection
        connection.operations[i].next_free = connection.free_operations
        connection.free_operations = &connection.operations[i]
    return True


cdef operation_t* operation_take(connection_t* connection) noexcept nogil:
    """A free operation; the caller has looked that there is one, and sets every field."""
    cdef operation_t* operation = connection.free_operations
    connection.free_operations = operation.next_free
    connection.references += 1
    return operation


cdef void operation_let_go(operation_t* operation) noexcept nogil:
    """One hold less: a request given back or an answer sent. May free the connection."""
    cdef connection_t* connection = operation.connection
    operation.held -= 1
    if operation.held != 0 or not operation.answered:
        return
    free(operation.gathered)
    operation.gathered = NULL
    connection.outstanding_bytes -= operation.charged_bytes
    operation.next_free = connection.free_operations
    connection.free_operations = operation
    if connection.stalled and not connection.mute:
        connection.stalled = 0
        connection.api.resume(connection.engine, connection.link)
    reference_drop(connection)
