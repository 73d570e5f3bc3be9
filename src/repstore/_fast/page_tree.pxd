"""A sparse array of 4 KiB pages, shadow-paged on disk: the extent map and the change bitmaps.

    tree > directory (256 page references) > page (512 extents, or 32768 bits)

A checkpoint writes every changed page, twice, to a slot that the last durable checkpoint does not
name, one behind the other so that many go out in one write, and the old state stays whole
until the superblocks have moved on. A reference carries the checksum of what it points to.

Invariants (check_invariants):
  T1 a page with slot 0 and no data reads as all zeros
  T2 a dirty page is in memory and stands once in the tree's dirty list
  T3 a page marked CAPTURE is in memory: the running checkpoint still has to copy it,
     and nobody changes it before it has been copied
  T4 a slot is free, or named by the last durable checkpoint or the running one, or retired
"""
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from repstore._fast.layout cimport DIRECTORY_ENTRIES, page_reference_t


cdef enum page_flag_t:
    PAGE_DIRTY = 1        # changed since the last checkpoint began
    PAGE_CAPTURE = 2      # the running checkpoint has not copied it yet
    PAGE_LOADING = 4
    PAGE_AWAY = 8         # so is the disk: nobody who can be told an error waits for the page (W4)


cdef struct page_t:
    void* data            # NULL: on disk only, or all zeros
    page_reference_t reference
    uint32_t flags
    uint32_t reserved


cdef struct directory_t:
    page_t pages[256]
    page_reference_t reference
    uint32_t flags        # PAGE_DIRTY: some reference below changed


# A page as it was when the checkpoint began.
cdef struct captured_t:
    void* copy
    page_t* page
    directory_t* directory


cdef struct capture_list_t:
    captured_t* items
    uint32_t count
    uint32_t capacity
    uint32_t taken        # already handed to the checkpoint's writer


cdef struct page_tree_t:
    directory_t** directories
    uint32_t directory_count
    uint32_t page_count
    uint64_t base_lsn
    uint32_t* dirty       # page numbers
    uint32_t dirty_count
    uint32_t dirty_capacity


cdef struct slot_list_t:
    uint32_t* items
    uint32_t count
    uint32_t capacity


# Which blocks of the page area are taken; slot 0 is never used.
cdef struct slots_t:
    uint64_t* words
    uint32_t count
    uint32_t hint         # where to look for a free one
    slot_list_t retired   # free once the next checkpoint to begin is durable
    slot_list_t leaving   # free once the running one is


cdef inline page_t* tree_page(page_tree_t* tree, uint32_t number) noexcept nogil:
    cdef directory_t* directory = tree.directories[number // DIRECTORY_ENTRIES]
    if directory == NULL:
        return NULL
    return &directory.pages[number % DIRECTORY_ENTRIES]


cdef int tree_init(page_tree_t* tree, uint64_t page_count) noexcept nogil
cdef void tree_free(page_tree_t* tree) noexcept nogil
cdef page_t* tree_make(page_tree_t* tree, uint32_t number) noexcept nogil
cdef page_t* tree_touch(page_tree_t* tree, uint32_t number, uint64_t lsn,
                        capture_list_t* captures) noexcept nogil
cdef void tree_begin_capture(page_tree_t* tree, capture_list_t* captures) noexcept nogil
cdef int capture_page(page_tree_t* tree, page_t* page, directory_t* directory,
                      capture_list_t* captures) noexcept nogil
cdef void tree_retire(page_tree_t* tree, slots_t* slots) noexcept nogil

cdef int slots_init(slots_t* slots, uint32_t count) noexcept nogil
cdef void slots_free(slots_t* slots) noexcept nogil
cdef void slots_take(slots_t* slots, uint32_t slot) noexcept nogil
cdef uint32_t slots_next(slots_t* slots) noexcept nogil
cdef void slots_retire(slot_list_t* list, uint32_t slot) noexcept nogil
cdef void slots_begin_leaving(slots_t* slots) noexcept nogil
cdef void slots_release_leaving(slots_t* slots) noexcept nogil
