"""One simulated node: the production engine and control code over a simulated disk.

A `SimulatedNode` is the machine: it has a name, a disk and a boot id. A `NodeLife` is one run
of its process: engine, control, connections. A crash ends the life and keeps the machine.

  M1 An engine is called from here alone, and runs until it has nothing more to do now.
  M2 What it tells its control code arrives a drawn delay later, in order: Python is slow.
  M3 Everything that names something (boot, life, token, process) is drawn from the seed.
"""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from random import Random

from repstore import config
from repstore._fast.simulated import Close, DiskFlush, DiskRead, DiskWrite, Hold, Send
from repstore.coordination.interface import ConfigStore
from repstore.node import admin
from repstore.node.control import NodeControl, NodeIdentity
from repstore.replication.engine_control import EngineEvent
from repstore.replication.situation import Identity
from repstore.replication.volume_config import NodeConfig
from repstore.sim.clock import NS_PER_S, VirtualClock
from repstore.sim.disk import DiskAsk, SimulatedDisk
from repstore.sim.engine import SimulatedEngine, open_engine
from repstore.sim.network import SimulatedNetwork
from repstore.sim.trace import Trace, describe_bytes, describe_frame

CONTROL_DELAY_MOST_NS = 3_000_000
TURNS_MAX = 1_000            # of one engine at one point of time: more is a loop without end


@dataclass(frozen=True, slots=True)
class World:
    """What all nodes of a simulation share."""
    clock: VirtualClock
    network: SimulatedNetwork
    config: ConfigStore
    trace: Trace
    nodes: dict[int, SimulatedNode] = field(default_factory=dict)

    def is_gone(self, record: NodeConfig) -> bool:
        """Whether the process of this record does not run any more."""
        life = self.nodes[record.id].life
        return life is None or life.process != record.pid


class SimulatedNode:
    """A machine with a disk. `life` is its running process, or None."""

    def __init__(self, world: World, name: str, number: int, disk: SimulatedDisk, random: Random) -> None:
        self.name = name
        self.number = number
        self.disk = disk
        self.boot_id = random.randbytes(16)
        self.life: NodeLife | None = None
        self._world = world
        self._random = random

    def start(self) -> NodeLife:
        """A process starts, recovers the store, and its first checkpoint is durable."""
        assert self.life is None, f"{self.name} runs"
        life_id = self._random.getrandbits(64) or 1
        engine, opened = open_engine(self.disk.image, self.name, number=self.number,
                                     boot_id=self.boot_id, life_id=life_id)
        self._world.trace.add(self.name, f"starts, life {life_id:016x}: {opened.recovery.reason}")
        self.life = NodeLife(self._world, self, engine, opened.superblock.store_uuid.hex(), self._random)
        engine.wait_for_checkpoint(1)
        self.life.begin(process=self._random.getrandbits(31))
        return self.life

    def kill(self) -> None:
        """The process is killed; the machine and what its disk had done stay."""
        self._end("is killed", self.disk.kill)

    def cut_power(self) -> None:
        """The machine is off, and boots anew: only what was flushed is sure to be there."""
        self._end("loses power", self.disk.cut_power)
        self.boot_id = self._random.randbytes(16)

    def _end(self, how: str, crash: Callable[[], str]) -> None:
        life = self.life
        assert life is not None, f"{self.name} does not run"
        life.alive = False
        self.life = None
        self._world.network.crash(life)
        self._world.trace.add(self.name, f"{how}: {crash()}")


