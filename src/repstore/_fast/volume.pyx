"""Apply, commit, look up; see volume.pxd for the flow and the rules."""
from libc.errno cimport EIO
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memmove, memset, strncpy

from repstore._fast.batch cimport batch_crc, batch_descriptors, batch_header, payload_of
from repstore._fast.layout cimport (
    DIRECTORY_ENTRIES, LINEAGE_ENTRIES, LOCATION_BAD, LOCATION_HOLE, LOCATION_LOST, LOCATION_ZERO, OP_BAD, OP_COMMIT, OP_COPY,
    OP_COPY_BAD, OP_COPY_HOLE, OP_COPY_ZERO, OP_EPOCH, OP_JOINED, OP_LEARN, OP_MOVE, OP_SEAL, OP_SESSION,
    OP_TRIM, OP_TRUNCATE, OP_WRITE, OP_ZERO, SESSION_WINDOW, SESSION_WINDOW_WORDS, VOLUME_LEARNING, page_reference_t,
    tree_entry_t, volume_entry_t,
)
from repstore._fast.log cimport store_fail
from repstore._fast.merkle cimport merkle_reach, merkle_take
from repstore._fast.pages cimport page_load
from repstore._fast.page_tree cimport (
    PAGE_AWAY, tree_free, tree_init, tree_page, tree_retire, tree_touch,
)
from repstore._fast.segments cimport (
    is_data, is_lost, segment_gain, segment_hold, segment_let_go, segment_lose, segment_of,
)
from repstore._fast.state cimport (
    BARRIER_APPLIED, BARRIER_JOIN, BARRIER_LOGGED, BARRIER_SEAL, CHANGES_KEPT, PENDING_CRCS, ROOT_CONTROL_RECORDS,
    VOLUME_INDEX_MAX, VOLUMES_MAX, parked_frame_t, store_t,
)
from repstore._fast.verify_state cimport VERIFY_CAPTURING, VERIFY_WAITING


