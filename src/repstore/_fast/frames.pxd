"""Frames between nodes: one header, checksummed with its meta; the body has checksums in meta."""
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from repstore._fast.layout cimport frame_header_t
from repstore._fast.state cimport engine_t, volume_t


cdef void frame_begin(engine_t* engine, frame_header_t* header, int frame_type, uint32_t volume,
                      uint32_t epoch) noexcept nogil
cdef void frame_send(engine_t* engine, uint32_t link, frame_header_t* header, const void* meta,
                     uint32_t meta_bytes, const void* body, uint32_t body_bytes, uint64_t token) noexcept nogil
cdef void frame_send_node(engine_t* engine, uint32_t node, frame_header_t* header, const void* meta,
                          uint32_t meta_bytes, const void* body, uint32_t body_bytes,
                          uint64_t token) noexcept nogil
