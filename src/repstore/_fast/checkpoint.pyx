"""The checkpoint's step machine; see checkpoint.pxd for the order and the rules."""
from libc.errno cimport ENOMEM, ENOSPC
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy, memset

from repstore._fast.backend cimport DISK_FLUSH, DISK_WRITE
from repstore._fast.checksum cimport crc32c
from repstore._fast.cleaner cimport store_idle
from repstore._fast.layout cimport (
    BLOCK_SHIFT, BLOCK_SIZE, DIRECTORY_ENTRIES, SEGMENT_CLASSES, SEGMENT_FREE, page_reference_t,
    superblock_t,
)
from repstore._fast.log cimport log_close, log_idle, store_fail
from repstore._fast.page_tree cimport (
    PAGE_CAPTURE, captured_t, directory_t, page_tree_t, slots_begin_leaving, slots_next,
    slots_release_leaving, slots_retire, slots_take, tree_begin_capture,
)
from repstore._fast.pages cimport slot_block, superblock_block
from repstore._fast.root cimport root_build, root_fill_references, root_size
from repstore._fast.segments cimport plan_rebuild, segment_usable, segments_free
from repstore._fast.state cimport (
    CHECKPOINT_DRAIN, CHECKPOINT_FLUSH_MIRROR, CHECKPOINT_IDLE, CHECKPOINT_MIRROR,
    CHECKPOINT_PAGES, CHECKPOINT_ROOT, CHECKPOINT_SETTLE, CHECKPOINT_SUPER_A, CHECKPOINT_SUPER_B, TOKEN_CHECKPOINT,
    LANE_PAGES, LANES, checkpoint_lane_t, checkpoint_t, store_t, token, volume_t,
)


cdef extern from "stdlib.h" nogil:
    int posix_memalign(void** out, size_t alignment, size_t size)


cdef enum:
    LANE_NONE = 255                # a completion that frees no lane
    LOG_BLOCKS_MAX = 1048576       # 4 GiB of log bound the time a recovery takes


cdef uint8_t* aligned(size_t size) noexcept nogil:
    cdef void* buffer = NULL
    if posix_memalign(&buffer, BLOCK_SIZE, size) != 0:
        return NULL
    memset(buffer, 0, size)
    return <uint8_t*>buffer


cdef int checkpoint_init(engine_t* engine) noexcept nogil:
    cdef checkpoint_t* checkpoint = &engine.store.checkpoint
    cdef uint32_t i
    for i in range(LANES):
        checkpoint.lanes[i].pages = aligned(LANE_PAGES * <size_t>BLOCK_SIZE)
        if checkpoint.lanes[i].pages == NULL:
            return -1
    checkpoint.superblocks = aligned(4 * BLOCK_SIZE)
    checkpoint.root = aligned(<size_t>engine.store.root_blocks << BLOCK_SHIFT)
    return 0 if checkpoint.superblocks != NULL and checkpoint.root != NULL else -1


cdef void checkpoint_free(engine_t* engine) noexcept nogil:
    cdef checkpoint_t* checkpoint = &engine.store.checkpoint
    cdef uint32_t i
    for i in range(LANES):
        free(checkpoint.lanes[i].pages)
    for i in range(checkpoint.captures.taken, checkpoint.captures.count):
        free(checkpoint.captures.items[i].copy)
    free(checkpoint.captures.items)
    free(checkpoint.directories)
    free(checkpoint.superblocks)
    free(checkpoint.root)
    memset(checkpoint, 0, sizeof(checkpoint_t))


# ---------------------------------------------------------------------------- when to begin

