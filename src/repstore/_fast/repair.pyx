"""Asking for bad blocks and putting them back; see repair.pxd for the rules."""
from libc.string cimport memcpy, memset

from repstore._fast.bad_blocks cimport (
    LOST_BLOCKS_MAX, REPAIR_ASKED, REPAIR_FETCHED, REPAIR_FREE, REPAIR_LOGGED, REPAIR_WAITING, REPAIRS_MAX,
    lost_block_t, repair_t, repairs_t,
)
from repstore._fast.batch cimport batch_add, batch_crc, batch_header, batch_next_payload
from repstore._fast.checksum cimport crc32c
from repstore._fast.events cimport EVENT_BAD_BLOCK, EVENT_LOST_BLOCK, EVENT_MENDED_BLOCK, event_push
from repstore._fast.frames cimport frame_begin, frame_send_node
from repstore._fast.layout cimport (
    ANY_FLAG, BLOCK_SIZE, CLASS_CLEANER, CLASS_USER, FETCH_DATA, FETCH_LATER, FETCH_ZEROS, FRAME_FETCH, LEARNING_FLAG,
    LOCATION_LOST, OP_MOVE, PAGE_ENTRIES, VOLUME_LEARNING, descriptor_t,
)
from repstore._fast.log cimport log_reserve
from repstore._fast.page_tree cimport page_t, tree_page
from repstore._fast.requests cimport buffer_get, buffer_put
from repstore._fast.segments cimport is_data, is_lost, segment_of, segments_few
from repstore._fast.state cimport (
    MEMBER_IN_SYNC, ROLE_PRIMARY, ROLE_REPLICA, cleaner_t, due, log_batch_t, member_t,
)
from repstore._fast.volume cimport LOOKUP_OK, volume_lookup


cdef enum:
    PATIENCE_NS = 10000000000      # a member that is away may be back, or ejected, by then
    ANSWER_NS = 1000000000         # a question without an answer is asked again
    LATER_NS = 20000000            # a copy that said "not now" is asked again
    LOST_AGAIN_NS = 1000000000     # a lost block that is read again is asked for again
    SWEEP_BLOCKS = 4096            # looked at in one turn


cdef enum peer_t:
    PEER_ASK = 0
    PEER_AWAY = 1                  # there is one, but not now
    PEER_NONE = 2


# ------------------------------------------------------------------------------- the tables

cdef repair_t* repair_find(engine_t* engine, uint32_t volume, uint64_t lba) noexcept nogil:
    cdef uint32_t i
    cdef repair_t* repair
    for i in range(REPAIRS_MAX if engine.repairs.count else 0):
        repair = &engine.repairs.items[i]
        if repair.state != REPAIR_FREE and repair.volume == volume and repair.lba == lba:
            return repair
    return NULL


cdef lost_block_t* lost_find(engine_t* engine, uint32_t volume, uint64_t lba) noexcept nogil:
    cdef uint32_t i
    for i in range(engine.repairs.lost_count):
        if engine.repairs.lost[i].volume == volume and engine.repairs.lost[i].lba == lba:
            return &engine.repairs.lost[i]
    return NULL


cdef void lost_note(engine_t* engine, uint32_t volume, uint64_t lba, const extent_t* extent) noexcept nogil:
    """Remember a lost block; an operator hears of it once."""
    cdef repairs_t* repairs = &engine.repairs
    cdef lost_block_t* lost = lost_find(engine, volume, lba)
    if lost == NULL:
        event_push(engine, EVENT_LOST_BLOCK, volume, engine.node, 0, extent.location, 0, lba, 0, NULL)
        if repairs.lost_count < LOST_BLOCKS_MAX:
            lost = &repairs.lost[repairs.lost_count]
            repairs.lost_count += 1
        else:
            lost = &repairs.lost[repairs.lost_next]
            repairs.lost_next = (repairs.lost_next + 1) % LOST_BLOCKS_MAX
    lost.volume = volume
    lost.lba = lba
    lost.extent = extent[0]
    lost.again_ns = engine.now_ns + LOST_AGAIN_NS


