"""Verification between copies: the primary names an LSN, every in-sync copy takes its map at it.

No pause is needed to agree on it. The primary names what it has just committed, in a frame on the
links that carry commits: no member has heard of a later one when it hears of this, and each passes
through exactly this state.
"""
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from repstore._fast.layout cimport frame_header_t
from repstore._fast.state cimport engine_t, volume_t


cdef int verify_begin(engine_t* engine, volume_t* volume, uint64_t serial, const uint32_t* wanted,
                      uint32_t wanted_count) noexcept nogil
cdef void verify_frame(engine_t* engine, volume_t* volume, const frame_header_t* header,
                       const uint8_t* meta) noexcept nogil
cdef void verify_step(engine_t* engine) noexcept nogil
