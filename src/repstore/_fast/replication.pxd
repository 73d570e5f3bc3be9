"""Replication in the loop: frames to the right side of the right volume, and one step a turn."""
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from repstore._fast.layout cimport frame_header_t
from repstore._fast.state cimport engine_t


cdef void replication_frame(engine_t* engine, uint32_t node, const frame_header_t* header,
                            const uint8_t* meta, const uint8_t* body) noexcept nogil
cdef void replication_link_up(engine_t* engine, uint32_t node) noexcept nogil
cdef void replication_link_down(engine_t* engine, uint32_t node) noexcept nogil
cdef void replication_step(engine_t* engine) noexcept nogil
