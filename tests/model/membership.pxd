"""The protocol, its other half: swaps, promotion, crashes. See rules.pxd."""
from libc.string cimport memset

from tests.model.rules cimport (
    R_EJECT, R_BOOT, R_SEAL, R_TAINT, R_SESSION, R_EPOCH, R_PROOF, R_TOLD, agrees, cut, forget_role,
    missing, refuse_below, step_down,
)
from tests.model.world cimport (
    CANDIDATE, EJECT, FOLLOWER, JOIN, LEADER, MISSING, NODES_MAX, NO_LEARNER, NO_SWAP, PROMOTE, READY, bit,
    bounds_t, has, keeps, node_t, world_t,
)


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


cdef inline bint submit_leave(world_t* world, const bounds_t* bounds, int a, int b) noexcept nogil:
    """VolumePolicy._leave: all that a node does whose store failed, if another member, `b`, is not tainted (V5)."""
    cdef node_t* node = &world.nodes[a]
    if (not node.failed or node.swap != NO_SWAP or not has(world.in_sync, a) or world.primary == a
            or not has(world.in_sync, b) or world.nodes[b].tainted):
        return False
    submit(node, EJECT, world.in_sync & ~bit(a))
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
    """primary_lead: what members told when they sealed is where their tails begin, and counts for nothing
    (R-proof). What the product counts unproved was committed, so all have it."""
    cdef int i
    for i in range(NODES_MAX):
        if keeps(bounds, R_SESSION):
            node.acked[i] = node.durable[i] = 0
        if i != a and has(node.swap_set, i):
            if not keeps(bounds, R_PROOF):
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
            node.linked &= ~bit(i)


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
    if node.won or node.failed or (not deposed(world, a) and node.sealed >= world.epoch):
        return False
    follow(world, bounds, a)
    return True


cdef inline bint resign(world_t* world, const bounds_t* bounds, int a, int b) noexcept nogil:
    """Stale: a primary whom `b`, member or not, refuses for a higher seal steps down, and may stand again."""
    cdef node_t* node = &world.nodes[a]
    if node.role != LEADER or world.nodes[b].sealed <= node.epoch:
        return False
    step_down(node, bounds)
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
    node.heard = False


cdef inline bint stand(world_t* world, const bounds_t* bounds, int a, int b) noexcept nogil:
    """VolumePolicy._stand: any complete member, whenever it hears nothing of the primary; above the seals
    it knows, `b`'s among them if that one refused it (Stale)."""
    cdef node_t* node = &world.nodes[a]
    cdef int target = max(world.epoch, max(node.sealed, world.nodes[b].sealed)) + 1
    if (node.role != FOLLOWER or node.failed or node.learning or not has(world.in_sync, a)
            or target > bounds.epochs):
        return False
    aim(world, bounds, a, target)
    return True


cdef inline bint grew(const node_t* node, int a) noexcept nogil:
    """Candidate.log_grew: since the candidate sealed itself."""
    return node.told[a] != 1 + node.last


cdef inline bint move_up(world_t* world, const bounds_t* bounds, int a, int b) noexcept nogil:
    """A candidate takes over another's higher seal (P7); or seals anew when its log grew,
    which the product does at once (P6); it may, but nothing depends on it. It need not know yet that
    another one has won its epoch."""
    cdef node_t* node = &world.nodes[a]
    cdef int target
    if node.role != CANDIDATE or node.swap != NO_SWAP or node.epoch < world.epoch:
        return False
    target = max(node.sealed, node.epoch + grew(node, a))
    if target == node.epoch or target > bounds.epochs:
        return False
    aim(world, bounds, a, target)
    return True


cdef inline bint refuse_once(world_t* world, const bounds_t* bounds, int a, int b) noexcept nogil:
    """VolumePolicy._take_role: a candidate that hears of another primary, and whose log grew since it sealed,
    refuses that one's epoch: its old answer may have been counted (P6). Nothing depends on it here."""
    cdef node_t* node = &world.nodes[a]
    cdef int target = max(world.epoch, node.sealed) + 1
    if node.role != CANDIDATE or node.won or not deposed(world, a) or not grew(node, a) or target > bounds.epochs:
        return False
    step_down(node, bounds)
    refuse_below(node, bounds, target)
    return True


