"""Everything the policy may ask for. Carried out in order, each before the next.

An EngineAction knows the one engine verb it stands for. The others (Swap, ReadConfig)
go to the coordination store and are answered by SwapDone and ConfigRead.
"""
from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from repstore.replication.engine_control import EngineControl
from repstore.replication.volume_config import VolumeConfig


class EngineAction(Protocol):
    """One verb of the engine, with its arguments."""

    def run(self, engine: EngineControl, index: int) -> None:
        """Ask the engine for it, for volume `index`."""


@dataclass(frozen=True, slots=True)
class Swap:
    """Write `volume` if the config is still at `expected_revision`."""
    volume: VolumeConfig
    expected_revision: int


@dataclass(frozen=True, slots=True)
class ReadConfig:
    """Read the config again."""


@dataclass(frozen=True, slots=True)
class CreateCopy:
    """Make an empty local copy."""
    uuid: str
    name: str
    size_blocks: int

    def run(self, engine: EngineControl, index: int) -> None:
        engine.volume_create(index, self.uuid, self.name, self.size_blocks)


@dataclass(frozen=True, slots=True)
class Seal:
    """Refuse lower epochs here."""
    epoch: int

    def run(self, engine: EngineControl, index: int) -> None:
        engine.seal(index, self.epoch)


@dataclass(frozen=True, slots=True)
class SealPeer:
    """Ask a member to refuse lower epochs and to tell where its log ends."""
    epoch: int
    node: int

    def run(self, engine: EngineControl, index: int) -> None:
        engine.seal_peer(index, self.epoch, self.node)


@dataclass(frozen=True, slots=True)
class Pull:
    """Fetch the tail that `node` has and we lack."""
    node: int

    def run(self, engine: EngineControl, index: int) -> None:
        engine.pull(index, self.node)


@dataclass(frozen=True, slots=True)
class Lead:
    """Be primary from now on."""
    epoch: int
    incarnation: int
    members: tuple[tuple[int, int], ...]      # (node, last LSN it told when sealed)
    copies: int
    min_copies: int
    durable: bool
    session: int

    def run(self, engine: EngineControl, index: int) -> None:
        engine.lead(index, self.epoch, self.incarnation, list(self.members),
                    self.copies, self.min_copies, self.durable, self.session)


@dataclass(frozen=True, slots=True)
class Follow:
    """Be a replica of `primary`: in-sync member, or would-be learner."""
    epoch: int
    primary: int
    member: bool

    def run(self, engine: EngineControl, index: int) -> None:
        engine.follow(index, self.epoch, self.primary, self.member)


@dataclass(frozen=True, slots=True)
class StepDown:
    """Hold all requests until a primary is known."""

    def run(self, engine: EngineControl, index: int) -> None:
        engine.step_down(index)


@dataclass(frozen=True, slots=True)
class SetMembers:
    """The in-sync set without ourselves, after the config changed."""
    members: tuple[int, ...]

    def run(self, engine: EngineControl, index: int) -> None:
        engine.set_members(index, list(self.members))


@dataclass(frozen=True, slots=True)
class ResumeMember:
    """A member is back before it was ejected: go on behind its last LSN."""
    node: int
    last_lsn: int

    def run(self, engine: EngineControl, index: int) -> None:
        engine.resume_member(index, self.node, self.last_lsn)


@dataclass(frozen=True, slots=True)
class LearnerStart:
    """Bring a copy up to date from the newest LSN both logs share."""
    node: int
    serial: int
    common_lsn: int
    full: bool

    def run(self, engine: EngineControl, index: int) -> None:
        engine.learner_start(index, self.node, self.serial, self.common_lsn, self.full)


@dataclass(frozen=True, slots=True)
class JoinBegin:
    """Acknowledgements need this learner too."""
    node: int

    def run(self, engine: EngineControl, index: int) -> None:
        engine.join_begin(index, self.node)


@dataclass(frozen=True, slots=True)
class JoinAbort:
    """This learner does not count; forget it until it asks again."""
    node: int

    def run(self, engine: EngineControl, index: int) -> None:
        engine.join_abort(index, self.node)


@dataclass(frozen=True, slots=True)
class SetSession:
    """Admit the requests of this attach."""
    session: int

    def run(self, engine: EngineControl, index: int) -> None:
        engine.set_session(index, self.session)


StoreAction = Swap | ReadConfig
Action = EngineAction | StoreAction
