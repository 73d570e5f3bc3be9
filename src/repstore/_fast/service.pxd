"""The primary serves a volume: requests become reads, log records and flushes.

Rules
  S1 a read sees committed blocks, each checked against the checksum in the map
  S2 writes enter the log in the order they came; what cannot enter waits and keeps its place
  S3 a write is answered when it is committed, with FUA or level `durable` when it is flushed
     on every in-sync member; a flush covers everything answered before it came
  S4 a request of this session that the log already holds is answered, not repeated
"""
from libc.stdint cimport int32_t, uint64_t

from repstore._fast.state cimport engine_t, request_t, volume_t


cdef void service_submit(engine_t* engine, request_t* request) noexcept nogil
cdef void service_read_done(engine_t* engine, uint64_t value, int32_t result) noexcept nogil
cdef bint service_progress(engine_t* engine, volume_t* volume) noexcept nogil
cdef void service_drop(engine_t* engine, volume_t* volume, int32_t error) noexcept nogil
