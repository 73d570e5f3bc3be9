"""Write and read the checkpoint root. Lengths are checked against the room before any use."""
from libc.stdint cimport uint16_t
from libc.stdlib cimport calloc
from libc.string cimport memcpy, memset

from repstore._fast.layout cimport (
    BATCH_PAYLOAD_BLOCKS, DIRECTORY_ENTRIES, GENERATIONS_MAX, LINEAGE_ENTRIES, LOCATION_HOLE,
    LOCATION_ZERO, OP_EPOCH, OP_TRIM, OP_WRITE, OP_ZERO, PAGE_BITS, ROOT_MAGIC, SEGMENT_CLASSES, SEGMENT_FREE,
    SEGMENT_OPEN, SEGMENT_SEALED, page_reference_t, pending_t, root_header_t, segment_entry_t, tree_entry_t,
    volume_entry_t,
)
from repstore._fast.page_tree cimport (
    PAGE_DIRTY, directory_t, page_tree_t, slots_take, tree_init,
)
from repstore._fast.pages cimport PAGE_LOST, PAGE_SECOND, PAGE_UNREAD, page_lost, page_read_now
from repstore._fast.segments cimport (
    is_emptied, location_valid, segment_go_on, segment_hold, segment_of, segments_free,
)
from repstore._fast.state cimport (
    PENDING_CRCS, PENDING_RECORDS, VOLUME_INDEX_MAX, VOLUMES_MAX, segment_t, store_t, volume_t,
)
from repstore._fast.volume cimport pending_at, volume_attach, volume_free, volume_new


# ------------------------------------------------------------------------------- writing

cdef page_tree_t* volume_tree(volume_t* volume, uint32_t i) noexcept nogil:
    """Tree 0 is the map, the others are change bitmaps."""
    return &volume.map if i == 0 else &volume.changes[i - 1]


cdef uint64_t volume_bytes(volume_t* volume) noexcept nogil:
    cdef uint64_t size = (sizeof(volume_entry_t) + volume.pending_count * sizeof(pending_t)
                          + volume.crc_count * 4)
    cdef uint32_t i
    for i in range(1 + volume.change_count):
        size += sizeof(tree_entry_t) + volume_tree(volume, i).directory_count * sizeof(page_reference_t)
    return size


cdef int64_t root_store_bytes(const store_t* store) noexcept nogil:
    """What a root takes that holds no volume."""
    return sizeof(root_header_t) + store.segment_count * <int64_t>(sizeof(segment_entry_t) + 4)


cdef int64_t root_size(engine_t* engine) noexcept nogil:
    """Bytes the root would take now, with every sealed segment counted into the plan."""
    cdef uint64_t size = root_store_bytes(&engine.store)
    cdef uint32_t i
    for i in range(engine.volume_count):
        size += volume_bytes(engine.volumes[i])
    return <int64_t>size


cdef inline int64_t coming_bytes(uint64_t records, uint64_t payload_blocks) noexcept nogil:
    return <int64_t>(records * sizeof(pending_t) + payload_blocks * 4)


cdef bint root_has_room(engine_t* engine, const volume_t* volume, uint64_t records,
                        uint64_t payload_blocks) noexcept nogil:
    """Would the root of a checkpoint hold these too, if all that is logged stays uncommitted? A checkpoint
    waits for commits otherwise, with the log held; what would bring them about would wait for the log. A
    volume takes no more than it leaves, but for its first records: one whose commits wait leaves room to others."""
    cdef uint64_t own = volume.pending_count + volume.unapplied_records
    cdef uint64_t own_blocks = volume.crc_count + volume.unapplied_blocks
    cdef int64_t left = engine.store.root_room - coming_bytes(
        engine.store.coming_records + records, engine.store.coming_blocks + payload_blocks)
    return left >= 0 and (own == 0 or coming_bytes(own + records, own_blocks + payload_blocks) <= left)


