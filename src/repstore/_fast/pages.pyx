"""Page loads: asynchronous while the engine runs, at once while it recovers; see pages.pxd."""
from libc.errno cimport EIO
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy, memset
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, nanosleep, timespec

from repstore._fast.backend cimport DISK_READ
from repstore._fast.checksum cimport crc32c
from repstore._fast.events cimport EVENT_BAD_BLOCK, event_push
from repstore._fast.layout cimport (
    BLOCK_SHIFT, BLOCK_SIZE, LOCATION_LOST, PAGE_BITS, PAGE_ENTRIES, SUPERBLOCK_COPIES, extent_t,
)
from repstore._fast.log cimport store_fail
from repstore._fast.page_tree cimport PAGE_AWAY, PAGE_LOADING, page_t, tree_make, tree_page, tree_touch
from repstore._fast.patience cimport FAULT_DISK, FAULT_MEDIUM, FAULT_PASSES, page_fault, page_patience_t
from repstore._fast.segments cimport is_data, location_valid
from repstore._fast.state cimport (
    LOAD_FIRST, LOAD_OTHER, LOAD_SECOND, MEMBER_IN_SYNC, PAGE_LOADS, ROLE_LEARNER, ROLE_PRIMARY, ROLE_REPLICA, TOKEN_PAGE,
    due, page_load_t, page_retries_t, token,
)


cdef extern from "stdlib.h" nogil:
    int posix_memalign(void** out, size_t alignment, size_t size)

cdef extern from "unistd.h" nogil:
    ssize_t pread(int descriptor, void* buffer, size_t count, long offset)

cdef extern from "<stdint.h>":
    const uint64_t NEVER "UINT64_MAX"


cdef enum:
    SECOND_NS = 1000000000


cdef int read_now(engine_t* engine, uint64_t block, void* buffer, uint32_t blocks) noexcept nogil:
    """Recovery's read: blocks the caller. -1: the device did not give all of it."""
    cdef size_t wanted = <size_t>blocks << BLOCK_SHIFT
    if engine.store.memory != NULL:
        if block + blocks > engine.store.total_blocks:
            return -1
        memcpy(buffer, engine.store.memory + (block << BLOCK_SHIFT), wanted)
        return 0
    return 0 if pread(engine.store.descriptor, buffer, wanted, <long>(block << BLOCK_SHIFT)) == <ssize_t>wanted else -1


cdef inline bint is_answer(engine_t* engine, uint32_t tries, void* buffer) noexcept nogil:
    """Does the device give another block (W4)? The superblocks in turn, for one of them may be bad, too."""
    return read_now(engine, superblock_block(&engine.store, tries % SUPERBLOCK_COPIES), buffer, 1) == 0


cdef uint64_t monotonic_ns() noexcept nogil:
    cdef timespec time
    clock_gettime(CLOCK_MONOTONIC, &time)
    return <uint64_t>time.tv_sec * SECOND_NS + <uint64_t>time.tv_nsec


cdef int recovery_fault(engine_t* engine, page_patience_t* patience, uint64_t block, void* buffer) noexcept nogil:
    """A block could not be read, once more: a `page_fault_t`. FAULT_PASSES: after a pause. Memory gives the
    same for ever."""
    cdef store_t* store = &engine.store
    cdef timespec pause
    cdef uint64_t now_ns, pause_ns
    cdef bint answers
    cdef int fault
    if store.memory != NULL:
        return FAULT_MEDIUM
    answers = is_answer(engine, patience.tries, buffer)
    now_ns = monotonic_ns()
    fault = page_fault(patience, answers, now_ns, 0 if store.impatient else store.patience_ns, store.patience_ns)
    if fault == FAULT_MEDIUM:
        store.impatient = True
    elif fault == FAULT_DISK:
        store.unread_block = block
    else:
        pause_ns = patience.again_ns - now_ns
        pause.tv_sec = pause_ns // SECOND_NS
        pause.tv_nsec = pause_ns % SECOND_NS
        nanosleep(&pause, NULL)
    return fault


cdef void recovery_read(store_t* store, const page_patience_t* patience) noexcept nogil:
    """What could not be read at first came: to wait is worth while (G3)."""
    if patience.tries:
        store.impatient = False


