"""Tails, copies, fetched blocks and scrubs; see transfer.pxd."""
from libc.stdint cimport uint8_t
from libc.string cimport memcpy, memset

from repstore._fast.backend cimport DISK_READ
from repstore._fast.checksum cimport crc32c_blocks
from repstore._fast.events cimport EVENT_UNREADABLE, event_push
from repstore._fast.frames cimport frame_begin, frame_send, frame_send_node
from repstore._fast.layout cimport (
    ANY_FLAG, BLOCK_SHIFT, DESCRIPTOR_BYTES, FETCH_DATA, FETCH_LATER, FETCH_NONE, FETCH_ZEROS, FRAME_APPEND,
    FRAME_COPY, FRAME_FETCHED, FRAME_TAIL, LAST_FLAG, LEARNING_FLAG, LOCATION_BAD, LOCATION_HOLE, OP_COPY,
    OP_COPY_BAD, OP_WRITE, VOLUME_LEARNING, descriptor_t, extent_t, frame_header_t,
)
from repstore._fast.patience cimport patience_lasts
from repstore._fast.repair cimport REPAIR_STARTED, repair_covers, repair_full, repair_need
from repstore._fast.requests cimport buffer_get, buffer_put
from repstore._fast.segments cimport is_data, is_lost, segment_of
from repstore._fast.state cimport (
    PENDING_CRCS, ROLE_PRIMARY, SENT_TRANSFER, TOKEN_TRANSFER, due, token, transfer_t,
)
from repstore._fast.volume cimport LOOKUP_OK, pending_at, volume_lookup


cdef enum:
    TRANSFERS = 64
    SCRUBBED = 0                   # kind of a transfer that goes nowhere


cdef transfer_t* transfer_new(engine_t* engine, volume_t* volume, uint32_t node, int kind,
                              uint32_t blocks) noexcept nogil:
    cdef uint32_t i
    cdef transfer_t* transfer
    for i in range(TRANSFERS):
        transfer = &engine.transfers[i]
        if transfer.busy:
            continue
        memset(transfer, 0, sizeof(transfer_t))
        transfer.buffer = buffer_get(engine, blocks) if blocks else NULL
        if blocks and transfer.buffer == NULL:
            return NULL
        transfer.busy = True
        transfer.volume = volume
        transfer.node = node
        transfer.kind = <uint8_t>kind
        transfer.blocks = blocks
        engine.transfer_serial += 1
        transfer.serial = engine.transfer_serial
        return transfer
    return NULL


cdef void transfer_end(engine_t* engine, transfer_t* transfer) noexcept nogil:
    if transfer.buffer != NULL:
        buffer_put(engine, transfer.buffer, transfer.blocks)
    transfer.buffer = NULL
    transfer.busy = False


cdef void transfers_free(engine_t* engine) noexcept nogil:
    """The engine ends."""
    cdef uint32_t i
    for i in range(TRANSFERS):
        if engine.transfers[i].busy:
            transfer_end(engine, &engine.transfers[i])


cdef void transfers_forget(engine_t* engine, volume_t* volume) noexcept nogil:
    """The volume goes away, or its role ends: what is still being read is not sent."""
    cdef uint32_t i
    for i in range(TRANSFERS):
        if engine.transfers[i].busy and engine.transfers[i].volume == volume:
            engine.transfers[i].volume = NULL


cdef void read_blocks(engine_t* engine, transfer_t* transfer) noexcept nogil:
    """Read the runs that lie together; every run pins its segment until it is here."""
    cdef uint32_t first = 0, count, location
    transfer.outstanding = 1                   # ours, until all are issued
    transfer.bad = 0
    transfer.unread = False
    while first < transfer.blocks:
        location = transfer.extents[first].location
        count = 1
        if not is_data(location):
            transfer.bad |= <uint64_t>is_lost(location) << first
            first += 1
            continue
        while (first + count < transfer.blocks
                and transfer.extents[first + count].location == location + count
                and segment_of(&engine.store, location) == segment_of(&engine.store, location + count)):
            count += 1
        read_run(engine, transfer, first, count)
        first += count
    read_part_done(engine, transfer)


