"""What is known of one block of a history while it is judged; the rules stand in history_zones.pyx."""
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t


cdef enum:
    HAPPENED = 1             # acknowledged
    DURABLE = 2              # a flush or FUA covers it, if it happened
    USED = 4                 # it says something about blocks
    WAS_READ = 8

    CHAIN = 4                # clusters a finding names


cdef enum finding_kind:
    CONSISTENT, UNWRITTEN, FUTURE, STALE, CROSSED, LOST, DISAGREED


cdef extern from *:
    """
    #define REPSTORE_HISTORY_NONE UINT32_MAX
    #define REPSTORE_HISTORY_INITIAL (UINT32_MAX - 1)
    #define REPSTORE_HISTORY_UNKNOWN UINT64_MAX
    """
    const uint32_t NONE "REPSTORE_HISTORY_NONE"
    const uint32_t INITIAL "REPSTORE_HISTORY_INITIAL"          # what was there at first
    const uint64_t UNKNOWN "REPSTORE_HISTORY_UNKNOWN"


cdef struct entry_t:         # one operation on one block
    int64_t begin
    int64_t end              # it was over by then; not acknowledged: it happened by then, or never
    uint64_t value
    uint32_t operation
    uint16_t segment         # power cuts before it
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
    uint32_t witness         # a read of it, so it happened; NONE
    uint32_t head            # of a group of equal values, kept at its first: the living ones
    uint32_t next
    uint8_t flags
    uint8_t survival         # of a group, kept at its first: 0 not asked yet, 1 no, 2 yes


cdef struct key_t:
    int64_t key
    uint32_t cluster


cdef struct segment_t:       # what happened to the block between two power cuts
    cluster_t initial
    bint initial_known
    uint64_t first           # of its clusters
    uint64_t count
    uint32_t durable         # that happened: with the latest last_begin, and the next one; NONE
    uint32_t second_durable
    uint16_t number


cdef packed struct finding_t:
    uint64_t block
    uint64_t value
    uint32_t read
    uint32_t clusters[CHAIN][4]     # write, operation that ended first, one that began last, a read
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


cdef void sort_keys(key_t* keys, uint64_t count) noexcept nogil
cdef void sort_entries(entry_t* entries, uint64_t count) noexcept nogil
cdef void sort_clusters(cluster_t* clusters, uint64_t count) noexcept nogil
cdef uint64_t find_group(const work_t* work, const segment_t* segment, uint64_t value) noexcept nogil
