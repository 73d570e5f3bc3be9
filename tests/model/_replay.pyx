"""Which states of the model fit what was seen next: one view of a trace after the other.

A view is what can be seen of a cluster from outside: of the config its epoch, primary and in-sync set; of
each node the epoch it is sealed at, the LSNs in its log, the epoch it leads, who counts and who learns there,
and the LSNs it acknowledged. Numbers of LSNs are ranges: what a node has may be seen later than it is there.
"""
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcmp, memcpy, memset

cimport tests.model.membership as membership
from tests.model.steps cimport (
    PAIR, STEP_COUNT, STEP_FLUSH, STEP_REPLY_FLUSH, arguments, is_crash, kind_of, take,
)
from tests.model.world cimport (
    EPOCHS_MAX, LEADER, LSNS_MAX, NODES_MAX, NO_LEARNER, begin, bounds_t, node_t, world_t,
)

cdef enum:
    NOT_SEEN = 0xFFFFFFFF
    ANY_CRASHES = 255
    ENTRIES_MAX = 1 << 24
    STEPS_MAX = 4096               # more than one entry can lead to
    FAR = 63                       # steps left to what is looked for, at most

ctypedef struct seen_node_t:
    uint8_t sealed
    uint8_t last_least
    uint8_t last_most
    uint8_t leads
    uint8_t counting
    uint8_t learners
    uint8_t done_least
    uint8_t done_most

ctypedef struct seen_t:
    uint8_t epoch
    uint8_t primary
    uint8_t in_sync
    seen_node_t nodes[NODES_MAX]

ctypedef struct entry_t:
    world_t world
    uint64_t crashed               # the crash of this view has happened; 8 bytes: an entry is whole words


