"""The other side: a copy that follows a primary, as in-sync member or as learner.

Rules
  R1 records are accepted only from the epoch this copy is sealed at, in LSN order without a gap,
     and only if the running hashes agree
  R2 an acknowledgement says "written here" or "flushed here", never more
  R3 a seal takes effect at once and is answered when it is durable (R-seal)
  R4 a frame that finds no room in the log waits in the inbox; the link is never held, so
     acknowledgements on it cannot be blocked by it. What the frames behind it say is committed is heard:
     that makes room. (Behind a copy of blocks, R6, not at once.) One that waits is no sign of life; who asks anew waits for nothing
  R5 a primary counts our answers by LSN once the first has proved what we have (P6), so from its first
     frame on, or from the config that names it, our log grows by its frames alone: a pull ends there and
     is refused afterwards, and the first answer waits until all that the log held then is written.
     `heard` speaks of that primary only: who is sealed at a higher epoch tells it nothing more
  R6 a learner takes the frames of copies of its session in their order, each once: one that is missing,
     older than what is committed here, or newer than the records here, begins a new session. (Newer: should
     the primary lose what was committed then, where our log ends would not tell that we have it)
  R7 what a learner's map had stays until copies replace it, and its base says up to where that was right: it
     never grows before the join; at 0 nothing need be right, and every block is copied (H5 of repair.pxd)
"""
from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t

from repstore._fast.layout cimport frame_header_t
from repstore._fast.state cimport engine_t, volume_t


cdef void replica_follow(engine_t* engine, volume_t* volume, uint32_t epoch, uint32_t primary, bint member) noexcept nogil
cdef void replica_seal(engine_t* engine, volume_t* volume, uint32_t epoch, uint32_t node) noexcept nogil
cdef void replica_pull(engine_t* engine, volume_t* volume, uint32_t node) noexcept nogil
cdef void replica_frame(engine_t* engine, volume_t* volume, uint32_t node, const frame_header_t* header,
                        const uint8_t* meta, const uint8_t* body) noexcept nogil
cdef void replica_step(engine_t* engine, volume_t* volume) noexcept nogil
cdef void replica_link(engine_t* engine, volume_t* volume, uint32_t node) noexcept nogil
