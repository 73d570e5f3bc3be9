"""The NBD handshake: from the greeting to an open export."""
from libc.stdint cimport int32_t, uint8_t, uint32_t

from repstore_nbd.connection cimport connection_t
from repstore_nbd.frontend_api cimport rs_export


cdef void handshake_greet(connection_t* connection) noexcept nogil
cdef uint32_t handshake_received(connection_t* connection, const uint8_t* data,
                                 uint32_t count) noexcept nogil
cdef void handshake_opened(connection_t* connection, int32_t error,
                           const rs_export* info) noexcept nogil
