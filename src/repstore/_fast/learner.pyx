"""Beginning to learn, and taking the copies of blocks; see learner.pxd."""
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from repstore._fast.batch cimport batch_add, batch_crc, batch_header, batch_next_payload
from repstore._fast.layout cimport (
    BLOCK_SHIFT, CLASS_USER, DESCRIPTOR_BYTES, OP_COPY, OP_COPY_BAD, OP_COPY_HOLE,
    OP_COPY_ZERO, OP_LEARN, OP_SESSION, PAGE_BITS, PAGE_ENTRIES, SESSION_WINDOW_WORDS, descriptor_t,
)
from repstore._fast.log cimport log_reserve, log_reserve_control
from repstore._fast.segments cimport is_lost
from repstore._fast.state cimport BARRIER_IDLE, BARRIER_JOIN, MISSING_COPIES, RECORD_BLOCKS, log_batch_t
from repstore._fast.stream cimport ask_again, body_intact, well_formed
from repstore._fast.volume cimport LOOKUP_LOADING, LOOKUP_OK, page_need, volume_commit, volume_truncate


cdef bint pages_here(engine_t* engine, volume_t* volume, uint64_t lba, uint64_t blocks) noexcept nogil:
    """Are the map and bitmap pages of a range in memory? Starts reading those that are not."""
    cdef uint32_t number, g
    cdef bint here = True
    for number in range(<uint32_t>(lba // PAGE_ENTRIES), <uint32_t>((lba + blocks - 1) // PAGE_ENTRIES) + 1):
        here &= page_need(engine, volume, &volume.map, number) == LOOKUP_OK
    for g in range(volume.change_count):
        for number in range(<uint32_t>(lba // PAGE_BITS), <uint32_t>((lba + blocks - 1) // PAGE_BITS) + 1):
            here &= page_need(engine, volume, &volume.changes[g], number) == LOOKUP_OK
    return here


cdef bint session_well_formed(const volume_t* volume, const descriptor_t* words, uint32_t count) noexcept nogil:
    """What of its session window a primary had set."""
    cdef uint32_t i
    if count > SESSION_WINDOW_WORDS:
        return False
    for i in range(count):
        if words[i].volume != volume.index or words[i].operation != OP_SESSION or words[i].request % 64:
            return False
    return True


cdef bint learner_begin(engine_t* engine, volume_t* volume, const frame_header_t* header,
                        const uint8_t* meta) noexcept nogil:
    """The primary starts to bring us back: our map is incomplete until it says so. What we have stays until
    the copy of a block replaces it, for nobody else may have it (R7)."""
    cdef log_batch_t* batch
    cdef descriptor_t* record
    cdef uint32_t words = header.meta_bytes // DESCRIPTOR_BYTES, i
    if not session_well_formed(volume, <const descriptor_t*>meta, words):
        return True
    if header.epoch == volume.learn_epoch and header.extra <= volume.learn_serial:
        return True                            # heard before, or of a session that a later one has ended
    if volume.unapplied_records:
        return False
    if volume_commit(engine, volume, header.commit) == LOOKUP_LOADING:
        return False                           # what both logs share is ours to keep
    volume_truncate(engine, volume, volume.commit_lsn)     # what they do not is void
    batch = log_reserve_control(engine, 1 + words)
    if batch == NULL:
        return False
    record = batch_add(batch.buffer)
    record.volume = volume.index
    record.epoch = header.epoch
    record.operation = OP_LEARN
    record.lsn = header.lsn
    record.lba = header.commit                 # the base: up to here our logs agree
    record.request = header.chain
    for i in range(words):
        memcpy(batch_add(batch.buffer), meta + <size_t>i * DESCRIPTOR_BYTES, DESCRIPTOR_BYTES)
    volume.marked_batch = 0
    volume.last_lsn = header.lsn
    volume.chain_last = header.chain
    volume.unproved_lsn = 0                    # nothing of it was ours
    volume.known_commit = header.lsn
    volume.heard = True
    volume.missing = 0
    volume.heard_ns = engine.now_ns
    volume.copies_taken = 0
    volume.copies_said = 0
    volume.copy_logged_blocks = 0
    volume.learn_unapplied = True
    volume.learn_serial = header.extra
    volume.learn_epoch = header.epoch
    volume.barriers[BARRIER_JOIN] = BARRIER_IDLE
    return True


cdef void copy_logged(volume_t* volume, uint64_t commit_lsn) noexcept nogil:
    """A copy, as of this commit, waits for its batch: nothing newer may be committed below it."""
    if volume.copies_unapplied == 0:
        volume.copies_commit_lsn = commit_lsn
    volume.copies_unapplied += 1


cdef inline bint copy_operation(const descriptor_t* record) noexcept nogil:
    return (record.operation == OP_COPY or record.operation == OP_COPY_ZERO or record.operation == OP_COPY_HOLE
            or (record.operation == OP_COPY_BAD and is_lost(record.source)))


cdef bint is_of_session(const volume_t* volume, const frame_header_t* header) noexcept nogil:
    """Of the session as learner that we are in, or were in last."""
    return header.epoch == volume.learn_epoch and header.chain == volume.learn_serial


cdef bint learner_copy(engine_t* engine, volume_t* volume, const frame_header_t* header, const uint8_t* meta,
               const uint8_t* body) noexcept nogil:
    """A run of committed blocks for our map; it goes through the log like everything else."""
    cdef const descriptor_t* record = <const descriptor_t*>meta
    cdef uint32_t count = 0
    if not is_of_session(volume, header) or header.lsn <= volume.copies_taken:
        return True                            # of a session that is over; or it comes twice
    if (header.lsn != volume.copies_taken + 1                                          # one was lost
            or (header.commit < volume.commit_lsn and not volume.learn_unapplied)      # it was overtaken
            or header.commit > volume.last_lsn                                         # records before it were lost
            or not well_formed(volume, header, meta, &count) or count != 1
            or not copy_operation(record)
            or not body_intact(meta, 1, body, header.body_bytes >> BLOCK_SHIFT)):
        ask_again(engine, volume, MISSING_COPIES)
        return True
    if not pages_here(engine, volume, record.lba, record.blocks):
        return False
    while volume.copy_logged_blocks < record.blocks:
        count = record.blocks - volume.copy_logged_blocks
        if record.operation == OP_COPY:
            count = min(count, <uint32_t>RECORD_BLOCKS)
        if not copy_blocks(engine, volume, header, record, count, meta, body):
            return False                       # taken up again from there
        volume.copy_logged_blocks += count
    volume.copy_logged_blocks = 0
    volume.copies_taken = header.lsn
    return True


cdef bint copy_blocks(engine_t* engine, volume_t* volume, const frame_header_t* header, const descriptor_t* record,
                      uint32_t count, const uint8_t* meta, const uint8_t* body) noexcept nogil:
    """The next `count` blocks of a run as one record of our log. False: it has no room now."""
    cdef uint32_t done = volume.copy_logged_blocks, payload = count if record.operation == OP_COPY else 0, i, first
    cdef log_batch_t* batch = log_reserve(engine, CLASS_USER, 1, payload)
    cdef descriptor_t* own
    if batch == NULL:
        return False
    own = batch_add(batch.buffer)
    memcpy(own, record, DESCRIPTOR_BYTES)
    own.lsn = header.commit
    own.lba = record.lba + done
    own.blocks = count
    copy_logged(volume, own.lsn)
    first = batch_header(batch.buffer).payload_blocks
    memcpy(batch_next_payload(batch.buffer, payload), body + (<size_t>done << BLOCK_SHIFT), <size_t>payload << BLOCK_SHIFT)
    for i in range(payload):
        batch_crc(batch.buffer, first + i)[0] = (<const uint32_t*>(meta + DESCRIPTOR_BYTES))[done + i]
    return True
