"""Streams, tails, leases and joins; see primary.pxd for the rules."""
from libc.string cimport memcpy, memset

from repstore._fast.batch cimport batch_crc, batch_descriptors, batch_header, payload_of
from repstore._fast.events cimport (
    EVENT_DIVERGED, EVENT_JOIN_READY, EVENT_LEARNER_CAUGHT_UP, EVENT_MEMBER_SILENT,
    EVENT_RESYNC_FULL, EVENT_STALE, EVENT_WANT, event_push,
)
from repstore._fast.frames cimport frame_begin, frame_send, frame_send_node
from repstore._fast.layout cimport (
    BLOCK_SHIFT, BLOCK_SIZE, DESCRIPTOR_BYTES, DIVERGED_FLAG, DURABLE_FLAG, FRAME_ACK, FRAME_APPEND, FRAME_COMMIT,
    FRAME_COPIED, FRAME_FLUSH, FRAME_LEARN, FRAME_PING, FRAME_PONG, FRAME_REJECT, FRAME_WANT,
    GRANT_FLAG, JOIN_FLAG, LEARNING_FLAG, MEMBERS_MAX, OP_EPOCH, OP_TRIM, OP_WRITE, OP_ZERO,
    descriptor_t, pending_t,
)
from repstore._fast.page_tree cimport page_t, page_tree_t, tree_page
from repstore._fast.quorum cimport copies_in_sync, durable_on_all, member_counts
from repstore._fast.records cimport add_record, reserve_record
from repstore._fast.resync cimport copies_flying, resync_copies
from repstore._fast.service cimport service_drop
from repstore._fast.state cimport (
    MEMBER_IN_SYNC, MEMBER_JOINING, MEMBER_LEARNER, PENDING_RECORDS, ROLE_NONE, ROLE_PRIMARY, SENT_BATCH, UNTOLD, due,
    token,
)
from repstore._fast.transfer cimport transfer_record, transfers_forget
from repstore._fast.volume cimport LOOKUP_OK, changes_begin, changes_drop, page_need, record_chain, session_words


cdef enum:
    PING_NS = 500000000            # heartbeat
    LEASE_NS = 2000000000          # a grant lets the primary read alone for so long
    SILENT_NS = 5000000000         # a member that acknowledges nothing for so long is reported
    TELL_COMMIT_NS = 2000000       # a commit is told apart when no record goes out for so long
    ROTATE_BLOCKS = 4096           # changes after which a younger bitmap is begun


cdef member_t* member_find(volume_t* volume, uint32_t node) noexcept nogil:
    cdef uint32_t i
    for i in range(volume.member_count):
        if volume.members[i].node == node:
            return &volume.members[i]
    return NULL


cdef member_t* member_add(volume_t* volume, uint32_t node) noexcept nogil:
    """The member of this node, fresh. NULL: too many."""
    cdef member_t* member = member_find(volume, node)
    if member == NULL:
        if volume.member_count == MEMBERS_MAX:
            return NULL
        member = &volume.members[volume.member_count]
        volume.member_count += 1
    memset(member, 0, sizeof(member_t))
    member.node = node
    member.free_blocks = ~<uint64_t>0          # until it tells
    return member


cdef void member_remove(volume_t* volume, uint32_t i) noexcept nogil:
    volume.member_count -= 1
    volume.members[i] = volume.members[volume.member_count]


# ------------------------------------------------------------------------ what Python decides

