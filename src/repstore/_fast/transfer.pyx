"""Tails and resync copies; see transfer.pxd."""
from libc.stdint cimport uint8_t
from libc.string cimport memcpy, memset

from repstore._fast.backend cimport DISK_READ
from repstore._fast.checksum cimport crc32c_blocks
from repstore._fast.events cimport EVENT_BAD_BLOCK, event_push
from repstore._fast.frames cimport frame_begin, frame_send
from repstore._fast.layout cimport (
    BLOCK_SHIFT, DESCRIPTOR_BYTES, FRAME_COPY, FRAME_TAIL, LAST_FLAG, LOCATION_HOLE, LOCATION_ZERO, OP_COPY, OP_COPY_HOLE,
    OP_COPY_ZERO, OP_WRITE, PAGE_BITS, PAGE_ENTRIES, descriptor_t, extent_t, frame_header_t,
)
from repstore._fast.page_tree cimport page_t, tree_page
from repstore._fast.requests cimport buffer_get, buffer_put
from repstore._fast.segments cimport is_data, segment_of
from repstore._fast.state cimport (
    PENDING_CRCS, RESYNC_FLYING, SENT_TRANSFER, TOKEN_TRANSFER, token, transfer_t,
)
from repstore._fast.volume cimport (
    LOOKUP_BAD, LOOKUP_LOADING, LOOKUP_OK, bit_get, page_need, pending_at, volume_lookup,
)


cdef enum:
    TRANSFERS = 64
    RUN_BLOCKS = 64


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


cdef void transfers_forget(engine_t* engine, volume_t* volume) noexcept nogil:
    """The volume goes away, or its role ends: what is still being read is not sent."""
    cdef uint32_t i
    for i in range(TRANSFERS):
        if engine.transfers[i].busy and engine.transfers[i].volume == volume:
            engine.transfers[i].volume = NULL


cdef void read_blocks(engine_t* engine, transfer_t* transfer) noexcept nogil:
    """Read the runs that lie together; every run pins its segment until it is here."""
    cdef uint32_t first = 0, count, location
    cdef uint64_t index = <uint64_t>(transfer - engine.transfers)
    transfer.outstanding = 1                   # ours, until all are issued
    while first < transfer.blocks:
        location = transfer.extents[first].location
        count = 1
        if not is_data(location):
            first += 1
            continue
        while (first + count < transfer.blocks
                and transfer.extents[first + count].location == location + count
                and segment_of(&engine.store, location) == segment_of(&engine.store, location + count)):
            count += 1
        transfer.outstanding += 1
        engine.store.segments[segment_of(&engine.store, location)].pins += 1
        engine.backend.disk(engine.backend.context, DISK_READ, <uint64_t>location << BLOCK_SHIFT,
                            transfer.buffer + (<size_t>first << BLOCK_SHIFT), count << BLOCK_SHIFT,
                            token(TOKEN_TRANSFER, index | <uint64_t>first << 16 | <uint64_t>count << 24))
        first += count
    read_part_done(engine, transfer)


cdef void transfer_read_done(engine_t* engine, uint64_t value, int32_t result) noexcept nogil:
    cdef transfer_t* transfer = &engine.transfers[value & 0xFFFF]
    cdef uint32_t first = (value >> 16) & 0xFF, count = (value >> 24) & 0xFF, i
    cdef uint32_t[64] crcs
    engine.store.segments[segment_of(&engine.store, transfer.extents[first].location)].pins -= 1
    if result != <int32_t>(count << BLOCK_SHIFT):
        transfer.bad += 1
    else:
        crc32c_blocks(transfer.buffer + (<size_t>first << BLOCK_SHIFT), count, crcs)
        for i in range(count):
            transfer.bad += crcs[i] != transfer.extents[first + i].crc
    read_part_done(engine, transfer)


cdef void read_part_done(engine_t* engine, transfer_t* transfer) noexcept nogil:
    transfer.outstanding -= 1
    if transfer.outstanding:
        return
    transfer.ready = True
    if transfer.bad and transfer.volume != NULL:
        engine.store.counters.bad_blocks += transfer.bad
        event_push(engine, EVENT_BAD_BLOCK, transfer.volume.index, engine.node, 0,
                   transfer.extents[0].location, 0, transfer.lba, 0, NULL)
        if transfer.kind == FRAME_COPY and learner_of(transfer) != NULL:
            learner_of(transfer).copy_failed = True
    if transfer.volume == NULL or engine.nodes[transfer.node].link < 0 or transfer.bad:
        transfer_end(engine, transfer)
    elif transfer.kind == FRAME_COPY:
        send_copy(engine, transfer)
    else:
        send_ready(engine, transfer.volume, transfer.node)


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
                    and not other.lent and (first == NULL or other.serial < first.serial)):
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


# -------------------------------------------------------------------------------- resync

