"""Operations and clusters of one block, sorted and found."""
from libc.stdlib cimport qsort


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


cdef void sort_clusters(cluster_t* clusters, uint64_t count) noexcept nogil:
    """By value, then by beginning: equal values are neighbours."""
    qsort(clusters, count, sizeof(cluster_t), compare_clusters)


cdef uint64_t find_group(const work_t* work, const segment_t* segment, uint64_t value) noexcept nogil:
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
