"""Victim choice and moving; see cleaner.pxd."""
from libc.stdlib cimport free
from libc.string cimport memcpy, memset

from repstore._fast.backend cimport DISK_READ
from repstore._fast.batch cimport (
    BATCH_OK, batch_add, batch_check, batch_crc, batch_descriptors, batch_header,
    batch_next_payload, payload_of,
)
from repstore._fast.checksum cimport crc32c
from repstore._fast.events cimport EVENT_BAD_BLOCK, event_push
from repstore._fast.layout cimport (
    BATCH_BLOCKS, BLOCK_SHIFT, BLOCK_SIZE, CLASS_CLEANER, OP_BAD, OP_MOVE, PAGE_ENTRIES, SEGMENT_SEALED,
    batch_header_t, descriptor_t, extent_t,
)
from repstore._fast.log cimport log_reserve
from repstore._fast.page_tree cimport page_t, tree_page
from repstore._fast.patience cimport patience_ended, patience_lasts, patience_t
from repstore._fast.repair cimport REPAIR_STARTED, repair_full, repair_need, repair_possible
from repstore._fast.segments cimport is_data, segment_of, segment_start, segments_few, segments_free
from repstore._fast.state cimport (
    BATCHES, BATCH_OPEN, BATCH_WRITTEN, TOKEN_CLEANER, VOLUME_INDEX_MAX, cleaner_t, due, log_batch_t, log_t, segment_t,
    store_t, token, volume_t,
)
from repstore._fast.volume cimport LOOKUP_OK, volume_lookup


cdef extern from "stdlib.h" nogil:
    int posix_memalign(void** out, size_t alignment, size_t size)


cdef double USED_MAX = 0.97, IDLE_USED_MAX = 0.75

cdef enum:
    PAGES_LOOKED_AT = 16           # of the maps, in one step


cdef int cleaner_init(engine_t* engine) noexcept nogil:
    cdef void* buffer = NULL
    engine.store.cleaner.victim = -1
    engine.store.cleaner.unfinished = -1
    if posix_memalign(&buffer, BLOCK_SIZE, CLEANER_READ_BLOCKS * <size_t>BLOCK_SIZE) != 0:
        return -1
    engine.store.cleaner.buffer = <unsigned char*>buffer
    return 0


cdef void cleaner_free(engine_t* engine) noexcept nogil:
    free(engine.store.cleaner.buffer)
    engine.store.cleaner.buffer = NULL


cdef inline double used_of(const store_t* store, const segment_t* segment) noexcept nogil:
    return <double>segment.live / store.segment_blocks


cdef inline bint gives_room(const store_t* store, const segment_t* segment, double used_max) noexcept nogil:
    """Its blocks need a header for each batch, and another one where two victims meet."""
    cdef uint32_t room = store.segment_blocks - (store.segment_blocks + BATCH_BLOCKS - 1) // BATCH_BLOCKS
    return (segment.state == SEGMENT_SEALED and segment.live and not segment.pending
            and used_of(store, segment) <= used_max and segment.live + 1 < room)


cdef int64_t choose_victim(store_t* store, double used_max, uint64_t now_ns) noexcept nogil:
    """The sealed segment whose cleaning pays best; -1 when none would give room. One that was set aside is
    none before its time has come, and takes turns with the others then (N4)."""
    cdef cleaner_t* cleaner = &store.cleaner
    cdef uint32_t i
    cdef int64_t best = -1, aside = -1
    cdef int64_t only = cleaner.unfinished if segments_few(store) else -1          # N5
    cdef double score, best_score = 0.0
    cdef segment_t* segment
    if only >= 0 and not gives_room(store, &store.segments[only], used_max):
        only = -1
    cleaner.aside_ns = 0
    for i in range(store.segment_count):
        segment = &store.segments[i]
        if (only >= 0 and i != only) or not gives_room(store, segment, used_max):
            continue
        if segment.patience.tries:
            if cleaner.aside_ns == 0 or segment.patience.again_ns < cleaner.aside_ns:
                cleaner.aside_ns = segment.patience.again_ns
                aside = i
            continue
        score = (1.0 - used_of(store, segment)) * (1.0 + store.checkpoint.number - segment.age) / \
            (1.0 + used_of(store, segment))
        if score > best_score:
            best_score = score
            best = i
    if aside >= 0 and cleaner.aside_ns <= now_ns and (best < 0 or not cleaner.aside_last):
        best = aside
    cleaner.aside_last = best == aside
    return best


