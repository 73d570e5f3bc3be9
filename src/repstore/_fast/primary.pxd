"""The primary's side of replication: frames to the members, acknowledgements back.

Rules
  P1 the engine never shrinks its own acknowledgement set: it reports a silent member and waits
     for set_members (R-eject)
  P2 a joining learner counts from join_begin on, before its join is decided (R-join)
  P3 records reach a member in LSN order without a gap: the pending tail first, with the volume
     held, then every batch as it is closed
  P4 with fewer copies in sync than min_copies nothing is acknowledged: the volume stalls
  P5 a new primary serves when its EPOCH record is in the log: after the tails of its members
  P6 what a member told before counts for nothing: its log may have grown by a promotion that lost. Its
     first answer of a session proves by its running hash that its log is a prefix of ours
"""
from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t

from repstore._fast.layout cimport frame_header_t
from repstore._fast.state cimport engine_t, log_batch_t, member_t, volume_t


cdef member_t* member_find(volume_t* volume, uint32_t node) noexcept nogil
cdef void primary_lead(engine_t* engine, volume_t* volume, uint32_t epoch, uint32_t incarnation,
                       uint32_t copies, uint32_t min_copies, bint durable, uint32_t session) noexcept nogil
cdef int primary_add_member(engine_t* engine, volume_t* volume, uint32_t node, uint64_t last_lsn) noexcept nogil
cdef void primary_set_members(engine_t* engine, volume_t* volume, const uint32_t* nodes, uint32_t count) noexcept nogil
cdef void primary_resume(engine_t* engine, volume_t* volume, uint32_t node, uint64_t last_lsn) noexcept nogil
cdef int primary_learner(engine_t* engine, volume_t* volume, uint32_t node, uint64_t serial, uint64_t common_lsn,
                         bint full) noexcept nogil
cdef void primary_join(engine_t* engine, volume_t* volume, uint32_t node, bint begin) noexcept nogil
cdef void primary_session(volume_t* volume, uint32_t session) noexcept nogil
cdef void primary_stop(engine_t* engine, volume_t* volume, int32_t error) noexcept nogil
cdef void primary_announce(engine_t* engine, log_batch_t* batch) noexcept nogil
cdef void primary_step(engine_t* engine, volume_t* volume) noexcept nogil
cdef void primary_frame(engine_t* engine, volume_t* volume, uint32_t node, const frame_header_t* header,
                        const uint8_t* meta) noexcept nogil
cdef void primary_link_down(engine_t* engine, volume_t* volume, uint32_t node) noexcept nogil
cdef void changes_rotate(engine_t* engine, volume_t* volume) noexcept nogil
