"""A whole cluster on one seed: nodes, disks, network, config store, clients, one clock.

    cluster = SimulatedCluster(seed=7)
    cluster.create_volume("demo", size_blocks=512)
    cluster.run_until(lambda: cluster.is_healthy("demo"), limit_s=10)
    client = cluster.client("demo", through="n2")
    cluster.run_for(0.5)
    cluster.kill("n1")
    cluster.run_until(lambda: cluster.volume("demo").primary != 0, limit_s=10)
    cluster.start("n1")

The seed is the whole run: the same one gives the same `trace`, byte for byte.
"""
from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random

from repstore import config, errors
from repstore.coordination.interface import ABSENT
from repstore.coordination.memory import MemoryConfigStore
from repstore.format import BLOCK_SIZE
from repstore.node import admin
from repstore.replication.volume_config import (
    CLUSTER_KEY,
    VOLUME_PREFIX,
    ClusterConfig,
    Member,
    VolumeConfig,
    decode,
    encode,
    volume_key,
)
from repstore.sim.clock import NS_PER_S, Action, VirtualClock
from repstore.sim.config_store import ConfigFaults
from repstore.sim.disk import SimulatedDisk
from repstore.sim.network import SimulatedNetwork
from repstore.sim.node import NodeLife, SimulatedNode, World
from repstore.sim.trace import Trace
from repstore.sim.workload import Ask, SimulatedClient, drawn
from repstore.store import geometry
from repstore.store.device import MemoryDevice
from repstore.store.store import format_device

STORE_BYTES = 16 * config.MIB
SEGMENT_BYTES = 512 * config.KIB


