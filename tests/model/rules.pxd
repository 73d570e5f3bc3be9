"""The protocol, told once: here the data path and resync; in membership.pxd who leads, who counts.

Every step is a function (world, bounds, a, b) that says whether it may happen now and, if so, does it
to the world; if not, it leaves the world alone. Each names the product code it stands for.

Rules that can be taken out, to see what they are for (`docs/model.md`):
  R-eject     a member stops counting only when the swap that removes it is known to have won
  R-caught-up a learner joins only when it lacks nothing
  R-flushed   a learner joins only when it has flushed all it was sent
  R-both-sets a joiner counts from before its join is proposed until the outcome is known
  R-boot      a join names the boot that the joiner had when it said "flushed"
  R-seal      whoever answers a candidate, and itself, refuses lower epochs first
  R-taint     a tainted copy leads only if all are, and then the incarnation grows
  R-session   what a member said in an earlier session does not count
  R-client    an acknowledgement is worth no more than the incarnation it was given in
  R-epoch     a primary that restarted takes a new epoch
  R-proof     what a member has counts when its log was shown to be a prefix in this session
  R-told      a log does not grow by a pull any more once a primary of that epoch was heard
  R-void      a copy that committed beyond the common point is copied whole
"""
from libc.stdint cimport uint8_t
from libc.string cimport memset

from tests.model.world cimport (
    CANDIDATE, COPYING, FOLLOWER, JOIN, JOINING, LEADER, MISSING, NODES_MAX, NO_LEARNER, READY, bit, bounds_t,
    has, keeps, node_t, world_t,
)

cdef enum:
    R_EJECT
    R_CAUGHT_UP
    R_FLUSHED
    R_BOTH_SETS
    R_BOOT
    R_SEAL
    R_TAINT
    R_SESSION
    R_CLIENT
    R_EPOCH
    R_PROOF
    R_TOLD
    R_VOID


# ----------------------------------------------------------------------------- what is a primary

cdef inline bint counts(const node_t* leader, const bounds_t* bounds, int node) noexcept nogil:
    """quorum.member_counts: in sync, or its join being decided."""
    return has(leader.installed, node) or (
        leader.phase[node] >= JOINING and keeps(bounds, R_BOTH_SETS))


cdef inline bint serves(const node_t* leader, const node_t* other, int node) noexcept nogil:
    """Whether frames of this leader are taken by `node`, and its answers by the leader (R1)."""
    if leader.role != LEADER or other.role == LEADER or other.failed or other.sealed != leader.epoch:
        return False
    return has(leader.installed, node) or (leader.phase[node] != NO_LEARNER and not has(leader.lost, node))


cdef inline bint missing(const node_t* node) noexcept nogil:
    """Whether a learner still lacks a block."""
    cdef int i
    for i in range(node.last):
        if node.log[i] == MISSING:
            return True
    return False


cdef inline bint agrees(const node_t* one, const node_t* other, int lsns) noexcept nogil:
    """The running hashes: equal so far, as far as both have anything."""
    cdef int i
    for i in range(lsns):
        if one.log[i] != other.log[i] and one.log[i] != MISSING and other.log[i] != MISSING:
            return False
    return True


cdef inline void cut(node_t* node, int lsns) noexcept nogil:
    """Forget what is behind `lsns`, and behind the first block that is missing."""
    cdef int i, kept = 0
    while kept < lsns and node.log[kept] != MISSING:
        kept += 1
    for i in range(kept, node.last):
        node.log[i] = MISSING
    node.last = kept
    node.flushed = min(node.flushed, node.last)


cdef inline void forget_role(node_t* node) noexcept nogil:
    """All that a process knows but its swap and its copy."""
    node.role = FOLLOWER
    node.epoch = 0
    memset(node.told, 0, NODES_MAX)
    node.told_tainted = node.told_old_boots = 0
    node.heard = False
    node.linked = 0
    node.current = node.acknowledged = node.installed = node.lost = node.old_boots = 0
    memset(node.phase, 0, NODES_MAX)


cdef inline void step_down(node_t* node, const bounds_t* bounds) noexcept nogil:
    """primary_stop. What members said in this session is forgotten with it (R-session)."""
    forget_role(node)
    if keeps(bounds, R_SESSION):
        memset(node.acked, 0, NODES_MAX)
        memset(node.durable, 0, NODES_MAX)


