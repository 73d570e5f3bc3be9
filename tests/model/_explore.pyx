"""Every state the rules can reach, breadth first, each once whatever its nodes are called.

A state is packed into 64-bit words and kept in one array, which is the queue as well; a hash table
of indexes finds it again. Nodes are interchangeable: of all namings the one that packs smallest
stands for the state, and a key of what each node is sorts out most namings beforehand.
"""
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcmp, memcpy, memset

cimport tests.model.membership as membership
cimport tests.model.rules as rules
from tests.model.promises cimport KEPT, broken_promise
from tests.model.world cimport (
    CANDIDATE, LEADER, EPOCHS_MAX, LSNS_MAX, NODES_MAX, NO_SWAP, bounds_t, has, node_t, world_t,
)

cdef enum:
    WORDS = 8
    NOT_SEEN = 0xFFFFFFFF
    ALONE = 0                      # a step of one node,
    PAIR = 1                       # of one towards another,
    CUT = 2                        # or of one and a number of LSNs
    STEP_COUNT = 24

ctypedef bint (*rule_t)(world_t*, const bounds_t*, int, int) noexcept nogil

ctypedef struct step_t:
    const char* name
    rule_t rule
    int kind

cdef step_t[STEP_COUNT] STEPS
STEPS[0] = step_t(b"write", rules.write, ALONE)
STEPS[1] = step_t(b"append", rules.append, PAIR)
STEPS[2] = step_t(b"say written", rules.say_written, PAIR)
STEPS[3] = step_t(b"flush", rules.flush, PAIR)
STEPS[4] = step_t(b"reply", rules.reply, ALONE)
STEPS[5] = step_t(b"reply flush", rules.reply_flush, ALONE)
STEPS[6] = step_t(b"learn", rules.learn, PAIR)
STEPS[7] = step_t(b"copy", rules.copy, PAIR)
STEPS[8] = step_t(b"begin join", rules.begin_join, PAIR)
STEPS[9] = step_t(b"say flushed", rules.say_flushed, PAIR)
STEPS[10] = step_t(b"forget learner", rules.forget_learner, PAIR)
STEPS[11] = step_t(b"submit eject", membership.submit_eject, PAIR)
STEPS[12] = step_t(b"submit join", membership.submit_join, PAIR)
STEPS[13] = step_t(b"submit promotion", membership.submit_promotion, ALONE)
STEPS[14] = step_t(b"win", membership.win, ALONE)
STEPS[15] = step_t(b"lose", membership.lose, ALONE)
STEPS[16] = step_t(b"hear outcome", membership.hear_outcome, ALONE)
STEPS[17] = step_t(b"read config", membership.read_config, ALONE)
STEPS[18] = step_t(b"stand", membership.stand, ALONE)
STEPS[19] = step_t(b"move up", membership.move_up, ALONE)
STEPS[20] = step_t(b"seal", membership.seal, PAIR)
STEPS[21] = step_t(b"pull", membership.pull, PAIR)
STEPS[22] = step_t(b"kill", membership.kill, CUT)
STEPS[23] = step_t(b"cut power", membership.cut_power, CUT)
STEP_NAMES = tuple((<bytes>step.name).decode() for step in STEPS)


# ------------------------------------------------------------------------------------- packing

ctypedef struct codec_t:
    uint64_t words[WORDS]
    uint32_t position
    bint reading
    int name[NODES_MAX]            # the node that takes each place
    int nodes
    int lsn_bits
    int epoch_bits


cdef inline void field(codec_t* codec, uint8_t* value, int bits) noexcept nogil:
    """One field, read or written: the packed form is told once."""
    cdef uint32_t word = codec.position >> 6, shift = codec.position & 63
    cdef uint64_t taken
    codec.position += bits
    if codec.reading:
        taken = codec.words[word] >> shift
        if shift + bits > 64:
            taken |= codec.words[word + 1] << (64 - shift)
        value[0] = <uint8_t>(taken & ((1 << bits) - 1))
    else:
        codec.words[word] |= <uint64_t>value[0] << shift
        if shift + bits > 64:
            codec.words[word + 1] |= <uint64_t>value[0] >> (64 - shift)


cdef inline void wide(codec_t* codec, uint16_t* value, int bits) noexcept nogil:
    cdef uint8_t low = value[0] & 0xFF, high = value[0] >> 8
    field(codec, &low, min(bits, 8))
    if bits > 8:
        field(codec, &high, bits - 8)
    value[0] = low | <uint16_t>high << 8


cdef inline void node_set(codec_t* codec, uint8_t* members) noexcept nogil:
    cdef uint8_t one, result = 0
    cdef int i
    for i in range(codec.nodes):
        one = has(members[0], codec.name[i])
        field(codec, &one, 1)
        result |= one << codec.name[i]
    members[0] = result


