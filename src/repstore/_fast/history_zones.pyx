"""Whether every block of a history is one register: zones, and what a power cut may leave.

Gibbons and Korach, "Testing shared memories" (SICOMP 1997), for one block between two power cuts:
a *cluster* is a write and the reads that must be of it, `first_end` the earliest end in it and
`last_begin` the latest beginning. Cluster a comes before b where a.first_end < b.last_begin.
The history is linearizable where no two clusters come before each other; a cycle of more
always holds such a pair. Time O(n log n) a block.

  Z1 a read belongs to a write of its value that began before the read ended and is not *dead*:
     no acknowledged write lies wholly between the two. None: a contradiction. One: it is that
     one. Several (equal values written at about the same time): the read is undecided and left
     out. So nothing consistent is ever called inconsistent, whatever values are equal; where
     all values differ no read is undecided and the answer is exact.
  Z2 a write that was not acknowledged may have happened or not: it counts once it was read.
  Z3 what was there at first is a write that ended before everything: of a known value, of an
     unknown one (the first read tells it), or, after a power cut, of one that may have survived.
     A kill begins nothing anew: it ends what was under way, and is no event of the register.
  Z4 after a power cut value v may have survived where no durable write d that happened is forced
     after v. Forced is what begins, in any of its operations, after a cluster ended that is v or
     forced itself. A write that was not acknowledged must, to survive, lie inside no zone of
     another value.
  Z5 the first contradiction of a block is told; what follows it in that block is not looked at.
"""
from libc.stdint cimport INT64_MIN, uint32_t, uint64_t
from libc.string cimport memset

from repstore._fast.history_clusters cimport (
    CONSISTENT, HAPPENED, INITIAL, NONE, UNKNOWN, WAS_READ, cluster_t, entry_t, find_group, key_t, segment_t,
    sort_clusters, sort_entries, sort_keys, work_t,
)
from repstore._fast.history_findings cimport explain_crossed, explain_read
from repstore._fast.history_survival cimport close_segment, initial_allows


cdef enum:
    SKIPPED_MAX = 64         # unknown writes that do not fit, looked at for one read


cdef void link_groups(work_t* work, const segment_t* segment) noexcept nogil:
    cdef uint64_t i, group = segment.first, stop = segment.first + segment.count
    cdef cluster_t* cluster
    for i in range(segment.first, stop):
        cluster = &work.clusters[i]
        if cluster.value != work.clusters[group].value or i == segment.first:
            group = i
            cluster.head = <uint32_t>i
        if i + 1 < stop and work.clusters[i + 1].value == cluster.value:
            cluster.next = <uint32_t>(i + 1)
        else:
            cluster.next = NONE


cdef int count_living(work_t* work, const segment_t* segment, uint64_t group_value, const entry_t* read,
                      uint32_t* owner) noexcept nogil:
    """How many writes of a group the read may be of: 0, 1, or 2 for more. The dead are unlinked
    for good, since `alive_from` only grows: O(1) a read, spread over all."""
    cdef uint64_t group = find_group(work, segment, group_value)
    cdef uint32_t previous = NONE, at
    cdef int found = 0, skipped = 0
    cdef cluster_t* cluster
    if group == segment.first + segment.count:
        return 0
    at = work.clusters[group].head
    while at != NONE and found < 2:
        cluster = &work.clusters[at]
        if cluster.begin > read.end:
            break
        if cluster.end < work.alive_from:
            if previous == NONE:
                work.clusters[group].head = cluster.next
            else:
                work.clusters[previous].next = cluster.next
        else:
            if cluster.value == UNKNOWN and cluster.seen != UNKNOWN and cluster.seen != read.value:
                skipped += 1
                if skipped > SKIPPED_MAX:
                    return 2
            else:
                found += 1
                owner[0] = at
            previous = at
        at = cluster.next
    return found


cdef int place_read(work_t* work, segment_t* segment, const entry_t* read) noexcept nogil:
    """Z1 for one read; reads come in the order of their beginnings."""
    cdef uint32_t owner = NONE
    cdef cluster_t* cluster
    cdef int found
    while work.ended < work.acknowledged and work.by_end[work.ended].key < read.begin:
        cluster = &work.clusters[work.by_end[work.ended].cluster]
        if cluster.begin > work.alive_from:
            work.alive_from = cluster.begin
            work.killer = work.by_end[work.ended].cluster
        work.ended += 1
    found = count_living(work, segment, read.value, read, &owner)
    if found < 2:
        found += count_living(work, segment, UNKNOWN, read, &owner)
    if found < 2 and work.ended == 0 and initial_allows(work, work.segment_count - 1, read.value):
        found += 1
        owner = INITIAL
    if found == 0:
        return explain_read(work, segment, read)
    if found > 1:
        work.undecided += 1
        return CONSISTENT
    cluster = &segment.initial if owner == INITIAL else &work.clusters[owner]
    if owner == INITIAL:
        segment.initial_known = True
        cluster.value = read.value
        if cluster.first_end_operation == INITIAL:      # who told what was there
            cluster.first_end_operation = read.operation
    elif cluster.value == UNKNOWN:
        cluster.seen = read.value
    cluster.flags |= WAS_READ
    cluster.witness = read.operation
    if read.end < cluster.first_end:
        cluster.first_end = read.end
        cluster.first_end_operation = read.operation
    if read.begin > cluster.last_begin:
        cluster.last_begin = read.begin
        cluster.last_begin_operation = read.operation
    return CONSISTENT