cdef bint cleaner_step(engine_t* engine) noexcept nogil:
    """Work while free segments are few. Returns whether anything moved."""
    cdef store_t* store = &engine.store
    cdef cleaner_t* cleaner = &store.cleaner
    if cleaner.reading or store.failed or store.log.held or store.recount:
        return False
    if cleaner.victim < 0:
        cleaner.victim = next_victim(engine)
        if cleaner.victim < 0:
            return False
        begin_victim(engine)
    if store.segments[cleaner.victim].live == 0:
        finish_victim(engine)
        return True
    if cleaner.by_map:
        if cleaner.volume < engine.volume_count:
            return move_found(engine) if cleaner.have else find_living(engine)
    elif cleaner.parse < cleaner.have:
        return move_batches(engine)
    elif cleaner.cursor < store.segment_blocks:
        read_more(engine)
        return True
    if moves_under_way(&store.log):
        return False
    if cleaner.skipped and (cleaner.by_map or store.segments[cleaner.victim].live <= cleaner.skipped):
        set_aside(engine)
    elif cleaner.by_map:
        store.recount = True               # N3
        cleaner.victim = -1
    else:
        begin_by_map(engine)
    return True


cdef int64_t next_victim(engine_t* engine) noexcept nogil:
    """The segment to clean now; -1: none needs to be, or would give room."""
    cdef store_t* store = &engine.store
    cdef uint32_t spare = segments_free(store) + store.emptied
    cdef int64_t victim
    if spare < store.low:
        return choose_victim(store, USED_MAX, engine.now_ns)
    if spare >= store.high or store.cleaner.idle_ns == store.active_ns or not store_idle(store, engine.now_ns):
        store.cleaner.rested_ns = engine.now_ns
        return -1
    victim = choose_victim(store, IDLE_USED_MAX, engine.now_ns)
    if victim < 0 and store.cleaner.aside_ns == 0:
        store.cleaner.idle_ns = store.active_ns    # nothing more to do before somebody writes
    return victim


cdef void cleaner_due(engine_t* engine) noexcept nogil:
    """It may have something to do although nothing happens till then."""
    cdef store_t* store = &engine.store
    if segments_free(store) + store.emptied >= store.high:
        return
    due(engine, store.cleaner.aside_ns)
    if store.cleaner.idle_ns != store.active_ns:
        due(engine, store.active_ns + IDLE_AFTER_NS)


cdef void begin_victim(engine_t* engine) noexcept nogil:
    cdef store_t* store = &engine.store
    cdef cleaner_t* cleaner = &store.cleaner
    cdef patience_t* patience = &store.segments[cleaner.victim].patience
    if patience.again_ns < cleaner.rested_ns or engine.now_ns > patience.again_ns + store.patience_ns:
        memset(patience, 0, sizeof(patience_t))    # N6
    cleaner.giving_up = patience_ended(patience, engine.now_ns, store.patience_ns)
    cleaner.skipped = 0
    cleaner.took_room = False
    cleaner.by_map = False
    cleaner.reread = 0
    cleaner.cursor = 0
    cleaner.have = 0
    cleaner.parse = 0


cdef void set_aside(engine_t* engine) noexcept nogil:
    """Till some of it can be read again, or is given up (N4)."""
    cdef store_t* store = &engine.store
    cdef cleaner_t* cleaner = &store.cleaner
    patience_lasts(&store.segments[cleaner.victim].patience, engine.now_ns, store.patience_ns)
    if cleaner.took_room and segments_few(store):
        cleaner.unfinished = cleaner.victim
    cleaner.victim = -1


