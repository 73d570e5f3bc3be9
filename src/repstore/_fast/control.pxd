"""The Python face of one engine."""
from repstore._fast.backend cimport backend_t
from repstore._fast.loop cimport Loop, loop_t
from repstore._fast.state cimport engine_t, volume_t


cdef class Engine:
    cdef engine_t* engine
    cdef loop_t* lock_owner
    cdef Loop loop
    cdef object backend_owner
    cdef bint woken                    # without a loop: somebody wants a turn
    cdef object frontend_capsule
    cdef object memory
    cdef set calls
    cdef readonly int event_fd

    cdef void attach_backend(self, object owner, backend_t* backend) noexcept
    cdef void lock(self) noexcept
    cdef void unlock(self, bint wake) noexcept
    cdef volume_t* volume(self, index) except NULL
