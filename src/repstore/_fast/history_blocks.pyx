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


cdef uint64_t spread(const operation_t* operations, uint64_t count, const uint8_t* flags,
                     const uint16_t* segments, const uint64_t* values, const uint64_t* blocks,
                     uint64_t block_count, uint64_t* places, entry_t* entries,
                     uint64_t entries_max) noexcept nogil:
    """Every operation onto every block that was read. Without `entries` they are only counted,
    in `places`; with them `places` says where the next one of each block goes. Ends early when
    there are more than `entries_max`."""
    cdef uint64_t i, at, value, total = 0
    cdef const operation_t* operation
    cdef entry_t* entry
    for i in range(count):
        if not flags[i] & USED:
            continue
        operation = &operations[i]
        at = lower_bound(blocks, block_count, operation.block)
        while at < block_count and blocks[at] - operation.block < operation.count and total <= entries_max:
            value = 0
            if operation.has_values:
                value = values[operation.first_value + blocks[at] - operation.block]
            if operation.kind != KIND_READ or value != UNKNOWN:
                total += 1
                if entries != NULL:
                    entry = &entries[places[at]]
                    entry.begin, entry.end, entry.value = operation.begin, operation.end, value
                    if not flags[i] & HAPPENED:
                        entry.end = operation.until
                    entry.operation, entry.segment = <uint32_t>i, segments[i]
                    entry.is_read, entry.flags = operation.kind == KIND_READ, flags[i] & (HAPPENED | DURABLE)
                places[at] += 1
            at += 1
    return total


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
                 const uint64_t[::1] values, const uint64_t[::1] blocks, bint initial_known,
                 uint64_t entries_max, uint64_t findings_max):
    """Check the given blocks (uint64, sorted, each once; not empty).

    Of each operation `flags` says HAPPENED, DURABLE, USED, and `segments` how many crashes came
    before; an unacknowledged one's `until` is at most the crash after it. Values of operations
    lie inside `values`. `initial_known`: blocks were zeros at first.
    Returns (findings, blocks with a contradiction, undecided reads): at most
    `findings_max` findings as an array of FINDING_DTYPE. Raises MemoryError; more than
    `entries_max` entries (32 bytes each) give None for the findings. Releases the GIL; pure.
    """
    cdef uint64_t block_count = blocks.shape[0], most = 0, total = 0, bad = 0, i, begin, count
    cdef uint64_t* places = <uint64_t*>calloc(block_count + 1, sizeof(uint64_t))
    cdef entry_t* entries = NULL
    cdef work_t work
    memset(&work, 0, sizeof(work))
    findings = numpy.zeros(findings_max, FINDING_DTYPE)
    cdef finding_t[::1] out = findings
    cdef finding_t spare
    cdef const uint64_t* value = &values[0] if values.shape[0] else NULL
    try:
        if places == NULL:
            raise MemoryError
        with nogil:
            total = spread(&operations[0], operations.shape[0], &flags[0], &segments[0], value, &blocks[0],
                           block_count, places, NULL, entries_max)
        if total > entries_max:
            return None, 0, 0
        begin = 0
        for i in range(block_count):
            count, places[i] = places[i], begin
            begin += count
            most = max(most, count)
        entries = <entry_t*>malloc(max(1, total) * sizeof(entry_t))
        allocate(&work, most)
        if entries == NULL:
            raise MemoryError
        with nogil:
            spread(&operations[0], operations.shape[0], &flags[0], &segments[0], value, &blocks[0],
                   block_count, places, entries, entries_max)
            work.initial_known = initial_known
            begin = 0
            for i in range(block_count):         # places[i] is by now the end of block i
                work.finding = &out[bad] if bad < findings_max else &spare
                work.finding.block = blocks[i]
                bad += check_block(&work, &entries[begin], places[i] - begin) != CONSISTENT
                begin = places[i]
    finally:
        free(places)
        free(entries)
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
