"""Single rules of replication, each in the scene that a breach of it needs."""
from __future__ import annotations

from collections.abc import Iterator

import pytest

from repstore.sim.cluster import SimulatedCluster
from repstore.sim.workload import READ, WRITE, Ask, Operation
from tests.sim.scenarios import LIMIT_S, VOLUME

SIZE_BLOCKS = 128


def cluster_of(seed: int, copies: int, min_copies: int) -> SimulatedCluster:
    cluster = SimulatedCluster(seed, nodes=3, store_bytes=2 << 20, segment_bytes=64 << 10)
    cluster.create_volume(VOLUME, SIZE_BLOCKS, copies=copies, min_copies=min_copies)
    cluster.run_until(lambda: cluster.is_healthy(VOLUME), LIMIT_S)
    return cluster


def endless_writes() -> Iterator[Ask]:
    while True:
        for first in range(0, SIZE_BLOCKS, 4):
            yield Ask(WRITE, first, 4)


def test_nothing_is_acknowledged_with_fewer_copies_than_min_copies() -> None:
    """A member back from a power cut leaves even below min_copies: what waited then waits on."""
    cluster = cluster_of(1, copies=2, min_copies=2)
    client = cluster.client(VOLUME, through="n1", asks=endless_writes(), depth=8)
    alone: list[Operation] = []

    def answered(operation: Operation) -> None:
        if len(cluster.volume(VOLUME).in_sync) < 2:
            alone.append(operation)

    client.on_answered = answered
    for _ in range(3):
        cluster.run_for(0.05)
        cluster.cut_power("n2")
        cluster.run_for(0.5)
        cluster.start("n2")
        cluster.run_until(lambda: len(cluster.volume(VOLUME).in_sync) < 2, LIMIT_S)
        cluster.run_until(lambda: cluster.is_healthy(VOLUME), LIMIT_S)
    assert alone == []
    cluster.check(client)


def test_a_primary_that_is_cut_off_answers_no_read_when_its_lease_is_over() -> None:
    cluster = cluster_of(2, copies=3, min_copies=2)
    client = cluster.client(VOLUME, through="n1", asks=iter(Ask(WRITE, first, 8) for first in range(0, 128, 8)),
                            depth=1)
    cluster.run_until(lambda: client.is_done, LIMIT_S)
    client.ask_more(Ask(READ, first % SIZE_BLOCKS, 4) for first in range(0, 400_000, 4))
    cluster.run_for(0.1)
    cluster.config_faults.away.add("n1")
    for other in ("n2", "n3"):
        cluster.network.cut("n1", other)
        cluster.network.cut(other, "n1")
    assert client.acknowledged > 16
    cluster.run_for(2.6)                       # a lease, and the heartbeat that it began with
    before = client.acknowledged
    assert not client.is_done
    cluster.run_for(2.0)
    assert client.acknowledged == before


@pytest.mark.parametrize("delay_us", [50, 150, 400, 900, 2000])
def test_a_write_that_is_sent_again_is_logged_once(delay_us: int) -> None:
    cluster = cluster_of(delay_us, copies=3, min_copies=2)
    asks = [Ask(WRITE, first, 1) for first in range(64)]
    client = cluster.client(VOLUME, through="n2", asks=iter(asks), depth=16)
    cluster.run_for(delay_us / 1e6)
    cluster.kill("n1")
    cluster.run_until(lambda: client.is_done, LIMIT_S)
    volume = cluster.volume(VOLUME)
    state = cluster.life(cluster.primary(VOLUME)).engine.volume_state(volume.index)
    assert state.last_lsn == len(asks) + len(volume.lineage)


def test_a_session_that_is_over_is_refused_by_the_primary_itself() -> None:
    cluster = cluster_of(4, copies=3, min_copies=2)
    old = cluster.client(VOLUME, through="n2", asks=iter([Ask(WRITE, 0, 4)]))
    cluster.run_until(lambda: old.is_done, LIMIT_S)
    cluster.config_faults.away.add("n2")       # its node does not hear of the other attach
    new = cluster.client(VOLUME, through="n3", asks=iter([Ask(WRITE, 8, 4)]))
    cluster.run_until(lambda: new.is_done, LIMIT_S)
    old.ask_more([Ask(WRITE, 16, 4)])
    cluster.run_until(lambda: old.session_over, LIMIT_S)
    assert old.acknowledged == 1
