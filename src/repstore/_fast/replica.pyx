"""Following a primary: sessions, seals, tails, answers; see replica.pxd for the rules."""
from libc.errno cimport EAGAIN
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from repstore._fast.batch cimport batch_add
from repstore._fast.events cimport EVENT_PULLED, EVENT_SEALED, EVENT_STALE, event_push
from repstore._fast.frames cimport frame_begin, frame_send_node
from repstore._fast.layout cimport (
    DURABLE_FLAG, FRAME_ACK, FRAME_APPEND, FRAME_COMMIT, FRAME_COPIED, FRAME_COPY, FRAME_FLUSH,
    FRAME_HEADER_BYTES, FRAME_LEARN, FRAME_PING, FRAME_PONG, FRAME_PULL, FRAME_SEAL,
    FRAME_SEALED, FRAME_TAIL, FRAME_VERIFY, FRAME_WANT, GRANT_FLAG, JOIN_FLAG, LAST_FLAG,
    LEARNING_FLAG, OP_JOINED, OP_SEAL, VOLUME_LEARNING, descriptor_t,
)
from repstore._fast.learner cimport is_of_session, learner_begin, learner_copy
from repstore._fast.log cimport log_reserve_control
from repstore._fast.primary cimport changes_rotate, primary_stop
from repstore._fast.segments cimport space_left
from repstore._fast.state cimport (
    BARRIER_APPLIED, BARRIER_DONE, BARRIER_IDLE, BARRIER_JOIN, BARRIER_LOGGED, BARRIER_SEAL, BARRIER_WANTED,
    MISSING_COPIES, PENDING_RECORDS, ROLE_PRIMARY, ROLE_REPLICA, UNTOLD, due, log_batch_t,
    parked_frame_t,
)
from repstore._fast.stream cimport WANT_AFTER_NS, ask_again, stream_append, stream_reject
from repstore._fast.transfer cimport transfer_record, transfer_tail_end
from repstore._fast.verify cimport verify_frame
from repstore._fast.volume cimport changes_begin, inbox_drop, is_incomplete, volume_commit


cdef enum:
    INBOX_BYTES_MAX = 67108864     # a primary's window of one volume is 16 MiB
    WANT_AGAIN_NS = 1000000000
    UNHEARD_NS = 2000000000        # four heartbeats
    NO_ROOM_NS = 3000000000        # a copy of blocks waits for room that long; then what is committed goes on
    SELF_BIT = 0x80000000


# ------------------------------------------------------------------------ what Python decides

cdef void replica_follow(engine_t* engine, volume_t* volume, uint32_t epoch, uint32_t primary, bint member) noexcept nogil:
    """The config names `primary` for this epoch. A member it serves hears from it at once; who
    is not served, or no member, asks. So does who is sealed at a higher epoch, of a promotion
    that came to nothing: by our refusal the primary learns to take a newer one."""
    cdef bint same = volume.role == ROLE_REPLICA and volume.epoch == epoch and volume.primary_node == primary
    if volume.role == ROLE_PRIMARY or epoch < volume.epoch:
        return
    volume.role = ROLE_REPLICA
    volume.epoch = epoch
    volume.sealed_epoch = max(volume.sealed_epoch, epoch)
    volume.primary_node = primary
    if volume.change_count == 0:
        changes_begin(engine, volume, volume.commit_lsn)
    if not same:
        volume.heard = False
        begin_session(volume)
    if not volume.heard:                       # or sealed since it was: nothing else would ask
        volume.want_ns = engine.now_ns + (WANT_AFTER_NS if member else 0)


cdef void begin_session(volume_t* volume) noexcept nogil:
    """A primary is heard, or heard of, for the first time at its epoch (R5)."""
    volume.pulling = -1
    inbox_drop(volume)                         # what waits there was pulled,
    volume.missing = 0                         # and what a pull lacked comes now, or is asked for
    volume.told_ack_lsn = UNTOLD
    volume.unproved_lsn = volume.last_lsn


cdef void replica_link(engine_t* engine, volume_t* volume, uint32_t node) noexcept nogil:
    """The link to the primary came or went: its session with us is over, ask anew."""
    if volume.role == ROLE_REPLICA and volume.primary_node == node:
        volume.heard = False
        volume.missing = 0
        volume.want_ns = engine.now_ns
        inbox_drop(volume)


