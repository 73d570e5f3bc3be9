"""How a cluster is: what the coordination store decided, and what the nodes last reported.

Membership, epochs and pids come from the coordination store; roles, LSNs and resync progress
from the reports of nodes that run (at most REPORT_INTERVAL_S old). Reading changes nothing.

Health of a volume:
  healthy   its primary leads, and every copy is in sync on a node that runs
  degraded  it is served, but a copy is missing, or on a node that does not run or has failed
  faulted   nothing is acknowledged: no primary leads, or fewer than min_copies copies are left
A cluster is as bad as the worst of its volumes; a node that is down makes it degraded.
"""
from __future__ import annotations

from typing import Literal

import msgspec

from repstore.coordination.interface import ConfigStore
from repstore.node import admin
from repstore.node.directory import ClusterDirectory
from repstore.node.process import is_running
from repstore.node.report import CopyReport, NodeReport, read_report
from repstore.replication.volume_config import NodeConfig, NodeId, VolumeConfig

Health = Literal["healthy", "degraded", "faulted"]
WORST_LAST: tuple[Health, ...] = ("healthy", "degraded", "faulted")


class CopyStatus(msgspec.Struct, frozen=True):
    """One copy of a volume. Without news from its node the LSNs are None."""
    node: str
    pid: int                       # 0: its node does not run
    role: str                      # primary, replica, learner, none; or down
    in_sync: bool                  # counted by the coordination store
    epoch: int | None
    last_lsn: int | None
    commit_lsn: int | None
    durable_lsn: int | None


class ResyncStatus(msgspec.Struct, frozen=True):
    """Copies that are being brought back, as the primary sees it."""
    nodes: tuple[str, ...]
    done_bytes: int                # moved in this resync, or in the last one when there is none
    total_bytes: int


class VolumeStatus(msgspec.Struct, frozen=True):
    """One volume."""
    name: str
    index: int
    size_bytes: int
    copies_wanted: int
    min_copies: int
    acknowledgement: str
    health: Health
    reason: str                    # why it is not healthy; empty if it is
    epoch: int
    incarnation: int
    primary: str                   # as decided; whether it leads is in `copies`
    attached: str                  # the client or node that may write; empty: nobody
    resync: ResyncStatus
    copies: tuple[CopyStatus, ...]


class NodeStatus(msgspec.Struct, frozen=True):
    """One node. `stats` are its engine's counters, empty while it does not run."""
    name: str
    pid: int                       # 0: it does not run
    store: str
    nbd: tuple[str, ...]
    fault: str                     # why its store takes no writes, or a config is unreadable
    full: bool
    bad_blocks: int
    stats: dict[str, int]


class ClusterStatus(msgspec.Struct, frozen=True):
    """Everything `repstore status` shows."""
    directory: str
    health: Health
    volumes: tuple[VolumeStatus, ...]
    nodes: tuple[NodeStatus, ...]

    def volume(self, name: str) -> VolumeStatus | None:
        """The volume of that name, or None."""
        return next((volume for volume in self.volumes if volume.name == name), None)

    def node(self, name: str) -> NodeStatus | None:
        """The node of that name, or None."""
        return next((node for node in self.nodes if node.name == name), None)


class _Seen:
    """Nodes by number, with the news of those that run."""

    def __init__(self, directory: ClusterDirectory, configs: ConfigStore) -> None:
        self.nodes: dict[NodeId, NodeConfig] = {
            node.id: node for node in admin.load_nodes(configs).values()}
        self.running = {number for number, node in self.nodes.items() if is_running(node)}
        self.reports: dict[NodeId, NodeReport] = {}
        for number in self.running:
            node = self.nodes[number]
            report = read_report(directory.report_path(node.name))
            if report is not None and (report.pid, report.pid_started) == (node.pid, node.pid_started):
                self.reports[number] = report

    def name(self, number: NodeId) -> str:
        node = self.nodes.get(number)
        return f"node {number}" if node is None else node.name

    def pid(self, number: NodeId) -> int:
        return self.nodes[number].pid if number in self.running else 0

    def copy(self, number: NodeId, index: int) -> CopyReport | None:
        report = self.reports.get(number)
        copies = () if report is None else report.copies
        return next((copy for copy in copies if copy.index == index), None)

    def works(self, number: NodeId) -> bool:
        """It runs, and as far as we heard its store takes writes."""
        report = self.reports.get(number)
        return number in self.running and (report is None or not report.fenced)


