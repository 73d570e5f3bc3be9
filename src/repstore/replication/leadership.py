"""Leading a volume: who counts, who leaves, who comes back.

  L1 R-eject: the engine's in-sync set shrinks (SetMembers) only after the swap that
     removes the member is known to have succeeded; until then acknowledgements wait.
  L2 R-join: from JoinBegin on acknowledgements and flushes need the joiner too. It is
     proposed only after it flushed everything (JoinReady), with the boot it had then;
     while a proposal's outcome is unknown nothing is aborted: both sets count.
  L3 A member that returns before it was ejected goes on (ResumeMember) only if it is the
     same disk and boot and its log is not longer than ours; otherwise it leaves and learns.
  L4 A lost link alone does not eject: a proved death does at once, silence after
     MEMBER_SILENCE_S. Below min_copies no silent member is ejected: the volume stalls.
  L5 A learner is never started again over a running copy: it is dropped first. Each start has a
     serial of its own, of all epochs: the old copy's end, told when the new one has begun
     already, is not mistaken for the end of that.
  L6 Proposals follow from the state, not from the event that caused it: a swap that lost
     against an attach is simply proposed again on top of the new config. What was held against
     a member is forgotten when its entry there is another, as when it told its boot (V6): it
     asks again, and is judged by that.
  L7 A record that our disk does not give back, and that a member lacks, was acknowledged by
     nobody. If others in sync are here it leaves, and learns the blocks from who has them. If not,
     nobody can give them: we resign, and it leads without that record, which clients send again.
"""
from __future__ import annotations

import enum
from dataclasses import dataclass, field

from repstore import config
from repstore.replication import membership
from repstore.replication.actions import (
    Action,
    JoinAbort,
    JoinBegin,
    LearnerStart,
    ReadConfig,
    ResumeMember,
    SetMembers,
    SetSession,
    Swap,
)
from repstore.replication.engine_control import LocalCopy
from repstore.replication.events import (
    Diverged,
    JoinReady,
    LearnerCaughtUp,
    LinkDown,
    MemberSilent,
    PolicyEvent,
    RequestSession,
    ResyncFull,
    Unreadable,
    Want,
)
from repstore.replication.situation import Identity, Situation
from repstore.replication.volume_config import Member, NodeId, VolumeConfig

SERIAL_BITS = 32              # of the starts in one epoch


class Phase(enum.Enum):
    """How far a learner is."""
    COPYING = "copying"
    CAUGHT_UP = "caught up"       # everything copied; waits for its turn to join
    JOINING = "joining"           # counts already; asked to flush
    READY = "ready"               # flushed everything: may be proposed


@dataclass
class Learner:
    """A copy on its way into the in-sync set, as the node it was when it began."""
    identity: Identity
    serial: int
    want: Want
    started_s: float
    phase: Phase = Phase.COPYING
    full_copy_reason: str = ""
    link_lost: bool = False       # while its join was in flight


