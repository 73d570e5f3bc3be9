"""The log: batches filled in memory, written once each, acknowledged in chain order.

Rules
  L1 a batch is one write; batch k+1 is never completed before batch k
  L2 a batch names the header checksum of the one before it (hash chain), what was flushed
     and what was completed when it was closed: a hole below those is corruption, not a torn tail
  L3 one flush serves every batch completed when it is issued; a failed write or flush
     fences the store and is never tried again
  L4 nothing enters a segment that the durable checkpoint's plan does not name
  L5 when nothing was written for a while after a flush, a batch without records says what was
     flushed: otherwise damage of the last flushed batch would be a torn tail to recovery
     (R. Alagappan et al., Protocol-Aware Recovery, FAST'18, on telling a crash from corruption)
  L6 what is pending may fill every segment, and is committed, or void, only behind a record that says
     so (SEAL, EPOCH, LEARN, JOINED): such records may enter a segment of the cleaner's reserve, and
     nothing else enters it before the cleaner has another instead
  L7 where few segments are free a life goes on in those that the one before it was writing, behind the last
     batch of each class that counts: a start takes no room then, or some crashes in a row would take the
     cleaner's. Where there are enough it leaves them: what ended the other life may be a block in them
     that cannot be written
"""
from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t

from repstore._fast.layout cimport descriptor_t
from repstore._fast.state cimport engine_t, log_batch_t


cdef int log_init(engine_t* engine) noexcept nogil
cdef void log_free(engine_t* engine) noexcept nogil
cdef log_batch_t* log_reserve(engine_t* engine, int segment_class, uint32_t records,
                              uint32_t payload_blocks) noexcept nogil
cdef log_batch_t* log_reserve_control(engine_t* engine, uint32_t records) noexcept nogil
cdef log_batch_t* log_close(engine_t* engine, int segment_class) noexcept nogil
cdef void log_written(engine_t* engine, uint32_t batch_index, int32_t result) noexcept nogil
cdef log_batch_t* log_next_completed(engine_t* engine) noexcept nogil
cdef void log_applied(engine_t* engine, log_batch_t* batch) noexcept nogil
cdef void log_unlend(engine_t* engine, uint32_t batch_index) noexcept nogil
cdef void log_tell_flushed(engine_t* engine) noexcept nogil
cdef bint log_idle(engine_t* engine) noexcept nogil
cdef void store_fail(engine_t* engine, int32_t error) noexcept nogil
cdef uint32_t batch_location(engine_t* engine, log_batch_t* batch) noexcept nogil
