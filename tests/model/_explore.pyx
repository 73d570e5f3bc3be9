"""Every state the rules can reach, breadth first, each once whatever its nodes are called.

A state is packed (packing.pxd) and kept in one array, which is the queue as well; a hash table of
indexes finds it again.
"""
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcmp, memcpy, memset

cimport tests.model.membership as membership
from tests.model.packing cimport WORDS, canonical, packed_words, unpack
from tests.model.promises cimport KEPT, broken_promise
from tests.model.steps cimport PAIR, STEP_COUNT, arguments, kind_of, take
from tests.model.world cimport EPOCHS_MAX, LSNS_MAX, NODES_MAX, begin, bounds_t, world_t

cdef enum:
    NOT_SEEN = 0xFFFFFFFF
    CRASHES_MAX = 7


cdef class Explorer:
    """One exploration. `run` in one thread; then look at what it found."""
    cdef bounds_t bounds
    cdef int words                 # of a packed state
    cdef uint64_t* states
    cdef uint32_t* parents
    cdef uint32_t* table
    cdef uint64_t room
    cdef uint64_t slots
    cdef uint64_t memory_max
    cdef readonly uint64_t count
    cdef readonly uint64_t transitions
    cdef readonly uint64_t memory_bytes
    cdef readonly int depth
    cdef readonly bint complete
    cdef readonly int broken       # number of the promise, 0: none
    cdef readonly uint64_t broken_state

    def __init__(self, int nodes, int lsns, int epochs, int crashes, removed=(), uint64_t memory_max=1 << 30):
        if not (2 <= nodes <= NODES_MAX and 1 <= lsns <= LSNS_MAX and 1 <= epochs <= EPOCHS_MAX
                and 0 <= crashes <= CRASHES_MAX):
            raise ValueError(f"bounds {nodes}, {lsns}, {epochs}, {crashes} are beyond {NODES_MAX} nodes, "
                             f"{LSNS_MAX} LSNs, {EPOCHS_MAX} epochs, {CRASHES_MAX} crashes")
        self.bounds = bounds_t(nodes, lsns, epochs, crashes, 0)
        for rule in removed:
            self.bounds.removed |= 1 << <int>rule
        self.memory_max = memory_max

    def __dealloc__(self):
        free(self.states)
        free(self.parents)
        free(self.table)

    def run(self):
        """Explore until every state is seen, a promise is broken, or memory ends."""
        cdef world_t world
        begin(&world, &self.bounds)
        self.words = packed_words(&self.bounds)
        if self.words > WORDS:
            raise ValueError(f"a state takes {self.words} words, at most {WORDS}")
        with nogil:
            self.search(&world)

    cdef void search(self, world_t* world) noexcept nogil:
        cdef uint64_t head = 0, layer_end
        cdef uint64_t[WORDS] words
        cdef world_t next
        cdef int s, a, b
        canonical(world, &self.bounds, words, self.words)
        if not self.add(words, 0):
            return
        layer_end = 1
        while head < self.count:
            if head == layer_end:
                self.depth += 1
                layer_end = self.count
            unpack(world, self.states + head * self.words, self.words, &self.bounds)
            memcpy(&next, world, sizeof(world_t))
            for s in range(STEP_COUNT):
                for a in range(self.bounds.nodes):
                    for b in range(arguments(s, &self.bounds)):
                        if kind_of(s) == PAIR and a == b:
                            continue
                        if not take(s, &next, &self.bounds, a, b):
                            continue
                        self.transitions += 1
                        membership.forget_the_past(&next, &self.bounds)
                        canonical(&next, &self.bounds, words, self.words)
                        if not self.add(words, <uint32_t>head):
                            return
                        if self.broken == KEPT and self.count - 1 == self.newest(words):
                            self.broken = broken_promise(&next, &self.bounds)
                            if self.broken != KEPT:
                                self.broken_state = self.count - 1
                                self.depth += 1
                                return
                        memcpy(&next, world, sizeof(world_t))
            head += 1
        self.complete = True

    cdef uint64_t newest(self, const uint64_t* words) noexcept nogil:
        """Index of the newest state if it is this one, or something else."""
        if memcmp(self.states + (self.count - 1) * self.words, words, self.words * sizeof(uint64_t)) == 0:
            return self.count - 1
        return NOT_SEEN

    cdef bint add(self, const uint64_t* words, uint32_t parent) noexcept nogil:
        """Add a state if it is new. False: no memory."""
        cdef uint64_t slot
        if self.count * 3 >= self.slots * 2 and not self.grow_table():
            return False
        slot = self.find(words)
        if self.table[slot] != NOT_SEEN:
            return True
        if self.count == self.room and not self.grow_states():
            return False
        self.table[slot] = <uint32_t>self.count
        memcpy(self.states + self.count * self.words, words, self.words * sizeof(uint64_t))
        self.parents[self.count] = parent
        self.count += 1
        return True

    cdef uint64_t find(self, const uint64_t* words) noexcept nogil:
        """The slot of this state, or the empty one where it belongs."""
        cdef uint64_t hashed = 0
        cdef int i
        for i in range(self.words):
            hashed = (hashed ^ words[i]) * <uint64_t>0x9E3779B97F4A7C15
            hashed ^= hashed >> 29
        hashed &= self.slots - 1
        while self.table[hashed] != NOT_SEEN and memcmp(
                self.states + <uint64_t>self.table[hashed] * self.words, words, self.words * sizeof(uint64_t)) != 0:
            hashed = (hashed + 1) & (self.slots - 1)
        return hashed

    cdef bint grow_table(self) noexcept nogil:
        cdef uint64_t slots = self.slots * 2 if self.slots else 1 << 16, i
        if not self.affords(self.room, slots):
            return False
        free(self.table)
        self.table = <uint32_t*>calloc(slots, sizeof(uint32_t))
        if self.table == NULL:
            return False
        memset(self.table, 0xFF, slots * sizeof(uint32_t))
        self.slots = slots
        for i in range(self.count):
            self.table[self.find(self.states + i * self.words)] = <uint32_t>i
        return True

    cdef bint grow_states(self) noexcept nogil:
        cdef uint64_t room = self.room + self.room // 2 + (1 << 16)
        cdef void* states
        cdef void* parents
        if room >= NOT_SEEN or not self.affords(room, self.slots):
            return False
        states = realloc(self.states, room * self.words * sizeof(uint64_t))
        if states == NULL:
            return False
        self.states = <uint64_t*>states
        parents = realloc(self.parents, room * sizeof(uint32_t))
        if parents == NULL:
            return False
        self.parents = <uint32_t*>parents
        self.room = room
        return True

    cdef bint affords(self, uint64_t room, uint64_t slots) noexcept nogil:
        cdef uint64_t wanted = room * (self.words * sizeof(uint64_t) + 4) + slots * 4
        if wanted > self.memory_max:
            return False
        self.memory_bytes = max(self.memory_bytes, wanted)
        return True

    def path(self, uint64_t state):
        """Worlds from the first to this one, each under the names it has in the search."""
        cdef world_t world
        found = []
        while True:
            unpack(&world, self.states + state * self.words, self.words, &self.bounds)
            found.append(<bytes>(<char*>&world)[:sizeof(world_t)])
            if state == 0:
                return found[::-1]
            state = self.parents[state]

    # ------------------------------------------------------------------- one state at a time
    def initial(self):
        """The world in which every search begins, as bytes."""
        cdef world_t world
        begin(&world, &self.bounds)
        return <bytes>(<char*>&world)[:sizeof(world_t)]

    def step(self, bytes state, int number, int a, int b):
        """The world after this step, or None: it is not allowed now."""
        cdef world_t world
        memcpy(&world, <char*>state, sizeof(world_t))
        if not take(number, &world, &self.bounds, a, b):
            return None
        membership.forget_the_past(&world, &self.bounds)
        return <bytes>(<char*>&world)[:sizeof(world_t)]

    def successors(self, bytes state):
        """All (step number, a, b, world) that may come next."""
        cdef int s, a, b
        found = []
        for s in range(STEP_COUNT):
            for a in range(self.bounds.nodes):
                for b in range(arguments(s, &self.bounds)):
                    if kind_of(s) != PAIR or a != b:
                        after = self.step(state, s, a, b)
                        if after is not None:
                            found.append((s, a, b, after))
        return found

    def same(self, bytes one, bytes other):
        """Whether two worlds differ only in what their nodes are called."""
        cdef uint64_t[WORDS] first, second
        cdef world_t world
        cdef int words = packed_words(&self.bounds)
        memcpy(&world, <char*>one, sizeof(world_t))
        canonical(&world, &self.bounds, first, words)
        memcpy(&world, <char*>other, sizeof(world_t))
        canonical(&world, &self.bounds, second, words)
        return memcmp(first, second, words * sizeof(uint64_t)) == 0
