"""Counting what lives in each segment, over all maps in memory."""
from libc.stdint cimport uint32_t

from repstore._fast.state cimport engine_t, store_t, volume_t


cdef bint count_live(const store_t* store, volume_t* volume, uint32_t* live) noexcept nogil
cdef void recount_step(engine_t* engine) noexcept nogil
