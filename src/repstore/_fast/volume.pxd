"""One copy of a volume: what was written, what is committed, and how one becomes the other.

    log batch completed > volume_apply > pending (uncommitted overlay) > volume_commit > map

Rules
  V1 the map holds committed blocks only; uncommitted records can be dropped, never undone
  V2 records are applied in chain order and committed in LSN order, by the same code when
     the engine runs and when it recovers
  V3 every committed change is marked in every change bitmap of the volume
"""
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from repstore._fast.layout cimport (
    PAGE_BITS, PAGE_ENTRIES, VOLUME_LEARNING, descriptor_t, extent_t, pending_t,
)
from repstore._fast.page_tree cimport page_t, page_tree_t
from repstore._fast.state cimport PENDING_RECORDS, engine_t, log_batch_t, volume_t


cdef enum lookup_t:
    LOOKUP_OK = 0
    LOOKUP_LOADING = 1        # the map page is being read: try again when it is here
    LOOKUP_BAD = 2            # the map page cannot be read now: the disk is silent (W4)


cdef inline pending_t* pending_at(volume_t* volume, uint32_t i) noexcept nogil:
    return &volume.pending[(volume.pending_head + i) % PENDING_RECORDS]


cdef volume_t* volume_new(engine_t* engine, uint32_t index, const uint8_t* uuid, const char* name,
                          uint64_t size_blocks) noexcept nogil
cdef void volume_free(volume_t* volume) noexcept nogil
cdef inline bint is_incomplete(const volume_t* volume) noexcept nogil:
    """May it neither lead nor count? Its map, or what it would give others of its log, is not all there."""
    return volume.flags & VOLUME_LEARNING != 0 or volume.unreadable_lsn > volume.commit_lsn


cdef void inbox_drop(volume_t* volume) noexcept nogil
cdef int64_t volume_root_bytes(uint64_t size_blocks) noexcept nogil
cdef int volume_attach(engine_t* engine, volume_t* volume) noexcept nogil
cdef void volume_detach(engine_t* engine, volume_t* volume) noexcept nogil

cdef int volume_lookup(volume_t* volume, uint64_t lba, extent_t* out) noexcept nogil
cdef int page_need(engine_t* engine, volume_t* volume, page_tree_t* tree, uint32_t number) noexcept nogil

cdef uint64_t record_chain(uint64_t chain, const descriptor_t* record, const uint32_t* crcs,
                           int crc_step) noexcept nogil
cdef int volume_apply(engine_t* engine, const uint8_t* header_block, uint32_t location) noexcept nogil
cdef int volume_commit(engine_t* engine, volume_t* volume, uint64_t lsn) noexcept nogil
cdef void volume_incomplete(engine_t* engine, volume_t* volume) noexcept nogil
cdef void volume_truncate(engine_t* engine, volume_t* volume, uint64_t lsn) noexcept nogil
cdef int volume_set_range(engine_t* engine, volume_t* volume, uint64_t lba, uint32_t blocks,
                          uint32_t location, const uint32_t* crcs, int crc_step, uint64_t lsn) noexcept nogil
cdef bint bit_get(page_tree_t* tree, uint64_t bit) noexcept nogil
cdef int changes_begin(engine_t* engine, volume_t* volume, uint64_t base_lsn) noexcept nogil
cdef void changes_drop(engine_t* engine, volume_t* volume, uint32_t place) noexcept nogil
cdef bint session_seen(const volume_t* volume, uint32_t session, uint64_t number) noexcept nogil
cdef void session_mark(volume_t* volume, uint32_t session, uint64_t number) noexcept nogil
cdef uint32_t session_words(const volume_t* volume, descriptor_t* out) noexcept nogil
cdef bint pending_overlaps(const volume_t* volume, uint64_t lba, uint64_t blocks) noexcept nogil
