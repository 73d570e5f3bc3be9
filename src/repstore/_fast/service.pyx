"""Reads, writes, trims and flushes at the primary; see service.pxd for the rules."""
from libc.errno cimport EAGAIN, EINVAL, EIO, ENOMEM, ENOSPC, ESHUTDOWN, ESTALE
from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memcpy, memset

from repstore._fast.backend cimport DISK_READ
from repstore._fast.batch cimport batch_crc, batch_header, batch_next_payload
from repstore._fast.checksum cimport crc32c_blocks, crc32c_copy_block
from repstore._fast.events cimport (
    EVENT_NO_SPACE, EVENT_REQUEST_SESSION, event_push,
)
from repstore._fast.frontend cimport (
    RS_BLOCK_STATUS, RS_EXTENT_HOLE, RS_EXTENT_ZERO, RS_FLUSH, RS_FUA, RS_NO_HOLE, RS_READ,
    RS_TRIM, RS_WRITE, RS_WRITE_ZEROES, rs_extent,
)
from repstore._fast.layout cimport (
    BLOCK_SHIFT, BLOCK_SIZE, LOCATION_HOLE, LOCATION_ZERO, OP_TRIM, OP_WRITE, OP_ZERO, SESSION_WINDOW,
    descriptor_t, extent_t,
)
from repstore._fast.quorum cimport (
    acknowledged_by_all, copies_in_sync, durable_on_all, lease_valid, member_counts,
)
from repstore._fast.records cimport add_record, reserve_record
from repstore._fast.repair cimport REPAIR_STARTED, repair_covers, repair_full, repair_need
from repstore._fast.requests cimport (
    buffer_get, queue_pop, queue_push, queue_push_front, queue_remove, request_finish, request_keep_payload,
)
from repstore._fast.segments cimport is_data, is_lost, segment_of, space_left
from repstore._fast.state cimport (
    RECORD_BLOCKS, REQUEST_AGAIN, REQUEST_DURABLE, REQUEST_FLUSHING, REQUEST_HELD,
    REQUEST_LOGGED, REQUEST_MERGE, REQUEST_PARKED, REQUEST_READING, REQUEST_TARGET, ROLE_PRIMARY, TOKEN_READ,
    TRIM_BLOCKS, log_batch_t, request_queue_t, token,
)
from repstore._fast.volume cimport (
    LOOKUP_LOADING, LOOKUP_OK, pending_overlaps, record_chain, session_mark, session_seen,
    volume_commit, volume_lookup,
)


cdef enum start_t:
    STARTED = 0
    WAIT = 1               # try again later; a write that waits holds back later writes (S2)


cdef enum space_t:
    SPACE = 0
    SPACE_PERHAPS = 1      # to be seen when what is on its way is there
    NO_SPACE = 2


cdef enum:
    STATUS_EXTENTS = 512   # block status extents in one answer


cdef inline bint is_write(const request_t* request) noexcept nogil:
    return (request.front.kind == RS_WRITE or request.front.kind == RS_TRIM
            or request.front.kind == RS_WRITE_ZEROES)


cdef inline bint is_aligned(const request_t* request) noexcept nogil:
    return (request.front.offset | request.front.length) % BLOCK_SIZE == 0


cdef void refuse_stale(request_t* request) noexcept nogil:
    """Another attach took over. A frontend of ours is told so at once; another node's export reads
    ESTALE as "your session", and tells its own."""
    request_finish(request, ESTALE if request.export == NULL else ESHUTDOWN)


cdef void service_submit(engine_t* engine, request_t* request) noexcept nogil:
    """A request for a volume that is led here. The payload is lent only during this call."""
    cdef volume_t* volume = request.volume
    cdef int32_t error
    if request.session < volume.session:
        refuse_stale(request)
        return
    if request.session > volume.session:
        event_push(engine, EVENT_REQUEST_SESSION, volume.index, engine.node, volume.epoch,
                   request.session, 0, 0, 0, NULL)
    elif not (is_write(request) and volume.parked.count) and start(engine, request) == STARTED:
        return
    if request.front.kind == RS_WRITE:
        error = request_keep_payload(engine, request)
        if error:
            request_finish(request, error)
            return
    request.state = REQUEST_PARKED
    queue_push(&volume.parked, request)


