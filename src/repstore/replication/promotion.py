"""Taking over a volume: the candidate.

  P1 R-seal: nothing is proposed before our own seal at the target epoch is durable, and
     only members that sealed at exactly that epoch count as having answered.
  P2 Adopting the longest clean tail among the answers is mandatory: it may hold
     acknowledged writes of the sort that only some members know to be committed.
  P3 A member whose log is not a prefix of the adopted one leaves the in-sync set; so
     does a tainted one while a clean one leads. Both come back as learners.
  P4 R-taint: a tainted copy leads only when every in-sync member said it is tainted or
     its disk is gone; then the incarnation grows.
  P5 Below min_copies nobody leads while a member is silent. If all have answered, those
     that do not count can only come back as learners of a leader: then one leads, and
     the engine acknowledges nothing until enough have joined.
  P6 Our log does not change under a seal that others may have been told of: once a pull has
     made it longer we seal again, at a higher epoch, before anything else. Otherwise another
     candidate could win with our old answer, and take our flush for one of its records.
  P7 Another's seal at a higher epoch never wedges us: we move to that epoch. Two
     candidates may share an epoch; the swap lets one of them win it.
  P8 A grant that was given between our look at the last one and our own seal still lets the old
     primary read: sealed, we give no more, so we look again, and wait T_grace from there.

`decide` is the whole decision as a pure function; Candidate asks, collects, retries.
"""
from __future__ import annotations

from dataclasses import dataclass, field, replace

from repstore import config
from repstore.replication import membership
from repstore.replication.actions import Action, Pull, Seal, SealPeer, Swap
from repstore.replication.engine_control import LocalCopy
from repstore.replication.events import Diverged, LinkDown, PolicyEvent, Pulled, Sealed
from repstore.replication.situation import Situation
from repstore.replication.volume_config import Member, NodeId, VolumeConfig


@dataclass(frozen=True, slots=True)
class Report:
    """What a member told when it sealed, and who it is now."""
    node: NodeId
    last_lsn: int
    commit_lsn: int = 0
    chain: int = 0
    learning: bool = False
    tainted: bool = False     # another boot than the config's
    lost: bool = False        # another disk than the config's, or another history than ours


@dataclass(frozen=True, slots=True)
class Wait:
    """Not yet, and why."""
    reason: str


@dataclass(frozen=True, slots=True)
class Adopt:
    """First fetch the longer tail of this member."""
    node: NodeId


@dataclass(frozen=True, slots=True)
class Win:
    """Propose ourselves with these other members."""
    members: tuple[NodeId, ...]
    tainted: bool


def decide(volume: VolumeConfig, me: NodeId, reports: dict[NodeId, Report],
           gathering: bool) -> Wait | Adopt | Win:
    """What the answers so far allow. `gathering`: members that may still answer soon are
    waited for, so that they need not come back as learners."""
    silent = [node for node in volume.in_sync_nodes() if node not in reports]
    if gathering and silent:
        return Wait(f"for the answers of {silent}")
    whole = [reports[node] for node in volume.in_sync_nodes() if node in reports
             and not reports[node].learning and not reports[node].lost]
    clean = [report for report in whole if not report.tainted]
    if me not in [report.node for report in whole]:
        return Wait("our own copy is incomplete")
    mine = reports[me]
    if clean and mine.tainted:
        return Wait(f"a clean member must lead: {[report.node for report in clean]}")
    if not clean and silent:
        return Wait(f"all that answered are tainted; {silent} may be clean")
    equals = clean or whole
    longest = max(equals, key=lambda report: (report.last_lsn, report.node == me))
    if longest.last_lsn > mine.last_lsn:
        return Adopt(longest.node)
    members = tuple(report.node for report in equals
                    if report.node != me and _is_prefix(report, mine))
    if 1 + len(members) < volume.min_copies and silent:
        return Wait(f"{1 + len(members)} copies answered, min_copies is {volume.min_copies}")
    return Win(members, tainted=not clean)


def _is_prefix(report: Report, mine: Report) -> bool:
    """Whether our pending records can complete this member's log."""
    if report.last_lsn == mine.last_lsn:
        return report.chain == mine.chain
    return mine.commit_lsn <= report.last_lsn <= mine.last_lsn


