"""A fake engine: keeps the promises of `EngineControl` over Python lists.

A copy is a list of records, an LSN is a position in it. What it says to other engines goes
through the cluster, which delivers, delays or loses it.
"""
from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from repstore.replication.engine_control import EngineEvent

if TYPE_CHECKING:
    from tests.node.fake_cluster import FakeCluster

Entry = tuple[int, int]          # epoch that assigned it, value
Message = tuple[object, ...]


@dataclass
class Copy:
    """One copy on a disk. What lies behind `flushed` may be lost with power."""
    records: list[Entry] = field(default_factory=list)
    flushed: int = 0
    commit_lsn: int = 0
    sealed_epoch: int = 0
    learning: bool = False
    learn_base: int = 0

    def cut(self, lsn: int) -> None:
        del self.records[lsn:]
        self.flushed = min(self.flushed, lsn)
        self.commit_lsn = min(self.commit_lsn, lsn)

    def lineage(self, lsn: int) -> tuple[tuple[int, int], ...]:
        """The epochs of the records up to `lsn`, with the first LSN of each."""
        first: dict[int, int] = {}
        for number, (epoch, _) in enumerate(self.records[:lsn], start=1):
            first.setdefault(epoch, number)
        return tuple(first.items())

    def overlaps(self, start: int, entries: list[Entry]) -> bool:
        """Whether `entries` continue this log without a gap or a contradiction."""
        known = self.records[start:start + len(entries)]
        return start <= len(self.records) and known == entries[:len(known)]


@dataclass
class State:
    """What `volume_state` returns."""
    index: int
    lineage: tuple[tuple[int, int], ...]
    sealed_epoch: int
    last_lsn: int
    commit_lsn: int
    learning: bool
    last_grant_s: float


@dataclass
class Leading:
    """The primary's counters for one volume."""
    epoch: int
    incarnation: int
    min_copies: int
    members: dict[int, int]                      # node: LSN it acknowledged
    durable: dict[int, int] = field(default_factory=dict)
    learners: dict[int, int] = field(default_factory=dict)      # caught up: acknowledged
    joining: dict[int, int] = field(default_factory=dict)       # node: LSN it has to flush
    flush_lsn: int = 0
    serials: dict[int, int] = field(default_factory=dict)       # of the learner sessions

    def counted(self) -> set[int]:
        return {*self.members, *self.joining}


