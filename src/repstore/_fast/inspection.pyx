"""Looking at an engine's copies: map entries, segments, blocks as they lie; and its scrub.

Every call is thread-safe, takes the engine's lock for a moment, and changes nothing but the
scrub. What is read from the disk may have been moved since: look at the map again.
"""
from libc.errno cimport EIO
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

from repstore._fast.control cimport Engine
from repstore._fast.layout cimport BLOCK_SHIFT, PAGE_ENTRIES, extent_t
from repstore._fast.merkle cimport crc_of_zeros
from repstore._fast.page_tree cimport page_t, tree_page
from repstore._fast.pages cimport read_now
from repstore._fast.scrub cimport scrub_begin, scrub_end
from repstore._fast.segments cimport is_data, is_lost
from repstore._fast.state cimport ROLE_PRIMARY, VERIFY_PAGES, volume_t
from repstore._fast.verify cimport verify_begin
from repstore._fast.verify_state cimport VERIFY_DONE
from repstore._fast.volume cimport LOOKUP_BAD, LOOKUP_OK, volume_lookup


cdef packed struct segment_state_record_t:
    uint32_t generation
    uint32_t live
    uint32_t pending
    uint8_t state
    uint8_t segment_class
    uint16_t reserved


cdef uint64_t UNKNOWN = ~<uint64_t>0
NOT_KNOWN = UNKNOWN

SEGMENT_FIELDS = (
    ("generation", "<u4"), ("live", "<u4"), ("pending", "<u4"), ("state", "u1"), ("segment_class", "u1"),
    ("reserved", "<u2"),
)


def read_map(Engine engine not None, index, unsigned long long first, unsigned char[::1] out not None):
    """Fill `out` with the committed map entries (extent_t) of the blocks from LBA `first` on.

    Raises LookupError without a copy here, ValueError for a range outside the volume,
    BlockingIOError while a page is read: ask again. OSError where nobody reads on: the store is only looked at.
    """
    cdef volume_t* volume = engine.volume(index)
    cdef uint64_t count = out.shape[0] // sizeof(extent_t), i
    cdef extent_t* entries
    cdef int state = LOOKUP_OK
    if out.shape[0] % sizeof(extent_t) or count == 0:
        raise ValueError(f"room for {out.shape[0]} bytes: must be a multiple of {sizeof(extent_t)}, at least one")
    if first > volume.size_blocks or count > volume.size_blocks - first:
        raise ValueError(f"{count} blocks at {first}: the volume has {volume.size_blocks}")
    entries = <extent_t*>&out[0]
    engine.lock()
    for i in range(count):
        state = volume_lookup(volume, first + i, &entries[i])
        if state != LOOKUP_OK:
            break
    engine.unlock(True)
    if state == LOOKUP_BAD and engine.engine.store.recovering:
        raise OSError(EIO, f"block {engine.engine.store.unread_block} cannot be read, and nothing else either")
    if state != LOOKUP_OK:
        raise BlockingIOError("a map page is being read")


