"""A cluster of NodeControls over fake engines: what the random walk drives and checks.

Messages between engines wait in one queue per direction until the walk delivers them;
links, processes and power fail at its will.

Invariants (checked after every step, over what the config store holds):
  S1 every in-sync member (that disk) has everything flushed on its disk
  S2 every in-sync member whose boot is the config's has everything acknowledged in the
     present incarnation
  S3 an epoch has one leader
"""
from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random

from repstore import errors
from repstore.config import VolumeOptions
from repstore.coordination.memory import MemoryConfigStore
from repstore.node.admin import create_volume, load_volume, load_volumes, register_node
from repstore.node.control import NodeControl, NodeIdentity
from repstore.replication.situation import Identity
from repstore.replication.volume_config import NodeConfig, VolumeConfig
from tests.node.fake_engine import Copy, FakeEngine, Message


@dataclass
class Machine:
    """A node's disk and power; its process when it runs."""
    node: int
    boots: int = 1
    disks: int = 1
    lives: int = 0
    copies: dict[int, Copy] = field(default_factory=dict)
    engine: FakeEngine | None = None
    control: NodeControl | None = None

    @property
    def boot_id(self) -> str:
        return f"b{self.node}.{self.boots}"

    @property
    def store_uuid(self) -> str:
        return f"d{self.node}.{self.disks}"

    @property
    def name(self) -> str:
        return f"n{self.node}"