cdef int read_patiently(engine_t* engine, uint64_t block, void* buffer) noexcept nogil:
    """Recovery's read of one block. -1: the device does not give it, however often it is asked."""
    cdef page_patience_t patience
    memset(&patience, 0, sizeof(page_patience_t))
    while read_now(engine, block, buffer, 1) != 0:
        if recovery_fault(engine, &patience, block, buffer) != FAULT_PASSES:
            return -1
    recovery_read(&engine.store, &patience)
    return 0


cdef int page_read_now(engine_t* engine, const page_reference_t* reference, void* buffer) noexcept nogil:
    """Recovery's read of what a reference names (G1 to G3): a `page_read_t`."""
    cdef page_patience_t patience
    cdef int second, fault = FAULT_PASSES
    cdef bint unread
    memset(&patience, 0, sizeof(page_patience_t))
    while fault == FAULT_PASSES:
        unread = False
        for second in range(2):
            if read_now(engine, slot_block(&engine.store, reference.slot, second), buffer, 1) != 0:
                unread = True
            elif crc32c(0, buffer, BLOCK_SIZE) == reference.crc:
                recovery_read(&engine.store, &patience)
                return PAGE_SECOND if second else PAGE_READ
        if not unread:
            return PAGE_LOST
        fault = recovery_fault(engine, &patience, slot_block(&engine.store, reference.slot, False), buffer)
    return PAGE_UNREAD if fault == FAULT_DISK else PAGE_LOST


cdef bint extents_valid(engine_t* engine, const extent_t* extents) noexcept nogil:
    """Does every extent of a map page lie in a segment? A checksum says who wrote a page last, not
    that it makes sense, and locations index the segment table without another look."""
    cdef uint32_t i
    for i in range(<uint32_t>PAGE_ENTRIES):
        if is_data(extents[i].location) and not location_valid(&engine.store, extents[i].location, 1):
            return False
    return True


# -------------------------------------------------------------------------------- lost pages

cdef void page_lost(engine_t* engine, volume_t* volume, page_tree_t* tree, uint32_t number) noexcept nogil:
    """A page is not what its reference names (G4). When memory is short it is read again."""
    cdef page_t* page = tree_make(tree, number)
    cdef void* data = NULL
    if page == NULL or posix_memalign(&data, BLOCK_SIZE, BLOCK_SIZE) != 0:
        return
    page.data = data
    if tree == &volume.map:
        lose_entries(volume, <extent_t*>data, <uint64_t>number * PAGE_ENTRIES)
        engine.store.recount = True
    else:
        mark_all(<uint8_t*>data, volume.size_blocks - <uint64_t>number * PAGE_BITS)
    tree_touch(tree, number, 0, &engine.store.checkpoint.captures)


cdef void lose_entries(volume_t* volume, extent_t* entries, uint64_t first) noexcept nogil:
    """What stood at these blocks is not known: an error each, until another copy tells."""
    cdef uint32_t i
    memset(entries, 0, BLOCK_SIZE)
    for i in range(<uint32_t>min(<uint64_t>PAGE_ENTRIES, volume.size_blocks - first)):
        entries[i].location = LOCATION_LOST
    volume.sweep_next = min(volume.sweep_next, first) if volume.sweeping else first
    volume.sweeping = True


cdef void mark_all(uint8_t* bits, uint64_t blocks) noexcept nogil:
    """What changed is not known: everything may have."""
    cdef uint32_t i
    memset(bits, 0, BLOCK_SIZE)
    for i in range(<uint32_t>min(<uint64_t>PAGE_BITS, blocks)):
        bits[i >> 3] |= <uint8_t>(1 << (i & 7))


# ------------------------------------------------------------------------------------- loads

cdef void page_load(engine_t* engine, volume_t* volume, page_tree_t* tree, uint32_t number) noexcept nogil:
    """Start reading a page; nothing happens when it is on its way or too many are (ask again)."""
    cdef page_t* page = tree_page(tree, number)
    cdef page_load_t wanted
    if page.flags & PAGE_LOADING or engine.store.loads_flying == PAGE_LOADS:
        return
    if engine.store.recovering:
        load_now(engine, volume, tree, number)
        return
    memset(&wanted, 0, sizeof(page_load_t))
    wanted.volume = volume
    wanted.is_map = tree == &volume.map
    wanted.base_lsn = tree.base_lsn
    wanted.number = number
    load_begin(engine, &wanted, page)


