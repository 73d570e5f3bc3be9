"""Real nodes: a volume that has more under way than its node may keep, or a link may queue."""
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import repstore
from repstore import config
from repstore.node import admin
from repstore.node.directory import add_volume
from tests.cluster.harness import MIB, VOLUME, ClusterHarness, Shape, wait_until
from tests.cluster.nbd_client import NbdClient
from tests.nbd import wire

BLOCK_BYTES = 4096
CONNECTIONS = 5
EACH = 900                       # of a connection; together more than an engine has
DEPTH = 64
WHOLE = "whole"

pytestmark = pytest.mark.slow


def answered(client: NbdClient, count: int) -> set[int]:
    """Wait for so many answers; the errors among them."""
    errors: list[int] = []
    while len(errors) < count:
        errors += [completion.error for completion in client.receive()]
    return set(errors)


@pytest.mark.fault("process: a copy that its volume needs is killed, thousands of requests wait",
                   promise="the other volumes of the node go on, and when it is back these do")
def test_a_volume_that_waits_leaves_requests_to_the_others(tmp_path: Path) -> None:
    """More trims than a volume may have under way: their connections are not read on, and then are."""
    shape = Shape(nodes=2, copies=2, min_copies=2, store_bytes=32 * MIB, volume_bytes=8 * MIB)
    with ClusterHarness(tmp_path, shape) as cluster:
        add_volume(cluster.config, config.VolumeOptions(WHOLE, 4 * MIB, copies=1))
        cluster.start()
        cluster.wait_in_sync()
        stays = next(name for name in cluster.names
                     if cluster.node(name).id in admin.load_volume(cluster.config, WHOLE).in_sync_nodes())
        dies = next(name for name in cluster.names if name != stays)
        waiting = [cluster.connect(stays) for _ in range(CONNECTIONS)]
        cluster.kill(dies)
        for client in waiting:
            for i in range(EACH):
                client.send(wire.TRIM, i * BLOCK_BYTES, BLOCK_BYTES)
        with cluster.connect(stays, WHOLE) as other:
            for i in range(DEPTH):
                other.send(wire.WRITE, i * BLOCK_BYTES, payload=i.to_bytes(8, "little") * (BLOCK_BYTES // 8))
            assert answered(other, DEPTH) == {0}
        cluster.start(dies)
        for client in waiting:
            assert answered(client, EACH) == {0}
            client.close()
        assert not cluster.crashed()


@pytest.mark.parametrize("kind", [repstore.Operation.WRITE, repstore.Operation.READ])
@pytest.mark.fault("network: a client has more under way than a link may queue",
                   promise="it is sent piece by piece, and no link is cut")
def test_more_under_way_than_a_link_may_queue_is_sent_piece_by_piece(
        tmp_path: Path, kind: repstore.Operation) -> None:
    """Nearly twice LINK_QUEUE_BYTES_MAX at once. The link was cut, and everything sent again, for ever."""
    large = 256 * 1024
    operations = np.zeros(1000, repstore.OPERATION_DTYPE)
    operations["kind"] = kind
    operations["offset"] = np.arange(1000) % 256 * large
    operations["length"] = large
    operations["buffer_offset"] = 0
    assert operations["length"].sum() > config.LINK_QUEUE_BYTES_MAX
    shape = Shape(nodes=1, copies=1, store_bytes=128 * MIB, volume_bytes=64 * MIB)
    with ClusterHarness(tmp_path, shape) as cluster:
        cluster.start()
        cluster.wait_in_sync()
        with repstore.Cluster(tmp_path) as client:
            ticket = client.volume(VOLUME).submit(operations, repstore.aligned_buffer(large), depth=1000)
            wait_until(lambda: ticket.done, "all operations are answered", 30)
            ticket.wait()