@dataclass
class Candidate:
    """One attempt to take over; lives until the config changes hands."""
    target_epoch: int
    started_s: float
    reports: dict[NodeId, Report] = field(default_factory=dict)
    asked_s: dict[NodeId, float] = field(default_factory=dict)
    pulling: NodeId | None = None
    diverged: set[NodeId] = field(default_factory=set)    # their tail does not fit ours
    proposed: dict[NodeId, int] = field(default_factory=dict)     # last LSNs when we did
    waiting_for: str = "our own seal"

    def on_event(self, event: PolicyEvent, here: Situation) -> None:
        """Take in an answer; `advance` draws the conclusions."""
        if isinstance(event, Sealed):
            self._on_sealed(event, here)
        elif isinstance(event, Pulled) and event.node == self.pulling:
            self.pulling = None
            if event.last_lsn < self.reports[event.node].last_lsn:
                self._drop(event.node)
        elif isinstance(event, Diverged):
            # both are clean, so what differs was acknowledged by neither
            self.diverged.add(event.node)
            self._drop(event.node)
        elif isinstance(event, LinkDown):
            # what it told may be outdated when it is back: it is asked again
            self._drop(event.node)

    def advance(self, here: Situation, local: LocalCopy, now_s: float) -> list[Action]:
        """The next steps: seal, ask, pull, or propose."""
        self._judge(here)
        self._move_up(local.sealed_epoch)            # another candidate sealed us meanwhile
        if self.log_grew(here.me.node, local):
            self._move_up(self.target_epoch + 1)     # P6
        actions = self._ask(here, now_s)
        if here.me.node not in self.reports or self.pulling is not None or here.swap is not None:
            return actions
        decision = decide(here.volume, here.me.node, self.reports, self._gathering(here, now_s))
        if isinstance(decision, Wait):
            self.waiting_for = decision.reason
        elif isinstance(decision, Adopt):
            self.pulling = decision.node
            self.waiting_for = f"the tail of node {decision.node}"
            self.asked_s[decision.node] = now_s
            actions.append(Pull(decision.node))
        elif self._is_lent(here, local, now_s):
            self.waiting_for = f"the grant of node {here.volume.primary} to end"
        elif now_s >= here.next_swap_s:
            self.proposed = {node: self.reports[node].last_lsn for node in decision.members}
            actions.append(Swap(self._proposal(decision, here, local), here.revision))
        return actions

    def members(self, volume: VolumeConfig, me: NodeId) -> tuple[tuple[NodeId, int], ...]:
        """The other members of the epoch we won, with the last LSN they told."""
        return tuple((node, self.proposed[node])
                     for node in volume.in_sync_nodes() if node != me)

    def log_grew(self, me: NodeId, local: LocalCopy) -> bool:
        """Whether our log is not the one that we told when we sealed."""
        return me in self.reports and local.last_lsn > self.reports[me].last_lsn

    def _on_sealed(self, event: Sealed, here: Situation) -> None:
        self._move_up(event.epoch)
        member = here.volume.member(event.node)
        identity = here.identity_of(event.node)
        if event.epoch < self.target_epoch or member is None or identity is None:
            return
        self.reports[event.node] = Report(
            event.node, event.last_lsn, event.commit_lsn, event.chain, event.learning,
            lost=identity.store_uuid != member.store_uuid or event.node in self.diverged)

    def _judge(self, here: Situation) -> None:
        """Who is tainted, by the config as it is now: a member may have told of its boot since (V6)."""
        for node, report in self.reports.items():
            identity = here.identity_of(node)
            if identity is not None:
                self.reports[node] = replace(
                    report, tainted=membership.is_tainted(here.volume, node, identity.boot_id))

    def _move_up(self, epoch: int) -> None:
        """P7: all answers so far were to a lower epoch."""
        if epoch > self.target_epoch:
            self.target_epoch = epoch
            self.reports.clear()
            self.asked_s.clear()
            self.pulling = None

    def _ask(self, here: Situation, now_s: float) -> list[Action]:
        """Seal ourselves first, then everybody in reach; again until they answer."""
        me = here.me.node
        actions: list[Action] = []
        self._give_up_pull(now_s)
        if me not in self.reports:
            if self._may_ask(me, now_s):
                actions.append(Seal(self.target_epoch))
            return actions
        for node in here.volume.in_sync_nodes():
            if node not in self.reports and node in here.peers and self._may_ask(node, now_s):
                actions.append(SealPeer(self.target_epoch, node))
        return actions

    def _may_ask(self, node: NodeId, now_s: float) -> bool:
        if now_s - self.asked_s.get(node, -config.ASK_AGAIN_S) < config.ASK_AGAIN_S:
            return False
        self.asked_s[node] = now_s
        return True

    def _give_up_pull(self, now_s: float) -> None:
        node = self.pulling
        if node is not None and now_s - self.asked_s[node] > config.PULL_TIMEOUT_S:
            self._drop(node)

    def _drop(self, node: NodeId) -> None:
        self.reports.pop(node, None)
        self.asked_s.pop(node, None)
        if self.pulling == node:
            self.pulling = None

    def _is_lent(self, here: Situation, local: LocalCopy, now_s: float) -> bool:
        """Whether the primary may read by a grant of ours (P8); not if it sealed too, or is dead."""
        primary = here.volume.primary
        return (primary not in self.reports and primary not in here.dead
                and now_s < local.last_grant_s + config.GRACE_S)

    def _gathering(self, here: Situation, now_s: float) -> bool:
        """Whether somebody who did not answer yet is worth waiting for."""
        if now_s - self.started_s >= config.PROMOTION_GATHER_S:
            return False
        absent = here.dead.union(
            () if here.volume.primary in here.peers else (here.volume.primary,))
        return any(node not in self.reports and node not in absent
                   for node in here.volume.in_sync_nodes())

    def _proposal(self, win: Win, here: Situation, local: LocalCopy) -> VolumeConfig:
        volume = here.volume
        members = []
        for member in volume.in_sync:
            identity = here.identity_of(member.node)
            if identity is not None and (member.node == here.me.node
                                         or member.node in win.members):
                members.append(Member(member.node, identity.store_uuid, identity.boot_id,
                                      member.join_lsn))
        last_epoch = local.lineage[-1][0] if local.lineage else 0
        return membership.promoted(volume, self.target_epoch, here.me.node, tuple(members),
                                   local.last_lsn, last_epoch, tainted=win.tainted)
