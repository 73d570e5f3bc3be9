"""One simulated node: the production engine and control code over a simulated disk.

A `SimulatedNode` is the machine: it has a name, a disk, a clock and a boot id. A `NodeLife` is
one run of its process: engine, control, connections. A crash ends the life and keeps the machine.

  M1 An engine is called from here alone. It is told the time, what happens then is handed to
     it, and it turns until it has nothing more to do now: one round of a real loop.
  M2 What it tells its control code arrives a drawn delay later, in order: Python is slow.
  M3 Everything that names something (boot, life, token, process) is drawn from the seed.
  M4 A process that is stopped (SIGSTOP) does nothing; its clock, its disk and its peers go on.
     What comes for it meanwhile is there when it goes on. Its control code may be held alone.
  M5 An error that the control code does not handle ends the process, as it would a real one.
  M6 What it asks of a slow coordination store it waits for in the middle of a decision; its engine
     goes on (`ControlThread`).
"""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from random import Random

from msgspec import structs

from repstore import config, errors
from repstore._fast.checksum import crc32c
from repstore._fast.simulated import Close, DiskRead, DiskWrite, Hold, Send, SimulatedBackend
from repstore.coordination.interface import ConfigStore
from repstore.node import lives
from repstore.node.control import NodeControl, NodeIdentity
from repstore.replication.engine_control import EngineEvent
from repstore.replication.situation import Identity
from repstore.replication.volume_config import NodeConfig
from repstore.sim.clock import NS_PER_S, Action, NodeClock, Standstill, VirtualClock
from repstore.sim.config_store import ConfigFaults, NodeConfigStore
from repstore.sim.control_thread import ControlThread
from repstore.sim.disk import DiskAsk, SimulatedDisk
from repstore.sim.engine import SimulatedEngine, open_engine
from repstore.sim.meeting import Met, nobody
from repstore.sim.network import SimulatedNetwork
from repstore.sim.trace import FRAME, Trace, frame_details
from repstore.store.store import OpenedStore

CONTROL_DELAY_MOST_NS = 3_000_000
TURNS_MAX = 1_000            # of one engine at one point of time: more is a loop without end
TICK_NS = int(config.CONFIG_POLL_S * NS_PER_S)
SENDS, RECEIVES = "sends on {} " + FRAME, "receives on {} " + FRAME


class StartCrash(Exception):
    """The process was killed while it opened its store."""


@dataclass(slots=True)
class World:
    """What all nodes of a simulation share."""
    clock: VirtualClock
    network: SimulatedNetwork
    config: ConfigStore
    trace: Trace
    config_faults: ConfigFaults
    nodes: dict[int, SimulatedNode] = field(default_factory=dict)
    death_is_proved: bool = True      # one machine; between machines nobody can look at processes
    control_delay_most_ns: int = CONTROL_DELAY_MOST_NS
    on_lead: Callable[[str, int, int], None] = lambda process, volume, epoch: None      # who begins to lead

    def is_gone(self, record: NodeConfig) -> bool:
        """Whether the process of this record is known not to run any more."""
        life = self.nodes[record.id].life
        return self.death_is_proved and (life is None or life.process != record.pid)


