"""A client of a volume that knows what every block may read as (`expectation`).

  C1 Operations under way at the same time share a block only where the client was made for it. What
     two writes that met leave is not known before a read that meets no write; what a read that met one
     returns, the history decides.
  C2 Every write of a block is different: it carries its number, the same in every word of it, so that
     a block put together from two writes is recognised.
  C3 An error is an answer only where one was due: EIO of a block that was damaged, a refusal of
     a session that is over. Anything else is a fault of ours (W4).
  C4 What a client calls a block is its own unit: a whole block of the volume, or a sector of one. A
     volume never completes a sector's block with a neighbour's old content, though two change at once.
"""
from __future__ import annotations

import errno
import mmap
import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from random import Random

import numpy as np

from repstore._fast.waiting import IO_FIELDS, Call
from repstore.format import BLOCK_SIZE
from repstore.sim import history
from repstore.sim.expectation import ZEROS, Expectation
from repstore.sim.history import ClientHistory, Line
from repstore.sim.node import NodeLife
from repstore.sim.trace import Trace

READ, WRITE, TRIM, WRITE_ZEROES, FLUSH = 1, 2, 3, 4, 5      # kinds of a request
KIND_NAMES = {READ: "read", WRITE: "write", TRIM: "trim", WRITE_ZEROES: "zero", FLUSH: "flush"}
KIND_SHARES = {WRITE: 60, READ: 25, TRIM: 5, WRITE_ZEROES: 5, FLUSH: 5}
FUA = 1
FUA_SHARE = 0.05
BLOCKS_MOST = 8               # of one operation, usually
LARGE_BLOCKS_MOST = 64        # of any: 256 KiB
IO = np.dtype(list(IO_FIELDS))
IO_STRUCT = struct.Struct("<BBHIQIiQ")
ERROR_OFFSET = 20             # of `error` in it
SESSION_OVER = (errno.ESTALE, errno.ESHUTDOWN)
HISTORY_KINDS = {READ: history.READ, WRITE: history.WRITE, TRIM: history.ZERO, WRITE_ZEROES: history.ZERO,
                 FLUSH: history.FLUSH}