cdef void read_run(engine_t* engine, transfer_t* transfer, uint32_t first, uint32_t count) noexcept nogil:
    cdef uint32_t location = transfer.extents[first].location
    transfer.outstanding += 1
    engine.store.segments[segment_of(&engine.store, location)].pins += 1
    engine.backend.disk(engine.backend.context, DISK_READ, <uint64_t>location << BLOCK_SHIFT,
                        transfer.buffer + (<size_t>first << BLOCK_SHIFT), count << BLOCK_SHIFT,
                        token(TOKEN_TRANSFER, <uint64_t>(transfer - engine.transfers) | <uint64_t>first << 16
                              | <uint64_t>count << 24))


cdef void transfer_read_done(engine_t* engine, uint64_t value, int32_t result) noexcept nogil:
    cdef transfer_t* transfer = &engine.transfers[value & 0xFFFF]
    cdef uint32_t first = (value >> 16) & 0xFF, count = (value >> 24) & 0xFF, i
    cdef uint32_t[64] crcs
    engine.store.segments[segment_of(&engine.store, transfer.extents[first].location)].pins -= 1
    if result != <int32_t>(count << BLOCK_SHIFT) and count > 1:
        for i in range(count):                 # block by block: which of them cannot be read?
            read_run(engine, transfer, first + i, 1)
    elif result != <int32_t>(count << BLOCK_SHIFT):
        transfer.bad |= <uint64_t>1 << first
        transfer.unread = True
    else:
        crc32c_blocks(transfer.buffer + (<size_t>first << BLOCK_SHIFT), count, crcs)
        for i in range(count):
            transfer.bad |= <uint64_t>(crcs[i] != transfer.extents[first + i].crc) << (first + i)
    read_part_done(engine, transfer)


cdef void read_part_done(engine_t* engine, transfer_t* transfer) noexcept nogil:
    transfer.outstanding -= 1
    if transfer.outstanding:
        return
    transfer.ready = True
    if transfer.kind == SCRUBBED:
        scrubbed(engine, transfer)
    elif transfer.volume == NULL or engine.nodes[transfer.node].link < 0:
        transfer_end(engine, transfer)
    elif transfer.kind == FRAME_COPY:
        if transfer.bad and (waits_for_repairs(engine, transfer) or waits_for_disk(engine, transfer)):
            transfer.stalled = True
            engine.transfers_stalled += 1
        else:
            send_copy(engine, transfer)
    elif transfer.kind == FRAME_FETCHED:
        send_fetched(engine, transfer)
    elif transfer.bad:
        tail_failed(engine, transfer)
    else:
        send_ready(engine, transfer.volume, transfer.node)


cdef void tail_failed(engine_t* engine, transfer_t* transfer) noexcept nogil:
    """A pending record cannot be read back: this copy is incomplete until it is committed or void. Who leads
    what a member lacks is Python's decision; a candidate asks another member."""
    transfer.volume.unreadable_lsn = max(transfer.volume.unreadable_lsn, transfer.lsn)
    if transfer.kind == FRAME_APPEND and transfer.volume.role == ROLE_PRIMARY:
        event_push(engine, EVENT_UNREADABLE, transfer.volume.index, transfer.node, transfer.volume.epoch,
                   0, 0, 0, 0, NULL)
    transfer_end(engine, transfer)


# -------------------------------------------------------------------------- bad blocks of a run

cdef bint waits_for_repairs(engine_t* engine, transfer_t* transfer) noexcept nogil:
    """Has the repair of a bad block begun? What no copy can give goes out as bad."""
    cdef uint32_t i
    cdef bint waits = False
    for i in range(transfer.blocks):
        if transfer.bad >> i & 1:
            waits |= repair_need(engine, transfer.volume, transfer.lba + i, &transfer.extents[i]) == REPAIR_STARTED
    return waits


cdef bint waits_for_disk(engine_t* engine, transfer_t* transfer) noexcept nogil:
    """Is a block that no copy can give one that may be readable in a moment? A learner that is told that it is
    bad would join without it."""
    return transfer.unread and patience_lasts(&transfer.patience, engine.now_ns, engine.store.patience_ns)


