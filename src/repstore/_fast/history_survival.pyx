"""Which contents of a block may have survived a power cut: see Z4 of history_zones.pyx."""
from libc.stdint cimport INT64_MAX, int64_t, uint32_t, uint64_t

from repstore._fast.history_clusters cimport (
    CHAIN, DURABLE, HAPPENED, INITIAL, NONE, UNKNOWN, WAS_READ, cluster_t, find_group, key_t, segment_t,
    sort_clusters, sort_keys, work_t,
)


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
        sort_clusters(&work.clusters[segment.first], count)
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
        # one that nobody read and nobody was told of may as well never have happened
        if work.clusters[which].flags & DURABLE and work.clusters[which].flags & (HAPPENED | WAS_READ):
            if segment.durable == NONE:
                segment.durable = which
            elif segment.second_durable == NONE:
                segment.second_durable = which