def stamped(stamp: int, blocks: int, block_bytes: int = BLOCK_SIZE) -> bytes:
    """Blocks that carry the stamps from `stamp` on."""
    return b"".join((stamp + i).to_bytes(8, "little") * (block_bytes // 8) for i in range(blocks))


def stamps_of(data: bytes, block_bytes: int = BLOCK_SIZE) -> list[int]:
    """The stamps of whole blocks; -1 for a block that was never written like that."""
    found = []
    for at in range(0, len(data), block_bytes):
        word = data[at:at + 8]
        whole = data[at:at + block_bytes] == word * (block_bytes // 8)
        found.append(int.from_bytes(word, "little") if whole else -1)
    return found


@dataclass(frozen=True, slots=True)
class Ask:
    """An operation to ask for, not before its time."""
    kind: int
    first: int = 0            # block
    blocks: int = 0
    fua: bool = False
    due_ns: int = 0


@dataclass(eq=False, slots=True)
class Operation:
    """An operation under way."""
    ask: Ask
    stamp: int                # of the first block written
    memory: mmap.mmap
    io: bytearray             # one IO
    asked: int                # number of the event
    line: Line                # of the history
    call: Call | None = None
    met: set[int] = field(default_factory=set)        # blocks shared with others, one of the two writing

    @property
    def span(self) -> range:
        """The blocks it is about."""
        return range(self.ask.first, self.ask.first + self.ask.blocks)

    def meet(self, other: Operation) -> None:
        """They are under way at the same time."""
        if self.ask.kind != READ or other.ask.kind != READ:
            shared = range(max(self.span.start, other.span.start), min(self.span.stop, other.span.stop))
            self.met.update(shared)
            other.met.update(shared)

    def stamp_at(self, i: int) -> int:
        """What its block i holds when this is done."""
        return self.stamp + i if self.ask.kind == WRITE else ZEROS

    def __str__(self) -> str:
        ask = self.ask
        return f"{KIND_NAMES[ask.kind]} {ask.first}+{ask.blocks} stamp {self.stamp}{' fua' * ask.fua}"


def drawn(random: Random, size_blocks: int) -> Iterator[Ask]:
    """Operations without an end, each due at once."""
    while True:
        kind = random.choices(list(KIND_SHARES), list(KIND_SHARES.values()))[0]
        fua = kind not in (READ, FLUSH) and random.random() < FUA_SHARE
        if kind == FLUSH:
            yield Ask(kind)
        else:
            blocks = random.randint(1, BLOCKS_MOST)
            yield Ask(kind, random.randint(0, size_blocks - blocks), blocks, fua)


class SimulatedClient:
    """Keeps up to `depth` operations under way on one volume through the node it is attached to."""

    def __init__(self, index: int, size_blocks: int, depth: int, asks: Iterator[Ask], trace: Trace, *,
                 always_durable: bool = False, overlaps: bool = False, block_bytes: int = BLOCK_SIZE) -> None:
        self.expectation = Expectation()
        self.history = ClientHistory(size_blocks, block_bytes)
        self.block_bytes = block_bytes
        self.index = index
        self.size_blocks = size_blocks
        self.acknowledged = 0
        self.errors = 0
        self.losses = 0
        self.stopped = False
        self.session_over = False
        self.attaching: NodeLife | None = None    # that was asked to serve it
        self.may_fail: Callable[[range], bool] = lambda span: False
        self.stale_reads = False                  # leases do not hold: reads may be late
        self.on_asked: Callable[[Operation], None] = lambda operation: None
        self.on_answered: Callable[[Operation], None] = lambda operation: None
        self._depth = depth
        self._asks = asks
        self._next: Ask | None = None
        self._always_durable = always_durable
        self._overlaps = overlaps
        self._trace = trace
        self._flying: list[Operation] = []
        self._memories: list[mmap.mmap] = []      # to use again: those of answered operations
        self._next_stamp = 1
        self._life: NodeLife | None = None
        self._incarnation = -1
        self._found: dict[int, int] | None = None       # while everything is read after a loss
        self._survey: list[Ask] = []                    # reads still to ask for then

    @property
    def flying(self) -> int:
        """Operations without an answer."""
        return len(self._flying)

    @property
    def is_attached(self) -> bool:
        """Whether the node it goes through runs, and its session goes on."""
        return self._life is not None and self._life.alive and not self.session_over

    @property
    def is_attaching(self) -> bool:
        """Whether a node that runs has been asked to serve it, and has not answered."""
        return self.attaching is not None and self.attaching.alive

    @property
    def through(self) -> str:
        """Name of the node it goes through."""
        return self._life.name if self._life else ""

    @property
    def is_done(self) -> bool:
        """Everything that there was to ask is answered."""
        if self._next is None and self._found is None:
            self._next = next(self._asks, None)
        return not self._flying and self._next is None and self._found is None

    def attach(self, life: NodeLife, incarnation: int = 0) -> None:
        """Go on through this node. What was under way through another has no known outcome."""
        if self._life is not None and self._life.alive:
            self._life.on_progress.remove(self.progress)
        self._flying.clear()
        self.history.attached(self.expectation.now(), incarnation)
        self._life = life
        self.session_over = False
        if incarnation != self._incarnation and self._incarnation >= 0:
            self._trace.add(life.name, "client finds incarnation {} after {}", incarnation, self._incarnation)
            self.losses += 1
            self.expectation.lose()
            self._found = {}
        self._incarnation = incarnation
        if self._found is not None:
            self._begin_survey()
        life.on_progress.append(self.progress)
        life.run_soon()

    def wake(self) -> None:
        """Something may be due."""
        if self.is_attached and self._life is not None:
            self._life.run_soon()

    def progress(self) -> bool:
        """Take answers, and ask for more. Whether anything new was asked for."""
        if self.session_over:
            return False
        done = [operation for operation in self._flying if operation.call is not None and operation.call.done]
        for operation in done:
            self._flying.remove(operation)
            self._finish(operation)
            self._memories.append(operation.memory)
            if self.session_over:
                return False
        if done and self._found is not None and not self._survey and not self._flying:
            self._end_survey(self._found)
        asked = False
        while not self.stopped and len(self._flying) < self._depth and self._ask_next():
            asked = True
        return asked

    def _ask_next(self) -> bool:
        """Ask for one more thing, if one is due and may be asked for just now."""
        if self._found is not None:
            if not self._survey:
                return False
            self._submit(self._survey.pop())
            return True
        if self._next is None:
            self._next = next(self._asks, None)
        if self._next is None or self._next.due_ns > self._trace.now_ns or not self._submit(self._next):
            return False
        self._next = None
        return True

    def read_all(self) -> None:
        """Ask for every block; the answers are checked like all reads."""
        assert not self._flying, f"{len(self._flying)} operations are under way"
        for ask in self.all_blocks():
            self._submit(ask)
        assert self._life is not None
        self._life.run_soon()

    def ask_more(self, asks: Iterable[Ask]) -> None:
        """These too, after everything else."""
        self._asks = chain(self._asks, asks)
        self.wake()

    def all_blocks(self) -> list[Ask]:
        """Reads of everything."""
        step = BLOCKS_MOST * BLOCK_SIZE // self.block_bytes
        return [Ask(READ, first, min(step, self.size_blocks - first))
                for first in range(0, self.size_blocks, step)]

    def is_flushed(self, lba: int) -> bool:
        """Whether no part of this block of the volume waits for a flush."""
        parts = BLOCK_SIZE // self.block_bytes
        return all(self.expectation.is_sure(part) for part in range(lba * parts, (lba + 1) * parts))

    # ------------------------------------------------------------------------ after a loss
    def _begin_survey(self) -> None:
        """Read everything before anything else: what is there must be a prefix (W3)."""
        self._found = {}
        self._survey = self.all_blocks()

    def _end_survey(self, found: dict[int, int]) -> None:
        fault = self.expectation.missing_below(found)
        assert not fault, fault
        for block in range(self.size_blocks):
            if block in found:
                self.expectation.settle(block, found[block])
            else:
                self.expectation.unseen(block)
        self._found = None

    # ------------------------------------------------------------------------------ asking
    def _submit(self, ask: Ask) -> bool:
        """False: it shares a block with one under way (C1)."""
        end = ask.first + ask.blocks
        sharing = [other for other in self._flying
                   if other.ask.first < end and ask.first < other.ask.first + other.ask.blocks]
        if sharing and not self._overlaps:
            return False
        assert self._life is not None
        operation = self._operation(ask, self._life.engine.exports[self.index])
        for other in sharing:
            operation.meet(other)
        if ask.kind == WRITE:
            self.expectation.asked(operation.stamp)
            self._next_stamp += ask.blocks
        if ask.kind not in (READ, FLUSH):
            for i, block in enumerate(operation.span):
                self.expectation.begin(block, operation.stamp_at(i))
        self._flying.append(operation)
        self._trace.add(self._life.name, "client asks {}", operation)
        self.on_asked(operation)
        operation.call = self._life.engine.start(operation.io, operation.memory, 1)
        return True

    def _operation(self, ask: Ask, export: int) -> Operation:
        """It begins now."""
        now, length = self.expectation.now(), ask.blocks * self.block_bytes
        # aligned like a block client's memory: an engine may read into it directly
        memory = self._memories.pop() if self._memories else mmap.mmap(-1, LARGE_BLOCKS_MOST * BLOCK_SIZE)
        io = bytearray(IO_STRUCT.pack(ask.kind, FUA * ask.fua, 0, export, ask.first * self.block_bytes,
                                      length, 0, 0))
        line = Line(HISTORY_KINDS[ask.kind], now, ask.first, ask.blocks,
                    ask.kind not in (READ, FLUSH) and (ask.fua or self._always_durable))
        self.history.lines.append(line)
        operation = Operation(ask, self._next_stamp, memory, io, now, line)
        if ask.kind == WRITE:
            line.values = [operation.stamp_at(i) for i in range(ask.blocks)]
            memory[:length] = stamped(operation.stamp, ask.blocks, self.block_bytes)
        return operation

    # ----------------------------------------------------------------------------- answers
    def _finish(self, operation: Operation) -> None:
        assert self._life is not None
        assert operation.call is not None
        operation.call.end()
        operation.call = None
        error = int.from_bytes(operation.io[ERROR_OFFSET:ERROR_OFFSET + 4], "little", signed=True)
        self._trace.add(self._life.name, "client got {}: {}", operation, error)
        operation.line.end, operation.line.error = self.expectation.now(), error
        if error:
            self._take_error(operation, error)
            return
        self.acknowledged += 1
        self.on_answered(operation)
        expectation, kind = self.expectation, operation.ask.kind
        expectation.now()
        if kind == READ:
            self._check_read(operation)
        elif kind == FLUSH:
            expectation.flushed(operation.asked)
        else:
            for i, block in enumerate(operation.span):
                if block in operation.met:
                    expectation.contest(block, operation.stamp_at(i))
                    continue
                expectation.acknowledge(block, operation.stamp_at(i))
                if operation.ask.fua or self._always_durable:
                    expectation.durable(block, expectation.now())

    def _take_error(self, operation: Operation, error: int) -> None:
        assert self._life is not None
        name = errno.errorcode.get(error, str(error))
        self.errors += 1
        if operation.ask.kind not in (READ, FLUSH):
            for i, block in enumerate(operation.span):
                self.expectation.fail(block, operation.stamp_at(i))
        if error in SESSION_OVER:
            self.session_over = True
        else:
            due = error == errno.EIO and self.may_fail(operation.span)
            assert due, f"{operation} through {self._life.name} ended with {name} (W4)"

    def _check_read(self, operation: Operation) -> None:
        stamps = stamps_of(operation.memory[:operation.ask.blocks * self.block_bytes], self.block_bytes)
        operation.line.values = stamps
        for block, stamp in zip(operation.span, stamps, strict=True):
            may = self.expectation.of(block)
            if block in operation.met and self.expectation.was(block, stamp):
                continue
            if self.stale_reads and stamp not in may and self.expectation.was(block, stamp):
                continue
            assert stamp in may, f"block {block} reads as {stamp}, it may be {sorted(may)} (W1)"
            if self._found is not None:
                self._found[block] = stamp
            elif not self.stale_reads:
                self.expectation.settle(block, stamp)
