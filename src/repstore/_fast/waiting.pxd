"""Operations that Python handed to an engine, and waiting for them.

A call has its arrays and its engine stay alive until it is ended. It waits on a condition of its own,
without the GIL, under the lock of the loop that drives the engine; without a loop nobody waits, one polls.
"""
from repstore._fast.loop cimport loop_t
from repstore._fast.state cimport call_t, engine_t


cdef extern from "<pthread.h>" nogil:
    ctypedef struct pthread_cond_t:
        pass


cdef class Call:
    cdef call_t call
    cdef pthread_cond_t condition
    cdef object owner                  # keeps the engine alive
    cdef set running                   # of the owner: what was begun and not ended
    cdef engine_t* engine
    cdef loop_t* lock_owner            # NULL: one thread, no lock
    cdef unsigned char[::1] ios
    cdef unsigned char[::1] buffer
    cdef bint queued

    cdef void lock(self) noexcept
    cdef void unlock(self) noexcept


cdef Call call_new(object owner, set running, engine_t* engine, loop_t* lock_owner,
                   unsigned char[::1] ios, unsigned char[::1] buffer, unsigned int depth)
