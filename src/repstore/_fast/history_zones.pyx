"""Whether every block of a history is one register: zones, and what a crash may leave.

Gibbons and Korach, "Testing shared memories" (SICOMP 1997), for one block between two crashes:
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
     unknown one (the first read tells it), or, after a crash, of one that may have survived.
  Z4 after a crash value v may have survived where no durable write d is forced after v. Forced
     is what begins, in any of its operations, after a cluster ended that is v or forced itself.
     A write that was not acknowledged must, to survive, lie inside no zone of another value.
  Z5 the first contradiction of a block is told; what follows it in that block is not looked at.
"""
from libc.stdint cimport INT64_MAX, INT64_MIN, UINT32_MAX, UINT64_MAX, int64_t, uint8_t, uint16_t
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, qsort
from libc.string cimport memset

from repstore._fast.history_lines cimport KIND_READ, operation_t

import numpy


cdef enum:
    HAPPENED = 1             # acknowledged
    DURABLE = 2              # and a flush, FUA or the kept incarnation covers it
    USED = 4                 # it says something about blocks
    WAS_READ = 8

    CHAIN = 4                # clusters a finding names
    SKIPPED_MAX = 64         # unknown writes that do not fit, looked at for one read

cdef enum finding_kind:
    CONSISTENT, UNWRITTEN, FUTURE, STALE, CROSSED, LOST, DISAGREED

cdef uint32_t NONE = UINT32_MAX
cdef uint32_t INITIAL = UINT32_MAX - 1
cdef uint64_t UNKNOWN = UINT64_MAX

cdef struct entry_t:         # one operation on one block
    int64_t begin
    int64_t end              # not acknowledged: it happened before this, or never
    uint64_t value
    uint32_t operation
    uint16_t segment         # crashes before it
    uint8_t is_read
    uint8_t flags

cdef struct cluster_t:
    uint64_t value
    uint64_t seen            # of an unknown value: what reads brought
    int64_t begin
    int64_t end
    int64_t first_end
    int64_t last_begin
    uint32_t operation
    uint32_t first_end_operation
    uint32_t last_begin_operation
    uint32_t head            # of a group of equal values, kept at its first: the living ones
    uint32_t next
    uint8_t flags
    uint8_t survival         # of a group, kept at its first: 0 not asked yet, 1 no, 2 yes

cdef struct key_t:
    int64_t key
    uint32_t cluster

cdef struct segment_t:       # what happened to the block between two crashes
    cluster_t initial
    bint initial_known
    uint64_t first           # of its clusters
    uint64_t count
    uint32_t durable         # with the latest last_begin, and the next one; NONE
    uint32_t second_durable
    uint16_t number

cdef packed struct finding_t:
    uint64_t block
    uint64_t value
    uint32_t read
    uint32_t clusters[CHAIN][3]     # write, operation that ended first, operation that began last
    uint16_t segment                # of the read, or of the clusters
    uint16_t older_segment          # of what should have survived
    uint8_t kind

cdef struct work_t:
    cluster_t* clusters
    key_t* by_end            # of the segment under way
    key_t* by_last_begin     # beside the clusters, for each segment of its own
    int64_t* least_end       # over by_last_begin from here on
    uint32_t* least_cluster
    segment_t* segments
    uint64_t segment_count
    uint64_t cluster_count
    uint64_t ended           # of by_end: ended before the read under way
    uint64_t acknowledged
    int64_t alive_from       # what ended before this is dead
    uint32_t killer
    bint initial_known
    uint64_t initial_value
    uint64_t undecided
    finding_t* finding

_finding_t = numpy.dtype([
    ("block", "<u8"), ("value", "<u8"), ("read", "<u4"), ("clusters", "<u4", (CHAIN, 3)),
    ("segment", "<u2"), ("older_segment", "<u2"), ("kind", "u1")])
if _finding_t.itemsize != sizeof(finding_t):
    raise ImportError("repstore was built with another form of findings")
FINDING_DTYPE = _finding_t
FINDING_KINDS = ("consistent", "unwritten", "future", "stale", "crossed", "lost", "disagreed")
FLAG_HAPPENED, FLAG_DURABLE, FLAG_USED = HAPPENED, DURABLE, USED
NO_OPERATION, INITIAL_CONTENT = NONE, INITIAL


