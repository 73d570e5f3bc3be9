"""The scrub: reads every block of a copy at a named rate and gives the bad ones to repair.

It goes by the map, so what it has passed is every block that a client could have read, each
compared with the checksum that stands apart from it. One run of blocks is under way at a time.

Where the part of the volume begins that a page of the map or of a change bitmap is about, or a directory
of them, both of its blocks are read first, though it is in memory. One that is damaged has the page
written anew, with the checkpoint that is asked for at the end.
"""
from libc.stdint cimport int32_t, uint64_t

from repstore._fast.state cimport engine_t, volume_t


cdef void scrub_begin(engine_t* engine, volume_t* volume, uint64_t first, uint64_t rate_bytes_s) noexcept nogil
cdef void scrub_end(engine_t* engine) noexcept nogil
cdef void scrub_free(engine_t* engine) noexcept nogil
cdef void scrub_step(engine_t* engine) noexcept nogil
cdef void scrub_page_read(engine_t* engine, uint64_t second, int32_t result) noexcept nogil
