"""The protocol, told once. Every step is a function (world, bounds, a, b) that says whether it may
happen now and, if so, does it to the world; if not, it leaves the world alone. Each names the product
code it stands for.

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
  R-prefix    a member whose log is no prefix of the new primary's leaves the set
  R-told      a log does not grow by a pull under a seal that others were told of
  R-void      a copy that committed beyond the common point is copied whole
"""
from libc.stdint cimport uint8_t
from libc.string cimport memset

from tests.model.world cimport (
    CANDIDATE, COPYING, EJECT, FOLLOWER, JOIN, JOINING, LEADER, MISSING, NODES_MAX, NO_LEARNER, NO_SWAP,
    PROMOTE, READY, bit, bounds_t, has, keeps, node_t, world_t,
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
    R_PREFIX
    R_TOLD
    R_VOID


# ----------------------------------------------------------------------------- what is a primary

cdef inline bint counts(const node_t* leader, const bounds_t* bounds, int node) noexcept nogil:
    """quorum.member_counts: in sync, or its join being decided."""
    return has(leader.installed, node) or (
        leader.phase[node] >= JOINING and keeps(bounds, R_BOTH_SETS))


cdef inline bint serves(const node_t* leader, const node_t* other, int node) noexcept nogil:
    """Whether frames of this leader are taken by `node`, and its answers by the leader (R1)."""
    if leader.role != LEADER or other.role == LEADER or other.sealed != leader.epoch:
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
    node.answered = False
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
    node.answered = node.answered and node.sealed == epoch
    node.sealed = epoch


# --------------------------------------------------------------------------------- the data path

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
    leader.acked[b] = max(leader.acked[b], node.last)
    return True


cdef inline bint say_written(world_t* world, const bounds_t* bounds, int a, int b) noexcept nogil:
    """primary.acknowledged: `b` tells primary `a` how far it has written. By LSN alone."""
    cdef node_t* leader = &world.nodes[a]
    cdef node_t* node = &world.nodes[b]
    if not serves(leader, node, b) or not leader.acked[b] < node.last <= leader.last:
        return False
    leader.acked[b] = node.last
    return True


cdef inline bint flush(world_t* world, const bounds_t* bounds, int a, int b) noexcept nogil:
    """Member `b` is asked to flush what it has, does, and says so. A flush that nobody was told of
    is one of the outcomes of `cut_power`; of a learner nothing is sure before it joins."""
    cdef node_t* leader = &world.nodes[a]
    cdef node_t* node = &world.nodes[b]
    cdef uint8_t lsns = min(node.last, leader.acked[b])
    if not serves(leader, node, b) or node.learning or node.last > leader.last or leader.durable[b] >= lsns:
        return False
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
            or node.role != FOLLOWER or node.sealed != leader.epoch or leader.acknowledged != leader.last):
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
    leader.durable[b] = leader.durable[b] if not keeps(bounds, R_SESSION) else 0
    leader.lost &= ~bit(b)
    leader.old_boots &= ~bit(b)
    return True


cdef inline bint copy(world_t* world, const bounds_t* bounds, int a, int b) noexcept nogil:
    """transfer_copies: the missing blocks arrive, as they are at the primary."""
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
    leader.lost &= ~bit(b)
    leader.old_boots &= ~bit(b)
    return True


# ----------------------------------------------------------------------------------------- swaps

cdef inline void submit(node_t* node, int kind, int members) noexcept nogil:
    node.swap = kind
    node.won = False
    node.swap_epoch = node.epoch if kind else 0
    node.swap_set = members
    node.swap_old_boots = 0
    node.swap_bumps = False


cdef inline bint may_submit(const world_t* world, const node_t* node) noexcept nogil:
    """One swap at a time. One that builds on an outdated config would only be lost."""
    return node.role == LEADER and node.swap == NO_SWAP and node.epoch == world.epoch


cdef inline bint submit_eject(world_t* world, const bounds_t* bounds, int a, int b) noexcept nogil:
    """membership.ejected: at any time; silence is only a matter of time."""
    cdef node_t* leader = &world.nodes[a]
    if not may_submit(world, leader) or not has(leader.installed, b):
        return False
    submit(leader, EJECT, world.in_sync & ~bit(b))
    if not keeps(bounds, R_EJECT):
        leader.installed &= ~bit(b)
    return True


cdef inline bint submit_join(world_t* world, const bounds_t* bounds, int a, int b) noexcept nogil:
    """membership.joined, with the boot of the learner when it began (R-boot)."""
    cdef node_t* leader = &world.nodes[a]
    if not may_submit(world, leader) or leader.phase[b] != READY:
        return False
    submit(leader, JOIN, world.in_sync | bit(b))
    leader.swap_old_boots = leader.old_boots & bit(b)
    return True


