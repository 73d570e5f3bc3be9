"""Whether a write fits: here, on every member, and with what is on its way."""
from __future__ import annotations

import errno

from repstore import config
from repstore.sim.cluster import SimulatedCluster
from repstore.sim.workload import TRIM, WRITE, Ask, SimulatedClient
from tests.sim.bad_blocks import write
from tests.sim.scenarios import LIMIT_S, VOLUME

OTHER = "other"
ROOM = 16                        # blocks that the other volume leaves where it is
N1, N2 = range(2)


def crowded(copies: int, where: int) -> tuple[SimulatedCluster, SimulatedClient, SimulatedClient]:
    """An empty volume that n1 leads; another one that fills the node `where` but for ROOM blocks; their
    clients, through n1. Members have told what room they have, the cleaner is done."""
    cluster = SimulatedCluster(1, nodes=2, store_bytes=2 * config.MIB, segment_bytes=64 * config.KIB)
    blocks = stats(cluster, "n1")["capacity_blocks"] - ROOM
    cluster.create_volume(VOLUME, 4 * ROOM, copies=copies)
    cluster.create_volume(OTHER, blocks, copies=1, first_node=where)
    cluster.run_until(lambda: cluster.is_healthy(VOLUME) and cluster.is_healthy(OTHER), LIMIT_S)
    client, other = (cluster.client(name, through="n1", asks=iter([])) for name in (VOLUME, OTHER))
    done(cluster, other, *(Ask(WRITE, first, min(8, blocks - first)) for first in range(0, blocks, 8)))
    cluster.run_for(1)
    return cluster, client, other


def stats(cluster: SimulatedCluster, name: str) -> dict[str, int]:
    return cluster.life(name).engine.stats()


def done(cluster: SimulatedCluster, client: SimulatedClient, *asks: Ask) -> None:
    """These are answered without an error."""
    client.ask_more(asks)
    cluster.run_until(lambda: client.is_done, LIMIT_S)


def on_its_way(cluster: SimulatedCluster, client: SimulatedClient, *asks: Ask) -> None:
    """These are in the log of n1, and its disk is at work."""
    client.ask_more(asks)
    cluster.life("n1").run()


def test_a_write_that_a_member_has_no_room_for_is_refused() -> None:
    cluster, _, _ = crowded(copies=2, where=N2)
    assert write(cluster, "n1", 0, 1, ROOM + 1) == errno.ENOSPC
    assert write(cluster, "n1", 0, 1, ROOM) == 0
    cluster.run_for(1)
    assert write(cluster, "n1", ROOM, 1) == errno.ENOSPC
    assert stats(cluster, "n2")["live_blocks"] == stats(cluster, "n2")["capacity_blocks"]
    assert write(cluster, "n1", 0, 100, ROOM) == 0


def test_what_a_member_told_before_the_last_commit_refuses_nothing() -> None:
    cluster, client, _ = crowded(copies=2, where=N2)
    done(cluster, client, Ask(WRITE, 0, 8), Ask(WRITE, 8, 8))
    cluster.run_for(1)
    done(cluster, client, Ask(TRIM, 0, 8))
    done(cluster, client, Ask(WRITE, ROOM, 8))


def test_a_write_waits_for_what_is_on_its_way_and_is_refused_when_that_took_the_room() -> None:
    cluster, client, _ = crowded(copies=1, where=N1)
    on_its_way(cluster, client, Ask(WRITE, 0, 8), Ask(WRITE, 8, 8))
    assert write(cluster, "n1", ROOM, 1) == errno.ENOSPC
    assert stats(cluster, "n1")["live_blocks"] == stats(cluster, "n1")["capacity_blocks"]


def test_a_write_waits_for_what_is_on_its_way_and_is_done_when_that_only_replaced() -> None:
    cluster, _, other = crowded(copies=1, where=N1)
    on_its_way(cluster, other, Ask(WRITE, 0, 8))
    assert write(cluster, "n1", 0, 1, ROOM) == 0