cdef void primary_lead(engine_t* engine, volume_t* volume, uint32_t epoch, uint32_t incarnation,
                       uint32_t copies, uint32_t min_copies, bint durable, uint32_t session) noexcept nogil:
    """The config names us primary of this epoch. Members are added next; then we serve (P5).
    Who sealed us at a higher epoch meanwhile has the last word."""
    if volume.sealed_epoch > epoch:
        event_push(engine, EVENT_STALE, volume.index, engine.node, volume.sealed_epoch, 0, 0, 0, 0, NULL)
        return
    volume.role = ROLE_PRIMARY
    volume.primary_node = engine.node
    volume.epoch = epoch
    volume.sealed_epoch = max(volume.sealed_epoch, epoch)
    volume.incarnation = incarnation
    volume.copies = copies
    volume.min_copies = min_copies
    volume.durable = durable
    volume.member_count = 0
    volume.pulling = -1
    volume.leading = True
    volume.held = True
    volume.chain_sent = volume.chain_last
    volume.told_commit_lsn = UNTOLD
    volume.refused_until_ns = 0                # what was sent back then may have been answered elsewhere
    primary_session(volume, session)
    # what the dead primary acknowledged is in our tail: nobody reads before it is committed
    volume.session_barrier = volume.last_lsn
    if volume.change_count == 0 and copies > 1:
        changes_begin(engine, volume, volume.commit_lsn)


cdef int primary_add_member(engine_t* engine, volume_t* volume, uint32_t node, uint64_t last_lsn) noexcept nogil:
    """A member of the new in-sync set, whose log ends at last_lsn (never beyond ours)."""
    cdef member_t* member = member_add(volume, node) if volume.role == ROLE_PRIMARY else NULL
    if member == NULL:
        return -1
    member.state = MEMBER_IN_SYNC
    begin_tail(engine, volume, member, last_lsn)
    return 0


cdef void begin_tail(engine_t* engine, volume_t* volume, member_t* member, uint64_t last_lsn) noexcept nogil:
    member.acked_lsn = min(last_lsn, volume.commit_lsn)    # beyond it counts what it proves to have
    member.tail_next = min(last_lsn, volume.last_lsn) + 1
    member.linked = False
    member.claimed = False
    member.tailing = True
    member.streaming = False
    member.silent_told = False
    member.free_blocks = ~<uint64_t>0
    member.progress_ns = engine.now_ns
    member.ping_ns = 0
    volume.held = True


cdef void primary_set_members(engine_t* engine, volume_t* volume, const uint32_t* nodes, uint32_t count) noexcept nogil:
    """The in-sync set as the config now has it: joins are finished, ejects take effect (P1). A joiner
    that is not in it yet goes on counting: its own join is still to be decided (P2)."""
    cdef uint32_t i = 0, j
    cdef bint listed
    while i < volume.member_count:
        listed = False
        for j in range(count):
            listed |= nodes[j] == volume.members[i].node
        if listed:
            volume.members[i].state = MEMBER_IN_SYNC
        elif volume.members[i].state == MEMBER_IN_SYNC:
            member_remove(volume, i)
            continue
        i += 1
    for j in range(count):
        if member_find(volume, nodes[j]) == NULL:
            member_add(volume, nodes[j]).state = MEMBER_IN_SYNC


cdef void primary_resume(engine_t* engine, volume_t* volume, uint32_t node, uint64_t last_lsn) noexcept nogil:
    """A member's session was lost and is back: it gets what it lacks, then the stream. Control may be
    late: what is not the newest that was asked for on this link is not what it lacks now. And one that
    has answered more in a session that goes on asked before it heard us: nothing is lost."""
    cdef member_t* member = member_find(volume, node)
    if volume.role != ROLE_PRIMARY or member == NULL or not member_counts(member):
        return
    if not member.asks or member.asks_lsn != last_lsn:
        return
    member.asks = False
    if member.linked and (member.streaming or member.tailing) and last_lsn < member.acked_lsn:
        return
    begin_tail(engine, volume, member, last_lsn)


cdef int primary_learner(engine_t* engine, volume_t* volume, uint32_t node, uint64_t serial, uint64_t common_lsn,
                         bint full) noexcept nogil:
    """Bring a copy back that shares our log up to common_lsn: it gets the stream from here on, and
    every block that changed after common_lsn. Begins when nothing is pending. What it says, and what
    is said of it, carries the serial of this session."""
    cdef member_t* member = member_find(volume, node)
    if volume.role != ROLE_PRIMARY or (member != NULL and member_counts(member)):
        return -1
    member = member_add(volume, node)
    if member == NULL:
        return -1
    member.state = MEMBER_LEARNER
    member.attaching = True
    member.learn_serial = serial
    member.common_lsn = common_lsn
    member.copy_full = full
    volume.held = True
    return 0


