"""The checkpoint root: everything but page contents, as it was when the checkpoint began."""
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from repstore._fast.state cimport engine_t, store_t, volume_t


cdef enum root_fault_t:
    ROOT_OK = 0
    ROOT_MALFORMED = -1
    ROOT_NO_MEMORY = -2
    ROOT_BAD_DIRECTORY = -3
    ROOT_UNREAD = -4

cdef int64_t root_store_bytes(const store_t* store) noexcept nogil
cdef bint root_has_room(engine_t* engine, const volume_t* volume, uint64_t records,
                        uint64_t payload_blocks) noexcept nogil
cdef int64_t root_size(engine_t* engine) noexcept nogil
cdef uint32_t root_build(engine_t* engine, uint8_t* out, uint32_t emptied) noexcept nogil
cdef void root_fill_references(engine_t* engine, uint8_t* out) noexcept nogil
cdef int root_load(engine_t* engine, const uint8_t* root, uint64_t room) noexcept nogil