def cluster_status(directory: ClusterDirectory, configs: ConfigStore) -> ClusterStatus:
    """How the cluster is now."""
    volumes = sorted(admin.load_volumes(configs).values(), key=lambda volume: volume.index)
    # nodes after volumes: a promotion that is seen has its node's report behind it
    seen = _Seen(directory, configs)
    shown = tuple(_volume(volume, seen) for volume in volumes)
    levels = [volume.health for volume in shown]
    levels.append("healthy" if all(map(seen.works, seen.nodes)) else "degraded")
    if not seen.running:
        levels.append("faulted")
    return ClusterStatus(
        directory=str(directory.path), health=max(levels, key=WORST_LAST.index), volumes=shown,
        nodes=tuple(_node(seen, number) for number in sorted(seen.nodes)))


def _volume(volume: VolumeConfig, seen: _Seen) -> VolumeStatus:
    health, reason = _health(volume, seen)
    return VolumeStatus(
        name=volume.name, index=volume.index, size_bytes=volume.size_bytes,
        copies_wanted=volume.copies, min_copies=volume.min_copies,
        acknowledgement=volume.acknowledgement, health=health, reason=reason,
        epoch=volume.epoch, incarnation=volume.incarnation, primary=seen.name(volume.primary),
        attached="" if volume.attach is None else volume.attach.client,
        resync=_resync(volume, seen),
        copies=tuple(_copy(volume, number, seen) for number in sorted(volume.placement)))


def _health(volume: VolumeConfig, seen: _Seen) -> tuple[Health, str]:
    leader = seen.copy(volume.primary, volume.index)
    in_sync = volume.in_sync_nodes()
    working = [number for number in in_sync if seen.works(number)]
    if volume.epoch == 0:
        return "faulted", "it was never led: its nodes have not run yet"
    if volume.primary not in working:
        return "faulted", f"its primary {seen.name(volume.primary)} does not run, or has failed"
    if leader is None or leader.role != "primary" or leader.epoch < volume.epoch:
        return "faulted", f"{seen.name(volume.primary)} does not lead epoch {volume.epoch} yet"
    if len(working) < volume.min_copies:
        return "faulted", f"{len(working)} copies in sync, at least {volume.min_copies} must be"
    missing = sorted(set(volume.placement) - set(working))
    if missing:
        names = ", ".join(map(seen.name, missing))
        return "degraded", f"{len(working)} of {volume.copies} copies in sync, not on {names}"
    return "healthy", ""


def _resync(volume: VolumeConfig, seen: _Seen) -> ResyncStatus:
    leader = seen.copy(volume.primary, volume.index)
    if leader is None:
        return ResyncStatus((), 0, 0)
    return ResyncStatus(
        nodes=tuple(map(seen.name, leader.learners)),
        done_bytes=leader.resync_done_bytes, total_bytes=leader.resync_total_bytes)


def _copy(volume: VolumeConfig, number: NodeId, seen: _Seen) -> CopyStatus:
    copy = seen.copy(number, volume.index)
    role = "down" if number not in seen.running else "none" if copy is None else copy.role
    return CopyStatus(
        node=seen.name(number), pid=seen.pid(number), role=role,
        in_sync=volume.member(number) is not None,
        epoch=None if copy is None else copy.epoch,
        last_lsn=None if copy is None else copy.last_lsn,
        commit_lsn=None if copy is None else copy.commit_lsn,
        durable_lsn=None if copy is None else copy.durable_lsn)


def _node(seen: _Seen, number: NodeId) -> NodeStatus:
    node, report = seen.nodes[number], seen.reports.get(number)
    faults = [] if report is None else [f"{key}: {text}" for key, text in report.faults.items()]
    if report is not None and report.fenced:
        faults.insert(0, f"store failed: {report.fenced}")
    return NodeStatus(
        name=node.name, pid=seen.pid(number), store=node.store_path, nbd=node.nbd_sockets,
        fault="; ".join(faults), full=report is not None and report.full,
        bad_blocks=0 if report is None else report.bad_blocks,
        stats={} if report is None else report.stats)
