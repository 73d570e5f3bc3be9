"""Walking over what a learner lacks; see resync.pxd."""
from libc.stdint cimport uint32_t, uint64_t

from repstore._fast.layout cimport (
    LOCATION_HOLE, LOCATION_ZERO, OP_COPY, OP_COPY_HOLE, OP_COPY_ZERO, PAGE_BITS, PAGE_ENTRIES, extent_t,
)
from repstore._fast.page_tree cimport page_t, tree_page
from repstore._fast.state cimport RESYNC_FLYING
from repstore._fast.transfer cimport RUN_BLOCKS, transfer_copy
from repstore._fast.volume cimport LOOKUP_OK, bit_get, page_need, volume_lookup


cdef enum:
    LOOKED_AT_BLOCKS = 65536       # of a map that is copied, in one turn


cdef int next_changed(engine_t* engine, volume_t* volume, member_t* member) noexcept nogil:
    """Move copy_next to the next block to look at. LOOKUP_LOADING: a page is being read."""
    cdef page_t* page
    cdef uint32_t number
    cdef int state
    while member.copy_next < volume.size_blocks:
        if member.copy_full and not member.copy_data:
            return LOOKUP_OK                   # a page that is not there is a hole too
        if member.copy_full:
            number = <uint32_t>(member.copy_next // PAGE_ENTRIES)
            page = tree_page(&volume.map, number)
            if page != NULL and (page.data != NULL or page.reference.slot):
                return LOOKUP_OK
            member.copy_next = (<uint64_t>number + 1) * PAGE_ENTRIES
            continue
        number = <uint32_t>(member.copy_next // PAGE_BITS)
        state = page_need(engine, volume, &volume.changes[member.copy_tree], number)
        if state != LOOKUP_OK:
            return state
        page = tree_page(&volume.changes[member.copy_tree], number)
        if page == NULL or page.data == NULL:
            member.copy_next = (<uint64_t>number + 1) * PAGE_BITS
            continue
        if (<uint64_t*>page.data)[(member.copy_next % PAGE_BITS) // 64] == 0:
            member.copy_next = (member.copy_next // 64 + 1) * 64
        elif bit_get(&volume.changes[member.copy_tree], member.copy_next):
            return LOOKUP_OK
        else:
            member.copy_next += 1
    return LOOKUP_OK


cdef inline int copy_kind(uint32_t location) noexcept nogil:
    return OP_COPY_HOLE if location == LOCATION_HOLE else OP_COPY_ZERO if location == LOCATION_ZERO else OP_COPY


cdef uint32_t next_run(volume_t* volume, const member_t* member, extent_t* extents) noexcept nogil:
    """How many blocks from copy_next on are to be looked at and of one kind; of data RUN_BLOCKS at most, with
    their extents. 0: a page is being read."""
    cdef uint64_t lba = member.copy_next
    cdef uint32_t count = 0
    cdef extent_t extent
    while lba + count < volume.size_blocks:
        if count and not member.copy_full and not bit_get(&volume.changes[member.copy_tree], lba + count):
            break
        if volume_lookup(volume, lba + count, &extent) != LOOKUP_OK:
            break
        if count and copy_kind(extent.location) != copy_kind(extents[0].location):
            break
        if count < RUN_BLOCKS:
            extents[count] = extent
        elif copy_kind(extent.location) == OP_COPY:
            break
        count += 1
        if (lba + count) % PAGE_BITS == 0:
            break                              # the next bitmap page may have to be read
    return count


cdef bint resync_copies(engine_t* engine, volume_t* volume, member_t* member) noexcept nogil:
    """Start copies until enough are under way: first of holes and zeros, which make room for the data at the
    learner. True: it got on, and may at once again."""
    cdef extent_t[64] extents                  # RUN_BLOCKS
    cdef uint32_t count, looked = 0
    cdef bint moved = False, takes_room
    cdef int kind
    while copies_flying(member) < RESYNC_FLYING and looked < LOOKED_AT_BLOCKS:
        if next_changed(engine, volume, member) != LOOKUP_OK:
            return moved
        if member.copy_next >= volume.size_blocks:
            if member.copy_data:
                return moved
            member.copy_data = True
            member.copy_next = 0
            continue
        count = next_run(volume, member, extents)
        if count == 0:
            return moved
        kind = copy_kind(extents[0].location)
        takes_room = kind == OP_COPY
        if takes_room == member.copy_data and not transfer_copy(engine, volume, member, kind, member.copy_next,
                                                                count, extents):
            return moved
        member.copy_next += count
        looked += count
        moved = True
    return moved