cdef void primary_join(engine_t* engine, volume_t* volume, uint32_t node, bint begin) noexcept nogil:
    """From now on acknowledgements need this learner too (P2), if it has everything; or it is forgotten
    until it asks to be served again."""
    cdef uint32_t i
    cdef member_t* member
    for i in range(volume.member_count):
        member = &volume.members[i]
        if member.node != node or member.state == MEMBER_IN_SYNC:
            continue
        if not begin:
            member_remove(volume, i)
        elif member.streaming and not member.copying:
            member.state = MEMBER_JOINING
            member.join_asked = False
            member.join_told = False
        return


cdef void primary_session(volume_t* volume, uint32_t session) noexcept nogil:
    """Admit a newer attach: it starts when everything the old one logged is committed."""
    if volume.role != ROLE_PRIMARY or session <= volume.session:
        return
    volume.session = session
    volume.session_highest = 0
    memset(volume.session_window, 0, sizeof(volume.session_window))
    volume.session_barrier = volume.last_lsn


cdef void primary_stop(engine_t* engine, volume_t* volume, int32_t error) noexcept nogil:
    """Lead no more: everything that waits goes back to its exports."""
    if volume.role == ROLE_PRIMARY:
        volume.role = ROLE_NONE
        volume.member_count = 0
        volume.leading = False
        volume.held = False
        transfers_forget(engine, volume)
        service_drop(engine, volume, error)


# -------------------------------------------------------------------------------- the stream

cdef inline bint replicated(const descriptor_t* record) noexcept nogil:
    return (record.operation == OP_WRITE or record.operation == OP_TRIM or record.operation == OP_ZERO
            or record.operation == OP_EPOCH)


cdef void primary_announce(engine_t* engine, log_batch_t* batch) noexcept nogil:
    """A batch was closed: each volume's records go to its members, payload lent from the batch."""
    cdef uint32_t i = 0, count = batch_header(batch.buffer).descriptor_count
    cdef uint32_t payload = 0, run_payload, first
    cdef const descriptor_t* records = batch_descriptors(batch.buffer)
    cdef volume_t* volume
    batch.announced = True
    while i < count:
        if not replicated(&records[i]):
            payload += payload_of(&records[i])
            i += 1
            continue
        first = i
        run_payload = 0
        while i < count and records[i].volume == records[first].volume and replicated(&records[i]):
            run_payload += payload_of(&records[i])
            i += 1
        volume = engine.by_index[records[first].volume]
        if volume != NULL and volume.role == ROLE_PRIMARY:
            announce_run(engine, volume, batch, first, i - first, payload, run_payload)
        payload += run_payload


cdef void announce_run(engine_t* engine, volume_t* volume, log_batch_t* batch, uint32_t first, uint32_t count,
                       uint32_t payload_first, uint32_t payload_count) noexcept nogil:
    cdef uint8_t[8192] meta
    cdef frame_header_t header
    cdef const descriptor_t* records = batch_descriptors(batch.buffer) + first
    cdef uint32_t* crcs = <uint32_t*>(meta + count * DESCRIPTOR_BYTES)
    cdef uint32_t i, payload = 0
    cdef member_t* member
    memcpy(meta, records, count * DESCRIPTOR_BYTES)
    for i in range(payload_count):
        crcs[i] = batch_crc(batch.buffer, payload_first + i)[0]
    frame_begin(engine, &header, FRAME_APPEND, volume.index, volume.epoch)
    header.lsn = records[0].lsn
    header.chain = volume.chain_sent
    header.flags = DURABLE_FLAG if volume.durable else 0
    stamp(volume, &header)
    for i in range(count):
        volume.chain_sent = record_chain(volume.chain_sent, &records[i], crcs + payload, 1)
        payload += payload_of(&records[i])
    for i in range(volume.member_count):
        member = &volume.members[i]
        if not member.streaming or engine.nodes[member.node].link < 0:
            continue
        batch.lent += 1
        frame_send(engine, <uint32_t>engine.nodes[member.node].link, &header, meta,
                   count * DESCRIPTOR_BYTES + payload_count * 4,
                   batch.buffer + (<size_t>(1 + payload_first) << BLOCK_SHIFT), payload_count << BLOCK_SHIFT,
                   token(SENT_BATCH, batch.index))
    volume.told_commit_lsn = volume.commit_lsn
    volume.announced_ns = engine.now_ns


