"""Dispatch of inputs to the rooms, and the turn; see engine.pxd."""
from libc.errno cimport EIO
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from repstore._fast.backend cimport DISK_FLUSH
from repstore._fast.calls cimport calls_pump
from repstore._fast.checkpoint cimport checkpoint_done, checkpoint_free, checkpoint_step
from repstore._fast.cleaner cimport cleaner_due, cleaner_free, cleaner_read_done, cleaner_step
from repstore._fast.events cimport EVENT_LINK_DOWN, EVENT_LINK_UP, event_push
from repstore._fast.exports cimport (
    engine_api, exports_deadline, exports_feed, exports_link_down, exports_reply, exports_retry, foreign_request,
)
from repstore._fast.frames cimport frame_begin, frame_send
from repstore._fast.frontend cimport rs_engine
from repstore._fast.layout cimport (
    CLASS_CLEANER, CLASS_USER, FRAME_HELLO, FRAME_REPLY, FRAME_REQUEST, hello_meta_t,
)
from repstore._fast.log cimport (
    batch_location, log_applied, log_close, log_free, log_next_completed, log_tell_flushed, log_unlend,
    log_written, store_fail,
)
from repstore._fast.merkle cimport merkle_free
from repstore._fast.page_tree cimport slots_free
from repstore._fast.pages cimport loads_free, page_loaded, pages_step
from repstore._fast.recount cimport recount_step
from repstore._fast.repair cimport repair_step, repairs_free
from repstore._fast.replication cimport (
    replication_frame, replication_link_down, replication_link_up, replication_step,
)
from repstore._fast.requests cimport request_release, requests_free, requests_init
from repstore._fast.scrub cimport scrub_free, scrub_page_read, scrub_step
from repstore._fast.service cimport service_drop, service_progress, service_read_done
from repstore._fast.state cimport (
    BARRIERS, BARRIER_APPLIED, BARRIER_DONE, BARRIER_FLUSHING, CLIENT_NODE, EVENTS_MAX, LINKS_MAX,
    LINK_STREAM, NODES_MAX, ROLE_PRIMARY, SENT_BATCH, SENT_REPLY, SENT_TRANSFER, TOKEN_BATCH,
    TOKEN_CHECKPOINT, TOKEN_CLEANER, TOKEN_FLUSH, TOKEN_PAGE, TOKEN_READ, TOKEN_SCRUB, TOKEN_TRANSFER,
    VOLUME_INDEX_MAX, due, event_t, link_t, log_batch_t, log_t, store_t, token, volume_t,
)
from repstore._fast.transfer cimport transfer_read_done, transfer_sent, transfers_free
from repstore._fast.verify cimport verify_step
from repstore._fast.volume cimport volume_apply, volume_free


cdef enum:
    BATCHES_FLYING_LOW = 2         # below this an open batch is written at the end of the turn
    ROUNDS_MAX = 64                # of one turn, then the loop looks at its other inputs
    LENT_NS = 5000000000           # a peer that takes nothing of what it was lent for so long is hung up on


cdef engine_t* engine_new(uint32_t node) noexcept nogil:
    """An engine without a store and without links. NULL: memory is short."""
    cdef engine_t* engine = <engine_t*>calloc(1, sizeof(engine_t))
    cdef uint32_t i
    if engine == NULL:
        return NULL
    engine.node = node
    engine.by_index = <volume_t**>calloc(VOLUME_INDEX_MAX, sizeof(volume_t*))
    engine.events.items = <event_t*>calloc(EVENTS_MAX, sizeof(event_t))
    engine.events.descriptor = -1
    engine.store.cleaner.victim = -1
    for i in range(LINKS_MAX):
        engine.links[i].node = -1
    for i in range(NODES_MAX):
        engine.nodes[i].link = -1
    if engine.by_index == NULL or engine.events.items == NULL or requests_init(engine) != 0:
        engine_free(engine)
        return NULL
    return engine


cdef void engine_free(engine_t* engine) noexcept nogil:
    """No disk, socket or frontend may touch its memory any more; what waited for them goes with it."""
    transfers_free(engine)
    repairs_free(engine)
    scrub_free(engine)
    while engine.volume_count:
        engine.volume_count -= 1
        volume_free(engine.volumes[engine.volume_count])
    if engine.has_store:
        loads_free(engine)
        log_free(engine)
        checkpoint_free(engine)
        cleaner_free(engine)
        slots_free(&engine.store.slots)
        free(engine.store.segments)
        free(engine.store.plan)
    merkle_free(engine)
    requests_free(engine)
    free(engine.by_index)
    free(engine.events.items)
    free(engine)