class FakeCluster:
    """Machines, links, time and one config store."""

    def __init__(self, random: Random, nodes: int = 3) -> None:
        self.random = random
        self.now_s = 100.0
        self.store = MemoryConfigStore()
        self.machines = [Machine(node) for node in range(nodes)]
        self.links: set[tuple[int, int]] = set()
        self.cut: set[tuple[int, int]] = set()          # pairs that may not connect now
        self.wires: dict[tuple[int, int], deque[Message]] = {}
        self.leaders: dict[tuple[int, int], int] = {}
        self.acknowledged: dict[int, list[tuple[int, int]]] = {}
        self.flushed: dict[int, list[int]] = {}
        for machine in self.machines:
            register_node(self.store, self._record(machine))

    # --------------------------------------------------------------------- what happens
    def start(self, machine: Machine) -> None:
        machine.lives += 1
        register_node(self.store, self._record(machine))
        machine.engine = FakeEngine(self, machine.node)
        identity = NodeIdentity(machine.name, Identity(
            machine.node, machine.store_uuid, machine.boot_id), "host",
            f"{machine.name} life {machine.lives}")
        machine.control = NodeControl(
            identity, machine.engine, self.store,
            lambda node: self.machines[node.id].engine is None, self.now_s)

    def kill(self, machine: Machine) -> None:
        machine.engine = machine.control = None
        for pair in [pair for pair in sorted(self.links) if machine.node in pair]:
            self.break_link(pair)

    def lose_power(self, machine: Machine) -> None:
        """Any prefix that holds what was flushed survives."""
        self.kill(machine)
        machine.boots += 1
        for copy in machine.copies.values():
            copy.cut(self.random.randint(copy.flushed, len(copy.records)))

    def break_link(self, pair: tuple[int, int]) -> None:
        self.links.discard(pair)
        for sender, receiver in (pair, pair[::-1]):
            self.wires.pop((sender, receiver), None)
            engine = self.machines[receiver].engine
            if engine is not None:
                engine.link_down(sender)

    def connect(self) -> None:
        """Make every link that may be."""
        running = [machine for machine in self.machines if machine.engine is not None]
        for one in running:
            for two in running:
                pair = (one.node, two.node)
                if one.node < two.node and pair not in self.links | self.cut:
                    self.links.add(pair)
                    assert one.engine is not None
                    assert two.engine is not None
                    one.engine.link_up(two.node)
                    two.engine.link_up(one.node)

    def send(self, sender: int, receiver: int, message: Message) -> None:
        if (min(sender, receiver), max(sender, receiver)) in self.links:
            self.wires.setdefault((sender, receiver), deque()).append(message)

    def deliver(self) -> bool:
        """One message, of any link; in order within it."""
        waiting = sorted(wire for wire, messages in self.wires.items() if messages)
        if not waiting:
            return False
        sender, receiver = self.random.choice(waiting)
        engine = self.machines[receiver].engine
        assert engine is not None
        engine.receive(sender, self.wires[sender, receiver].popleft())
        return True

    def run_control(self, machine: Machine) -> None:
        """What the control thread does when it wakes."""
        if machine.control is None or machine.engine is None:
            return
        for event in machine.engine.events():
            machine.control.on_event(event, self.now_s)
        machine.control.poll_config(self.now_s)
        machine.control.tick(self.now_s)

    def pass_time(self, seconds: float) -> None:
        """Replicas in touch with their leader let it read: leases are native."""
        self.now_s += seconds
        for machine in self.machines:
            if machine.engine is not None and seconds >= 0.1:
                machine.engine.ask_unheard()
            for index, (epoch, primary) in (machine.engine.following.items()
                                            if machine.engine is not None else ()):
                pair = (min(primary, machine.node), max(primary, machine.node))
                leader = self.machines[primary].engine
                if pair in self.links and leader is not None and index in leader.leading and \
                        leader.leading[index].epoch == epoch == \
                        machine.copies[index].sealed_epoch:
                    assert machine.engine is not None
                    machine.engine.grant_s[index] = self.now_s

    def settle(self, seconds: float) -> None:
        """Everything heals and runs for a while."""
        self.cut.clear()
        for machine in self.machines:
            if machine.engine is None:
                self.start(machine)
        for _ in range(int(seconds / 0.1)):
            self.connect()
            while self.deliver():
                self.check()
            for machine in self.machines:
                self.run_control(machine)
                self.check()
            self.pass_time(0.1)

    # ---------------------------------------------------------------------- what is seen
    def create(self, options: VolumeOptions) -> VolumeConfig:
        return create_volume(self.store, options)

    def volume(self, name: str) -> VolumeConfig:
        return load_volume(self.store, name)

    def leaders_now(self, index: int) -> Iterator[FakeEngine]:
        for machine in self.machines:
            if machine.engine is not None and index in machine.engine.leading:
                yield machine.engine

    def check(self) -> None:
        """S1 and S2, over the config as the store holds it."""
        for volume in load_volumes(self.store).values():
            acknowledged = [value for incarnation, value in
                            self.acknowledged.get(volume.index, []) if
                            incarnation == volume.incarnation]
            for member in volume.in_sync:
                machine = self.machines[member.node]
                copy = machine.copies.get(volume.index)
                if copy is None or machine.store_uuid != member.store_uuid:
                    continue
                held = [value for _, value in copy.records]
                missing = set(self.flushed.get(volume.index, [])) - set(held[:copy.flushed])
                assert not missing, f"S1: node {member.node} lost {missing}"
                if machine.boot_id == member.boot_id:
                    missing = set(acknowledged) - set(held)
                    assert not missing, f"S2: node {member.node} lacks {missing}"

    def _record(self, machine: Machine) -> NodeConfig:
        return NodeConfig(name=machine.name, id=machine.node, store_path="/nowhere",
                          store_uuid=machine.store_uuid, peer_socket="/nowhere",
                          boot_id=machine.boot_id, pid=machine.lives)


def failing(random: Random, rate: float) -> tuple[object, object]:
    """Hooks of a config store that is at times away, or silent about a swap."""
    def before(operation: str, key: str) -> None:
        if random.random() < rate:
            raise errors.UnavailableError("away")

    def after(operation: str, key: str) -> None:
        if random.random() < rate:
            raise errors.OutcomeUnknownError("no answer")

    return before, after