cdef void transfers_go_on(engine_t* engine) noexcept nogil:
    """Once a turn: runs whose repairs have ended, or whose time has come, are read again."""
    cdef uint32_t i
    cdef transfer_t* transfer
    for i in range(TRANSFERS if engine.transfers_stalled else 0):
        transfer = &engine.transfers[i]
        if not transfer.busy or not transfer.stalled:
            continue
        if transfer.volume != NULL and (
                repair_covers(engine, transfer.volume, transfer.lba, transfer.blocks) or repair_full(engine, transfer.volume)):
            continue
        if transfer.volume != NULL and engine.now_ns < transfer.patience.again_ns:
            due(engine, transfer.patience.again_ns)
            continue
        transfer.stalled = False
        engine.transfers_stalled -= 1
        if transfer.volume == NULL or learner_of(transfer) == NULL:
            transfer_end(engine, transfer)
        else:
            refresh(transfer)
            read_blocks(engine, transfer)


# ------------------------------------------------------------------------------------ scrubs

cdef bint transfer_scrub(engine_t* engine, volume_t* volume, uint64_t lba, uint32_t blocks,
                         const extent_t* extents) noexcept nogil:
    """Read a run of blocks only to look at them. False: not now."""
    cdef transfer_t* transfer = transfer_new(engine, volume, engine.node, SCRUBBED, blocks)
    if transfer == NULL:
        return False
    transfer.lba = lba
    transfer.lsn = engine.scrub.serial
    memcpy(transfer.extents, extents, blocks * sizeof(extent_t))
    read_blocks(engine, transfer)
    return True


cdef void scrubbed(engine_t* engine, transfer_t* transfer) noexcept nogil:
    """The run is here: blocks that are bad, and still where they were, go to repair."""
    cdef extent_t now
    cdef uint32_t i
    for i in range(transfer.blocks if transfer.volume != NULL else 0):
        if transfer.bad >> i & 1 and volume_lookup(transfer.volume, transfer.lba + i, &now) == LOOKUP_OK \
                and now.location == transfer.extents[i].location:
            repair_need(engine, transfer.volume, transfer.lba + i, &now)
            engine.scrub.bad_blocks += transfer.lsn == engine.scrub.serial
    if transfer.lsn == engine.scrub.serial:
        engine.scrub.flying = 0
    engine.more = True
    transfer_end(engine, transfer)


# ------------------------------------------------------------------- blocks that others repair

cdef void transfer_fetch(engine_t* engine, volume_t* volume, uint32_t node, const frame_header_t* header) noexcept nogil:
    """FETCH: another copy lacks a committed block. It gets what our map has, verified, if we have
    committed as far as it had, and the checksum is the one it wants."""
    cdef extent_t extent
    cdef transfer_t* transfer
    cdef int state
    cdef bint any_content = header.flags & ANY_FLAG != 0
    if volume.flags & VOLUME_LEARNING or header.lsn >= volume.size_blocks:
        fetched(engine, volume, node, header.lsn, header.chain, FETCH_NONE)
        return
    state = volume_lookup(volume, header.lsn, &extent)
    if header.epoch != volume.epoch or volume.commit_lsn < header.commit or state != LOOKUP_OK:
        fetched(engine, volume, node, header.lsn, header.chain, FETCH_LATER)
    elif is_lost(extent.location):
        refuse_fetch(engine, volume, node, header.lsn, header.chain, &extent)
    elif any_content and not is_data(extent.location):
        fetched(engine, volume, node, header.lsn, header.chain, FETCH_ZEROS)
    elif not is_data(extent.location) or (extent.crc != header.extra and not any_content):
        # written anew: it will hear; who learns has what was there before, and its cleaner must not wait for that
        fetched(engine, volume, node, header.lsn, header.chain,
                FETCH_NONE if header.flags & LEARNING_FLAG != 0 else FETCH_LATER)
    else:
        transfer = transfer_new(engine, volume, node, FRAME_FETCHED, 1)
        if transfer == NULL:
            fetched(engine, volume, node, header.lsn, header.chain, FETCH_LATER)
            return
        transfer.lba = header.lsn
        transfer.lsn = header.chain
        transfer.extents[0] = extent
        read_blocks(engine, transfer)