cdef int start(engine_t* engine, request_t* request) noexcept nogil:
    cdef volume_t* volume = request.volume
    if request.session > volume.session or volume.commit_lsn < volume.session_barrier:
        return WAIT
    if request.front.kind == RS_READ:
        return start_read(engine, volume, request)
    if request.front.kind == RS_FLUSH:
        return start_flush(engine, volume, request)
    if request.front.kind == RS_BLOCK_STATUS:
        return start_status(engine, volume, request)
    return start_write(engine, volume, request)


# -------------------------------------------------------------------------------- reads

cdef int start_read(engine_t* engine, volume_t* volume, request_t* request) noexcept nogil:
    cdef uint32_t i
    cdef int state
    if not lease_valid(volume, engine.now_ns) or waits_for_repair(engine, volume, request):
        return WAIT
    for i in range(request.blocks):
        state = volume_lookup(volume, request.lba + i, &request.extents[i])
        if state == LOOKUP_LOADING:
            return WAIT
        if state != LOOKUP_OK:
            request_finish(request, EIO)
            return STARTED
    if request.buffer == NULL:
        request.buffer = buffer_get(engine, request.blocks)
        request.buffer_blocks = request.blocks
        if request.buffer == NULL:
            request_finish(request, ENOMEM)
            return STARTED
    request.state = REQUEST_READING
    engine.store.active_ns = engine.now_ns
    engine.store.counters.reads += 1
    engine.store.counters.read_blocks += request.blocks
    issue_reads(engine, request)
    return STARTED


cdef bint waits_for_repair(engine_t* engine, volume_t* volume, request_t* request) noexcept nogil:
    """Is a block of this request being repaired? One that met a bad block and found no place in
    the table of repairs waits for that."""
    if repair_covers(engine, volume, request.lba, request.blocks):
        return True
    if request.flags & REQUEST_AGAIN and repair_full(engine, volume):
        return True
    request.flags &= ~<uint32_t>REQUEST_AGAIN
    return False


cdef void issue_reads(engine_t* engine, request_t* request) noexcept nogil:
    """One disk read for every run of blocks that lie together; holes are zeros."""
    cdef uint32_t first = 0, count
    cdef uint32_t location
    request.outstanding = 1                    # ours: a read may be answered inside the call
    request.front.error = 0
    while first < request.blocks:
        location = request.extents[first].location
        count = 1
        if is_lost(location):
            bad_block(engine, request, first)
        elif not is_data(location):
            memset(request.buffer + (<size_t>first << BLOCK_SHIFT), 0, BLOCK_SIZE)
        else:
            while (first + count < request.blocks
                    and request.extents[first + count].location == location + count
                    and segment_of(&engine.store, location) == segment_of(&engine.store, location + count)):
                count += 1
            read_run(engine, request, first, count, request.buffer + (<size_t>first << BLOCK_SHIFT))
        first += count
    read_part_done(engine, request)


cdef void read_run(engine_t* engine, request_t* request, uint32_t first, uint32_t count, void* to) noexcept nogil:
    cdef uint32_t location = request.extents[first].location
    request.outstanding += 1
    engine.store.segments[segment_of(&engine.store, location)].pins += 1
    engine.backend.disk(engine.backend.context, DISK_READ, <uint64_t>location << BLOCK_SHIFT, to,
                        count << BLOCK_SHIFT,
                        token(TOKEN_READ, request.index | <uint64_t>first << 16 | <uint64_t>count << 24))


cdef void service_read_done(engine_t* engine, uint64_t value, int32_t result) noexcept nogil:
    """The disk answered for one run: every block is checked against the map's checksum (S1). What
    cannot be read in one piece is read block by block."""
    cdef request_t* request = &engine.requests[value & 0xFFFF]
    cdef uint32_t first = (value >> 16) & 0xFF, count = (value >> 24) & 0xFF
    cdef uint32_t[65] crcs
    cdef uint32_t i
    cdef uint8_t* bytes = request.buffer + (<size_t>first << BLOCK_SHIFT)
    if request.flags & REQUEST_MERGE:
        bytes = request.edges + (BLOCK_SIZE if first else 0)
    engine.store.segments[segment_of(&engine.store, request.extents[first].location)].pins -= 1
    if result != <int32_t>(count << BLOCK_SHIFT) and count > 1:
        for i in range(count):
            read_run(engine, request, first + i, 1, bytes + (<size_t>i << BLOCK_SHIFT))
    elif result != <int32_t>(count << BLOCK_SHIFT):
        bad_block(engine, request, first)
    else:
        crc32c_blocks(bytes, count, crcs)
        for i in range(count):
            if crcs[i] != request.extents[first + i].crc:
                bad_block(engine, request, first + i)
    read_part_done(engine, request)


