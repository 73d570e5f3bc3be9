"""Faults on purpose: what a build under a sanitizer must notice. Called by nobody else."""
from libc.stdlib cimport free, malloc
from libc.string cimport memset

cdef extern from "pthread.h" nogil:
    ctypedef struct pthread_t:
        pass
    int pthread_create(pthread_t *thread, const void *attributes, void *(*begin)(void *) noexcept nogil, void *argument)
    int pthread_join(pthread_t thread, void **result)

cdef long counted = 0


cdef void *count(void *unused) noexcept nogil:
    global counted
    counted += 1
    return NULL


def read_byte(size_t block_bytes, size_t offset_bytes):
    # the compiler must know neither number, or it checks by itself
    cdef unsigned char *block = <unsigned char *>malloc(block_bytes)
    cdef unsigned char found
    if block == NULL:
        raise MemoryError
    memset(block, 0, block_bytes)
    found = block[offset_bytes]
    free(block)
    return found


def shift_one(int by_bits):
    return 1 << by_bits


def count_in_two_threads():
    cdef pthread_t other
    if pthread_create(&other, NULL, count, NULL) != 0:
        raise RuntimeError("no second thread")
    count(NULL)
    pthread_join(other, NULL)
    return counted