cdef inline void each(codec_t* codec, uint8_t* values, int bits) noexcept nogil:
    cdef int i
    for i in range(codec.nodes):
        field(codec, &values[codec.name[i]], bits)


cdef void node_fields(codec_t* codec, node_t* node, const bounds_t* bounds) noexcept nogil:
    cdef int i
    for i in range(bounds.lsns):
        field(codec, &node.log[i], codec.epoch_bits)
    field(codec, &node.last, codec.lsn_bits)
    field(codec, &node.flushed, codec.lsn_bits)
    field(codec, &node.sealed, codec.epoch_bits)
    field(codec, &node.learning, 1)
    field(codec, &node.stale, 1)
    field(codec, &node.tainted, 1)
    field(codec, &node.swap, 2)
    if node.swap != NO_SWAP:
        field(codec, &node.won, 1)
        field(codec, &node.swap_epoch, codec.epoch_bits)
        node_set(codec, &node.swap_set)
        node_set(codec, &node.swap_old_boots)
        field(codec, &node.swap_bumps, 1)
    field(codec, &node.role, 2)
    if node.role == CANDIDATE:
        field(codec, &node.epoch, codec.epoch_bits)
        field(codec, &node.heard, 1)
        each(codec, node.told, codec.lsn_bits + 1)
        node_set(codec, &node.told_tainted)
        node_set(codec, &node.told_old_boots)
    if node.role == LEADER:
        field(codec, &node.epoch, codec.epoch_bits)
        field(codec, &node.current, 1)
        field(codec, &node.acknowledged, codec.lsn_bits)
        node_set(codec, &node.installed)
        node_set(codec, &node.linked)
        each(codec, node.phase, 2)
        node_set(codec, &node.lost)
        node_set(codec, &node.old_boots)
    if node.role == LEADER or bounds.removed:
        each(codec, node.acked, codec.lsn_bits)
        each(codec, node.durable, codec.lsn_bits)


cdef void world_fields(codec_t* codec, world_t* world, const bounds_t* bounds) noexcept nogil:
    cdef int i
    cdef uint8_t primary = 0
    for i in range(bounds.nodes):
        if codec.name[i] == world.primary:
            primary = i
    field(codec, &primary, 2)
    world.primary = codec.name[primary]
    field(codec, &world.epoch, codec.epoch_bits)
    node_set(codec, &world.in_sync)
    for i in range(1, bounds.epochs + 1):
        field(codec, &world.first[i], codec.lsn_bits + 1)
    wide(codec, &world.dead, bounds.epochs + 1)
    for i in range(bounds.lsns):
        field(codec, &world.acked[i], codec.epoch_bits)
        field(codec, &world.durable[i], codec.epoch_bits)
        wide(codec, &world.ever[i], bounds.epochs + 1)
    field(codec, &world.contradiction, 1)
    field(codec, &world.crashes, 3)
    for i in range(bounds.nodes):
        node_fields(codec, &world.nodes[codec.name[i]], bounds)


cdef int bits_for(int value) noexcept nogil:
    cdef int bits = 1
    while value >> bits:
        bits += 1
    return bits


cdef void codec_begin(codec_t* codec, const bounds_t* bounds, bint reading) noexcept nogil:
    cdef int i
    codec.position = 0
    codec.reading = reading
    codec.nodes = bounds.nodes
    codec.lsn_bits = bits_for(bounds.lsns)
    codec.epoch_bits = bits_for(bounds.epochs)
    for i in range(NODES_MAX):
        codec.name[i] = i


cdef void unpack(world_t* world, const uint64_t* words, int count, const bounds_t* bounds) noexcept nogil:
    cdef codec_t codec
    codec_begin(&codec, bounds, True)
    memset(codec.words, 0, sizeof(codec.words))
    memcpy(codec.words, words, count * sizeof(uint64_t))
    memset(world, 0, sizeof(world_t))
    world_fields(&codec, world, bounds)


# ------------------------------------------------------------------------------------ symmetry

cdef uint64_t what_it_is(const world_t* world, const bounds_t* bounds, int a) noexcept nogil:
    """A key of a node that does not depend on what any node is called."""
    cdef const node_t* node = &world.nodes[a]
    cdef uint64_t key = 0
    cdef int i
    for i in range(bounds.lsns):
        key = key * 17 + node.log[i]
    key = (key * 17 + node.last) * 17 + node.flushed
    key = ((key * 17 + node.sealed) * 5 + node.swap) * 5 + node.role
    key = ((key * 17 + node.epoch) * 17 + node.acknowledged) * 17 + node.won
    key = key * 64 + (node.learning | node.stale << 1 | node.tainted << 2 | has(world.in_sync, a) << 3
                      | (world.primary == a) << 4)
    return key


