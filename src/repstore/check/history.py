"""Is what clients were told consistent? The verdict on a history.

    verdict = check_file(Path("run.history"))
    if not verdict.consistent:
        print(verdict.contradiction)

1. Each block is a register of its own; an operation on several is the same interval on each.
2. "Inconsistent" is always proved: no order of the operations explains what was read. Where
   equal values were written at about the same time a read may stay undecided; it is counted.
3. A crash ends what was under way. One that keeps the incarnation (a kill) takes nothing: the
   block is the same register. After one that does not (a power cut) the block holds the last write,
   or one that no durable write is known to have followed. Durable is what the power cut before
   left, what was over when a successful flush since then began, and what was acknowledged with FUA.

The algorithm stands in `_fast/history_zones.pyx`.
"""
from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from repstore import config, errors
from repstore._fast.history_blocks import (
    FLAG_DURABLE,
    FLAG_HAPPENED,
    FLAG_USED,
    blocks_read,
    check_blocks,
)
from repstore._fast.history_findings import FINDING_DTYPE
from repstore._fast.history_lines import KINDS
from repstore.check.history_file import Crashes, History, acknowledged, find_crashes, last_moments, load
from repstore.check.history_story import Contradiction, smallest
from repstore.check.progress import Progress, silent
from repstore.check.regular_file import open_regular

READ, WRITE, ZERO, FLUSH = (KINDS.index(kind) for kind in ("read", "write", "zero", "flush"))


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the check of a history found."""

    consistent: bool
    operations: int
    crashes: int
    blocks_checked: int          # those that were read
    reads_checked: int           # a read of several blocks counts once for each
    undecided_reads: int         # of them: may be of any of several equal writes, so left out
    bad_blocks: int              # blocks with a contradiction
    contradiction: Contradiction | None


def check_file(path: Path, progress: Progress = silent) -> Verdict:
    """Check the history in a file. Raises ConfigError if it is not a usable history."""
    try:
        with open_regular(path, "a history") as file:
            history = _load_unchanged(path, file, progress)
        return check(history, progress)
    except OSError as error:
        raise errors.ConfigError(f"{path}: {error.strerror or error}") from error
    except MemoryError as error:
        raise errors.ConfigError(f"{path}: to check it needs more memory than there is") from error


def _load_unchanged(path: Path, file: BinaryIO, progress: Progress) -> History:
    """Where a file changes meanwhile, that is what is told: not what its lines seemed to lack."""
    before = os.fstat(file.fileno())
    try:
        history = load(file, before.st_size, progress)
    except errors.ConfigError:
        _require_unchanged(path, before, os.fstat(file.fileno()))
        raise
    _require_unchanged(path, before, os.fstat(file.fileno()))
    return history


def _require_unchanged(path: Path, before: os.stat_result, after: os.stat_result) -> None:
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise errors.ConfigError(f"{path}: was written to while it was read: "
                                 "a history is judged when its recording has ended")


def check(history: History, progress: Progress = silent) -> Verdict:
    """Check a history. Raises ConfigError if it claims what cannot have been."""
    crashes = find_crashes(history)
    blocks, reads, findings, bad_blocks, undecided = find(history, crashes, config.HISTORY_FINDINGS_MAX,
                                                          progress)
    contradiction = smallest(history, findings, crashes, progress) if bad_blocks else None
    return Verdict(bad_blocks == 0, len(history.operations), len(crashes.times), blocks, reads, undecided,
                   bad_blocks, contradiction)


def find(history: History, crashes: Crashes, findings_max: int,
         progress: Progress = silent) -> tuple[int, int, NDArray[np.void], int, int]:
    """Blocks and reads that were checked, the first `findings_max` findings, how many blocks
    contradict themselves, and how many reads are undecided."""
    operations = history.operations
    ends = last_moments(operations, crashes)
    power_cuts = crashes.power_cuts()
    segments = power_cuts.before(operations).astype(np.uint16)
    flags = _flags(operations, segments, ends, len(power_cuts.times))
    is_read = (operations["kind"] == READ) & (flags != 0)
    room = int(operations["count"][is_read].sum(dtype=np.uint64))
    seen = blocks_read(operations, flags, history.values, room)
    blocks = np.unique(seen)
    if len(blocks) == 0:
        return 0, 0, np.empty(0, FINDING_DTYPE), 0, 0
    findings, bad_blocks, undecided = check_blocks(
        operations, flags, segments, ends, history.values, blocks, history.header.initial == "zero",
        config.HISTORY_ENTRIES_MAX, findings_max, config.HISTORY_PORTION_ENTRIES, progress)
    if findings is None:
        raise errors.ConfigError(f"not a usable history: more than {config.HISTORY_ENTRIES_MAX} operations "
                                 "on single blocks that were read")
    return len(blocks), len(seen), findings, bad_blocks, undecided


def _flags(operations: NDArray[np.void], segments: NDArray[np.uint16], ends: NDArray[np.int64],
           power_cuts: int) -> NDArray[np.uint8]:
    """What the kernel wants to know of each operation."""
    kind = operations["kind"]
    answered = acknowledged(operations)
    is_write = (kind == WRITE) | (kind == ZERO)
    used = is_write | ((kind == READ) & answered)
    flags: NDArray[np.uint8] = used * np.uint8(FLAG_USED) | (used & answered) * np.uint8(FLAG_HAPPENED)
    if power_cuts:
        covered_until = np.full(power_cuts + 1, -1, np.int64)       # by segment: the last flush
        flushes = answered & (kind == FLUSH)
        np.maximum.at(covered_until, segments[flushes], operations["begin"][flushes])
        durable = (answered & (operations["fua"] != 0)) | (ends < covered_until[segments])
        flags |= (is_write & durable) * np.uint8(FLAG_DURABLE)
    return flags
