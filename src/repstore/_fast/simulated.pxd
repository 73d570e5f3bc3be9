"""A backend in memory: what an engine asks is recorded, and its owner says what came of it.

The engine is the one of production, compiled once; only what stands behind the seam differs.

Rules
  B1 `take` gives everything the engine asked for, in the order it asked, each thing once
  B2 bytes are copied when they are asked to be written or sent: later changes by the engine
     are not seen
  B3 a disk operation is answered once, by its number; a read is filled only by its answer
  B4 a frame is checked as `transport` checks it before the engine sees it
  B5 no lock and no clock: one thread calls the engine and its backend, and says what time it is
"""
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from repstore._fast.backend cimport backend_t


cdef enum ask_kind_t:
    ASK_DISK = 1
    ASK_SEND = 2
    ASK_CLOSE = 3
    ASK_HOLD = 4


ctypedef struct ask_t:
    uint8_t kind
    uint32_t number                  # of the disk operation, or of the link
    uint64_t token                   # SEND: to be answered, unless 0
    uint8_t* bytes                   # WRITE, SEND: ours until it is taken
    uint32_t byte_count
    int argument                     # HOLD: stopped


# A disk operation that waits for its answer.
ctypedef struct operation_t:
    uint64_t token
    uint64_t offset
    void* buffer                     # the engine's
    uint32_t length
    uint8_t kind                     # disk_kind_t; 0: the number is free


ctypedef struct recorder_t:
    backend_t backend
    ask_t* asks
    uint32_t ask_count
    uint32_t ask_capacity
    operation_t* operations
    uint32_t operation_capacity
    uint32_t flying