cdef void bad_block(engine_t* engine, request_t* request, uint32_t i) noexcept nogil:
    """Another copy may have it: then the request starts again when it is mended. Else an error."""
    if repair_need(engine, request.volume, request.lba + i, &request.extents[i]) == REPAIR_STARTED:
        request.flags |= REQUEST_AGAIN
    else:
        request.front.error = EIO


cdef void read_part_done(engine_t* engine, request_t* request) noexcept nogil:
    request.outstanding -= 1
    if request.outstanding:
        return
    if request.flags & REQUEST_AGAIN and request.front.error == 0:
        start_again(request)
        return
    if request.flags & REQUEST_MERGE:
        merge_done(engine, request)
        return
    request.front.data = request.buffer + request.front.offset % BLOCK_SIZE
    request.front.data_bytes = <uint32_t>request.front.length
    request_finish(request, request.front.error)


cdef void start_again(request_t* request) noexcept nogil:
    """A block of it is being repaired: it keeps its place before those that came later."""
    if request.flags & REQUEST_MERGE:
        queue_remove(&request.volume.merging, request)
    request.flags &= ~<uint32_t>REQUEST_MERGE
    request.state = REQUEST_PARKED
    if request.volume.role == ROLE_PRIMARY:
        queue_push_front(&request.volume.parked, request)
    else:
        give_back(request, EAGAIN)


cdef int start_status(engine_t* engine, volume_t* volume, request_t* request) noexcept nogil:
    """Runs of hole, allocated zero and data, from the block of `offset` on."""
    cdef rs_extent* out
    cdef extent_t extent
    cdef uint64_t at = request.front.offset, end = request.front.offset + request.front.length, step
    cdef uint32_t count = 0, state
    cdef int found
    if not lease_valid(volume, engine.now_ns):
        return WAIT
    if request.buffer == NULL:
        request.buffer = buffer_get(engine, 1)
        request.buffer_blocks = 1
        if request.buffer == NULL:
            request_finish(request, ENOMEM)
            return STARTED
    out = <rs_extent*>request.buffer
    while at < end:
        found = volume_lookup(volume, at >> BLOCK_SHIFT, &extent)
        if found == LOOKUP_LOADING and count == 0:
            return WAIT
        if found == LOOKUP_LOADING:
            break
        state = 0
        if found == LOOKUP_OK and extent.location == LOCATION_HOLE:
            state = RS_EXTENT_HOLE | RS_EXTENT_ZERO
        elif found == LOOKUP_OK and extent.location == LOCATION_ZERO:
            state = RS_EXTENT_ZERO
        step = min(end, ((at >> BLOCK_SHIFT) + 1) << BLOCK_SHIFT) - at
        if count and out[count - 1].state == state:
            out[count - 1].length += <uint32_t>step
        elif count == STATUS_EXTENTS:
            break
        else:
            out[count].length = <uint32_t>step
            out[count].state = state
            count += 1
        at += step
    request.front.data = request.buffer
    request.front.data_bytes = count * sizeof(rs_extent)
    request_finish(request, 0)
    return STARTED


# ------------------------------------------------------------------------------- writes

cdef bint overlaps(const request_queue_t* queue, const request_t* request) noexcept nogil:
    cdef request_t* other = queue.head
    while other != NULL:
        if other.lba < request.lba + request.blocks and request.lba < other.lba + other.blocks:
            return True
        other = other.next
    return False


cdef bint outruns(const request_queue_t* queue, const request_t* request) noexcept nogil:
    """Would an older request that is not logged yet fall out of the window when this one is?"""
    cdef request_t* other = queue.head
    while other != NULL:
        if other.session == request.session and other.number + SESSION_WINDOW <= request.number:
            return True
        other = other.next
    return False


cdef int start_write(engine_t* engine, volume_t* volume, request_t* request) noexcept nogil:
    if volume.held or copies_in_sync(volume) < volume.min_copies:
        return WAIT
    if request.flags & REQUEST_DURABLE == 0 and (request.front.flags & RS_FUA or volume.durable):
        request.flags |= REQUEST_DURABLE
    if session_seen(volume, request.session, request.number):
        request.lsn = volume.last_lsn          # already in the log, at or before this (S4)
        request.state = REQUEST_LOGGED
        queue_push(&volume.waiting, request)
        return STARTED
    if volume.merging.count and (overlaps(&volume.merging, request) or outruns(&volume.merging, request)):
        return WAIT
    if request.front.kind != RS_WRITE:
        return log_range(engine, volume, request)
    if not is_aligned(request):
        return start_merge(engine, volume, request)
    return log_write(engine, volume, request)


