"""One volume on one node: events in, actions out. No clock, no socket, no randomness.

    FOLLOWER --- primary dead, or silent for T_grace ---> CANDIDATE
    CANDIDATE --- its swap won ---> LEADER
    any --- the config names another primary or a newer epoch ---> FOLLOWER
    LEADER --- refused by a higher seal (Stale) ---> CANDIDATE, for a new epoch

Rules:
  V1 The config decides the role. A leader leads exactly the epoch whose swap it won in
     this life; a primary that restarted takes a new epoch like any other candidate.
  V2 One swap is in flight at a time. If its outcome is unknown it is sent again as it
     was until the revision has moved: then the config tells who won.
  V3 Only an in-sync member, with the disk that the config names, may be a candidate.
  V4 A follower becomes a candidate at once when the primary's death is proved, else when
     it granted no lease for T_grace; the others of the set stand in line behind the first.
  V5 A fenced node is nobody's primary and takes itself out of the in-sync set, if another
     member is in reach and is not tainted: else it may be the only one that has everything.
  V6 A member whose store was closed cleanly in the boot that the config knows, and in each after it,
     has lost nothing with them. Only it can tell, and it does so by a swap, before it asks anybody for
     anything: until then it counts as tainted. Any older boot than the config's proves nothing.
"""
from __future__ import annotations

from dataclasses import dataclass

from repstore import config
from repstore._fast.layout import BLOCK_SIZE
from repstore.replication import membership
from repstore.replication.actions import (
    Action,
    CreateCopy,
    Follow,
    Lead,
    ReadConfig,
    Seal,
    StepDown,
    Swap,
)
from repstore.replication.engine_control import LocalCopy
from repstore.replication.events import (
    ConfigRead,
    Fenced,
    LinkDown,
    LinkUp,
    NodeDied,
    NodeStarted,
    Outcome,
    PolicyEvent,
    Stale,
    SwapDone,
    Unreadable,
)
from repstore.replication.leadership import Leader
from repstore.replication.promotion import Candidate
from repstore.replication.situation import Identity, Situation
from repstore.replication.volume_config import VolumeConfig


@dataclass
class Follower:
    """A replica, or a would-be learner, of the config's primary."""
    since_s: float
    told: Follow | None = None                 # what the engine was told last
    primary_died_s: float | None = None


Role = Follower | Candidate | Leader


