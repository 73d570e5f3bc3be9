"""Blocks of this store that are not what was written: those under repair, those that are lost.

A block is *bad* when the disk does not give what the map's checksum names, *lost* when no copy
could give it. The map remembers either across a restart, by the checksum that nothing fits; the
table of lost blocks only saves asking for them again and again, and tells an operator. A scrub
looks for bad blocks before anybody needs them.
"""
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from repstore._fast.layout cimport extent_t, page_reference_t


cdef enum:
    REPAIRS_MAX = 64               # blocks being fetched at once: a read of 64 may meet as many
    LOST_BLOCKS_MAX = 1024         # lost blocks remembered; of more the oldest are asked for again


cdef enum repair_state_t:
    REPAIR_FREE = 0
    REPAIR_WAITING = 1             # somebody is to be asked at next_ns
    REPAIR_ASKED = 2               # asked again at next_ns
    REPAIR_FETCHED = 3             # the content is here and waits for room in the log
    REPAIR_LOGGED = 4              # done when the map points to it


cdef struct repair_t:
    uint8_t state
    uint8_t node                   # who was asked
    uint32_t volume                # cluster-wide index
    uint64_t lba
    extent_t extent                # as the map had it: what is not so any more needs no repair
    uint64_t serial                # of the question, so that an old answer is known
    uint64_t next_ns
    uint64_t deadline_ns
    uint32_t refused               # nodes that do not have it, as bits
    uint32_t crc                   # of the content fetched
    uint8_t* buffer                # one block


cdef struct lost_block_t:
    uint32_t volume
    uint64_t lba
    extent_t extent
    uint64_t again_ns              # not asked for again before


cdef struct repairs_t:
    repair_t items[64]
    uint32_t count
    uint64_t serial
    lost_block_t lost[1024]
    uint32_t lost_count
    uint32_t lost_next             # the oldest, once the table is full


# A page of metadata whose two blocks are being compared with its reference.
cdef struct page_check_t:
    uint32_t flying                # reads under way
    bint bad
    uint64_t serial                # of the scrub that asked
    page_reference_t reference     # what is rewritten meanwhile is not judged
    uint8_t* blocks


cdef struct scrub_t:
    bint running
    uint32_t volume                # cluster-wide index
    uint64_t next_lba
    uint64_t serial                # of this scrub
    uint64_t rate_bytes_s
    uint64_t next_ns               # when the next run may be read
    uint32_t flying                # blocks of the run under way
    uint64_t read_blocks
    uint64_t bad_blocks
    uint32_t part                  # of the pages that begin at next_lba: each tree's directory, then its page
    uint64_t bad_pages
    page_check_t check
