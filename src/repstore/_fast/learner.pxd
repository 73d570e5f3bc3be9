"""A copy that is being completed: what its session voids, and the blocks it is sent (R6, R7 of replica.pxd)."""
from libc.stdint cimport uint8_t

from repstore._fast.layout cimport frame_header_t
from repstore._fast.state cimport engine_t, volume_t


cdef bint learner_begin(engine_t* engine, volume_t* volume, const frame_header_t* header,
                        const uint8_t* meta) noexcept nogil
cdef bint learner_copy(engine_t* engine, volume_t* volume, const frame_header_t* header, const uint8_t* meta,
                       const uint8_t* body) noexcept nogil
cdef bint is_of_session(const volume_t* volume, const frame_header_t* header) noexcept nogil