@dataclass
class Leader:
    """Primary of one epoch."""
    epoch: int
    installed: tuple[NodeId, ...]                 # in-sync set in the engine, without us
    session: int
    down_since_s: dict[NodeId, float] = field(default_factory=dict)
    leaving: dict[NodeId, str] = field(default_factory=dict)      # and why
    unfit: dict[NodeId, Member] = field(default_factory=dict)     # of these: back, must learn. As it was then
    learners: dict[NodeId, Learner] = field(default_factory=dict)

    retries: dict[NodeId, tuple[float, Want]] = field(default_factory=dict)  # from then on
    started: int = 0                              # learners, so far

    def on_event(self, event: PolicyEvent, here: Situation, local: LocalCopy,
                 now_s: float) -> list[Action]:
        """React; what must be decided by a swap is only noted, `advance` proposes it."""
        match event:
            case Want():
                return self._on_want(event, here, local, now_s)
            case LinkDown(node=node):
                self.unfit.pop(node, None)
                actions = self._forget(node, here, now_s)
                self.retries.pop(node, None)
                return actions
            case MemberSilent():
                return self._on_silence(event, here, now_s)
            case LearnerCaughtUp(node=node, serial=serial) if self._is_at(Phase.COPYING, node, serial):
                self.learners[node].phase = Phase.CAUGHT_UP
            case JoinReady(node=node, serial=serial) if self._is_at(Phase.JOINING, node, serial):
                self.learners[node].phase = Phase.READY
            case Diverged(node=node) | Unreadable(node=node) if node in self.installed:
                self._refuse(node, here, "its log differs from ours" if isinstance(event, Diverged)
                             else "our disk does not give back a record that it lacks")
            case Diverged(node=node) | Unreadable(node=node):
                return self._forget(node, here, now_s)
            case ResyncFull(node=node) if node in self.learners:
                self.learners[node].full_copy_reason = event.reason
            case RequestSession() if event.session > self.session:
                return [ReadConfig()]
        return []

    def resigns(self, event: Unreadable, here: Situation) -> bool:
        """L7."""
        return event.node in self.installed and not any(
            node != event.node and node in here.peers for node in self.installed)

    def on_config(self, here: Situation) -> list[Action]:
        """Make the engine's sets those of the config that was just read or written."""
        actions: list[Action] = []
        members = tuple(node for node in here.volume.in_sync_nodes() if node != here.me.node)
        if members != self.installed:
            actions.append(SetMembers(members))
        for node in members:
            self.learners.pop(node, None)
            self.retries.pop(node, None)
        for node in self.installed:
            member = here.volume.member(node)
            if member is None:
                self.down_since_s.pop(node, None)
            if member is None or self.unfit.get(node, member) != member:
                self.leaving.pop(node, None)
                self.unfit.pop(node, None)
        self.installed = members
        attach = here.volume.attach
        if attach is not None and attach.session > self.session:
            self.session = attach.session
            actions.append(SetSession(attach.session))
        return actions

    def advance(self, here: Situation, local: LocalCopy, now_s: float) -> list[Action]:
        """Whatever the state calls for now: ends, joins to begin, the next proposal (L6)."""
        self._watch_links(here, now_s)
        actions: list[Action] = []
        if here.swap is None:
            actions += self._end_lost_learners()
        actions += self._retry(here, local, now_s)
        actions += self._begin_joins(here)
        if here.swap is None and now_s >= here.next_swap_s:
            proposal = self._proposal(here)
            if proposal is not None:
                actions.append(Swap(proposal, here.revision))
        return actions

    def _watch_links(self, here: Situation, now_s: float) -> None:
        """L4."""
        for node in self.installed:
            if node in here.peers:
                self.down_since_s.pop(node, None)
                continue
            since_s = self.down_since_s.setdefault(node, now_s)
            if node in here.dead:
                self.leaving[node] = "its process is gone"
            elif now_s - since_s >= config.MEMBER_SILENCE_S:
                self.leaving.setdefault(node, "no link")

    def _end_lost_learners(self) -> list[Action]:
        """The swap that could have made them members is settled, and did not."""
        lost = [node for node, learner in self.learners.items() if learner.link_lost]
        for node in lost:
            del self.learners[node]
        return [JoinAbort(node) for node in lost]

    def _retry(self, here: Situation, local: LocalCopy, now_s: float) -> list[Action]:
        """Serve who asked while it could not be served, if it has not asked again since."""
        actions: list[Action] = []
        for node, (from_s, want) in list(self.retries.items()):
            if now_s >= from_s and node not in self.learners:
                del self.retries[node]
                actions += self._on_want(want, here, local, now_s)
        return actions

    def _begin_joins(self, here: Situation) -> list[Action]:
        """At most as many learners count as the volume lacks copies."""
        actions: list[Action] = []
        room = here.volume.copies - len(here.volume.in_sync) - sum(
            learner.phase in (Phase.JOINING, Phase.READY) for learner in self.learners.values())
        for node, learner in self.learners.items():
            if learner.phase is Phase.CAUGHT_UP and room > 0:
                learner.phase = Phase.JOINING
                room -= 1
                actions.append(JoinBegin(node))
        return actions

    def _proposal(self, here: Situation) -> VolumeConfig | None:
        smaller = membership.ejected(here.volume, tuple(self.leaving), self.unfit)
        if smaller is not None:
            return smaller
        for learner in self.learners.values():
            if learner.phase is Phase.READY and not learner.link_lost:
                larger = membership.joined(
                    here.volume, here.as_member(learner.identity, self._join_lsn(here)))
                if larger is not None:
                    return larger
        return None

    def _join_lsn(self, here: Situation) -> int:
        return here.volume.lineage[-1].first_lsn

    def _on_want(self, event: Want, here: Situation, local: LocalCopy,
                 now_s: float) -> list[Action]:
        node = event.node
        identity = here.peers.get(node)
        if identity is None or node not in here.volume.placement:
            return []
        self.retries.pop(node, None)
        if here.volume.member(node) is not None:
            return self._on_member_back(event, identity, here, local)
        learner = self.learners.get(node)
        if learner is not None and learner.want == event and \
                now_s - learner.started_s < config.LEARN_AGAIN_S:
            return []                  # said again before it heard from us
        if learner is not None:
            learner.want = event
            return self._forget(node, here, now_s)                              # L5
        common_lsn = membership.common_lsn(
            here.volume, local.last_lsn, event.last_epoch, event.last_lsn)
        if common_lsn is not None and event.learning:
            # a copy that was learning is right only up to where it began; at 0 nothing need be right
            common_lsn = min(common_lsn, event.learn_base) or None
        self.started += 1
        serial = (self.epoch << SERIAL_BITS) + self.started
        self.learners[node] = Learner(identity, serial, event, now_s)
        return [LearnerStart(node, serial, common_lsn or 0, full=common_lsn is None)]

    def _on_member_back(self, event: Want, identity: Identity, here: Situation,
                        local: LocalCopy) -> list[Action]:
        fault = self._resume_fault(event, identity, here, local)
        if fault:
            self._refuse(event.node, here, fault)
            return []
        self.leaving.pop(event.node, None)
        self.unfit.pop(event.node, None)
        return [ResumeMember(event.node, event.last_lsn)]

    def _refuse(self, node: NodeId, here: Situation, fault: str) -> None:
        """A member is back, and cannot go on."""
        member = here.volume.member(node)
        if member is not None:
            self.leaving[node] = fault
            self.unfit[node] = member

    @staticmethod
    def _resume_fault(event: Want, identity: Identity, here: Situation,
                      local: LocalCopy) -> str:
        """Why a returning member may not simply go on (L3); empty when it may."""
        if not here.is_member(identity):
            return "another disk"
        if membership.is_tainted(here.volume, event.node, identity.boot_id):
            return "another boot: what it had not flushed may be gone"
        if event.learning:
            return "its copy is incomplete"
        if event.last_lsn > local.last_lsn:
            return f"its log ends at LSN {event.last_lsn}, ours at {local.last_lsn}"
        # an end below our commit is old news: this disk and boot acknowledged that commit
        return ""

    def _on_silence(self, event: MemberSilent, here: Situation, now_s: float) -> list[Action]:
        node = event.node
        if self._phase(node) in (Phase.JOINING, Phase.READY):
            return self._forget(node, here, now_s)     # acknowledgements wait for it
        if node in self.installed and node in here.peers:
            self.leaving.setdefault(node, "no acknowledgement")
        return []

    def _forget(self, node: NodeId, here: Situation, now_s: float) -> list[Action]:
        """Drop a learner, unless its join may already be in the config (L2)."""
        learner = self.learners.get(node)
        if learner is None:
            return []
        self.retries[node] = (now_s + config.LEARN_AGAIN_S, learner.want)
        if here.swap is not None and here.swap.volume.member(node) is not None:
            learner.link_lost = True
            return []
        del self.learners[node]
        return [JoinAbort(node)]

    def _is_at(self, phase: Phase, node: NodeId, serial: int) -> bool:
        """Whether this node is so far, in the session that is told of (L5)."""
        return self._phase(node) is phase and self.learners[node].serial == serial

    def _phase(self, node: NodeId) -> Phase | None:
        learner = self.learners.get(node)
        return None if learner is None else learner.phase