# -------------------------------------------------------------------------- what is told

cdef void engine_begin(void* handle, uint64_t now_ns) noexcept nogil:
    """A round begins: what is handed in until its turn has happened by this time. Before it, for a
    read that was asked while the process stood still would be judged by the lease of before."""
    (<engine_t*>handle).now_ns = now_ns


cdef void engine_disk_done(void* handle, uint64_t answered, int32_t result) noexcept nogil:
    cdef engine_t* engine = <engine_t*>handle
    cdef int kind = <int>(answered >> 56)
    cdef uint64_t value = answered & 0xFFFFFFFFFFFFFFULL
    if kind == TOKEN_READ:
        service_read_done(engine, value, result)
    elif kind == TOKEN_BATCH:
        log_written(engine, <uint32_t>value, result)
    elif kind == TOKEN_FLUSH:
        flush_done(engine, result)
    elif kind == TOKEN_PAGE:
        page_loaded(engine, <uint32_t>value, result)
    elif kind == TOKEN_CLEANER:
        cleaner_read_done(engine, result)
    elif kind == TOKEN_CHECKPOINT:
        checkpoint_done(engine, value, result)
    elif kind == TOKEN_TRANSFER:
        transfer_read_done(engine, value, result)
    elif kind == TOKEN_SCRUB:
        scrub_page_read(engine, value, result)


cdef void engine_sent(void* handle, uint32_t link, uint64_t answered) noexcept nogil:
    """A lent body is through (or its link is gone): it is ours again."""
    cdef engine_t* engine = <engine_t*>handle
    cdef int kind = <int>(answered >> 56)
    cdef uint32_t value = <uint32_t>answered
    if engine.links[link].kind == LINK_STREAM:
        if engine.links[link].connection != NULL:
            engine.frontend.sent(engine.links[link].connection, answered)
        return
    if engine.links[link].lent:                # else of the link that had this number before
        engine.links[link].lent -= 1
        engine.lent -= 1
    engine.links[link].lent_ns = engine.now_ns
    if kind == SENT_REPLY:
        request_release(engine, &engine.requests[value])
    elif kind == SENT_BATCH:
        log_unlend(engine, value)
    elif kind == SENT_TRANSFER:
        transfer_sent(engine, value)


cdef void engine_link_up(void* handle, uint32_t link, int kind) noexcept nogil:
    """A new connection. Peers say who they are; a frontend's codec takes over its stream."""
    cdef engine_t* engine = <engine_t*>handle
    cdef link_t* here = &engine.links[link]
    here.kind = <uint8_t>kind
    here.up = True
    here.opening = False
    here.describing = False
    here.volume_index = -1
    engine.lent -= here.lent
    here.lent = 0
    here.node = -1
    here.generation += 1
    here.connection = NULL
    if kind != LINK_STREAM:
        say_hello(engine, link)
    elif engine.frontend != NULL:
        here.connection = engine.frontend.connected(engine_api(), <rs_engine*>engine, link)
    if kind == LINK_STREAM and here.connection == NULL:
        engine.backend.close(engine.backend.context, link)


cdef void say_hello(engine_t* engine, uint32_t link) noexcept nogil:
    cdef frame_header_t header
    cdef hello_meta_t meta
    memset(&meta, 0, sizeof(meta))
    memcpy(meta.boot_id, engine.boot_id, 16)
    memcpy(meta.store_uuid, engine.store.superblock.store_uuid, 16)
    meta.life_id = engine.store.life_id
    meta.node = engine.node
    frame_begin(engine, &header, FRAME_HELLO, 0, 0)
    frame_send(engine, link, &header, &meta, sizeof(meta), NULL, 0, 0)


cdef void engine_link_down(void* handle, uint32_t link) noexcept nogil:
    cdef engine_t* engine = <engine_t*>handle
    cdef link_t* here = &engine.links[link]
    cdef int node = here.node
    here.up = False
    here.opening = False
    here.describing = False
    if here.connection != NULL:
        engine.frontend.disconnected(here.connection)
        here.connection = NULL
    here.node = -1
    if 0 <= node < NODES_MAX and engine.nodes[node].link == <int32_t>link:
        engine.nodes[node].link = -1
        event_push(engine, EVENT_LINK_DOWN, 0, <uint32_t>node, 0, 0, 0, 0, 0, NULL)
        exports_link_down(engine, <uint32_t>node)
        replication_link_down(engine, <uint32_t>node)