cdef int next_changed(engine_t* engine, volume_t* volume, member_t* member) noexcept nogil:
    """Move copy_next to the next block to copy. LOOKUP_LOADING: a page is being read."""
    cdef page_t* page
    cdef uint32_t number
    cdef int state
    while member.copy_next < volume.size_blocks:
        if member.copy_full:
            number = <uint32_t>(member.copy_next // PAGE_ENTRIES)
            page = tree_page(&volume.map, number)
            if page != NULL and (page.data != NULL or page.reference.slot):
                return LOOKUP_OK
            member.copy_next = (<uint64_t>number + 1) * PAGE_ENTRIES
            continue
        number = <uint32_t>(member.copy_next // PAGE_BITS)
        state = page_need(engine, volume, &volume.changes[member.copy_tree], number)
        if state != LOOKUP_OK:
            return state
        page = tree_page(&volume.changes[member.copy_tree], number)
        if page == NULL or page.data == NULL:
            member.copy_next = (<uint64_t>number + 1) * PAGE_BITS
            continue
        if (<uint64_t*>page.data)[(member.copy_next % PAGE_BITS) // 64] == 0:
            member.copy_next = (member.copy_next // 64 + 1) * 64
        elif bit_get(&volume.changes[member.copy_tree], member.copy_next):
            return LOOKUP_OK
        else:
            member.copy_next += 1
    return LOOKUP_OK


cdef inline int copy_kind(uint32_t location) noexcept nogil:
    return OP_COPY_HOLE if location == LOCATION_HOLE else OP_COPY_ZERO if location == LOCATION_ZERO else OP_COPY


cdef int transfer_copies(engine_t* engine, volume_t* volume, member_t* member) noexcept nogil:
    """Start copies until enough are under way. Returns 1 when anything was started."""
    cdef int moved = 0, state
    cdef extent_t[64] extents
    cdef uint32_t count
    cdef uint64_t lba
    while member.copies_flying < RESYNC_FLYING:
        state = next_changed(engine, volume, member)
        if state != LOOKUP_OK or member.copy_next >= volume.size_blocks:
            member.copy_failed |= state == LOOKUP_BAD
            return moved
        lba = member.copy_next
        count = 0
        while count < RUN_BLOCKS and lba + count < volume.size_blocks:
            if count and not member.copy_full and not bit_get(&volume.changes[member.copy_tree], lba + count):
                break
            state = volume_lookup(volume, lba + count, &extents[count])
            if state == LOOKUP_LOADING and count == 0:
                return moved
            if state != LOOKUP_OK or copy_kind(extents[count].location) != copy_kind(extents[0].location):
                break
            count += 1
            if (lba + count) % PAGE_BITS == 0:
                break                          # the next bitmap page may have to be read
        if count == 0:
            member.copy_failed = True          # a map page that cannot be read
            return moved
        if not start_copy(engine, volume, member, lba, count, extents):
            return moved
        member.copy_next = lba + count
        moved = 1
    return moved


cdef bint start_copy(engine_t* engine, volume_t* volume, member_t* member, uint64_t lba, uint32_t count,
                     const extent_t* extents) noexcept nogil:
    """Copy one run of one kind. A hole needs no word when everything is copied anew."""
    cdef int kind = copy_kind(extents[0].location)
    cdef transfer_t* transfer
    if kind == OP_COPY_HOLE and member.copy_full:
        return True
    transfer = transfer_new(engine, volume, member.node, FRAME_COPY, count if kind == OP_COPY else 0)
    if transfer == NULL:
        return False
    transfer.lba = lba
    transfer.learn_serial = member.learn_serial
    member.copies_flying += 1
    member.copied_blocks += count
    if kind == OP_COPY:
        memcpy(transfer.extents, extents, count * sizeof(extent_t))
        read_blocks(engine, transfer)
    else:
        send_range(engine, transfer, kind, count)
    return True


cdef void copy_header(engine_t* engine, transfer_t* transfer, frame_header_t* header, uint32_t last) noexcept nogil:
    frame_begin(engine, header, FRAME_COPY, transfer.volume.index, transfer.volume.epoch)
    header.commit = transfer.volume.commit_lsn
    header.flags = <uint8_t>last


cdef void send_range(engine_t* engine, transfer_t* transfer, int kind, uint32_t count) noexcept nogil:
    cdef frame_header_t header
    cdef descriptor_t record
    memset(&record, 0, sizeof(record))
    record.volume = transfer.volume.index
    record.lba = transfer.lba
    record.blocks = count
    record.operation = <uint8_t>kind
    copy_header(engine, transfer, &header, LAST_FLAG)
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
    if learner_of(transfer) == NULL:
        transfer_end(engine, transfer)
    elif refresh(transfer):
        read_blocks(engine, transfer)
    else:
        send_runs(engine, transfer)


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


cdef void send_runs(engine_t* engine, transfer_t* transfer) noexcept nogil:
    """The blocks as they were read; the last frame closes the run, even when none are left."""
    cdef frame_header_t header
    cdef descriptor_t record
    cdef uint32_t first = 0, count
    transfer.outstanding = 1
    while first < transfer.blocks:
        count = 0
        while first + count < transfer.blocks and is_data(transfer.extents[first + count].location):
            count += 1
        if count:
            memset(&record, 0, sizeof(record))
            record.volume = transfer.volume.index
            record.lba = transfer.lba + first
            record.blocks = count
            record.operation = OP_COPY
            copy_header(engine, transfer, &header, 0)
            send_piece(engine, transfer, &header, &record, first, count)
        first += max(count, <uint32_t>1)
    copy_header(engine, transfer, &header, LAST_FLAG)
    frame_send(engine, <uint32_t>engine.nodes[transfer.node].link, &header, NULL, 0, NULL, 0, 0)
    transfer_sent(engine, <uint32_t>(transfer - engine.transfers))