cdef void replica_seal(engine_t* engine, volume_t* volume, uint32_t epoch, uint32_t node) noexcept nogil:
    """Refuse lower epochs from now on; the answer goes out when that is durable (R3)."""
    if epoch > volume.sealed_epoch:
        if volume.role == ROLE_PRIMARY:        # deposed: acknowledge nothing more
            event_push(engine, EVENT_STALE, volume.index, node & 15, epoch, 0, 0, 0, 0, NULL)
            primary_stop(engine, volume, EAGAIN)
        volume.sealed_epoch = epoch
        inbox_drop(volume)
        volume.heard = False
        volume.told_ack_lsn = UNTOLD
        volume.want_ns = 0
        volume.barriers[BARRIER_SEAL] = BARRIER_WANTED
    elif volume.barriers[BARRIER_SEAL] == BARRIER_IDLE:
        volume.barriers[BARRIER_SEAL] = BARRIER_WANTED
    volume.sealing_nodes |= SELF_BIT if node == engine.node else <uint32_t>1 << node


cdef void replica_pull(engine_t* engine, volume_t* volume, uint32_t node) noexcept nogil:
    """A candidate fetches the records of a member whose log is longer. Not when somebody leads the epoch
    that it is sealed at: Python did not know (R5)."""
    cdef frame_header_t header
    if volume.epoch >= volume.sealed_epoch:
        return
    volume.pulling = <int32_t>node
    volume.pull_ended = False
    frame_begin(engine, &header, FRAME_PULL, volume.index, volume.sealed_epoch)
    header.lsn = volume.last_lsn
    frame_send_node(engine, node, &header, NULL, 0, NULL, 0, 0)


# ------------------------------------------------------------------------------------ frames

cdef void replica_frame(engine_t* engine, volume_t* volume, uint32_t node, const frame_header_t* header,
                        const uint8_t* meta, const uint8_t* body) noexcept nogil:
    if header.type == FRAME_SEAL:
        replica_seal(engine, volume, header.epoch, node)
    elif header.type == FRAME_SEALED:
        event_push(engine, EVENT_SEALED, volume.index, node, header.epoch, header.lsn, header.commit, header.chain,
                   header.flags & LEARNING_FLAG, NULL)
    elif header.type == FRAME_PULL:
        send_tail(engine, volume, node, header)
    elif header.epoch < volume.sealed_epoch:
        stream_reject(engine, volume, node, 0)
    elif volume.role == ROLE_PRIMARY or header.epoch > volume.sealed_epoch:
        return                                 # of an epoch we have not read about: it comes again
    elif header.type == FRAME_PING:
        grant(engine, volume, node, header)
    else:
        accept(engine, volume, node, header, meta, body)


cdef void accept(engine_t* engine, volume_t* volume, uint32_t node, const frame_header_t* header,
                 const uint8_t* meta, const uint8_t* body) noexcept nogil:
    """Frames of the stream, in order: behind one that waits all others wait (R4)."""
    if header.type == FRAME_TAIL:
        if volume.pulling != <int32_t>node:
            return                             # of a promotion that is over
    else:
        if volume.epoch != header.epoch or volume.primary_node != node:
            begin_session(volume)
        volume.primary_node = node
        volume.role = ROLE_REPLICA
        volume.epoch = header.epoch
        if not volume.missing and header.type != FRAME_LEARN:
            volume.heard = True
            volume.heard_ns = engine.now_ns    # when it comes: one that waits is no news
    if volume.inbox != NULL or not take_frame(engine, volume, header, meta, body):
        park(engine, volume, header, meta, body)


cdef void park(engine_t* engine, volume_t* volume, const frame_header_t* header, const uint8_t* meta,
               const uint8_t* body) noexcept nogil:
    cdef uint32_t count = FRAME_HEADER_BYTES + header.meta_bytes + header.body_bytes
    cdef parked_frame_t* parked
    cdef uint8_t* bytes
    if volume.inbox_bytes + count > INBOX_BYTES_MAX:
        return                                 # the primary broke its window: the gap will be asked for
    parked = <parked_frame_t*>malloc(sizeof(parked_frame_t) + count)
    if parked == NULL:
        return
    bytes = <uint8_t*>(parked + 1)
    parked.next = NULL
    parked.bytes = count
    memcpy(bytes, header, FRAME_HEADER_BYTES)
    memcpy(bytes + FRAME_HEADER_BYTES, meta, header.meta_bytes)
    memcpy(bytes + FRAME_HEADER_BYTES + header.meta_bytes, body, header.body_bytes)
    if volume.inbox == NULL:
        volume.inbox = parked
        volume.inbox_ns = engine.now_ns
    else:
        volume.inbox_tail.next = parked
    volume.inbox_tail = parked
    volume.inbox_bytes += count
    if header.type == FRAME_APPEND or header.type == FRAME_COMMIT:
        volume.inbox_commit = max(volume.inbox_commit, header.commit)