cdef inline void refuse_below(node_t* node, const bounds_t* bounds, int epoch) noexcept nogil:
    """replica_seal. What a deposed primary appended is written before a seal is answered."""
    if node.role == LEADER:
        step_down(node, bounds)
    node.sealed = epoch


# --------------------------------------------------------------------------------- the data path

cdef inline void hear(node_t* node) noexcept nogil:
    """A frame of the primary at the epoch that the node is sealed at."""
    node.heard = node.role == CANDIDATE


cdef inline bint write(world_t* world, const bounds_t* bounds, int a, int b) noexcept nogil:
    """service.log_write: the primary gives a write its LSN."""
    cdef node_t* leader = &world.nodes[a]
    if leader.role != LEADER or leader.last == bounds.lsns:
        return False
    leader.log[leader.last] = leader.epoch
    leader.last += 1
    return True


cdef inline bint append(world_t* world, const bounds_t* bounds, int a, int b) noexcept nogil:
    """replica.append: the next record of primary `a`, if it fits, is written at `b`, which says so (R1).
    An answer that is lost is one on which the primary does not act."""
    cdef node_t* leader = &world.nodes[a]
    cdef node_t* node = &world.nodes[b]
    if not serves(leader, node, b) or node.last >= leader.last or not agrees(leader, node, node.last):
        return False
    node.log[node.last] = leader.log[node.last]
    node.last += 1
    hear(node)
    leader.linked |= bit(b)
    leader.acked[b] = max(leader.acked[b], node.last)
    return True


cdef inline bint say_written(world_t* world, const bounds_t* bounds, int a, int b) noexcept nogil:
    """primary.acknowledged: `b` tells primary `a` how far it has written. The first answer of a session
    proves by its running hash that its log is a prefix (R-proof); from there on by LSN alone."""
    cdef node_t* leader = &world.nodes[a]
    cdef node_t* node = &world.nodes[b]
    if not serves(leader, node, b) or node.last > leader.last:
        return False
    if leader.acked[b] >= node.last and has(leader.linked, b):
        return False
    if not has(leader.linked, b) and not agrees(leader, node, node.last) and keeps(bounds, R_PROOF):
        return False
    hear(node)
    leader.linked |= bit(b)
    leader.acked[b] = max(leader.acked[b], node.last)
    return True


cdef inline bint flush(world_t* world, const bounds_t* bounds, int a, int b) noexcept nogil:
    """Member `b` is asked to flush what it has, does, and says so. A flush that nobody was told of
    is one of the outcomes of `cut_power`; of a learner nothing is sure before it joins."""
    cdef node_t* leader = &world.nodes[a]
    cdef node_t* node = &world.nodes[b]
    cdef uint8_t lsns = min(node.last, leader.acked[b])
    if not serves(leader, node, b) or node.learning or node.last > leader.last or leader.durable[b] >= lsns:
        return False
    hear(node)
    node.flushed = node.last
    leader.durable[b] = lsns
    return True


cdef inline bint reply(world_t* world, const bounds_t* bounds, int a, int b) noexcept nogil:
    """service_progress: a write is acknowledged when its primary and all that count have it."""
    cdef node_t* leader = &world.nodes[a]
    cdef int lsn = leader.acknowledged, entry, i
    if leader.role != LEADER or leader.last <= lsn:
        return False
    for i in range(bounds.nodes):
        if counts(leader, bounds, i) and leader.acked[i] <= lsn:
            return False
    entry = leader.log[lsn]
    leader.acknowledged += 1
    world.ever[lsn] |= 1 << entry
    if leader.current or not keeps(bounds, R_CLIENT):
        world.contradiction |= world.acked[lsn] != 0 and world.acked[lsn] != entry
        world.acked[lsn] = entry
    return True


cdef inline bint reply_flush(world_t* world, const bounds_t* bounds, int a, int b) noexcept nogil:
    """A flush is answered: all acknowledged before it is flushed here and on all that count (D1)."""
    cdef node_t* leader = &world.nodes[a]
    cdef int i, lsns = leader.acknowledged
    cdef bint news = False
    if leader.role != LEADER:
        return False
    for i in range(bounds.nodes):
        if counts(leader, bounds, i) and leader.durable[i] < lsns:
            return False
    for i in range(lsns):
        news |= world.durable[i] != leader.log[i]
    if not news:
        return False
    for i in range(lsns):
        world.contradiction |= world.durable[i] != 0 and world.durable[i] != leader.log[i]
        world.durable[i] = leader.log[i]
    leader.flushed = leader.last
    return True