cdef bint due(store_t* store, uint64_t now_ns) noexcept nogil:
    """The log is long; or few segments are free and emptied ones would help: a third of the room between
    `reserve` and `low`, or any at all when clients wait for one; or nobody else wants the disk."""
    cdef uint64_t bound = min(<uint64_t>LOG_BLOCKS_MAX, (<uint64_t>store.segment_count << store.segment_shift) // 4)
    cdef uint32_t free_count = segments_free(store), room = store.low - store.reserve
    if store.checkpoint.wanted or store.log.blocks_since_checkpoint >= bound:
        return True
    if store.emptied > room and store_idle(store, now_ns):
        return any_usable(store)
    if store.emptied == 0 or free_count > store.reserve + room // 3 or (
            store.emptied < room // 3 and free_count > store.reserve):
        return False
    return any_usable(store)


cdef bint any_usable(const store_t* store) noexcept nogil:
    """Is one of the emptied segments out of everybody's hands?"""
    cdef uint32_t i
    for i in range(store.segment_count):
        if segment_usable(&store.segments[i]):
            return True
    return False


cdef bint checkpoint_step(engine_t* engine) noexcept nogil:
    """Begin one if it is due, and go on with the running one. Returns whether anything moved."""
    cdef store_t* store = &engine.store
    cdef checkpoint_t* checkpoint = &store.checkpoint
    cdef uint32_t i
    if store.failed:
        return False
    if checkpoint.step == CHECKPOINT_IDLE:
        if not due(store, engine.now_ns):
            return False
        checkpoint.step = CHECKPOINT_DRAIN
        store.log.held = True
        for i in range(SEGMENT_CLASSES):
            log_close(engine, i)
        if checkpoint.number == 0:
            checkpoint.step = CHECKPOINT_SETTLE
            flush(engine)
            return True
    if checkpoint.step == CHECKPOINT_DRAIN:
        return log_idle(engine) and snapshot(engine)
    if checkpoint.step == CHECKPOINT_PAGES:
        return write_pages(engine)
    return False


cdef int make_room(checkpoint_t* checkpoint, uint32_t pages, uint32_t directories) noexcept nogil:
    cdef void* grown
    if checkpoint.captures.capacity < pages:
        grown = realloc(checkpoint.captures.items, pages * sizeof(captured_t))
        if grown == NULL:
            return -1
        checkpoint.captures.items = <captured_t*>grown
        checkpoint.captures.capacity = pages
    if checkpoint.directory_capacity < directories:
        grown = realloc(checkpoint.directories, directories * sizeof(directory_t*))
        if grown == NULL:
            return -1
        checkpoint.directories = <directory_t**>grown
        checkpoint.directory_capacity = directories
    checkpoint.captures.count = 0
    checkpoint.captures.taken = 0
    checkpoint.directory_count = 0
    checkpoint.directories_taken = 0
    return 0


cdef page_tree_t* tree_of(volume_t* volume, uint32_t i) noexcept nogil:
    return &volume.map if i == 0 else &volume.changes[i - 1]


cdef bint snapshot(engine_t* engine) noexcept nogil:
    """Batch S is applied and nothing is on its way: this state is the checkpoint (K1)."""
    cdef store_t* store = &engine.store
    cdef checkpoint_t* checkpoint = &store.checkpoint
    cdef uint32_t v, i, j, pages = 0, directories = 0
    cdef page_tree_t* tree
    if root_size(engine) > <int64_t>(<uint64_t>store.root_blocks << BLOCK_SHIFT):
        return False                       # many records are pending: their commits make room
    for v in range(engine.volume_count):
        for i in range(1 + engine.volumes[v].change_count):
            tree = tree_of(engine.volumes[v], i)
            pages += tree.dirty_count
            directories += tree.directory_count
    if make_room(checkpoint, pages, directories) != 0:
        store_fail(engine, ENOMEM)
        return False
    for v in range(engine.volume_count):
        for i in range(1 + engine.volumes[v].change_count):
            tree = tree_of(engine.volumes[v], i)
            tree_begin_capture(tree, &checkpoint.captures)
            for j in range(tree.directory_count):
                if tree.directories[j] != NULL and tree.directories[j].flags & PAGE_CAPTURE:
                    tree.directories[j].flags &= ~<uint32_t>PAGE_CAPTURE
                    checkpoint.directories[checkpoint.directory_count] = tree.directories[j]
                    checkpoint.directory_count += 1
    checkpoint.batch_sequence = store.log.completed_sequence
    checkpoint.batch_crc = store.log.last_crc
    checkpoint.emptied = plan_rebuild(store)
    slots_begin_leaving(&store.slots)
    checkpoint.root_bytes = root_build(engine, checkpoint.root, checkpoint.emptied)
    checkpoint.step = CHECKPOINT_PAGES
    checkpoint.wanted = 0
    checkpoint.clean = checkpoint.closing
    store.log.blocks_since_checkpoint = 0
    # the first one puts the life's id on disk: until then no batch of this life would count;
    # behind one that says "closed" nobody would look for batches
    store.log.held = checkpoint.number == 0 or checkpoint.clean
    return True


# ------------------------------------------------------------------------ pages and the root

cdef bint all_zero(const uint8_t* page) noexcept nogil:
    cdef const uint64_t* words = <const uint64_t*>page
    cdef uint32_t i
    for i in range(BLOCK_SIZE // 8):
        if words[i]:
            return False
    return True


cdef void put_page(store_t* store, checkpoint_lane_t* lane, page_reference_t* reference) noexcept nogil:
    """The page at the end of a lane gets the slot behind the one before it (K2), and the lane room for
    another. A page of zeros needs no slot."""
    cdef const uint8_t* page = lane.pages + (<size_t>lane.count << BLOCK_SHIFT)
    slots_retire(&store.slots.leaving, reference.slot)
    if all_zero(page):
        reference.slot = 0
        reference.crc = 0
        return
    reference.slot = lane.first_slot + lane.count
    reference.crc = crc32c(0, page, BLOCK_SIZE)
    slots_take(&store.slots, reference.slot)
    lane.count += 1
    store.counters.pages_written += 1


cdef void take_captured(engine_t* engine, checkpoint_lane_t* lane) noexcept nogil:
    cdef checkpoint_t* checkpoint = &engine.store.checkpoint
    cdef captured_t* item = &checkpoint.captures.items[checkpoint.captures.taken]
    cdef uint8_t* out = lane.pages + (<size_t>lane.count << BLOCK_SHIFT)
    checkpoint.captures.taken += 1
    if item.copy != NULL:
        memcpy(out, item.copy, BLOCK_SIZE)
        free(item.copy)
        item.copy = NULL
    else:
        memcpy(out, item.page.data, BLOCK_SIZE)
        item.page.flags &= ~<uint32_t>PAGE_CAPTURE
    put_page(&engine.store, lane, &item.page.reference)


cdef void take_directory(engine_t* engine, checkpoint_lane_t* lane) noexcept nogil:
    cdef checkpoint_t* checkpoint = &engine.store.checkpoint
    cdef directory_t* directory = checkpoint.directories[checkpoint.directories_taken]
    cdef page_reference_t* out = <page_reference_t*>(lane.pages + (<size_t>lane.count << BLOCK_SHIFT))
    cdef uint32_t i
    checkpoint.directories_taken += 1
    for i in range(DIRECTORY_ENTRIES):
        out[i] = directory.pages[i].reference
        if out[i].slot == 0:
            out[i].crc = 0
            out[i].max_lsn = 0
        else:
            directory.reference.max_lsn = max(directory.reference.max_lsn, out[i].max_lsn)
    put_page(&engine.store, lane, &directory.reference)


cdef void fill_lane(engine_t* engine, checkpoint_lane_t* lane) noexcept nogil:
    """As many pages as stand side by side: pages first, then the directories that name them."""
    cdef store_t* store = &engine.store
    cdef checkpoint_t* checkpoint = &store.checkpoint
    cdef uint32_t slot
    lane.count = 0
    while lane.count < <uint32_t>LANE_PAGES:
        slot = slots_next(&store.slots)
        if slot == 0:
            store_fail(engine, ENOSPC)         # volume_create keeps room, so this is a fault of ours
            return
        if lane.count == 0:
            lane.first_slot = slot
        elif slot != lane.first_slot + lane.count:
            return
        if checkpoint.captures.taken < checkpoint.captures.count:
            take_captured(engine, lane)
        elif checkpoint.directories_taken < checkpoint.directory_count:
            take_directory(engine, lane)
        else:
            return


cdef bint write_pages(engine_t* engine) noexcept nogil:
    """Fill the free lanes and send them off; the root follows when all are written."""
    cdef checkpoint_t* checkpoint = &engine.store.checkpoint
    cdef checkpoint_lane_t* lane
    cdef uint32_t i
    cdef int second
    cdef bint moved = False
    for i in range(LANES):
        lane = &checkpoint.lanes[i]
        if lane.flying:
            continue
        fill_lane(engine, lane)
        if engine.store.failed:
            return False
        if lane.count == 0:
            break
        moved = True
        for second in range(2):
            lane.flying += 1
            checkpoint.flying += 1
            engine.backend.disk(engine.backend.context, DISK_WRITE,
                                slot_block(&engine.store, lane.first_slot, second) << BLOCK_SHIFT, lane.pages,
                                lane.count << BLOCK_SHIFT, token(TOKEN_CHECKPOINT, i))
    if (checkpoint.flying == 0 and checkpoint.captures.taken == checkpoint.captures.count
            and checkpoint.directories_taken == checkpoint.directory_count):
        root_fill_references(engine, checkpoint.root)
        write_root(engine, CHECKPOINT_ROOT, 1 - engine.store.superblock.root_area)
        moved = True
    return moved


cdef void write_root(engine_t* engine, int step, uint32_t area) noexcept nogil:
    cdef store_t* store = &engine.store
    cdef checkpoint_t* checkpoint = &store.checkpoint
    cdef uint32_t blocks = (checkpoint.root_bytes + BLOCK_SIZE - 1) >> BLOCK_SHIFT
    checkpoint.step = <uint8_t>step
    engine.backend.disk(engine.backend.context, DISK_WRITE,
                        (1 + <uint64_t>area * store.root_blocks) << BLOCK_SHIFT, checkpoint.root,
                        blocks << BLOCK_SHIFT, token(TOKEN_CHECKPOINT, LANE_NONE))


# ------------------------------------------------------------------------------ superblocks

cdef void build_superblocks(engine_t* engine) noexcept nogil:
    cdef store_t* store = &engine.store
    cdef checkpoint_t* checkpoint = &store.checkpoint
    cdef superblock_t* block
    cdef uint32_t copy
    for copy in range(4):
        block = <superblock_t*>(checkpoint.superblocks + copy * BLOCK_SIZE)
        memset(block, 0, BLOCK_SIZE)
        memcpy(block, &store.superblock, sizeof(superblock_t))
        block.copy_number = copy
        block.sequence = store.superblock.sequence + 1
        block.parent_crc = store.superblock.crc
        block.clean = checkpoint.clean
        block.life_id = store.life_id
        memcpy(block.boot_id, engine.boot_id, 16)
        block.root_area = 1 - store.superblock.root_area
        block.root_bytes = checkpoint.root_bytes
        block.root_crc = crc32c(0, checkpoint.root, checkpoint.root_bytes)
        block.crc = 0
        block.crc = crc32c(0, block, BLOCK_SIZE)


cdef void checkpoint_order_superblocks(engine_t* engine, uint32_t lagging) noexcept nogil:
    """Which copies are written first: those that do not have the state that was opened (a bit
    each). Two copies of it or two of the new one are then whole at any time (K1)."""
    cdef uint32_t copy, place = 0
    cdef int wanted
    for wanted in range(1, -1, -1):
        for copy in range(4):
            if <int>((lagging >> copy) & 1) == wanted:
                engine.store.checkpoint.superblock_order[place] = <uint8_t>copy
                place += 1


cdef void write_superblocks(engine_t* engine, uint32_t first) noexcept nogil:
    cdef uint32_t i, copy
    for i in range(first, first + 2):
        copy = engine.store.checkpoint.superblock_order[i]
        engine.store.checkpoint.flying += 1
        engine.backend.disk(engine.backend.context, DISK_WRITE,
                            superblock_block(&engine.store, copy) << BLOCK_SHIFT,
                            engine.store.checkpoint.superblocks + copy * BLOCK_SIZE, BLOCK_SIZE,
                            token(TOKEN_CHECKPOINT, LANE_NONE))


cdef void flush(engine_t* engine) noexcept nogil:
    engine.backend.disk(engine.backend.context, DISK_FLUSH, 0, NULL, 0, token(TOKEN_CHECKPOINT, LANE_NONE))


cdef void checkpoint_done(engine_t* engine, uint64_t value, int32_t result) noexcept nogil:
    """The disk answered for one step. Any failure fences the store (L3)."""
    cdef checkpoint_t* checkpoint = &engine.store.checkpoint
    if result < 0:
        store_fail(engine, -result)
        return
    if value != LANE_NONE:
        checkpoint.lanes[value].flying -= 1
        checkpoint.flying -= 1
        return
    if checkpoint.step == CHECKPOINT_SUPER_A or checkpoint.step == CHECKPOINT_SUPER_B:
        checkpoint.flying -= 1
        if checkpoint.flying:
            return
    checkpoint.step += 1
    if checkpoint.step == CHECKPOINT_SUPER_A:
        build_superblocks(engine)
        write_superblocks(engine, 0)
    elif checkpoint.step == CHECKPOINT_SUPER_B:
        write_superblocks(engine, 2)
    elif checkpoint.step == CHECKPOINT_MIRROR:
        write_root(engine, CHECKPOINT_MIRROR, engine.store.superblock.root_area)
    elif checkpoint.step == CHECKPOINT_FLUSH_MIRROR and checkpoint.clean:
        flush(engine)
    elif checkpoint.step > CHECKPOINT_MIRROR:
        finish(engine)
    elif checkpoint.step != CHECKPOINT_DRAIN:
        flush(engine)


cdef void finish(engine_t* engine) noexcept nogil:
    """All superblocks are out, and the second root (K4): what the old checkpoint kept may be used
    again (K3)."""
    cdef store_t* store = &engine.store
    cdef checkpoint_t* checkpoint = &store.checkpoint
    cdef uint32_t i
    memcpy(&store.superblock, checkpoint.superblocks, sizeof(superblock_t))
    for i in range(store.plan_count, store.plan_count + checkpoint.emptied):
        store.segments[store.plan[i]].state = SEGMENT_FREE
    store.plan_count += checkpoint.emptied
    checkpoint.emptied = 0
    slots_release_leaving(&store.slots)
    checkpoint.step = CHECKPOINT_IDLE
    checkpoint.number += 1
    store.log.held = checkpoint.clean
    store.counters.checkpoints += 1
