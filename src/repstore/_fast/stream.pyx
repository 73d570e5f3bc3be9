"""What a primary sends, looked at and appended; see stream.pxd."""
from libc.stdint cimport uint64_t
from libc.string cimport memcpy

from repstore._fast.batch cimport batch_add, batch_crc, batch_header, batch_next_payload, payload_of
from repstore._fast.checksum cimport crc32c_blocks
from repstore._fast.events cimport EVENT_DIVERGED, event_push
from repstore._fast.frames cimport frame_begin, frame_send_node
from repstore._fast.layout cimport (
    BATCH_PAYLOAD_BLOCKS, BLOCK_SHIFT, DESCRIPTOR_BYTES, DIVERGED_FLAG, FRAME_APPEND, FRAME_COPY,
    FRAME_REJECT, FRAME_TAIL, OP_EPOCH, OP_TRIM, OP_WRITE, OP_ZERO, VOLUME_LEARNING, descriptor_t, pending_t,
)
from repstore._fast.records cimport reserve_record
from repstore._fast.state cimport (
    MISSING_RECORDS, PENDING_RECORDS, RECORD_BLOCKS, UNTOLD, log_batch_t,
)
from repstore._fast.volume cimport record_chain


cdef void stream_reject(engine_t* engine, volume_t* volume, uint32_t node, int flags) noexcept nogil:
    cdef frame_header_t header
    frame_begin(engine, &header, FRAME_REJECT, volume.index, volume.sealed_epoch)
    header.flags = <uint8_t>flags
    frame_send_node(engine, node, &header, NULL, 0, NULL, 0, 0)


cdef bint well_formed(const volume_t* volume, const frame_header_t* header, const uint8_t* meta, uint32_t* count) noexcept nogil:
    """Do the records, their checksums and the body fit together, and into the volume?"""
    cdef const descriptor_t* records = <const descriptor_t*>meta
    cdef uint32_t payload_blocks = header.body_bytes >> BLOCK_SHIFT, payload = 0, i
    cdef uint64_t lsn = header.lsn
    if payload_blocks > BATCH_PAYLOAD_BLOCKS or header.body_bytes != payload_blocks << BLOCK_SHIFT:
        return False
    if header.meta_bytes < payload_blocks * 4 or (header.meta_bytes - payload_blocks * 4) % DESCRIPTOR_BYTES:
        return False
    count[0] = (header.meta_bytes - payload_blocks * 4) // DESCRIPTOR_BYTES
    for i in range(count[0]):
        if (records[i].volume != volume.index or records[i].blocks == 0 or records[i].lba >= volume.size_blocks
                or records[i].blocks > volume.size_blocks - records[i].lba
                or payload_of(&records[i]) > (BATCH_PAYLOAD_BLOCKS if header.type == FRAME_COPY else RECORD_BLOCKS)):
            return False
        if header.type != FRAME_COPY and records[i].lsn != lsn:
            return False
        lsn += records[i].blocks
        payload += payload_of(&records[i])
    return payload == payload_blocks


cdef bint body_intact(const uint8_t* meta, uint32_t count, const uint8_t* body, uint32_t payload_blocks) noexcept nogil:
    cdef const uint32_t* crcs = <const uint32_t*>(meta + count * DESCRIPTOR_BYTES)
    cdef uint32_t[64] found
    cdef uint32_t i
    crc32c_blocks(body, payload_blocks, found)
    for i in range(payload_blocks):
        if found[i] != crcs[i]:
            return False
    return True


cdef inline bint stream_operation(const descriptor_t* record) noexcept nogil:
    return (record.operation == OP_WRITE or record.operation == OP_TRIM or record.operation == OP_ZERO
            or record.operation == OP_EPOCH)


