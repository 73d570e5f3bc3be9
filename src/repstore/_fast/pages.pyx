"""Page loads: asynchronous while the engine runs, at once while it recovers."""
from libc.stdlib cimport free
from libc.string cimport memcpy

from repstore._fast.backend cimport DISK_READ
from repstore._fast.checksum cimport crc32c
from repstore._fast.events cimport EVENT_BAD_BLOCK, event_push
from repstore._fast.layout cimport BLOCK_SHIFT, BLOCK_SIZE, PAGE_ENTRIES, extent_t
from repstore._fast.page_tree cimport PAGE_BAD, PAGE_LOADING
from repstore._fast.segments cimport is_data, location_valid
from repstore._fast.state cimport PAGE_LOADS, TOKEN_PAGE, page_load_t, token


cdef extern from "stdlib.h" nogil:
    int posix_memalign(void** out, size_t alignment, size_t size)

cdef extern from "unistd.h" nogil:
    ssize_t pread(int descriptor, void* buffer, size_t count, long offset)


cdef int read_now(engine_t* engine, uint64_t block, void* buffer, uint32_t blocks) noexcept nogil:
    """Recovery's read: blocks the caller. -1: the device did not give all of it."""
    cdef size_t wanted = <size_t>blocks << BLOCK_SHIFT
    if engine.store.memory != NULL:
        if block + blocks > engine.store.total_blocks:
            return -1
        memcpy(buffer, engine.store.memory + (block << BLOCK_SHIFT), wanted)
        return 0
    return 0 if pread(engine.store.descriptor, buffer, wanted, <long>(block << BLOCK_SHIFT)) == <ssize_t>wanted else -1


cdef bint extents_valid(engine_t* engine, const extent_t* extents) noexcept nogil:
    """Does every extent of a map page lie in a segment? A checksum says who wrote a page last, not
    that it makes sense, and locations index the segment table without another look."""
    cdef uint32_t i
    for i in range(<uint32_t>PAGE_ENTRIES):
        if is_data(extents[i].location) and not location_valid(&engine.store, extents[i].location, 1):
            return False
    return True


cdef void take_page(engine_t* engine, volume_t* volume, page_t* page, void* buffer, bint is_map,
                    bint read_ok) noexcept nogil:
    """A page's bytes are here: keep them if they are what the reference names."""
    page.flags &= ~<uint32_t>PAGE_LOADING
    if (read_ok and crc32c(0, buffer, BLOCK_SIZE) == page.reference.crc
            and (not is_map or extents_valid(engine, <const extent_t*>buffer))):
        page.data = buffer
        return
    free(buffer)
    page.flags |= PAGE_BAD
    engine.store.counters.bad_blocks += 1
    event_push(engine, EVENT_BAD_BLOCK, volume.index, engine.node, 0,
               slot_block(&engine.store, page.reference.slot), 1, 0, 0, NULL)


cdef void page_load(engine_t* engine, volume_t* volume, page_t* page, bint is_map) noexcept nogil:
    """Start reading a page; nothing happens when it is on its way or too many are (ask again)."""
    cdef uint32_t i
    cdef void* buffer = NULL
    cdef page_load_t* load
    if page.flags & PAGE_LOADING or engine.store.loads_flying == PAGE_LOADS:
        return
    if posix_memalign(&buffer, BLOCK_SIZE, BLOCK_SIZE) != 0:
        return
    if engine.store.recovering:
        take_page(engine, volume, page, buffer, is_map,
                  read_now(engine, slot_block(&engine.store, page.reference.slot), buffer, 1) == 0)
        return
    for i in range(PAGE_LOADS):
        load = &engine.store.loads[i]
        if not load.busy:
            break
    load.busy = True
    load.is_map = is_map
    load.page = page
    load.volume = volume
    load.buffer = <unsigned char*>buffer
    page.flags |= PAGE_LOADING
    engine.store.loads_flying += 1
    engine.backend.disk(engine.backend.context, DISK_READ,
                        slot_block(&engine.store, page.reference.slot) << BLOCK_SHIFT, buffer,
                        BLOCK_SIZE, token(TOKEN_PAGE, i))


cdef void page_loaded(engine_t* engine, uint32_t load_index, int32_t result) noexcept nogil:
    cdef page_load_t* load = &engine.store.loads[load_index]
    load.busy = False
    engine.store.loads_flying -= 1
    take_page(engine, load.volume, load.page, load.buffer, load.is_map, result == BLOCK_SIZE)
