"""Repair: a bad block is fetched from another copy and moved to a good place.

    bad block met > REPAIR_WAITING > FETCH frame > FETCHED frame > OP_MOVE in the log > map

Rules
  H1 what is fetched counts only if it has the checksum of our map, and its giver had committed
     at least as far as we had; of a block whose map entry is lost the checksum is not known, and
     only the commit counts. It is not beyond where our log ends, as with copies (R6 of replica.pxd)
  H2 the primary asks in-sync members that take its stream, everyone else asks the primary
  H3 the content enters the log as a move from the place the map had when it was met (V2): a
     block that changed meanwhile keeps its newer content
  H4 a block that nobody can give is lost: an error of that block alone, asked for again after
     LOST_AGAIN_NS at the earliest
  H5 a copy that returns keeps each block until the primary gave it, or said that it has none: a hole, zeros, or
     lost. One that is lost there and has the checksum here it keeps, and gives when it is in sync and asked. That
     is the proof of H1: the primary's own map names it. Nothing else that it has counts, whatever its checksum
  H6 what was fetched and finds no room in the log is let go in the end, and looked at again: else blocks that
     wait for room take all places, and the cleaner, which makes room, gets none for a bad block of its victim
"""
from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t

from repstore._fast.layout cimport extent_t, frame_header_t
from repstore._fast.state cimport engine_t, volume_t


cdef enum repair_answer_t:
    REPAIR_STARTED = 0             # wait: the block will have been mended, or be lost
    REPAIR_LOST = 1

cdef int repair_need(engine_t* engine, volume_t* volume, uint64_t lba, const extent_t* extent) noexcept nogil
cdef bint repair_possible(engine_t* engine, const volume_t* volume) noexcept nogil
cdef bint repair_covers(engine_t* engine, const volume_t* volume, uint64_t lba, uint32_t blocks) noexcept nogil
cdef bint repair_full(const engine_t* engine, const volume_t* volume) noexcept nogil
cdef void repair_answer(engine_t* engine, volume_t* volume, uint32_t node, const frame_header_t* header,
                        const uint8_t* body) noexcept nogil
cdef void repairs_free(engine_t* engine) noexcept nogil
cdef void repair_step(engine_t* engine) noexcept nogil