cdef bint stream_append(engine_t* engine, volume_t* volume, const frame_header_t* header, const uint8_t* meta,
                 const uint8_t* body) noexcept nogil:
    """Records of the stream go to our own log as they are (R1). Those we have are passed over, so
    a frame that stopped half-way can be taken again. What does not fit is asked for anew."""
    cdef const descriptor_t* records = <const descriptor_t*>meta
    cdef const uint32_t* crcs
    cdef uint32_t count = 0, i, payload = 0
    cdef uint64_t chain = header.chain, heard
    if not well_formed(volume, header, meta, &count) or not body_intact(meta, count, body, header.body_bytes >> BLOCK_SHIFT):
        ask_again(engine, volume, MISSING_RECORDS)
        return True
    crcs = <const uint32_t*>(meta + count * DESCRIPTOR_BYTES)
    for i in range(count):
        if not stream_operation(&records[i]) or records[i].lsn > volume.last_lsn + 1:
            ask_again(engine, volume, MISSING_RECORDS)
            return True
        if records[i].lsn == volume.last_lsn + 1:
            if chain != volume.chain_last:
                diverged(engine, volume, header)
                return True
            if header.type == FRAME_APPEND:            # it goes on where we end: what is committed of ours may make room
                heard = header.commit if volume.flags & VOLUME_LEARNING else max(header.commit, volume.inbox_commit)
                volume.known_commit = max(volume.known_commit, min(heard, volume.last_lsn))
            if not append_record(engine, volume, &records[i], crcs + payload, body + (<size_t>payload << BLOCK_SHIFT)):
                return False
            chain = volume.chain_last
            volume.missing &= ~MISSING_RECORDS
        else:
            chain = record_chain(chain, &records[i], crcs + payload, 1)
            volume.told_ack_lsn = UNTOLD                # it comes again because our word did not count: say it again
            if not agrees(volume, records[i].lsn + records[i].blocks - 1, chain):
                diverged(engine, volume, header)
                return True
        payload += payload_of(&records[i])
    return True


cdef void diverged(engine_t* engine, volume_t* volume, const frame_header_t* header) noexcept nogil:
    """What comes is not of our history: the candidate here goes on without that tail, or the primary without us."""
    if header.type == FRAME_TAIL:
        event_push(engine, EVENT_DIVERGED, volume.index, <uint32_t>volume.pulling, volume.sealed_epoch, 0, 0, 0, 0, NULL)
        volume.pulling = -1
    else:
        stream_reject(engine, volume, volume.primary_node, DIVERGED_FLAG)


cdef bint agrees(const volume_t* volume, uint64_t lsn, uint64_t chain) noexcept nogil:
    """Is this our running hash behind `lsn`? Of records long committed we no longer know it."""
    cdef uint32_t i
    cdef const pending_t* entry
    if lsn == volume.last_lsn:
        return chain == volume.chain_last
    if lsn == volume.commit_lsn:
        return chain == volume.chain_commit
    for i in range(volume.pending_count):
        entry = &volume.pending[(volume.pending_head + i) % PENDING_RECORDS]
        if entry.lsn + entry.blocks - 1 == lsn:
            return chain == entry.chain
    return True


cdef void ask_again(engine_t* engine, volume_t* volume, int what) noexcept nogil:
    """Something is missing or damaged: our session with the primary starts anew. Frames that come
    meanwhile do not put that off, however many they are, unless they are what was missing."""
    if not volume.missing:
        volume.heard = False
        volume.want_ns = engine.now_ns + WANT_AFTER_NS
    volume.missing |= what


cdef bint append_record(engine_t* engine, volume_t* volume, const descriptor_t* record, const uint32_t* crcs,
                        const uint8_t* body) noexcept nogil:
    cdef uint32_t payload = payload_of(record), i, first
    cdef log_batch_t* batch = reserve_record(engine, volume, 1, payload, record.operation == OP_EPOCH)
    cdef descriptor_t* own
    if batch == NULL:
        return False
    own = batch_add(batch.buffer)
    memcpy(own, record, DESCRIPTOR_BYTES)
    own.source = 0
    first = batch_header(batch.buffer).payload_blocks
    memcpy(batch_next_payload(batch.buffer, payload), body, <size_t>payload << BLOCK_SHIFT)
    for i in range(payload):
        batch_crc(batch.buffer, first + i)[0] = crcs[i]
    volume.chain_last = record_chain(volume.chain_last, record, crcs, 1)
    volume.last_lsn += record.blocks
    volume.unapplied_records += 1
    volume.unapplied_blocks += payload
    engine.store.coming_records += 1
    engine.store.coming_blocks += payload
    engine.store.counters.user_blocks += payload
    return True
