"""Scenes of single rules: a small cluster, frames made by hand, messages looked at on their way."""
from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from repstore._fast.checksum import crc32c
from repstore._fast.layout import FRAME_MAGIC, WIRE_VERSION, frame_header_t
from repstore.sim.cluster import SimulatedCluster
from repstore.sim.engine import SimulatedEngine, open_engine
from repstore.sim.network import Peer
from repstore.sim.workload import WRITE, Ask, SimulatedClient
from tests.sim.scenarios import LIMIT_S, VOLUME

SIZE_BLOCKS = 128
HEADER_BYTES = frame_header_t.itemsize

# sender, header, message > the message that is sent instead, or None: it is lost
Filter = Callable[[str, np.void, bytes], bytes | None]


def cluster_of(seed: int, copies: int, min_copies: int, nodes: int = 3) -> SimulatedCluster:
    """A volume of SIZE_BLOCKS, all copies in sync, n1 leading."""
    cluster = SimulatedCluster(seed, nodes=nodes, store_bytes=2 << 20, segment_bytes=64 << 10)
    cluster.create_volume(VOLUME, SIZE_BLOCKS, copies=copies, min_copies=min_copies)
    cluster.run_until(lambda: cluster.is_healthy(VOLUME), LIMIT_S)
    return cluster


def endless_writes(blocks: int = SIZE_BLOCKS) -> Iterator[Ask]:
    """Round and round the first blocks of the volume."""
    while True:
        for first in range(0, blocks, 4):
            yield Ask(WRITE, first, 4)


def frame(kind: int, **fields: int) -> bytes:
    """A frame without meta, as a node would send it."""
    header = np.zeros(1, frame_header_t)
    for name, value in {"magic": FRAME_MAGIC, "version": WIRE_VERSION, "type": kind, **fields}.items():
        header[name] = value
    return sealed(header[0], b"")


def sealed(header: np.void, behind: bytes) -> bytes:
    """A message with this header under a right checksum, and the meta and body of another one."""
    changed = header.copy()
    changed["crc"] = 0
    changed["crc"] = crc32c(changed.tobytes() + behind[:int(changed["meta_bytes"])])
    return bytes(changed.tobytes()) + behind


def tell(cluster: SimulatedCluster, to: str, sender: str, data: bytes) -> None:
    """A message arrives over the link of two nodes that nobody sent."""
    end = next(end for end in cluster.network._ends.values()
               if end.owner.name == to and end.other.owner.name == sender)
    assert end.owner.received(end.link, data)


def on_the_way(cluster: SimulatedCluster, look: Filter) -> None:
    """Every frame between two nodes goes through `look` from now on."""
    send = cluster.network.send

    def through(owner: Peer, link: int, token: int, data: bytes) -> None:
        header = np.frombuffer(data[:HEADER_BYTES], frame_header_t)[0]
        instead = look(owner.name, header, data)
        send(owner, link, token, b"" if instead is None else instead)

    cluster.network.send = through             # type: ignore[method-assign]


def sent_by(cluster: SimulatedCluster, name: str, kind: int) -> list[np.void]:
    """The headers of what a node sends from now on, of one type; it grows."""
    headers: list[np.void] = []

    def listen(sender: str, header: np.void, data: bytes) -> bytes:
        if sender == name and header["type"] == kind:
            headers.append(header)
        return data

    on_the_way(cluster, listen)
    return headers


def apart(cluster: SimulatedCluster, one: str, other: str) -> None:
    """Neither reaches the other, and both notice."""
    cluster.network.cut(one, other)
    cluster.network.cut(other, one)
    cluster.network.drop(one, other)


def together(cluster: SimulatedCluster, one: str, other: str) -> None:
    """They reach each other again."""
    cluster.network.mend([(one, other), (other, one)])


def last_lsn(cluster: SimulatedCluster, name: str) -> int:
    """Where what a copy has written ends."""
    return cluster.life(name).engine.volume_state(1).last_lsn


def durable_engine(cluster: SimulatedCluster, name: str) -> SimulatedEngine:
    """What a power cut just now would leave of a node, at the least."""
    image = bytearray(cluster.node(name).disk._durable)
    return open_engine(image, name, number=7, boot_id=b"boot after power", life_id=4711)[0]


def only(cluster: SimulatedCluster, name: str, client: SimulatedClient) -> None:
    """All other copies are gone: what the client reads is what this one has."""
    cluster.drain(client)
    cluster.run_for(0.1)
    for other in cluster.volume(VOLUME).in_sync_nodes():
        if cluster.world.nodes[other].name != name:
            cluster.kill(cluster.world.nodes[other].name)
    cluster.run_until(lambda: cluster.primary(VOLUME) == name, LIMIT_S)
    cluster.check(client)