def map_checksums(Engine engine not None, index, unsigned long long[::1] out not None):
    """Fill `out` with the checksum of every block of a copy, as its committed map names it: that of
    zeros for a hole too, NOT_KNOWN where the block is lost or its map page is not in memory. Asking
    reads no page: it changes nothing.

    Raises LookupError without a copy here, ValueError for an `out` of another size than the volume.
    """
    cdef volume_t* volume = engine.volume(index)
    cdef uint64_t i
    cdef uint32_t zeros = crc_of_zeros()
    cdef page_t* page
    cdef extent_t* extent
    if out.shape[0] != <Py_ssize_t>volume.size_blocks:
        raise ValueError(f"room for {out.shape[0]} blocks: the volume has {volume.size_blocks}")
    engine.lock()
    for i in range(volume.size_blocks):
        page = tree_page(&volume.map, <uint32_t>(i // PAGE_ENTRIES))
        if page == NULL or page.data == NULL:
            out[i] = zeros if page == NULL or page.reference.slot == 0 else UNKNOWN
            continue
        extent = <extent_t*>page.data + i % PAGE_ENTRIES
        out[i] = UNKNOWN if is_lost(extent.location) else extent.crc if is_data(extent.location) else zeros
    engine.unlock(False)


def read_segments(Engine engine not None, unsigned char[::1] out not None):
    """Fill `out` with a SEGMENT_FIELDS record for every segment of the store."""
    cdef segment_state_record_t* records
    cdef uint32_t i
    if out.shape[0] != engine.engine.store.segment_count * <Py_ssize_t>sizeof(segment_state_record_t):
        raise ValueError(f"room for {out.shape[0]} bytes, the store has {engine.engine.store.segment_count} segments")
    records = <segment_state_record_t*>&out[0]
    engine.lock()
    for i in range(engine.engine.store.segment_count):
        segment = &engine.engine.store.segments[i]
        records[i].generation = segment.generation
        records[i].live = segment.live
        records[i].pending = segment.pending
        records[i].state = segment.state
        records[i].segment_class = segment.segment_class
        records[i].reserved = 0
    engine.unlock(False)


def read_blocks(Engine engine not None, unsigned long long location, unsigned char[::1] out not None):
    """Read whole blocks as they lie in the store, without the GIL; False: the device did not give them.

    `out` must be aligned to a block for a store that is opened past the page cache.
    """
    cdef uint32_t blocks = <uint32_t>(out.shape[0] >> BLOCK_SHIFT)
    cdef int answer
    if out.shape[0] == 0 or out.shape[0] != <Py_ssize_t>(<uint64_t>blocks << BLOCK_SHIFT):
        raise ValueError(f"room for {out.shape[0]} bytes: must be whole blocks")
    if not engine.engine.has_store or location + blocks > engine.engine.store.total_blocks:
        raise ValueError(f"{blocks} blocks at {location}: not inside the store")
    with nogil:
        answer = read_now(engine.engine, location, &out[0], blocks)
    return answer == 0


def lost_blocks(Engine engine not None):
    """Blocks that no copy could give when they were last asked for, as (volume, LBA)."""
    engine.lock()
    found = sorted((engine.engine.repairs.lost[i].volume, engine.engine.repairs.lost[i].lba)
                   for i in range(engine.engine.repairs.lost_count))
    engine.unlock(False)
    return found


def scrub_start(Engine engine not None, index, unsigned long long first, unsigned long long rate_bytes_s):
    """Read every block of a copy from LBA `first` on and compare it with the map, at this rate.

    Bad ones go to repair. Another scrub of this engine ends. Raises LookupError, ValueError.
    """
    cdef volume_t* volume = engine.volume(index)
    if first > volume.size_blocks or rate_bytes_s == 0:
        raise ValueError(f"scrub from block {first} of {volume.size_blocks} at {rate_bytes_s} bytes/s")
    engine.lock()
    scrub_begin(engine.engine, volume, first, rate_bytes_s)
    engine.unlock(True)


def scrub_stop(Engine engine not None):
    """End the scrub; `scrub_state` says how far it came."""
    engine.lock()
    scrub_end(engine.engine)
    engine.unlock(True)


def scrub_state(Engine engine not None):
    """(running, volume, next LBA, blocks read, of them bad, pages with a bad block) of the last scrub begun."""
    engine.lock()
    scrub = &engine.engine.scrub
    found = (bool(scrub.running), scrub.volume, scrub.next_lba - scrub.flying, scrub.read_blocks, scrub.bad_blocks,
             scrub.bad_pages)
    engine.unlock(False)
    return found


VERIFY_STATES = ("idle", "waiting", "capturing", "done", "failed")


def verify_start(Engine engine not None, index, unsigned long long serial, wanted=()):
    """At the primary: have every in-sync copy take its map as it is committed now. Returns the LSN.

    With `wanted` map pages (at most 64) their checksums are kept, without digests of all pages.
    Raises LookupError without a copy that leads here, ValueError for pages out of range.
    """
    cdef volume_t* volume = engine.volume(index)
    cdef uint32_t[64] pages
    cdef uint32_t count = 0
    cdef int answer
    if len(wanted) > VERIFY_PAGES or any(not 0 <= page < volume.map.page_count for page in wanted):
        raise ValueError(f"{len(wanted)} pages: at most {VERIFY_PAGES}, each below {volume.map.page_count}")
    for page in wanted:
        pages[count] = page
        count += 1
    engine.lock()
    leads = volume.role == ROLE_PRIMARY
    answer = verify_begin(engine.engine, volume, serial, pages, count) if leads else 0
    lsn = engine.engine.verify.lsn
    engine.unlock(True)
    if not leads:
        raise LookupError("this copy does not lead")
    if answer != 0:
        raise MemoryError("the digests of a map could not be allocated")
    return lsn


def verify_state(Engine engine not None):
    """(state, serial, LSN, pages taken by the walk, pages) of the last verification heard of."""
    engine.lock()
    verify = &engine.engine.verify
    found = (VERIFY_STATES[verify.state], verify.serial, verify.lsn, verify.cursor, verify.pages)
    engine.unlock(False)
    return found


def verify_leaves(Engine engine not None, unsigned long long serial, unsigned char[::1] out not None):
    """Fill `out` with the u64 digest of every page. Raises LookupError unless that one is done."""
    engine.lock()
    verify = &engine.engine.verify
    fits = (verify.state == VERIFY_DONE and verify.serial == serial
            and out.shape[0] == <Py_ssize_t>(<uint64_t>verify.pages * 8))
    if fits:
        memcpy(&out[0], verify.leaves, out.shape[0])
    engine.unlock(False)
    if not fits:
        raise LookupError("that verification is not done here")


def verify_values(Engine engine not None, unsigned long long serial, unsigned int place, unsigned char[::1] out not None):
    """Fill `out` with the 512 u32 checksums of the wanted page at this place of the list."""
    engine.lock()
    verify = &engine.engine.verify
    fits = (verify.state == VERIFY_DONE and verify.serial == serial and place < verify.wanted_count
            and out.shape[0] == PAGE_ENTRIES * 4)
    if fits:
        memcpy(&out[0], verify.values + <uint64_t>place * PAGE_ENTRIES, out.shape[0])
    engine.unlock(False)
    if not fits:
        raise LookupError("that page of that verification is not here")