# ------------------------------------------------------------------------------------ sorting
cdef int compare_entries(const void* a, const void* b) noexcept nogil:
    cdef const entry_t* x = <const entry_t*>a
    cdef const entry_t* y = <const entry_t*>b
    if x.begin != y.begin:
        return -1 if x.begin < y.begin else 1
    return -1 if x.operation < y.operation else x.operation > y.operation


cdef int compare_clusters(const void* a, const void* b) noexcept nogil:
    cdef const cluster_t* x = <const cluster_t*>a
    cdef const cluster_t* y = <const cluster_t*>b
    if x.value != y.value:
        return -1 if x.value < y.value else 1
    if x.begin != y.begin:
        return -1 if x.begin < y.begin else 1
    return -1 if x.operation < y.operation else x.operation > y.operation


cdef int compare_keys(const void* a, const void* b) noexcept nogil:
    cdef const key_t* x = <const key_t*>a
    cdef const key_t* y = <const key_t*>b
    if x.key != y.key:
        return -1 if x.key < y.key else 1
    return -1 if x.cluster < y.cluster else x.cluster > y.cluster


cdef void sort_keys(key_t* keys, uint64_t count) noexcept nogil:
    """Short rows by insertion: most blocks have few operations."""
    cdef uint64_t i, j
    cdef key_t held
    if count > 24:
        qsort(keys, count, sizeof(key_t), compare_keys)
        return
    for i in range(1, count):
        held = keys[i]
        j = i
        while j > 0 and compare_keys(&held, &keys[j - 1]) < 0:
            keys[j] = keys[j - 1]
            j -= 1
        keys[j] = held


cdef void sort_entries(entry_t* entries, uint64_t count) noexcept nogil:
    cdef uint64_t i, j
    cdef entry_t held
    if count > 24:
        qsort(entries, count, sizeof(entry_t), compare_entries)
        return
    for i in range(1, count):
        held = entries[i]
        j = i
        while j > 0 and compare_entries(&held, &entries[j - 1]) < 0:
            entries[j] = entries[j - 1]
            j -= 1
        entries[j] = held


# ------------------------------------------------------------------------- groups of equal values
cdef inline uint64_t find_group(const work_t* work, const segment_t* segment, uint64_t value) noexcept nogil:
    """The first cluster of this value, as an index into `clusters`; the segment's end if none."""
    cdef uint64_t low = segment.first, high = segment.first + segment.count, middle
    cdef uint64_t stop = high
    while low < high:
        middle = (low + high) // 2
        if work.clusters[middle].value < value:
            low = middle + 1
        else:
            high = middle
    return low if low < stop and work.clusters[low].value == value else stop


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


# ------------------------------------------------------------------------------------ after a crash
cdef inline uint64_t first_after(const work_t* work, const segment_t* segment, int64_t time) noexcept nogil:
    """Of by_last_begin, the first whose last_begin is after `time`."""
    cdef uint64_t low = segment.first, high = segment.first + segment.count, middle
    while low < high:
        middle = (low + high) // 2
        if work.by_last_begin[middle].key <= time:
            low = middle + 1
        else:
            high = middle
    return low


cdef uint32_t excluded_by(const work_t* work, const segment_t* segment, uint32_t which) noexcept nogil:
    """A cluster inside whose zone an unacknowledged write lies, so that it never happened; INITIAL
    for what was there at first, NONE if it may have happened."""
    cdef const cluster_t* cluster = &work.clusters[which]
    cdef uint64_t at
    if cluster.flags & (HAPPENED | WAS_READ):
        return NONE
    if segment.initial.last_begin > cluster.end:
        return INITIAL
    at = first_after(work, segment, cluster.end)
    if at < segment.first + segment.count and work.least_end[at] < cluster.begin:
        return work.least_cluster[at]
    return NONE


cdef bint may_survive(const work_t* work, const segment_t* segment, uint32_t which, uint32_t* chain,
                      int* links) noexcept nogil:
    """Z4. `chain` gets the clusters through which a durable one is forced, ending with it."""
    cdef int64_t until = work.clusters[which].first_end
    cdef uint64_t stop = segment.first + segment.count, at
    cdef uint32_t durable = segment.durable
    links[0] = 0
    if durable == which:
        durable = segment.second_durable
    if durable == NONE:
        return True
    while work.clusters[durable].last_begin <= until:
        at = first_after(work, segment, until)
        if at == stop or work.least_end[at] >= until:
            return True
        until = work.least_end[at]
        if links[0] < CHAIN - 2:
            chain[links[0]] = work.least_cluster[at]
            links[0] += 1
    chain[links[0]] = durable
    links[0] += 1
    return False


