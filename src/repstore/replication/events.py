"""Everything the policy is told, as frozen records; the one place that decodes events.

Three sources: the engine (decoded here from its tuples), the coordination store
(ConfigRead, SwapDone) and the node around the policy (NodeDied, Tick).
"""
from __future__ import annotations

import enum
from dataclasses import dataclass, fields

from repstore.replication.engine_control import EngineEvent
from repstore.replication.volume_config import VolumeConfig


# ------------------------------------------------------------- from the engine, of a volume
@dataclass(frozen=True, slots=True)
class Sealed:
    """`node` refuses epochs below `epoch`, durably, and ends at `last_lsn`."""
    index: int
    node: int
    epoch: int                # higher than asked for: refused
    last_lsn: int
    commit_lsn: int
    chain: int
    learning: bool


@dataclass(frozen=True, slots=True)
class Pulled:
    """We hold `node`'s records up to `last_lsn`."""
    index: int
    node: int
    last_lsn: int


@dataclass(frozen=True, slots=True)
class Want:
    """A copy asks its primary to be served; `last_epoch` assigned its newest record."""
    index: int
    node: int
    last_epoch: int
    last_lsn: int
    chain: int
    learning: bool
    learn_base: int


@dataclass(frozen=True, slots=True)
class LearnerCaughtUp:
    """A learner has all blocks and follows the stream."""
    index: int
    node: int
    serial: int               # of the LearnerStart that it is the end of


@dataclass(frozen=True, slots=True)
class JoinReady:
    """A joining learner has everything and has flushed it."""
    index: int
    node: int
    serial: int               # of its LearnerStart


@dataclass(frozen=True, slots=True)
class MemberSilent:
    """A member does not acknowledge, or its link broke."""
    index: int
    node: int


@dataclass(frozen=True, slots=True)
class Diverged:
    """A copy's log is not a prefix of ours."""
    index: int
    node: int


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Our disk does not give back a record that nobody has committed, and that this member lacks."""
    index: int
    node: int


@dataclass(frozen=True, slots=True)
class ResyncFull:
    """No change bitmap reaches back far enough: every block is copied."""
    index: int
    node: int
    reason: str


@dataclass(frozen=True, slots=True)
class Stale:
    """Somebody refused us: it is sealed at a higher epoch."""
    index: int
    epoch: int


@dataclass(frozen=True, slots=True)
class RequestSession:
    """A request of a newer attach than we know arrived."""
    index: int
    session: int


# ------------------------------------------------------------- from the engine, of the node
@dataclass(frozen=True, slots=True)
class LinkUp:
    """A peer said hello."""
    node: int
    boot_id: str
    store_uuid: str


@dataclass(frozen=True, slots=True)
class LinkDown:
    """The connection to a peer is gone."""
    node: int


@dataclass(frozen=True, slots=True)
class AttachRequest:
    """A frontend of this engine opens a volume by name."""
    request_id: int
    volume_name: str


@dataclass(frozen=True, slots=True)
class DescribeRequest:
    """A frontend of this engine asks what a volume is, and does not open it."""
    request_id: int
    volume_name: str


@dataclass(frozen=True, slots=True)
class Fenced:
    """The store failed and takes no more writes."""
    errno: int
    text: str


@dataclass(frozen=True, slots=True)
class NoSpace:
    """The store is full; writes are refused until space comes back."""


@dataclass(frozen=True, slots=True)
class BadBlock:
    """A block, map page or batch header of the local store is not what was written."""
    index: int
    lba: int
    location: int
    what: str


@dataclass(frozen=True, slots=True)
class MendedBlock:
    """A bad block was written anew with what another copy gave."""
    index: int
    lba: int


@dataclass(frozen=True, slots=True)
class LostBlock:
    """A bad block that no other copy could give: reading it is an error."""
    index: int
    lba: int


# ------------------------------------------------------------------- from around the policy
@dataclass(frozen=True, slots=True)
class ConfigRead:
    """The volume's config as it stands in the coordination store."""
    volume: VolumeConfig
    revision: int


class Outcome(enum.Enum):
    """How a compare-and-swap ended."""
    WON = "won"
    LOST = "lost"                    # the revision had moved on
    UNKNOWN = "unknown"              # it may have happened
    UNAVAILABLE = "unavailable"      # it did not happen, nobody else was first either


@dataclass(frozen=True, slots=True)
class SwapDone:
    """Answer to the Swap that is in flight."""
    outcome: Outcome
    revision: int = 0


@dataclass(frozen=True, slots=True)
class NodeDied:
    """The process that was this node is proved to be gone."""
    node: int


@dataclass(frozen=True, slots=True)
class NodeStarted:
    """It was proved dead, and a new process is this node: the proof says nothing of that one."""
    node: int


@dataclass(frozen=True, slots=True)
class Tick:
    """Time went on."""


VolumeEvent = (Sealed | Pulled | Want | LearnerCaughtUp | JoinReady | MemberSilent | Diverged
               | Unreadable | ResyncFull | Stale | RequestSession)
NodeEvent = (LinkUp | LinkDown | AttachRequest | DescribeRequest | Fenced | NoSpace | BadBlock | MendedBlock
             | LostBlock)
PolicyEvent = (VolumeEvent | LinkUp | LinkDown | Fenced | ConfigRead | SwapDone | NodeDied | NodeStarted
               | Tick)

_BY_NAME: dict[str, type[VolumeEvent | NodeEvent]] = {
    "sealed": Sealed, "pulled": Pulled, "want": Want, "learner_caught_up": LearnerCaughtUp,
    "join_ready": JoinReady, "member_silent": MemberSilent, "diverged": Diverged,
    "unreadable": Unreadable,
    "resync_full": ResyncFull, "stale": Stale, "request_session": RequestSession,
    "link_up": LinkUp, "link_down": LinkDown, "attach": AttachRequest, "describe": DescribeRequest,
    "fenced": Fenced,
    "no_space": NoSpace, "bad_block": BadBlock, "mended_block": MendedBlock, "lost_block": LostBlock,
}


def decode_event(event: EngineEvent) -> VolumeEvent | NodeEvent:
    """The record of an engine's tuple; an unknown one is a bug of ours, not of a peer."""
    kind = _BY_NAME.get(str(event[0])) if event else None
    if kind is None or len(event) - 1 != len(fields(kind)):
        raise AssertionError(f"event {event!r} is not one the engine may send")
    return kind(*event[1:])  # type: ignore[arg-type]
