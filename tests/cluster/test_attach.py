"""Who attaches is served: the client of before is refused, never the one that has just come."""
from __future__ import annotations

import random
import signal
from collections.abc import Iterator

import pytest

from tests.cluster.harness import MIB, VOLUME, ClusterHarness, Shape
from tests.cluster.nbd_client import NbdClient
from tests.nbd import wire

BLOCK_BYTES = 4096

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterHarness]:
    shape = Shape(store_bytes=16 * MIB, volume_bytes=8 * MIB)
    with ClusterHarness(tmp_path_factory.mktemp("attach"), shape) as cluster:
        cluster.start()
        cluster.wait_in_sync()
        yield cluster
        assert not cluster.crashed()


def test_attaches_that_follow_each_other_quickly_are_all_served(cluster: ClusterHarness) -> None:
    chance = random.Random(1)
    content = bytes(BLOCK_BYTES)
    for number in range(100):
        with cluster.connect(chance.choice(cluster.names)) as client:
            assert client.ask(wire.READ, 0, BLOCK_BYTES).data == content, f"attach {number}"
            content = number.to_bytes(8, "little") * (BLOCK_BYTES // 8)
            assert client.ask(wire.WRITE, 0, payload=content).error == 0, f"attach {number}"


def test_who_was_attached_before_is_refused_not_continued(cluster: ClusterHarness) -> None:
    with cluster.connect("n1") as old, cluster.connect("n2") as new:
        assert new.ask(wire.WRITE, 0, payload=b"n" * BLOCK_BYTES).error == 0
        assert old.ask(wire.WRITE, 0, payload=b"o" * BLOCK_BYTES).error == wire.ESHUTDOWN
        assert new.ask(wire.READ, 0, BLOCK_BYTES).data == b"n" * BLOCK_BYTES


@pytest.mark.fault("process: a client that sleeps while its volume moves to another node and back",
                   promise="what it still has to write is refused, its connections stay refused")
def test_who_was_attached_before_stays_refused_when_the_volume_is_back_at_its_node(
        cluster: ClusterHarness) -> None:
    with cluster.connect("n1") as old:
        assert old.ask(wire.WRITE, 0, payload=b"o" * BLOCK_BYTES).error == 0
        with cluster.connect("n2") as elsewhere:
            assert elsewhere.ask(wire.WRITE, 0, payload=b"e" * BLOCK_BYTES).error == 0
        with cluster.connect("n1") as new:
            assert new.ask(wire.READ, 0, BLOCK_BYTES).data == b"e" * BLOCK_BYTES
            assert old.ask(wire.WRITE, 0, payload=b"o" * BLOCK_BYTES).error == wire.ESHUTDOWN
            assert old.ask(wire.READ, 0, BLOCK_BYTES).error == wire.ESHUTDOWN
            assert new.ask(wire.READ, 0, BLOCK_BYTES).data == b"e" * BLOCK_BYTES


def test_connections_through_one_node_share_its_attach(cluster: ClusterHarness) -> None:
    with cluster.connect("n2") as one, cluster.connect("n2") as other:
        assert one.ask(wire.WRITE, 0, payload=b"1" * BLOCK_BYTES).error == 0
        assert other.ask(wire.READ, 0, BLOCK_BYTES).data == b"1" * BLOCK_BYTES
        assert other.ask(wire.WRITE, 0, payload=b"2" * BLOCK_BYTES).error == 0
        assert one.ask(wire.READ, 0, BLOCK_BYTES).data == b"2" * BLOCK_BYTES


def test_writes_of_the_session_before_never_come_after_those_of_the_next(cluster: ClusterHarness) -> None:
    """The old client has writes under way when the new one attaches and overwrites them."""
    for number in range(20):
        old = cluster.connect("n1")
        for _ in range(32):
            old.send(wire.WRITE, 0, payload=b"o" * BLOCK_BYTES)
        with cluster.connect("n3") as new:
            content = number.to_bytes(8, "little") * (BLOCK_BYTES // 8)
            assert new.ask(wire.WRITE, 0, payload=content).error == 0
            answered = drained(old, 32)
            assert answered <= {0, wire.ESHUTDOWN}
            assert new.ask(wire.READ, 0, BLOCK_BYTES).data == content
        old.close()


def test_a_read_that_waits_for_a_lease_when_another_takes_over_is_told_that_it_is_over(
        cluster: ClusterHarness) -> None:
    """It waits on the primary itself, where no other node stands between it and the client."""
    primary = cluster.primary()
    second, third = (name for name in cluster.names if name != primary)
    cluster.wait_in_sync()
    with NbdClient(cluster.nbd_path(primary), VOLUME, timeout_s=1.0) as old:
        assert old.ask(wire.WRITE, 0, payload=bytes(BLOCK_BYTES)).error == 0
        cluster.signal(signal.SIGSTOP, third)
        try:
            with pytest.raises(TimeoutError):
                read_for_ever(old)                     # it ends with the grants of the third
            with cluster.connect(second):
                assert drained(old, 1) == {wire.ESHUTDOWN}
        finally:
            cluster.signal(signal.SIGCONT, third)
    cluster.wait_in_sync()


@pytest.mark.fault("process: a real primary that is stopped, left behind, and woken up",
                   promise="its client reads nothing old and is told that it is over")
def test_a_client_of_a_primary_that_was_left_is_told_so_and_reads_nothing_old(
        cluster: ClusterHarness) -> None:
    """What it reads first was asked when another primary had overwritten it."""
    primary = cluster.primary()
    second = next(name for name in cluster.names if name != primary)
    with cluster.connect(primary) as old:
        assert old.ask(wire.WRITE, 0, payload=b"o" * BLOCK_BYTES).error == 0
        cluster.signal(signal.SIGSTOP, primary)
        try:
            with cluster.connect(second) as new:
                assert new.ask(wire.WRITE, 0, payload=b"n" * BLOCK_BYTES).error == 0
            for _ in range(8):
                old.send(wire.READ, 0, BLOCK_BYTES)
        finally:
            cluster.signal(signal.SIGCONT, primary)
        assert drained(old, 8) == {wire.ESHUTDOWN}
    assert cluster.primary() != primary
    cluster.wait_in_sync()


def read_for_ever(client: NbdClient) -> None:
    """Until an answer does not come."""
    while True:
        assert client.ask(wire.READ, 0, BLOCK_BYTES).error == 0


def drained(client: NbdClient, count: int) -> set[int]:
    """The errors of so many replies."""
    found: list[int] = []
    while len(found) < count:
        found += [completion.error for completion in client.receive()]
    return set(found)
