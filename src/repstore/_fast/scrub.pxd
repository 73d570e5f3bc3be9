"""The scrub: reads every block of a copy at a named rate and gives the bad ones to repair.

It goes by the map, so what it has passed is every block that a client could have read, each
compared with the checksum that stands apart from it. One run of blocks is under way at a time.
"""
from libc.stdint cimport uint64_t

from repstore._fast.state cimport engine_t, volume_t


cdef void scrub_begin(engine_t* engine, volume_t* volume, uint64_t first, uint64_t rate_bytes_s) noexcept nogil
cdef void scrub_end(engine_t* engine) noexcept nogil
cdef void scrub_step(engine_t* engine) noexcept nogil
