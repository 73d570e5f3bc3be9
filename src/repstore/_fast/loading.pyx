"""Load and replay; the decisions (which batches count) were made by store/recovery."""
from libc.stdint cimport int64_t
from libc.stdlib cimport calloc
from libc.string cimport memcpy

from repstore._fast.batch cimport BATCH_OK, batch_check, batch_header
from repstore._fast.checkpoint cimport checkpoint_init
from repstore._fast.cleaner cimport cleaner_init
from repstore._fast.layout cimport BLOCK_SHIFT, SEGMENT_CLASSES, SEGMENT_FREE, batch_header_t, superblock_t
from repstore._fast.log cimport log_init
from repstore._fast.page_tree cimport slots_init
from repstore._fast.pages cimport read_patiently
from repstore._fast.root cimport ROOT_BAD_DIRECTORY, ROOT_NO_MEMORY, ROOT_OK, ROOT_UNREAD, root_load, root_store_bytes
from repstore._fast.segments cimport segment_go_on, segment_seal, segment_start, segments_free
from repstore._fast.state cimport log_head_t, log_t, segment_t, store_t
from repstore._fast.volume cimport LOOKUP_OK, volume_apply


cdef enum:
    RESERVE_PERCENT = 1            # segments only the cleaner may take
    LOW_SHARE = 24                 # of the segments: between what a checkpoint costs and the room it needs
    HIGH_SHARE = 8                 # of the segments: made free ahead, for bursts
    RESERVE_MIN = 2
    HEADS = 3                      # segments that are open or being cleaned
    FILL_PERCENT = 92              # of the payload room: above, cleaning costs more than it gives


