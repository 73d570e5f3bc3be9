"""What a simulated cluster did, as anybody could see it who looks at every moment.

`Recorder` looks at a running `SimulatedCluster` after every step of its clock, from outside its control
code, and notes what changed of one volume: of its config the epoch, primary and in-sync set; of each node
what its engine says. It alters nothing in there. `episodes` makes of it what the model can replay.
"""
from __future__ import annotations

from typing import NamedTuple

from repstore.replication.promotion import Candidate
from repstore.replication.volume_config import VolumeConfig, volume_key
from repstore.sim.cluster import SimulatedCluster
from repstore.sim.node import NodeLife

Crash = tuple[str, int]                 # name of the model's step, and node


class Seen(NamedTuple):
    """One node at one moment; nodes are numbered by their place in the placement. A node that is down is
    as it was."""
    up: bool
    sealed: int         # epochs below it are refused
    last: int           # newest LSN in its log
    flushed: int        # newest LSN that survives its machine
    learning: bool
    pulling: bool       # a candidate: it fetches what another's log has more
    leads: int          # an epoch, or 0; then also:
    counting: int       # members that count, without itself, by bit
    learners: int       # those that it brings back
    done: int           # newest LSN that it acknowledged


class Look(NamedTuple):
    """One moment."""
    at_ns: int
    config: tuple[int, int, int]        # epoch, primary, in-sync set by bit
    nodes: tuple[Seen, ...]
    crash: Crash | None                 # of the node that is back now
    at_rest: bool                       # everybody in sync and up, with the same log, all of it acknowledged


class Recorder:
    """Looks at one volume of a cluster. Begin it when all copies are in sync.

    It ends by itself when a disk is replaced: that is no step of the model.
    """

    def __init__(self, cluster: SimulatedCluster, volume: str) -> None:
        self.looks: list[Look] = []
        self.first_lsns: dict[int, int] = {}            # of every epoch that was seen
        self._cluster = cluster
        self._name = volume
        self._volume = cluster.volume(volume)
        placement = self._volume.placement
        self._place = {node: place for place, node in enumerate(placement)}
        self._machines = [cluster.world.nodes[node] for node in placement]
        self._lives = [(cluster.life(machine.name).process, machine.boot_id) for machine in self._machines]
        self._stores = [cluster.life(machine.name).store_uuid for machine in self._machines]
        self._failed: set[int] = set()                  # and not started again
        self._revision = -1
        self._config = (0, 0, 0)
        self._step = cluster.clock.step
        cluster.clock.step = self._observed_step        # type: ignore[method-assign]
        self._look()

    def end(self) -> None:
        """Stop looking."""
        self._cluster.clock.step = self._step           # type: ignore[method-assign]

    def _observed_step(self, until_ns: int) -> bool:
        more = self._step(until_ns)
        self._look()
        return more

    def _look(self) -> None:
        """Note what is new. Crashes that ended at the same moment are seen one after the other."""
        while self._machines:
            self._look_at_config()
            crash = self._next_crash()
            if crash is not None and self._is_replaced(crash[1]):
                self._machines = []
                return
            nodes = tuple(self._look_at(node) for node in range(len(self._machines)))
            last = self.looks[-1] if self.looks else None
            if last is not None and crash is None and (last.config, last.nodes) == (self._config, nodes):
                return
            at_rest = self._is_at_rest(nodes)
            self.looks.append(Look(self._cluster.clock.now_ns, self._config, nodes, crash, at_rest))
            if crash is None:
                return

    def _look_at_config(self) -> None:
        """Decoded only when it changed: this is asked after every step of the clock."""
        entry = self._cluster.config.get(volume_key(self._name))
        assert entry is not None
        if entry.revision == self._revision:
            return
        self._revision = entry.revision
        volume = self._volume = self._cluster.volume(self._name)
        self._config = (volume.epoch, self._place[volume.primary], self._set_of(volume.in_sync_nodes()))
        self.first_lsns |= {entry.epoch: entry.first_lsn for entry in volume.lineage}

    def _next_crash(self) -> Crash | None:
        """A node that is back, in another life than it was seen in; or whose store failed."""
        for node, machine in enumerate(self._machines):
            life = self._running(node)
            if life is not None and (life.process, machine.boot_id) != self._lives[node]:
                lost = machine.boot_id != self._lives[node][1] and not self._was_closed(life)
                how = "cut power" if lost else "start again" if node in self._failed else "kill"
                self._lives[node] = (life.process, machine.boot_id)
                self._failed.discard(node)
                return how, node
            if life is not None and life.engine.failed and node not in self._failed:
                self._failed.add(node)
                return "fail", node
        return None

    def _was_closed(self, life: NodeLife) -> bool:
        """Whether its machine booted behind a clean close, which the config hears of (V6): no taint."""
        known = _member(self._volume, life.node.number)
        closed = life.identity.closed_boot_ids
        return closed != () and known in (*closed, life.boot_id)

    def _running(self, node: int) -> NodeLife | None:
        life = self._machines[node].life
        return life if life is not None and not life.is_starting else None

    def _is_replaced(self, node: int) -> bool:
        life = self._running(node)
        return life is not None and life.store_uuid != self._stores[node]

    def _look_at(self, node: int) -> Seen:
        life = self._running(node)
        if life is None or (life.process, self._machines[node].boot_id) != self._lives[node]:
            return self.looks[-1].nodes[node]._replace(up=False)
        if node in self._failed:
            return self.looks[-1].nodes[node]._replace(up=False, leads=0, counting=0, learners=0, done=0)
        state = life.engine.volume_state(self._volume.index)
        policy = life.control.policies.get(self._volume.index)
        role = policy.role if policy is not None else None
        pulling = isinstance(role, Candidate) and role.pulling is not None
        copy = Seen(True, state.sealed_epoch, state.last_lsn, state.durable_lsn, state.learning, pulling,
                    0, 0, 0, 0)
        if state.role != "primary":
            return copy
        begun = self._set_of(set(state.learners) - set(state.attaching))
        return copy._replace(leads=state.epoch, counting=self._set_of(state.in_sync), learners=begun,
                             done=state.commit_lsn)

    def _set_of(self, nodes: set[int] | tuple[int, ...]) -> int:
        return sum(1 << self._place[node] for node in nodes)

    def _is_at_rest(self, nodes: tuple[Seen, ...]) -> bool:
        epoch, primary, in_sync = self._config
        leader = nodes[primary]
        others = in_sync & ~(1 << primary)
        if in_sync != (1 << len(nodes)) - 1 or leader.leads != epoch or leader.counting != others:
            return False
        return leader.done == leader.last and all(
            seen.up and not seen.learning and seen.sealed == epoch and seen.last == leader.last
            and bool(seen.leads) == (node == primary) and self._is_settled(node)
            for node, seen in enumerate(nodes))

    def _is_settled(self, node: int) -> bool:
        """Whether it has the boot that it joined with, and wants nothing."""
        life = self._running(node)
        member = _member(self._volume, self._machines[node].number)
        if life is None or life.is_starting or member != life.boot_id:
            return False
        policy = life.control.policies.get(self._volume.index)
        return policy is not None and policy.here.swap is None and not isinstance(policy.role, Candidate)


def _member(volume: VolumeConfig, node: int) -> str:
    member = volume.member(node)
    return member.boot_id if member is not None else ""
