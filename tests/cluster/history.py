"""Which content of each block is legal, by what a client asked and was told.

Every block written is one 32-byte stamp over and over: magic, sequence number of the write,
block number, and their sum. A torn, misplaced or mixed block shows.

  1. A write may take effect at any moment between `begun` and `ended`. Acknowledged, it ended
     with its reply. A write whose connection was lost ends when the next attach stands, for
     that one puts an end to the old session; it may have happened or not.
  2. A value is dead as soon as another write is known to have happened (acknowledged, or seen
     by a read) that began after the value's own write had ended. What is not dead is legal.
  3. A read may also bring what was legal when it began, or was begun while it ran.

This judges every read at once, and a little too kindly. With a `recorder` the same is written
down for `repstore check history`, which judges all of it, exactly.
"""
from __future__ import annotations

import math
import struct
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from repstore.check.recorder import Operation, Recorder

BLOCK_BYTES = 4096
STAMP = struct.Struct("<QQQQ")
STAMP_MAGIC = 0x7065_7374_6F72_6531
STAMPS_PER_BLOCK = BLOCK_BYTES // STAMP.size
ZEROS = 0                    # the value of a block that was trimmed or never written
NOBODYS = 2**63              # recorded for a block that holds nothing that was ever written


def content(value: int, first_block: int, count: int) -> bytes:
    """What write number `value` puts into some blocks."""
    if value == ZEROS:
        return bytes(count * BLOCK_BYTES)
    return b"".join(STAMP.pack(STAMP_MAGIC, value, block, STAMP_MAGIC + value + block) * STAMPS_PER_BLOCK
                    for block in range(first_block, first_block + count))


def values(data: bytes, first_block: int) -> list[int | str]:
    """The value of each block read; a text where the block is nothing that was ever written."""
    stamps = np.frombuffer(data, "<u8").reshape(-1, STAMPS_PER_BLOCK, 4)
    whole = (stamps == stamps[:, :1, :]).all(axis=(1, 2))
    found: list[int | str] = []
    for i, (magic, value, block, total) in enumerate(stamps[:, 0, :].tolist()):
        if not whole[i]:
            found.append(f"a mix of {len(np.unique(stamps[i], axis=0))} stamps")
        elif magic == value == block == total == 0:
            found.append(ZEROS)
        elif magic != STAMP_MAGIC or total != magic + value + block:
            found.append("bytes that nobody wrote")
        elif block != first_block + i:
            found.append(f"write {value} of block {block}")
        else:
            found.append(value)
    return found


@dataclass(slots=True, eq=False)
class Write:
    """One write of `value` to some blocks; times are ticks of the history."""

    value: int
    first_block: int
    count: int
    begun: int
    ended: float = math.inf
    recorded: Operation | None = None


@dataclass(slots=True, eq=False)
class Read:
    """A read under way, and for each of its blocks what it may bring (rule 3)."""

    first_block: int
    legal: list[set[int]]
    recorded: Operation | None = None


@dataclass
class History:
    """The legal values of all blocks of a volume. One thread."""

    blocks: int
    recorder: Recorder | None = None
    acknowledged: int = 0
    _tick: int = 0
    _sequence: int = 0
    _candidates: list[list[Write]] = field(default_factory=list)
    _lost: list[Write] = field(default_factory=list)
    _reads: set[Read] = field(default_factory=set)

    def __post_init__(self) -> None:
        beginning = Write(ZEROS, 0, self.blocks, 0, 0)
        self._candidates = [[beginning] for _ in range(self.blocks)]

    def begin_write(self, first_block: int, count: int, *, zeros: bool = False) -> Write:
        """A write is about to be sent."""
        self._tick += 1
        self._sequence += 1
        value = ZEROS if zeros else self._sequence
        write = Write(value, first_block, count, self._tick)
        write.recorded = self._record("write", first_block, count)
        if write.recorded is not None:
            write.recorded.values = [value] * count
        for block in range(first_block, first_block + count):
            self._candidates[block].append(write)
            for read in self._reads:
                if 0 <= block - read.first_block < len(read.legal):
                    read.legal[block - read.first_block].add(write.value)
        return write

    def acknowledge(self, write: Write) -> None:
        """Its reply came, without an error."""
        self._tick += 1
        self.acknowledged += 1
        write.ended = self._tick
        if write.recorded is not None:
            write.recorded.done()
        for block in range(write.first_block, write.first_block + write.count):
            self._happened(block, write.begun)

    def lose_connection(self, writes: list[Write]) -> None:
        """These were under way; they end when `attached_again` is called. Reads are void."""
        self._lost += writes
        self._reads.clear()

    def attached_again(self) -> None:
        """A new session stands: nothing of the old one can happen any more."""
        self._tick += 1
        for write in self._lost:
            write.ended = self._tick
            if write.recorded is not None:
                write.recorded.over()
        self._lost.clear()

    def begin_read(self, first_block: int, count: int) -> Read:
        """A read is about to be sent."""
        read = Read(first_block, [{write.value for write in self._candidates[block]}
                                  for block in range(first_block, first_block + count)],
                    self._record("read", first_block, count))
        self._reads.add(read)
        return read

    def end_read(self, read: Read, data: bytes) -> list[str]:
        """It brought `data`. Returns what is wrong with it."""
        self._reads.discard(read)
        wrong = []
        found = values(data, read.first_block)
        if read.recorded is not None:
            read.recorded.values = [NOBODYS if isinstance(value, str) else value for value in found]
            read.recorded.done()
        for i, value in enumerate(found):
            block = read.first_block + i
            if value not in read.legal[i]:
                wrong.append(self._complaint(block, value, read.legal[i]))
            elif value != ZEROS:
                self._seen(block, value)
        return wrong

    def check(self, first_block: int, data: bytes) -> list[str]:
        """What is wrong with content that was read while nothing was under way."""
        return self.end_read(self.begin_read(first_block, len(data) // BLOCK_BYTES), data)

    def _record(self, kind: Literal["read", "write"], first_block: int, count: int) -> Operation | None:
        if self.recorder is None:
            return None
        return self.recorder.begin(0, kind, first_block * BLOCK_BYTES, count * BLOCK_BYTES)

    def _seen(self, block: int, value: int | str) -> None:
        for write in self._candidates[block]:
            if write.value == value:
                self._happened(block, write.begun)
                return

    def _happened(self, block: int, begun: int) -> None:
        """A write that began then has happened: older ones that ended before are dead."""
        self._candidates[block] = [write for write in self._candidates[block] if write.ended >= begun]

    def _complaint(self, block: int, value: int | str, legal: set[int]) -> str:
        found = value if isinstance(value, str) else "zeros" if value == ZEROS else f"write {value}"
        return f"block {block}: found {found}, legal are writes {sorted(legal)} (0: zeros)"