cdef void empty_inbox(engine_t* engine, volume_t* volume) noexcept nogil:
    cdef parked_frame_t* parked
    cdef const frame_header_t* header
    cdef const uint8_t* meta
    while volume.inbox != NULL:
        parked = volume.inbox
        header = <const frame_header_t*>(parked + 1)
        meta = <const uint8_t*>header + FRAME_HEADER_BYTES
        if not take_frame(engine, volume, header, meta, meta + header.meta_bytes):
            if header.type == FRAME_COPY:
                overtake_copy(engine, volume)
            return
        volume.inbox = parked.next
        volume.inbox_ns = engine.now_ns
        volume.inbox_bytes -= parked.bytes
        free(parked)
        engine.more = True
    volume.inbox_tail = NULL
    volume.inbox_commit = 0


cdef void overtake_copy(engine_t* engine, volume_t* volume) noexcept nogil:
    """A copy goes in front of what is committed behind it (R6), which may be what makes room. It waits for so
    long; then it is late, and the session as learner begins anew."""
    if volume.inbox_commit <= volume.commit_lsn or volume.copies_unapplied or volume.learn_unapplied:
        return
    if engine.now_ns >= volume.inbox_ns + NO_ROOM_NS:
        volume.known_commit = max(volume.known_commit, min(volume.inbox_commit, volume.last_lsn))
    due(engine, volume.inbox_ns + NO_ROOM_NS)


cdef bint take_frame(engine_t* engine, volume_t* volume, const frame_header_t* header, const uint8_t* meta,
                     const uint8_t* body) noexcept nogil:
    """Carry out one frame. False: no room now, try the same frame again later."""
    if header.type == FRAME_TAIL:
        if not stream_append(engine, volume, header, meta, body):
            return False
        volume.pull_ended |= header.flags & LAST_FLAG != 0
        return True
    if header.type == FRAME_LEARN:
        return learner_begin(engine, volume, header, meta)
    if header.type == FRAME_APPEND:
        if not stream_append(engine, volume, header, meta, body):
            return False
        if header.flags & DURABLE_FLAG:
            volume.ask_durable_lsn = max(volume.ask_durable_lsn, volume.last_lsn)
    elif header.type == FRAME_VERIFY:
        verify_frame(engine, volume, header, meta)
    elif header.type == FRAME_COPY:
        return learner_copy(engine, volume, header, meta, body)
    elif header.type == FRAME_FLUSH:
        volume.ask_durable_lsn = max(volume.ask_durable_lsn, min(header.lsn, volume.last_lsn))
        volume.told_durable_lsn = UNTOLD            # answer in any case: it may know of no flush of ours
        if (header.flags & JOIN_FLAG != 0 and is_of_session(volume, header)
                and volume.barriers[BARRIER_JOIN] == BARRIER_IDLE):
            volume.barriers[BARRIER_JOIN] = BARRIER_WANTED
            volume.join_lsn = header.lsn       # it may have overtaken what it is about
    volume.known_commit = max(volume.known_commit, header.commit)
    volume.floor_lsn = max(volume.floor_lsn, header.extra)
    return True


cdef void grant(engine_t* engine, volume_t* volume, uint32_t node, const frame_header_t* header) noexcept nogil:
    """Let the primary read alone for a while: we shall not lead before its lease is over. That goes on
    a session; a frame of the stream begins it."""
    cdef frame_header_t answer
    volume.last_grant_ns = engine.now_ns
    if is_of_session(volume, header) and header.commit > volume.copies_taken and volume.inbox == NULL:
        ask_again(engine, volume, MISSING_COPIES)          # the last one was lost
    if header.flags & GRANT_FLAG:
        if volume.heard and (header.extra <= volume.last_lsn or volume.inbox != NULL):
            volume.heard_ns = engine.now_ns
    elif volume.role == ROLE_REPLICA and volume.primary_node == node:
        volume.heard = False                   # it lives, but does not serve us: ask
        volume.want_ns = max(volume.want_ns, <uint64_t>1)
    frame_begin(engine, &answer, FRAME_PONG, volume.index, header.epoch)
    answer.lsn = header.lsn
    answer.commit = volume.commit_lsn
    answer.extra = space_left(&engine.store)
    frame_send_node(engine, node, &answer, NULL, 0, NULL, 0, 0)


