"""A contradiction of one block: its kind, and the operations that make it."""
from repstore._fast.history_clusters cimport cluster_t, entry_t, segment_t, work_t


cdef int explain_read(work_t* work, segment_t* segment, const entry_t* read) noexcept nogil
cdef int explain_crossed(work_t* work, const segment_t* segment, const cluster_t* a,
                         const cluster_t* b) noexcept nogil