cdef bint group_may_survive(work_t* work, const segment_t* segment, uint64_t value) noexcept nogil:
    cdef uint64_t group = find_group(work, segment, value), at = group, stop = segment.first + segment.count
    cdef uint32_t[CHAIN] chain
    cdef int links
    if group == stop:
        return False
    if work.clusters[group].survival == 0:
        work.clusters[group].survival = 1
        while at < stop and work.clusters[at].value == value:
            if (excluded_by(work, segment, <uint32_t>at) == NONE
                    and may_survive(work, segment, <uint32_t>at, chain, &links)):
                work.clusters[group].survival = 2
                break
            at += 1
    return work.clusters[group].survival == 2


cdef bint initial_allows(work_t* work, uint64_t number, uint64_t value) noexcept nogil:
    """Whether segment `number` may have begun with this value (Z3)."""
    cdef const segment_t* segment
    while True:
        segment = &work.segments[number]
        if segment.initial_known:
            return segment.initial.value == value
        if number == 0:
            return True
        number -= 1
        segment = &work.segments[number]
        if group_may_survive(work, segment, value) or group_may_survive(work, segment, UNKNOWN):
            return True
        if segment.durable != NONE:
            return False


cdef void close_segment(work_t* work, segment_t* segment) noexcept nogil:
    """Prepare the questions of Z4. Unknown writes that were read have a value by now. Those that
    may not have happened are in it too: they force nothing, for all that ends in them began before."""
    cdef uint64_t i, count = segment.count, stop = segment.first + segment.count
    cdef int64_t least = INT64_MAX
    cdef uint32_t which, least_cluster = NONE
    cdef key_t* keys = &work.by_last_begin[segment.first]
    if find_group(work, segment, UNKNOWN) < stop:
        for i in range(segment.first, stop):
            if work.clusters[i].value == UNKNOWN:
                work.clusters[i].value = work.clusters[i].seen
        qsort(&work.clusters[segment.first], count, sizeof(cluster_t), compare_clusters)
    for i in range(count):
        keys[i].cluster = <uint32_t>(segment.first + i)
        keys[i].key = work.clusters[segment.first + i].last_begin
    sort_keys(keys, count)
    while count > 0:
        count -= 1
        which = keys[count].cluster
        if work.clusters[which].first_end < least:
            least = work.clusters[which].first_end
            least_cluster = which
        work.least_end[segment.first + count] = least
        work.least_cluster[segment.first + count] = least_cluster
        if work.clusters[which].flags & DURABLE:
            if segment.durable == NONE:
                segment.durable = which
            elif segment.second_durable == NONE:
                segment.second_durable = which


# ------------------------------------------------------------------------------------ findings
cdef void name_cluster(finding_t* finding, int place, const cluster_t* cluster) noexcept nogil:
    finding.clusters[place][0] = cluster.operation
    finding.clusters[place][1] = cluster.first_end_operation
    finding.clusters[place][2] = cluster.last_begin_operation


cdef void begin_finding(finding_t* finding, int kind, const segment_t* segment) noexcept nogil:
    cdef uint64_t block = finding.block
    memset(finding, 0xff, sizeof(finding_t))
    finding.block = block
    finding.kind = <uint8_t>kind
    finding.segment = segment.number


cdef bint find_older(work_t* work, uint64_t number, uint64_t value, uint64_t* older, uint32_t* which) noexcept nogil:
    """The latest write of the value before segment `number`, or INITIAL of segment 0."""
    cdef uint64_t at, stop
    cdef const segment_t* segment
    while number > 0:
        number -= 1
        segment = &work.segments[number]
        at, stop = find_group(work, segment, value), segment.first + segment.count
        if at < stop:
            while at + 1 < stop and work.clusters[at + 1].value == value:
                at += 1
            older[0], which[0] = number, <uint32_t>at
            return True
    older[0], which[0] = 0, INITIAL
    return not work.initial_known or work.initial_value == value


cdef int explain_disagreed(work_t* work, const segment_t* segment, uint32_t which) noexcept nogil:
    """The segment began with another value, as a read of it told."""
    work.finding.kind = DISAGREED
    work.finding.older_segment = segment.number
    name_cluster(work.finding, 0, &segment.initial)
    if which != INITIAL:
        name_cluster(work.finding, 1, &work.clusters[which])
    return DISAGREED


