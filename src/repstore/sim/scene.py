"""A cluster in the middle of a planned run: its clients, its operator, and what was damaged.

The operator does what a person would: starts what died, replaces a disk that does not open any
more (where others have everything, or it says so), moves a client whose node is gone.
"""
from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import partial
from random import Random

from repstore import config, errors
from repstore.sim.atlas import Damage, DataBlock
from repstore.sim.clock import NS_PER_S
from repstore.sim.cluster import SimulatedCluster
from repstore.sim.meeting import Met, nobody
from repstore.sim.node import SimulatedNode, StartCrash
from repstore.sim.plan import Fault, Plan, PlannedAsk, VolumePlan
from repstore.sim.workload import Ask, SimulatedClient
from repstore.store.device import MemoryDevice
from repstore.store.store import format_device

OPERATOR_NS = 100_000_000     # how often the operator looks
START_AGAIN_NS = 500_000_000
HEALTHY_LIMIT_S = 20.0


class Scene:
    """A plan's cluster, healthy, with a client on each volume."""

    def __init__(self, plan: Plan) -> None:
        setup = plan.setup
        self.plan = plan
        self.random = Random(f"{plan.seed} scene")
        self.damage = Damage(setup)
        self.struck: Counter[str] = Counter()          # faults that met something, by kind
        self.replaced_disks = 0
        self.has_stepped = False                       # a clock
        self.crashes = 0
        self.down: set[str] = set()                    # by plan: the operator leaves them alone
        self.condemned: set[str] = set()               # do not open, and may not be replaced
        self.is_healed = False
        self.cluster = cluster = SimulatedCluster(
            plan.seed, nodes=setup.nodes, store_bytes=setup.store_kib * config.KIB,
            segment_bytes=setup.segment_kib * config.KIB, quantum_ns=setup.quantum_ns)
        cluster.world.death_is_proved = setup.death_is_proved
        cluster.world.control_delay_most_ns = setup.control_delay_most_ns
        for node, drift_ppm in zip(self.nodes, setup.drift_ppm, strict=True):
            node.clock.set_drift(drift_ppm)
            node.disk.superseded = dict.fromkeys(cluster.layout.superblock_positions, b"")
        for volume in setup.volumes:
            cluster.create_volume(volume.name, volume.size_blocks, copies=volume.copies,
                                  min_copies=volume.min_copies, acknowledgement=volume.acknowledgement,
                                  first_node=volume.first_node)
        cluster.run_until(self.all_healthy, HEALTHY_LIMIT_S)
        self.began_ns = cluster.clock.now_ns
        self.clients = [self._client(number, volume) for number, volume in enumerate(setup.volumes)]
        cluster.clock.after(OPERATOR_NS, self._look)

    @property
    def nodes(self) -> list[SimulatedNode]:
        """All machines, in order."""
        return [node for _, node in sorted(self.cluster.world.nodes.items())]

    def all_healthy(self) -> bool:
        """Every volume has all its copies."""
        return all(self.cluster.is_healthy(volume.name) for volume in self.plan.setup.volumes)

    def is_given_up(self) -> bool:
        """Whether a volume stands still for good: the only copy in sync lies on the bad disk, lost some of
        what it had acknowledged, and knows it."""
        bad = self.plan.setup.bad_disk
        return self.damage.anywhere and any(
            config.in_sync_nodes() == (bad,) and self._is_incomplete(bad, config.index)
            for config in (self.cluster.volume(volume.name) for volume in self.plan.setup.volumes))

    def _is_incomplete(self, node: int, index: int) -> bool:
        life = self.cluster.world.nodes[node].life
        return (life is not None and not life.is_starting and index in life.engine.volume_indexes()
                and life.engine.volume_state(index).learning)

    def note(self, what: str, *details: object) -> None:
        """A line of the trace."""
        self.cluster.trace.add("fault", what, *details)

    def counted(self, fault: Fault) -> Met:
        """To be called when something meets this fault: the first time counts."""
        is_met = False

        def met() -> None:
            nonlocal is_met
            self.struck[fault.kind] += not is_met
            is_met = True

        return met

    def damaged(self, block: DataBlock) -> None:
        """A copy of this block was damaged."""
        place = (block.volume, block.lba)
        self.damage.blocks.add(place)
        client = next(client for client in self.clients if client.index == block.volume)
        if not client.is_flushed(block.lba):
            self.damage.unflushed.add(place)

    # ------------------------------------------------------------------------------- clients
    def _client(self, number: int, volume: VolumePlan) -> SimulatedClient:
        asks = [ask for ask in self.plan.asks if ask.volume == number]
        client = self.cluster.client(volume.name, through=volume.through, depth=volume.depth,
                                     asks=iter([self._timed(ask) for ask in asks]), overlaps=volume.overlaps,
                                     block_bytes=volume.block_bytes)
        client.may_fail = lambda span: (self.damage.is_damaged(client.index, volume.blocks_of(span))
                                        or (self.damage.fenced and self._is_alone(volume)))
        client.stale_reads = self.plan.setup.stale_reads
        for at_ns in dict.fromkeys(ask.at_ns for ask in asks):
            self.cluster.clock.at(self.began_ns + at_ns, client.wake)
        return client

    def _is_alone(self, volume: VolumePlan) -> bool:
        """Down to one copy, a volume has nowhere to go when that one's store fails."""
        return len(self.cluster.volume(volume.name).in_sync) == 1

    def _timed(self, ask: PlannedAsk) -> Ask:
        return Ask(ask.kind, ask.first, ask.blocks, ask.fua, self.began_ns + ask.at_ns)

    def attach(self, client: SimulatedClient, number: int, through: str, met: Met = nobody) -> None:
        """Have a client go on through a node, as soon as that has time for it, if it can be done then."""
        life = self.cluster.life(through)
        client.attaching = life
        life.decide(partial(self._attach, client, self.plan.setup.volumes[number].name, through, met))

    def _attach(self, client: SimulatedClient, volume: str, through: str, met: Met) -> None:
        try:
            self.cluster.attach(client, volume, through=through)
            met()
            self.cluster.trace.add(through, "client of {} attaches", volume)
        except errors.RepstoreError as error:
            self.cluster.trace.add(through, "client of {} is not attached: {}", volume, error)
        client.attaching = None

    # ------------------------------------------------------------------------------ operator
    def _look(self) -> None:
        """Start what died by itself, replace what failed, keep clients attached."""
        for node in self.nodes:
            if node.life is not None and node.life.engine.failed:
                self.note("operator restarts {}, whose store failed", node.name)
                node.kill()
            if node.life is None and node.name not in self.down and node.name not in self.condemned:
                self.start(node.name)
        running = [node.name for node in self.nodes if node.life is not None]
        for number, client in enumerate(self.clients):
            if running and not client.is_attached and not client.is_attaching:
                self.attach(client, number, self.random.choice(running))
        self.cluster.clock.after(OPERATOR_NS, self._look)

    def start(self, name: str, crash_after: int | None = None) -> None:
        """Start a node that does not run; if it cannot, the operator tries again."""
        node = self.cluster.node(name)
        self.down.discard(name)
        if node.life is not None or name in self.condemned:
            return
        try:
            node.start(crash_after)
        except StartCrash:
            self.crashes += 1
        except (errors.CorruptionError, errors.ConfigError) as error:
            self.cluster.trace.add(name, "does not open: {}", error)
            self._take_out_of_service(node, error)
        except errors.RepstoreError as error:
            self.cluster.trace.add(name, "does not start: {}", error)
            self.down.add(name)
            self.cluster.clock.after(START_AGAIN_NS, lambda: self.start(name))

    def _take_out_of_service(self, node: SimulatedNode, error: Exception) -> None:
        """A store that does not open: a new disk, where others have all there is."""
        damage, setup = self.damage, self.plan.setup
        assert damage.anywhere or damage.metadata, \
            f"{node.name} does not open and nothing was damaged: {error}"
        if node.number != setup.bad_disk:
            self.condemned.add(node.name)
            return
        image = bytearray(self.cluster.layout.size_bytes)
        format_device(MemoryDevice(image), self.cluster.layout, store_uuid=self.random.randbytes(16),
                      boot_id=node.boot_id)
        node.disk.replace(image)
        self.note("operator replaces the disk of {}", node.name)
        self.replaced_disks += 1

    # --------------------------------------------------------------------------------- healing
    def heal(self) -> None:
        """From now on nothing goes wrong any more; what was damaged stays so."""
        cluster = self.cluster
        self.is_healed = True
        self.note("everything is healed")
        cluster.network.heal()
        cluster.config_faults.clear()
        for node in self.nodes:
            node.disk.faults.clear()
            self.start(node.name)

    def configs(self) -> Iterator[tuple[VolumePlan, SimulatedClient]]:
        """Every volume with its client."""
        return zip(self.plan.setup.volumes, self.clients, strict=True)

    def seconds(self) -> float:
        """Of virtual time since everything was healthy."""
        return (self.cluster.clock.now_ns - self.began_ns) / NS_PER_S
