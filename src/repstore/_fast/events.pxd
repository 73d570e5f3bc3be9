"""Events: what the engine tells the control side, and never waits for.

The ring is bounded; a full ring counts what it lost, and the control side re-reads all state. Its second
half is for news that somebody waits for: those that come by the thousand do not push them out.
"""
from libc.stdint cimport uint32_t, uint64_t

from repstore._fast.state cimport engine_t


cdef enum event_kind_t:
    EVENT_LINK_UP = 1
    EVENT_LINK_DOWN = 2
    EVENT_SEALED = 3
    EVENT_PULLED = 4
    EVENT_RESYNC_FULL = 5
    EVENT_JOIN_READY = 6
    EVENT_WANT = 7
    EVENT_LEARNER_CAUGHT_UP = 8
    EVENT_MEMBER_SILENT = 9
    EVENT_STALE = 10
    EVENT_DIVERGED = 11
    EVENT_ATTACH = 12
    EVENT_REQUEST_SESSION = 13
    EVENT_FENCED = 14
    EVENT_NO_SPACE = 15
    EVENT_BAD_BLOCK = 16
    EVENT_MENDED_BLOCK = 17
    EVENT_LOST_BLOCK = 18
    EVENT_UNREADABLE = 19
    EVENT_DESCRIBE = 20


# False: it is lost.
cdef bint event_push(engine_t* engine, uint32_t kind, uint32_t volume, uint32_t node, uint32_t epoch,
                     uint64_t a, uint64_t b, uint64_t c, uint64_t d, const char* text) noexcept nogil
