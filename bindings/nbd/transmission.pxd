"""The NBD transmission: commands in, replies out."""
from libc.stdint cimport uint8_t, uint32_t

from repstore_nbd.connection cimport connection_t, operation_t
from repstore_nbd.frontend_api cimport rs_request


cdef uint32_t transmission_received(connection_t* connection, const uint8_t* data,
                                    uint32_t count) noexcept nogil
cdef void transmission_writable(connection_t* connection) noexcept nogil
cdef void transmission_abandon(connection_t* connection) noexcept nogil
cdef void request_lent_no_more(rs_request* request) noexcept nogil
