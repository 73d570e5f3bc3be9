"""Which operations contradict each other, once it is known that some do."""
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memset

from repstore._fast.history_clusters cimport (
    CHAIN, CROSSED, DISAGREED, FUTURE, INITIAL, LOST, NONE, STALE, UNWRITTEN, cluster_t, entry_t, find_group,
    finding_t, segment_t, work_t,
)
from repstore._fast.history_survival cimport excluded_by, may_survive

import numpy

_finding_t = numpy.dtype([
    ("block", "<u8"), ("value", "<u8"), ("read", "<u4"), ("clusters", "<u4", (CHAIN, 4)),
    ("segment", "<u2"), ("older_segment", "<u2"), ("kind", "u1")])
if _finding_t.itemsize != sizeof(finding_t):
    raise ImportError("repstore was built with another form of findings")
FINDING_DTYPE = _finding_t
FINDING_KINDS = ("consistent", "unwritten", "future", "stale", "crossed", "lost", "disagreed")
NO_OPERATION, INITIAL_CONTENT = NONE, INITIAL


cdef void name_cluster(finding_t* finding, int place, const cluster_t* cluster) noexcept nogil:
    finding.clusters[place][0] = cluster.operation
    finding.clusters[place][1] = cluster.first_end_operation
    finding.clusters[place][2] = cluster.last_begin_operation
    finding.clusters[place][3] = cluster.witness


cdef void begin_finding(finding_t* finding, int kind, const segment_t* segment) noexcept nogil:
    cdef uint64_t block = finding.block
    memset(finding, 0xff, sizeof(finding_t))
    finding.block = block
    finding.kind = <uint8_t>kind
    finding.segment = segment.number


cdef bint find_older(work_t* work, uint64_t number, uint64_t value, uint64_t* older,
                     uint32_t* which) noexcept nogil:
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


cdef int explain_crossed(work_t* work, const segment_t* segment, const cluster_t* a,
                         const cluster_t* b) noexcept nogil:
    """Two clusters that come before each other."""
    begin_finding(work.finding, CROSSED, segment)
    name_cluster(work.finding, 0, a)
    name_cluster(work.finding, 1, b)
    return CROSSED
