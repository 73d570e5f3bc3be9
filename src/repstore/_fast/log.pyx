"""Append, close, write and complete batches; see log.pxd for the rules."""
from libc.errno cimport EIO
from libc.stdlib cimport free
from libc.string cimport memset

from repstore._fast.backend cimport DISK_WRITE
from repstore._fast.batch cimport (
    batch_begin, batch_finish, batch_fits, batch_header,
)
from repstore._fast.events cimport EVENT_FENCED, event_push
from repstore._fast.layout cimport (
    BATCH_BLOCKS, BLOCK_SHIFT, BLOCK_SIZE, CLASS_CLEANER, CLASS_USER, SEGMENT_CLASSES, batch_header_t,
)
from repstore._fast.segments cimport (
    segment_enter, segment_hold, segment_let_go, segment_seal, segment_start, segments_free,
)
from repstore._fast.state cimport (
    BATCH_APPLIED, BATCH_FLYING, BATCH_FREE, BATCH_OPEN, BATCH_WRITTEN, BATCHES, TOKEN_BATCH,
    due, log_head_t, log_t, store_t, token,
)


cdef extern from "stdlib.h" nogil:
    int posix_memalign(void** out, size_t alignment, size_t size)


cdef enum:
    TELL_FLUSHED_AFTER_NS = 2000000


cdef int log_init(engine_t* engine) noexcept nogil:
    cdef uint32_t i
    cdef log_t* log = &engine.store.log
    cdef void* buffer
    for i in range(BATCHES):
        if posix_memalign(&buffer, BLOCK_SIZE, BATCH_BLOCKS * <size_t>BLOCK_SIZE) != 0:
            return -1
        memset(buffer, 0, BATCH_BLOCKS * <size_t>BLOCK_SIZE)
        log.batches[i].buffer = <uint8_t*>buffer
        log.batches[i].index = i
    return 0


cdef void log_free(engine_t* engine) noexcept nogil:
    cdef uint32_t i
    for i in range(BATCHES):
        free(engine.store.log.batches[i].buffer)
        engine.store.log.batches[i].buffer = NULL


cdef void store_fail(engine_t* engine, int32_t error) noexcept nogil:
    """Fence the store: after a failed write or flush nothing it holds may be acknowledged (L3)."""
    if engine.store.failed == 0:
        engine.store.failed = error if error > 0 else EIO
        event_push(engine, EVENT_FENCED, 0, engine.node, 0, <uint64_t>engine.store.failed, 0, 0, 0, NULL)


cdef log_batch_t* free_batch(log_t* log, int segment_class) noexcept nogil:
    """A free buffer; the cleaner leaves the last few to those who wait for an answer."""
    cdef uint32_t i, free_count = 0
    cdef log_batch_t* found = NULL
    for i in range(BATCHES):
        if log.batches[i].state == BATCH_FREE:
            found = &log.batches[i]
            free_count += 1
    if segment_class == CLASS_CLEANER and free_count <= BATCHES // 2:
        return NULL
    return found


cdef log_batch_t* open_batch(engine_t* engine, int segment_class, uint32_t payload_blocks,
                             bint control) noexcept nogil:
    """A new batch at the cursor of its class, in the next segment if this one is full."""
    cdef store_t* store = &engine.store
    cdef log_head_t* head = &store.log.heads[segment_class]
    cdef log_batch_t* batch = free_batch(&store.log, segment_class)
    if batch == NULL:
        return NULL
    if head.opened and store.segment_blocks - head.cursor < 1 + payload_blocks:
        segment_seal(store, segment_class)
    if not head.opened and segment_enter(store, segment_class, control) != 0:
        return NULL
    if segment_class != CLASS_CLEANER:
        store.active_ns = engine.now_ns
    batch.state = BATCH_OPEN
    batch.segment = head.segment
    batch.offset = head.cursor
    batch.segment_class = <uint8_t>segment_class
    batch.lent = 0
    batch.announced = False
    store.log.opened += 1
    batch.number = store.log.opened
    batch_begin(batch.buffer)
    head.batch = batch
    return batch


cdef log_batch_t* log_reserve(engine_t* engine, int segment_class, uint32_t records,
                              uint32_t payload_blocks) noexcept nogil:
    """The open batch, with room for so many records and payload blocks; the caller adds them
    at once. NULL: not now (no buffer, no segment, a checkpoint begins, or the store failed).
    """
    return reserve(engine, segment_class, records, payload_blocks, False)


cdef log_batch_t* log_reserve_control(engine_t* engine, uint32_t records) noexcept nogil:
    """The same for records that bring a volume on (L6)."""
    return reserve(engine, CLASS_USER, records, 0, True)


cdef log_batch_t* reserve(engine_t* engine, int segment_class, uint32_t records, uint32_t payload_blocks,
                          bint control) noexcept nogil:
    cdef store_t* store = &engine.store
    cdef log_head_t* head = &store.log.heads[segment_class]
    cdef log_batch_t* batch = head.batch
    if store.failed or store.log.held or payload_blocks >= store.segment_blocks:
        return NULL
    if head.opened and head.control and not control:
        if segments_free(store) < store.reserve:
            return NULL
        head.control = False
    if batch != NULL:
        if batch_fits(batch.buffer, records, payload_blocks) and (
                1 + batch_header(batch.buffer).payload_blocks + payload_blocks
                <= store.segment_blocks - batch.offset):
            return batch
        log_close(engine, segment_class)
    return open_batch(engine, segment_class, payload_blocks, control)