cdef void finish_victim(engine_t* engine) noexcept nogil:
    cdef cleaner_t* cleaner = &engine.store.cleaner
    if cleaner.unfinished == cleaner.victim:
        cleaner.unfinished = -1
    cleaner.victim = -1
    cleaner.cleaned_segments += 1


cdef void read_more(engine_t* engine) noexcept nogil:
    cdef store_t* store = &engine.store
    cdef cleaner_t* cleaner = &store.cleaner
    cdef uint32_t count = min(<uint32_t>CLEANER_READ_BLOCKS, store.segment_blocks - cleaner.cursor)
    cleaner.reading = True
    cleaner.have = count
    cleaner.parse = count
    engine.backend.disk(engine.backend.context, DISK_READ,
                        (segment_start(store, <uint32_t>cleaner.victim) + cleaner.cursor) << BLOCK_SHIFT,
                        cleaner.buffer, count << BLOCK_SHIFT, token(TOKEN_CLEANER, 0))


cdef void cleaner_read_done(engine_t* engine, int32_t result) noexcept nogil:
    """A piece of the victim is here. It begins with a batch header. What cannot be read in one
    piece is read block by block: a block that cannot be read is bad for itself alone."""
    cdef cleaner_t* cleaner = &engine.store.cleaner
    if cleaner.one:
        cleaner.one = False
        cleaner.reading = False
        cleaner.unread = result != BLOCK_SIZE
        return
    if cleaner.singly:
        if result != BLOCK_SIZE:
            memset(cleaner.buffer + (<size_t>cleaner.single << BLOCK_SHIFT), 0, BLOCK_SIZE)
        cleaner.single += 1
    elif result != <int32_t>(cleaner.have << BLOCK_SHIFT):
        cleaner.singly = True
        cleaner.single = 0
    if cleaner.singly and cleaner.single < cleaner.have:
        read_single(engine)
        return
    cleaner.singly = False
    cleaner.reading = False
    cleaner.record = 0
    cleaner.block = 0
    cleaner.payload = 0
    cleaner.parse = 0


cdef void read_single(engine_t* engine) noexcept nogil:
    cdef store_t* store = &engine.store
    cdef cleaner_t* cleaner = &store.cleaner
    engine.backend.disk(engine.backend.context, DISK_READ,
                        (segment_start(store, <uint32_t>cleaner.victim) + cleaner.cursor + cleaner.single) << BLOCK_SHIFT,
                        cleaner.buffer + (<size_t>cleaner.single << BLOCK_SHIFT), BLOCK_SIZE, token(TOKEN_CLEANER, 0))


cdef void read_one(engine_t* engine, uint32_t location, unsigned char* bytes) noexcept nogil:
    """One block, to its place in the buffer. What cannot be read leaves there what has no right
    checksum."""
    engine.store.cleaner.reading = True
    engine.store.cleaner.one = True
    engine.backend.disk(engine.backend.context, DISK_READ, <uint64_t>location << BLOCK_SHIFT, bytes, BLOCK_SIZE,
                        token(TOKEN_CLEANER, 0))


cdef bint moves_under_way(const log_t* log) noexcept nogil:
    """Is something that the cleaner logged not in the maps yet?"""
    cdef uint32_t i
    for i in range(BATCHES):
        if log.batches[i].segment_class == CLASS_CLEANER and BATCH_OPEN <= log.batches[i].state <= BATCH_WRITTEN:
            return True
    return False


