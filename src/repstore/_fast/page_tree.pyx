"""Sparse shadow-paged arrays; see page_tree.pxd for the idea and the invariants."""
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcpy, memset

from repstore._fast.layout cimport BLOCK_SIZE


cdef extern from "stdlib.h" nogil:
    int posix_memalign(void** out, size_t alignment, size_t size)

cdef extern from * nogil:
    int __builtin_ctzll(unsigned long long value)


cdef void* new_page() noexcept nogil:
    cdef void* page = NULL
    return page if posix_memalign(&page, BLOCK_SIZE, BLOCK_SIZE) == 0 else NULL


cdef int tree_init(page_tree_t* tree, uint64_t page_count) noexcept nogil:
    """An empty tree for `page_count` pages. Returns -1 when memory is short."""
    memset(tree, 0, sizeof(page_tree_t))
    tree.page_count = <uint32_t>page_count
    tree.directory_count = <uint32_t>((page_count + DIRECTORY_ENTRIES - 1) // DIRECTORY_ENTRIES)
    tree.directories = <directory_t**>calloc(tree.directory_count, sizeof(directory_t*))
    return 0 if tree.directories != NULL else -1


cdef void tree_free(page_tree_t* tree) noexcept nogil:
    cdef uint32_t i, j
    if tree.directories != NULL:
        for i in range(tree.directory_count):
            if tree.directories[i] == NULL:
                continue
            for j in range(DIRECTORY_ENTRIES):
                free(tree.directories[i].pages[j].data)
            free(tree.directories[i])
    free(tree.directories)
    free(tree.dirty)
    memset(tree, 0, sizeof(page_tree_t))


cdef page_t* tree_make(page_tree_t* tree, uint32_t number) noexcept nogil:
    """The page's place, with its directory made if it was missing. NULL: memory is short."""
    cdef directory_t** place = &tree.directories[number // DIRECTORY_ENTRIES]
    if place[0] == NULL:
        place[0] = <directory_t*>calloc(1, sizeof(directory_t))
        if place[0] == NULL:
            return NULL
    return &place[0].pages[number % DIRECTORY_ENTRIES]


cdef int note_dirty(page_tree_t* tree, uint32_t number) noexcept nogil:
    cdef uint32_t capacity
    cdef uint32_t* grown
    if tree.dirty_count == tree.dirty_capacity:
        capacity = max(64, tree.dirty_capacity * 2)
        grown = <uint32_t*>realloc(tree.dirty, capacity * sizeof(uint32_t))
        if grown == NULL:
            return -1
        tree.dirty = grown
        tree.dirty_capacity = capacity
    tree.dirty[tree.dirty_count] = number
    tree.dirty_count += 1
    return 0


cdef page_t* tree_touch(page_tree_t* tree, uint32_t number, uint64_t lsn,
                        capture_list_t* captures) noexcept nogil:
    """The page, ready to be changed: in memory, copied for a running checkpoint, marked dirty.

    NULL when it has to be loaded first, is bad, or memory is short.
    """
    cdef page_t* page = tree_make(tree, number)
    cdef directory_t* directory = tree.directories[number // DIRECTORY_ENTRIES]
    if page == NULL:
        return NULL
    if page.data == NULL:
        if page.reference.slot != 0:
            return NULL
        page.data = new_page()
        if page.data == NULL:
            return NULL
        memset(page.data, 0, BLOCK_SIZE)
    if page.flags & PAGE_CAPTURE and capture_page(tree, page, directory, captures) != 0:
        return NULL
    if not page.flags & PAGE_DIRTY:
        if note_dirty(tree, number) != 0:
            return NULL
        page.flags |= PAGE_DIRTY
    directory.flags |= PAGE_DIRTY
    if lsn > page.reference.max_lsn:
        page.reference.max_lsn = lsn
    return page


cdef int capture_page(page_tree_t* tree, page_t* page, directory_t* directory,
                      capture_list_t* captures) noexcept nogil:
    """Copy a page for the running checkpoint, which has it at place `reserved` of its list."""
    cdef void* copy = new_page()
    if copy == NULL:
        return -1
    memcpy(copy, page.data, BLOCK_SIZE)
    captures.items[page.reserved].copy = copy
    page.flags &= ~<uint32_t>PAGE_CAPTURE
    return 0


cdef void tree_begin_capture(page_tree_t* tree, capture_list_t* captures) noexcept nogil:
    """Hand every dirty page to the checkpoint that begins now. `captures` has room (the caller
    counted the dirty pages of all trees); no page is copied yet."""
    cdef uint32_t i, number
    cdef page_t* page
    cdef captured_t* item
    for i in range(tree.dirty_count):
        number = tree.dirty[i]
        page = tree_page(tree, number)
        page.flags = (page.flags & ~<uint32_t>PAGE_DIRTY) | PAGE_CAPTURE
        page.reserved = captures.count
        item = &captures.items[captures.count]
        item.copy = NULL
        item.page = page
        item.directory = tree.directories[number // DIRECTORY_ENTRIES]
        captures.count += 1
    tree.dirty_count = 0
    for i in range(tree.directory_count):
        if tree.directories[i] != NULL and tree.directories[i].flags & PAGE_DIRTY:
            tree.directories[i].flags = PAGE_CAPTURE


cdef void tree_retire(page_tree_t* tree, slots_t* slots) noexcept nogil:
    """Give back every slot of a tree that is about to be freed."""
    cdef uint32_t i, j
    cdef directory_t* directory
    for i in range(tree.directory_count):
        directory = tree.directories[i]
        if directory == NULL:
            continue
        slots_retire(&slots.retired, directory.reference.slot)
        for j in range(DIRECTORY_ENTRIES):
            slots_retire(&slots.retired, directory.pages[j].reference.slot)


# ------------------------------------------------------------------------ metadata slots

cdef int slots_init(slots_t* slots, uint32_t count) noexcept nogil:
    memset(slots, 0, sizeof(slots_t))
    slots.count = count
    slots.words = <uint64_t*>calloc((count + 63) // 64 + 1, 8)
    if slots.words == NULL:
        return -1
    slots.words[0] = 1           # slot 0 means "no page"
    return 0


cdef void slots_free(slots_t* slots) noexcept nogil:
    free(slots.words)
    free(slots.retired.items)
    free(slots.leaving.items)
    memset(slots, 0, sizeof(slots_t))


cdef void slots_take(slots_t* slots, uint32_t slot) noexcept nogil:
    """Mark a slot as used; the next one is looked for behind it."""
    slots.words[slot >> 6] |= <uint64_t>1 << (slot & 63)
    slots.hint = slot + 1


cdef uint32_t slots_next(slots_t* slots) noexcept nogil:
    """The first free slot from the hint on, round the end; not taken yet. 0: none is free."""
    cdef uint32_t slot
    cdef uint32_t left = (slots.count + 63) // 64 + 1      # the first word twice: what lies in front of the hint
    cdef uint32_t first = slots.hint if slots.hint < slots.count else 0
    cdef uint64_t free_bits
    while left:
        left -= 1
        free_bits = ~slots.words[first >> 6] >> (first & 63)
        if free_bits:
            slot = first + <uint32_t>__builtin_ctzll(free_bits)
            if slot < slots.count:
                return slot
        first = (first & ~<uint32_t>63) + 64
        if first >= slots.count:
            first = 0
    return 0


cdef void slots_retire(slot_list_t* list, uint32_t slot) noexcept nogil:
    """Put a slot where it waits for the checkpoint that no longer names it."""
    cdef uint32_t capacity
    cdef uint32_t* grown
    if slot == 0:
        return
    if list.count == list.capacity:
        capacity = max(64, list.capacity * 2)
        grown = <uint32_t*>realloc(list.items, capacity * sizeof(uint32_t))
        if grown == NULL:
            return               # the slot is lost until the store is opened again: harmless
        list.items = grown
        list.capacity = capacity
    list.items[list.count] = slot
    list.count += 1


cdef void slots_begin_leaving(slots_t* slots) noexcept nogil:
    """A checkpoint begins: what was retired until now is not in it."""
    cdef slot_list_t emptied = slots.leaving
    slots.leaving = slots.retired
    slots.retired = emptied


cdef void slots_release_leaving(slots_t* slots) noexcept nogil:
    """The running checkpoint is durable: what it does not name is free."""
    cdef uint32_t i, slot
    for i in range(slots.leaving.count):
        slot = slots.leaving.items[i]
        slots.words[slot >> 6] &= ~(<uint64_t>1 << (slot & 63))
    slots.leaving.count = 0