cdef inline bint seal(world_t* world, const bounds_t* bounds, int a, int b) noexcept nogil:
    """SealPeer and Sealed: member `b` refuses lower epochs and tells candidate `a` where its log
    ends. One that is sealed higher already makes the candidate move up."""
    cdef node_t* candidate = &world.nodes[a]
    cdef node_t* node = &world.nodes[b]
    if (candidate.role != CANDIDATE or node.failed or not has(world.in_sync, b) or candidate.epoch < world.epoch
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
    candidate.told[b] = 1 + node.last
    candidate.told_old_boots &= ~bit(b)
    candidate.told_tainted = (candidate.told_tainted & ~bit(b)) | node.tainted << b
    return True


cdef inline bint seal_late(world_t* world, const bounds_t* bounds, int a, int b) noexcept nogil:
    """A SEAL that was on its way when candidate `a` came to its end: `b` refuses, and nobody hears its answer."""
    cdef node_t* node = &world.nodes[b]
    if (world.nodes[a].role != FOLLOWER or node.failed or not has(world.in_sync, b)
            or world.nodes[a].sealed <= node.sealed):
        return False
    refuse_below(node, bounds, world.nodes[a].sealed)
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
    if node.failed or node.last <= candidate.last or not agrees(candidate, node, candidate.last):
        return False
    if missing(node):
        return False                                   # its running hash is another's
    if candidate.heard and keeps(bounds, R_TOLD):
        return False
    while candidate.last < node.last:
        candidate.log[candidate.last] = node.log[candidate.last]
        candidate.last += 1
    return True


cdef inline bint may_be_committed(const world_t* world, const node_t* node, int lsns) noexcept nogil:
    """Whether a copy may know so many LSNs to be committed: all of them were acknowledged."""
    cdef int i
    if lsns > node.last:
        return False
    for i in range(lsns):
        if not world.ever[i] >> node.log[i] & 1:
            return False
    return True


cdef inline bint submit_promotion(world_t* world, const bounds_t* bounds, int a, int b) noexcept nogil:
    """promotion.decide > Win: the whole decision, from what was told (P1-P5, R-taint). `b` LSNs are committed
    here: a member that has fewer cannot be given what it lacks as pending records, and is left out."""
    cdef node_t* candidate = &world.nodes[a]
    cdef int i, members = bit(a)
    cdef bint tainted = candidate.tainted and keeps(bounds, R_TAINT), fits
    if (candidate.role != CANDIDATE or candidate.swap != NO_SWAP or candidate.epoch <= world.epoch
            or not has(world.in_sync, a) or candidate.learning
            or (keeps(bounds, R_SEAL) and candidate.sealed != candidate.epoch)
            or not may_be_committed(world, candidate, b)):
        return False
    for i in range(bounds.nodes):
        if not has(world.in_sync, i) or i == a:
            continue
        if tainted and (candidate.told[i] == 0 or not has(candidate.told_tainted, i)):
            return False                               # a clean one must lead, and it may be
        if not equal_standing(candidate, tainted or not keeps(bounds, R_TAINT), i):
            continue
        if candidate.told[i] > 1 + candidate.last:
            return False                               # adopt it first, or hear that it is gone
        if candidate.told[i] <= candidate.last:
            fits = b < candidate.told[i]
        else:
            fits = agrees(candidate, &world.nodes[i], candidate.last)
        if fits:
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


cdef inline int written(const world_t* world, const node_t* node) noexcept nogil:
    """LSNs that are sure to be on a node's disk. Of what a primary assigned itself any may not be written yet."""
    if node.role != LEADER:
        return node.last
    return max(world.first[node.epoch] - 1, max(node.flushed, node.acknowledged))


cdef inline bint kill(world_t* world, const bounds_t* bounds, int a, int b) noexcept nogil:
    """A process dies and starts again: what its disk had written stays, `b` LSNs in all. No taint.
    Only of what a primary assigned itself may anything not be written yet; it was not acknowledged."""
    cdef node_t* node = &world.nodes[a]
    if world.crashes == 0 or node.failed or b > node.last or b < written(world, node):
        return False
    world.crashes -= 1
    cut(node, b)
    end_process(world, bounds, a, False)
    return True


cdef inline bint fail(world_t* world, const bounds_t* bounds, int a, int b) noexcept nogil:
    """A store fails: a crash, but for what the node may still do until it starts again (V5)."""
    if not kill(world, bounds, a, b):
        return False
    world.nodes[a].role = FOLLOWER
    world.nodes[a].failed = True
    return True


cdef inline bint start_again(world_t* world, const bounds_t* bounds, int a, int b) noexcept nogil:
    """Somebody starts the node of a failed store anew."""
    cdef node_t* node = &world.nodes[a]
    if not node.failed:
        return False
    node.failed = False
    end_process(world, bounds, a, False)
    return True


cdef inline bint cut_power(world_t* world, const bounds_t* bounds, int a, int b) noexcept nogil:
    """A machine dies and boots again: of what was not flushed, `b` LSNs in all are left. Taint."""
    cdef node_t* node = &world.nodes[a]
    if world.crashes == 0 or b < node.flushed or b > node.last:
        return False
    world.crashes -= 1
    cut(node, b)
    node.failed = False
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
