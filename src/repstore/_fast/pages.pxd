"""Reading metadata pages (map leaves, bitmap pages) from their slots, verified.

Rules
  G1 a page counts only if it has the checksum that its reference names
  G2 it has two blocks, one in each half of the page area. Where the first is bad the second is
     read, and the page written anew with the next checkpoint
  G3 of which a block could not be read, and none is right, it is tried again while patience lasts
     (patience.pxd); it is loading meanwhile, and holds up nobody but those who need it. Recovery, which
     nobody is served before, waits on the spot: behind a page that was given up no longer than it takes
     to try TRIES_LEAST times, until one that could not be read comes after all. A disk that is silent
     (W4) is waited for anew each time, and no store is opened that is not read to the end
  G4 one that is bad in both becomes a page that says so: each entry of a map page is lost, an error
     of that block alone that another copy can mend; every bit of a bitmap page is set
"""
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t

from repstore._fast.layout cimport page_reference_t
from repstore._fast.page_tree cimport page_tree_t
from repstore._fast.state cimport engine_t, store_t, volume_t


cdef enum page_read_t:
    PAGE_LOST = 0
    PAGE_READ = 1
    PAGE_SECOND = 2           # from its second block: to be written anew
    PAGE_UNREAD = 3           # while recovering: the disk is silent (W4)


cdef inline uint64_t slot_block(const store_t* store, uint32_t slot, bint second) noexcept nogil:
    """One of the two blocks that a page reference names."""
    return store.page_base + slot + (store.superblock.page_slots if second else 0)


cdef inline uint64_t superblock_block(const store_t* store, uint32_t copy) noexcept nogil:
    """Where the copies lie: both ends, before the segments, between their halves."""
    if copy == 0:
        return 0
    if copy == 1:
        return store.segment_base - 1
    if copy == 2:
        return store.segment_base + (<uint64_t>store.half << store.segment_shift)
    return store.total_blocks - 1


cdef void page_load(engine_t* engine, volume_t* volume, page_tree_t* tree, uint32_t number) noexcept nogil
cdef void pages_step(engine_t* engine) noexcept nogil
cdef void retries_forget(engine_t* engine, const volume_t* volume) noexcept nogil
cdef void loads_free(engine_t* engine) noexcept nogil
cdef void page_loaded(engine_t* engine, uint32_t load_index, int32_t result) noexcept nogil
cdef void page_lost(engine_t* engine, volume_t* volume, page_tree_t* tree, uint32_t number) noexcept nogil
cdef int read_now(engine_t* engine, uint64_t block, void* buffer, uint32_t blocks) noexcept nogil
cdef int read_patiently(engine_t* engine, uint64_t block, void* buffer) noexcept nogil
cdef int page_read_now(engine_t* engine, const page_reference_t* reference, void* buffer) noexcept nogil
