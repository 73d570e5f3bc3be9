"""What may be uncommitted at once is bounded, and nobody waits for ever at a bound."""
from __future__ import annotations

from collections.abc import Iterator

import pytest

from repstore.sim.clock import NS_PER_S
from repstore.sim.cluster import SimulatedCluster
from repstore.sim.workload import TRIM, WRITE, Ask, SimulatedClient
from tests.sim.rules import cluster_of
from tests.sim.scenarios import LIMIT_S, VOLUME

PENDING_RECORDS, CONTROL_RECORDS = 1024, 64
DEPTH = PENDING_RECORDS + 500
SIZE_BLOCKS = 2048
WRITE_BLOCKS = 8
RESERVED_SEGMENTS = 2            # of a small store: what clients leave to the cleaner, and to what commits
PROMPTLY_S = 2.0                 # less than it takes to eject a silent member


def writes(count: int) -> Iterator[Ask]:
    return (Ask(WRITE, i % SIZE_BLOCKS, 1) for i in range(count))


def flooded() -> tuple[SimulatedCluster, SimulatedClient]:
    """More writes are under way than may be uncommitted, and the disk of n2 stands still for a while."""
    cluster = SimulatedCluster(1, nodes=3, store_bytes=32 << 20, segment_bytes=512 << 10)
    cluster.create_volume(VOLUME, SIZE_BLOCKS, copies=2, min_copies=2)
    cluster.run_until(lambda: cluster.is_healthy(VOLUME), LIMIT_S)
    cluster.run_for(0.1)
    cluster.node("n2").disk.stall_until(cluster.clock.now_ns + 3 * NS_PER_S // 10)
    client = cluster.client(VOLUME, through="n3", asks=writes(2 * DEPTH), depth=DEPTH, overlaps=True)
    return cluster, client


def pending(cluster: SimulatedCluster, name: str) -> int:
    return cluster.life(name).engine.volume_state(cluster.volume(VOLUME).index).pending


def free_segments(cluster: SimulatedCluster, name: str) -> int:
    return cluster.life(name).engine.stats()["segments_free"]


@pytest.mark.fault("disk: stands still while more writes are under way than may be uncommitted",
                   promise="they wait for it, and go on")
def test_a_member_that_is_full_of_uncommitted_records_learns_that_they_are_committed() -> None:
    cluster, client = flooded()
    cluster.run_until(lambda: client.is_done, PROMPTLY_S)
    cluster.check(client)


def test_a_log_full_of_uncommitted_records_has_room_for_the_next_epoch() -> None:
    cluster, client = flooded()
    cluster.run_until(lambda: pending(cluster, "n1") == PENDING_RECORDS - CONTROL_RECORDS, PROMPTLY_S)
    for name in ("n1", "n2"):
        cluster.kill(name)
    for name in ("n1", "n2"):
        cluster.start(name)
    cluster.run_until(lambda: client.is_done, LIMIT_S)
    cluster.check(client)


@pytest.mark.fault("crash: of all copies of a volume whose uncommitted records fill the store",
                   promise="what begins the next epoch has room, and commits them")
def test_a_store_full_of_uncommitted_records_has_room_for_what_commits_them() -> None:
    cluster = SimulatedCluster(1, nodes=3, store_bytes=1 << 20, segment_bytes=64 << 10)
    cluster.create_volume(VOLUME, WRITE_BLOCKS, copies=2, min_copies=2)
    cluster.run_until(lambda: cluster.is_healthy(VOLUME), LIMIT_S)
    write = Ask(WRITE, 0, WRITE_BLOCKS)
    client = cluster.client(VOLUME, through="n3", asks=iter([write]), depth=32, overlaps=True)
    cluster.run_until(lambda: client.is_done, PROMPTLY_S)
    cluster.node("n2").disk.stall_until(cluster.clock.now_ns + NS_PER_S)
    client.ask_more(64 * [write])
    cluster.run_until(lambda: free_segments(cluster, "n1") == RESERVED_SEGMENTS, PROMPTLY_S)
    cluster.run_for(0.1)             # what was on its way to the disk is there
    assert 0 < pending(cluster, "n1") < PENDING_RECORDS - CONTROL_RECORDS
    for name in ("n1", "n2"):
        cluster.kill(name)
    for name in ("n1", "n2"):
        cluster.start(name)
    cluster.run_until(lambda: client.is_done, LIMIT_S)
    cluster.check(client)


def backlog(cluster: SimulatedCluster, count: int) -> SimulatedClient:
    """So many trims are in the logs of n1 and n2, and n1 does not hear of it."""
    client = cluster.client(VOLUME, through="n3", depth=count, overlaps=True, asks=iter([Ask(WRITE, 0, 8)]))
    cluster.run_until(lambda: client.is_done, LIMIT_S)
    cluster.run_for(0.1)
    cluster.network.cut("n2", "n1")
    client.ask_more(Ask(TRIM, 64 + i % 64, 1) for i in range(count))
    cluster.comes_to(lambda: cluster.life("n2").engine.volume_state(1).pending == count, 1)
    return client


@pytest.mark.parametrize("count", [300, 900])
@pytest.mark.fault("crash: of all copies with more uncommitted than a small root holds",
                   promise="they open, and go on")
def test_a_store_opens_with_many_uncommitted_records(count: int) -> None:
    cluster = cluster_of(9, copies=2, min_copies=2)
    client = backlog(cluster, count)
    for name in ("n1", "n2"):
        cluster.kill(name)
    cluster.network.heal()
    for name in ("n1", "n2"):
        cluster.start(name)
    cluster.run_until(lambda: client.is_done, LIMIT_S)
    cluster.check(client)


@pytest.mark.parametrize("count", [300, 900])
def test_a_checkpoint_does_not_keep_out_what_ends_a_backlog(count: int) -> None:
    cluster = cluster_of(9, copies=2, min_copies=1)
    client = backlog(cluster, count)
    cluster.life("n2").engine.checkpoint()
    cluster.life("n2").run()
    cluster.run_for(0.01)
    cluster.kill("n1")
    cluster.run_until(lambda: client.is_done, LIMIT_S)
    cluster.check(client)
