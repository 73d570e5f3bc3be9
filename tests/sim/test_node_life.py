"""A node outlives what becomes of its volumes."""
from __future__ import annotations

import msgspec
import pytest

from repstore.node import admin
from repstore.replication.volume_config import VolumeConfig, volume_key
from repstore.sim.cluster import SimulatedCluster
from repstore.sim.workload import FLUSH, WRITE, Ask
from tests.sim.rules import cluster_of
from tests.sim.scenarios import LIMIT_S, VOLUME


def test_a_node_attaches_more_volumes_in_its_life_than_it_can_at_once() -> None:
    """Each is deleted before the next one is made. What is one too many is refused, and the node goes on."""
    cluster = SimulatedCluster(12, nodes=2, store_bytes=2 << 20, segment_bytes=64 << 10)
    control = cluster.life("n2").control
    for i in range(300):
        volume = cluster.create_volume(f"v{i}", 1, copies=1)
        name = volume.name
        admin.update(cluster.config, volume_key(name), VolumeConfig,
                     lambda old, i=i: msgspec.structs.replace(old, index=i + 1))
        control.attach(name, cluster.clock.now_s)
        admin.delete_volume(cluster.config, name)
        control.poll_config(cluster.clock.now_s)
    assert cluster.life("n2").alive


@pytest.mark.parametrize("how", ["fails while idle", "writes under way"])
@pytest.mark.fault("disk: a store that failed, and the volume is deleted", promise="the node goes on")
def test_a_node_whose_store_failed_outlives_the_end_of_a_volume(how: str) -> None:
    cluster = cluster_of(13, copies=2, min_copies=1)
    client = cluster.client(VOLUME, through="n3", asks=iter([Ask(WRITE, 0, 8)]))
    cluster.run_until(lambda: client.is_done, LIMIT_S)
    disk = cluster.node("n2").disk
    if how == "fails while idle":
        disk.faults.flushes.append("fails")
        client.ask_more([Ask(FLUSH)])
    else:
        disk.faults.writes.extend(["eio"] * 3)
        client.ask_more([Ask(WRITE, 8 * i, 8) for i in range(4)])
    cluster.run_until(lambda: bool(cluster.life("n2").engine.failed), LIMIT_S)
    cluster.run_until(lambda: client.is_done, LIMIT_S)
    life = cluster.life("n2")
    admin.delete_volume(cluster.config, VOLUME)
    cluster.run_for(70)
    assert life.alive