cdef volume_t* volume_new(engine_t* engine, uint32_t index, const uint8_t* uuid, const char* name,
                          uint64_t size_blocks) noexcept nogil:
    """An empty volume, not yet known to the engine. NULL: memory is short."""
    cdef volume_t* volume = <volume_t*>calloc(1, sizeof(volume_t))
    if volume == NULL:
        return NULL
    volume.engine = engine
    volume.index = index
    memcpy(volume.uuid, uuid, 16)
    strncpy(volume.name, name, 63)
    volume.size_blocks = size_blocks
    volume.copies = 1
    volume.min_copies = 1
    volume.pulling = -1
    volume.tail_node = -1
    volume.pending = <pending_t*>calloc(PENDING_RECORDS, sizeof(pending_t))
    volume.pending_crcs = <uint32_t*>calloc(PENDING_CRCS, sizeof(uint32_t))
    if (volume.pending == NULL or volume.pending_crcs == NULL
            or tree_init(&volume.map, (size_blocks + PAGE_ENTRIES - 1) // PAGE_ENTRIES) != 0):
        volume_free(volume)
        return NULL
    return volume


cdef void volume_free(volume_t* volume) noexcept nogil:
    cdef uint32_t i
    inbox_drop(volume)
    tree_free(&volume.map)
    for i in range(volume.change_count):
        tree_free(&volume.changes[i])
    free(volume.pending)
    free(volume.pending_crcs)
    free(volume)


cdef void inbox_drop(volume_t* volume) noexcept nogil:
    """Frames of its primary that wait for room are taken no more."""
    cdef parked_frame_t* parked
    while volume.inbox != NULL:
        parked = volume.inbox
        volume.inbox = parked.next
        free(parked)
    volume.inbox_tail = NULL
    volume.inbox_bytes = 0
    volume.inbox_commit = 0


cdef int64_t volume_root_bytes(uint64_t size_blocks) noexcept nogil:
    """What a volume takes in a root at most, but for its uncommitted records: all trees that it may have,
    and the records that bring it on."""
    cdef uint64_t map_pages = (size_blocks + PAGE_ENTRIES - 1) // PAGE_ENTRIES
    cdef uint64_t bitmap_pages = (size_blocks + PAGE_BITS - 1) // PAGE_BITS
    cdef uint64_t directories = ((map_pages + DIRECTORY_ENTRIES - 1) // DIRECTORY_ENTRIES
                                 + CHANGES_KEPT * ((bitmap_pages + DIRECTORY_ENTRIES - 1) // DIRECTORY_ENTRIES))
    return <int64_t>(sizeof(volume_entry_t) + (1 + CHANGES_KEPT) * sizeof(tree_entry_t)
                     + directories * sizeof(page_reference_t) + ROOT_CONTROL_RECORDS * sizeof(pending_t))


cdef int volume_attach(engine_t* engine, volume_t* volume) noexcept nogil:
    """Make a volume known to the engine. -1: too many volumes, or its index is taken."""
    if engine.volume_count == VOLUMES_MAX or engine.by_index[volume.index] != NULL:
        return -1
    engine.volumes[engine.volume_count] = volume
    engine.volume_count += 1
    engine.by_index[volume.index] = volume
    engine.store.root_room -= volume_root_bytes(volume.size_blocks)
    return 0


cdef void volume_detach(engine_t* engine, volume_t* volume) noexcept nogil:
    cdef uint32_t i
    engine.by_index[volume.index] = NULL
    engine.store.root_room += volume_root_bytes(volume.size_blocks)
    for i in range(engine.volume_count):
        if engine.volumes[i] == volume:
            engine.volume_count -= 1
            engine.volumes[i] = engine.volumes[engine.volume_count]
            return


# ------------------------------------------------------------------------------ lookups

cdef int volume_lookup(volume_t* volume, uint64_t lba, extent_t* out) noexcept nogil:
    """The committed extent of one block."""
    cdef uint32_t number = <uint32_t>(lba // PAGE_ENTRIES)
    cdef page_t* page = tree_page(&volume.map, number)
    if page == NULL or (page.data == NULL and page.reference.slot == 0):
        out.location = LOCATION_HOLE
        out.crc = 0
        return LOOKUP_OK
    if page.data == NULL and page_need(volume.engine, volume, &volume.map, number) != LOOKUP_OK:
        return LOOKUP_BAD if page.flags & PAGE_AWAY else LOOKUP_LOADING
    out[0] = (<extent_t*>page.data)[lba % PAGE_ENTRIES]
    return LOOKUP_OK


cdef int page_need(engine_t* engine, volume_t* volume, page_tree_t* tree, uint32_t number) noexcept nogil:
    """See to it that a page is in memory; LOOKUP_OK: it is (or reads as zeros)."""
    cdef page_t* page = tree_page(tree, number)
    if page == NULL or page.data != NULL or page.reference.slot == 0:
        return LOOKUP_OK
    page_load(engine, volume, tree, number)
    return LOOKUP_OK if page.data != NULL else LOOKUP_LOADING


cdef bint pending_overlaps(const volume_t* volume, uint64_t lba, uint64_t blocks) noexcept nogil:
    """Is a record on its way that touches this range?"""
    cdef uint32_t i
    cdef const pending_t* record
    for i in range(volume.pending_count):
        record = &volume.pending[(volume.pending_head + i) % PENDING_RECORDS]
        if record.lba < lba + blocks and lba < record.lba + record.blocks and record.operation != OP_EPOCH:
            return True
    return False


# ---------------------------------------------------------------------- changing the map

cdef int volume_set_range(engine_t* engine, volume_t* volume, uint64_t lba, uint32_t blocks,
                          uint32_t location, const uint32_t* crcs, int crc_step, uint64_t lsn) noexcept nogil:
    """Point committed blocks to a new place. With LOCATION_HOLE or LOCATION_ZERO all of them
    get that value, and with a lost location its checksum too; else block i goes to location + i. LOOKUP_LOADING: nothing was changed yet,
    the pages are being read."""
    cdef store_t* store = &engine.store
    cdef uint64_t end = lba + blocks
    cdef uint32_t number, first = <uint32_t>(lba // PAGE_ENTRIES), last = <uint32_t>((end - 1) // PAGE_ENTRIES)
    cdef int state, worst = LOOKUP_OK
    cdef page_t* page
    cdef extent_t* extent
    cdef uint32_t i
    for number in range(first, last + 1):
        state = page_need(engine, volume, &volume.map, number)
        worst = max(worst, state)
    if worst != LOOKUP_OK:
        return worst
    while lba < end:
        number = <uint32_t>(lba // PAGE_ENTRIES)
        page = tree_page(&volume.map, number)
        if location == LOCATION_HOLE and (page == NULL or page.data == NULL):
            i = <uint32_t>(min(end, (<uint64_t>number + 1) * PAGE_ENTRIES) - lba)
            lba += i
            continue
        if engine.verify.state == VERIFY_CAPTURING and engine.verify.volume == volume.index:
            merkle_take(engine, volume, number)
        page = tree_touch(&volume.map, number, lsn, &store.checkpoint.captures)
        if page == NULL:
            return LOOKUP_BAD
        for i in range(<uint32_t>(lba % PAGE_ENTRIES),
                       <uint32_t>(min(end - <uint64_t>number * PAGE_ENTRIES, <uint64_t>PAGE_ENTRIES))):
            extent = <extent_t*>page.data + i
            if is_data(extent.location):
                if store.segments[segment_of(store, extent.location)].live == 0:
                    return LOOKUP_BAD          # E2 was broken on disk already: go no further
                segment_lose(store, extent.location)
            extent.location = location
            extent.crc = crcs[0] if is_lost(location) else 0
            if is_data(location):
                extent.crc = crcs[0]
                segment_gain(store, location)
                location += 1
                crcs += crc_step
        lba = min(end, (<uint64_t>number + 1) * PAGE_ENTRIES)
    return LOOKUP_OK


cdef bint bit_get(page_tree_t* tree, uint64_t bit) noexcept nogil:
    """One bit of a change bitmap whose page is in memory."""
    cdef page_t* page = tree_page(tree, <uint32_t>(bit // PAGE_BITS))
    if page == NULL or page.data == NULL:
        return False
    return ((<uint8_t*>page.data)[(bit % PAGE_BITS) >> 3] >> (bit & 7)) & 1


cdef int mark_changed(engine_t* engine, volume_t* volume, uint64_t lba, uint32_t blocks, uint64_t lsn) noexcept nogil:
    """Set the range in every change bitmap (V3); pages are loaded first, all or nothing."""
    cdef uint32_t g, number
    cdef uint64_t bit
    cdef page_tree_t* tree
    cdef page_t* page = NULL
    cdef uint32_t first = <uint32_t>(lba // PAGE_BITS), last = <uint32_t>((lba + blocks - 1) // PAGE_BITS)
    cdef int worst = LOOKUP_OK
    for g in range(volume.change_count):
        for number in range(first, last + 1):
            worst = max(worst, page_need(engine, volume, &volume.changes[g], number))
    if worst != LOOKUP_OK:
        return worst
    for g in range(volume.change_count):
        tree = &volume.changes[g]
        number = <uint32_t>-1
        for bit in range(lba, lba + blocks):
            if <uint32_t>(bit // PAGE_BITS) != number:
                number = <uint32_t>(bit // PAGE_BITS)
                page = tree_touch(tree, number, lsn, &engine.store.checkpoint.captures)
                if page == NULL:
                    return LOOKUP_BAD
            (<uint8_t*>page.data)[(bit % PAGE_BITS) >> 3] |= <uint8_t>(1 << (bit & 7))
    return LOOKUP_OK


cdef int changes_begin(engine_t* engine, volume_t* volume, uint64_t base_lsn) noexcept nogil:
    """A new change bitmap that will hold every block changed after base_lsn. When the table is
    full the youngest gives way: older bases can serve everyone whom younger ones can."""
    if volume.change_count == CHANGES_KEPT:
        changes_drop(engine, volume, CHANGES_KEPT - 1)
    if tree_init(&volume.changes[volume.change_count],
                 (volume.size_blocks + PAGE_BITS - 1) // PAGE_BITS) != 0:
        return -1
    volume.changes[volume.change_count].base_lsn = base_lsn
    volume.change_count += 1
    return 0


cdef void changes_drop(engine_t* engine, volume_t* volume, uint32_t place) noexcept nogil:
    tree_retire(&volume.changes[place], &engine.store.slots)
    tree_free(&volume.changes[place])
    volume.change_count -= 1
    memmove(&volume.changes[place], &volume.changes[place + 1],
            (volume.change_count - place) * sizeof(page_tree_t))
    memset(&volume.changes[volume.change_count], 0, sizeof(page_tree_t))


# ------------------------------------------------------------------- sessions and lineage

cdef bint session_seen(const volume_t* volume, uint32_t session, uint64_t number) noexcept nogil:
    """Was this request of the current session logged already?"""
    if session != volume.session or number > volume.session_highest:
        return False
    if number + SESSION_WINDOW <= volume.session_highest:
        return True
    return (volume.session_window[(number // 64) % SESSION_WINDOW_WORDS] >> (number % 64)) & 1


cdef void session_mark(volume_t* volume, uint32_t session, uint64_t number) noexcept nogil:
    """Remember a logged request; a newer session begins with an empty window."""
    cdef uint64_t n
    if session == 0 or session < volume.session:
        return
    if session > volume.session:
        volume.session = session
        volume.session_highest = 0
        memset(volume.session_window, 0, sizeof(volume.session_window))
    if number >= volume.session_highest + SESSION_WINDOW:
        memset(volume.session_window, 0, sizeof(volume.session_window))
    else:
        for n in range(volume.session_highest + 1, number + 1):
            volume.session_window[(n // 64) % SESSION_WINDOW_WORDS] &= ~(<uint64_t>1 << (n % 64))
    volume.session_highest = max(volume.session_highest, number)
    volume.session_window[(number // 64) % SESSION_WINDOW_WORDS] |= <uint64_t>1 << (number % 64)


cdef void session_take(volume_t* volume, const descriptor_t* record) noexcept nogil:
    """A word of the primary's window; ours was emptied when we began to learn."""
    if record.session < volume.session:
        return
    volume.session = record.session
    volume.session_highest = max(volume.session_highest, record.lsn)
    volume.session_window[(record.request // 64) % SESSION_WINDOW_WORDS] = record.lba


cdef uint32_t session_words(const volume_t* volume, descriptor_t* out) noexcept nogil:
    """The records that tell a learner what is set of our window; `out` has room for SESSION_WINDOW_WORDS."""
    cdef uint32_t count = 0, i
    cdef uint64_t last = volume.session_highest // 64, word
    memset(out, 0, SESSION_WINDOW_WORDS * sizeof(descriptor_t))
    for i in range(<uint32_t>min(last + 1, <uint64_t>SESSION_WINDOW_WORDS)):
        word = last - i
        if volume.session_window[word % SESSION_WINDOW_WORDS] == 0:
            continue
        out[count].volume = volume.index
        out[count].operation = OP_SESSION
        out[count].session = volume.session
        out[count].lsn = volume.session_highest
        out[count].request = word * 64
        out[count].lba = volume.session_window[word % SESSION_WINDOW_WORDS]
        count += 1
    return count


cdef void lineage_add(volume_t* volume, uint32_t epoch, uint64_t first_lsn) noexcept nogil:
    """Epoch `epoch` assigned LSNs from first_lsn on; the oldest entry gives way."""
    cdef uint32_t i
    while volume.lineage_count and volume.lineage[volume.lineage_count - 1].first_lsn >= first_lsn:
        volume.lineage_count -= 1
    if volume.lineage_count == LINEAGE_ENTRIES:
        for i in range(LINEAGE_ENTRIES - 1):
            volume.lineage[i] = volume.lineage[i + 1]
        volume.lineage_count -= 1
    volume.lineage[volume.lineage_count].epoch = epoch
    volume.lineage[volume.lineage_count].reserved = 0
    volume.lineage[volume.lineage_count].first_lsn = first_lsn
    volume.lineage_count += 1


# --------------------------------------------------------------- apply, commit, truncate

cdef uint64_t record_chain(uint64_t chain, const descriptor_t* record, const uint32_t* crcs,
                           int crc_step) noexcept nogil:
    """The running hash after one record: two copies with the same value hold the same log.

    A multiply-xorshift mix (Steele, Lea, Flood 2014, "SplitMix64") over what the record says.
    """
    cdef uint32_t i
    cdef uint64_t value
    for i in range(3 + (record.blocks if record.operation == OP_WRITE else 0)):
        if i == 0:
            value = record.lsn
        elif i == 1:
            value = record.lba << 8 | record.operation
        elif i == 2:
            value = <uint64_t>record.blocks << 32 | record.epoch
        else:
            value = (crcs + <int64_t>crc_step * (<int64_t>i - 3))[0]
        chain = (chain ^ value) * 0xBF58476D1CE4E5B9ULL
        chain ^= chain >> 31
    return chain


cdef int pend(engine_t* engine, volume_t* volume, const descriptor_t* record, const uint32_t* crcs,
              uint32_t location) noexcept nogil:
    """A record of this volume is written here: it waits for its commit. -1: no room, or a gap."""
    cdef pending_t* entry
    cdef uint32_t i, payload = record.blocks if record.operation == OP_WRITE else 0
    if (record.lsn != volume.local_lsn + 1 or volume.pending_count == PENDING_RECORDS
            or volume.crc_count + payload > PENDING_CRCS):
        return -1
    entry = pending_at(volume, volume.pending_count)
    memset(entry, 0, sizeof(pending_t))
    entry.lsn = record.lsn
    entry.lba = record.lba
    entry.blocks = record.blocks
    entry.location = location if payload else (LOCATION_ZERO if record.operation == OP_ZERO else LOCATION_HOLE)
    entry.epoch = record.epoch
    entry.session = record.session
    entry.request = record.request
    entry.operation = record.operation
    entry.flags = record.flags
    volume.chain_local = record_chain(volume.chain_local, record, crcs, -1)
    entry.chain = volume.chain_local
    for i in range(payload):
        volume.pending_crcs[(volume.crc_head + volume.crc_count + i) % PENDING_CRCS] = (crcs - i)[0]
    volume.crc_count += payload
    volume.pending_count += 1
    if payload:
        segment_hold(&engine.store, segment_of(&engine.store, location), payload)
    if engine.store.recovering:
        engine.store.coming_records += 1
        engine.store.coming_blocks += payload
    else:
        volume.unapplied_records -= 1
        volume.unapplied_blocks -= payload
    volume.local_lsn = record.lsn + record.blocks - 1
    session_mark(volume, record.session, record.request)
    return 0


cdef void unpend(engine_t* engine, volume_t* volume, pending_t* entry) noexcept nogil:
    engine.store.coming_records -= 1
    if entry.operation == OP_WRITE:
        segment_let_go(&engine.store, segment_of(&engine.store, entry.location), entry.blocks)
        engine.store.coming_blocks -= entry.blocks


cdef int apply_move(engine_t* engine, volume_t* volume, const descriptor_t* record, const uint32_t* crcs,
                    uint32_t location) noexcept nogil:
    """The cleaner or a repair moved blocks: counts only for those that are still where they were
    taken from, with the content they had; of a lost map entry the content is not known. Or the
    cleaner gave them up: the entry keeps the checksum, so that a copy that has it can mend it."""
    cdef uint32_t i, crc
    cdef extent_t extent
    cdef bint here
    cdef int state
    extent.location = LOCATION_HOLE
    extent.crc = 0
    for i in range(record.blocks):
        state = volume_lookup(volume, record.lba + i, &extent)
        if state != LOOKUP_OK:
            return state
        here = extent.location == record.source + i
        if here and record.operation == OP_BAD:
            crc = extent.crc
            volume_set_range(engine, volume, record.lba + i, 1, LOCATION_BAD, &crc, 0, 0)
        elif here and (extent.crc == (crcs - i)[0] or extent.location == LOCATION_LOST):
            volume_set_range(engine, volume, record.lba + i, 1, location + i, crcs - i, 0, 0)
    return LOOKUP_OK


cdef int apply_record(engine_t* engine, volume_t* volume, const descriptor_t* record,
                      const uint32_t* crcs, uint32_t location) noexcept nogil:
    """One record of a completed batch. Negative: the log contradicts itself."""
    cdef uint8_t op = record.operation
    if op == OP_WRITE or op == OP_TRIM or op == OP_ZERO or op == OP_EPOCH:
        return pend(engine, volume, record, crcs, location)
    if op == OP_COMMIT:
        return volume_commit(engine, volume, record.lsn)
    if op == OP_MOVE or op == OP_BAD:
        return apply_move(engine, volume, record, crcs, location)
    if op == OP_COPY_BAD:
        return apply_copy_bad(engine, volume, record)
    if op == OP_COPY or op == OP_COPY_ZERO or op == OP_COPY_HOLE:
        if op == OP_COPY_ZERO:
            location = LOCATION_ZERO
        elif op == OP_COPY_HOLE:
            location = LOCATION_HOLE
        return apply_copy(engine, volume, record, crcs, location)
    if op == OP_SEAL:
        volume.sealed_epoch = max(volume.sealed_epoch, record.epoch)
        if record.epoch == volume.sealed_epoch:            # not for an older one
            pass_barrier(volume, BARRIER_SEAL)
    elif op == OP_TRUNCATE:
        volume_truncate(engine, volume, record.lsn)
    elif op == OP_LEARN:
        begin_learning(engine, volume, record)
    elif op == OP_SESSION:
        session_take(volume, record)
    elif op == OP_JOINED:
        volume.flags &= ~<uint32_t>VOLUME_LEARNING
        if record.request == volume.learn_serial:          # not for that of an older session
            pass_barrier(volume, BARRIER_JOIN)
    else:
        return -1
    return LOOKUP_OK


cdef int apply_copy(engine_t* engine, volume_t* volume, const descriptor_t* record, const uint32_t* crcs,
                    uint32_t location) noexcept nogil:
    """A learner's map takes what the primary had committed up to the record's LSN. The change
    bitmaps do too: who was away longer than we were may have to learn it from us."""
    cdef int state = mark_changed(engine, volume, record.lba, record.blocks, record.lsn)
    if state == LOOKUP_OK:
        state = volume_set_range(engine, volume, record.lba, record.blocks, location, crcs, -1, record.lsn)
    if volume.copies_unapplied:                # none are counted while recovering
        volume.copies_unapplied -= 1
        volume.copies_commit_lsn = record.lsn
    return state


cdef int apply_copy_bad(engine_t* engine, volume_t* volume, const descriptor_t* record) noexcept nogil:
    """A block that nobody in sync can give. We may have it still: what has its checksum is that block
    (H5 of repair.pxd)."""
    cdef extent_t own
    cdef uint32_t crc = <uint32_t>record.request
    cdef int state = volume_lookup(volume, record.lba, &own)
    if state == LOOKUP_OK and record.source == LOCATION_BAD and is_data(own.location) and own.crc == crc:
        return apply_copy(engine, volume, record, &crc, own.location)
    return apply_copy(engine, volume, record, &crc, record.source)


cdef void pass_barrier(volume_t* volume, int kind) noexcept nogil:
    """The barrier's record is written; what it stands for holds after the next flush."""
    if volume.barriers[kind] == BARRIER_LOGGED:
        volume.barriers[kind] = BARRIER_APPLIED


cdef void begin_learning(engine_t* engine, volume_t* volume, const descriptor_t* record) noexcept nogil:
    """The map is incomplete from here on: records up to `lsn` come as copies, later ones in the
    stream. What was pending beyond the base, the last LSN both logs share, is void."""
    cdef uint64_t last_lsn = volume.last_lsn, chain_last = volume.chain_last
    volume_commit(engine, volume, record.lba)  # the primary copies only what changed after it
    if not volume.flags & VOLUME_LEARNING or record.lba < volume.learn_base:
        volume.learn_base = record.lba         # never up: an earlier session may not have ended (R7)
    volume.flags |= VOLUME_LEARNING
    volume_truncate(engine, volume, volume.commit_lsn)
    volume.last_lsn = last_lsn                 # later records may be on their way already
    volume.chain_last = chain_last
    volume.local_lsn = record.lsn
    volume.commit_lsn = record.lsn
    volume.durable_lsn = min(volume.durable_lsn, record.lsn)
    volume.chain_local = record.request
    volume.chain_commit = record.request
    volume.learn_unapplied = False
    volume.session_highest = 0                 # the primary's follows: what it logged we have as copies
    memset(volume.session_window, 0, sizeof(volume.session_window))


cdef bint touches_blocks(uint8_t operation) noexcept nogil:
    return OP_WRITE <= operation <= OP_COPY_HOLE or operation == OP_COPY_BAD or operation == OP_BAD


cdef bint in_bounds(const volume_t* volume, const descriptor_t* record) noexcept nogil:
    return (record.blocks > 0 and record.lba < volume.size_blocks
            and record.blocks <= volume.size_blocks - record.lba)


cdef int volume_apply(engine_t* engine, const uint8_t* header_block, uint32_t location) noexcept nogil:
    """Take the records of one completed batch, whose header lies at `location`, in order.

    Runs when the disk has the batch, and when recovery replays it. Negative: a contradiction.
    Pages that records other than client writes need were loaded before the batch was written,
    or are read at once during recovery.
    """
    cdef uint32_t i, count = batch_header(header_block).descriptor_count
    cdef uint32_t payload = 0
    cdef const descriptor_t* record
    cdef volume_t* volume
    cdef int worst = LOOKUP_OK, state
    for i in range(count):
        record = batch_descriptors(header_block) + i
        volume = engine.by_index[record.volume] if record.volume < VOLUME_INDEX_MAX else NULL
        if volume != NULL:
            if touches_blocks(record.operation) and not in_bounds(volume, record):
                return -1
            if record.operation == OP_COPY_BAD and not is_lost(record.source):
                return -1
            state = apply_record(engine, volume, record, batch_crc(header_block, payload),
                                 location + 1 + payload)
            if state < 0:
                return state
            worst = max(worst, state)
        payload += payload_of(record)
    return worst


cdef int volume_commit(engine_t* engine, volume_t* volume, uint64_t lsn) noexcept nogil:
    """Everything up to `lsn` is on every in-sync member: move it from pending to the map (V2).

    Stops at a record whose map page must be read first (LOOKUP_LOADING) and is called again.
    """
    cdef pending_t* entry
    cdef uint32_t[64] crcs
    cdef uint32_t i, payload
    cdef int state = LOOKUP_OK
    lsn = min(lsn, volume.local_lsn)
    while volume.pending_count:
        entry = pending_at(volume, 0)
        if entry.lsn + entry.blocks - 1 > lsn:
            break
        payload = entry.blocks if entry.operation == OP_WRITE else 0
        if entry.operation != OP_EPOCH:
            for i in range(payload):
                crcs[i] = volume.pending_crcs[(volume.crc_head + i) % PENDING_CRCS]
            state = mark_changed(engine, volume, entry.lba, entry.blocks, entry.lsn)
            if state == LOOKUP_OK:
                state = volume_set_range(engine, volume, entry.lba, entry.blocks, entry.location, crcs, 1, entry.lsn)
            if state != LOOKUP_OK:
                break
        else:
            lineage_add(volume, entry.epoch, entry.lsn)
        unpend(engine, volume, entry)
        volume.commit_lsn = entry.lsn + entry.blocks - 1
        volume.chain_commit = entry.chain
        volume.crc_head = (volume.crc_head + payload) % PENDING_CRCS
        volume.crc_count -= payload
        volume.pending_head = (volume.pending_head + 1) % PENDING_RECORDS
        volume.pending_count -= 1
        if engine.verify.state == VERIFY_WAITING and engine.verify.volume == volume.index:
            merkle_reach(engine, volume)
    volume.page_wait = state == LOOKUP_LOADING
    if state == LOOKUP_BAD and not engine.store.recovering:
        store_fail(engine, EIO)                # committed, and our map cannot take it
    return state


cdef void volume_incomplete(engine_t* engine, volume_t* volume) noexcept nogil:
    """Committed records may be missing behind what is committed here; the pending ones are void."""
    volume_truncate(engine, volume, volume.commit_lsn)
    if not volume.flags & VOLUME_LEARNING:
        volume.learn_base = volume.commit_lsn
    volume.flags |= VOLUME_LEARNING


cdef void volume_truncate(engine_t* engine, volume_t* volume, uint64_t lsn) noexcept nogil:
    """Drop uncommitted records above `lsn` (their LBAs keep their committed content)."""
    cdef pending_t* entry
    while volume.pending_count:
        entry = pending_at(volume, volume.pending_count - 1)
        if entry.lsn <= lsn:
            break
        unpend(engine, volume, entry)
        if entry.operation == OP_WRITE:
            volume.crc_count -= entry.blocks
        volume.pending_count -= 1
    if volume.pending_count:
        entry = pending_at(volume, volume.pending_count - 1)
        volume.local_lsn = entry.lsn + entry.blocks - 1
        volume.chain_local = entry.chain
    else:
        volume.local_lsn = volume.commit_lsn
        volume.chain_local = volume.chain_commit
    volume.last_lsn = volume.local_lsn
    volume.chain_last = volume.chain_local
    volume.durable_lsn = min(volume.durable_lsn, volume.local_lsn)
    if volume.unreadable_lsn > volume.last_lsn:
        volume.unreadable_lsn = 0
