"""Beginning, hearing of, and walking through a verification; see verify.pxd."""
from repstore._fast.frames cimport frame_begin, frame_send_node
from repstore._fast.layout cimport FRAME_VERIFY
from repstore._fast.merkle cimport merkle_prepare, merkle_reach, merkle_take
from repstore._fast.state cimport MEMBER_IN_SYNC, VERIFY_PAGES
from repstore._fast.verify_state cimport (
    VERIFY_CAPTURING, VERIFY_DONE, VERIFY_FAILED, VERIFY_WAITING, verify_t,
)
from repstore._fast.volume cimport LOOKUP_OK, page_need


cdef enum:
    PAGES_A_TURN = 256


cdef int verify_begin(engine_t* engine, volume_t* volume, uint64_t serial, const uint32_t* wanted,
                      uint32_t wanted_count) noexcept nogil:
    """At the primary: what is committed now is what is compared. -1: memory is short."""
    cdef frame_header_t header
    cdef uint32_t i
    if merkle_prepare(engine, volume, volume.commit_lsn, serial, wanted, wanted_count) != 0:
        return -1
    frame_begin(engine, &header, FRAME_VERIFY, volume.index, volume.epoch)
    header.commit = volume.commit_lsn
    header.lsn = serial
    for i in range(volume.member_count):
        if volume.members[i].state == MEMBER_IN_SYNC and volume.members[i].streaming:
            frame_send_node(engine, volume.members[i].node, &header, wanted, wanted_count * 4, NULL, 0, 0)
    return 0


cdef void verify_frame(engine_t* engine, volume_t* volume, const frame_header_t* header,
                       const uint8_t* meta) noexcept nogil:
    """At a member. Hostile until checked: pages must be in the volume, each named once is enough."""
    cdef uint32_t count = header.meta_bytes // 4, i
    cdef const uint32_t* wanted = <const uint32_t*>meta
    if header.meta_bytes % 4 or count > VERIFY_PAGES:
        return
    for i in range(count):
        if wanted[i] >= volume.map.page_count:
            return
    merkle_prepare(engine, volume, header.commit, header.lsn, wanted, count)


cdef void verify_step(engine_t* engine) noexcept nogil:
    """Once a turn: take the next pages."""
    cdef verify_t* verify = &engine.verify
    cdef volume_t* volume
    cdef uint32_t _
    if verify.state != VERIFY_WAITING and verify.state != VERIFY_CAPTURING:
        return
    volume = engine.by_index[verify.volume]
    if volume == NULL or engine.store.failed:
        verify.state = VERIFY_FAILED
        return
    if verify.state == VERIFY_WAITING:
        merkle_reach(engine, volume)
        return
    for _ in range(PAGES_A_TURN):
        if verify.cursor == verify.pages:
            verify.state = VERIFY_DONE
            return
        if not verify.taken[verify.cursor]:
            if page_need(engine, volume, &volume.map, verify.cursor) != LOOKUP_OK:
                return                         # being read
            merkle_take(engine, volume, verify.cursor)
        verify.cursor += 1
    engine.more = True