cdef void stamp(volume_t* volume, frame_header_t* header) noexcept nogil:
    """What every frame to a member tells: how far is committed, and durable on all copies."""
    header.commit = volume.commit_lsn
    header.extra = volume.floor_lsn


# ------------------------------------------------------------------------------------ steps

cdef void primary_step(engine_t* engine, volume_t* volume) noexcept nogil:
    """Once a turn: tails, joins, resync, heartbeats, and what became committed."""
    cdef uint32_t i
    cdef member_t* member
    cdef bint held = False
    for i in range(volume.member_count):
        member = &volume.members[i]
        if member.tailing:
            go_on_tail(engine, volume, member)
        if member.attaching:
            attach_learner(engine, volume, member)
        if member.copying:
            go_on_copying(engine, volume, member)
        if member.state == MEMBER_JOINING:
            go_on_joining(engine, volume, member)
        if member.claimed:
            link_member(engine, volume, member)
        heartbeat(engine, volume, member)
        ask_flush(engine, volume, member)
        held |= member.tailing or member.attaching
    if volume.leading and not held:
        held = not append_epoch(engine, volume)
    volume.held = held or volume.leading
    tell_commit(engine, volume)
    rotate_changes(engine, volume)


cdef void go_on_tail(engine_t* engine, volume_t* volume, member_t* member) noexcept nogil:
    """Records the member lacks, read back from our log; then the stream takes over (P3)."""
    cdef int blocks = 1
    if engine.nodes[member.node].link < 0:
        return
    while blocks and member.tail_next <= volume.local_lsn:
        blocks = transfer_record(engine, volume, member.node, FRAME_APPEND, member.tail_next)
        if blocks == 0 and member.tail_next <= volume.commit_lsn:
            event_push(engine, EVENT_DIVERGED, volume.index, member.node, volume.epoch, 0, 0, 0, 0, NULL)
            member.tailing = False             # what it lacks is committed: it must learn it
            return
        member.tail_next += <uint64_t>blocks
    if member.tail_next > volume.last_lsn and volume.unapplied_records == 0:
        member.tailing = False
        member.streaming = True
        volume.told_commit_lsn = UNTOLD        # to it, and that its session began


cdef bint append_epoch(engine_t* engine, volume_t* volume) noexcept nogil:
    """The first record of our epoch: when it commits, so has all that came before it."""
    cdef log_batch_t* batch
    cdef descriptor_t* record
    if engine.store.failed:
        return False
    batch = reserve_record(engine, volume, 1, 0, True)
    if batch == NULL:
        return False
    record = add_record(volume, batch, OP_EPOCH, 0, 1)
    volume.chain_last = record_chain(volume.chain_last, record, NULL, 0)
    volume.leading = False
    engine.more = True
    return True


cdef void attach_learner(engine_t* engine, volume_t* volume, member_t* member) noexcept nogil:
    """Nothing is pending: the stream begins here, and the copies are what changed before."""
    cdef frame_header_t header
    cdef descriptor_t[64] words                # SESSION_WINDOW_WORDS
    cdef uint32_t i
    if engine.nodes[member.node].link < 0:
        member.attaching = False
        return
    if volume.commit_lsn != volume.last_lsn or volume.unapplied_records or volume.leading:
        return
    member.copy_tree = -1
    for i in range(volume.change_count):
        if volume.changes[i].base_lsn <= member.common_lsn:
            member.copy_tree = <int32_t>i      # the youngest that reaches back far enough
    if member.copy_tree < 0 and not member.copy_full:
        member.copy_full = True
        event_push(engine, EVENT_RESYNC_FULL, volume.index, member.node, volume.epoch, member.common_lsn, 0, 0, 0,
                   "no change bitmap reaches back to its last record")
    member.copy_total = volume.size_blocks
    if not member.copy_full and not count_changed(engine, volume, member):
        return
    member.attaching = False
    member.streaming = True
    member.copying = True
    member.copy_next = 0
    member.copy_data = False
    member.acked_lsn = volume.last_lsn
    member.progress_ns = engine.now_ns
    member.linked = True                       # it takes our history, from the running hash in this frame on
    frame_begin(engine, &header, FRAME_LEARN, volume.index, volume.epoch)
    header.extra = member.learn_serial
    header.lsn = volume.last_lsn
    header.chain = volume.chain_last
    header.commit = member.common_lsn
    frame_send_node(engine, member.node, &header, <const uint8_t*>words,
                    session_words(volume, words) * sizeof(descriptor_t), NULL, 0, 0)