class FakeEngine:
    """An engine without bytes. Lives as long as its process."""

    event_fd = -1

    def __init__(self, cluster: FakeCluster, node: int) -> None:
        self.cluster = cluster
        self.node = node
        self.leading: dict[int, Leading] = {}
        self.following: dict[int, tuple[int, int]] = {}         # epoch, primary
        self.pulling: dict[int, int] = {}
        self.heard: set[int] = set()                  # served by the primary it follows
        self.grant_s: dict[int, float] = {}
        self.queue: deque[EngineEvent] = deque()
        self.awaited = True                           # connections wait for what they asked for
        self.installed: dict[str, tuple[int, int]] = {}
        self.refused: dict[str, int] = {}
        self.revoked: list[tuple[int, int]] = []
        self.primaries: dict[int, tuple[int, int]] = {}
        self.export_names: list[str] = []
        self.described: dict[str, tuple[int, int]] = {}     # size and errno
        self.sessions: dict[int, int] = {}
        self.no_copy: Exception | None = None         # why none can be created

    @property
    def copies(self) -> dict[int, Copy]:
        return self.cluster.machines[self.node].copies

    def events(self) -> list[EngineEvent]:
        taken, self.queue = list(self.queue), deque()
        return taken

    def connect_peer(self, node_id: int, socket_fd: int) -> None:
        raise AssertionError("the walk makes the links")

    # ------------------------------------------------------------------------- copies
    def volume_indexes(self) -> list[int]:
        return sorted(self.copies)

    def volume_state(self, index: int) -> State:
        copy = self.copies[index]
        lineage = copy.lineage(self.cluster.random.choice([copy.commit_lsn, len(copy.records)]))
        return State(index, lineage, copy.sealed_epoch, len(copy.records), copy.commit_lsn,
                     copy.learning, self.grant_s.get(index, 0.0))

    def volume_create(self, index: int, uuid: str, name: str, size_blocks: int) -> None:
        assert index not in self.copies
        if self.no_copy is not None:
            raise self.no_copy
        self.copies[index] = Copy()

    def volume_delete(self, index: int) -> None:
        del self.copies[index]

    # ---------------------------------------------------------------------- promotion
    def seal(self, index: int, epoch: int) -> None:
        self.queue.append(self._sealed(index, epoch))

    def seal_peer(self, index: int, epoch: int, node_id: int) -> None:
        self._send(node_id, "seal", index, epoch)

    def _sealed(self, index: int, epoch: int) -> EngineEvent:
        copy = self.copies[index]
        copy.sealed_epoch = max(copy.sealed_epoch, epoch)
        leading = self.leading.get(index)
        if leading is not None and leading.epoch < copy.sealed_epoch:
            del self.leading[index]
            self.queue.append(("stale", index, copy.sealed_epoch))
        return ("sealed", index, self.node, copy.sealed_epoch, len(copy.records),
                copy.commit_lsn, hash(tuple(copy.records)), copy.learning)

    def pull(self, index: int, node_id: int) -> None:
        self.pulling[index] = node_id
        self._send(node_id, "pull", index)

    def lead(self, index: int, epoch: int, incarnation: int, members: list[tuple[int, int]],
             copies: int, min_copies: int, durable: bool, session: int) -> None:
        assert self.cluster.leaders.setdefault((index, epoch), self.node) == self.node, "S3"
        if self.copies[index].sealed_epoch > epoch:
            self.queue.append(("stale", index, self.copies[index].sealed_epoch))
            return
        self.leading[index] = Leading(epoch, incarnation, min_copies, dict(members))
        self.following.pop(index, None)
        self.pulling.pop(index, None)
        for node, lsn in members:
            self._push(index, node, lsn)

    # -------------------------------------------------------------------------- roles
    def follow(self, index: int, epoch: int, primary_node_id: int, member: bool) -> None:
        self.leading.pop(index, None)
        self.pulling.pop(index, None)
        self.following[index] = (epoch, primary_node_id)
        self._want(index)

    def step_down(self, index: int) -> None:
        self.leading.pop(index, None)

    def set_members(self, index: int, members: list[int]) -> None:
        leading = self.leading.get(index)
        if leading is None:
            return                                    # sealed meanwhile: `stale` is waiting
        known = {**leading.learners, **leading.members}
        for node in members:
            assert node in leading.members or node in leading.joining
            leading.joining.pop(node, None)
            leading.learners.pop(node, None)
        leading.members = {node: known[node] for node in members}
        self._commit(index)

    def resume_member(self, index: int, node_id: int, last_lsn: int) -> None:
        if index in self.leading:
            self._push(index, node_id, last_lsn)

    def learner_start(self, index: int, node_id: int, serial: int, common_lsn: int, full: bool) -> None:
        if index not in self.leading:
            return
        entries = list(self.copies[index].records)
        leading = self.leading[index]
        leading.learners.pop(node_id, None)
        leading.durable.pop(node_id, None)
        leading.serials[node_id] = serial
        self._send(node_id, "learn", index, leading.epoch, 0 if full else common_lsn, entries)
        self._send(node_id, "learned", index, leading.epoch, serial, entries)

    def join_begin(self, index: int, node_id: int) -> None:
        leading = self.leading.get(index)
        if leading is None:
            return
        leading.joining[node_id] = len(self.copies[index].records)
        leading.learners.setdefault(node_id, 0)
        leading.durable.pop(node_id, None)
        self._send(node_id, "flush", index, leading.serials.get(node_id, 0))

    def join_abort(self, index: int, node_id: int) -> None:
        leading = self.leading.get(index)
        if leading is not None:
            leading.joining.pop(node_id, None)
            leading.learners.pop(node_id, None)
            self._send(node_id, "ask again", index)

    def set_session(self, index: int, session: int) -> None:
        self.sessions[index] = session

    # ---------------------------------------------------------------------- frontends
    def export_install(self, index: int, name: str, size_bytes: int, session: int) -> int:
        self.installed[name] = (index, session)
        return index

    def export_awaited(self, name: str) -> bool:
        return self.awaited

    def export_refuse(self, name: str, errno: int) -> None:
        self.refused[name] = errno

    def export_describe(self, name: str, size_bytes: int, errno: int = 0) -> None:
        self.described[name] = (size_bytes, errno)

    def export_revoke(self, index: int, errno: int) -> None:
        self.revoked.append((index, errno))

    def set_primary(self, index: int, node_id: int, epoch: int) -> None:
        self.primaries[index] = (node_id, epoch)

    def set_export_names(self, names: Sequence[str]) -> None:
        self.export_names = list(names)

    # ---------------------------------------------------------------------- the stream
    def write(self, index: int, value: int) -> None:
        leading = self.leading[index]
        self.copies[index].records.append((leading.epoch, value))
        for node in {**leading.members, **leading.learners}:
            self._push(index, node, len(self.copies[index].records) - 1)
        self._commit(index)

    def flush(self, index: int) -> None:
        leading = self.leading[index]
        leading.flush_lsn = self.copies[index].commit_lsn
        for node in sorted(leading.counted()):
            self._send(node, "flush", index, leading.serials.get(node, 0))
        self._commit(index)

    def _push(self, index: int, node: int, start: int) -> None:
        copy, leading = self.copies[index], self.leading[index]
        self._send(node, "append", index, leading.epoch, leading.serials.get(node, 0), start,
                   copy.records[start:], copy.commit_lsn)

    def _commit(self, index: int) -> None:
        """Acknowledge what every counted copy has; below min_copies nothing."""
        leading = self.leading[index]
        if 1 + len(leading.members) >= leading.min_copies:
            self._acknowledge(index, leading, self.copies[index])
        for node, join_lsn in leading.joining.items():
            if leading.durable.get(node, 0) >= join_lsn:
                self.queue.append(("join_ready", index, node, leading.serials[node]))

    def _acknowledge(self, index: int, leading: Leading, copy: Copy) -> None:
        acknowledged = {**leading.learners, **leading.members}
        lsn = min([len(copy.records), *(acknowledged[node] for node in leading.counted())])
        for _, value in copy.records[copy.commit_lsn:lsn]:
            self.cluster.acknowledged.setdefault(index, []).append((leading.incarnation, value))
        copy.commit_lsn = max(copy.commit_lsn, lsn)
        durable = [leading.durable.get(node, 0) for node in leading.counted()]
        if leading.flush_lsn and all(lsn >= leading.flush_lsn for lsn in durable):
            copy.flushed = max(copy.flushed, leading.flush_lsn)
            self.cluster.flushed[index] = [
                value for _, value in copy.records[:leading.flush_lsn]]
            leading.flush_lsn = 0

    # ------------------------------------------------------------------------ messages
    def link_up(self, node: int) -> None:
        machine = self.cluster.machines[node]
        self.queue.append(("link_up", node, machine.boot_id, machine.store_uuid))
        for index, (_, primary) in self.following.items():
            if primary == node:
                self._want(index)

    def link_down(self, node: int) -> None:
        self.queue.append(("link_down", node))
        for index, leading in self.leading.items():
            leading.durable.pop(node, None)
            if node in leading.counted():
                self.queue.append(("member_silent", index, node))

    def receive(self, sender: int, message: Message) -> None:
        verb, index, *rest = message
        assert isinstance(index, int)
        if index in self.copies:
            getattr(self, "_on_" + str(verb).replace(" ", "_"))(index, sender, *rest)

    def _send(self, node: int, *message: object) -> None:
        self.cluster.send(self.node, node, message)

    def ask_unheard(self) -> None:
        """Who follows and is not served asks again, and again."""
        for index in self.following:
            if index not in self.heard:
                self._want(index)

    def _want(self, index: int) -> None:
        self.heard.discard(index)
        copy = self.copies[index]
        epoch = copy.records[-1][0] if copy.records else 0
        self._send(self.following[index][1], "want", index, epoch, len(copy.records),
                   copy.learning, copy.learn_base)

    def _on_seal(self, index: int, sender: int, epoch: int) -> None:
        self._send(sender, "sealed", index, self._sealed(index, epoch))

    def _on_sealed(self, index: int, sender: int, event: EngineEvent) -> None:
        self.queue.append(event)

    def _on_pull(self, index: int, sender: int) -> None:
        self._send(sender, "tail", index, list(self.copies[index].records))

    def _on_tail(self, index: int, sender: int, entries: list[Entry]) -> None:
        copy = self.copies[index]
        if self.pulling.pop(index, None) != sender:
            return                                    # we follow or lead since
        if not copy.overlaps(0, entries):
            self.queue.append(("diverged", index, sender))
            return
        copy.records += entries[len(copy.records):]
        self.queue.append(("pulled", index, sender, len(copy.records)))

    def _on_want(self, index: int, sender: int, epoch: int, lsn: int, learning: bool,
                 base: int) -> None:
        if index in self.leading:
            self.queue.append(("want", index, sender, epoch, lsn, 0, learning, base))

    def _on_ask_again(self, index: int, sender: int) -> None:
        if self.following.get(index, (0, -1))[1] == sender:
            self._want(index)

    def _accepts(self, index: int, sender: int, epoch: int) -> bool:
        copy = self.copies[index]
        if epoch < copy.sealed_epoch:
            self._send(sender, "stale", index, copy.sealed_epoch)
            return False
        if index in self.leading or self.following.get(index) != (epoch, sender):
            return False                          # our control has not seen that config yet
        copy.sealed_epoch = epoch
        self.heard.add(index)
        return True

    def _on_append(self, index: int, sender: int, epoch: int, serial: int, start: int,
                   entries: list[Entry], commit_lsn: int) -> None:
        copy = self.copies[index]
        if not self._accepts(index, sender, epoch) or copy.learning:
            return
        if not copy.overlaps(start, entries):
            if start <= len(copy.records):
                self._send(sender, "diverged", index)
            return
        copy.records += entries[len(copy.records) - start:]
        copy.commit_lsn = max(copy.commit_lsn, min(commit_lsn, len(copy.records)))
        self._send(sender, "ack", index, epoch, serial, len(copy.records), copy.flushed)

    def _on_flush(self, index: int, sender: int, serial: int) -> None:
        copy = self.copies[index]
        if self.following.get(index, (0, -1))[1] == sender and not copy.learning:
            copy.flushed = len(copy.records)
            self._send(sender, "ack", index, copy.sealed_epoch, serial, copy.flushed,
                       copy.flushed)

    def _on_ack(self, index: int, sender: int, epoch: int, serial: int, lsn: int,
                flushed: int) -> None:
        """Words of another epoch, or of an earlier session as learner, do not count."""
        leading = self.leading.get(index)
        if leading is None or (leading.epoch, leading.serials.get(sender, 0)) != (epoch, serial):
            return
        for counters in (leading.members, leading.learners):
            if sender in counters:
                counters[sender] = max(counters[sender], lsn)
        leading.durable[sender] = max(leading.durable.get(sender, 0), flushed)
        self._commit(index)

    def _on_diverged(self, index: int, sender: int) -> None:
        if index in self.leading:
            self.queue.append(("diverged", index, sender))

    def _on_stale(self, index: int, sender: int, epoch: int) -> None:
        if index in self.leading and self.leading[index].epoch < epoch:
            self.queue.append(("stale", index, epoch))

    def _on_learn(self, index: int, sender: int, epoch: int, common_lsn: int,
                  entries: list[Entry]) -> None:
        """Drop what is not shared. A wrong common LSN would leave wrong blocks for ever."""
        copy = self.copies[index]
        if not self._accepts(index, sender, epoch):
            return
        assert copy.records[:common_lsn] == entries[:common_lsn], "wrong common LSN"
        base = min(common_lsn, copy.learn_base) if copy.learning else common_lsn
        copy.cut(common_lsn)
        copy.learning, copy.learn_base = True, base

    def _on_learned(self, index: int, sender: int, epoch: int, serial: int,
                    entries: list[Entry]) -> None:
        copy = self.copies[index]
        if not self._accepts(index, sender, epoch) or not copy.learning:
            return
        copy.records, copy.learning = list(entries), False
        self._send(sender, "caught up", index, epoch, serial, len(entries))

    def _on_caught_up(self, index: int, sender: int, epoch: int, serial: int, lsn: int) -> None:
        leading = self.leading.get(index)
        if leading is None or sender in leading.members or \
                (leading.epoch, leading.serials.get(sender)) != (epoch, serial):
            return
        leading.learners[sender] = lsn
        self._push(index, sender, lsn)
        self.queue.append(("learner_caught_up", index, sender, serial))