cdef inline void enter(world_t* world, const bounds_t* bounds, int node, bint old_boot) noexcept nogil:
    world.nodes[node].tainted = old_boot and keeps(bounds, R_BOOT)


cdef inline void apply_promotion(world_t* world, const bounds_t* bounds, int a) noexcept nogil:
    """membership.promoted: a new epoch and its lineage; all enter as they are now."""
    cdef node_t* winner = &world.nodes[a]
    cdef int i, last_epoch = winner.log[winner.last - 1] if winner.last else 0
    for i in range(last_epoch + 1, world.epoch + 1):
        if world.first[i]:
            world.dead |= 1 << i
    world.epoch = winner.swap_epoch
    world.primary = a
    world.first[world.epoch] = winner.last + 1
    for i in range(bounds.nodes):
        if has(winner.swap_set, i):
            enter(world, bounds, i, has(winner.swap_old_boots, i))
    if winner.swap_bumps:
        memset(world.acked, 0, sizeof(world.acked))
        for i in range(bounds.nodes):
            world.nodes[i].current = False


cdef inline bint win(world_t* world, const bounds_t* bounds, int a, int b) noexcept nogil:
    """The store carries out a swap; all others on their way build on an old config now."""
    cdef node_t* node = &world.nodes[a]
    cdef int i
    if node.swap == NO_SWAP or node.won:
        return False
    node.won = True
    if node.swap == PROMOTE:
        apply_promotion(world, bounds, a)
    for i in range(bounds.nodes):
        if node.swap == JOIN and has(node.swap_set & ~world.in_sync, i):
            enter(world, bounds, i, has(node.swap_old_boots, i))
        if not has(node.swap_set, i):
            world.nodes[i].tainted = False             # says something of members only
        if i != a and world.nodes[i].swap != NO_SWAP and not world.nodes[i].won:
            submit(&world.nodes[i], NO_SWAP, 0)
    world.in_sync = node.swap_set
    return True


cdef inline bint lose(world_t* world, const bounds_t* bounds, int a, int b) noexcept nogil:
    """The store refuses a swap: somebody attached meanwhile. It may be proposed again."""
    cdef node_t* node = &world.nodes[a]
    if node.swap == NO_SWAP or node.won:
        return False
    submit(node, NO_SWAP, 0)
    return True


cdef inline void lead(world_t* world, const bounds_t* bounds, node_t* node, int a) noexcept nogil:
    """primary_lead: each member's tail begins behind the LSN it told when it sealed."""
    cdef int i
    for i in range(NODES_MAX):
        if keeps(bounds, R_SESSION):
            node.acked[i] = node.durable[i] = 0
        if i != a and has(node.swap_set, i):
            node.acked[i] = max(node.acked[i], min(node.told[i] - 1, node.last))
    memset(node.told, 0, NODES_MAX)
    node.told_tainted = node.told_old_boots = 0
    node.role = LEADER
    node.current = node.epoch == world.epoch
    node.installed = node.swap_set & ~bit(a)


cdef inline void install(node_t* node, const bounds_t* bounds, int a) noexcept nogil:
    """Leader.on_config: the sets of a swap that won are in force from now on."""
    cdef int i
    node.installed = node.swap_set & ~bit(a)
    for i in range(bounds.nodes):
        if has(node.installed, i):
            node.phase[i] = NO_LEARNER
            node.lost &= ~bit(i)
            node.old_boots &= ~bit(i)
        elif node.phase[i] == NO_LEARNER and keeps(bounds, R_SESSION):
            node.acked[i] = node.durable[i] = 0


cdef inline bint hear_outcome(world_t* world, const bounds_t* bounds, int a, int b) noexcept nogil:
    """SwapDone: only now the node acts on what it proposed, if it is still who proposed it (L1, V1)."""
    cdef node_t* node = &world.nodes[a]
    if not node.won:
        return False
    if node.epoch == node.swap_epoch and node.swap == PROMOTE and node.role == CANDIDATE and node.sealed <= node.epoch:
        lead(world, bounds, node, a)
    elif node.epoch == node.swap_epoch and node.role == LEADER:
        install(node, bounds, a)
    submit(node, NO_SWAP, 0)
    return True


cdef inline bint deposed(const world_t* world, int a) noexcept nogil:
    """Whether the config names another primary for what this node leads, or aims at."""
    cdef const node_t* node = &world.nodes[a]
    return node.role != FOLLOWER and node.epoch <= world.epoch and (
        node.epoch < world.epoch or world.primary != a)


