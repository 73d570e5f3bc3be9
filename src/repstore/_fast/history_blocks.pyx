"""All blocks of a history: its operations laid out block by block, and each block judged.

Memory: 32 bytes for each operation on each block that was read; blocks that nobody read cannot
contradict anything and take none.
"""
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t, int64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memset

from repstore._fast.history_clusters cimport (
    CONSISTENT, DURABLE, HAPPENED, UNKNOWN, USED, cluster_t, entry_t, finding_t, key_t, segment_t, work_t,
)
from repstore._fast.history_lines cimport KIND_READ, operation_t
from repstore._fast.history_zones cimport check_block

import numpy

from repstore._fast.history_findings import FINDING_DTYPE

FLAG_HAPPENED, FLAG_DURABLE, FLAG_USED = HAPPENED, DURABLE, USED


cdef inline uint64_t lower_bound(const uint64_t* blocks, uint64_t count, uint64_t block) noexcept nogil:
    cdef uint64_t low = 0, high = count, middle
    while low < high:
        middle = (low + high) // 2
        if blocks[middle] < block:
            low = middle + 1
        else:
            high = middle
    return low


cdef struct layout_t:        # a history, and the room it is laid out in block by block
    const operation_t* operations
    const uint8_t* flags
    const uint16_t* segments
    const int64_t* ends
    const uint64_t* values
    const uint64_t* blocks
    uint64_t* places
    entry_t* entries
    uint64_t count           # operations
    uint64_t block_count
    uint64_t next            # operation to be laid out
    uint64_t total           # entries of those before


cdef void spread(layout_t* layout, uint64_t entries_max, uint64_t portion) noexcept nogil:
    """The next operations onto every block that was read, about `portion` of them. Without `entries`
    they are only counted, in `places`; with them `places` says where the next one of each block goes.
    Ends early when there are more than `entries_max`."""
    cdef uint64_t i = layout.next, at, value, total = layout.total, work_end = i + total + portion
    cdef const operation_t* operation
    cdef entry_t* entry
    while i < layout.count and i + total < work_end and total <= entries_max:
        if not layout.flags[i] & USED:
            i += 1
            continue
        operation = &layout.operations[i]
        at = lower_bound(layout.blocks, layout.block_count, operation.block)
        while (at < layout.block_count and layout.blocks[at] - operation.block < operation.count
               and total <= entries_max):
            value = 0
            if operation.has_values:
                value = layout.values[operation.first_value + layout.blocks[at] - operation.block]
            if operation.kind != KIND_READ or value != UNKNOWN:
                total += 1
                if layout.entries != NULL:
                    entry = &layout.entries[layout.places[at]]
                    entry.begin, entry.end, entry.value = operation.begin, layout.ends[i], value
                    entry.operation, entry.segment = <uint32_t>i, layout.segments[i]
                    entry.is_read = operation.kind == KIND_READ
                    entry.flags = layout.flags[i] & (HAPPENED | DURABLE)
                layout.places[at] += 1
            at += 1
        i += 1
    layout.next, layout.total = i, total


cdef int spread_all(layout_t* layout, uint64_t entries_max, uint64_t portion, str what, progress) except -1:
    """Every operation; `progress` is told between two portions, and may end it by an exception."""
    layout.next = layout.total = 0
    while layout.next < layout.count and layout.total <= entries_max:
        with nogil:
            spread(layout, entries_max, portion)
        if layout.next < layout.count:
            progress(what, layout.next, layout.count)
    return 0


cdef uint64_t judge_all(layout_t* layout, work_t* work, finding_t* findings, uint64_t findings_max,
                        uint64_t portion, progress) except? -1:
    """Every block, `places` saying where its entries end; how many contradict themselves. `progress`
    is told between two portions, and may end it by an exception."""
    cdef uint64_t block = 0, begin = 0, bad = 0, portion_end
    cdef finding_t spare
    while block < layout.block_count:
        portion_end = begin + portion
        with nogil:
            while block < layout.block_count and begin < portion_end:
                work.finding = &findings[bad] if bad < findings_max else &spare
                work.finding.block = layout.blocks[block]
                bad += check_block(work, &layout.entries[begin], layout.places[block] - begin) != CONSISTENT
                begin = layout.places[block]
                block += 1
        if block < layout.block_count:
            progress("judging blocks", block, layout.block_count)
    return bad