cdef space_t space_for(engine_t* engine, volume_t* volume, request_t* request) noexcept nogil:
    """Would this write fit, here and on every member? Overwriting needs no more than there is. What
    is on its way counts as if it replaced nothing, until nothing is; and a member's word is held
    against a request only when it told of everything that is committed."""
    cdef uint64_t room = space_left(&engine.store)
    cdef bint last_words = True
    cdef uint32_t i, growth = 0
    cdef extent_t extent
    for i in range(volume.member_count):
        if member_counts(&volume.members[i]) and volume.members[i].free_blocks < room:
            room = volume.members[i].free_blocks
            last_words = volume.members[i].free_lsn >= volume.commit_lsn
    if request.blocks + engine.store.coming_blocks <= room:
        return SPACE
    for i in range(request.blocks):
        if volume_lookup(volume, request.lba + i, &extent) != LOOKUP_OK:
            return SPACE
        growth += not is_data(extent.location)
    if growth == 0 or growth + engine.store.coming_blocks <= room:
        return SPACE
    if growth <= room or not last_words or volume.crc_count + volume.unapplied_blocks:
        return SPACE_PERHAPS
    return NO_SPACE


cdef void logged(volume_t* volume, request_t* request) noexcept nogil:
    request.lsn = volume.last_lsn
    request.state = REQUEST_LOGGED
    session_mark(volume, request.session, request.number)
    queue_push(&volume.waiting, request)


cdef int log_write(engine_t* engine, volume_t* volume, request_t* request) noexcept nogil:
    """Log whole blocks, RECORD_BLOCKS in each record, so that every copy's segments can take them.

    The last record alone carries the request's number: who finds it finds all of them. Until it
    is logged the request holds back later writes, so nothing gets in between.
    """
    cdef uint32_t count
    cdef space_t space = SPACE if request.logged_blocks else space_for(engine, volume, request)
    if space == SPACE_PERHAPS:
        return WAIT
    if space == NO_SPACE:
        event_push(engine, EVENT_NO_SPACE, volume.index, engine.node, 0, engine.store.live_blocks,
                   engine.store.capacity_blocks, 0, 0, NULL)
        request_finish(request, ENOSPC)
        return STARTED
    while request.logged_blocks < request.blocks:
        count = min(request.blocks - request.logged_blocks, <uint32_t>RECORD_BLOCKS)
        if not log_blocks(engine, volume, request, count):
            return WAIT
        request.logged_blocks += count
    engine.store.counters.user_blocks += request.blocks
    logged(volume, request)
    return STARTED


cdef bint log_blocks(engine_t* engine, volume_t* volume, request_t* request, uint32_t count) noexcept nogil:
    """The next `count` blocks as one record: copy them into the batch and hash the copies, for the
    sender may change its own. False: the log has no room now."""
    cdef log_batch_t* batch = reserve_record(engine, volume, 1, count, False)
    cdef descriptor_t* record
    cdef const uint8_t* source = request.buffer if request.buffer != NULL else <uint8_t*>request.front.data
    cdef uint8_t* place
    cdef uint32_t i, first
    if batch == NULL:
        return False
    source += <size_t>request.logged_blocks << BLOCK_SHIFT
    record = add_record(volume, batch, OP_WRITE, request.lba + request.logged_blocks, count)
    if request.logged_blocks + count == request.blocks:
        record.session = request.session
        record.request = request.number
    first = batch_header(batch.buffer).payload_blocks
    place = batch_next_payload(batch.buffer, count)
    for i in range(count):
        batch_crc(batch.buffer, first + i)[0] = crc32c_copy_block(
            place + (<size_t>i << BLOCK_SHIFT), source + (<size_t>i << BLOCK_SHIFT))
    volume.chain_last = record_chain(volume.chain_last, record, batch_crc(batch.buffer, first), -1)
    return True


