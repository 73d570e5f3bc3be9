"""What the protocol model knows of a volume: its nodes, its config, and what clients were told.

Plain values, small bounds. An entry of a log is the epoch that assigned it: only the primary of
an epoch assigns its LSNs, so (LSN, epoch) names a record. LSN 1 is index 0. A set of nodes is a
bit mask. A node that is down is one that does nothing for a while, so a crash and the start
after it are one step.
"""
from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.string cimport memset

cdef enum:
    NODES_MAX = 4
    LSNS_MAX = 16
    EPOCHS_MAX = 15
    MISSING = 0                    # a learner's LSN whose blocks have not been copied yet

cdef enum:                         # what a node is to the volume
    FOLLOWER
    CANDIDATE
    LEADER

cdef enum:                         # what a swap would do
    NO_SWAP
    PROMOTE
    EJECT
    JOIN

cdef enum:                         # how far a leader has brought a learner
    NO_LEARNER
    COPYING
    JOINING                        # counts already, asked to flush
    READY                          # said "flushed": may be proposed


ctypedef struct node_t:
    # the copy; survives the process
    uint8_t log[LSNS_MAX]
    uint8_t last                   # LSNs in the log
    uint8_t flushed                # of these sure to survive the machine
    uint8_t sealed                 # epochs below it are refused
    uint8_t learning               # incomplete, until it joins
    uint8_t stale                  # its map holds a committed block that was lost to everybody else
    uint8_t tainted                # in sync, but booted since it joined
    uint8_t failed                 # its store: until it starts again it can only leave
    # a swap on its way; it may outlive the process
    uint8_t swap
    uint8_t won                    # done; its node does not know yet
    uint8_t swap_epoch
    uint8_t swap_set
    uint8_t swap_old_boots         # of swap_set: booted since the boot that the swap names
    uint8_t swap_bumps             # a new incarnation
    # the process
    uint8_t role
    uint8_t epoch                  # led, or aimed at
    uint8_t told[NODES_MAX]        # candidate: 1 + last LSN of those who answered our seal
    uint8_t heard                  # candidate: a primary of the epoch it aims at has spoken
    uint8_t told_tainted           # of these: were tainted
    uint8_t told_old_boots         # of these: booted since
    uint8_t current                # leader, from here on: of the config's incarnation
    uint8_t acknowledged           # LSNs that clients were told of
    uint8_t installed              # the in-sync set that counts, without ourselves
    uint8_t linked                 # those whose log was shown to be a prefix in this session
    uint8_t acked[NODES_MAX]       # newest LSN each said it has written
    uint8_t durable[NODES_MAX]     # and flushed
    uint8_t phase[NODES_MAX]
    uint8_t lost                   # learners whose session ended, unnoticed
    uint8_t old_boots              # learners that booted since they began


ctypedef struct world_t:
    node_t nodes[NODES_MAX]
    # the config in the coordination store
    uint8_t epoch
    uint8_t primary
    uint8_t in_sync
    uint8_t first[EPOCHS_MAX + 1]  # lineage: 1 + LSNs below the epoch's first; 0: no such epoch
    uint16_t dead                  # lineage: epochs that left no record
    # what clients know
    uint8_t acked[LSNS_MAX]        # entry acknowledged in this incarnation, or 0
    uint8_t durable[LSNS_MAX]      # entry covered by a flush that was answered, or 0
    uint16_t ever[LSNS_MAX]        # entries ever acknowledged
    uint8_t contradiction          # two different entries were promised for one LSN
    uint8_t crashes                # still allowed


ctypedef struct bounds_t:
    uint8_t nodes
    uint8_t lsns
    uint8_t epochs
    uint8_t crashes
    uint32_t removed               # rules, by bit


cdef inline int bit(int node) noexcept nogil:
    return 1 << node


cdef inline bint has(int nodes, int node) noexcept nogil:
    return nodes >> node & 1


cdef inline bint keeps(const bounds_t* bounds, int rule) noexcept nogil:
    """Whether the rule of this number is in force."""
    return not bounds.removed >> rule & 1


cdef inline void begin(world_t* world, const bounds_t* bounds) noexcept nogil:
    """Epoch 1, led by node 0, everybody in sync, nothing written."""
    cdef int i
    memset(world, 0, sizeof(world_t))
    world.epoch = 1
    world.in_sync = (1 << bounds.nodes) - 1
    world.first[1] = 1
    world.crashes = bounds.crashes
    for i in range(bounds.nodes):
        world.nodes[i].sealed = 1
    world.nodes[0].role = LEADER
    world.nodes[0].epoch = 1
    world.nodes[0].current = True
    world.nodes[0].installed = world.in_sync & ~1