def blocks_read(const operation_t[::1] operations, const uint8_t[::1] flags, const uint64_t[::1] values,
                uint64_t room):
    """The block of every value that a used read brought, in the order of the file, with repeats.

    `room` is at least the number of these values. Returns an array of uint64.
    """
    found = numpy.empty(room, numpy.uint64)
    cdef uint64_t[::1] out = found
    cdef uint64_t i, j, used = 0
    with nogil:
        for i in range(<uint64_t>operations.shape[0]):
            if operations[i].kind != KIND_READ or not flags[i] & USED:
                continue
            for j in range(operations[i].count):
                if values[operations[i].first_value + j] != UNKNOWN and used < room:
                    out[used] = operations[i].block + j
                    used += 1
    return found[:used]


def check_blocks(const operation_t[::1] operations, const uint8_t[::1] flags, const uint16_t[::1] segments,
                 const int64_t[::1] ends, const uint64_t[::1] values, const uint64_t[::1] blocks,
                 bint initial_known, uint64_t entries_max, uint64_t findings_max, uint64_t portion_entries,
                 progress):
    """Check the given blocks (uint64, sorted, each once; not empty).

    Of each operation `flags` says HAPPENED, DURABLE, USED, `segments` how many power cuts came
    before, and `ends` when it was over: answered, or without effect from then on; at the latest just
    before the next crash of any kind. Values of operations lie inside `values`. `initial_known`:
    blocks were zeros at first.
    Returns (findings, blocks with a contradiction, undecided reads): at most
    `findings_max` findings as an array of FINDING_DTYPE. Raises MemoryError; more than
    `entries_max` entries (32 bytes each) give None for the findings. Pure. Works without the GIL,
    about `portion_entries` (not 0) entries at a time, and calls `progress` (what, done, of so many)
    in between: what that raises ends the check.
    """
    cdef uint64_t most = 0, bad = 0, i, begin = 0, count
    cdef layout_t layout
    cdef work_t work
    memset(&layout, 0, sizeof(layout))
    memset(&work, 0, sizeof(work))
    work.initial_known = initial_known
    findings = numpy.zeros(findings_max, FINDING_DTYPE)
    cdef finding_t[::1] out = findings
    layout.operations, layout.flags, layout.segments = &operations[0], &flags[0], &segments[0]
    layout.ends = &ends[0]
    layout.values, layout.blocks = &values[0] if values.shape[0] else NULL, &blocks[0]
    layout.count, layout.block_count = operations.shape[0], blocks.shape[0]
    layout.places = <uint64_t*>calloc(layout.block_count + 1, sizeof(uint64_t))
    try:
        if layout.places == NULL:
            raise MemoryError
        spread_all(&layout, entries_max, portion_entries, "counting operations", progress)
        if layout.total > entries_max:
            return None, 0, 0
        for i in range(layout.block_count):
            count, layout.places[i] = layout.places[i], begin
            begin += count
            most = max(most, count)
        layout.entries = <entry_t*>malloc(max(1, layout.total) * sizeof(entry_t))
        if layout.entries == NULL:
            raise MemoryError
        allocate(&work, most)
        spread_all(&layout, entries_max, portion_entries, "sorting by blocks", progress)
        bad = judge_all(&layout, &work, &out[0] if findings_max else NULL, findings_max, portion_entries,
                        progress)
    finally:
        free(layout.places)
        free(layout.entries)
        release(&work)
    return findings[:min(bad, findings_max)], bad, work.undecided


cdef int allocate(work_t* work, uint64_t most) except -1:
    """Room for the block with most entries."""
    most = max(most, 1)
    work.clusters = <cluster_t*>malloc(most * sizeof(cluster_t))
    work.by_end = <key_t*>malloc(most * sizeof(key_t))
    work.by_last_begin = <key_t*>malloc(most * sizeof(key_t))
    work.least_end = <int64_t*>malloc(most * sizeof(int64_t))
    work.least_cluster = <uint32_t*>malloc(most * sizeof(uint32_t))
    work.segments = <segment_t*>malloc(min(most, 65536) * sizeof(segment_t))
    if (work.clusters == NULL or work.by_end == NULL or work.by_last_begin == NULL or work.least_end == NULL
            or work.least_cluster == NULL or work.segments == NULL):
        raise MemoryError
    return 0


cdef void release(work_t* work) noexcept nogil:
    free(work.clusters)
    free(work.by_end)
    free(work.by_last_begin)
    free(work.least_end)
    free(work.least_cluster)
    free(work.segments)