cdef uint32_t root_build(engine_t* engine, uint8_t* out, uint32_t emptied) noexcept nogil:
    """Everything but the page references, which are known when the pages are written."""
    cdef store_t* store = &engine.store
    cdef root_header_t* header = <root_header_t*>out
    cdef segment_entry_t* entry
    cdef uint32_t i, plan_count = segments_free(store) + emptied
    cdef uint8_t* at = out + sizeof(root_header_t)
    memset(out, 0, sizeof(root_header_t))
    for i in range(store.segment_count):
        entry = <segment_entry_t*>at
        memset(entry, 0, sizeof(segment_entry_t))
        entry.generation = store.segments[i].generation
        entry.live = store.segments[i].live
        entry.state = store.segments[i].state
        entry.segment_class = store.segments[i].segment_class
        if entry.state == SEGMENT_OPEN:
            entry.written_blocks = <uint16_t>store.log.heads[entry.segment_class].cursor
        entry.age = store.segments[i].age
        at += sizeof(segment_entry_t)
    memcpy(at, store.plan + store.plan_next, plan_count * 4)
    at += plan_count * 4
    for i in range(engine.volume_count):
        at = build_volume(engine.volumes[i], at, out)
    header.magic = ROOT_MAGIC
    header.version = 1
    header.batch_sequence = store.checkpoint.batch_sequence
    header.batch_crc = store.checkpoint.batch_crc
    header.segment_count = store.segment_count
    header.plan_count = plan_count
    header.volume_count = engine.volume_count
    header.root_bytes = <uint32_t>(at - out)
    return header.root_bytes


cdef uint8_t* build_volume(volume_t* volume, uint8_t* at, const uint8_t* root) noexcept nogil:
    cdef volume_entry_t* entry = <volume_entry_t*>at
    cdef uint32_t i
    memset(entry, 0, sizeof(volume_entry_t))
    memcpy(entry.uuid, volume.uuid, 16)
    memcpy(entry.name, volume.name, 64)
    entry.size_blocks = volume.size_blocks
    entry.index = volume.index
    entry.epoch = volume.epoch
    entry.sealed_epoch = volume.sealed_epoch
    entry.flags = volume.flags
    entry.last_lsn = volume.local_lsn
    entry.commit_lsn = volume.commit_lsn
    entry.durable_lsn = volume.durable_lsn
    entry.chain = volume.chain_commit
    entry.learn_base = volume.learn_base
    entry.session = volume.session
    entry.session_floor = volume.session_highest
    memcpy(entry.session_window, volume.session_window, sizeof(volume.session_window))
    entry.lineage_count = volume.lineage_count
    memcpy(entry.lineage, volume.lineage, sizeof(volume.lineage))
    entry.pending_count = volume.pending_count
    entry.pending_crcs = volume.crc_count
    entry.tree_count = 1 + volume.change_count
    at += sizeof(volume_entry_t)
    for i in range(volume.pending_count):
        memcpy(at, pending_at(volume, i), sizeof(pending_t))
        at += sizeof(pending_t)
    for i in range(volume.crc_count):
        (<uint32_t*>at)[0] = volume.pending_crcs[(volume.crc_head + i) % PENDING_CRCS]
        at += 4
    volume.root_trees = <uint32_t>(at - root)
    volume.root_tree_count = entry.tree_count
    for i in range(entry.tree_count):
        at += sizeof(tree_entry_t) + volume_tree(volume, i).directory_count * sizeof(page_reference_t)
    return at


cdef void root_fill_references(engine_t* engine, uint8_t* out) noexcept nogil:
    """All pages and directories have their places: put the directory references in."""
    cdef uint32_t v, i, j
    cdef uint8_t* at
    cdef page_tree_t* tree
    cdef tree_entry_t* entry
    for v in range(engine.volume_count):
        at = out + engine.volumes[v].root_trees
        for i in range(engine.volumes[v].root_tree_count):
            tree = volume_tree(engine.volumes[v], i)
            entry = <tree_entry_t*>at
            entry.base_lsn = tree.base_lsn
            entry.directory_count = tree.directory_count
            entry.reserved = 0
            at += sizeof(tree_entry_t)
            for j in range(tree.directory_count):
                memset(at, 0, sizeof(page_reference_t))
                if tree.directories[j] != NULL:
                    memcpy(at, &tree.directories[j].reference, sizeof(page_reference_t))
                at += sizeof(page_reference_t)


# ------------------------------------------------------------------------------- reading

cdef struct cursor_t:
    const uint8_t* at
    uint64_t left


cdef const uint8_t* take(cursor_t* cursor, uint64_t count) noexcept nogil:
    """The next `count` bytes, or NULL if there are not so many."""
    cdef const uint8_t* here = cursor.at
    if count > cursor.left:
        return NULL
    cursor.at += count
    cursor.left -= count
    return here