cdef bint move_batches(engine_t* engine) noexcept nogil:
    """Move what lives in the whole batches of the buffer; stops when the log has no room."""
    cdef store_t* store = &engine.store
    cdef cleaner_t* cleaner = &store.cleaner
    cdef segment_t* victim = &store.segments[cleaner.victim]
    cdef unsigned char* block
    cdef batch_header_t* header
    cdef uint32_t offset, blocks
    while cleaner.parse < cleaner.have:
        block = cleaner.buffer + (<size_t>cleaner.parse << BLOCK_SHIFT)
        header = batch_header(block)
        offset = cleaner.cursor + cleaner.parse
        if batch_check(block, store.store_id, header.life_id, <uint32_t>cleaner.victim,
                       victim.generation, offset) != BATCH_OK:
            end_of_batches(cleaner, store.segment_blocks)
            return True
        blocks = 1 + header.payload_blocks
        if cleaner.parse + blocks > cleaner.have:
            cleaner.cursor = offset
            cleaner.have = 0
            cleaner.parse = 0
            return True
        if not move_records(engine, block, <uint32_t>(segment_start(store, <uint32_t>cleaner.victim) + offset)):
            return False
        cleaner.parse += blocks
        cleaner.record = 0
        cleaner.block = 0
        cleaner.payload = 0
    cleaner.cursor += cleaner.have
    cleaner.have = 0
    cleaner.parse = 0
    return True


cdef void end_of_batches(cleaner_t* cleaner, uint32_t segment_blocks) noexcept nogil:
    """Behind the last batch of a segment lies what an older use left, or a header is damaged: that
    shows when all moves are through and blocks still live here."""
    cleaner.have = 0
    cleaner.parse = 0
    cleaner.cursor = segment_blocks


cdef bint move_records(engine_t* engine, unsigned char* block, uint32_t location) noexcept nogil:
    """The living blocks of one batch, from where we stopped. False: come back later."""
    cdef cleaner_t* cleaner = &engine.store.cleaner
    cdef const descriptor_t* record
    cdef volume_t* volume
    cdef extent_t extent
    cdef uint32_t here
    cdef int state
    while cleaner.record < batch_header(block).descriptor_count:
        record = batch_descriptors(block) + cleaner.record
        volume = engine.by_index[record.volume] if record.volume < VOLUME_INDEX_MAX else NULL
        while cleaner.block < payload_of(record):
            here = location + 1 + cleaner.payload + cleaner.block
            if volume != NULL and record.lba + cleaner.block < volume.size_blocks:
                state = volume_lookup(volume, record.lba + cleaner.block, &extent)
                if state != LOOKUP_OK:
                    return False
                if extent.location == here:
                    if not move_block(engine, volume, record.lba + cleaner.block, &extent,
                                      block + (<size_t>(1 + cleaner.payload + cleaner.block) << BLOCK_SHIFT)):
                        return False
            cleaner.block += 1
        cleaner.payload += payload_of(record)
        cleaner.record += 1
        cleaner.block = 0
    return True


cdef bint move_block(engine_t* engine, volume_t* volume, uint64_t lba, const extent_t* extent,
                     unsigned char* bytes) noexcept nogil:
    """Append one living block to the cleaner's own segment. False: come back later."""
    cdef log_batch_t* batch
    cdef descriptor_t* record
    cdef descriptor_t* previous
    cdef unsigned char* place
    if crc32c(0, bytes, BLOCK_SIZE) != extent.crc:
        return bad_block(engine, volume, lba, extent, bytes)
    batch = log_reserve(engine, CLASS_CLEANER, 1, 1)
    if batch == NULL:
        return False
    engine.store.cleaner.took_room = True
    place = batch_next_payload(batch.buffer, 1)
    memcpy(place, bytes, BLOCK_SIZE)
    batch_crc(batch.buffer, batch_header(batch.buffer).payload_blocks - 1)[0] = extent.crc
    engine.store.counters.moved_blocks += 1
    if batch_header(batch.buffer).descriptor_count:
        previous = batch_descriptors(batch.buffer) + batch_header(batch.buffer).descriptor_count - 1
        if (previous.operation == OP_MOVE and previous.volume == volume.index
                and previous.lba + previous.blocks == lba
                and previous.source + previous.blocks == extent.location):
            previous.blocks += 1               # a run that lay together stays one record
            return True
    record = batch_add(batch.buffer)
    record.volume = volume.index
    record.operation = OP_MOVE
    record.lba = lba
    record.blocks = 1
    record.source = extent.location
    return True


# ------------------------------------------------------------------------- what is damaged

