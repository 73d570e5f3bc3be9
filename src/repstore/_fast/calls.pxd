"""In-process calls: an array of operations that the engine keeps `depth` of under way."""
from libc.stdint cimport uint32_t, uint64_t

from repstore._fast.state cimport call_t, engine_t


cdef bint calls_pump(engine_t* engine) noexcept nogil
cdef void call_begin(engine_t* engine, call_t* call) noexcept nogil
cdef void call_end(engine_t* engine, call_t* call) noexcept nogil
