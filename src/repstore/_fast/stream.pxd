"""What a primary sends: does it fit together, does it continue our log? Then it is appended (R1 of replica.pxd).

A body and its checksums were out of our hands: every length is held against the limits, and every block
against its CRC32C, before anything of a frame is used.
"""
from libc.stdint cimport uint8_t, uint32_t

from repstore._fast.layout cimport frame_header_t
from repstore._fast.state cimport engine_t, volume_t


cdef enum:
    WANT_AFTER_NS = 300000000      # who hears nothing, or misses something, waits that long before it asks


cdef bint well_formed(const volume_t* volume, const frame_header_t* header, const uint8_t* meta, uint32_t* count) noexcept nogil
cdef bint body_intact(const uint8_t* meta, uint32_t count, const uint8_t* body, uint32_t payload_blocks) noexcept nogil
cdef bint stream_append(engine_t* engine, volume_t* volume, const frame_header_t* header, const uint8_t* meta,
                        const uint8_t* body) noexcept nogil
cdef void stream_reject(engine_t* engine, volume_t* volume, uint32_t node, int flags) noexcept nogil
cdef void ask_again(engine_t* engine, volume_t* volume, int what) noexcept nogil
