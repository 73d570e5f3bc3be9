"""Nodes that come back in another order than they went, and learn from who has learned itself."""
from __future__ import annotations

from pathlib import Path

import pytest

from tests.cluster.harness import MIB, ClusterHarness, Shape, wait_until
from tests.nbd import wire

PIECE = 64 * 1024
SIZE = 8 * MIB

pytestmark = pytest.mark.slow


class Content:
    """What the volume should hold, and a way to change it."""

    def __init__(self, cluster: ClusterHarness) -> None:
        self.cluster = cluster
        self.expected = bytearray(SIZE)

    def write(self, name: str, mark: int, first: int, step: int) -> None:
        """Every `step`th piece from `first` on, through one node."""
        with self.cluster.connect(name) as client:
            for offset in range(first * PIECE, SIZE, step * PIECE):
                data = bytes([mark]) * PIECE
                assert client.ask(wire.WRITE, offset, payload=data).error == 0
                self.expected[offset:offset + PIECE] = data

    def check(self, name: str) -> None:
        """Read it back through one node."""
        with self.cluster.connect(name) as client:
            for offset in range(0, SIZE, PIECE):
                assert client.ask(wire.READ, offset, PIECE).data == self.expected[offset:offset + PIECE]


def test_who_was_away_longest_learns_from_one_who_has_just_learned(tmp_path: Path) -> None:
    """The last goes, the second goes, returns and learns from the first; the first dies, and the last must
    learn from the second all that it got as copies, not only what it wrote to its own log."""
    with ClusterHarness(tmp_path, Shape(store_bytes=24 * MIB, volume_bytes=SIZE, min_copies=1)) as cluster:
        content = Content(cluster)
        cluster.start()
        cluster.wait_in_sync()
        first = cluster.primary()               # whoever was there first
        second, last = sorted(set(cluster.names) - {first})
        content.write(first, 1, 0, 1)
        cluster.kill(last)
        cluster.wait_in_sync(2)
        content.write(first, 2, 0, 3)
        cluster.kill(second)
        cluster.wait_in_sync(1)
        content.write(first, 3, 1, 3)
        cluster.start(second)
        cluster.wait_in_sync(2)
        content.write(first, 4, 5, 7)
        cluster.kill(first)
        wait_until(lambda: cluster.primary() == second, "the second leads")
        content.write(second, 5, 6, 11)
        cluster.start(last)
        cluster.wait_in_sync(2)
        content.check(last)
        cluster.start(first)
        cluster.settle(first)
        content.check(first)
        cluster.stop()
        assert {bytes(content.expected)} == set(cluster.copies_content().values())


def test_the_last_copy_alone_goes_on_and_brings_back_the_others(tmp_path: Path) -> None:
    """Killed again and again in the middle of learning, a copy is never taken for a whole one."""
    with ClusterHarness(tmp_path, Shape(store_bytes=24 * MIB, volume_bytes=SIZE, min_copies=1)) as cluster:
        content = Content(cluster)
        cluster.start()
        cluster.wait_in_sync()
        cluster.kill("n2", "n3")
        cluster.wait_in_sync(1)
        for mark in range(1, 6):
            content.write("n1", mark, mark % 3, 2)
            cluster.start("n2", "n3")
            content.write("n1", 100 + mark, mark, 5)
            cluster.kill("n2", "n3")
            cluster.wait_in_sync(1)
        cluster.start("n2", "n3")
        cluster.settle("n2")
        content.check("n3")
        cluster.stop()
        assert {bytes(content.expected)} == set(cluster.copies_content().values())