cdef class Follower:
    """The states that fit a trace so far, and how they go on. One thread at a time."""
    cdef bounds_t bounds
    cdef entry_t* entries          # of one view: the queue, and what was seen
    cdef uint32_t* table
    cdef uint32_t* following       # in its queue
    cdef uint32_t[FAR + 1] first   # of the queues, by steps that are left
    cdef uint32_t[FAR + 1] newest
    cdef uint64_t entries_max
    cdef uint64_t count
    cdef uint64_t found
    cdef uint64_t slots

    def __init__(self, int nodes, int lsns, uint64_t entries_max):
        if not (2 <= nodes <= NODES_MAX and 1 <= lsns <= LSNS_MAX and entries_max <= ENTRIES_MAX):
            raise ValueError(f"{nodes} nodes, {lsns} LSNs, {entries_max} entries: must be 2 to {NODES_MAX}, "
                             f"1 to {LSNS_MAX}, at most {ENTRIES_MAX}")
        self.bounds = bounds_t(nodes, lsns, EPOCHS_MAX, ANY_CRASHES, 0)
        self.entries_max = entries_max
        self.slots = 1
        while self.slots < 2 * (entries_max + STEPS_MAX):
            self.slots *= 2
        self.entries = <entry_t*>malloc((entries_max + STEPS_MAX) * sizeof(entry_t))
        self.table = <uint32_t*>malloc(self.slots * sizeof(uint32_t))
        self.following = <uint32_t*>malloc((entries_max + STEPS_MAX) * sizeof(uint32_t))
        if self.entries == NULL or self.table == NULL or self.following == NULL:
            raise MemoryError(f"{entries_max} entries")

    def __dealloc__(self):
        free(self.entries)
        free(self.table)
        free(self.following)

    def at_rest(self, int last, flushed):
        """Epoch 1, led by node 0, everybody in sync; `last` LSNs are written by all and acknowledged, of which
        each node has flushed as many as `flushed` says."""
        cdef world_t world
        cdef node_t* node
        cdef int i
        begin(&world, &self.bounds)
        memset(world.ever, 0, sizeof(world.ever))
        for i in range(last):
            world.ever[i] = 1 << 1
        for i in range(self.bounds.nodes):
            node = &world.nodes[i]
            node.last = last
            node.flushed = flushed[i]
            memset(node.log, 1, last)
            world.nodes[0].acked[i] = last if i else 0
            world.nodes[0].durable[i] = node.flushed if i else 0
        world.nodes[0].acknowledged = last
        world.nodes[0].linked = world.nodes[0].installed
        return <bytes>(<char*>&world)[:sizeof(world_t)]

    def follow(self, states, before, after, crash, bint flushes, uint64_t wanted):
        """Up to `wanted` states that `after` shows, reached from `states` (which `before` shows); and whether
        all that could be were looked at, if there is none: about `entries_max` at most are.

        `crash` is None or the (step, node) that has to happen on the way, and may not happen else. Without
        `flushes` nothing is flushed but by who joins: it matters to power cuts alone.
        """
        cdef seen_t old = seen_of(before), new = seen_of(after)
        cdef int crash_step = -1 if crash is None else crash[0], crash_node = -1 if crash is None else crash[1]
        cdef entry_t entry
        cdef uint64_t i
        cdef bint whole
        cdef bytes state
        self.count = 0
        memset(self.table, 0xFF, self.slots * sizeof(uint32_t))
        memset(&entry, 0, sizeof(entry_t))
        entry.crashed = crash is None
        for state in states[:self.entries_max]:
            memcpy(&entry.world, <char*>state, sizeof(world_t))
            self.add(&entry)
        with nogil:
            whole = self.search(&old, &new, crash_step, crash_node, flushes, wanted)
        found = []
        for i in range(self.count):
            if distance(&self.entries[i], &self.bounds, &new) == 0:
                found.append(<bytes>(<char*>&self.entries[i].world)[:sizeof(world_t)])
        return found, whole

    cdef bint search(self, const seen_t* old, const seen_t* new, int crash_step, int crash_node, bint flushes,
                     uint64_t wanted) noexcept nogil:
        """What is nearest to the new view goes on first."""
        cdef uint64_t i
        cdef int near
        for near in range(FAR + 1):
            self.first[near] = self.newest[near] = NOT_SEEN
        self.found = 0
        for i in range(self.count):
            self.put(i, new)
        near = 0
        while near <= FAR and self.found < wanted:
            if self.first[near] == NOT_SEEN:
                near += 1
                continue
            if self.count > self.entries_max:
                return False
            i = self.first[near]
            self.first[near] = self.following[i]
            self.expand(i, old, new, crash_step, crash_node, flushes)
            near = 0
        return True

    cdef void put(self, uint64_t i, const seen_t* new) noexcept nogil:
        """Into the queue of all that are as near."""
        cdef int near = distance(&self.entries[i], &self.bounds, new)
        self.found += near == 0
        self.following[i] = NOT_SEEN
        if self.first[near] == NOT_SEEN:
            self.first[near] = <uint32_t>i
        else:
            self.following[self.newest[near]] = <uint32_t>i
        self.newest[near] = <uint32_t>i

    cdef void expand(self, uint64_t i, const seen_t* old, const seen_t* new, int crash_step, int crash_node,
                     bint flushes) noexcept nogil:
        """Every step from one entry."""
        cdef entry_t entry, base
        cdef int s, a, b
        memcpy(&base, &self.entries[i], sizeof(entry_t))
        memcpy(&entry, &base, sizeof(entry_t))
        for s in range(STEP_COUNT):
            if is_crash(s) and (base.crashed or s != crash_step):
                continue
            if not flushes and (s == STEP_FLUSH or s == STEP_REPLY_FLUSH):
                continue
            for a in range(self.bounds.nodes):
                if is_crash(s) and a != crash_node:
                    continue
                for b in range(arguments(s, &self.bounds)):
                    if (kind_of(s) == PAIR and a == b) or not take(s, &entry.world, &self.bounds, a, b):
                        continue
                    if is_between(&entry.world, &self.bounds, old, new):
                        forget_clients(&entry.world, &self.bounds)
                        if is_crash(s):
                            entry.crashed = True
                        if self.add(&entry):
                            self.put(self.count - 1, new)
                    memcpy(&entry, &base, sizeof(entry_t))

    cdef bint add(self, const entry_t* entry) noexcept nogil:
        """Whether it was new."""
        cdef uint64_t slot = self.find(entry)
        if self.table[slot] != NOT_SEEN:
            return False
        self.table[slot] = <uint32_t>self.count
        memcpy(&self.entries[self.count], entry, sizeof(entry_t))
        self.count += 1
        return True

    cdef uint64_t find(self, const entry_t* entry) noexcept nogil:
        cdef const uint64_t* words = <const uint64_t*>entry
        cdef uint64_t hashed = 0
        cdef size_t i
        for i in range(sizeof(entry_t) // sizeof(uint64_t)):
            hashed = (hashed ^ words[i]) * <uint64_t>0x9E3779B97F4A7C15
            hashed ^= hashed >> 29
        hashed &= self.slots - 1
        while self.table[hashed] != NOT_SEEN and memcmp(&self.entries[self.table[hashed]], entry, sizeof(entry_t)):
            hashed = (hashed + 1) & (self.slots - 1)
        return hashed

    def view(self, bytes state):
        """What can be seen of a state, as a view whose ranges are points."""
        cdef world_t world
        cdef node_t* node
        cdef int i
        memcpy(&world, <char*>state, sizeof(world_t))
        nodes = []
        for i in range(self.bounds.nodes):
            node = &world.nodes[i]
            done = node.acknowledged if node.role == LEADER else 0
            nodes.append((node.sealed, node.last, node.last, led_by(node), counting_at(node),
                          learners_of(node, &self.bounds), done, done))
        return (world.epoch, world.primary, world.in_sync), tuple(nodes)


cdef seen_t seen_of(view):
    """A view as C has it: ((epoch, primary, in-sync set), a tuple like seen_node_t for each node)."""
    cdef seen_t seen
    cdef int i
    memset(&seen, 0, sizeof(seen_t))
    seen.epoch, seen.primary, seen.in_sync = view[0]
    for i, node in enumerate(view[1]):
        (seen.nodes[i].sealed, seen.nodes[i].last_least, seen.nodes[i].last_most, seen.nodes[i].leads,
         seen.nodes[i].counting, seen.nodes[i].learners, seen.nodes[i].done_least, seen.nodes[i].done_most) = node
    return seen


cdef uint8_t led_by(const node_t* node) noexcept nogil:
    return node.epoch if node.role == LEADER else 0


cdef uint8_t counting_at(const node_t* node) noexcept nogil:
    return node.installed if node.role == LEADER else 0


cdef uint8_t learners_of(const node_t* node, const bounds_t* bounds) noexcept nogil:
    cdef uint8_t learners = 0
    cdef int i
    if node.role == LEADER:
        for i in range(bounds.nodes):
            learners |= (node.phase[i] != NO_LEARNER) << i
    return learners


cdef int distance(const entry_t* entry, const bounds_t* bounds, const seen_t* new) noexcept nogil:
    """About how many steps are left to the new view; 0: it is what the state looks like, and the crash has
    happened."""
    cdef const world_t* world = &entry.world
    cdef const node_t* node
    cdef const seen_node_t* will
    cdef int i, done, left = entry.crashed == 0
    left += (world.epoch != new.epoch) + (world.primary != new.primary) + differs(world.in_sync, new.in_sync)
    for i in range(bounds.nodes):
        node = &world.nodes[i]
        will = &new.nodes[i]
        done = node.acknowledged if node.role == LEADER else 0
        left += (node.sealed != will.sealed) + (led_by(node) != will.leads)
        left += differs(counting_at(node), will.counting) + differs(learners_of(node, bounds), will.learners)
        left += outside(node.last, will.last_least, will.last_most)
        left += outside(done, will.done_least, will.done_most)
    return min(left, FAR)


cdef inline int outside(int value, int least, int most) noexcept nogil:
    return max(0, max(least - value, value - most))


cdef inline int differs(int members, int wanted) noexcept nogil:
    """In how many members two sets differ."""
    cdef int i, count = 0
    for i in range(NODES_MAX):
        count += (members ^ wanted) >> i & 1
    return count


cdef bint is_between(const world_t* world, const bounds_t* bounds, const seen_t* old, const seen_t* new) noexcept nogil:
    """Whether everything that can be seen is as it was, or as it will be, or on its way."""
    cdef const seen_node_t* was
    cdef const seen_node_t* will
    cdef const node_t* node
    cdef int i
    cdef uint8_t done
    if not (is_one_of(world.epoch, old.epoch, new.epoch) and is_one_of(world.primary, old.primary, new.primary)
            and is_within(world.in_sync, old.in_sync, new.in_sync)):
        return False
    for i in range(bounds.nodes):
        node = &world.nodes[i]
        was = &old.nodes[i]
        will = &new.nodes[i]
        done = node.acknowledged if node.role == LEADER else 0
        if not (is_one_of(node.sealed, was.sealed, will.sealed)
                and min(was.last_least, will.last_least) <= node.last <= max(was.last_most, will.last_most)
                and is_one_of(led_by(node), was.leads, will.leads)
                and is_within(counting_at(node), was.counting, will.counting)
                and is_within(learners_of(node, bounds), was.learners, will.learners)
                and min(was.done_least, will.done_least) <= done <= max(was.done_most, will.done_most)):
            return False
    return True


cdef inline bint is_one_of(int value, int old, int new) noexcept nogil:
    return value == old or value == new


cdef inline bint is_within(int members, int old, int new) noexcept nogil:
    """Whether a set lies between two: several may enter or leave at once, in any order."""
    return not (members & ~(old | new)) and not (old & new & ~members)


cdef void forget_clients(world_t* world, const bounds_t* bounds) noexcept nogil:
    """What clients were promised decides nothing that can be seen."""
    membership.forget_the_past(world, bounds)
    memset(world.acked, 0, sizeof(world.acked))
    memset(world.durable, 0, sizeof(world.durable))
    world.contradiction = 0
