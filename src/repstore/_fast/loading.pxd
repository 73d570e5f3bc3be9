"""Opening a store natively: from superblock and root to volumes, then the log on top."""
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from repstore._fast.state cimport engine_t


cdef enum load_fault_t:
    LOAD_OK = 0
    LOAD_NO_MEMORY = -1
    LOAD_BAD_GEOMETRY = -2
    LOAD_BAD_ROOT = -3
    LOAD_BAD_DIRECTORY = -4
    LOAD_BAD_BATCH = -5
    LOAD_BAD_PAGE = -6
    LOAD_UNREAD = -7               # `unread_block` says which block


cdef int store_load(engine_t* engine, const uint8_t* superblock, const uint8_t* root, uint64_t root_bytes) noexcept nogil
cdef int store_replay(engine_t* engine, uint32_t segment, uint32_t offset_blocks) noexcept nogil
cdef void store_begin_life(engine_t* engine, uint64_t life_id) noexcept nogil