cdef void refuse_fetch(engine_t* engine, volume_t* volume, uint32_t node, uint64_t lba, uint64_t question,
                       const extent_t* extent) noexcept nogil:
    """Ours is bad as well. The primary may get it from a third copy; a replica asks the primary,
    which must not wait for that."""
    cdef bint begun = repair_need(engine, volume, lba, extent) == REPAIR_STARTED
    fetched(engine, volume, node, lba, question,
            FETCH_LATER if begun and volume.role == ROLE_PRIMARY else FETCH_NONE)


cdef void fetched(engine_t* engine, volume_t* volume, uint32_t node, uint64_t lba, uint64_t question,
                  uint32_t status) noexcept nogil:
    """An answer without a block."""
    cdef frame_header_t header
    frame_begin(engine, &header, FRAME_FETCHED, volume.index, volume.epoch)
    header.lsn = lba
    header.commit = volume.commit_lsn
    header.chain = question
    header.session = status
    frame_send_node(engine, node, &header, NULL, 0, NULL, 0, 0)


cdef void send_fetched(engine_t* engine, transfer_t* transfer) noexcept nogil:
    cdef frame_header_t header
    if transfer.bad:
        refuse_fetch(engine, transfer.volume, transfer.node, transfer.lba, transfer.lsn, &transfer.extents[0])
        transfer_end(engine, transfer)
        return
    frame_begin(engine, &header, FRAME_FETCHED, transfer.volume.index, transfer.volume.epoch)
    header.lsn = transfer.lba
    header.commit = transfer.volume.commit_lsn
    header.chain = transfer.lsn
    header.session = FETCH_DATA
    header.extra = transfer.extents[0].crc
    transfer.outstanding = 1
    frame_send(engine, <uint32_t>engine.nodes[transfer.node].link, &header, NULL, 0, transfer.buffer,
               1 << BLOCK_SHIFT, token(SENT_TRANSFER, <uint64_t>(transfer - engine.transfers)))


# ------------------------------------------------------------------------------------- sending


cdef void transfer_sent(engine_t* engine, uint32_t index) noexcept nogil:
    cdef transfer_t* transfer = &engine.transfers[index]
    transfer.outstanding -= 1
    if transfer.outstanding == 0:
        transfer_end(engine, transfer)


cdef void send_piece(engine_t* engine, transfer_t* transfer, frame_header_t* header, descriptor_t* record,
                     uint32_t first, uint32_t payload) noexcept nogil:
    """One record with its checksums as meta, its payload lent from the transfer's buffer."""
    cdef uint8_t[304] meta                     # a descriptor and 64 checksums
    cdef uint32_t i
    memcpy(meta, record, DESCRIPTOR_BYTES)
    for i in range(payload):
        (<uint32_t*>(meta + DESCRIPTOR_BYTES))[i] = transfer.extents[first + i].crc
    transfer.outstanding += 1
    frame_send(engine, <uint32_t>engine.nodes[transfer.node].link, header, meta, DESCRIPTOR_BYTES + payload * 4,
               transfer.buffer + (<size_t>first << BLOCK_SHIFT) if payload else NULL, payload << BLOCK_SHIFT,
               token(SENT_TRANSFER, <uint64_t>(transfer - engine.transfers)))


# --------------------------------------------------------------------------------- tails

cdef pending_t* find_pending(volume_t* volume, uint64_t lsn, uint32_t* crc_start) noexcept nogil:
    cdef uint32_t i
    cdef pending_t* entry
    crc_start[0] = volume.crc_head
    for i in range(volume.pending_count):
        entry = pending_at(volume, i)
        if entry.lsn == lsn:
            return entry
        if entry.operation == OP_WRITE:
            crc_start[0] += entry.blocks
    return NULL