cdef int set_geometry(store_t* store) noexcept nogil:
    """Positions from the superblock; the same formulas as store/geometry."""
    cdef const superblock_t* block = &store.superblock
    cdef uint32_t shift = 0, payload
    while shift < 31 and <uint32_t>1 << shift < block.segment_blocks:
        shift += 1
    if (<uint32_t>1 << shift != block.segment_blocks or block.segment_blocks < 16
            or block.segment_count < 8 or block.root_blocks == 0 or block.root_area > 1):
        return LOAD_BAD_GEOMETRY
    store.total_blocks = block.total_blocks
    store.segment_blocks = block.segment_blocks
    store.segment_shift = shift
    store.segment_count = block.segment_count
    store.half = block.segment_count // 2
    store.root_blocks = block.root_blocks
    store.root_room = (<int64_t>block.root_blocks << BLOCK_SHIFT) - root_store_bytes(store)
    store.page_base = 1 + 2 * <uint64_t>block.root_blocks
    store.segment_base = store.page_base + 2 * <uint64_t>block.page_slots + 1
    if (store.segment_base + (<uint64_t>store.segment_count << shift) + 2 > store.total_blocks
            or store.total_blocks > <uint64_t>1 << 32):
        return LOAD_BAD_GEOMETRY
    store.reserve = max(<uint32_t>RESERVE_MIN, store.segment_count * RESERVE_PERCENT // 100)
    store.low = store.reserve + max(<uint32_t>2, store.segment_count // LOW_SHARE)
    store.high = store.low + store.segment_count // HIGH_SHARE
    payload = store.segment_blocks - (store.segment_blocks + 64) // 65
    store.capacity_blocks = ((<uint64_t>store.segment_count - store.reserve - HEADS) * payload
                             * FILL_PERCENT // 100)
    return LOAD_OK


cdef int store_load(engine_t* engine, const uint8_t* superblock, const uint8_t* root, uint64_t root_bytes) noexcept nogil:
    """Everything the last durable checkpoint holds. The engine stays in recovery."""
    cdef store_t* store = &engine.store
    cdef int fault
    memcpy(&store.superblock, superblock, sizeof(superblock_t))
    memcpy(&store.store_id, store.superblock.store_uuid, 8)
    store.life_id = store.superblock.life_id
    store.recovering = True
    fault = set_geometry(store)
    if fault != LOAD_OK:
        return fault
    engine.has_store = True
    store.segments = <segment_t*>calloc(store.segment_count, sizeof(segment_t))
    store.plan = <uint32_t*>calloc(store.segment_count, 4)
    if (store.segments == NULL or store.plan == NULL or log_init(engine) != 0 or checkpoint_init(engine) != 0
            or cleaner_init(engine) != 0 or slots_init(&store.slots, store.superblock.page_slots) != 0):
        return LOAD_NO_MEMORY
    fault = root_load(engine, root, root_bytes)
    if fault == ROOT_NO_MEMORY:
        return LOAD_NO_MEMORY
    if fault == ROOT_BAD_DIRECTORY:
        return LOAD_BAD_DIRECTORY
    if fault == ROOT_UNREAD:
        return LOAD_UNREAD
    return LOAD_OK if fault == ROOT_OK else LOAD_BAD_ROOT


cdef int store_replay(engine_t* engine, uint32_t segment, uint32_t offset_blocks) noexcept nogil:
    """Apply one batch of the dead life, in chain order. A segment of the plan is in its next
    generation from its first batch on; others were open when the checkpoint was made."""
    cdef store_t* store = &engine.store
    cdef log_t* log = &store.log
    cdef uint8_t* block = log.batches[0].buffer
    cdef uint64_t location
    cdef int state
    if segment >= store.segment_count or offset_blocks >= store.segment_blocks:
        return LOAD_BAD_BATCH
    if store.segments[segment].state == SEGMENT_FREE:
        leave_plan(store, segment)
    location = segment_start(store, segment) + offset_blocks
    if read_patiently(engine, location, block) != 0:
        return LOAD_UNREAD if store.unread_block else LOAD_BAD_BATCH
    if batch_check(
            block, store.store_id, store.life_id, segment, store.segments[segment].generation, offset_blocks) != BATCH_OK:
        return LOAD_BAD_BATCH
    if batch_header(block).sequence != log.next_sequence or batch_header(block).previous_crc != log.last_crc:
        return LOAD_BAD_BATCH
    if not go_on_behind(store, batch_header(block)):
        return LOAD_BAD_BATCH
    state = volume_apply(engine, block, <uint32_t>location)
    if state < 0:
        return LOAD_BAD_BATCH
    if state != LOOKUP_OK:
        return LOAD_UNREAD if store.unread_block else LOAD_BAD_PAGE
    log.completed_sequence = log.next_sequence
    log.next_sequence += 1
    log.last_crc = batch_header(block).crc
    return LOAD_OK


cdef void leave_plan(store_t* store, uint32_t segment) noexcept nogil:
    """The dead life took this segment from the plan."""
    cdef uint32_t i, kept = 0
    for i in range(store.plan_count):
        if store.plan[i] != segment:
            store.plan[kept] = store.plan[i]
            kept += 1
    store.plan_count = kept
    store.segments[segment].generation += 1


cdef bint go_on_behind(store_t* store, const batch_header_t* header) noexcept nogil:
    """The log went on with this batch, and we go on behind it (L7). False: a log does not go on there."""
    cdef log_head_t* head
    if header.segment_class >= SEGMENT_CLASSES:
        return False
    head = &store.log.heads[header.segment_class]
    if store.segments[header.segment].state == SEGMENT_FREE:
        if header.offset_blocks:
            return False
        segment_seal(store, header.segment_class)
        segment_go_on(store, header.segment, header.segment_class, 0)
    elif not head.opened or head.segment != header.segment or (head.cursor and head.cursor != header.offset_blocks):
        return False
    head.cursor = header.offset_blocks + 1 + header.payload_blocks
    return head.cursor <= store.segment_blocks


cdef void store_begin_life(engine_t* engine, uint64_t life_id) noexcept nogil:
    """Recovery is over. The first thing the new life does is a checkpoint: it puts the new
    life's id on disk, and all of the old log behind us, before anything is acknowledged."""
    cdef uint32_t i
    engine.store.recovering = False
    engine.store.life_id = life_id
    for i in range(SEGMENT_CLASSES):
        # an older root does not say how far it is written
        if engine.store.log.heads[i].cursor == 0 or segments_free(&engine.store) > engine.store.low:
            segment_seal(&engine.store, i)     # L7
    for i in range(engine.volume_count):
        engine.volumes[i].last_lsn = engine.volumes[i].local_lsn
        engine.volumes[i].chain_last = engine.volumes[i].chain_local
    engine.store.checkpoint.wanted = 1