cdef bint count_changed(engine_t* engine, volume_t* volume, member_t* member) noexcept nogil:
    """How much there is to copy. False: bitmap pages are still being read."""
    cdef page_tree_t* tree = &volume.changes[member.copy_tree]
    cdef uint32_t number, i
    cdef page_t* page
    cdef uint64_t total = 0, word
    cdef bint here = True
    for number in range(tree.page_count):
        here &= page_need(engine, volume, tree, number) == LOOKUP_OK
    if not here:
        return False
    for number in range(tree.page_count):
        page = tree_page(tree, number)
        if page == NULL or page.data == NULL:
            continue
        for i in range(BLOCK_SIZE // 8):
            word = (<uint64_t*>page.data)[i]
            while word:
                word &= word - 1
                total += 1
    member.copy_total = total
    return True


cdef void go_on_copying(engine_t* engine, volume_t* volume, member_t* member) noexcept nogil:
    if engine.nodes[member.node].link < 0:
        return
    if resync_copies(engine, volume, member):
        engine.more = True
    if member.copy_data and member.copy_next >= volume.size_blocks and copies_flying(member) == 0:
        member.copying = False
        event_push(engine, EVENT_LEARNER_CAUGHT_UP, volume.index, member.node, volume.epoch, member.learn_serial, 0, 0, 0,
                   NULL)


cdef void go_on_joining(engine_t* engine, volume_t* volume, member_t* member) noexcept nogil:
    """It must have flushed everything it was ever sent before its join may be decided (R-join)."""
    cdef frame_header_t header
    if member.join_asked:
        return
    member.join_asked = True
    frame_begin(engine, &header, FRAME_FLUSH, volume.index, volume.epoch)
    header.lsn = volume.last_lsn
    header.chain = member.learn_serial
    header.flags = JOIN_FLAG
    frame_send_node(engine, member.node, &header, NULL, 0, NULL, 0, 0)


cdef void heartbeat(engine_t* engine, volume_t* volume, member_t* member) noexcept nogil:
    """Ask for a lease now and then; report a member that owes acknowledgements for too long."""
    cdef frame_header_t header
    if engine.nodes[member.node].link >= 0 and engine.now_ns >= member.ping_ns:
        member.ping_ns = engine.now_ns + PING_NS
        frame_begin(engine, &header, FRAME_PING, volume.index, volume.epoch)
        header.lsn = engine.now_ns
        header.flags = GRANT_FLAG if member.streaming or member.tailing else 0
        header.extra = volume.local_lsn if member.streaming else 0
        header.commit = member.copies_sent if member.copying else 0
        header.chain = member.learn_serial
        frame_send_node(engine, member.node, &header, NULL, 0, NULL, 0, 0)
    if member.acked_lsn >= volume.local_lsn:
        member.progress_ns = engine.now_ns
    elif member_counts(member) and not member.silent_told and engine.now_ns >= member.progress_ns + SILENT_NS:
        member.silent_told = True
        event_push(engine, EVENT_MEMBER_SILENT, volume.index, member.node, volume.epoch, 0, 0, 0, 0, NULL)
        if engine.nodes[member.node].link >= 0:         # with a new one it is silent no more
            engine.backend.close(engine.backend.context, <uint32_t>engine.nodes[member.node].link)
    due(engine, member.ping_ns)
    due(engine, member.progress_ns + SILENT_NS)


cdef void ask_flush(engine_t* engine, volume_t* volume, member_t* member) noexcept nogil:
    """A flush waits here: every counting member must have flushed as far."""
    cdef frame_header_t header
    cdef uint64_t wanted
    if volume.flushing.tail == NULL or not member_counts(member):
        return
    wanted = volume.flushing.tail.lsn
    if member.durable_lsn >= wanted or member.asked_durable_lsn >= wanted or not member.streaming:
        return
    member.asked_durable_lsn = wanted
    frame_begin(engine, &header, FRAME_FLUSH, volume.index, volume.epoch)
    header.lsn = wanted
    stamp(volume, &header)
    frame_send_node(engine, member.node, &header, NULL, 0, NULL, 0, 0)


cdef void tell_commit(engine_t* engine, volume_t* volume) noexcept nogil:
    """The next records tell the members what is committed, and one that returned that its session began;
    when none come, a frame does."""
    cdef frame_header_t header
    cdef uint32_t i
    if volume.told_commit_lsn == volume.commit_lsn or volume.member_count == 0:
        return
    if engine.now_ns < volume.announced_ns + TELL_COMMIT_NS:
        due(engine, volume.announced_ns + TELL_COMMIT_NS)
        return
    volume.told_commit_lsn = volume.commit_lsn
    frame_begin(engine, &header, FRAME_COMMIT, volume.index, volume.epoch)
    header.lsn = volume.last_lsn
    stamp(volume, &header)
    for i in range(volume.member_count):
        if volume.members[i].streaming:
            frame_send_node(engine, volume.members[i].node, &header, NULL, 0, NULL, 0, 0)


cdef void rotate_changes(engine_t* engine, volume_t* volume) noexcept nogil:
    """While all copies are in sync, bitmaps that reach back further than anyone could need are
    dropped, and a younger one is begun. With a copy away nothing is dropped: it will be needed."""
    if volume.copies > 1 and copies_in_sync(volume) >= volume.copies:
        volume.floor_lsn = durable_on_all(volume)
    changes_rotate(engine, volume)


cdef void changes_rotate(engine_t* engine, volume_t* volume) noexcept nogil:
    cdef uint32_t i
    cdef page_tree_t* youngest
    if engine.store.checkpoint.step or volume.change_count == 0:
        return                                 # the trees a checkpoint names stay as they are
    youngest = &volume.changes[volume.change_count - 1]
    if volume.floor_lsn < youngest.base_lsn or volume.commit_lsn < youngest.base_lsn + ROTATE_BLOCKS:
        return
    for i in range(volume.member_count):
        if volume.members[i].copying or volume.members[i].attaching:
            return
    while volume.change_count > 1:
        changes_drop(engine, volume, 0)
    changes_begin(engine, volume, volume.commit_lsn)


# ---------------------------------------------------------------------------------- answers

cdef void primary_frame(engine_t* engine, volume_t* volume, uint32_t node, const frame_header_t* header,
                        const uint8_t* meta) noexcept nogil:
    """What members say to the primary. Words of another epoch do not count (R-session)."""
    cdef member_t* member = member_find(volume, node)
    if header.type == FRAME_WANT:
        want(engine, volume, node, header)
        return
    if header.type == FRAME_REJECT:
        event_push(engine, EVENT_DIVERGED if header.flags & DIVERGED_FLAG else EVENT_STALE, volume.index, node,
                   header.epoch, 0, 0, 0, 0, NULL)
        return
    if member == NULL or header.epoch != volume.epoch:
        return
    if member.state != MEMBER_IN_SYNC and header.type != FRAME_PONG and header.chain != member.learn_serial:
        return                                 # of a session as learner that is over
    if header.type == FRAME_ACK:
        acknowledged(engine, volume, member, header)
    elif header.type == FRAME_PONG:
        member.lease_until_ns = max(member.lease_until_ns, header.lsn + LEASE_NS)
        member.free_blocks = header.extra
        member.free_lsn = header.commit
    elif header.type == FRAME_COPIED:
        member.copies_told = max(member.copies_told, min(header.lsn, member.copies_sent))


cdef void count_answer(engine_t* engine, member_t* member, uint64_t lsn, uint64_t durable_lsn) noexcept nogil:
    if lsn > member.acked_lsn:
        member.acked_lsn = lsn
        member.progress_ns = engine.now_ns
        member.silent_told = False
    member.durable_lsn = max(member.durable_lsn, min(durable_lsn, member.acked_lsn))


cdef void link_member(engine_t* engine, volume_t* volume, member_t* member) noexcept nogil:
    """The first answer of a session counts when its running hash is ours at that LSN (P6). Below our commit it
    tells nothing, more will come; what we have not written yet is looked at then; a longer log is not ours."""
    if member.claim_lsn < volume.commit_lsn or volume.local_lsn < member.claim_lsn <= volume.last_lsn:
        return
    member.claimed = False
    if not is_our_history(volume, member.claim_lsn, member.claim_chain):
        event_push(engine, EVENT_DIVERGED, volume.index, member.node, volume.epoch, 0, 0, 0, 0, NULL)
        return
    member.linked = True
    engine.more = True
    count_answer(engine, member, member.claim_lsn, member.claim_durable_lsn)


cdef bint is_our_history(const volume_t* volume, uint64_t lsn, uint64_t chain) noexcept nogil:
    """Is `chain` the running hash of our log behind a record that ends at `lsn`?"""
    cdef uint32_t i
    cdef const pending_t* entry
    if lsn == volume.local_lsn:
        return chain == volume.chain_local
    if lsn == volume.commit_lsn:
        return chain == volume.chain_commit
    for i in range(volume.pending_count):
        entry = &volume.pending[(volume.pending_head + i) % PENDING_RECORDS]
        if entry.lsn + entry.blocks - 1 == lsn:
            return chain == entry.chain
    return False


cdef void acknowledged(engine_t* engine, volume_t* volume, member_t* member, const frame_header_t* header) noexcept nogil:
    if not (member.streaming or member.tailing) or (member.linked and header.lsn > volume.last_lsn):
        return                                 # of records this session has not sent
    if not member.linked:
        member.claimed = True
        member.claim_lsn = header.lsn
        member.claim_durable_lsn = header.commit
        member.claim_chain = header.extra
        link_member(engine, volume, member)
        return
    count_answer(engine, member, header.lsn, header.commit)
    if header.flags & JOIN_FLAG and member.state == MEMBER_JOINING and not member.join_told:
        if member.acked_lsn < volume.commit_lsn:
            member.join_asked = False          # it did not have all when it flushed: once more (R-join)
            return
        member.join_told = True
        event_push(engine, EVENT_JOIN_READY, volume.index, member.node, volume.epoch, member.learn_serial, 0, 0, 0, NULL)


cdef void want(engine_t* engine, volume_t* volume, uint32_t node, const frame_header_t* header) noexcept nogil:
    """A copy asks to be served. What it may be is the control side's decision."""
    cdef member_t* member = member_find(volume, node)
    if member != NULL and member.state == MEMBER_LEARNER and not member.attaching and not member.streaming:
        member.copying = False
    if member != NULL:
        member.asks = True
        member.asks_lsn = header.lsn
    event_push(engine, EVENT_WANT, volume.index, node, header.session, header.lsn, header.chain,
               header.flags & LEARNING_FLAG, header.commit, NULL)


cdef void primary_link_down(engine_t* engine, volume_t* volume, uint32_t node) noexcept nogil:
    """A member's session is lost. In sync it still counts (P1); a learner starts anew."""
    cdef uint32_t i
    cdef member_t* member
    for i in range(volume.member_count):
        member = &volume.members[i]
        if member.node != node:
            continue
        member.streaming = False
        member.tailing = False
        member.attaching = False
        member.copying = False
        member.asks = False
        member.asked_durable_lsn = 0
        event_push(engine, EVENT_MEMBER_SILENT, volume.index, node, volume.epoch, 0, 0, 0, 0, NULL)
        member.silent_told = True
        if member.state == MEMBER_LEARNER:
            member_remove(volume, i)
        return
