"""Dispatch between engine and volumes; see primary and replica for what happens then."""
from repstore._fast.layout cimport (
    FRAME_ACK, FRAME_COPIED, FRAME_FETCH, FRAME_FETCHED, FRAME_PONG, FRAME_REJECT, FRAME_WANT,
)
from repstore._fast.primary cimport (
    primary_announce, primary_frame, primary_link_down, primary_step,
)
from repstore._fast.repair cimport repair_answer
from repstore._fast.replica cimport replica_frame, replica_link, replica_step
from repstore._fast.state cimport (
    BATCHES, ROLE_PRIMARY, VOLUME_INDEX_MAX, due, log_batch_t, log_t, volume_t,
)
from repstore._fast.transfer cimport transfer_fetch, transfers_go_on


cdef enum:
    FLUSH_AFTER_NS = 1000000000    # what nobody flushed is flushed by ourselves: it bounds the next resync


cdef void replication_frame(engine_t* engine, uint32_t node, const frame_header_t* header,
                            const uint8_t* meta, const uint8_t* body) noexcept nogil:
    cdef volume_t* volume = engine.by_index[header.volume] if header.volume < VOLUME_INDEX_MAX else NULL
    if volume == NULL or not engine.has_store:
        return
    if (header.type == FRAME_ACK or header.type == FRAME_PONG or header.type == FRAME_COPIED
            or header.type == FRAME_WANT or header.type == FRAME_REJECT):
        if volume.role == ROLE_PRIMARY:
            primary_frame(engine, volume, node, header, meta)
    elif header.type == FRAME_FETCH:
        transfer_fetch(engine, volume, node, header)
    elif header.type == FRAME_FETCHED:
        repair_answer(engine, volume, node, header, body)
    else:
        replica_frame(engine, volume, node, header, meta, body)


cdef void replication_link_up(engine_t* engine, uint32_t node) noexcept nogil:
    cdef uint32_t i
    for i in range(engine.volume_count):
        replica_link(engine, engine.volumes[i], node)


cdef void replication_link_down(engine_t* engine, uint32_t node) noexcept nogil:
    cdef uint32_t i
    for i in range(engine.volume_count):
        replica_link(engine, engine.volumes[i], node)
        if engine.volumes[i].role == ROLE_PRIMARY:
            primary_link_down(engine, engine.volumes[i], node)


cdef void replication_step(engine_t* engine) noexcept nogil:
    """At the end of a turn: closed batches go out, every volume goes on."""
    cdef uint32_t i
    cdef log_t* log = &engine.store.log
    cdef log_batch_t* batch
    if not engine.has_store or engine.store.failed:
        return
    for i in range(log.chain_count):
        batch = log.chain[(log.chain_head + i) % BATCHES]
        if not batch.announced:
            primary_announce(engine, batch)
    transfers_go_on(engine)
    for i in range(engine.volume_count):
        if engine.volumes[i].role == ROLE_PRIMARY:
            primary_step(engine, engine.volumes[i])
        replica_step(engine, engine.volumes[i])
        flush_old(engine, engine.volumes[i])


cdef void flush_old(engine_t* engine, volume_t* volume) noexcept nogil:
    """Written long ago and never flushed: a second later we flush it ourselves."""
    if volume.copies <= 1 and volume.role == ROLE_PRIMARY or volume.local_lsn <= volume.durable_lsn:
        return
    if engine.now_ns >= engine.store.flush_ns + FLUSH_AFTER_NS and not engine.store.log.flush_flying:
        engine.store.log.flush_wanted = True
        engine.more = True
    else:
        due(engine, engine.store.flush_ns + FLUSH_AFTER_NS)