cdef int check_zones(work_t* work, segment_t* segment) noexcept nogil:
    """No two clusters of a segment come before each other. `by_end` is free by now."""
    cdef key_t* forward = work.by_end
    cdef uint64_t count = 0, i, low, high, middle
    cdef cluster_t* cluster
    cdef cluster_t* other
    for i in range(segment.first, segment.first + segment.count):
        cluster = &work.clusters[i]
        if cluster.flags & (HAPPENED | WAS_READ) and cluster.first_end < cluster.last_begin:
            forward[count].key = cluster.first_end
            forward[count].cluster = <uint32_t>i
            count += 1
    sort_keys(forward, count)
    other = &segment.initial if segment.initial.flags & WAS_READ else NULL
    for i in range(count):
        cluster = &work.clusters[forward[i].cluster]
        if other != NULL and cluster.first_end < other.last_begin:
            return explain_crossed(work, segment, other, cluster)
        other = cluster
    for i in range(segment.first, segment.first + segment.count):
        cluster = &work.clusters[i]
        if not cluster.flags & (HAPPENED | WAS_READ) or cluster.first_end < cluster.last_begin:
            continue
        low, high = 0, count                   # the last forward zone that begins before this one
        while low < high:
            middle = (low + high) // 2
            if forward[middle].key < cluster.last_begin:
                low = middle + 1
            else:
                high = middle
        other = &work.clusters[forward[low - 1].cluster] if low > 0 else &segment.initial
        if other.last_begin > cluster.first_end:
            return explain_crossed(work, segment, other, cluster)
    return CONSISTENT


cdef segment_t* open_segment(work_t* work, const entry_t* entries, uint64_t count) noexcept nogil:
    """Clusters of the writes, grouped, and by their ends."""
    cdef segment_t* segment = &work.segments[work.segment_count]
    cdef cluster_t* cluster
    cdef uint64_t i
    memset(segment, 0, sizeof(segment_t))
    segment.number = entries[0].segment
    segment.first = work.cluster_count
    segment.durable = segment.second_durable = NONE
    segment.initial_known = work.initial_known and work.segment_count == 0
    cluster = &segment.initial
    cluster.value = work.initial_value if segment.initial_known else UNKNOWN
    cluster.begin = cluster.end = cluster.first_end = cluster.last_begin = INT64_MIN
    cluster.operation = cluster.first_end_operation = cluster.last_begin_operation = INITIAL
    cluster.witness = NONE
    work.segment_count += 1
    for i in range(count):
        if entries[i].is_read:
            continue
        cluster = &work.clusters[work.cluster_count]
        work.cluster_count += 1
        memset(cluster, 0, sizeof(cluster_t))
        cluster.value = entries[i].value
        cluster.seen = UNKNOWN
        cluster.begin = cluster.last_begin = entries[i].begin
        cluster.end = cluster.first_end = entries[i].end
        cluster.operation = cluster.first_end_operation = cluster.last_begin_operation = entries[i].operation
        cluster.witness = NONE
        cluster.flags = entries[i].flags
    segment.count = work.cluster_count - segment.first
    sort_clusters(&work.clusters[segment.first], segment.count)
    link_groups(work, segment)
    work.acknowledged = work.ended = 0
    for i in range(segment.first, work.cluster_count):
        if work.clusters[i].flags & HAPPENED:
            work.by_end[work.acknowledged].key = work.clusters[i].end
            work.by_end[work.acknowledged].cluster = <uint32_t>i
            work.acknowledged += 1
    sort_keys(work.by_end, work.acknowledged)
    work.alive_from = INT64_MIN
    work.killer = NONE
    return segment


cdef int check_block(work_t* work, entry_t* entries, uint64_t count) noexcept nogil:
    """CONSISTENT, or the kind of the contradiction that `work.finding` then tells. Sorts `entries`."""
    cdef uint64_t first = 0, stop, i
    cdef segment_t* segment
    cdef int kind
    sort_entries(entries, count)
    work.segment_count = work.cluster_count = 0
    while first < count:
        stop = first
        while stop < count and entries[stop].segment == entries[first].segment:
            stop += 1
        segment = open_segment(work, &entries[first], stop - first)
        for i in range(first, stop):
            if entries[i].is_read:
                kind = place_read(work, segment, &entries[i])
                if kind:
                    return kind
        kind = check_zones(work, segment)
        if kind:
            return kind
        if stop < count:
            close_segment(work, segment)
        first = stop
    return CONSISTENT
