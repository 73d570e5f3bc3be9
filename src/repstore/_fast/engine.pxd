"""The engine: a sans-I/O step machine. Completions in, submissions out; no clock, no thread.

A turn applies what the disk has finished, lets every volume go on, then closes and writes
batches, checkpoints and cleans. It is entered only under the engine's lock.
"""
from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t

from repstore._fast.backend cimport backend_t
from repstore._fast.layout cimport frame_header_t
from repstore._fast.state cimport call_t, engine_t


cdef engine_t* engine_new(uint32_t node) noexcept nogil
cdef void engine_free(engine_t* engine) noexcept nogil

cdef void engine_begin(void* handle, uint64_t now_ns) noexcept nogil
cdef void engine_disk_done(void* handle, uint64_t token, int32_t result) noexcept nogil
cdef void engine_sent(void* handle, uint32_t link, uint64_t token) noexcept nogil
cdef void engine_link_up(void* handle, uint32_t link, int kind) noexcept nogil
cdef void engine_link_down(void* handle, uint32_t link) noexcept nogil
cdef void engine_frame(void* handle, uint32_t link, const frame_header_t* header, const uint8_t* meta,
                       const uint8_t* body) noexcept nogil
cdef uint32_t engine_stream(void* handle, uint32_t link, const uint8_t* bytes, uint32_t count) noexcept nogil
cdef uint64_t engine_turn(void* handle, int* busy) noexcept nogil
