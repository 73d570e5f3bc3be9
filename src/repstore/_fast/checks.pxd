"""The numbered invariants of `state`, asserted: for tests, the simulator and fsck."""
from repstore._fast.state cimport engine_t


cdef const char* first_broken(engine_t* engine) noexcept nogil