class NodeLife:
    """One run of a node's process."""

    def __init__(self, world: World, node: SimulatedNode, engine: SimulatedEngine, store_uuid: str,
                 random: Random) -> None:
        self.name = node.name
        self.node = node
        self.engine = engine
        self.alive = True
        self.process = 0
        self.on_progress: list[Callable[[], bool]] = []     # clients: True when they asked for more
        self._store_uuid = store_uuid
        self._world = world
        self._random = random
        self._due: dict[int, tuple[int, DiskAsk]] = {}      # disk operations, by number
        self._wake_ns = 0
        self._inbox: list[EngineEvent] = []
        self._control: NodeControl | None = None
        engine.pump = self._pump

    @property
    def control(self) -> NodeControl:
        """The control code; there from `begin` on."""
        assert self._control is not None
        return self._control

    def begin(self, process: int) -> None:
        """Publish the process, and meet the others."""
        node, world = self.node, self._world
        self.process = process
        boot = node.boot_id.hex()
        record = NodeConfig(name=node.name, id=node.number, store_path=node.name, store_uuid=self._store_uuid,
                            peer_socket=node.name, host_boot_id=boot, pid=process, boot_id=boot)
        admin.register_node(world.config, record)
        identity = NodeIdentity(node.name, Identity(node.number, self._store_uuid, boot), boot,
                                self._random.randbytes(16).hex())
        self._control = NodeControl(identity, self.engine, world.config, world.is_gone,
                                    world.clock.now_s)
        self._tick()

    # --------------------------------------------------------------------------- the engine
    def run(self) -> None:
        """Turn the engine until it has nothing more to do now (M1)."""
        for _ in range(TURNS_MAX):
            moved = self._turn()
            for ask_for_more in self.on_progress:
                moved |= ask_for_more()
            if not moved:
                break
        else:
            raise AssertionError(f"{self.name}: {TURNS_MAX} turns at {self._world.clock.now_ns} and no end")
        self.engine.check_invariants()
        self._collect_events()

    def _turn(self) -> bool:
        """One turn, and what it asked for. Whether there may be more to do."""
        deadline_ns, busy = self.engine.backend.turn(self._world.clock.now_ns)
        asked = self._carry_out()
        if deadline_ns and (self._wake_ns <= self._world.clock.now_ns or deadline_ns < self._wake_ns):
            self._wake_ns = deadline_ns
            self._world.clock.at(deadline_ns, self._wake)
        return busy or asked

    def _run_if_woken(self) -> None:
        """Control code alone turns nothing, in a process either: what it calls does."""
        if self.engine.backend.woken:
            self.run()

    def _wake(self) -> None:
        if self.alive:
            self.run()

    def _carry_out(self) -> bool:
        """Pass on what the engine asked for. Whether it asked for anything."""
        asks = self.engine.backend.take()
        for ask in asks:
            match ask:
                case Send():
                    self._world.trace.add(self.name, f"sends on {ask.link} {describe_frame(ask.data)}")
                    self._world.network.send(self, ask.link, ask.token, ask.data)
                case Close():
                    self._world.trace.add(self.name, f"closes {ask.link}")
                    self._world.network.close(self, ask.link)
                case Hold():
                    self._world.network.hold(self, ask.link, ask.stopped)
                case _:
                    self._begin_disk(ask)
        return bool(asks)

    def _begin_disk(self, ask: DiskAsk) -> None:
        match ask:
            case DiskRead():
                what = f"reads {ask.offset} {ask.length}"
            case DiskWrite():
                what = f"writes {ask.offset} {describe_bytes(ask.data)}"
            case DiskFlush():
                what = "flushes"
        self._world.trace.add(self.name, f"{what} as {ask.operation}")
        due_ns = self._world.clock.now_ns + self.node.disk.begin(ask)
        self._due[ask.operation] = (due_ns, ask)
        self._world.clock.at(due_ns, partial(self._disk_due, ask))

    def _disk_due(self, ask: DiskAsk) -> None:
        """The time of an operation has come, unless a pump or a crash was before it."""
        if self.alive and self._due.get(ask.operation, (0, None))[1] is ask:
            self._finish_disk(ask)
            self.run()

    def _finish_disk(self, ask: DiskAsk) -> None:
        del self._due[ask.operation]
        result, data = self.node.disk.finish(ask.operation)
        self._world.trace.add(self.name, f"disk {ask.operation} done {result}")
        self.engine.backend.disk_done(ask.operation, result, data)

    def _pump(self) -> bool:
        """One turn and one disk operation, at this point of time. False: nothing is under way."""
        moved = self._turn()
        if self._due:
            self._finish_disk(min(self._due.values(), key=lambda entry: (entry[0], entry[1].operation))[1])
            return True
        return moved

    # -------------------------------------------------------------------------- connections
    def link_up(self, link: int, kind: int) -> None:
        """See `network.Peer`."""
        self._world.trace.add(self.name, f"link {link} up")
        self.engine.backend.link_up(link, kind)
        self.run()

    def link_down(self, link: int) -> None:
        """See `network.Peer`."""
        self._world.trace.add(self.name, f"link {link} down")
        self.engine.backend.link_down(link)
        self.run()

    def sent(self, link: int, token: int) -> None:
        """See `network.Peer`."""
        self.engine.backend.sent(link, token)
        self.run()

    def received(self, link: int, data: bytes) -> bool:
        """See `network.Peer`."""
        self._world.trace.add(self.name, f"receives on {link} {describe_frame(data)}")
        is_frame = self.engine.backend.frame(link, data)
        self.run()
        return is_frame

    # ------------------------------------------------------------------------- control code
    def _collect_events(self) -> None:
        """Events of the engine reach the control code a little later (M2)."""
        events = self.engine.events()
        if events and not self._inbox:
            self._world.clock.after(self._random.randint(0, CONTROL_DELAY_MOST_NS), self._handle_events)
        self._inbox += events

    def _handle_events(self) -> None:
        if not self.alive:
            return
        events, self._inbox = self._inbox, []
        for event in events:
            self._world.trace.add(self.name, f"event {event!r}")
            self.control.on_event(event, self._world.clock.now_s)
        self._run_if_woken()

    def _tick(self) -> None:
        """What a process does every CONFIG_POLL_S."""
        if not self.alive:
            return
        now_s = self._world.clock.now_s
        self.control.poll_config(now_s)
        self.control.tick(now_s)
        for other in self.control.peers_to_connect():
            far = self._world.nodes[other.id].life
            if far is not None:
                self._world.network.connect(self, far)
        self._run_if_woken()
        self._world.clock.after(int(config.CONFIG_POLL_S * NS_PER_S), self._tick)