class SimulatedNode:
    """A machine with a disk. `life` is its running process, or None."""

    def __init__(self, world: World, name: str, number: int, disk: SimulatedDisk, random: Random) -> None:
        self.name = name
        self.number = number
        self.disk = disk
        self.clock = NodeClock(world.clock)
        self.boot_id = random.randbytes(16)
        self.life: NodeLife | None = None
        self._world = world
        self._random = random

    def start(self, crash_after: int | None = None) -> NodeLife:
        """A process starts, recovers the store, and its first checkpoint is durable.

        Raises a RepstoreError if the store cannot be opened, and StartCrash after so many
        disk operations of the start.
        """
        assert self.life is None, f"{self.name} runs"
        life_id = self._random.getrandbits(64) or 1
        process = self._random.getrandbits(31)
        engine, opened = open_engine(self.disk.image, self.name, number=self.number, boot_id=self.boot_id,
                                     life_id=life_id, unreadable=frozenset(self.disk.faults.unreadable),
                                     replicated=True, knows_life=self._knows_life)
        self._world.trace.add(self.name, f"starts, life {life_id:016x}: {opened.recovery.reason}")
        identity = Identity(self.number, opened.superblock.store_uuid.hex(), opened.boot_id.hex())
        life = self.life = NodeLife(self._world, self, engine, identity, self._random)
        life.pumps_left = crash_after
        try:
            life.enter(process, opened)
            engine.wait_for_checkpoint(1)
            life.pumps_left = None
            life.begin()
        except (StartCrash, errors.RepstoreError) as error:
            self._end(f"does not start: {error}", self.disk.kill)
            raise
        return life

    def _knows_life(self, life_id: int) -> bool:
        """If the coordination store is away, it is when the process enters its life, too."""
        return lives.knows_life(self._world.config, self.name, life_id)

    def stop(self) -> None:
        """The process ends by itself and closes its store cleanly, if that has not failed."""
        life = self.life
        assert life is not None, f"{self.name} does not run"
        if not life.engine.failed:
            for index in life.engine.volume_indexes():
                life.engine.step_down(index)
            try:
                life.engine.settle(clean=True)
            except errors.RepstoreError as error:
                self._world.trace.add(self.name, f"does not close cleanly: {error}")
        self._end("stops", self.disk.kill)

    def kill(self, why: str = "is killed") -> None:
        """The process is killed; the machine and what its disk had done stay."""
        self._end(why, self.disk.kill)

    def cut_power(self) -> None:
        """The machine is off, and boots anew: only what was flushed is sure to be there."""
        if self.life is None:
            self._world.trace.add(self.name, "loses power: " + self.disk.cut_power())
        else:
            self._end("loses power", self.disk.cut_power)
        self.boot_id = self._random.randbytes(16)

    def _end(self, how: str, crash: Callable[[], str]) -> None:
        life = self.life
        assert life is not None, f"{self.name} does not run"
        life.alive = False
        self.life = None
        life.stop_deciding()
        self._world.network.crash(life)
        self._world.trace.add(self.name, f"{how}: {crash()}")


