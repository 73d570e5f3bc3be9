"""`live` of every segment anew, after a map page was lost with the places it pointed to."""
from libc.stdlib cimport calloc, free

from repstore._fast.layout cimport DIRECTORY_ENTRIES, PAGE_ENTRIES, extent_t
from repstore._fast.page_tree cimport page_t
from repstore._fast.segments cimport is_data, is_emptied, segment_of
from repstore._fast.volume cimport LOOKUP_OK, page_need


cdef bint count_live(const store_t* store, volume_t* volume, uint32_t* live) noexcept nogil:
    """Add the blocks of one map to its segments. False: some page is not in memory."""
    cdef uint32_t i, j, k
    cdef page_t* page
    cdef extent_t* extents
    for i in range(volume.map.directory_count):
        if volume.map.directories[i] == NULL:
            continue
        for j in range(<uint32_t>DIRECTORY_ENTRIES):
            page = &volume.map.directories[i].pages[j]
            if page.data == NULL and page.reference.slot:
                return False
            extents = <extent_t*>page.data
            for k in range(<uint32_t>PAGE_ENTRIES if extents != NULL else 0):
                if is_data(extents[k].location):
                    live[segment_of(store, extents[k].location)] += 1
    return True


cdef bint all_here(engine_t* engine) noexcept nogil:
    """Are all map pages in memory? Starts reading those that are not."""
    cdef uint32_t i, number
    cdef bint here = True
    for i in range(engine.volume_count):
        for number in range(engine.volumes[i].map.page_count):
            here &= page_need(engine, engine.volumes[i], &engine.volumes[i].map, number) == LOOKUP_OK
    return here


cdef void recount_step(engine_t* engine) noexcept nogil:
    """Until it is done, blocks that nothing points to any more count as living: that costs room
    and nothing else."""
    cdef store_t* store = &engine.store
    cdef uint32_t* live
    cdef uint32_t i
    if not all_here(engine):
        return
    live = <uint32_t*>calloc(store.segment_count, sizeof(uint32_t))
    if live == NULL:
        return
    for i in range(engine.volume_count):
        count_live(store, engine.volumes[i], live)
    store.live_blocks = 0
    store.emptied = 0
    for i in range(store.segment_count):
        store.segments[i].live = live[i]
        store.live_blocks += live[i]
        store.emptied += is_emptied(&store.segments[i])
    free(live)
    store.recount = False
