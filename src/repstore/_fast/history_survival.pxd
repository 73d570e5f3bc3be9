"""What a crash may leave of one block (Z4 of history_zones.pyx)."""
from libc.stdint cimport uint32_t, uint64_t

from repstore._fast.history_clusters cimport segment_t, work_t


cdef void close_segment(work_t* work, segment_t* segment) noexcept nogil
cdef bint initial_allows(work_t* work, uint64_t number, uint64_t value) noexcept nogil
cdef uint32_t excluded_by(const work_t* work, const segment_t* segment, uint32_t which) noexcept nogil
cdef bint may_survive(const work_t* work, const segment_t* segment, uint32_t which, uint32_t* chain,
                      int* links) noexcept nogil
