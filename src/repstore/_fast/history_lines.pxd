"""One operation of a history, as the line of a file says it."""
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t


cdef enum operation_kind:
    KIND_READ = 0
    KIND_WRITE = 1
    KIND_ZERO = 2            # trim and write-zeroes: the blocks read as zeros afterwards
    KIND_FLUSH = 3
    KIND_CRASH = 4
    KIND_END = 5


cdef packed struct operation_t:
    int64_t begin            # any unit, as long as one clock told all of them
    int64_t end              # of the reply; NEVER: there was none
    int64_t until            # not acknowledged: it cannot happen after this any more
    uint64_t block           # first one; a crash has its incarnation here, the end its count
    uint64_t first_value     # where in the array of values its own begin
    uint32_t count           # blocks
    uint32_t client
    int32_t error            # 0: acknowledged, if it has an end
    uint8_t kind
    uint8_t fua
    uint8_t has_values
    uint8_t reserved


cdef extern from *:
    """
    #define REPSTORE_NEVER INT64_MAX
    """
    const int64_t NEVER "REPSTORE_NEVER"