cdef void load_now(engine_t* engine, volume_t* volume, page_tree_t* tree, uint32_t number) noexcept nogil:
    """While recovering; a page that is not here afterwards is one that the store cannot be opened without."""
    cdef page_t* page = tree_page(tree, number)
    cdef void* buffer = NULL
    cdef int found
    if posix_memalign(&buffer, BLOCK_SIZE, BLOCK_SIZE) != 0:
        return
    found = page_read_now(engine, &page.reference, buffer)
    if found == PAGE_UNREAD:
        page.flags |= PAGE_AWAY
        free(buffer)
    else:
        page_here(engine, volume, tree, number, buffer, found)


cdef void load_begin(engine_t* engine, const page_load_t* wanted, page_t* page) noexcept nogil:
    """Read a page from its first block on: there is a load for it. When memory is short it is as if nobody
    had asked."""
    cdef page_load_t* load = NULL
    cdef void* buffer = NULL
    cdef uint32_t i
    page.flags &= ~<uint32_t>PAGE_LOADING
    if posix_memalign(&buffer, BLOCK_SIZE, BLOCK_SIZE) != 0:
        return
    for i in range(PAGE_LOADS):
        load = &engine.store.loads[i]
        if not load.busy:
            break
    load[0] = wanted[0]
    load.busy = True
    load.buffer = <unsigned char*>buffer
    load.step = LOAD_FIRST
    load.unread = False
    page.flags |= PAGE_LOADING
    engine.store.loads_flying += 1
    read_block(engine, load, page, i)


cdef void loads_free(engine_t* engine) noexcept nogil:
    """The engine ends."""
    cdef uint32_t i
    for i in range(PAGE_LOADS):
        if engine.store.loads[i].busy:
            free(engine.store.loads[i].buffer)
    free(engine.store.retries.items)


cdef void read_block(engine_t* engine, page_load_t* load, const page_t* page, uint32_t load_index) noexcept nogil:
    """The block of this step; of the superblocks each in its turn, for one of them may be bad, too."""
    cdef uint64_t block
    if load.step == LOAD_OTHER:
        block = superblock_block(&engine.store, load.patience.tries % SUPERBLOCK_COPIES)
    else:
        block = slot_block(&engine.store, page.reference.slot, load.step == LOAD_SECOND)
    engine.backend.disk(engine.backend.context, DISK_READ, block << BLOCK_SHIFT, load.buffer, BLOCK_SIZE,
                        token(TOKEN_PAGE, load_index))


cdef page_tree_t* tree_of(page_load_t* load) noexcept nogil:
    """The tree a load is for; NULL: it was dropped meanwhile."""
    cdef uint32_t i
    if load.is_map:
        return &load.volume.map
    for i in range(load.volume.change_count):
        if load.volume.changes[i].base_lsn == load.base_lsn:
            return &load.volume.changes[i]
    return NULL


cdef void page_loaded(engine_t* engine, uint32_t load_index, int32_t result) noexcept nogil:
    """The disk answered for a page."""
    cdef page_load_t* load = &engine.store.loads[load_index]
    cdef page_tree_t* tree = tree_of(load)
    cdef page_t* page = tree_page(tree, load.number) if tree != NULL else NULL
    cdef bint wanted = page != NULL and page.flags & PAGE_LOADING
    cdef bint given = result == BLOCK_SIZE
    cdef bint good = wanted and given and load.step != LOAD_OTHER and crc32c(0, load.buffer, BLOCK_SIZE) == page.reference.crc
    load.unread |= not given
    if wanted and not good and load.step < (LOAD_OTHER if load.unread else LOAD_SECOND):
        load.step += 1
        read_block(engine, load, page, load_index)
        return
    load.busy = False
    engine.store.loads_flying -= 1
    if not wanted or (not good and load.unread and read_later(engine, load, page, given)):
        free(load.buffer)
        return
    page_here(engine, load.volume, tree, load.number, load.buffer,
              PAGE_LOST if not good else PAGE_SECOND if load.step == LOAD_SECOND else PAGE_READ)


