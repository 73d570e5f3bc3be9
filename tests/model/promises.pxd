"""What the protocol promises, asked of every state.

  S1 every in-sync member holds, on its disk, all that an answered flush covers (D1)
  S2 every in-sync member that is not tainted has written all that was acknowledged (D2)
  S3 the primary that the config names has all that was acknowledged in its incarnation (D2)
  S4 no two primaries could both have a new write acknowledged
  S5 no in-sync member holds a committed block that was lost to everybody else
  S6 no LSN was promised twice, with different content (D3: with S1 and S2, a prefix)
"""
from tests.model.rules cimport counts
from tests.model.world cimport LEADER, bounds_t, has, node_t, world_t

cdef enum:
    KEPT
    S1
    S2
    S3
    S4
    S5
    S6


cdef inline bint may_acknowledge(const world_t* world, const bounds_t* bounds, int a) noexcept nogil:
    """Would everybody who counts at this primary still take a record from it?"""
    cdef const node_t* leader = &world.nodes[a]
    cdef int i
    for i in range(bounds.nodes):
        if counts(leader, bounds, i) and world.nodes[i].sealed > leader.epoch:
            return False
    return leader.role == LEADER


cdef inline int broken_promise(const world_t* world, const bounds_t* bounds) noexcept nogil:
    """Number of a promise that does not hold here, or KEPT."""
    cdef int i, lsn, able = 0
    cdef bint leads
    cdef const node_t* node
    if world.contradiction:
        return S6
    for i in range(bounds.nodes):
        node = &world.nodes[i]
        able += may_acknowledge(world, bounds, i)
        leads = node.role == LEADER and node.epoch == world.epoch and node.current
        if has(world.in_sync, i) and node.stale:
            return S5
        for lsn in range(bounds.lsns):
            if (world.durable[lsn] and has(world.in_sync, i)
                    and (node.flushed <= lsn or node.log[lsn] != world.durable[lsn])):
                return S1
            if world.acked[lsn] == 0:
                continue
            if has(world.in_sync, i) and not node.tainted and (
                    node.last <= lsn or node.log[lsn] != world.acked[lsn]):
                return S2
            if leads and (node.last <= lsn or node.log[lsn] != world.acked[lsn]):
                return S3
    return S4 if able > 1 else KEPT