cdef void lost_forget(engine_t* engine, uint32_t volume, uint64_t lba) noexcept nogil:
    cdef lost_block_t* lost = lost_find(engine, volume, lba)
    if lost != NULL:
        engine.repairs.lost_count -= 1
        lost[0] = engine.repairs.lost[engine.repairs.lost_count]
        engine.repairs.lost_next = 0


cdef bint repair_full(const engine_t* engine, const volume_t* volume) noexcept nogil:
    """Is there no place for another block of this volume? One whose copies are away leaves as many to
    the others as it has."""
    cdef uint32_t i, own = 0
    for i in range(REPAIRS_MAX):
        own += engine.repairs.items[i].state != REPAIR_FREE and engine.repairs.items[i].volume == volume.index
    return own >= REPAIRS_MAX - engine.repairs.count


cdef bint repair_covers(engine_t* engine, const volume_t* volume, uint64_t lba, uint32_t blocks) noexcept nogil:
    """Is a block of this range being repaired?"""
    cdef uint32_t i
    cdef repair_t* repair
    for i in range(REPAIRS_MAX if engine.repairs.count else 0):
        repair = &engine.repairs.items[i]
        if repair.state != REPAIR_FREE and repair.volume == volume.index and lba <= repair.lba < lba + blocks:
            return True
    return False


# -------------------------------------------------------------------------------- beginning

cdef inline bint same(const extent_t* one, const extent_t* other) noexcept nogil:
    return one.location == other.location and one.crc == other.crc


cdef int choose_peer(engine_t* engine, const volume_t* volume, uint32_t refused, uint32_t* node) noexcept nogil:
    """Who may have the block (H2)."""
    cdef uint32_t i
    cdef const member_t* member
    cdef int found = PEER_NONE
    if volume.role == ROLE_PRIMARY:
        for i in range(volume.member_count):
            member = &volume.members[i]
            if member.state != MEMBER_IN_SYNC or refused >> member.node & 1:
                continue
            found = PEER_AWAY
            if member.streaming and engine.nodes[member.node].link >= 0:
                node[0] = member.node
                return PEER_ASK
        return found
    if volume.role != ROLE_REPLICA:
        return PEER_AWAY                       # nobody leads yet
    if refused >> volume.primary_node & 1:
        return PEER_NONE
    node[0] = volume.primary_node
    return PEER_ASK if engine.nodes[volume.primary_node].link >= 0 else PEER_AWAY


cdef bint repair_possible(engine_t* engine, const volume_t* volume) noexcept nogil:
    """Is there another copy that may have what is bad in this one?"""
    cdef uint32_t node = 0
    return choose_peer(engine, volume, 0, &node) != PEER_NONE


cdef int repair_need(engine_t* engine, volume_t* volume, uint64_t lba, const extent_t* extent) noexcept nogil:
    """A block was met that is not what the map names. REPAIR_STARTED: look at it again when
    `repair_covers` it no longer (at once, if the table is full)."""
    cdef lost_block_t* lost = lost_find(engine, volume.index, lba)
    cdef repair_t* repair = NULL
    cdef uint32_t i, node = 0
    if repair_find(engine, volume.index, lba) != NULL:
        return REPAIR_STARTED
    if lost != NULL and same(&lost.extent, extent) and engine.now_ns < lost.again_ns:
        return REPAIR_LOST
    if lost == NULL:
        engine.store.counters.bad_blocks += 1
        event_push(engine, EVENT_BAD_BLOCK, volume.index, engine.node, 0, extent.location, 0, lba, 0, NULL)
    if choose_peer(engine, volume, 0, &node) == PEER_NONE:
        lost_note(engine, volume.index, lba, extent)
        return REPAIR_LOST
    if repair_full(engine, volume):
        return REPAIR_STARTED
    for i in range(REPAIRS_MAX):
        repair = &engine.repairs.items[i]
        if repair.state == REPAIR_FREE:
            break
    memset(repair, 0, sizeof(repair_t))
    repair.state = REPAIR_WAITING
    repair.volume = volume.index
    repair.lba = lba
    repair.extent = extent[0]
    repair.deadline_ns = engine.now_ns + PATIENCE_NS
    engine.repairs.count += 1
    engine.more = True
    return REPAIR_STARTED