cdef void page_here(engine_t* engine, volume_t* volume, page_tree_t* tree, uint32_t number, void* buffer,
                    int found) noexcept nogil:
    """A page was read, as `found` (page_read_t) says."""
    cdef page_t* page = tree_page(tree, number)
    page.flags &= ~<uint32_t>(PAGE_LOADING | PAGE_AWAY)
    if found != PAGE_LOST and tree == &volume.map and not extents_valid(engine, <const extent_t*>buffer):
        found = PAGE_LOST
    if found != PAGE_READ:
        engine.store.counters.bad_blocks += 1
        event_push(engine, EVENT_BAD_BLOCK, volume.index, engine.node, 0,
                   slot_block(&engine.store, page.reference.slot, False), 1, 0, 0, NULL)
    if found == PAGE_LOST:
        free(buffer)
        page_lost(engine, volume, tree, number)
        return
    page.data = buffer
    if found == PAGE_SECOND:
        tree_touch(tree, number, 0, &engine.store.checkpoint.captures)


# ------------------------------------------------------------------------------- tried again

cdef bint read_later(engine_t* engine, page_load_t* load, page_t* page, bint disk_answers) noexcept nogil:
    """A page could not be read (G3). False: it is given up. It stays loading, or, when memory is short, is as
    if nobody had asked."""
    cdef int fault = page_fault(&load.patience, disk_answers, engine.now_ns, engine.store.patience_ns, engine.store.patience_ns)
    if fault == FAULT_MEDIUM:
        return False
    if fault == FAULT_DISK:
        disk_is_silent(engine, load.volume, page)
    if not retries_add(&engine.store.retries, load):
        page.flags &= ~<uint32_t>(PAGE_LOADING | PAGE_AWAY)
    return True


cdef bint has_others(const volume_t* volume) noexcept nogil:
    """Is this copy one of several that could go on without it?"""
    cdef uint32_t i
    for i in range(volume.member_count if volume.role == ROLE_PRIMARY else 0):
        if volume.members[i].state == MEMBER_IN_SYNC:
            return True
    return volume.role == ROLE_REPLICA or volume.role == ROLE_LEARNER


cdef void disk_is_silent(engine_t* engine, volume_t* volume, page_t* page) noexcept nogil:
    """The disk gives nothing at all, and has not for long (W4). Whom nobody can tell an error would wait for as
    long as that lasts: commits, and clients whom another copy would serve."""
    page.flags |= PAGE_AWAY
    if volume.page_wait or has_others(volume):
        store_fail(engine, EIO)


cdef bint retries_add(page_retries_t* retries, const page_load_t* load) noexcept nogil:
    """False: memory is short."""
    cdef uint32_t capacity
    cdef page_load_t* grown
    if retries.count == retries.capacity:
        capacity = max(64, retries.capacity * 2)
        grown = <page_load_t*>realloc(retries.items, capacity * sizeof(page_load_t))
        if grown == NULL:
            return False
        retries.items = grown
        retries.capacity = capacity
    retries.next_ns = min(retries.next_ns, load.patience.again_ns) if retries.count else load.patience.again_ns
    retries.items[retries.count] = load[0]
    retries.count += 1
    return True


cdef void pages_step(engine_t* engine) noexcept nogil:
    """Once a turn: what could not be read is read again when its time has come, and a load is free."""
    cdef page_retries_t* retries = &engine.store.retries
    cdef uint32_t i = 0
    if retries.count == 0:
        return
    if engine.now_ns >= retries.next_ns:
        retries.next_ns = NEVER
        while i < retries.count:
            if engine.now_ns < retries.items[i].patience.again_ns or engine.store.loads_flying == PAGE_LOADS:
                retries.next_ns = min(retries.next_ns, retries.items[i].patience.again_ns)
                i += 1
            else:
                read_again(engine, i)
    if retries.count:
        due(engine, retries.next_ns)


cdef void read_again(engine_t* engine, uint32_t i) noexcept nogil:
    """The time of this one has come. It leaves the list first: a read may be answered inside the call."""
    cdef page_retries_t* retries = &engine.store.retries
    cdef page_load_t wanted = retries.items[i]
    cdef page_tree_t* tree = tree_of(&wanted)
    cdef page_t* page = tree_page(tree, wanted.number) if tree != NULL else NULL
    retries.count -= 1
    retries.items[i] = retries.items[retries.count]
    if page != NULL and page.flags & PAGE_LOADING:
        load_begin(engine, &wanted, page)


cdef void retries_forget(engine_t* engine, const volume_t* volume) noexcept nogil:
    """The volume goes away."""
    cdef page_retries_t* retries = &engine.store.retries
    cdef uint32_t i, kept = 0
    for i in range(retries.count):
        if retries.items[i].volume != volume:
            retries.items[kept] = retries.items[i]
            kept += 1
    retries.count = kept
