"""Walking a copy; see scrub.pxd. What was read is looked at in `transfer`."""
from libc.stdint cimport uint32_t
from libc.string cimport memset

from repstore._fast.bad_blocks cimport scrub_t
from repstore._fast.layout cimport BLOCK_SHIFT, PAGE_ENTRIES, extent_t
from repstore._fast.page_tree cimport page_t, tree_page
from repstore._fast.segments cimport is_data, is_lost
from repstore._fast.state cimport due
from repstore._fast.transfer cimport transfer_scrub
from repstore._fast.volume cimport LOOKUP_OK, volume_lookup


cdef enum:
    RUN_BLOCKS = 64
    RUNS_LOOKED_AT = 64            # in one turn, where there is nothing to read
    SECOND_NS = 1000000000


cdef void scrub_begin(engine_t* engine, volume_t* volume, uint64_t first, uint64_t rate_bytes_s) noexcept nogil:
    cdef scrub_t* scrub = &engine.scrub
    cdef uint64_t serial = scrub.serial
    memset(scrub, 0, sizeof(scrub_t))
    scrub.serial = serial + 1                  # what an older one still reads does not count
    scrub.running = True
    scrub.volume = volume.index
    scrub.next_lba = first
    scrub.rate_bytes_s = rate_bytes_s
    engine.more = True


cdef void scrub_end(engine_t* engine) noexcept nogil:
    engine.scrub.running = False


cdef void scrub_step(engine_t* engine) noexcept nogil:
    """Once a turn: the next run, if its time has come."""
    cdef scrub_t* scrub = &engine.scrub
    cdef volume_t* volume
    cdef uint32_t _
    if not scrub.running or scrub.flying or engine.store.failed:
        return
    volume = engine.by_index[scrub.volume]
    if volume == NULL:
        scrub.running = False
        return
    if engine.now_ns < scrub.next_ns:
        due(engine, scrub.next_ns)
        return
    for _ in range(RUNS_LOOKED_AT):
        if scrub.next_lba >= volume.size_blocks:
            scrub.running = False
            return
        if not skip_or_read(engine, volume, scrub):
            return
    engine.more = True


cdef bint skip_or_read(engine_t* engine, volume_t* volume, scrub_t* scrub) noexcept nogil:
    """Look at the next run of blocks. True: there was nothing to read in it."""
    cdef page_t* page = tree_page(&volume.map, <uint32_t>(scrub.next_lba // PAGE_ENTRIES))
    cdef uint64_t page_end = (scrub.next_lba // PAGE_ENTRIES + 1) * PAGE_ENTRIES
    cdef uint32_t count, i, to_read = 0
    cdef extent_t[64] extents
    if page == NULL or (page.data == NULL and page.reference.slot == 0):
        scrub.next_lba = min(page_end, volume.size_blocks)
        return True
    count = <uint32_t>min(min(page_end, volume.size_blocks) - scrub.next_lba, <uint64_t>RUN_BLOCKS)
    for i in range(count):
        if volume_lookup(volume, scrub.next_lba + i, &extents[i]) != LOOKUP_OK:
            return False                       # its page is being read
        to_read += is_data(extents[i].location) or is_lost(extents[i].location)
    if to_read:
        scrub.flying = count                   # before: a run of lost blocks has been looked at at once
        if not transfer_scrub(engine, volume, scrub.next_lba, count, extents):
            scrub.flying = 0
            due(engine, engine.now_ns + SECOND_NS // 100)
            return False                       # too much else is under way
        scrub.read_blocks += to_read
        scrub.next_ns = engine.now_ns + (<uint64_t>to_read << BLOCK_SHIFT) * SECOND_NS // scrub.rate_bytes_s
    scrub.next_lba += count
    return to_read == 0