# ------------------------------------------------------------------------------- seals, tails

cdef void send_tail(engine_t* engine, volume_t* volume, uint32_t node, const frame_header_t* header) noexcept nogil:
    """A candidate lacks records that we have pending; it promised to refuse lower epochs, as we do."""
    if header.epoch != volume.sealed_epoch or volume.unapplied_records:
        return
    volume.tail_node = <int32_t>node
    volume.tail_next = header.lsn + 1
    go_on_tail(engine, volume)


cdef void go_on_tail(engine_t* engine, volume_t* volume) noexcept nogil:
    cdef int blocks = 1
    while volume.tail_next <= volume.local_lsn and blocks:
        blocks = transfer_record(engine, volume, <uint32_t>volume.tail_node, FRAME_TAIL, volume.tail_next)
        volume.tail_next += <uint64_t>blocks
    if volume.tail_next > volume.local_lsn and transfer_tail_end(engine, volume, <uint32_t>volume.tail_node):
        volume.tail_node = -1


cdef bint log_mark(engine_t* engine, volume_t* volume, int operation, uint32_t epoch) noexcept nogil:
    """A record that says something about this copy alone. Takes no LSN."""
    cdef log_batch_t* batch = log_reserve_control(engine, 1)
    cdef descriptor_t* record
    if batch == NULL:
        return False
    record = batch_add(batch.buffer)
    record.volume = volume.index
    record.epoch = epoch
    record.operation = <uint8_t>operation
    if operation == OP_JOINED:
        record.request = volume.learn_serial
    engine.more = True
    return True


cdef void go_on_barriers(engine_t* engine, volume_t* volume) noexcept nogil:
    """Record logged > written > flushed > answered."""
    cdef int kind
    for kind in range(2):
        if volume.barriers[kind] == BARRIER_WANTED:
            if kind == BARRIER_JOIN and volume.last_lsn < volume.join_lsn:
                continue
            if log_mark(engine, volume, OP_SEAL if kind == BARRIER_SEAL else OP_JOINED, volume.sealed_epoch):
                volume.barriers[kind] = BARRIER_LOGGED
        elif volume.barriers[kind] == BARRIER_APPLIED and not engine.store.log.flush_wanted:
            engine.store.log.flush_wanted = True
            engine.more = True
        elif volume.barriers[kind] == BARRIER_DONE:
            volume.barriers[kind] = BARRIER_IDLE
            if kind == BARRIER_SEAL:
                tell_sealed(engine, volume)
            else:
                acknowledge(engine, volume, JOIN_FLAG)


cdef void tell_sealed(engine_t* engine, volume_t* volume) noexcept nogil:
    """Durably sealed: tell everyone who asked where our log ends."""
    cdef frame_header_t header
    cdef uint32_t node, learning = LEARNING_FLAG if is_incomplete(volume) else 0
    if volume.sealing_nodes & SELF_BIT:
        event_push(engine, EVENT_SEALED, volume.index, engine.node, volume.sealed_epoch, volume.local_lsn,
                   volume.commit_lsn, volume.chain_local, learning, NULL)
    frame_begin(engine, &header, FRAME_SEALED, volume.index, volume.sealed_epoch)
    header.lsn = volume.local_lsn
    header.commit = volume.commit_lsn
    header.chain = volume.chain_local
    header.flags = <uint8_t>learning
    for node in range(16):
        if volume.sealing_nodes >> node & 1:
            frame_send_node(engine, node, &header, NULL, 0, NULL, 0, 0)
    volume.sealing_nodes = 0


# ------------------------------------------------------------------------------------- steps