cdef int root_load(engine_t* engine, const uint8_t* root, uint64_t room) noexcept nogil:
    """Rebuild segments, plan, volumes and directories from a root whose checksum was verified."""
    cdef store_t* store = &engine.store
    cdef cursor_t cursor
    cdef const root_header_t* header
    cdef uint32_t _
    cdef int fault
    cursor.at = root
    cursor.left = room
    header = <const root_header_t*>take(&cursor, sizeof(root_header_t))
    if (header == NULL or header.magic != ROOT_MAGIC or header.version != 1
            or header.segment_count != store.segment_count or header.plan_count > store.segment_count
            or header.volume_count > VOLUMES_MAX):
        return ROOT_MALFORMED
    store.log.completed_sequence = header.batch_sequence
    store.log.next_sequence = header.batch_sequence + 1
    store.log.last_crc = header.batch_crc
    if load_segments(store, &cursor, header.plan_count) != ROOT_OK:
        return ROOT_MALFORMED
    for _ in range(header.volume_count):
        fault = load_volume(engine, &cursor)
        if fault != ROOT_OK:
            return fault
    return ROOT_OK


cdef int load_segments(store_t* store, cursor_t* cursor, uint32_t plan_count) noexcept nogil:
    cdef const segment_entry_t* entries = <const segment_entry_t*>take(
        cursor, store.segment_count * <uint64_t>sizeof(segment_entry_t))
    cdef const segment_entry_t* entry
    cdef const uint32_t* planned
    cdef segment_t* segment
    cdef uint32_t i
    if entries == NULL:
        return ROOT_MALFORMED
    for i in range(store.segment_count):
        entry = entries + i
        if entry.live > store.segment_blocks:
            return ROOT_MALFORMED
        segment = &store.segments[i]
        segment.generation = entry.generation
        segment.live = entry.live
        segment.state = SEGMENT_SEALED
        segment.segment_class = entry.segment_class
        segment.age = 0
        store.live_blocks += entry.live
    planned = <const uint32_t*>take(cursor, plan_count * <uint64_t>4)
    if planned == NULL:
        return ROOT_MALFORMED
    for i in range(plan_count):
        if planned[i] >= store.segment_count or store.segments[planned[i]].state != SEGMENT_SEALED:
            return ROOT_MALFORMED
        store.plan[i] = planned[i]
        store.segments[planned[i]].state = SEGMENT_FREE
    store.plan_count = plan_count
    for i in range(store.segment_count):
        entry = entries + i
        if entry.state != SEGMENT_OPEN:
            continue
        if (entry.segment_class >= SEGMENT_CLASSES or store.log.heads[entry.segment_class].opened
                or store.segments[i].state != SEGMENT_SEALED or entry.written_blocks > store.segment_blocks):
            return ROOT_MALFORMED
        segment_go_on(store, i, entry.segment_class, entry.written_blocks)
    for i in range(store.segment_count):
        store.emptied += is_emptied(&store.segments[i])
    return ROOT_OK


cdef int load_volume(engine_t* engine, cursor_t* cursor) noexcept nogil:
    cdef const volume_entry_t* entry = <const volume_entry_t*>take(cursor, sizeof(volume_entry_t))
    cdef volume_t* volume
    cdef uint32_t i
    cdef int fault = ROOT_OK
    if (entry == NULL or entry.index >= VOLUME_INDEX_MAX or entry.size_blocks == 0
            or entry.size_blocks > <uint64_t>1 << 40 or entry.lineage_count > LINEAGE_ENTRIES
            or entry.tree_count == 0 or entry.tree_count > 1 + GENERATIONS_MAX):
        return ROOT_MALFORMED
    volume = volume_new(engine, entry.index, entry.uuid, <const char*>entry.name, entry.size_blocks)
    if volume == NULL:
        return ROOT_NO_MEMORY
    if volume_attach(engine, volume) != 0:
        volume_free(volume)
        return ROOT_MALFORMED
    volume.epoch = entry.epoch
    volume.sealed_epoch = entry.sealed_epoch
    volume.flags = entry.flags
    volume.commit_lsn = entry.commit_lsn
    volume.durable_lsn = min(entry.durable_lsn, entry.last_lsn)
    volume.local_lsn = entry.last_lsn
    volume.chain_commit = entry.chain
    volume.chain_local = entry.chain
    volume.learn_base = entry.learn_base
    volume.session = entry.session
    volume.session_highest = entry.session_floor
    memcpy(volume.session_window, entry.session_window, sizeof(volume.session_window))
    volume.lineage_count = entry.lineage_count
    memcpy(volume.lineage, entry.lineage, sizeof(volume.lineage))
    fault = load_pending(engine, volume, cursor, entry.pending_count, entry.pending_crcs)
    for i in range(entry.tree_count):
        if fault == ROOT_OK:
            fault = load_tree(engine, volume, cursor, i)
    return fault


