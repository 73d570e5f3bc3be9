"""What one client asked for and was told, in the form that `check.history` judges.

The simulator's own expectation knows the cluster's promises; the history checker knows nothing but
blocks, intervals and incarnations. Each would find what the other one overlooks. Times are the
numbers of the client's events, so no two are the same.
"""
from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from repstore._fast.history_lines import KINDS, NEVER_TIME, OPERATION_DTYPE
from repstore.check.history import Verdict, check
from repstore.check.history_file import HISTORY_VERSION, Header, History

READ, WRITE, ZERO, FLUSH, CRASH = (KINDS.index(kind) for kind in ("read", "write", "zero", "flush", "crash"))


@dataclass(slots=True)
class Line:
    """An operation, or a crash; one that has no `end` was never answered."""
    kind: int
    begin: int
    first: int = 0
    blocks: int = 0
    fua: bool = False
    values: list[int] = field(default_factory=list)      # of a write, and of a read that was answered
    end: int = NEVER_TIME
    error: int = 0


class ClientHistory:
    """Lines in the order they began. The volume is all zeros at first."""

    def __init__(self, size_blocks: int, block_bytes: int) -> None:
        self.lines: list[Line] = []
        self.size_blocks = size_blocks
        self.block_bytes = block_bytes
        self._incarnation: int | None = None

    def attached(self, at: int, incarnation: int) -> None:
        """Whoever finds another incarnation knows that all copies crashed."""
        if self._incarnation is None:
            self._incarnation = incarnation
        elif incarnation != self._incarnation:
            self._incarnation = incarnation
            self.lines.append(Line(CRASH, at, incarnation))

    def verdict(self) -> Verdict:
        """Whether any order of the operations explains the answers."""
        operations = np.zeros(len(self.lines), OPERATION_DTYPE)
        values: list[int] = []
        for row, line in zip(operations, self.lines, strict=True):
            row["begin"], row["end"], row["until"] = line.begin, line.end, NEVER_TIME
            row["block"], row["count"], row["kind"] = line.first, line.blocks, line.kind
            row["error"], row["fua"] = line.error, line.fua
            row["first_value"], row["has_values"] = len(values), bool(line.values)
            values += line.values
        header = Header(HISTORY_VERSION, self.block_bytes, self.size_blocks, initial="zero", incarnation=0)
        return check(History(header, operations, np.array(values, np.uint64)))
