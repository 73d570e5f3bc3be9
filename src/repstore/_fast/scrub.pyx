"""Walking a copy; see scrub.pxd. What was read is looked at in `transfer`."""
from libc.stdint cimport uint32_t
from libc.string cimport memset

from repstore._fast.backend cimport DISK_READ
from repstore._fast.bad_blocks cimport page_check_t, scrub_t
from repstore._fast.checksum cimport crc32c
from repstore._fast.events cimport EVENT_BAD_BLOCK, event_push
from repstore._fast.layout cimport (
    BLOCK_SHIFT, BLOCK_SIZE, DIRECTORY_ENTRIES, PAGE_BITS, PAGE_ENTRIES, extent_t, page_reference_t,
)
from repstore._fast.page_tree cimport PAGE_DIRTY, directory_t, page_t, page_tree_t, tree_page, tree_touch
from repstore._fast.pages cimport slot_block
from repstore._fast.requests cimport buffer_get, buffer_put
from repstore._fast.segments cimport is_data, is_lost
from repstore._fast.state cimport CHECKPOINT_IDLE, TOKEN_SCRUB, due, token
from repstore._fast.transfer cimport RUN_BLOCKS, transfer_scrub
from repstore._fast.volume cimport LOOKUP_OK, page_need, volume_lookup


cdef enum:
    RUNS_LOOKED_AT = 64            # in one turn, where there is nothing to read
    SECOND_NS = 1000000000
    LOOK_AGAIN_NS = 10000000       # when too much else is under way


cdef void scrub_begin(engine_t* engine, volume_t* volume, uint64_t first, uint64_t rate_bytes_s) noexcept nogil:
    cdef scrub_t* scrub = &engine.scrub
    cdef uint64_t serial = scrub.serial
    cdef page_check_t check = scrub.check      # what the disk still reads stays ours
    memset(scrub, 0, sizeof(scrub_t))
    scrub.check = check
    scrub.serial = serial + 1                  # what an older one still reads does not count
    scrub.running = True
    scrub.volume = volume.index
    scrub.next_lba = first
    scrub.rate_bytes_s = rate_bytes_s
    engine.more = True


cdef void scrub_end(engine_t* engine) noexcept nogil:
    engine.scrub.running = False
    if engine.scrub.bad_pages:
        engine.store.checkpoint.wanted = 1
        engine.more = True


cdef void scrub_step(engine_t* engine) noexcept nogil:
    """Once a turn: the next run, if its time has come."""
    cdef scrub_t* scrub = &engine.scrub
    cdef volume_t* volume
    cdef uint32_t _
    if not scrub.running or scrub.flying or scrub.check.flying or engine.store.failed:
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
            scrub_end(engine)
            return
        if not pages_checked(engine, volume, scrub) or not skip_or_read(engine, volume, scrub):
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
        scrub.part = 0
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
            due(engine, engine.now_ns + LOOK_AGAIN_NS)
            return False
        scrub.read_blocks += to_read
        scrub.next_ns = engine.now_ns + duration_ns(scrub, to_read)
    scrub.next_lba += count
    scrub.part = 0
    return to_read == 0


cdef uint64_t duration_ns(const scrub_t* scrub, uint32_t blocks) noexcept nogil:
    """How long so many blocks take at the rate that was asked for."""
    return (<uint64_t>blocks << BLOCK_SHIFT) * SECOND_NS // scrub.rate_bytes_s


# ------------------------------------------------------------------------------------- pages

