"""What a running node tells about itself: one small file, for `repstore status`.

  R1 A report is replaced whole (a rename): a reader sees one moment, never half of one.
  R2 There is at most one each REPORT_INTERVAL_S, and none while nothing changes.
  R3 It is news, not truth: membership stands in the coordination store, and a reader checks
     that the process that wrote the report is the one that runs.
  R4 A report that cannot be written is left out: the node goes on, the next one may succeed.
"""
from __future__ import annotations

import os
from pathlib import Path

import msgspec

from repstore import config
from repstore._fast.control import Engine
from repstore._fast.layout import BLOCK_SIZE
from repstore.node.control import NodeControl
from repstore.node.process import ProcessIdentity

REPORT_SUFFIX = ".status.json"


class CopyReport(msgspec.Struct, frozen=True):
    """One copy of a volume as its node has it. LSNs count blocks of 4 KiB."""
    index: int                     # of the volume, cluster-wide
    role: str                      # primary, replica, learner or none
    epoch: int
    sealed_epoch: int              # lower epochs are refused
    last_lsn: int                  # newest record written here
    commit_lsn: int                # acknowledged by every in-sync copy
    durable_lsn: int               # flushed here
    learning: bool                 # incomplete: may neither lead nor count
    learners: tuple[int, ...]      # at the primary: nodes that are being brought back
    resync_done_bytes: int         # at the primary: copied to them
    resync_total_bytes: int        # of so many


class NodeReport(msgspec.Struct, frozen=True):
    """One moment of one process."""
    node: str
    pid: int
    pid_started: int
    fenced: str                    # why its store takes no more writes; empty: it does
    full: bool                     # no room for new blocks until some are trimmed
    bad_blocks: int                # reads that failed their checksum
    faults: dict[str, str]         # config records that cannot be read, and why
    stats: dict[str, int]          # counters and space of the engine
    copies: tuple[CopyReport, ...]


class Reporter:
    """Keeps the report of one node up to date."""

    def __init__(self, path: Path, engine: Engine, process: ProcessIdentity) -> None:
        self._path = path
        self._engine = engine
        self._process = process
        self._written = b""
        self._next_s = 0.0

    def publish(self, control: NodeControl, now_s: float) -> None:
        """Write what is new, if it is time (R2)."""
        if now_s < self._next_s:
            return
        self._next_s = now_s + config.REPORT_INTERVAL_S
        report = msgspec.json.encode(self._report(control))
        if report == self._written:
            return
        unfinished = self._path.with_name(self._path.name + ".new")
        try:
            unfinished.write_bytes(report)
            os.replace(unfinished, self._path)
        except OSError:
            return                                                              # R4
        self._written = report

    def _report(self, control: NodeControl) -> NodeReport:
        health, stats = control.health, self._engine.stats()
        return NodeReport(
            node=control.identity.name, pid=self._process.pid,
            pid_started=self._process.pid_started, fenced=health.fenced,
            full=stats["live_blocks"] >= stats["capacity_blocks"], bad_blocks=health.bad_blocks,
            faults=dict(health.faults), stats=stats,
            copies=tuple(_copy(self._engine, index) for index in self._engine.volume_indexes()))


def read_report(path: Path) -> NodeReport | None:
    """The newest report at `path`; None if there is none that can be read."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=NodeReport)
    except (OSError, msgspec.DecodeError):
        return None


def _copy(engine: Engine, index: int) -> CopyReport:
    state = engine.volume_state(index)
    return CopyReport(
        index=state.index, role=state.role, epoch=state.epoch, sealed_epoch=state.sealed_epoch,
        last_lsn=state.last_lsn, commit_lsn=state.commit_lsn, durable_lsn=state.durable_lsn,
        learning=state.learning, learners=state.learners,
        resync_done_bytes=state.resync_done_blocks * BLOCK_SIZE,
        resync_total_bytes=state.resync_total_blocks * BLOCK_SIZE)