cdef inline void follow(world_t* world, const bounds_t* bounds, int a) noexcept nogil:
    """replica_follow: be what the config says, and refuse older epochs."""
    cdef node_t* node = &world.nodes[a]
    if deposed(world, a):
        step_down(node, bounds)
    if node.sealed < world.epoch:
        refuse_below(node, bounds, world.epoch)


cdef inline bint read_config(world_t* world, const bounds_t* bounds, int a, int b) noexcept nogil:
    """A node hears of a newer epoch. A swap that is settled is heard of first."""
    cdef node_t* node = &world.nodes[a]
    if node.won or (not deposed(world, a) and node.sealed >= world.epoch):
        return False
    follow(world, bounds, a)
    return True


# ------------------------------------------------------------------------------------- promotion

cdef inline void aim(world_t* world, const bounds_t* bounds, int a, int epoch) noexcept nogil:
    """Seal ourselves first; all answers so far were to a lower epoch (P1, P7)."""
    cdef node_t* node = &world.nodes[a]
    node.role = CANDIDATE
    node.epoch = epoch
    if keeps(bounds, R_SEAL):
        refuse_below(node, bounds, epoch)
    memset(node.told, 0, NODES_MAX)
    node.told_tainted = node.tainted << a
    node.told_old_boots = 0
    node.told[a] = 1 + node.last


cdef inline bint stand(world_t* world, const bounds_t* bounds, int a, int b) noexcept nogil:
    """VolumePolicy._stand: any complete member, whenever it hears nothing of the primary."""
    cdef node_t* node = &world.nodes[a]
    cdef int target = max(world.epoch, node.sealed) + 1
    if node.role != FOLLOWER or node.learning or not has(world.in_sync, a) or target > bounds.epochs:
        return False
    aim(world, bounds, a, target)
    return True


cdef inline bint move_up(world_t* world, const bounds_t* bounds, int a, int b) noexcept nogil:
    """A candidate takes over another's higher seal (P7); or seals anew, to pull under it (R-told)."""
    cdef node_t* node = &world.nodes[a]
    cdef int target
    if node.role != CANDIDATE or node.swap != NO_SWAP or node.epoch <= world.epoch:
        return False
    target = max(node.sealed, node.epoch + node.answered)
    if target == node.epoch or target > bounds.epochs:
        return False
    aim(world, bounds, a, target)
    return True


cdef inline bint seal(world_t* world, const bounds_t* bounds, int a, int b) noexcept nogil:
    """SealPeer and Sealed: member `b` refuses lower epochs and tells candidate `a` where its log
    ends. One that is sealed higher already makes the candidate move up."""
    cdef node_t* candidate = &world.nodes[a]
    cdef node_t* node = &world.nodes[b]
    if (candidate.role != CANDIDATE or not has(world.in_sync, b) or candidate.epoch <= world.epoch
            or (candidate.told[b] and not has(candidate.told_old_boots, b)) or candidate.swap != NO_SWAP):
        return False
    if node.sealed > candidate.epoch:
        aim(world, bounds, a, node.sealed)
        return True
    if keeps(bounds, R_SEAL) and (candidate.sealed != candidate.epoch):
        return False
    if keeps(bounds, R_SEAL) and node.sealed < candidate.epoch:
        refuse_below(node, bounds, candidate.epoch)
    if node.learning:
        return False
    node.answered = True
    candidate.told[b] = 1 + node.last
    candidate.told_old_boots &= ~bit(b)
    candidate.told_tainted = (candidate.told_tainted & ~bit(b)) | node.tainted << b
    return True


cdef inline bint equal_standing(const node_t* candidate, bint tainted, int node) noexcept nogil:
    """decide's `equals`: those that answered and are no worse than we."""
    return candidate.told[node] != 0 and (tainted or not has(candidate.told_tainted, node))


cdef inline bint pull(world_t* world, const bounds_t* bounds, int a, int b) noexcept nogil:
    """Adopt: the candidate fetches the longer tail of a member of its own standing (P2)."""
    cdef node_t* candidate = &world.nodes[a]
    cdef node_t* node = &world.nodes[b]
    if (candidate.role != CANDIDATE or candidate.swap != NO_SWAP or node.sealed != candidate.epoch
            or candidate.sealed != candidate.epoch or candidate.told[b] <= candidate.last + 1
            or not equal_standing(candidate, candidate.tainted, b)):
        return False
    if node.last <= candidate.last or node.role == LEADER or not agrees(candidate, node, candidate.last):
        return False
    if missing(node):
        return False                                   # its running hash is another's
    if candidate.answered and keeps(bounds, R_TOLD):
        return False
    while candidate.last < node.last:
        candidate.log[candidate.last] = node.log[candidate.last]
        candidate.last += 1
    return True