cdef page_tree_t* tree_of(volume_t* volume, uint32_t part) noexcept nogil:
    return &volume.map if part < 2 else &volume.changes[part // 2 - 1]


cdef uint32_t blocks_a_page(uint32_t part) noexcept nogil:
    return PAGE_ENTRIES if part < 2 else PAGE_BITS


cdef page_reference_t* reference_here(volume_t* volume, const scrub_t* scrub) noexcept nogil:
    """What names the page that is `part` of those that begin at `next_lba`. NULL: there is none."""
    cdef page_tree_t* tree = tree_of(volume, scrub.part)
    cdef uint64_t number = scrub.next_lba // blocks_a_page(scrub.part)
    cdef directory_t* directory = tree.directories[number // DIRECTORY_ENTRIES]
    if scrub.next_lba % blocks_a_page(scrub.part) or directory == NULL:
        return NULL
    if scrub.part & 1:
        return &directory.pages[number % DIRECTORY_ENTRIES].reference
    return &directory.reference if number % DIRECTORY_ENTRIES == 0 else NULL


cdef bint pages_checked(engine_t* engine, volume_t* volume, scrub_t* scrub) noexcept nogil:
    """Go on with the pages that begin here. True: all were looked at."""
    cdef const page_reference_t* reference
    if scrub.next_lba % PAGE_ENTRIES:
        return True
    while scrub.part < 2 * (1 + volume.change_count):
        reference = reference_here(volume, scrub)
        if reference != NULL and reference.slot:
            check_page(engine, volume, scrub, reference)
            return False
        scrub.part += 1
    return True


cdef void check_page(engine_t* engine, volume_t* volume, scrub_t* scrub,
                     const page_reference_t* reference) noexcept nogil:
    """Read both blocks of a page. It must be in memory, to be written anew; and no checkpoint may run,
    for a page that it writes is named before it is there."""
    cdef page_check_t* check = &scrub.check
    cdef int second
    if scrub.part & 1 and page_need(engine, volume, tree_of(volume, scrub.part), <uint32_t>(
            scrub.next_lba // blocks_a_page(scrub.part))) != LOOKUP_OK:
        return                                 # being read
    check.blocks = buffer_get(engine, 2) if engine.store.checkpoint.step == CHECKPOINT_IDLE else NULL
    if check.blocks == NULL:
        due(engine, engine.now_ns + LOOK_AGAIN_NS)
        return
    check.reference = reference[0]
    check.serial = scrub.serial
    check.bad = False
    check.flying = 2
    scrub.next_ns = engine.now_ns + duration_ns(scrub, 2)
    for second in range(2):
        engine.backend.disk(engine.backend.context, DISK_READ,
                            slot_block(&engine.store, reference.slot, second) << BLOCK_SHIFT,
                            check.blocks + second * BLOCK_SIZE, BLOCK_SIZE, token(TOKEN_SCRUB, second))


cdef void scrub_free(engine_t* engine) noexcept nogil:
    """The engine ends."""
    if engine.scrub.check.flying:
        buffer_put(engine, engine.scrub.check.blocks, 2)


cdef void scrub_page_read(engine_t* engine, uint64_t second, int32_t result) noexcept nogil:
    """The disk answered for one of the two blocks."""
    cdef scrub_t* scrub = &engine.scrub
    cdef page_check_t* check = &scrub.check
    cdef volume_t* volume = engine.by_index[scrub.volume]
    cdef const page_reference_t* reference
    check.flying -= 1
    check.bad |= result != BLOCK_SIZE or crc32c(0, check.blocks + second * BLOCK_SIZE, BLOCK_SIZE) != check.reference.crc
    if check.flying:
        return
    buffer_put(engine, check.blocks, 2)
    if check.serial != scrub.serial or volume == NULL or scrub.part >= 2 * (1 + volume.change_count):
        return                                 # of an older scrub, or the bitmap is gone
    reference = reference_here(volume, scrub)
    if (check.bad and reference != NULL and reference.slot == check.reference.slot
            and reference.crc == check.reference.crc):
        write_anew(engine, volume, scrub)
    scrub.part += 1


cdef void write_anew(engine_t* engine, volume_t* volume, scrub_t* scrub) noexcept nogil:
    """A page has a bad block: the next checkpoint writes it, to both blocks of another slot."""
    cdef page_tree_t* tree = tree_of(volume, scrub.part)
    cdef uint32_t number = <uint32_t>(scrub.next_lba // blocks_a_page(scrub.part))
    scrub.bad_pages += 1
    engine.store.counters.bad_blocks += 1
    event_push(engine, EVENT_BAD_BLOCK, volume.index, engine.node, 0,
               slot_block(&engine.store, scrub.check.reference.slot, False), 1, 0, 0, NULL)
    if scrub.part & 1:
        tree_touch(tree, number, 0, &engine.store.checkpoint.captures)
    else:
        tree.directories[number // DIRECTORY_ENTRIES].flags |= PAGE_DIRTY