cdef uint32_t engine_stream(void* handle, uint32_t link, const uint8_t* bytes, uint32_t count) noexcept nogil:
    cdef engine_t* engine = <engine_t*>handle
    if engine.links[link].connection == NULL:
        return count
    return engine.frontend.received(engine.links[link].connection, bytes, count)


cdef void engine_frame(void* handle, uint32_t link, const frame_header_t* header, const uint8_t* meta,
                       const uint8_t* body) noexcept nogil:
    """One whole frame of a peer, header and meta verified. The first one must say who it is."""
    cdef engine_t* engine = <engine_t*>handle
    if header.type == FRAME_HELLO:
        hello(engine, link, header, meta)
    elif engine.links[link].node < 0:
        engine.backend.close(engine.backend.context, link)
    elif header.type == FRAME_REQUEST:
        foreign_request(engine, link, header, meta, body)
    elif header.type == FRAME_REPLY:
        exports_reply(engine, header, meta, body)
    elif engine.links[link].node < NODES_MAX:
        replication_frame(engine, <uint32_t>engine.links[link].node, header, meta, body)


cdef void hello(engine_t* engine, uint32_t link, const frame_header_t* header, const uint8_t* meta) noexcept nogil:
    cdef const hello_meta_t* said = <const hello_meta_t*>meta
    cdef char[64] text
    cdef int32_t old
    if header.meta_bytes == sizeof(hello_meta_t) and said.node == CLIENT_NODE:
        engine.links[link].node = CLIENT_NODE  # sends requests, takes no part
        return
    if header.meta_bytes != sizeof(hello_meta_t) or said.node >= NODES_MAX or said.node == engine.node:
        engine.backend.close(engine.backend.context, link)
        return
    old = engine.nodes[said.node].link
    if old >= 0 and old != <int32_t>link:      # it came back before we saw it go
        engine_link_down(engine, <uint32_t>old)
        engine.backend.close(engine.backend.context, <uint32_t>old)
    engine.links[link].node = <int32_t>said.node
    engine.nodes[said.node].link = <int32_t>link
    memcpy(engine.nodes[said.node].boot_id, said.boot_id, 16)
    memcpy(engine.nodes[said.node].store_uuid, said.store_uuid, 16)
    engine.nodes[said.node].life_id = said.life_id
    memset(text, 0, 64)
    memcpy(text, said.boot_id, 16)
    memcpy(text + 16, said.store_uuid, 16)
    event_push_bytes(engine, said.node, said.life_id, text)
    replication_link_up(engine, said.node)


cdef void event_push_bytes(engine_t* engine, uint32_t node, uint64_t life_id, const char* text) noexcept nogil:
    """Ids are bytes, not text: put them in whole."""
    if not event_push(engine, EVENT_LINK_UP, 0, node, 0, life_id, 0, 0, 0, NULL):
        return
    memcpy(engine.events.items[(engine.events.head + engine.events.count - 1) % EVENTS_MAX].text, text, 32)


# -------------------------------------------------------------------------------- the turn

cdef uint64_t engine_turn(void* handle, int* busy) noexcept nogil:
    """Everything that can go on now goes on. Returns when to call again at the latest."""
    cdef engine_t* engine = <engine_t*>handle
    cdef uint32_t rounds = 0
    cdef bint moved = True
    engine.more = False
    while moved and rounds < ROUNDS_MAX:
        rounds += 1
        moved = calls_pump(engine)
        if engine.has_store:
            moved |= store_round(engine)
        moved |= exports_retry(engine)
        moved |= exports_feed(engine)
    engine.deadline_ns = 0
    scrub_step(engine)
    verify_step(engine)
    repair_step(engine)
    pages_step(engine)
    close_batches(engine)
    if engine.has_store:
        log_tell_flushed(engine)
    replication_step(engine)
    hang_up_on_the_still(engine)
    exports_deadline(engine)
    if engine.has_store and not engine.store.failed:
        cleaner_due(engine)
    busy[0] = moved or engine.more
    return engine.deadline_ns