cdef int load_pending(engine_t* engine, volume_t* volume, cursor_t* cursor, uint32_t records,
                      uint32_t crcs) noexcept nogil:
    """The uncommitted records must cover (commit_lsn, last_lsn] without a gap (E1)."""
    cdef const pending_t* entry
    cdef const uint8_t* bytes
    cdef uint64_t lsn = volume.commit_lsn, payload = 0
    cdef uint32_t i
    if records > PENDING_RECORDS or crcs > PENDING_CRCS:
        return ROOT_MALFORMED
    for i in range(records):
        entry = <const pending_t*>take(cursor, sizeof(pending_t))
        if (entry == NULL or entry.lsn != lsn + 1 or entry.blocks == 0 or entry.lba >= volume.size_blocks
                or entry.blocks > volume.size_blocks - entry.lba):
            return ROOT_MALFORMED
        if entry.operation == OP_WRITE:
            if entry.blocks > BATCH_PAYLOAD_BLOCKS or not location_valid(
                    &engine.store, entry.location, entry.blocks):
                return ROOT_MALFORMED
            payload += entry.blocks
            segment_hold(&engine.store, segment_of(&engine.store, entry.location), entry.blocks)
            engine.store.coming_blocks += entry.blocks
        elif not ((entry.operation == OP_ZERO and entry.location == LOCATION_ZERO)
                  or (entry.operation == OP_TRIM and entry.location == LOCATION_HOLE)
                  or entry.operation == OP_EPOCH):
            return ROOT_MALFORMED
        memcpy(pending_at(volume, i), entry, sizeof(pending_t))
        engine.store.coming_records += 1
        volume.pending_count += 1
        volume.chain_local = entry.chain
        lsn = entry.lsn + entry.blocks - 1
    bytes = take(cursor, crcs * <uint64_t>4)
    if lsn != volume.local_lsn or payload != crcs or bytes == NULL:
        return ROOT_MALFORMED
    memcpy(volume.pending_crcs, bytes, crcs * <uint64_t>4)
    volume.crc_count = crcs
    return ROOT_OK


cdef int load_tree(engine_t* engine, volume_t* volume, cursor_t* cursor, uint32_t i) noexcept nogil:
    """A tree's directories are read now (8 KiB for a GiB of volume); its pages when needed."""
    cdef const tree_entry_t* entry = <const tree_entry_t*>take(cursor, sizeof(tree_entry_t))
    cdef page_tree_t* tree
    cdef const page_reference_t* reference
    cdef uint32_t j
    cdef int fault
    if i:
        if tree_init(&volume.changes[i - 1], (volume.size_blocks + PAGE_BITS - 1) // PAGE_BITS) != 0:
            return ROOT_NO_MEMORY
        volume.change_count = i
    tree = volume_tree(volume, i)
    if entry == NULL or entry.directory_count != tree.directory_count:
        return ROOT_MALFORMED
    tree.base_lsn = entry.base_lsn
    for j in range(tree.directory_count):
        reference = <const page_reference_t*>take(cursor, sizeof(page_reference_t))
        if reference == NULL:
            return ROOT_MALFORMED
        if reference.slot == 0:
            continue
        fault = load_directory(engine, volume, tree, j, reference)
        if fault != ROOT_OK:
            return fault
    return ROOT_OK


cdef int load_directory(engine_t* engine, volume_t* volume, page_tree_t* tree, uint32_t j,
                        const page_reference_t* reference) noexcept nogil:
    """A directory that is not what its reference names takes its pages with it: they say so."""
    cdef directory_t* directory = <directory_t*>calloc(1, sizeof(directory_t))
    cdef uint8_t* page = engine.store.checkpoint.lanes[0].pages
    cdef uint32_t i
    cdef int found
    if directory == NULL:
        return ROOT_NO_MEMORY
    tree.directories[j] = directory
    memcpy(&directory.reference, reference, sizeof(page_reference_t))
    if reference.slot >= engine.store.slots.count:
        return ROOT_BAD_DIRECTORY
    slots_take(&engine.store.slots, reference.slot)
    found = page_read_now(engine, reference, page)
    if found == PAGE_UNREAD:
        return ROOT_UNREAD
    if found == PAGE_SECOND:
        directory.flags |= PAGE_DIRTY          # written anew with the first checkpoint
    if found == PAGE_LOST:
        for i in range(j * DIRECTORY_ENTRIES, min((j + 1) * DIRECTORY_ENTRIES, tree.page_count)):
            page_lost(engine, volume, tree, i)
        return ROOT_OK
    for i in range(DIRECTORY_ENTRIES):
        memcpy(&directory.pages[i].reference, page + i * sizeof(page_reference_t), sizeof(page_reference_t))
        if directory.pages[i].reference.slot >= engine.store.slots.count:
            return ROOT_BAD_DIRECTORY
        slots_take(&engine.store.slots, directory.pages[i].reference.slot)
    return ROOT_OK
