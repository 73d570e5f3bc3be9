"""The verdict on one block."""
from libc.stdint cimport uint64_t

from repstore._fast.history_clusters cimport entry_t, work_t


cdef int check_block(work_t* work, entry_t* entries, uint64_t count) noexcept nogil