cdef int transfer_record(engine_t* engine, volume_t* volume, uint32_t node, int kind, uint64_t lsn) noexcept nogil:
    """Send the pending record that begins at `lsn`. Returns its blocks, or 0: not now."""
    cdef uint32_t crc_start, i
    cdef pending_t* entry = find_pending(volume, lsn, &crc_start)
    cdef uint32_t payload
    cdef transfer_t* transfer
    if entry == NULL:
        return 0
    payload = entry.blocks if entry.operation == OP_WRITE else 0
    transfer = transfer_new(engine, volume, node, kind, payload)
    if transfer == NULL:
        return 0
    transfer.lsn = lsn
    transfer.lba = entry.lba
    for i in range(payload):
        transfer.extents[i].location = entry.location + i
        transfer.extents[i].crc = volume.pending_crcs[(crc_start + i) % PENDING_CRCS]
    read_blocks(engine, transfer)
    return <int>entry.blocks


cdef bint transfer_tail_end(engine_t* engine, volume_t* volume, uint32_t node) noexcept nogil:
    """Behind the records of a tail: say that this was all. False: not now."""
    cdef transfer_t* transfer = transfer_new(engine, volume, node, FRAME_TAIL, 0)
    if transfer != NULL:
        read_blocks(engine, transfer)
    return transfer != NULL


cdef void send_ready(engine_t* engine, volume_t* volume, uint32_t node) noexcept nogil:
    """Reads end in any order; records leave in theirs."""
    cdef transfer_t* first = NULL
    cdef transfer_t* other
    cdef uint32_t i
    while True:
        first = NULL
        for i in range(TRANSFERS):
            other = &engine.transfers[i]
            if (other.busy and other.volume == volume and other.node == node and other.kind != FRAME_COPY
                    and other.kind != FRAME_FETCHED and other.kind != SCRUBBED and not other.lent and (first == NULL or other.serial < first.serial)):
                first = other
        if first == NULL or not first.ready:
            return
        first.lent = True
        send_record(engine, first)


cdef void send_record(engine_t* engine, transfer_t* transfer) noexcept nogil:
    cdef volume_t* volume = transfer.volume
    cdef uint32_t crc_start
    cdef pending_t* entry = find_pending(volume, transfer.lsn, &crc_start)
    cdef frame_header_t header
    cdef descriptor_t record
    frame_begin(engine, &header, transfer.kind, volume.index, volume.sealed_epoch)
    if transfer.lsn == 0:
        header.flags = LAST_FLAG
        frame_send(engine, <uint32_t>engine.nodes[transfer.node].link, &header, NULL, 0, NULL, 0, 0)
    if entry == NULL:                          # the end; or settled meanwhile, and asked for anew
        transfer_end(engine, transfer)
        return
    memset(&record, 0, sizeof(record))
    record.volume = volume.index
    record.epoch = entry.epoch
    record.lsn = entry.lsn
    record.lba = entry.lba
    record.request = entry.request
    record.blocks = entry.blocks
    record.session = entry.session
    record.operation = entry.operation
    record.flags = entry.flags
    header.lsn = entry.lsn
    header.commit = volume.commit_lsn
    header.chain = chain_before(volume, entry)
    send_piece(engine, transfer, &header, &record, 0, transfer.blocks)


cdef uint64_t chain_before(volume_t* volume, const pending_t* entry) noexcept nogil:
    """The running hash in front of a pending record."""
    cdef uint32_t i
    cdef uint64_t chain = volume.chain_commit
    for i in range(volume.pending_count):
        if pending_at(volume, i).lsn == entry.lsn:
            return chain
        chain = pending_at(volume, i).chain
    return chain


# -------------------------------------------------------------------------------- copies

cdef bint transfer_copy(engine_t* engine, volume_t* volume, member_t* member, int kind, uint64_t lba, uint32_t count,
                        const extent_t* extents) noexcept nogil:
    """Copy one run of one kind. False: not now."""
    cdef transfer_t* transfer
    transfer = transfer_new(engine, volume, member.node, FRAME_COPY, count if kind == OP_COPY else 0)
    if transfer == NULL:
        return False
    transfer.lba = lba
    transfer.learn_serial = member.learn_serial
    member.copied_blocks += count
    if kind == OP_COPY:
        member.copies_read += 1
        memcpy(transfer.extents, extents, count * sizeof(extent_t))
        read_blocks(engine, transfer)
    else:
        send_range(engine, transfer, member, kind, count)
    return True


