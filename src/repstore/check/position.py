"""How far a check of a store came before it was stopped, kept in a file of the caller's.

  P1 it counts only for the state it was made of: the same store, the same checkpoint, the same
     question. Else the check begins anew
  P2 what was found in the part that is not looked at again is in it, so that the verdict at the
     end is about all of the store
"""
from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from repstore import config, errors
from repstore.check.findings import Finding, Report
from repstore.check.regular_file import read_regular
from repstore.store.superblock import Superblock


class Position(msgspec.Struct, forbid_unknown_fields=True):
    """The segments below `segment` were looked at."""

    kept_by: Literal["repstore check fsck 1"]     # another's file is not taken for one, nor deleted
    of: str = ""                          # which state, and what was asked of it (P1)
    segment: Annotated[int, msgspec.Meta(ge=0)] = 0
    unexplained: list[int] = []           # living blocks in them that no record brought
    findings: list[Finding] = []          # P2
    counts: dict[str, int] = {}
    checked: dict[str, int] = {}

    def begin(self, state: Superblock, store: str, *, data: bool) -> Report:
        """The segments come now: what was found in those that need no second look."""
        asked = "data" if data else "records"
        of = f"{state.store_uuid.hex()} {state.sequence} {state.root_crc:#010x} {asked}"
        if self.of != of or self.segment > state.geometry.segment_count:
            self.of, self.segment, self.unexplained = of, 0, []
            self.findings, self.counts, self.checked = [], {}, {}
        return Report(store, findings=list(self.findings), counts=Counter(self.counts),
                      checked=Counter(self.checked))

    def pass_segment(self, number: int, unexplained: list[int], found: Report) -> None:
        """One more was looked at; `found` is all of them so far."""
        self.segment = number + 1
        self.unexplained += unexplained
        if found.counts != self.counts:
            self.findings, self.counts = list(found.findings), dict(found.counts)
        self.checked = dict(found.checked)


def fresh() -> Position:
    """Nothing was looked at yet."""
    return Position(kept_by="repstore check fsck 1")


def load(path: Path) -> Position:
    """What an interrupted check left at `path`; an empty position if there is nothing. ConfigError, also
    where none could be kept."""
    if not path.exists():
        if not os.access(path.parent, os.W_OK):
            raise errors.ConfigError(f"{path}: no file can be made there")
        return fresh()
    data = read_regular(path, "what an interrupted check left", config.POSITION_BYTES_MAX)
    try:
        return msgspec.json.decode(data, type=Position)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise errors.ConfigError(f"{path}: not what an interrupted check left: {error}") from None


def save(path: Path, position: Position) -> None:
    """Keep it for the same command."""
    path.write_bytes(msgspec.json.encode(position))
