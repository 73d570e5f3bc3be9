"""Entering, sealing and planning segments; see segments.pxd."""
from libc.string cimport memset

from repstore._fast.layout cimport (
    CLASS_CLEANER, SEGMENT_EMPTY, SEGMENT_OPEN, SEGMENT_SEALED,
)
from repstore._fast.patience cimport patience_t
from repstore._fast.state cimport log_head_t


cdef enum:
    CONTROL_KEPT = 1               # segments that are left to the cleaner in any case


cdef int segment_enter(store_t* store, int segment_class, bint control) noexcept nogil:
    """Open the next segment of the plan for a class of data. -1: none may be taken.

    The last `reserve` segments are the cleaner's: without them it could not make room. With
    `control` one may be taken all the same, which marks it (L6).
    """
    cdef uint32_t number
    cdef segment_t* segment
    cdef uint32_t kept = store.reserve
    if segment_class == CLASS_CLEANER:
        kept = 0
    elif control:
        kept = min(<uint32_t>CONTROL_KEPT, store.reserve)
    if segments_free(store) <= kept:
        return -1
    number = store.plan[store.plan_next]
    store.plan_next += 1
    segment = &store.segments[number]
    segment.generation += 1
    memset(&segment.patience, 0, sizeof(patience_t))
    segment.live = 0
    segment.pending = 0
    segment_go_on(store, number, segment_class, 0)
    return 0


cdef void segment_go_on(store_t* store, uint32_t number, int segment_class, uint32_t cursor) noexcept nogil:
    """The next batch of this class goes there, behind what is written in it."""
    cdef log_head_t* head = &store.log.heads[segment_class]
    store.segments[number].state = SEGMENT_OPEN
    store.segments[number].segment_class = <unsigned char>segment_class
    head.segment = number
    head.cursor = cursor
    head.opened = True
    head.control = segment_class != CLASS_CLEANER and segments_free(store) < store.reserve


cdef void segment_seal(store_t* store, int segment_class) noexcept nogil:
    """No more batches go to this segment."""
    cdef segment_t* segment
    if not store.log.heads[segment_class].opened:
        return
    segment = &store.segments[store.log.heads[segment_class].segment]
    segment.state = SEGMENT_SEALED
    segment.age = <uint32_t>store.checkpoint.number
    store.emptied += is_emptied(segment)
    store.log.heads[segment_class].opened = False


cdef bint location_valid(const store_t* store, uint64_t location, uint64_t blocks) noexcept nogil:
    """Does [location, location + blocks) lie inside one segment?"""
    cdef uint64_t last = store.segment_base + (<uint64_t>store.segment_count << store.segment_shift)
    if location < store.segment_base or blocks == 0 or location + blocks - 1 > last:
        return False
    if location == store.segment_base + (<uint64_t>store.half << store.segment_shift):
        return False                       # superblock copy 2
    return segment_of(store, <uint32_t>location) == segment_of(store, <uint32_t>(location + blocks - 1)) \
        and segment_of(store, <uint32_t>location) < store.segment_count


cdef int plan_rebuild(store_t* store) noexcept nogil:
    """What the next checkpoint's plan will be: the segments still ahead in the old one, in
    their order, then every sealed segment in which nothing lives. Returns how many are new.

    The old order must stay: until the new plan is durable, recovery walks the old one.
    """
    cdef uint32_t i, ahead = segments_free(store), added = 0
    cdef segment_t* segment
    for i in range(ahead):
        store.plan[i] = store.plan[store.plan_next + i]
    store.plan_next = 0
    store.plan_count = ahead
    for i in range(store.segment_count):
        segment = &store.segments[i]
        if segment_usable(segment):
            segment.state = SEGMENT_EMPTY
            store.emptied -= 1
            store.plan[ahead + added] = i
            added += 1
    return added