cdef void copy_header(engine_t* engine, volume_t* volume, member_t* member, frame_header_t* header) noexcept nogil:
    """The next frame of its copies: it takes them in this order, without a gap, and each once (R6)."""
    member.copies_sent += 1
    frame_begin(engine, header, FRAME_COPY, volume.index, volume.epoch)
    header.lsn = member.copies_sent
    header.commit = volume.commit_lsn
    header.chain = member.learn_serial


cdef void send_range(engine_t* engine, transfer_t* transfer, member_t* member, int kind, uint32_t count) noexcept nogil:
    cdef frame_header_t header
    cdef descriptor_t record
    memset(&record, 0, sizeof(record))
    record.volume = transfer.volume.index
    record.lba = transfer.lba
    record.blocks = count
    record.operation = <uint8_t>kind
    copy_header(engine, transfer.volume, member, &header)
    send_piece(engine, transfer, &header, &record, 0, 0)


cdef member_t* learner_of(transfer_t* transfer) noexcept nogil:
    """The learner a run is for; NULL when its session is over: a new one reads the run again."""
    cdef volume_t* volume = transfer.volume
    cdef uint32_t i
    for i in range(volume.member_count):
        if volume.members[i].node == transfer.node and volume.members[i].learn_serial == transfer.learn_serial:
            return &volume.members[i]
    return NULL


cdef void send_copy(engine_t* engine, transfer_t* transfer) noexcept nogil:
    cdef member_t* member = learner_of(transfer)
    if member == NULL:
        transfer_end(engine, transfer)
    elif refresh(transfer):
        read_blocks(engine, transfer)
    else:
        send_runs(engine, transfer, member)


cdef bint refresh(transfer_t* transfer) noexcept nogil:
    """Look the run up again. True: some block moved, so it must be read again. One that became a
    hole was trimmed by a client: the stream has told the learner."""
    cdef extent_t now
    cdef uint32_t i
    cdef bint moved = False
    for i in range(transfer.blocks):
        if volume_lookup(transfer.volume, transfer.lba + i, &now) != LOOKUP_OK:
            now.location = LOCATION_HOLE
        moved |= now.location != transfer.extents[i].location
        transfer.extents[i] = now
    return moved


cdef inline bint readable(const transfer_t* transfer, uint32_t i) noexcept nogil:
    return is_data(transfer.extents[i].location) and not transfer.bad >> i & 1


cdef void send_runs(engine_t* engine, transfer_t* transfer, member_t* member) noexcept nogil:
    """The blocks as they were read, if any are left. One that no copy could give becomes a bad one of
    the learner too."""
    cdef frame_header_t header
    cdef descriptor_t record
    cdef uint32_t first = 0, count
    transfer.outstanding = 1
    while first < transfer.blocks:
        count = 0
        while first + count < transfer.blocks and readable(transfer, first + count):
            count += 1
        if count == 0 and transfer.bad >> first & 1:
            send_bad(engine, transfer, member, first)
        if count:
            memset(&record, 0, sizeof(record))
            record.volume = transfer.volume.index
            record.lba = transfer.lba + first
            record.blocks = count
            record.operation = OP_COPY
            copy_header(engine, transfer.volume, member, &header)
            send_piece(engine, transfer, &header, &record, first, count)
        first += max(count, <uint32_t>1)
    member.copies_read -= 1
    transfer_sent(engine, <uint32_t>(transfer - engine.transfers))


cdef void send_bad(engine_t* engine, transfer_t* transfer, member_t* member, uint32_t i) noexcept nogil:
    cdef frame_header_t header
    cdef descriptor_t record
    cdef extent_t* extent = &transfer.extents[i]
    memset(&record, 0, sizeof(record))
    record.volume = transfer.volume.index
    record.lba = transfer.lba + i
    record.blocks = 1
    record.operation = OP_COPY_BAD
    record.source = extent.location if is_lost(extent.location) else LOCATION_BAD
    record.request = extent.crc
    copy_header(engine, transfer.volume, member, &header)
    send_piece(engine, transfer, &header, &record, i, 0)