class VolumePolicy:
    """Decides for one volume. `step` is the only input, its actions the only output."""

    def __init__(self, me: Identity, volume: VolumeConfig, revision: int, now_s: float,
                 peers: tuple[Identity, ...] = ()) -> None:
        self.here = Situation(me, volume, revision, {peer.node: peer for peer in peers})
        self.role: Role = Follower(now_s)
        self.fenced = False
        self._seen_epoch = 0               # highest epoch anybody refused us with
        self._resend_swap_s: float | None = None

    def step(self, event: PolicyEvent, local: LocalCopy | None, now_s: float) -> list[Action]:
        """Take in one event and say what follows from it, in order."""
        actions: list[Action] = []
        self._note_links(event)
        match event:
            case ConfigRead():
                actions += self._accept(event.volume, event.revision, now_s)
            case SwapDone():
                actions += self._on_swap_done(event, now_s)
            case Stale():
                actions += self._on_stale(event)
            case Unreadable() if isinstance(self.role, Leader) and self.role.resigns(event, self.here):
                self.role = Follower(now_s)    # our copy says that it is incomplete: it does not stand again
                actions.append(StepDown())
            case Fenced():
                self.fenced = True
        actions += self._take_role(local, now_s)
        if local is not None and not self.fenced:
            actions += self._act(event, local, now_s)
        actions += self._resend(now_s)
        for action in actions:
            if isinstance(action, Swap):
                self.here.swap = action
        return actions

    def _act(self, event: PolicyEvent, local: LocalCopy, now_s: float) -> list[Action]:
        role, here = self.role, self.here
        if isinstance(role, Leader):
            return [*role.on_event(event, here, local, now_s),
                    *role.advance(here, local, now_s)]
        if isinstance(role, Candidate):
            role.on_event(event, here)
            return role.advance(here, local, now_s)
        return []

    # ------------------------------------------------------------------ the config decides
    def _accept(self, volume: VolumeConfig, revision: int, now_s: float) -> list[Action]:
        """A newer config: settles the swap in flight, may change or end our role."""
        here = self.here
        if revision <= here.revision:
            return []
        won = here.swap is not None and volume == here.swap.volume
        new_primary = (volume.epoch, volume.primary) != (here.volume.epoch, here.volume.primary)
        here.swap = None
        here.volume, here.revision = volume, revision
        role = self.role
        if isinstance(role, Follower) and new_primary:
            self.role = Follower(now_s)        # the new one has a full grace period
        if isinstance(role, Leader) and self._is_mine(role.epoch):
            return role.on_config(here)
        if isinstance(role, Candidate) and won and self._is_mine(role.target_epoch):
            return self._begin_to_lead(role)
        return []

    def _is_mine(self, epoch: int) -> bool:
        volume = self.here.volume
        return volume.primary == self.here.me.node and volume.epoch == epoch

    def _begin_to_lead(self, candidate: Candidate) -> list[Action]:
        here, volume = self.here, self.here.volume
        members = candidate.members(volume, here.me.node)
        session = volume.last_session
        self.role = Leader(volume.epoch, tuple(node for node, _ in members), session)
        return [Lead(volume.epoch, volume.incarnation, members, volume.copies, volume.min_copies,
                     volume.acknowledgement == "durable", session)]

    def _take_role(self, local: LocalCopy | None, now_s: float) -> list[Action]:
        """Be what the config says we are."""
        here, role = self.here, self.role
        actions: list[Action] = []
        if local is None:
            return self._create_copy()
        if self.fenced:
            return self._leave(now_s)
        is_member = here.is_member(here.me)
        must_tell_boot = self._must_tell_boot()
        if isinstance(role, Leader):
            if self._is_mine(role.epoch):
                return []
            self.role = role = Follower(now_s)
            actions.append(StepDown())
        elif isinstance(role, Candidate):
            if is_member and here.volume.epoch < role.target_epoch and not must_tell_boot:
                return []
            if role.log_grew(here.me.node, local):
                # a pull ended after another won with our old answer: refuse it once (P6)
                actions.append(Seal(max(local.sealed_epoch, here.volume.epoch) + 1))
            self.role = role = Follower(now_s)
        if must_tell_boot:
            return [*actions, *self._tell_boot(now_s)]
        if is_member and self._may_stand(role, local, now_s):
            self._stand(local, now_s)
            return actions
        return [*actions, *self._follow(role)]

    def _must_tell_boot(self) -> bool:
        """V6."""
        me = self.here.me
        member = self.here.volume.member(me.node)
        return (member is not None and self.here.is_member(me) and self.here.volume.epoch > 0
                and member.boot_id in me.closed_boot_ids and member.boot_id != me.boot_id)

    def _tell_boot(self, now_s: float) -> list[Action]:
        here = self.here
        if here.swap is not None or now_s < here.next_swap_s:
            return []
        return [Swap(membership.rebooted(here.volume, here.me.node, here.me.boot_id), here.revision)]

    def _create_copy(self) -> list[Action]:
        """A node of the placement without a copy makes one, unless it should have data."""
        here, volume = self.here, self.here.volume
        owed = volume.epoch > 0 and here.is_member(here.me)
        if owed or self.fenced or here.me.node not in volume.placement:
            return []
        return [CreateCopy(volume.uuid, volume.name, volume.size_bytes // BLOCK_SIZE)]

    def _follow(self, role: Follower) -> list[Action]:
        volume = self.here.volume
        follow = Follow(volume.epoch, volume.primary, self.here.is_member(self.here.me))
        if volume.epoch == 0 or volume.primary == self.here.me.node or follow == role.told:
            return []
        role.told = follow
        return [follow]

    def _leave(self, now_s: float) -> list[Action]:
        """Fenced (V5): lead nothing, and let the others go on without us."""
        here = self.here
        actions: list[Action] = []
        if not isinstance(self.role, Follower):
            self.role = Follower(now_s)
            actions.append(StepDown())
        smaller = membership.ejected(here.volume, (here.me.node,))
        if smaller is not None and self._can_be_spared() and here.swap is None and now_s >= here.next_swap_s:
            actions.append(Swap(smaller, here.revision))
        return actions

    def _can_be_spared(self) -> bool:
        """Whether some other member is known to hold everything acknowledged."""
        here = self.here
        return any(here.is_member(peer) and not membership.is_tainted(here.volume, peer.node, peer.boot_id)
                   for peer in here.peers.values())

    # ------------------------------------------------------------------------ standing up
    def _may_stand(self, role: Follower, local: LocalCopy, now_s: float) -> bool:
        """V4; a copy that is learning never does."""
        here = self.here
        if local.learning:
            return False
        if here.volume.primary == here.me.node:
            return True
        granted_s = max(local.last_grant_s, role.since_s)
        free_s = granted_s + config.GRACE_S
        if here.volume.primary not in here.dead:
            role.primary_died_s = None
        elif role.primary_died_s is None:
            role.primary_died_s = now_s
        if role.primary_died_s is not None:
            free_s = min(free_s, role.primary_died_s)
        return now_s >= free_s + self._place_in_line() * config.CANDIDATE_STAGGER_S

    def _place_in_line(self) -> int:
        here = self.here
        alive = [node for node in here.volume.in_sync_nodes()
                 if node != here.volume.primary and node not in here.dead]
        return alive.index(here.me.node)

    def _stand(self, local: LocalCopy, now_s: float) -> None:
        target = max(self.here.volume.epoch, local.sealed_epoch, self._seen_epoch) + 1
        self.role = Candidate(target, now_s)

    def _on_stale(self, event: Stale) -> list[Action]:
        self._seen_epoch = max(self._seen_epoch, event.epoch)
        if isinstance(self.role, Leader) and event.epoch > self.role.epoch:
            # the config may still name us: then we take a new epoch above that seal
            self.role = Follower(0.0)
            return [StepDown(), ReadConfig()]
        return [ReadConfig()]

    # ------------------------------------------------------------------------------ swaps
    def _on_swap_done(self, event: SwapDone, now_s: float) -> list[Action]:
        here = self.here
        if here.swap is None:
            return []
        match event.outcome:
            case Outcome.WON:
                return self._accept(here.swap.volume, event.revision, now_s)
            case Outcome.LOST:
                # still in flight until the read tells whose config it is (V2)
                here.next_swap_s = now_s + config.SWAP_AGAIN_S
                self._resend_swap_s = now_s + config.SWAP_AGAIN_S
                return [ReadConfig()]
            case Outcome.UNKNOWN:
                self._resend_swap_s = now_s + config.SWAP_AGAIN_S
            case Outcome.UNAVAILABLE:
                if self._resend_swap_s is None:
                    here.swap = None           # never sent before: certainly not done
                    here.next_swap_s = now_s + config.SWAP_AGAIN_S
                else:
                    self._resend_swap_s = now_s + config.SWAP_AGAIN_S
        return []

    def _resend(self, now_s: float) -> list[Action]:
        if self.here.swap is None:
            self._resend_swap_s = None
        elif self._resend_swap_s is not None and now_s >= self._resend_swap_s:
            return [self.here.swap]
        return []

    # ------------------------------------------------------------------------------ links
    def _note_links(self, event: PolicyEvent) -> None:
        here = self.here
        match event:
            case LinkUp():
                here.peers[event.node] = Identity(event.node, event.store_uuid, event.boot_id)
                here.dead.discard(event.node)
            case LinkDown():
                here.peers.pop(event.node, None)
            case NodeDied():
                here.dead.add(event.node)
            case NodeStarted():
                here.dead.discard(event.node)