cdef void canonical(world_t* world, const bounds_t* bounds, uint64_t* words, int count) noexcept nogil:
    """The packed form of the state, under the naming that packs smallest."""
    cdef codec_t codec
    cdef uint64_t[NODES_MAX] keys
    cdef int[NODES_MAX] name
    cdef int i, j
    cdef uint64_t key
    memset(name, 0, sizeof(name))
    for i in range(bounds.nodes):
        key = what_it_is(world, bounds, i)
        j = i
        while j and keys[j - 1] > key:
            keys[j] = keys[j - 1]
            name[j] = name[j - 1]
            j -= 1
        keys[j] = key
        name[j] = i
    codec_begin(&codec, bounds, False)
    memset(words, 0xFF, count * sizeof(uint64_t))
    name_rest(world, bounds, &codec, keys, name, 0, words, count)


cdef void name_rest(world_t* world, const bounds_t* bounds, codec_t* codec, uint64_t* keys, int* name, int at,
                    uint64_t* words, int count) noexcept nogil:
    """Try every order of the nodes whose keys are equal, from place `at` on."""
    cdef int i, nodes = min(bounds.nodes, NODES_MAX)
    if at >= nodes:
        codec.position = 0
        memset(codec.words, 0, sizeof(codec.words))
        for i in range(NODES_MAX):
            codec.name[i] = name[i]
        world_fields(codec, world, bounds)
        if memcmp(codec.words, words, count * sizeof(uint64_t)) < 0:
            memcpy(words, codec.words, count * sizeof(uint64_t))
        return
    i = at
    while i < nodes and keys[i] == keys[at]:
        name[at], name[i] = name[i], name[at]
        name_rest(world, bounds, codec, keys, name, at + 1, words, count)
        name[at], name[i] = name[i], name[at]
        i += 1


# --------------------------------------------------------------------------------- all states

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
                and 0 <= crashes <= 7):
            raise ValueError(f"bounds {nodes}, {lsns}, {epochs}, {crashes} are beyond {NODES_MAX} nodes, "
                             f"{LSNS_MAX} LSNs, {EPOCHS_MAX} epochs, 7 crashes")
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
                        if STEPS[s].kind == PAIR and a == b:
                            continue
                        if not STEPS[s].rule(&next, &self.bounds, a, b):
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
        if not STEPS[number].rule(&world, &self.bounds, a, b):
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
                    if STEPS[s].kind != PAIR or a != b:
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

    def promise(self, bytes state):
        """Number of a promise that this world breaks, 0: none."""
        cdef world_t world
        memcpy(&world, <char*>state, sizeof(world_t))
        return broken_promise(&world, &self.bounds)

    def view(self, bytes state):
        """What anybody can see of a world: (epoch, primary, in-sync set), and of each node
        (sealed epoch, LSNs in its log, led epoch or 0, counting set, LSNs acknowledged)."""
        cdef world_t world
        cdef node_t* node
        cdef int i
        memcpy(&world, <char*>state, sizeof(world_t))
        nodes = []
        for i in range(self.bounds.nodes):
            node = &world.nodes[i]
            if node.role == LEADER:
                nodes.append((node.sealed, node.last, node.epoch, node.installed, node.acknowledged))
            else:
                nodes.append((node.sealed, node.last, 0, 0, 0))
        return (world.epoch, world.primary, world.in_sync), *nodes


cdef int arguments(int step, const bounds_t* bounds) noexcept nogil:
    if STEPS[step].kind == PAIR:
        return bounds.nodes
    return bounds.lsns + 1 if STEPS[step].kind == CUT else 1


cdef int packed_words(const bounds_t* bounds) noexcept nogil:
    """Words that the largest state takes: all of its nodes lead, with swaps under way."""
    cdef int lsn_bits = bits_for(bounds.lsns), epoch_bits = bits_for(bounds.epochs), n = bounds.nodes
    cdef int copy = bounds.lsns * epoch_bits + 2 * lsn_bits + epoch_bits + 3
    cdef int swap = 2 + 1 + epoch_bits + 2 * n + 1
    cdef int leader = 2 + epoch_bits + 1 + lsn_bits + 4 * n + 2 * n + 2 * n * lsn_bits
    cdef int candidate = 3 + epoch_bits + n * (lsn_bits + 1) + 2 * n
    cdef int config = 2 + epoch_bits + n + bounds.epochs * (lsn_bits + 1) + bounds.epochs + 1 + 1 + 3
    cdef int clients = bounds.lsns * (2 * epoch_bits + bounds.epochs + 1)
    if bounds.removed:
        candidate += 2 * n * lsn_bits
    return (config + clients + n * (copy + swap + max(leader, candidate)) + 63) // 64


cdef void begin(world_t* world, const bounds_t* bounds) noexcept nogil:
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