cdef int log_range(engine_t* engine, volume_t* volume, request_t* request) noexcept nogil:
    """Trim and write-zeroes: records without payload, one for every TRIM_BLOCKS. A trim is a
    hint and covers whole blocks only; write-zeroes must cover every byte, so its frontends
    give the edges as writes."""
    cdef int operation = OP_ZERO if (request.front.kind == RS_WRITE_ZEROES and request.front.flags & RS_NO_HOLE) else OP_TRIM
    cdef uint64_t lba = (request.front.offset + BLOCK_SIZE - 1) >> BLOCK_SHIFT
    cdef uint64_t end = (request.front.offset + request.front.length) >> BLOCK_SHIFT
    cdef uint32_t records, blocks
    cdef log_batch_t* batch
    cdef descriptor_t* record
    if request.front.kind == RS_WRITE_ZEROES and not is_aligned(request):
        request_finish(request, EINVAL)
        return STARTED
    if lba >= end:
        request_finish(request, 0)
        return STARTED
    records = <uint32_t>((end - lba + TRIM_BLOCKS - 1) // TRIM_BLOCKS)
    batch = reserve_record(engine, volume, records, 0, False)
    if batch == NULL:
        return WAIT
    while lba < end:
        blocks = <uint32_t>min(end - lba, <uint64_t>TRIM_BLOCKS)
        record = add_record(volume, batch, operation, lba, blocks)
        lba += blocks
        if lba == end:                         # who finds the last one finds all of them
            record.session = request.session
            record.request = request.number
        volume.chain_last = record_chain(volume.chain_last, record, NULL, 0)
    logged(volume, request)
    return STARTED


cdef int start_merge(engine_t* engine, volume_t* volume, request_t* request) noexcept nogil:
    """A write that does not fill its blocks: read the first and last one, verified, and put the
    payload in between. Waits for every write on its way to those blocks, and holds back later ones."""
    cdef uint32_t last = request.blocks - 1
    cdef int state
    if (pending_overlaps(volume, request.lba, request.blocks) or overlaps(&volume.waiting, request)
            or not lease_valid(volume, engine.now_ns) or waits_for_repair(engine, volume, request)):
        return WAIT
    if request_keep_payload(engine, request) != 0:
        request_finish(request, ENOMEM)
        return STARTED
    state = volume_lookup(volume, request.lba, &request.extents[0])
    if state == LOOKUP_OK and last:
        state = volume_lookup(volume, request.lba + last, &request.extents[last])
    if state == LOOKUP_LOADING:
        return WAIT
    if request.edges == NULL:
        request.edges = buffer_get(engine, 4)
    if state != LOOKUP_OK or request.edges == NULL:
        request_finish(request, EIO if state != LOOKUP_OK else ENOMEM)
        return STARTED
    memset(request.edges, 0, 2 * BLOCK_SIZE)
    request.flags |= REQUEST_MERGE
    request.state = REQUEST_READING
    request.outstanding = 1
    request.front.error = 0
    queue_push(&volume.merging, request)
    read_edge(engine, request, 0, request.edges)
    if last:
        read_edge(engine, request, last, request.edges + BLOCK_SIZE)
    read_part_done(engine, request)
    return STARTED


cdef void read_edge(engine_t* engine, request_t* request, uint32_t i, uint8_t* to) noexcept nogil:
    if is_lost(request.extents[i].location):
        bad_block(engine, request, i)
    elif is_data(request.extents[i].location):
        read_run(engine, request, i, 1, to)


cdef void merge_done(engine_t* engine, request_t* request) noexcept nogil:
    """The edges are here: complete the blocks and let the write enter the log as a whole one."""
    cdef uint64_t head = request.front.offset % BLOCK_SIZE
    cdef uint64_t end = head + request.front.length
    cdef uint64_t tail = end % BLOCK_SIZE
    cdef uint8_t* edge = request.edges + (BLOCK_SIZE if request.blocks > 1 else 0)
    request.flags &= ~<uint32_t>REQUEST_MERGE
    request.state = REQUEST_PARKED
    if request.front.error:
        queue_remove(&request.volume.merging, request)
        request_finish(request, request.front.error)
        return
    memcpy(request.buffer, request.edges, head)
    if tail:
        memcpy(request.buffer + end, edge + tail, BLOCK_SIZE - tail)
    log_merged(engine, request.volume)


cdef bint log_merged(engine_t* engine, volume_t* volume) noexcept nogil:
    """Log the completed merges. Until one is in the log it stays in `merging`, and so keeps
    away every write that its edges do not know of. Not if another attach took over meanwhile: what
    that one was told already would change."""
    cdef request_queue_t merging = volume.merging
    cdef request_t* request
    cdef bint moved = False
    memset(&volume.merging, 0, sizeof(request_queue_t))
    while merging.head != NULL:
        request = queue_pop(&merging)
        if request.state == REQUEST_PARKED and request.session < volume.session:
            moved = True
            refuse_stale(request)
        elif request.state == REQUEST_PARKED and not volume.held and log_write(engine, volume, request) == STARTED:
            moved = True
        else:
            queue_push(&volume.merging, request)
    return moved


# ------------------------------------------------------------------ flushes and progress

cdef int start_flush(engine_t* engine, volume_t* volume, request_t* request) noexcept nogil:
    """Durable on all members up to what is committed now, which is all that was answered (S3)."""
    request.lsn = volume.commit_lsn
    request.state = REQUEST_FLUSHING
    queue_push(&volume.flushing, request)
    return STARTED


cdef bint service_progress(engine_t* engine, volume_t* volume) noexcept nogil:
    """Commit what all members have, answer what that settles, start what waited.
    Returns whether anything moved."""
    cdef bint moved = False
    cdef uint64_t before = volume.commit_lsn
    if engine.store.failed:
        return False
    if volume.pending_count:
        volume_commit(engine, volume, acknowledged_by_all(volume))
        moved = volume.commit_lsn != before
    if copies_in_sync(volume) >= volume.min_copies:
        moved |= answer_settled(volume)
    if volume.flushing.head != NULL and volume.durable_lsn < volume.flushing.tail.lsn:
        engine.store.log.flush_wanted = True
    if volume.merging.count:
        moved |= log_merged(engine, volume)
    if volume.parked.count:
        moved |= retry_parked(engine, volume)
    return moved


cdef bint answer_settled(volume_t* volume) noexcept nogil:
    """Answer what is committed, and durable on all copies where that was asked for."""
    cdef request_t* request
    cdef bint moved = False
    cdef uint64_t durable_lsn
    while volume.waiting.head != NULL and volume.waiting.head.lsn <= volume.commit_lsn:
        request = queue_pop(&volume.waiting)
        moved = True
        if request.flags & REQUEST_DURABLE:
            request.state = REQUEST_FLUSHING
            queue_push(&volume.flushing, request)
        else:
            request_finish(request, 0)
    if volume.flushing.head != NULL:
        durable_lsn = durable_on_all(volume)
        while volume.flushing.head != NULL and volume.flushing.head.lsn <= durable_lsn:
            request_finish(queue_pop(&volume.flushing), 0)
            moved = True
    return moved


cdef bint retry_parked(engine_t* engine, volume_t* volume) noexcept nogil:
    """Start what can be started; a write that must still wait holds back the writes behind it."""
    cdef request_queue_t waiting = volume.parked
    cdef request_t* request
    cdef bint blocked = False, moved = False
    memset(&volume.parked, 0, sizeof(request_queue_t))
    while waiting.head != NULL:
        request = queue_pop(&waiting)
        if request.session < volume.session:
            moved = True
            refuse_stale(request)
        elif (blocked and is_write(request)) or start(engine, request) == WAIT:
            blocked |= is_write(request)
            queue_push(&volume.parked, request)
        else:
            moved = True
    return moved


cdef void give_back(request_t* request, int32_t error) noexcept nogil:
    """EAGAIN: a request of our own frontends waits in its export for the next primary; one that
    another node forwarded is told so, and waits there."""
    if error != EAGAIN or request.export == NULL:
        request_finish(request, error)
    elif request.export.revoked or request.session != request.export.session:
        request_finish(request, ESHUTDOWN)     # of a session that is over (X3)
    else:
        request.state = REQUEST_HELD
        request.flags &= REQUEST_TARGET        # whose memory the buffer is stays so
        request.logged_blocks = 0              # the next primary is sent all of it
        request.volume = NULL
        request.export.retry = True


cdef void service_drop(engine_t* engine, volume_t* volume, int32_t error) noexcept nogil:
    """We lead no more (EAGAIN), or the store failed: give back everything that waits here.
    Reads on the disk finish by themselves; edges that are read then are not what the next primary has."""
    cdef request_t* request
    cdef request_queue_t* queue
    cdef request_queue_t merging = volume.merging
    cdef int i
    memset(&volume.merging, 0, sizeof(request_queue_t))
    while merging.head != NULL:
        request = queue_pop(&merging)
        if request.state == REQUEST_PARKED:
            give_back(request, error)
        else:
            request.flags |= REQUEST_AGAIN
            queue_push(&volume.merging, request)
    for i in range(3):
        queue = &volume.parked if i == 0 else &volume.waiting if i == 1 else &volume.flushing
        while queue.head != NULL:
            give_back(queue_pop(queue), error)