# ---------------------------------------------------------------------------------------- resync

cdef inline int common_lsn(const world_t* world, const node_t* leader, const node_t* node) noexcept nogil:
    """membership.common_lsn: how far the lineage says both logs are the same."""
    cdef int common = min(node.last, leader.last), epoch, last_epoch
    if node.last == 0:
        return 0
    last_epoch = node.log[node.last - 1]
    for epoch in range(leader.epoch, 0, -1):
        if world.first[epoch] == 0:
            continue
        if epoch <= last_epoch and not world.dead >> epoch & 1:
            break
        common = min(common, world.first[epoch] - 1)
    return common


cdef inline bint learn(world_t* world, const bounds_t* bounds, int a, int b) noexcept nogil:
    """LearnerStart: with nothing pending, `b` drops what it does not share and gets the stream
    from here on; every block that changed since stands out, or all of them (R-void)."""
    cdef node_t* leader = &world.nodes[a]
    cdef node_t* node = &world.nodes[b]
    cdef int i, common
    cdef bint void = False, full
    if (leader.role != LEADER or has(leader.installed, b) or leader.phase[b] != NO_LEARNER
            or node.role != FOLLOWER or node.failed or node.sealed != leader.epoch or leader.acknowledged != leader.last):
        return False
    common = common_lsn(world, leader, node)
    for i in range(common, node.last):
        void |= world.ever[i] >> node.log[i] & 1       # its map may have it: no dropping that
    full = void and keeps(bounds, R_VOID)
    if full:
        common = 0
    node.stale = (node.stale or void) and not full
    node.flushed = min(node.flushed, common)
    cut(node, common)
    node.last = leader.last
    node.learning = True
    leader.phase[b] = COPYING
    leader.acked[b] = leader.last
    leader.linked |= bit(b)
    leader.durable[b] = leader.durable[b] if not keeps(bounds, R_SESSION) else 0
    leader.lost &= ~bit(b)
    leader.old_boots &= ~bit(b)
    return True


cdef inline bint copy(world_t* world, const bounds_t* bounds, int a, int b) noexcept nogil:
    """resync_copies: the missing blocks arrive, as they are at the primary."""
    cdef node_t* leader = &world.nodes[a]
    cdef node_t* node = &world.nodes[b]
    cdef int i
    if not serves(leader, node, b) or leader.phase[b] != COPYING or not missing(node):
        return False
    for i in range(node.last):
        if node.log[i] == MISSING:
            node.log[i] = leader.log[i]
    return True


cdef inline bint begin_join(world_t* world, const bounds_t* bounds, int a, int b) noexcept nogil:
    """JoinBegin: all is copied; from now on the learner counts (R-both-sets)."""
    cdef node_t* leader = &world.nodes[a]
    if leader.role != LEADER or leader.phase[b] != COPYING:
        return False
    if keeps(bounds, R_CAUGHT_UP) and missing(&world.nodes[b]):
        return False
    leader.phase[b] = JOINING
    return True


cdef inline bint say_flushed(world_t* world, const bounds_t* bounds, int a, int b) noexcept nogil:
    """JoinReady: behind all that was sent before it was asked, the joiner flushed (R-flushed)."""
    cdef node_t* leader = &world.nodes[a]
    cdef node_t* node = &world.nodes[b]
    if not serves(leader, node, b) or leader.phase[b] != JOINING:
        return False
    if keeps(bounds, R_CAUGHT_UP) and node.last < leader.acknowledged:
        return False
    leader.phase[b] = READY
    node.learning = False
    if keeps(bounds, R_FLUSHED):
        node.flushed = node.last
    if node.last <= leader.last:
        leader.acked[b] = max(leader.acked[b], node.last)
        leader.durable[b] = max(leader.durable[b], node.flushed)
    return True


cdef inline bint forget_learner(world_t* world, const bounds_t* bounds, int a, int b) noexcept nogil:
    """JoinAbort: a learner is dropped, unless its join may already be in the config (L2)."""
    cdef node_t* leader = &world.nodes[a]
    if leader.role != LEADER or leader.phase[b] == NO_LEARNER:
        return False
    if leader.swap == JOIN and has(leader.swap_set, b):
        return False
    leader.phase[b] = NO_LEARNER
    leader.linked &= ~bit(b)
    leader.lost &= ~bit(b)
    leader.old_boots &= ~bit(b)
    return True
