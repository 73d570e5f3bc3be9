"""A state in a few 64-bit words, the same whatever its nodes are called.

Nodes are interchangeable: of all namings the one that packs smallest stands for the state, and a
key of what each node is sorts out most namings beforehand.
"""
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

from tests.model.world cimport CANDIDATE, LEADER, NODES_MAX, NO_SWAP, bounds_t, has, node_t, world_t

cdef enum:
    WORDS = 8


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


cdef inline void node_fields(codec_t* codec, node_t* node, const bounds_t* bounds) noexcept nogil:
    cdef int i
    for i in range(bounds.lsns):
        field(codec, &node.log[i], codec.epoch_bits)
    field(codec, &node.last, codec.lsn_bits)
    field(codec, &node.flushed, codec.lsn_bits)
    field(codec, &node.sealed, codec.epoch_bits)
    field(codec, &node.learning, 1)
    field(codec, &node.stale, 1)
    field(codec, &node.tainted, 1)
    field(codec, &node.failed, 1)
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


cdef inline void world_fields(codec_t* codec, world_t* world, const bounds_t* bounds) noexcept nogil:
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


cdef inline int bits_for(int value) noexcept nogil:
    cdef int bits = 1
    while value >> bits:
        bits += 1
    return bits


cdef inline void codec_begin(codec_t* codec, const bounds_t* bounds, bint reading) noexcept nogil:
    cdef int i
    codec.position = 0
    codec.reading = reading
    codec.nodes = bounds.nodes
    codec.lsn_bits = bits_for(bounds.lsns)
    codec.epoch_bits = bits_for(bounds.epochs)
    for i in range(NODES_MAX):
        codec.name[i] = i


cdef inline void unpack(world_t* world, const uint64_t* words, int count, const bounds_t* bounds) noexcept nogil:
    cdef codec_t codec
    codec_begin(&codec, bounds, True)
    memset(codec.words, 0, sizeof(codec.words))
    memcpy(codec.words, words, count * sizeof(uint64_t))
    memset(world, 0, sizeof(world_t))
    world_fields(&codec, world, bounds)


# ------------------------------------------------------------------------------------ symmetry

cdef inline uint64_t what_it_is(const world_t* world, const bounds_t* bounds, int a) noexcept nogil:
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
                      | (world.primary == a) << 4 | node.failed << 5)
    return key


cdef inline void canonical(world_t* world, const bounds_t* bounds, uint64_t* words, int count) noexcept nogil:
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


cdef inline void name_rest(world_t* world, const bounds_t* bounds, codec_t* codec, uint64_t* keys, int* name, int at,
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


cdef inline int packed_words(const bounds_t* bounds) noexcept nogil:
    """Words that the largest state takes: all of its nodes lead, with swaps under way."""
    cdef int lsn_bits = bits_for(bounds.lsns), epoch_bits = bits_for(bounds.epochs), n = bounds.nodes
    cdef int copy = bounds.lsns * epoch_bits + 2 * lsn_bits + epoch_bits + 4
    cdef int swap = 2 + 1 + epoch_bits + 2 * n + 1
    cdef int leader = 2 + epoch_bits + 1 + lsn_bits + 4 * n + 2 * n + 2 * n * lsn_bits
    cdef int candidate = 3 + epoch_bits + n * (lsn_bits + 1) + 2 * n
    cdef int config = 2 + epoch_bits + n + bounds.epochs * (lsn_bits + 1) + bounds.epochs + 1 + 1 + 3
    cdef int clients = bounds.lsns * (2 * epoch_bits + bounds.epochs + 1)
    if bounds.removed:
        candidate += 2 * n * lsn_bits
    return (config + clients + n * (copy + swap + max(leader, candidate)) + 63) // 64
