"""Segments of the local store: where they lie, what lives in them, which come next.

The log enters only the segments of the checkpoint's plan, in that order, so recovery knows
where to look without searching the store. A segment whose blocks are all dead is EMPTY; it
joins the plan of the next checkpoint and may be entered when that checkpoint is durable.
"""
from libc.stdint cimport uint32_t, uint64_t

from repstore._fast.layout cimport LOCATION_BAD, LOCATION_LOST, SEGMENT_SEALED
from repstore._fast.state cimport segment_t, store_t


cdef inline uint64_t segment_start(const store_t* store, uint32_t number) noexcept nogil:
    """First block of a segment; superblock copy 2 stands between the halves."""
    return (store.segment_base + (<uint64_t>number << store.segment_shift)
            + (1 if number >= store.half else 0))


cdef inline uint32_t segment_of(const store_t* store, uint32_t location) noexcept nogil:
    cdef uint64_t relative = location - store.segment_base
    if relative >= <uint64_t>store.half << store.segment_shift:
        relative -= 1
    return <uint32_t>(relative >> store.segment_shift)


cdef inline bint is_data(uint32_t location) noexcept nogil:
    return location > LOCATION_LOST


cdef inline bint is_lost(uint32_t location) noexcept nogil:
    """A block whose content no copy could give: reading it is an error, never zeros."""
    return location == LOCATION_BAD or location == LOCATION_LOST


cdef inline uint32_t segments_free(const store_t* store) noexcept nogil:
    return store.plan_count - store.plan_next


cdef inline bint segments_few(const store_t* store) noexcept nogil:
    """Is no more left than it takes to empty a victim?"""
    return segments_free(store) <= 1


cdef inline bint is_emptied(const segment_t* segment) noexcept nogil:
    """Nothing lives in it, nor will when what is pending is committed. (Pending blocks count: to commit
    them may need the very room that a segment full of them only seems to promise.)"""
    return segment.state == SEGMENT_SEALED and segment.live == 0 and segment.pending == 0


cdef inline bint segment_usable(const segment_t* segment) noexcept nogil:
    """And nothing is being read from it: the next plan may have it."""
    return is_emptied(segment) and segment.pins == 0


cdef inline uint64_t space_left(const store_t* store) noexcept nogil:
    """Blocks that clients may still fill. What is on its way may take some of them, or none: it may
    replace what is there."""
    return store.capacity_blocks - min(store.live_blocks, store.capacity_blocks)


cdef inline void segment_gain(store_t* store, uint32_t location) noexcept nogil:
    cdef segment_t* segment = &store.segments[segment_of(store, location)]
    store.emptied -= is_emptied(segment)
    segment.live += 1
    store.live_blocks += 1


cdef inline void segment_lose(store_t* store, uint32_t location) noexcept nogil:
    cdef segment_t* segment = &store.segments[segment_of(store, location)]
    segment.live -= 1
    store.live_blocks -= 1
    store.emptied += is_emptied(segment)


cdef inline void segment_hold(store_t* store, uint32_t number, uint32_t blocks) noexcept nogil:
    """So many blocks of it are pending."""
    cdef segment_t* segment = &store.segments[number]
    store.emptied -= is_emptied(segment)
    segment.pending += blocks


cdef inline void segment_let_go(store_t* store, uint32_t number, uint32_t blocks) noexcept nogil:
    """So many blocks are pending no more: they live now, or are void."""
    cdef segment_t* segment = &store.segments[number]
    segment.pending -= blocks
    store.emptied += is_emptied(segment)


cdef int segment_enter(store_t* store, int segment_class, bint control) noexcept nogil
cdef void segment_go_on(store_t* store, uint32_t number, int segment_class, uint32_t cursor) noexcept nogil
cdef void segment_seal(store_t* store, int segment_class) noexcept nogil
cdef bint location_valid(const store_t* store, uint64_t location, uint64_t blocks) noexcept nogil
cdef int plan_rebuild(store_t* store) noexcept nogil