cdef void repair_end(engine_t* engine, repair_t* repair) noexcept nogil:
    """However it ended: whoever waits for the block may look at it again."""
    if repair.buffer != NULL:
        buffer_put(engine, repair.buffer, 1)
    repair.buffer = NULL
    repair.state = REPAIR_FREE
    engine.repairs.count -= 1
    engine.more = True


cdef void repairs_free(engine_t* engine) noexcept nogil:
    """The engine ends."""
    cdef uint32_t i
    for i in range(REPAIRS_MAX):
        if engine.repairs.items[i].state != REPAIR_FREE:
            repair_end(engine, &engine.repairs.items[i])


# ---------------------------------------------------------------------------------- asking

cdef void ask(engine_t* engine, volume_t* volume, repair_t* repair) noexcept nogil:
    """The next copy that may have it; with none left the block is lost (H4)."""
    cdef frame_header_t header
    cdef uint32_t node = 0
    cdef int found = choose_peer(engine, volume, repair.refused, &node)
    if found == PEER_NONE or engine.now_ns >= repair.deadline_ns:
        lost_note(engine, repair.volume, repair.lba, &repair.extent)
        repair_end(engine, repair)
        return
    repair.state = REPAIR_WAITING
    repair.next_ns = engine.now_ns + LATER_NS
    if found == PEER_ASK:
        engine.repairs.serial += 1
        repair.serial = engine.repairs.serial
        repair.node = <uint8_t>node
        repair.state = REPAIR_ASKED
        repair.next_ns = engine.now_ns + ANSWER_NS
        frame_begin(engine, &header, FRAME_FETCH, volume.index, volume.epoch)
        header.lsn = repair.lba
        header.commit = volume.commit_lsn
        header.chain = repair.serial
        header.extra = repair.extent.crc
        header.flags = ANY_FLAG if repair.extent.location == LOCATION_LOST else 0
        header.flags |= LEARNING_FLAG if volume.flags & VOLUME_LEARNING else 0
        frame_send_node(engine, node, &header, NULL, 0, NULL, 0, 0)
    due(engine, repair.next_ns)


cdef void repair_answer(engine_t* engine, volume_t* volume, uint32_t node, const frame_header_t* header,
                        const uint8_t* body) noexcept nogil:
    """FETCHED: what another copy has at a place we asked for. Hostile until checked (H1)."""
    cdef repair_t* repair = repair_find(engine, volume.index, header.lsn)
    cdef bint any_content
    if repair == NULL or repair.state != REPAIR_ASKED or repair.serial != header.chain or repair.node != node:
        return                                 # of a question that is settled
    any_content = repair.extent.location == LOCATION_LOST
    engine.more = True
    repair.state = REPAIR_WAITING
    repair.next_ns = engine.now_ns + LATER_NS
    if header.session == FETCH_LATER or (any_content and header.commit > volume.last_lsn):
        return                                 # or the records before it have not come
    if header.session == FETCH_DATA and header.body_bytes == BLOCK_SIZE:
        if crc32c(0, body, BLOCK_SIZE) != header.extra:
            return                             # damaged on the way: ask again
        if any_content or header.extra == repair.extent.crc:
            take_content(engine, repair, body)
            return
    if header.session == FETCH_ZEROS and any_content:
        take_content(engine, repair, NULL)
        return
    repair.refused |= <uint32_t>1 << node
    repair.next_ns = engine.now_ns


cdef void take_content(engine_t* engine, repair_t* repair, const uint8_t* body) noexcept nogil:
    """The content is here; NULL: zeros."""
    repair.buffer = buffer_get(engine, 1)
    if repair.buffer == NULL:
        return                                 # memory is short: ask again later
    if body != NULL:
        memcpy(repair.buffer, body, BLOCK_SIZE)
    else:
        memset(repair.buffer, 0, BLOCK_SIZE)
    repair.crc = crc32c(0, repair.buffer, BLOCK_SIZE)
    repair.state = REPAIR_FETCHED


