"""Reading our own blocks for another node, verified, and lending them to sends.

A tail brings an in-sync member, or a candidate, the pending records it lacks. Copies bring a
learner committed blocks (resync.pxd says which). Blocks that moved while they were read, written
anew by a client or taken elsewhere by the cleaner, are read again: what leaves is the committed
content at that moment, so records that follow in the stream are never older. A block of a run
that is bad here is repaired first; if no copy has it, it goes out as bad, one that could not be read
when that has lasted (patience.pxd).
"""
from libc.stdint cimport int32_t, uint32_t, uint64_t

from repstore._fast.layout cimport extent_t, frame_header_t
from repstore._fast.state cimport engine_t, member_t, pending_t, volume_t


cdef enum:
    RUN_BLOCKS = 64                # of one read


cdef int transfer_record(engine_t* engine, volume_t* volume, uint32_t node, int kind, uint64_t lsn) noexcept nogil
cdef bint transfer_tail_end(engine_t* engine, volume_t* volume, uint32_t node) noexcept nogil
cdef bint transfer_copy(engine_t* engine, volume_t* volume, member_t* member, int kind, uint64_t lba, uint32_t count,
                        const extent_t* extents) noexcept nogil
cdef void transfer_read_done(engine_t* engine, uint64_t value, int32_t result) noexcept nogil
cdef void transfer_sent(engine_t* engine, uint32_t index) noexcept nogil
cdef void transfer_fetch(engine_t* engine, volume_t* volume, uint32_t node, const frame_header_t* header) noexcept nogil
cdef bint transfer_scrub(engine_t* engine, volume_t* volume, uint64_t lba, uint32_t blocks,
                         const extent_t* extents) noexcept nogil
cdef void transfers_go_on(engine_t* engine) noexcept nogil
cdef void transfers_forget(engine_t* engine, volume_t* volume) noexcept nogil
cdef void transfers_free(engine_t* engine) noexcept nogil
