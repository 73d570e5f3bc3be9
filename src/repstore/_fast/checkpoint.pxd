"""Checkpoints: the maps to their shadow slots, then the root, then the superblocks.

    drain > pages > directories > root > flush > two superblocks > flush > the others > flush > root again

Rules
  K1 it describes exactly the state after batch S: the log is held until every batch up to S
     is applied, pages that change later are copied first
  K2 nothing the last durable checkpoint names is overwritten: pages go to free slots,
     the root to the other area
  K4 when it is durable its root goes to the other area as well: that of the old checkpoint is
     not needed any more, and a root that cannot be read has a second copy. Behind a clean close no other
     flush follows: this one flushes the second root, too
  K5 a life begins with a flush: what a killed process wrote may be read, and still be lost with the
     power. Until it is durable nothing is written, for an older state may be the one that is found
  K3 emptied segments and retired slots are used again only when all four superblocks are out
"""
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t

from repstore._fast.state cimport engine_t


cdef int checkpoint_init(engine_t* engine) noexcept nogil
cdef void checkpoint_free(engine_t* engine) noexcept nogil
cdef void checkpoint_order_superblocks(engine_t* engine, uint32_t lagging) noexcept nogil
cdef bint checkpoint_step(engine_t* engine) noexcept nogil
cdef void checkpoint_done(engine_t* engine, uint64_t value, int32_t result) noexcept nogil