cdef void log_content(engine_t* engine, repair_t* repair) noexcept nogil:
    """A move from where the map has it, so that it counts only if nothing newer came (H3). It takes
    room like a client's write, for none becomes free by it; unless the cleaner waits for it, which it
    does not for what may be readable in a moment when its own room is short (N5)."""
    cdef cleaner_t* cleaner = &engine.store.cleaner
    cdef bint waited_for = (is_data(repair.extent.location)
                            and cleaner.victim == segment_of(&engine.store, repair.extent.location)
                            and (cleaner.giving_up or not cleaner.unread or not segments_few(&engine.store)))
    cdef log_batch_t* batch = log_reserve(engine, CLASS_CLEANER if waited_for else CLASS_USER, 1, 1)
    cdef descriptor_t* record
    if batch == NULL:
        return                                 # tried again when the disk has answered
    memcpy(batch_next_payload(batch.buffer, 1), repair.buffer, BLOCK_SIZE)
    batch_crc(batch.buffer, batch_header(batch.buffer).payload_blocks - 1)[0] = repair.crc
    record = batch_add(batch.buffer)
    record.volume = repair.volume
    record.operation = OP_MOVE
    record.lba = repair.lba
    record.blocks = 1
    record.source = repair.extent.location
    repair.state = REPAIR_LOGGED
    engine.more = True


# ----------------------------------------------------------------------------------- steps

cdef void repair_step(engine_t* engine) noexcept nogil:
    """Once a turn, before batches are closed."""
    cdef uint32_t i
    cdef volume_t* volume
    if engine.store.failed:
        return
    for i in range(engine.volume_count):
        if engine.volumes[i].sweeping:
            go_on_sweeping(engine, engine.volumes[i])
    for i in range(REPAIRS_MAX if engine.repairs.count else 0):
        if engine.repairs.items[i].state == REPAIR_FREE:
            continue
        volume = engine.by_index[engine.repairs.items[i].volume]
        if volume == NULL:
            repair_end(engine, &engine.repairs.items[i])
        else:
            go_on(engine, volume, &engine.repairs.items[i])


cdef void go_on(engine_t* engine, volume_t* volume, repair_t* repair) noexcept nogil:
    cdef extent_t now
    cdef int state = volume_lookup(volume, repair.lba, &now)
    if state != LOOKUP_OK:
        return
    if not same(&now, &repair.extent):
        if repair.state == REPAIR_LOGGED and now.crc == repair.crc:
            engine.store.counters.mended_blocks += 1
            event_push(engine, EVENT_MENDED_BLOCK, volume.index, engine.node, 0, now.location, 0, repair.lba, 0, NULL)
        lost_forget(engine, repair.volume, repair.lba)
        repair_end(engine, repair)
    elif repair.state == REPAIR_FETCHED:
        log_content(engine, repair)
        if repair.state == REPAIR_FETCHED and engine.now_ns >= repair.deadline_ns:
            repair_end(engine, repair)         # there is no room: the place may be what the cleaner needs (H6)
        elif repair.state == REPAIR_FETCHED:
            due(engine, repair.deadline_ns)
    elif repair.state != REPAIR_LOGGED:
        if engine.now_ns >= repair.next_ns:
            ask(engine, volume, repair)
        else:
            due(engine, repair.next_ns)


# ----------------------------------------------------------------------------------- sweeps

cdef void go_on_sweeping(engine_t* engine, volume_t* volume) noexcept nogil:
    """Repair lost entries in pages that are in memory; half of the table stays for clients."""
    cdef page_t* page
    cdef extent_t* extent
    cdef uint32_t looked = 0
    if volume.role != ROLE_PRIMARY and volume.role != ROLE_REPLICA:
        return
    while volume.sweep_next < volume.size_blocks and looked < SWEEP_BLOCKS:
        page = tree_page(&volume.map, <uint32_t>(volume.sweep_next // PAGE_ENTRIES))
        looked += 1
        if page == NULL or page.data == NULL:
            volume.sweep_next = (volume.sweep_next // PAGE_ENTRIES + 1) * PAGE_ENTRIES
            continue
        extent = <extent_t*>page.data + volume.sweep_next % PAGE_ENTRIES
        if is_lost(extent.location):
            if engine.repairs.count >= REPAIRS_MAX // 2:
                return
            repair_need(engine, volume, volume.sweep_next, extent)
        volume.sweep_next += 1
    if volume.sweep_next >= volume.size_blocks:
        volume.sweeping = False
    else:
        engine.more = True