cdef void hang_up_on_the_still(engine_t* engine) noexcept nogil:
    """Log buffers, transfers and replies that a stopped peer's full socket holds, a client's too, are wanted by
    others: they come back with the end of its link."""
    cdef uint32_t i
    cdef link_t* here
    if engine.lent == 0:
        return
    if engine.now_ns >= engine.still_ns:
        engine.still_ns = engine.now_ns + LENT_NS
        for i in range(LINKS_MAX):
            here = &engine.links[i]
            if not here.up or here.lent == 0:
                continue
            if engine.now_ns >= here.lent_ns + LENT_NS:
                here.lent_ns = engine.now_ns
                engine.backend.close(engine.backend.context, i)
            engine.still_ns = min(engine.still_ns, here.lent_ns + LENT_NS)
    due(engine, engine.still_ns)


cdef bint store_round(engine_t* engine) noexcept nogil:
    cdef bint moved = apply_completed(engine)
    cdef uint32_t i
    for i in range(engine.volume_count):
        if engine.volumes[i].role == ROLE_PRIMARY:
            moved |= service_progress(engine, engine.volumes[i])
    if engine.store.failed:
        drop_single_copies(engine)
        return False
    if engine.store.recount:
        recount_step(engine)
    moved |= checkpoint_step(engine)
    moved |= cleaner_step(engine)
    issue_flush(engine)
    return moved


cdef bint apply_completed(engine_t* engine) noexcept nogil:
    cdef log_batch_t* batch = log_next_completed(engine)
    cdef bint moved = batch != NULL
    while batch != NULL:
        if volume_apply(engine, batch.buffer, batch_location(engine, batch)) < 0:
            store_fail(engine, EIO)
        log_applied(engine, batch)
        batch = log_next_completed(engine)
    return moved


cdef void drop_single_copies(engine_t* engine) noexcept nogil:
    """The store failed. A volume with other copies waits for another primary; without, its
    clients are told."""
    cdef uint32_t i
    for i in range(engine.volume_count):
        if engine.volumes[i].role == ROLE_PRIMARY and engine.volumes[i].member_count == 0:
            service_drop(engine, engine.volumes[i], EIO)


cdef void close_batches(engine_t* engine) noexcept nogil:
    """At the end of a turn: few fat batches beat many thin ones, so wait while two are flying."""
    cdef log_t* log = &engine.store.log
    if not engine.has_store or engine.store.failed:
        return
    if log.chain_count < BATCHES_FLYING_LOW:
        log_close(engine, CLASS_USER)
    if log.chain_count < BATCHES_FLYING_LOW and not engine.store.cleaner.reading:
        log_close(engine, CLASS_CLEANER)


cdef void issue_flush(engine_t* engine) noexcept nogil:
    """One flush covers every batch completed by now, for everyone who waits (L3)."""
    cdef store_t* store = &engine.store
    cdef uint32_t i
    if not store.log.flush_wanted or store.log.flush_flying:
        return
    store.log.flush_wanted = False
    store.log.flush_flying = True
    store.log.flushing_sequence = store.log.completed_sequence
    for i in range(engine.volume_count):
        engine.volumes[i].flushing_lsn = engine.volumes[i].local_lsn
        barriers_move(engine.volumes[i], BARRIER_APPLIED, BARRIER_FLUSHING)
    store.flush_ns = engine.now_ns
    store.counters.flushes += 1
    engine.backend.disk(engine.backend.context, DISK_FLUSH, 0, NULL, 0, token(TOKEN_FLUSH, 0))


cdef void flush_done(engine_t* engine, int32_t result) noexcept nogil:
    cdef uint32_t i
    engine.store.log.flush_flying = False
    if result < 0:
        store_fail(engine, -result)
        return
    engine.store.log.flushed_sequence = engine.store.log.flushing_sequence
    engine.store.log.flushed_ns = engine.now_ns
    for i in range(engine.volume_count):
        engine.volumes[i].durable_lsn = min(engine.volumes[i].flushing_lsn, engine.volumes[i].local_lsn)
        barriers_move(engine.volumes[i], BARRIER_FLUSHING, BARRIER_DONE)


cdef void barriers_move(volume_t* volume, int before, int after) noexcept nogil:
    cdef int kind
    for kind in range(BARRIERS):
        if volume.barriers[kind] == before:
            volume.barriers[kind] = <uint8_t>after
