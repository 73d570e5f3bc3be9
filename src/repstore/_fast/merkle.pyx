"""Taking digests; see merkle.pxd."""
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from repstore._fast.checksum cimport crc32c
from repstore._fast.layout cimport BLOCK_SIZE, PAGE_ENTRIES, extent_t
from repstore._fast.page_tree cimport page_t, tree_page
from repstore._fast.segments cimport is_data, is_lost
from repstore._fast.state cimport VERIFY_PAGES
from repstore._fast.verify_state cimport (
    VERIFY_CAPTURING, VERIFY_FAILED, VERIFY_WAITING, verify_t,
)


cdef void merkle_free(engine_t* engine) noexcept nogil:
    free(engine.verify.leaves)
    free(engine.verify.taken)
    free(engine.verify.values)
    memset(&engine.verify, 0, sizeof(verify_t))


cdef uint32_t crc_of_zeros() noexcept nogil:
    cdef unsigned char[4096] zeros
    memset(zeros, 0, BLOCK_SIZE)
    return crc32c(0, zeros, BLOCK_SIZE)


cdef int merkle_prepare(engine_t* engine, const volume_t* volume, uint64_t lsn, uint64_t serial,
                        const uint32_t* wanted, uint32_t wanted_count) noexcept nogil:
    """Get ready for the state at `lsn`; with `wanted` pages only those, exactly. -1: memory is short."""
    cdef verify_t* verify = &engine.verify
    cdef uint32_t i
    merkle_free(engine)
    verify.pages = volume.map.page_count
    verify.leaves = <uint64_t*>calloc(verify.pages, 8)
    verify.taken = <unsigned char*>calloc(verify.pages, 1)
    verify.values = <uint32_t*>calloc(VERIFY_PAGES * PAGE_ENTRIES, 4)
    if verify.leaves == NULL or verify.taken == NULL or verify.values == NULL:
        merkle_free(engine)
        return -1
    verify.volume = volume.index
    verify.lsn = lsn
    verify.serial = serial
    verify.zeros = crc_of_zeros()
    verify.wanted_count = wanted_count
    if wanted_count:
        memset(verify.taken, 1, verify.pages)
    for i in range(wanted_count):
        verify.wanted[i] = wanted[i]
        verify.taken[wanted[i]] = 0
    verify.state = VERIFY_WAITING
    merkle_reach(engine, volume)
    return 0


cdef void merkle_reach(engine_t* engine, const volume_t* volume) noexcept nogil:
    """The volume committed up to here: is this the state that is wanted?"""
    if volume.commit_lsn == engine.verify.lsn:
        engine.verify.state = VERIFY_CAPTURING
        engine.more = True
    elif volume.commit_lsn > engine.verify.lsn:
        engine.verify.state = VERIFY_FAILED    # it went past it before it was asked


cdef inline uint32_t value_of(const verify_t* verify, const extent_t* extent) noexcept nogil:
    """What stands for a block: lost ones differ from everything a copy may hold there."""
    if extent == NULL or not (is_data(extent.location) or is_lost(extent.location)):
        return verify.zeros
    return extent.crc if is_data(extent.location) else ~extent.crc ^ extent.location


cdef void merkle_take(engine_t* engine, volume_t* volume, uint32_t number) noexcept nogil:
    """One page, which is in memory or empty, as it is now."""
    cdef verify_t* verify = &engine.verify
    cdef page_t* page = tree_page(&volume.map, number)
    cdef extent_t* entries = <extent_t*>page.data if page != NULL else NULL
    cdef uint64_t digest = number
    cdef uint32_t i, value, place = 0
    if verify.taken[number]:
        return
    verify.taken[number] = 1
    while place < verify.wanted_count and verify.wanted[place] != number:
        place += 1
    for i in range(<uint32_t>PAGE_ENTRIES):
        value = value_of(verify, entries + i if entries != NULL else NULL)
        if place < verify.wanted_count:
            verify.values[place * PAGE_ENTRIES + i] = value
        digest = (digest ^ value) * 0xBF58476D1CE4E5B9ULL
        digest ^= digest >> 31
    verify.leaves[number] = digest