cdef inline bint submit_promotion(world_t* world, const bounds_t* bounds, int a, int b) noexcept nogil:
    """promotion.decide > Win: the whole decision, from what was told (P1-P5, R-taint, R-prefix)."""
    cdef node_t* candidate = &world.nodes[a]
    cdef int i, members = bit(a)
    cdef bint tainted = candidate.tainted and keeps(bounds, R_TAINT)
    if (candidate.role != CANDIDATE or candidate.swap != NO_SWAP or candidate.epoch <= world.epoch
            or not has(world.in_sync, a) or candidate.learning
            or (keeps(bounds, R_SEAL) and candidate.sealed != candidate.epoch)):
        return False
    for i in range(bounds.nodes):
        if not has(world.in_sync, i) or i == a:
            continue
        if tainted and (candidate.told[i] == 0 or not has(candidate.told_tainted, i)):
            return False                               # a clean one must lead, and it may be
        if not equal_standing(candidate, tainted or not keeps(bounds, R_TAINT), i):
            continue
        if keeps(bounds, R_PREFIX) and candidate.told[i] > 1 + candidate.last:
            return False                               # adopt it first, or hear that it is gone
        if not keeps(bounds, R_PREFIX) or agrees(candidate, &world.nodes[i], candidate.told[i] - 1):
            members |= bit(i)
    submit(candidate, PROMOTE, members)
    candidate.swap_old_boots = candidate.told_old_boots & members
    candidate.swap_bumps = tainted
    return True


# --------------------------------------------------------------------------------------- crashes

cdef inline void end_process(world_t* world, const bounds_t* bounds, int a, bint machine) noexcept nogil:
    """What others do not notice at once: their learner, or who answered them, is another now."""
    cdef node_t* node = &world.nodes[a]
    cdef node_t* other
    cdef int i
    for i in range(bounds.nodes):
        other = &world.nodes[i]
        if other.role == LEADER and 0 < other.phase[a]:
            if other.phase[a] < READY:
                other.phase[a] = NO_LEARNER
            else:
                other.lost |= bit(a)
                other.old_boots |= machine << a
        if machine and other.role == CANDIDATE and other.told[a]:
            other.told_old_boots |= bit(a)
        if machine and other.swap != NO_SWAP and not other.won and has(other.swap_set, a):
            other.swap_old_boots |= bit(a)
    forget_role(node)
    memset(node.acked, 0, NODES_MAX)
    memset(node.durable, 0, NODES_MAX)
    if node.won:
        submit(node, NO_SWAP, 0)
    if not keeps(bounds, R_EPOCH) and world.primary == a and node.sealed <= world.epoch:
        node.role = LEADER
        node.epoch = node.sealed = world.epoch
        node.current = True
        node.installed = world.in_sync & ~bit(a)


cdef inline bint kill(world_t* world, const bounds_t* bounds, int a, int b) noexcept nogil:
    """A process dies and starts again: what its disk had written stays, `b` LSNs in all. No taint.
    Only of what a primary assigned itself may anything not be written yet; it was not acknowledged."""
    cdef node_t* node = &world.nodes[a]
    cdef int sure = node.last
    if node.role == LEADER:
        sure = max(world.first[node.epoch] - 1, max(node.flushed, node.acknowledged))
    if world.crashes == 0 or b > node.last or b < sure:
        return False
    world.crashes -= 1
    cut(node, b)
    end_process(world, bounds, a, False)
    return True


cdef inline bint cut_power(world_t* world, const bounds_t* bounds, int a, int b) noexcept nogil:
    """A machine dies and boots again: of what was not flushed, `b` LSNs in all are left. Taint."""
    cdef node_t* node = &world.nodes[a]
    if world.crashes == 0 or b < node.flushed or b > node.last:
        return False
    world.crashes -= 1
    cut(node, b)
    node.tainted = has(world.in_sync, a)
    end_process(world, bounds, a, True)
    return True


# ------------------------------------------------------------------------------------ what matters

cdef inline void forget_the_past(world_t* world, const bounds_t* bounds) noexcept nogil:
    """Acknowledged entries that no log has any more make no difference to what can happen."""
    cdef int i, lsn, logged
    for lsn in range(bounds.lsns):
        logged = 0
        for i in range(bounds.nodes):
            if world.nodes[i].log[lsn] != MISSING:
                logged |= 1 << world.nodes[i].log[lsn]
        world.ever[lsn] &= logged