cdef log_batch_t* log_close(engine_t* engine, int segment_class) noexcept nogil:
    """Seal the open batch of a class and write it. Returns it, or NULL if there was none."""
    cdef store_t* store = &engine.store
    cdef log_t* log = &store.log
    cdef log_head_t* head = &log.heads[segment_class]
    cdef log_batch_t* batch = head.batch
    cdef batch_header_t* header
    cdef uint32_t blocks
    if batch == NULL:
        return NULL
    head.batch = NULL
    header = batch_header(batch.buffer)
    blocks = 1 + header.payload_blocks
    header.store_id = store.store_id
    header.life_id = store.life_id
    header.sequence = log.next_sequence
    header.flushed_sequence = log.flushed_sequence
    header.completed_sequence = log.completed_sequence
    header.previous_crc = log.last_crc
    header.segment = batch.segment
    header.generation = store.segments[batch.segment].generation
    header.offset_blocks = batch.offset
    header.segment_class = <uint32_t>segment_class
    batch.sequence = log.next_sequence
    batch.state = BATCH_FLYING
    log.last_crc = batch_finish(batch.buffer)
    log.next_sequence += 1
    log.told_sequence = log.flushed_sequence
    if header.descriptor_count:
        log.filled_sequence = batch.sequence
    log.chain[(log.chain_head + log.chain_count) % BATCHES] = batch
    log.chain_count += 1
    head.cursor += blocks
    segment_hold(store, batch.segment, 1)           # until it is applied nobody cleans it
    log.blocks_since_checkpoint += blocks
    store.counters.batches += 1
    engine.backend.disk(engine.backend.context, DISK_WRITE,
                        <uint64_t>batch_location(engine, batch) << BLOCK_SHIFT, batch.buffer,
                        blocks << BLOCK_SHIFT, token(TOKEN_BATCH, batch.index))
    return batch


cdef uint32_t batch_location(engine_t* engine, log_batch_t* batch) noexcept nogil:
    return <uint32_t>(segment_start(&engine.store, batch.segment) + batch.offset)


cdef void log_written(engine_t* engine, uint32_t batch_index, int32_t result) noexcept nogil:
    """The disk answered for one batch."""
    cdef log_batch_t* batch = &engine.store.log.batches[batch_index]
    cdef int32_t wanted = (1 + batch_header(batch.buffer).payload_blocks) << BLOCK_SHIFT
    if result != wanted:
        store_fail(engine, -result if result < 0 else EIO)
        return
    batch.state = BATCH_WRITTEN


cdef log_batch_t* log_next_completed(engine_t* engine) noexcept nogil:
    """The next batch in chain order that is written, to be applied now; NULL if it is not (L1)."""
    cdef log_t* log = &engine.store.log
    cdef log_batch_t* batch
    if log.chain_count == 0 or engine.store.failed:
        return NULL
    batch = log.chain[log.chain_head]
    if batch.state != BATCH_WRITTEN:
        return NULL
    log.chain_head = (log.chain_head + 1) % BATCHES
    log.chain_count -= 1
    log.completed_sequence = batch.sequence
    return batch


cdef void log_applied(engine_t* engine, log_batch_t* batch) noexcept nogil:
    """Its records are in the volumes' state: the buffer is free once nobody sends from it."""
    segment_let_go(&engine.store, batch.segment, 1)
    batch.state = BATCH_APPLIED if batch.lent else BATCH_FREE


cdef void log_unlend(engine_t* engine, uint32_t batch_index) noexcept nogil:
    """One send of a batch's payload is through."""
    cdef log_batch_t* batch = &engine.store.log.batches[batch_index]
    batch.lent -= 1
    if batch.lent == 0 and batch.state == BATCH_APPLIED:
        batch.state = BATCH_FREE


cdef void log_tell_flushed(engine_t* engine) noexcept nogil:
    """At the end of a turn: the batch that L5 asks for, which nobody waits for. A flush of nothing
    but such batches needs none."""
    cdef log_t* log = &engine.store.log
    cdef uint64_t at_ns = log.flushed_ns + TELL_FLUSHED_AFTER_NS
    if log.told_sequence >= min(log.flushed_sequence, log.filled_sequence) or not log_idle(engine):
        return
    if engine.now_ns < at_ns:
        due(engine, at_ns)
    elif log_reserve(engine, CLASS_USER, 0, 0) != NULL:
        log_close(engine, CLASS_USER)


cdef bint log_idle(engine_t* engine) noexcept nogil:
    """Nothing open, nothing being written."""
    cdef uint32_t i
    if engine.store.log.chain_count:
        return False
    for i in range(SEGMENT_CLASSES):
        if engine.store.log.heads[i].batch != NULL:
            return False
    return True