cdef int explain_lost(work_t* work, uint64_t number, uint64_t older, uint32_t which) noexcept nogil:
    """Why the value of segment `older` cannot have been there when segment `number` began."""
    cdef finding_t* finding = work.finding
    cdef uint32_t[CHAIN] chain
    cdef int links = 0, i
    cdef uint64_t at = older
    cdef uint32_t excluding = NONE
    cdef segment_t* segment = &work.segments[older]
    finding.kind = LOST
    finding.older_segment = work.segments[older].number
    name_cluster(finding, 0, &segment.initial if which == INITIAL else &work.clusters[which])
    if which != INITIAL:
        excluding = excluded_by(work, segment, which)
    if excluding != NONE:
        name_cluster(finding, 1, &segment.initial if excluding == INITIAL else &work.clusters[excluding])
        finding.kind = CROSSED
        return CROSSED
    if which != INITIAL and not may_survive(work, &work.segments[older], which, chain, &links):
        for i in range(links):
            name_cluster(finding, i + 1, &work.clusters[chain[i]])
        return LOST
    if which != INITIAL:
        at += 1                                # what happened in its own segment allows it
    while at <= number:
        segment = &work.segments[at]
        if segment.initial_known and segment.initial.value != finding.value:
            return explain_disagreed(work, segment, which)
        if segment.durable != NONE:
            name_cluster(finding, 1, &work.clusters[segment.durable])
            return LOST
        at += 1
    return LOST


cdef int explain_read(work_t* work, segment_t* segment, const entry_t* read) noexcept nogil:
    """No write fits a read: which kind of contradiction that is, with whom."""
    cdef uint64_t number = work.segment_count - 1, older = 0, at, stop = segment.first + segment.count
    cdef uint32_t which = NONE
    cdef finding_t* finding = work.finding
    begin_finding(finding, UNWRITTEN, segment)
    finding.read = read.operation
    finding.value = read.value
    at = find_group(work, segment, read.value)
    if at < stop:
        name_cluster(finding, 0, &work.clusters[at])
        if work.clusters[at].begin > read.end:
            finding.kind = FUTURE
            return FUTURE
        while at < stop and work.clusters[at].value == read.value and work.clusters[at].begin <= read.end:
            name_cluster(finding, 0, &work.clusters[at])
            at += 1
    elif not find_older(work, number, read.value, &older, &which):
        return UNWRITTEN
    elif work.ended == 0:
        return explain_lost(work, number, older, which)
    else:
        name_cluster(finding, 0, &work.clusters[which] if which != INITIAL else &segment.initial)
    finding.kind = STALE
    name_cluster(finding, 1, &work.clusters[work.killer])
    return STALE


# ------------------------------------------------------------------------------------ one segment
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
    if read.end < cluster.first_end:
        cluster.first_end = read.end
        cluster.first_end_operation = read.operation
    if read.begin > cluster.last_begin:
        cluster.last_begin = read.begin
        cluster.last_begin_operation = read.operation
    return CONSISTENT


cdef int crossed(work_t* work, const segment_t* segment, const cluster_t* a, const cluster_t* b) noexcept nogil:
    begin_finding(work.finding, CROSSED, segment)
    name_cluster(work.finding, 0, a)
    name_cluster(work.finding, 1, b)
    return CROSSED


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
            return crossed(work, segment, other, cluster)
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
            return crossed(work, segment, other, cluster)
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
        cluster.flags = entries[i].flags
    segment.count = work.cluster_count - segment.first
    qsort(&work.clusters[segment.first], segment.count, sizeof(cluster_t), compare_clusters)
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


# --------------------------------------------------------------------------------- all blocks
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
                     uint64_t block_count, uint64_t* places, entry_t* entries) noexcept nogil:
    """Every operation onto every block that was read. Without `entries` they are only counted,
    in `places`; with them `places` says where the next one of each block goes."""
    cdef uint64_t i, at, value, total = 0
    cdef const operation_t* operation
    cdef entry_t* entry
    for i in range(count):
        if not flags[i] & USED:
            continue
        operation = &operations[i]
        at = lower_bound(blocks, block_count, operation.block)
        while at < block_count and blocks[at] - operation.block < operation.count:
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
    Returns (findings, blocks with a contradiction, undecided reads, entries): at most
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
                           block_count, places, NULL)
        if total > entries_max:
            return None, 0, 0, total
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
                   block_count, places, entries)
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
    return findings[:min(bad, findings_max)], bad, work.undecided, total


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