cdef void acknowledge(engine_t* engine, volume_t* volume, int flags) noexcept nogil:
    cdef frame_header_t header
    cdef uint64_t written = min(volume.local_lsn, volume.last_lsn)      # of the log that is being learned
    volume.told_ack_lsn = written
    volume.told_durable_lsn = volume.durable_lsn
    frame_begin(engine, &header, FRAME_ACK, volume.index, volume.epoch)
    header.lsn = written
    header.commit = min(volume.durable_lsn, written)
    header.chain = volume.learn_serial
    header.extra = volume.chain_local if written == volume.local_lsn else volume.chain_last
    header.flags = <uint8_t>flags
    frame_send_node(engine, volume.primary_node, &header, NULL, 0, NULL, 0, 0)


cdef void replica_step(engine_t* engine, volume_t* volume) noexcept nogil:
    """Once a turn: what waited for room, commits, acknowledgements, and asking to be served."""
    cdef uint64_t commit
    if engine.store.failed:
        return
    empty_inbox(engine, volume)
    go_on_barriers(engine, volume)
    if volume.tail_node >= 0:
        go_on_tail(engine, volume)
    if volume.pulling >= 0 and volume.pull_ended and volume.unapplied_records == 0 and volume.inbox == NULL:
        event_push(engine, EVENT_PULLED, volume.index, <uint32_t>volume.pulling, volume.sealed_epoch, volume.local_lsn, 0, 0, 0, NULL)
        volume.pulling = -1
    if volume.role != ROLE_REPLICA:
        return
    commit = min(volume.known_commit, volume.copies_commit_lsn) if volume.copies_unapplied else volume.known_commit
    if commit > volume.commit_lsn and volume.pending_count:
        volume_commit(engine, volume, commit)
    if volume.heard and engine.now_ns >= volume.heard_ns + UNHEARD_NS:
        volume.heard = False                   # it forgot us, or never learned of us
        volume.want_ns = engine.now_ns
    if volume.heard:
        due(engine, volume.heard_ns + UNHEARD_NS)
        follow_on(engine, volume)
    elif volume.want_ns and engine.nodes[volume.primary_node].link >= 0:
        if engine.now_ns >= volume.want_ns and volume.unapplied_records == 0:
            say_want(engine, volume)
            volume.want_ns = engine.now_ns + WANT_AGAIN_NS
        due(engine, volume.want_ns)


cdef void follow_on(engine_t* engine, volume_t* volume) noexcept nogil:
    cdef frame_header_t header
    if volume.ask_durable_lsn > volume.durable_lsn and volume.local_lsn > volume.durable_lsn:
        engine.store.log.flush_wanted = True
        engine.more |= not engine.store.log.flush_flying
    if volume.local_lsn < volume.unproved_lsn:
        return                                 # the first answer proves all of it (R5)
    if volume.told_ack_lsn != min(volume.local_lsn, volume.last_lsn) or volume.told_durable_lsn != volume.durable_lsn:
        acknowledge(engine, volume, 0)
    if volume.copies_said != volume.copies_taken:
        frame_begin(engine, &header, FRAME_COPIED, volume.index, volume.epoch)
        header.lsn = volume.copies_taken
        header.chain = volume.learn_serial
        volume.copies_said = volume.copies_taken
        frame_send_node(engine, volume.primary_node, &header, NULL, 0, NULL, 0, 0)
    changes_rotate(engine, volume)


cdef void say_want(engine_t* engine, volume_t* volume) noexcept nogil:
    """Where our log ends, and which epoch wrote its last record: the primary finds the last LSN
    that both logs share."""
    cdef frame_header_t header
    cdef uint32_t last_epoch = 0
    inbox_drop(volume)                         # of the session that is over: what we lack comes again
    volume.told_ack_lsn = UNTOLD
    frame_begin(engine, &header, FRAME_WANT, volume.index, volume.epoch)
    if volume.pending_count:
        last_epoch = volume.pending[(volume.pending_head + volume.pending_count - 1) % PENDING_RECORDS].epoch
    elif volume.lineage_count:
        last_epoch = volume.lineage[volume.lineage_count - 1].epoch
    header.session = last_epoch
    header.lsn = volume.local_lsn
    header.chain = volume.chain_local
    header.commit = volume.learn_base
    header.flags = LEARNING_FLAG if volume.flags & VOLUME_LEARNING else 0
    frame_send_node(engine, volume.primary_node, &header, NULL, 0, NULL, 0, 0)
