"""A client of a volume that knows what every block may read as.

  W1 A block may read as the newest acknowledged write, or as any write to it whose outcome is
     not known. Whoever has been read is from then on the only one.
  W2 Operations under way at the same time do not share a block, so that W1 decides each read
     alone.
  W3 Every write of a block is different: it carries its number, the same in all 512 words of
     it, so that a block put together from two writes is recognised.
  W4 The only error a client may get is the loss of the node it is connected to.
"""
from __future__ import annotations

import mmap
from dataclasses import dataclass, field
from random import Random

import numpy as np

from repstore._fast.control import IO_FIELDS, Call
from repstore.format import BLOCK_SIZE
from repstore.sim.node import NodeLife
from repstore.sim.trace import Trace

READ, WRITE, TRIM, WRITE_ZEROES, FLUSH = 1, 2, 3, 4, 5      # kinds of a request
KIND_NAMES = {READ: "read", WRITE: "write", TRIM: "trim", WRITE_ZEROES: "zero", FLUSH: "flush"}
KIND_SHARES = {WRITE: 60, READ: 25, TRIM: 5, WRITE_ZEROES: 5, FLUSH: 5}
FUA = 1
FUA_SHARE = 0.05
BLOCKS_MOST = 8               # of one operation
ZEROS = 0                     # stamp of a block without data
IO = np.dtype(list(IO_FIELDS))


