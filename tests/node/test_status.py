"""Health out of configs and reports: what is known, what is old, and what is worst."""
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from repstore.config import VolumeOptions
from repstore.coordination.sqlite import SqliteConfigStore
from repstore.node import NodeConfig, VolumeConfig, create_volume, load_nodes, register_node
from repstore.node.admin import update
from repstore.node.directory import ClusterDirectory
from repstore.node.process import this_process
from repstore.node.report import CopyReport, NodeReport, read_report
from repstore.node.status import ClusterStatus, cluster_status
from repstore.replication import membership
from repstore.replication.volume_config import volume_key


class Cluster:
    """Three nodes, all of them this process; volume v, led by node 0 (n1) in epoch 1."""

    def __init__(self, path: Path) -> None:
        self.directory = ClusterDirectory(path)
        self.configs: SqliteConfigStore = self.directory.open_config(create=True)
        process = this_process()
        for number in range(3):
            register_node(self.configs, NodeConfig(
                name=f"n{number + 1}", id=number, store_path="", store_uuid=f"d{number}",
                host_boot_id=process.host_boot_id, pid=process.pid,
                pid_started=process.pid_started, pid_namespace=process.pid_namespace))
        create_volume(self.configs, VolumeOptions("v", 1 << 20, 3))
        self.change(lambda volume: membership.promoted(
            volume, 1, 0, volume.in_sync, 0, 0, tainted=False))
        for number, role in enumerate(("primary", "replica", "replica")):
            self.report(number, role)

    def change(self, change: Callable[[VolumeConfig], VolumeConfig | None]) -> None:
        update(self.configs, volume_key("v"), VolumeConfig, change)

    def node(self, number: int, **changes: object) -> None:
        node = load_nodes(self.configs)[f"n{number + 1}"]
        register_node(self.configs, replace(node, **changes))

    def report(self, number: int, role: str, *, epoch: int = 1, fenced: str = "", pid: int = 0,
               learners: tuple[int, ...] = ()) -> None:
        process = this_process()
        copy = CopyReport(index=0, role=role, epoch=epoch, sealed_epoch=1, last_lsn=9, commit_lsn=8,
                          durable_lsn=7, learning=False, learners=learners,
                          resync_done_bytes=4096 * len(learners), resync_total_bytes=8192 * len(learners))
        report = NodeReport(
            node=f"n{number + 1}", pid=pid or process.pid, pid_started=process.pid_started,
            fenced=fenced, full=False, bad_blocks=0, faults={}, stats={}, copies=(copy,))
        self.directory.report_path(report.node).write_bytes(msgspec.json.encode(report))

    @property
    def status(self) -> ClusterStatus:
        return cluster_status(self.directory, self.configs)

    def judged(self) -> tuple[str, str]:
        volume = self.status.volume("v")
        assert volume is not None
        return volume.health, volume.reason


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    made = Cluster(tmp_path)
    yield made
    made.configs.close()


def test_all_is_well(cluster: Cluster) -> None:
    status = cluster.status
    assert status.health == "healthy"
    assert cluster.judged() == ("healthy", "")
    assert [(copy.node, copy.role, copy.in_sync, copy.last_lsn, copy.commit_lsn, copy.durable_lsn)
            for copy in status.volumes[0].copies] == [
        ("n1", "primary", True, 9, 8, 7), ("n2", "replica", True, 9, 8, 7), ("n3", "replica", True, 9, 8, 7)]
    assert status.node("n2") is not None
    assert status.node("n9") is None
    assert status.volume("w") is None


def test_a_replica_that_does_not_run_degrades(cluster: Cluster) -> None:
    cluster.node(2, pid=0)
    assert cluster.judged() == ("degraded", "2 of 3 copies in sync, not on n3")
    down = cluster.status.volumes[0].copies[2]
    assert (down.role, down.pid, down.last_lsn) == ("down", 0, None)


def test_a_copy_out_of_sync_degrades_and_its_return_is_told(cluster: Cluster) -> None:
    cluster.change(lambda volume: membership.ejected(volume, (1,)))
    cluster.report(0, "primary", learners=(1,))
    assert cluster.judged() == ("degraded", "2 of 3 copies in sync, not on n2")
    resync = cluster.status.volumes[0].resync
    assert (resync.nodes, resync.done_bytes, resync.total_bytes) == (("n2",), 4096, 8192)


def test_below_min_copies_nothing_is_acknowledged(cluster: Cluster) -> None:
    cluster.node(1, pid=0)
    cluster.node(2, pid=0)
    assert cluster.judged() == ("faulted", "1 copies in sync, at least 2 must be")


def test_a_primary_that_is_gone_or_failed_or_not_there_yet(cluster: Cluster) -> None:
    cluster.report(0, "primary", fenced="Input/output error (EIO)")
    assert cluster.judged() == ("faulted", "its primary n1 does not run, or has failed")
    node = cluster.status.node("n1")
    assert node is not None
    assert node.fault == "store failed: Input/output error (EIO)"
    cluster.report(0, "replica")
    assert cluster.judged() == ("faulted", "n1 does not lead epoch 1 yet")
    cluster.report(0, "primary", epoch=0)
    assert cluster.judged() == ("faulted", "n1 does not lead epoch 1 yet")
    cluster.node(0, pid=0)
    assert cluster.judged() == ("faulted", "its primary n1 does not run, or has failed")


def test_the_report_of_another_process_is_no_news(cluster: Cluster) -> None:
    cluster.report(0, "primary", pid=1)
    assert cluster.judged() == ("faulted", "n1 does not lead epoch 1 yet")
    cluster.directory.report_path("n1").write_text("{ torn")
    assert read_report(cluster.directory.report_path("n1")) is None
    assert cluster.judged()[0] == "faulted"


def test_a_volume_that_was_never_led(cluster: Cluster) -> None:
    create_volume(cluster.configs, VolumeOptions("w", 4096))
    volume = cluster.status.volume("w")
    assert volume is not None
    assert (volume.health, volume.reason) == ("faulted", "it was never led: its nodes have not run yet")
    assert cluster.status.health == "faulted"


def test_what_an_earlier_boot_left_does_not_run(cluster: Cluster) -> None:
    cluster.node(1, host_boot_id="another boot")
    assert cluster.judged() == ("degraded", "2 of 3 copies in sync, not on n2")


def test_a_cluster_without_a_running_node_is_faulted_even_without_volumes(tmp_path: Path) -> None:
    directory = ClusterDirectory(tmp_path)
    configs = directory.open_config(create=True)
    register_node(configs, NodeConfig(name="n1", id=0, store_path="", store_uuid=""))
    assert cluster_status(directory, configs).health == "faulted"
    configs.close()