class SimulatedCluster:
    """Nodes n1, n2, ... of one cluster, all started."""

    def __init__(self, seed: int, *, nodes: int = 3, store_bytes: int = STORE_BYTES,
                 segment_bytes: int = SEGMENT_BYTES, quantum_ns: int = 1) -> None:
        config.check_range("nodes", nodes, config.NODES_MIN, config.NODES_MAX)
        self.seed = seed
        self.clock = VirtualClock(quantum_ns)
        self.trace = Trace(self.clock)
        self.config = MemoryConfigStore(after=self._trace_config)
        self._traced_revision = 0
        self.config_faults = ConfigFaults(self._random("config store"))
        self.network = SimulatedNetwork(self.clock, self._random("network"))
        self.world = World(self.clock, self.network, self.config, self.trace, self.config_faults)
        self.on_volume_config: Action = _nobody         # is told of each change of a volume's config
        self._clients = 0
        self.layout = layout = geometry.choose(config.StoreOptions(store_bytes, segment_bytes))
        for number in range(nodes):
            self._add_node(number, layout)
        self.config.compare_and_swap(CLUSTER_KEY, ABSENT, encode(ClusterConfig(self._uuid("cluster"), 1)))
        for node in self.world.nodes.values():
            node.start()

    # ------------------------------------------------------------------------------- nodes
    def node(self, name: str) -> SimulatedNode:
        """One machine by name."""
        return next(node for node in self.world.nodes.values() if node.name == name)

    def life(self, name: str) -> NodeLife:
        """The process of a node; it must be running."""
        life = self.node(name).life
        assert life is not None, f"{name} does not run"
        return life

    def kill(self, name: str) -> None:
        """kill -9 of a node's process."""
        self.node(name).kill()

    def cut_power(self, name: str) -> None:
        """A node's machine loses power."""
        self.node(name).cut_power()

    def start(self, name: str) -> None:
        """Start a node that was killed or lost power."""
        self.node(name).start()

    # ----------------------------------------------------------------------------- volumes
    def create_volume(self, name: str, size_blocks: int, *, copies: int = 3, min_copies: int | None = None,
                      acknowledgement: config.Acknowledgement = "dev", first_node: int = 0) -> VolumeConfig:
        """Enter a volume on `copies` nodes from `first_node` on; they make their copies, that one leads."""
        options = config.VolumeOptions(name, size_blocks * BLOCK_SIZE, copies=copies, min_copies=min_copies,
                                       acknowledgement=acknowledgement)
        known = sorted(admin.load_nodes(self.config).values(), key=lambda node: node.id)
        nodes = (known[first_node:] + known[:first_node])[:copies]
        index = len(admin.load_volumes(self.config)) + 1
        volume = VolumeConfig(
            name=name, uuid=self._uuid(name), index=index, size_bytes=options.size_bytes, copies=copies,
            min_copies=options.needed_copies, acknowledgement=acknowledgement,
            placement=tuple(node.id for node in nodes), primary=nodes[0].id,
            in_sync=tuple(Member(node.id, node.store_uuid, node.boot_id) for node in nodes))
        admin.update(self.config, CLUSTER_KEY, ClusterConfig,
                     lambda old: ClusterConfig(self._uuid("cluster"), index + 1))
        self.config.compare_and_swap(volume_key(name), ABSENT, encode(volume))
        return volume

    def volume(self, name: str) -> VolumeConfig:
        """A volume's config as it is now."""
        return admin.load_volume(self.config, name)

    def primary(self, name: str) -> str:
        """Name of the node that leads."""
        return self.world.nodes[self.volume(name).primary].name

    def is_healthy(self, name: str) -> bool:
        """All copies are in sync."""
        volume = self.volume(name)
        return volume.epoch > 0 and len(volume.in_sync) == volume.copies

    def client(self, name: str, *, through: str, depth: int = 4, asks: Iterator[Ask] | None = None,
               overlaps: bool = False, block_bytes: int = BLOCK_SIZE) -> SimulatedClient:
        """A client that keeps `depth` operations under way; without `asks` until it is stopped."""
        volume = self.volume(name)
        self._clients += 1
        size_blocks = volume.size_bytes // block_bytes
        if asks is None:
            asks = drawn(self._random(f"client {self._clients}"), size_blocks)
        client = SimulatedClient(volume.index, size_blocks, depth, asks, self.trace,
                                 always_durable=volume.acknowledgement == "durable", overlaps=overlaps,
                                 block_bytes=block_bytes)
        self.attach(client, name, through=through)
        return client

    def attach(self, client: SimulatedClient, name: str, *, through: str) -> None:
        """Have a client go on through this node; RepstoreError where that cannot be done now.

        A client whose acknowledged writes were lost is told so, and attaches anew.
        """
        life = self.life(through)
        control, clock = life.control, life.node.clock
        try:
            control.attach(name, clock.now_s)
        except errors.FencedError:
            control.detach(name)
            control.attach(name, clock.now_s)
        known = control.volumes[client.index]
        if known.session is None or known.volume.attach is None:
            raise errors.FencedError(f"volume {name!r}: attached elsewhere since")
        client.attach(life, known.volume.attach.incarnation)

    def close(self) -> None:
        """End what stands in the middle of something; nothing can happen any more."""
        for node in self.world.nodes.values():
            if node.life is not None:
                node.life.stop_deciding()

    # -------------------------------------------------------------------------------- time
    def run_for(self, duration_s: float) -> None:
        """Let that much time pass."""
        until_ns = self.clock.now_ns + int(duration_s * NS_PER_S)
        while self.clock.step(until_ns):
            pass

    def run_until(self, condition: Callable[[], bool], limit_s: float,
                  missing: Callable[[], str] = lambda: "") -> None:
        """Let time pass until `condition` holds; AssertionError, with what is `missing`, if it
        does not by then."""
        if not self.comes_to(condition, limit_s):
            raise AssertionError(f"seed {self.seed}: not within {limit_s} s of virtual time: {missing()}")

    def comes_to(self, condition: Callable[[], bool], limit_s: float) -> bool:
        """Let time pass until `condition` holds, or for `limit_s`. Whether it does."""
        until_ns = self.clock.now_ns + int(limit_s * NS_PER_S)
        while not condition():
            if not self.clock.step(until_ns):
                return False
        return True

    def drain(self, client: SimulatedClient, limit_s: float = 30.0) -> None:
        """Stop a client and wait for its last answers."""
        client.stopped = True
        self.run_until(lambda: not client.flying, limit_s)

    def check(self, client: SimulatedClient, limit_s: float = 30.0) -> None:
        """Read the whole volume; every block must be what the client may find."""
        self.drain(client, limit_s)
        client.read_all()
        self.drain(client, limit_s)

    def _trace_config(self, operation: str, key: str) -> None:
        """A swap was asked for: a line if it changed something."""
        entry = self.config.get(key)
        if entry is None or entry.revision <= self._traced_revision or not key.startswith(VOLUME_PREFIX):
            return
        self._traced_revision = entry.revision
        volume = decode(entry.value, VolumeConfig, key)
        self.trace.add("config", "{} epoch {} primary n{} in sync {} incarnation {} session {} of {}",
                       volume.name, volume.epoch, volume.primary + 1,
                       [f"n{number + 1}" for number in volume.in_sync_nodes()], volume.incarnation,
                       volume.last_session, volume.attach.client if volume.attach else "nobody")
        self.on_volume_config()

    # ---------------------------------------------------------------------------- the seed
    def _random(self, purpose: str) -> Random:
        """A stream of its own for each purpose: one more draw here moves nothing there."""
        return Random(f"{self.seed} {purpose}")

    def _uuid(self, purpose: str) -> str:
        return self._random(f"uuid {purpose}").randbytes(16).hex()

    def _add_node(self, number: int, layout: geometry.Geometry) -> None:
        name = f"n{number + 1}"
        image = bytearray(layout.size_bytes)
        node = SimulatedNode(self.world, name, number, SimulatedDisk(image, self._random(f"disk {name}")),
                             self._random(f"node {name}"))
        format_device(MemoryDevice(image), layout, store_uuid=self._random(f"store {name}").randbytes(16),
                      boot_id=node.boot_id)
        self.world.nodes[number] = node


def _nobody() -> None:
    """Nobody wants to know."""