def stamped(stamp: int, blocks: int) -> bytes:
    """Blocks that carry the stamps from `stamp` on."""
    stamps = np.arange(stamp, stamp + blocks, dtype=np.uint64)
    return np.repeat(stamps, BLOCK_SIZE // 8).tobytes()


def stamps_of(data: bytes) -> list[int]:
    """The stamps of whole blocks; -1 for a block that was never written like that."""
    words = np.frombuffer(data, np.uint64).reshape(-1, BLOCK_SIZE // 8)
    whole = (words == words[:, :1]).all(axis=1)
    return [int(row[0]) if good else -1 for row, good in zip(words, whole, strict=True)]


@dataclass
class Expectation:
    """What each block may read as, by stamp (W1)."""
    may: dict[int, set[int]] = field(default_factory=dict)

    def of(self, block: int) -> set[int]:
        """Stamps that `block` may read as."""
        return self.may.get(block, {ZEROS})

    def begin(self, block: int, stamp: int) -> None:
        """A write is on its way: from now on it may be there."""
        self.may[block] = self.of(block) | {stamp}

    def settle(self, block: int, stamp: int) -> None:
        """This is what the block holds."""
        self.may[block] = {stamp}


@dataclass(eq=False)
class Operation:
    """One request of a client."""
    kind: int
    first: int                # block
    blocks: int
    stamp: int                # of the first block written
    fua: bool
    memory: mmap.mmap
    ios: np.ndarray[tuple[int], np.dtype[np.void]]
    call: Call | None = None

    def stamp_at(self, i: int) -> int:
        """What block `first + i` holds when this is done."""
        return self.stamp + i if self.kind == WRITE else ZEROS

    def __str__(self) -> str:
        return f"{KIND_NAMES[self.kind]} {self.first}+{self.blocks} stamp {self.stamp}{' fua' * self.fua}"


class SimulatedClient:
    """Keeps `depth` operations under way on one volume through whatever node it is attached to."""

    def __init__(self, index: int, size_blocks: int, depth: int, random: Random, trace: Trace) -> None:
        self.expectation = Expectation()
        self.acknowledged = 0
        self.stopped = False
        self._index = index
        self._size_blocks = size_blocks
        self._depth = depth
        self._random = random
        self._trace = trace
        self._flying: list[Operation] = []
        self._memories: list[mmap.mmap] = []      # to use again: those of answered operations
        self._next_stamp = 1
        self._life: NodeLife | None = None

    @property
    def flying(self) -> int:
        """Operations without an answer."""
        return len(self._flying)

    @property
    def is_attached(self) -> bool:
        """Whether the node it goes through runs."""
        return self._life is not None and self._life.alive

    def attach(self, life: NodeLife) -> None:
        """Go on through this node. What was under way through another has no known outcome."""
        if self._life is not None and self._life.alive:
            self._life.on_progress.remove(self.progress)
        self._flying.clear()
        self._life = life
        life.on_progress.append(self.progress)
        life.run()

    def progress(self) -> bool:
        """Take answers, and ask for more. Whether anything new was asked for."""
        for operation in [operation for operation in self._flying if operation.call and operation.call.done]:
            self._flying.remove(operation)
            self._finish(operation)
            self._memories.append(operation.memory)
        asked = False
        while not self.stopped and len(self._flying) < self._depth and self._submit(self._draw()):
            asked = True
        return asked

    def check_all(self) -> None:
        """Ask for every block; the answers are checked like all reads."""
        assert not self._flying, f"{len(self._flying)} operations are under way"
        for first in range(0, self._size_blocks, BLOCKS_MOST):
            self._submit(self._operation(READ, first, min(BLOCKS_MOST, self._size_blocks - first), False))
        assert self._life is not None
        self._life.run()

    # ------------------------------------------------------------------------------ asking
    def _draw(self) -> Operation:
        kind = self._random.choices(list(KIND_SHARES), list(KIND_SHARES.values()))[0]
        fua = kind not in (READ, FLUSH) and self._random.random() < FUA_SHARE
        if kind == FLUSH:
            return self._operation(kind, 0, 0, fua)
        blocks = self._random.randint(1, BLOCKS_MOST)
        return self._operation(kind, self._random.randint(0, self._size_blocks - blocks), blocks, fua)

    def _operation(self, kind: int, first: int, blocks: int, fua: bool) -> Operation:
        # aligned like a block client's memory: an engine may read into it directly
        memory = self._memories.pop() if self._memories else mmap.mmap(-1, BLOCKS_MOST * BLOCK_SIZE)
        ios = np.zeros(1, IO)
        ios["kind"], ios["flags"] = kind, FUA if fua else 0
        ios["offset"], ios["length"] = first * BLOCK_SIZE, blocks * BLOCK_SIZE
        operation = Operation(kind, first, blocks, self._next_stamp, fua, memory, ios)
        if kind == WRITE:
            memory[:blocks * BLOCK_SIZE] = stamped(operation.stamp, blocks)
            self._next_stamp += blocks
        return operation

    def _submit(self, operation: Operation) -> bool:
        """False: it shares a block with one under way (W2)."""
        span = range(operation.first, operation.first + operation.blocks)
        if any(other.first < span.stop and span.start < other.first + other.blocks for other in self._flying):
            return False
        assert self._life is not None
        operation.ios["export_id"] = self._life.engine.exports[self._index]
        if operation.kind not in (READ, FLUSH):
            for i, block in enumerate(span):
                self.expectation.begin(block, operation.stamp_at(i))
        self._flying.append(operation)
        self._trace.add(self._life.name, f"client asks {operation}")
        operation.call = self._life.engine.start(operation.ios.view(np.uint8).data, operation.memory, 1)
        return True

    # ----------------------------------------------------------------------------- answers
    def _finish(self, operation: Operation) -> None:
        assert self._life is not None
        assert operation.call is not None
        operation.call.end()
        error = int(operation.ios["error"][0])
        self._trace.add(self._life.name, f"client got {operation}: {error}")
        assert error == 0, f"{operation} through {self._life.name} ended with errno {error} (W4)"
        self.acknowledged += 1
        if operation.kind == READ:
            self._check_read(operation)
        elif operation.kind != FLUSH:
            for i in range(operation.blocks):
                self.expectation.settle(operation.first + i, operation.stamp_at(i))

    def _check_read(self, operation: Operation) -> None:
        for i, stamp in enumerate(stamps_of(operation.memory[:operation.blocks * BLOCK_SIZE])):
            block = operation.first + i
            may = self.expectation.of(block)
            assert stamp in may, f"block {block} reads as {stamp}, it may be {sorted(may)} (W1)"
            self.expectation.settle(block, stamp)
