"""Whether E1 to E9 of `state.pxd` hold; reads everything, changes nothing."""
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, free

from repstore._fast.layout cimport OP_WRITE, pending_t
from repstore._fast.recount cimport count_live
from repstore._fast.segments cimport is_emptied
from repstore._fast.state cimport MEMBER_IN_SYNC, REQUESTS_OWN, REQUESTS_SHARED, ROLE_PRIMARY, store_t, volume_t
from repstore._fast.volume cimport pending_at


cdef const char* first_broken(engine_t* engine) noexcept nogil:
    """The first invariant that does not hold, in words; NULL when all do."""
    cdef uint32_t i
    cdef uint64_t records = 0, blocks = 0
    cdef const char* broken = requests_broken(engine)
    if broken != NULL or not engine.has_store or engine.store.failed:
        return broken
    for i in range(engine.volume_count):
        broken = volume_broken(engine.volumes[i])
        if broken != NULL:
            return broken
        records += <uint64_t>engine.volumes[i].pending_count + engine.volumes[i].unapplied_records
        blocks += <uint64_t>engine.volumes[i].crc_count + engine.volumes[i].unapplied_blocks
    if records != engine.store.coming_records or blocks != engine.store.coming_blocks:
        return b"E7: coming_records and coming_blocks = all that is logged and not committed"
    broken = live_broken(engine)
    return broken if broken != NULL else log_broken(&engine.store)


cdef const char* requests_broken(engine_t* engine) noexcept nogil:
    cdef uint32_t i, used = 0, shared = 0
    for i in range(engine.export_count):
        count_held(engine, engine.exports[i].index, &used, &shared)
    for i in range(engine.volume_count):
        if not is_exported(engine, engine.volumes[i].index):
            count_held(engine, engine.volumes[i].index, &used, &shared)
    if used != engine.requests_used or shared != engine.shared_requests or shared > REQUESTS_SHARED:
        return b"E9: the requests in use are those that the volumes hold"
    return NULL


cdef void count_held(const engine_t* engine, uint32_t index, uint32_t* used, uint32_t* shared) noexcept nogil:
    cdef uint32_t held = engine.requests_held[index]
    used[0] += held
    shared[0] += held - REQUESTS_OWN if held > REQUESTS_OWN else 0


cdef bint is_exported(const engine_t* engine, uint32_t index) noexcept nogil:
    cdef uint32_t i
    for i in range(engine.export_count):
        if engine.exports[i].index == index:
            return True
    return False


cdef const char* volume_broken(volume_t* volume) noexcept nogil:
    cdef uint32_t i
    cdef uint64_t lsn = volume.commit_lsn, payload = 0
    cdef pending_t* entry
    if volume.commit_lsn > volume.local_lsn or (volume.local_lsn > volume.last_lsn and not volume.learn_unapplied):
        return b"E1: commit_lsn <= local_lsn <= last_lsn"
    for i in range(volume.pending_count):
        entry = pending_at(volume, i)
        if entry.lsn != lsn + 1:
            return b"E1: pending records follow commit_lsn without a gap"
        lsn = entry.lsn + entry.blocks - 1
        payload += entry.blocks if entry.operation == OP_WRITE else 0
    if lsn != volume.local_lsn or payload != volume.crc_count:
        return b"E1: pending records end at local_lsn"
    if volume.heard and volume.epoch != volume.sealed_epoch:
        return b"E8: a replica follows no primary of an epoch below its seal"
    if volume.role == ROLE_PRIMARY:
        for i in range(volume.member_count):
            # one that joins counts from now on: what was committed before may still be on its way
            if volume.members[i].state == MEMBER_IN_SYNC and volume.members[i].acked_lsn < volume.commit_lsn \
                    and volume.members[i].streaming:
                return b"E5: commit_lsn is acknowledged by every in-sync member"
    return NULL


cdef const char* live_broken(engine_t* engine) noexcept nogil:
    """E2, when every map page is in memory; pages that are not cannot be counted."""
    cdef store_t* store = &engine.store
    cdef uint32_t* live = <uint32_t*>calloc(store.segment_count, 4)
    cdef uint32_t i
    cdef bint complete = live != NULL and not store.recount
    cdef const char* broken = NULL
    for i in range(engine.volume_count):
        complete = complete and count_live(store, engine.volumes[i], live)
    if complete:
        for i in range(store.segment_count):
            if live[i] != store.segments[i].live:
                broken = b"E2: live of a segment = extents that point into it"
    free(live)
    return broken


cdef const char* log_broken(store_t* store) noexcept nogil:
    cdef uint32_t i, number
    if store.log.completed_sequence >= store.log.next_sequence or store.log.flushed_sequence > store.log.completed_sequence:
        return b"E3: flushed <= completed < next sequence"
    for i in range(store.plan_next, store.plan_count):
        number = store.plan[i]
        if store.segments[number].live or store.segments[number].pending:
            return b"E4: segments ahead in the plan hold nothing"
    number = 0
    for i in range(store.segment_count):
        number += is_emptied(&store.segments[i])
    if number != store.emptied:
        return b"E6: emptied counts the sealed segments in which nothing lives or is pending"
    return NULL
