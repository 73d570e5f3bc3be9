"""What one engine knows of the verification it takes part in; one at a time."""
from libc.stdint cimport uint8_t, uint32_t, uint64_t


cdef enum verify_step_t:
    VERIFY_IDLE = 0
    VERIFY_WAITING = 1             # for the commit to reach the LSN
    VERIFY_CAPTURING = 2
    VERIFY_DONE = 3
    VERIFY_FAILED = 4


cdef struct verify_t:
    uint8_t state
    uint32_t volume                # cluster-wide index
    uint64_t lsn
    uint64_t serial                # of this verification, the same on every copy
    uint32_t pages
    uint32_t cursor                # next page of the walk
    uint64_t* leaves               # digest of each page
    uint8_t* taken
    uint32_t zeros                 # checksum of a block of zeros
    uint32_t wanted_count          # 0: all pages, as digests
    uint32_t wanted[64]
    uint32_t* values               # checksums of the wanted pages