class NodeLife:
    """One run of a node's process."""

    def __init__(self, world: World, node: SimulatedNode, engine: SimulatedEngine, identity: Identity,
                 random: Random) -> None:
        self.name = node.name
        self.node = node
        self.engine = engine
        self.alive = True
        self.process = 0
        self.pumps_left: int | None = None                  # None: as many as it takes
        self.on_progress: list[Callable[[], bool]] = []     # clients: True when they asked for more
        self.store_uuid = identity.store_uuid
        self.boot_id = identity.boot_id
        self.identity = identity
        self._world = world
        self._random = random
        self._due: dict[int, tuple[int, DiskAsk]] = {}      # disk operations, by number
        self._wake_ns = 0
        self._run_asked = False
        self._is_pumping = False
        self._inbox: list[EngineEvent] = []
        self._stop = Standstill(world.clock)
        self._control_hold = Standstill(world.clock)
        self._control_thread = ControlThread(
            world.clock, self._control_is_put_off,
            lambda: self.name in world.config_faults.slow_most_ns, self._run_if_woken)
        self._store = NodeConfigStore(world.config, world.config_faults, node.name, world.clock,
                                      self._control_thread)
        self._record = NodeConfig(
            name=node.name, id=node.number, store_path=node.name, store_uuid=identity.store_uuid,
            peer_socket=node.name, host_boot_id=node.boot_id.hex(), boot_id=identity.boot_id)
        self._control: NodeControl | None = None
        engine.pump = self._pump
        engine.on_lead = lambda index, epoch: world.on_lead(self.process_name, index, epoch)

    @property
    def process_name(self) -> str:
        """Which process of which node this is."""
        return f"{self.name}/{self.process:08x}"

    @property
    def is_starting(self) -> bool:
        """Whether the store is not open yet."""
        return self._control is None

    @property
    def control(self) -> NodeControl:
        """The control code; there from `begin` on."""
        assert self._control is not None
        return self._control

    def enter(self, process: int, opened: OpenedStore) -> None:
        """Publish the process, and the life of the store that it is about to begin."""
        self.process = process
        self._record = lives.begin_life(self._store, structs.replace(
            self._record, pid=process, life_id=lives.life_name(opened.life_id)),
            lives.life_name(opened.superblock.life_id), opened.closed_boot_id.hex())

    def begin(self) -> None:
        """That life has begun: meet the others."""
        lives.life_has_begun(self._store, self._record)
        self.identity = replace(self.identity, closed_boot_ids=self._record.closed_boot_ids)
        identity = NodeIdentity(self.name, self.identity, self._record.host_boot_id,
                                self._random.randbytes(16).hex())
        self._control = NodeControl(identity, self.engine, self._store, self._world.is_gone,
                                    self.node.clock.now_s)
        self.decide(self._tick)

    # ------------------------------------------------------------------------------- stops
    @property
    def is_stopped(self) -> bool:
        """Whether a SIGSTOP is on."""
        return self._stop.is_on

    def stop_until(self, until_ns: int, met: Met = nobody) -> None:
        """SIGSTOP now, SIGCONT then (M4)."""
        self._stop.last_until(until_ns, met)

    def hold_control_until(self, until_ns: int, met: Met = nobody) -> None:
        """Python does nothing until then (M4)."""
        self._control_hold.last_until(until_ns, met)

    def _control_is_put_off(self, action: Action) -> bool:
        """Whether control code cannot act now; then the action waits."""
        return self._stop.put_off(action) or self._control_hold.put_off(action)

    # --------------------------------------------------------------------------- the engine
    def _told_the_time(self) -> SimulatedBackend:
        """The engine's other side, to hand in what happens now (M1)."""
        self.engine.backend.begin(self.node.clock.now_ns)
        return self.engine.backend

    def run(self) -> None:
        """Turn the engine until it has nothing more to do now (M1)."""
        if not self.alive or self._stop.put_off(self.run_soon):
            return
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

    def run_soon(self) -> None:
        """Turn when all that happens at this time was handed in."""
        if not self._run_asked:
            self._run_asked = True
            self._world.clock.soon(self._run_asked_for)

    def _run_asked_for(self) -> None:
        self._run_asked = False
        self.run()

    def _turn(self) -> bool:
        """One turn, and what it asked for. Whether there is more to do at once."""
        clock = self.node.clock
        deadline_ns, busy = self.engine.backend.turn(clock.now_ns)
        self._carry_out()
        if deadline_ns:
            wake_ns = clock.true_ns(deadline_ns)
            if self._wake_ns <= self._world.clock.now_ns or wake_ns < self._wake_ns:
                self._wake_ns = wake_ns
                self._world.clock.at(wake_ns, self.run)
        return busy

    def _run_if_woken(self) -> None:
        """Control code alone turns nothing, in a process either: what it calls does."""
        if self.engine.backend.woken:
            self.run_soon()

    def _carry_out(self) -> None:
        """Pass on what the engine asked for."""
        trace, network = self._world.trace, self._world.network
        for ask in self.engine.backend.take():
            if isinstance(ask, Send):
                trace.add(self.name, SENDS, ask.link, *frame_details(ask.data))
                network.send(self, ask.link, ask.token, ask.data)
            elif isinstance(ask, Close):
                trace.add(self.name, "closes {}", ask.link)
                network.close(self, ask.link)
            elif isinstance(ask, Hold):
                network.hold(self, ask.link, ask.stopped)
            else:
                self._begin_disk(ask)

    def _begin_disk(self, ask: DiskAsk) -> None:
        trace = self._world.trace
        if isinstance(ask, DiskRead):
            trace.add(self.name, "reads {1} {2} as {0}", *ask)
        elif isinstance(ask, DiskWrite):
            trace.add(self.name, "writes {1} {2} {3:08x} as {0}", ask.operation, ask.offset, len(ask.data),
                      crc32c(ask.data))
        else:
            trace.add(self.name, "flushes as {}", ask.operation)
        disk = self.node.disk
        due_ns = self._world.clock.now_ns + disk.begin(ask)
        # what is pumped is waited for here: nothing makes it late
        due_ns = max(due_ns, disk.stalled_until_ns) if self._is_pumping else disk.put_off(due_ns)
        self._due[ask.operation] = (due_ns, ask)
        self._world.clock.at(due_ns, partial(self._disk_due, ask))

    def _disk_due(self, ask: DiskAsk) -> None:
        """The time of an operation has come, unless a pump or a crash was before it."""
        _, waited_for = self._due.get(ask.operation, (0, None))
        if not self.alive or waited_for is not ask or self._stop.put_off(partial(self._disk_due, ask)):
            return
        self._finish_disk(ask)
        self.run_soon()

    def _finish_disk(self, ask: DiskAsk) -> None:
        del self._due[ask.operation]
        disk = self.node.disk
        result, data = disk.finish(ask.operation)
        self._world.trace.add(self.name, "disk {} done {}", ask.operation, result)
        for what in disk.struck:
            self._world.trace.add(self.name, "fault: " + what)
        disk.struck.clear()
        self._told_the_time().disk_done(ask.operation, result, data)

    def _pump(self) -> bool:
        """One turn and one disk operation, at this point of time. False: nothing is under way."""
        self._is_pumping = True
        moved = self._turn()
        self._is_pumping = False
        if not self._due:
            return moved
        if self.pumps_left is not None:
            self.pumps_left -= 1
            if self.pumps_left < 0:
                raise StartCrash("killed while it starts")
        self._finish_disk(min(self._due.values(), key=lambda entry: (entry[0], entry[1].operation))[1])
        return True

    # -------------------------------------------------------------------------- connections
    def link_up(self, link: int, kind: int) -> None:
        """See `network.Peer`."""
        if not self.alive or self._stop.put_off(partial(self.link_up, link, kind)):
            return
        self._world.trace.add(self.name, "link {} up", link)
        self._told_the_time().link_up(link, kind)
        self.run_soon()

    def link_down(self, link: int) -> None:
        """See `network.Peer`."""
        if not self.alive or self._stop.put_off(partial(self.link_down, link)):
            return
        self._world.trace.add(self.name, "link {} down", link)
        self._told_the_time().link_down(link)
        self.run_soon()

    def sent(self, link: int, token: int) -> None:
        """See `network.Peer`."""
        if not self.alive or self._stop.put_off(partial(self.sent, link, token)):
            return
        self._told_the_time().sent(link, token)
        self.run_soon()

    def received(self, link: int, data: bytes) -> bool:
        """See `network.Peer`."""
        if self._stop.put_off(partial(self._received_late, link, data)):
            return True
        self._world.trace.add(self.name, RECEIVES, link, *frame_details(data))
        is_frame = self._told_the_time().frame(link, data)
        self.run_soon()
        return is_frame

    def _received_late(self, link: int, data: bytes) -> None:
        if self.alive and not self.received(link, data):
            self._world.network.close(self, link)

    # ------------------------------------------------------------------------- control code
    def _collect_events(self) -> None:
        """Events of the engine reach the control code a little later (M2)."""
        if not self.engine.backend.events_waiting:
            return
        if not self._inbox:
            delay_ns = self._random.randint(0, self._world.control_delay_most_ns)
            self._world.clock.after(delay_ns, self._handle_events)
        self._inbox += self.engine.events()

    def _handle_events(self) -> None:
        if not self.alive or self._control_is_put_off(self._handle_events):
            return
        events, self._inbox = self._inbox, []
        for place, event in enumerate(events):
            self.decide(partial(self._handle_event, event, place + 1 < len(events)))

    def _handle_event(self, event: EngineEvent, more: bool) -> None:
        """The loop of a process may turn between what is called for this event and for the next."""
        self._world.trace.add(self.name, "event {!r}", event)
        self.control.on_event(event, self.node.clock.now_s)
        if more and self._random.random() < 0.5:
            self._turn()

    def decide(self, action: Action) -> None:
        """Have the control code do something, as soon as it can and after what it was asked before."""
        if self.alive and not self._control_is_put_off(partial(self.decide, action)):
            self._control_thread.decide(partial(self._decide, action))

    def stop_deciding(self) -> None:
        """Nothing that it was asked is decided any more, also not what it stands in the middle of."""
        self._control_thread.end()

    def _decide(self, action: Action) -> None:
        """An error that the control code does not handle ends it (M5)."""
        try:
            action()
        except errors.RepstoreError as error:
            self.node.kill(f"dies of {type(error).__name__}: {error}")
            return
        self._run_if_woken()

    def _tick(self) -> None:
        """What the control loop of a process does every CONFIG_POLL_S."""
        clock, world = self.node.clock, self._world
        self.control.poll_config(clock.now_s)
        self.control.tick(clock.now_s)
        for other in self.control.peers_to_connect():
            far = world.nodes[other.id].life
            if far is not None:
                world.network.connect(self, far)
        world.clock.after(TICK_NS, partial(self.decide, self._tick))