cdef inline bint is_first_look(const store_t* store) noexcept nogil:
    """Was the victim never set aside?"""
    return store.segments[store.cleaner.victim].patience.tries == 0


cdef bint bad_block(engine_t* engine, volume_t* volume, uint64_t lba, const extent_t* extent,
                    unsigned char* bytes) noexcept nogil:
    """A living block is not what the map names (N1), or could not be read (N4). True: it is given up, or left
    for later; False: come back."""
    cdef cleaner_t* cleaner = &engine.store.cleaner
    cdef log_batch_t* batch
    cdef descriptor_t* record
    cdef bint later
    if cleaner.reread != extent.location:
        cleaner.reread = extent.location
        read_one(engine, extent.location, bytes)
        return False
    later = cleaner.unread and not cleaner.giving_up
    if not later or (is_first_look(&engine.store) and not segments_few(&engine.store) and repair_possible(engine, volume)):
        if repair_full(engine, volume) or repair_need(engine, volume, lba, extent) == REPAIR_STARTED:
            return False
    if later:
        cleaner.skipped += 1
        return True
    batch = log_reserve(engine, CLASS_CLEANER, 1, 0)
    if batch == NULL:
        return False
    record = batch_add(batch.buffer)
    record.volume = volume.index
    record.operation = OP_BAD
    record.lba = lba
    record.blocks = 1
    record.source = extent.location
    return True


cdef void begin_by_map(engine_t* engine) noexcept nogil:
    """All that the headers name was moved, and blocks still live here: one is damaged (N2)."""
    cdef store_t* store = &engine.store
    store.cleaner.by_map = True
    store.cleaner.volume = 0
    store.cleaner.lba = 0
    store.cleaner.have = 0
    store.cleaner.skipped = 0
    if not is_first_look(store):
        return                             # that was told
    store.counters.bad_blocks += 1
    event_push(engine, EVENT_BAD_BLOCK, 0, engine.node, 0,
               segment_start(store, <uint32_t>store.cleaner.victim), 2, 0, 0, NULL)


cdef bint find_living(engine_t* engine) noexcept nogil:
    """Read the next block that a map has in the victim. False: a page of the map is being read."""
    cdef store_t* store = &engine.store
    cdef cleaner_t* cleaner = &store.cleaner
    cdef volume_t* volume = engine.volumes[cleaner.volume]
    cdef page_t* page
    cdef uint32_t _
    cdef uint64_t end
    for _ in range(PAGES_LOOKED_AT):
        if cleaner.lba >= volume.size_blocks:
            cleaner.volume += 1
            cleaner.lba = 0
            return True
        page = tree_page(&volume.map, <uint32_t>(cleaner.lba // PAGE_ENTRIES))
        end = min((cleaner.lba // PAGE_ENTRIES + 1) * PAGE_ENTRIES, volume.size_blocks)
        if page == NULL or (page.data == NULL and page.reference.slot == 0):
            cleaner.lba = end
        while cleaner.lba < end:
            if volume_lookup(volume, cleaner.lba, &cleaner.extent) != LOOKUP_OK:
                return False
            if is_data(cleaner.extent.location) and segment_of(store, cleaner.extent.location) == cleaner.victim:
                cleaner.have = 1
                read_one(engine, cleaner.extent.location, cleaner.buffer)
                return True
            cleaner.lba += 1
    return True


cdef bint move_found(engine_t* engine) noexcept nogil:
    """The block that was read goes elsewhere, if it is still what the map has. False: no room now."""
    cdef cleaner_t* cleaner = &engine.store.cleaner
    cdef volume_t* volume = engine.volumes[cleaner.volume]
    cdef extent_t now
    if cleaner.lba < volume.size_blocks:       # the volume may be another one meanwhile
        if volume_lookup(volume, cleaner.lba, &now) != LOOKUP_OK:
            return False
        if now.location == cleaner.extent.location and not move_block(
                engine, volume, cleaner.lba, &now, cleaner.buffer):
            return False
    cleaner.have = 0
    cleaner.lba += 1
    return True
