"""The seam to the native engine: what the control plane may ask of it.

Every verb returns at once (creating and deleting a copy block for milliseconds and are
durable when they return); what takes time is answered by an event (see `events`). The
simulator and the tests put other engines behind this protocol.
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

EngineEvent = tuple[object, ...]


class LocalCopy(Protocol):
    """The engine's view of its own copy of a volume (a named tuple in the engine)."""

    @property
    def index(self) -> int: ...
    @property
    def lineage(self) -> tuple[tuple[int, int], ...]:
        """(epoch, first LSN) of the epochs whose records are in its log; may lack the newest
        while nothing of it is committed, never lists one without a record."""
    @property
    def sealed_epoch(self) -> int:
        """Frames of lower epochs are refused."""
    @property
    def last_lsn(self) -> int: ...
    @property
    def commit_lsn(self) -> int: ...
    @property
    def learning(self) -> bool:
        """Its map is incomplete, or its disk does not give back a record of its log that nobody has
        committed: this copy may neither lead nor count."""
    @property
    def last_grant_s(self) -> float:
        """When this replica last let the primary read from its own disk (boot clock)."""


class EngineControl(Protocol):
    """One engine. Thread-safe; nodes are numbers, volumes are their cluster-wide index."""

    @property
    def event_fd(self) -> int:
        """Readable when events wait."""

    def events(self) -> list[EngineEvent]:
        """Takes all waiting events, oldest first."""

    def connect_peer(self, node_id: int, socket_fd: int) -> None:
        """Hands over a connected socket; `link_up` follows."""

    # the local copies
    def volume_indexes(self) -> list[int]: ...
    def volume_state(self, index: int) -> LocalCopy: ...
    def volume_create(self, index: int, uuid: str, name: str, size_blocks: int) -> None:
        """Make an empty copy, durably. After an error it may be there, not durable yet: ask again."""

    def volume_delete(self, index: int) -> None: ...

    # promotion
    def seal(self, index: int, epoch: int) -> None:
        """Refuse lower epochs, durably; `sealed` follows."""

    def seal_peer(self, index: int, epoch: int, node_id: int) -> None:
        """Ask a peer for the same; `sealed` follows if it hears us."""

    def pull(self, index: int, node_id: int) -> None:
        """Fetch that member's records above our last; `pulled` follows."""

    def lead(self, index: int, epoch: int, incarnation: int, members: list[tuple[int, int]],
             copies: int, min_copies: int, durable: bool, session: int) -> None:
        """Be primary; `members` are (node, last LSN) and get the tail they lack first."""

    # roles
    def follow(self, index: int, epoch: int, primary_node_id: int, member: bool) -> None: ...
    def step_down(self, index: int) -> None: ...

    # the primary's members
    def set_members(self, index: int, members: list[int]) -> None:
        """The in-sync set as the config now has it, ourselves not listed."""

    def resume_member(self, index: int, node_id: int, last_lsn: int) -> None: ...
    def learner_start(self, index: int, node_id: int, serial: int, common_lsn: int, full: bool) -> None:
        """Bring a copy up to date; `learner_caught_up` with this serial follows."""

    def join_begin(self, index: int, node_id: int) -> None:
        """From now on acknowledgements and flushes need this learner too."""

    def join_abort(self, index: int, node_id: int) -> None: ...
    def set_session(self, index: int, session: int) -> None:
        """Admit requests of this attach session, refuse older ones."""

    # frontends
    def export_install(self, index: int, name: str, size_bytes: int, session: int) -> int: ...
    def export_awaited(self, name: str) -> bool:
        """Does a connection wait for this volume still?"""

    def export_refuse(self, name: str, errno: int) -> None: ...
    def export_describe(self, name: str, size_bytes: int, errno: int = 0) -> None: ...
    def export_revoke(self, index: int, errno: int) -> None: ...
    def set_primary(self, index: int, node_id: int, epoch: int) -> None:
        """Where frontends send this volume's requests; -1: hold them."""

    def set_export_names(self, names: Sequence[str]) -> None:
        """What frontends list."""
