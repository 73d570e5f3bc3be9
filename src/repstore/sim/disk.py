"""A disk that can be pulled, and that can fail in every way a disk has been seen to.

  K1 A write is visible when it is done, and durable when a flush that was asked for after
     that is done. A flush promises nothing about writes still under way.
  K2 A killed process leaves everything that was done; of what was under way any part.
  K3 A power cut leaves everything durable; of the rest any part.
  K4 "Any part" is drawn from the seed: each write all, not at all, or torn at 512 bytes.
     Of two writes to one place the later one wins, if it is there.
  K5 Faults are armed from outside: the next write, read or flush meets them, once.
     A lost, misdirected, torn or stale write is acknowledged like any other.
  K6 A flush may fail and cover nothing; or fail and forget: of what it was to cover any part is
     there, the rest is gone at once, and later flushes succeed as if nothing had been.
"""
from __future__ import annotations

import errno
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from random import Random

from repstore._fast.simulated import DiskFlush, DiskRead, DiskWrite
from repstore.format import BLOCK_SIZE
from repstore.sim.meeting import Met, Spans, Waiting, nobody

SECTOR_BYTES = 512
# kinds of faults, by what an armed write does
WRITE_FAULTS = {"eio": "write error", "enospc": "full disk", "lost": "lost write", "torn": "torn write",
                "misdirected": "misdirected write", "stale": "stale write"}

DiskAsk = DiskRead | DiskWrite | DiskFlush


@dataclass(frozen=True, slots=True)
class Latency:
    """How long the disk takes: from `least_ns` on, rarely `rare_factor` times as long."""
    least_ns: int
    most_ns: int
    rare_factor: int = 20
    rare_share: float = 0.01

    def draw(self, random: Random) -> int:
        """One duration."""
        share = random.random()
        duration_ns = self.least_ns + int((self.most_ns - self.least_ns) * share)
        return duration_ns * self.rare_factor if random.random() < self.rare_share else duration_ns


READ_LATENCY = Latency(60_000, 300_000)
WRITE_LATENCY = Latency(30_000, 400_000)
FLUSH_LATENCY = Latency(80_000, 1_500_000)


@dataclass
class ArmedFaults:
    """What the next operations meet (K5). Counts are of operations still to be struck."""
    writes: deque[str] = field(default_factory=deque)     # lost, misdirected, torn, stale, eio, enospc
    failing_reads: int = 0
    reads_met: deque[Met] = field(default_factory=deque)  # of those, by a fault that is counted
    reads_fail: bool = False                              # all of them, for as long as it is so
    flushes: deque[str] = field(default_factory=deque)    # fails, forgets
    slow_factor: int = 1                                  # fail-slow: everything takes so many times as long
    unreadable: set[int] = field(default_factory=set)     # blocks: until they are written again
    waiting: Waiting = field(default_factory=Waiting)     # "slow", that met no operation yet

    def clear(self) -> None:
        """The disk is as good as new for what comes; what was damaged stays so."""
        self.writes.clear()
        self.flushes.clear()
        self.failing_reads = 0
        self.reads_fail = False
        self.reads_met.clear()
        self.slow_factor = 1


class SimulatedDisk:
    """An image with a volatile cache in front of it. It outlives the engines that use it."""

    def __init__(self, image: bytearray, random: Random) -> None:
        self.image = image                          # what a read sees
        self.flushes = 0
        self.faults = ArmedFaults()
        self.struck: list[str] = []                 # what faults did, for the trace
        self.counts: Counter[str] = Counter()       # armed faults that met an operation, by kind
        self.superseded: dict[int, bytes] = {}      # by block of interest: what stood there before
        self.stalled_until_ns = 0                   # nothing is answered before that
        self._stalls = Spans()                      # that met no operation yet
        self.stale: list[tuple[int, bytes, bytes]] = []     # offset, before, after: may fall back
        self._durable = bytearray(image)
        self._random = random
        self._done: list[DiskWrite] = []            # visible, not durable
        self._flying: dict[int, DiskAsk] = {}       # by operation, in the order they were asked
        self._covered: dict[int, int] = {}          # by flush: writes done when it was asked

    def begin(self, ask: DiskAsk) -> int:
        """Take an operation on; gives how long it will take, in nanoseconds."""
        self._flying[ask.operation] = ask
        if isinstance(ask, DiskRead):
            latency = READ_LATENCY
        elif isinstance(ask, DiskWrite):
            latency = WRITE_LATENCY
        else:
            self._covered[ask.operation] = len(self._done)
            latency = FLUSH_LATENCY
        return latency.draw(self._random) * self.faults.slow_factor

    def finish(self, operation: int) -> tuple[int, memoryview | None]:
        """An operation is through: its result, and what a read gave."""
        ask = self._flying.pop(operation)
        if past_the_end(ask, len(self.image)):
            return -errno.EIO, None
        if isinstance(ask, DiskRead):
            return self._finish_read(ask)
        if isinstance(ask, DiskFlush):
            return self._finish_flush(operation), None
        if self.faults.writes:
            return self._strike_write(ask, self.faults.writes.popleft()), None
        self._write(ask)
        return len(ask.data), None

    def kill(self) -> str:
        """The process that used the disk is gone (K2). Tells what became of its writes."""
        flying = [ask for ask in self._flying.values() if isinstance(ask, DiskWrite)]
        parts = [self._part(ask) for ask in flying]
        for part in _present(parts):
            self._write(part)
        self._forget_flying()
        return _survivors(flying, parts)

    def cut_power(self) -> str:
        """The machine is off (K3). Tells what became of the writes that no flush covered."""
        unsure = self._done + [ask for ask in self._flying.values() if isinstance(ask, DiskWrite)]
        parts = [self._part(ask) for ask in unsure]
        for part in _present(parts):
            _put(self._durable, part)
        self.image[:] = self._durable
        self._done.clear()
        self._forget_flying()
        return _survivors(unsure, parts)

    def stall_until(self, until_ns: int, met: Met = nobody) -> None:
        """Nothing is answered before that."""
        self.stalled_until_ns = max(self.stalled_until_ns, until_ns)
        self._stalls.add(until_ns, met)

    def put_off(self, due_ns: int) -> int:
        """When an operation that takes until `due_ns` will be answered. What makes it late is met."""
        if self.faults.slow_factor > 1:
            self.faults.waiting.meet("slow")
        self._stalls.meet(due_ns)
        return max(due_ns, self.stalled_until_ns)

    # ------------------------------------------------------------------- damage at rest
    def rot(self, offset: int, mask: int) -> None:
        """Bits of one byte turn over, on the medium and in whatever cached it."""
        self.image[offset] ^= mask
        self._durable[offset] ^= mask

    def put_back(self, offset: int, data: bytes) -> None:
        """An older content is there again, and durable."""
        self.image[offset:offset + len(data)] = data
        self._durable[offset:offset + len(data)] = data

    def fall_back(self) -> int:
        """Stale writes: what they wrote is gone, where nobody wrote since. Gives how many."""
        count = 0
        for offset, before, after in self.stale:
            if self.image[offset:offset + len(after)] == after:
                self.put_back(offset, before)
                self.counts["stale write"] += 1
                count += 1
        self.stale.clear()
        return count

    def replace(self, image: bytes | bytearray) -> None:
        """Another disk is in the machine."""
        self.image[:] = image
        self._durable[:] = image
        self._done.clear()
        self.stale.clear()
        self.faults = ArmedFaults()

    # ---------------------------------------------------------------------- operations
    def _finish_read(self, ask: DiskRead) -> tuple[int, memoryview | None]:
        faults = self.faults
        if faults.failing_reads:
            faults.failing_reads -= 1
            if faults.reads_met:
                faults.reads_met.popleft()()
            self.struck.append(f"read of {ask.length} at {ask.offset} fails")
            return -errno.EIO, None
        if faults.reads_fail:
            faults.waiting.meet("reads fail")
            self.struck.append(f"read of {ask.length} at {ask.offset} fails for now")
            return -errno.EIO, None
        if faults.unreadable and any(block in faults.unreadable for block in _blocks(ask.offset, ask.length)):
            self.struck.append(f"read of {ask.length} at {ask.offset} meets a bad sector")
            return -errno.EIO, None
        return ask.length, memoryview(self.image)[ask.offset:ask.offset + ask.length]

    def _write(self, ask: DiskWrite) -> None:
        block = ask.offset // BLOCK_SIZE
        if block in self.superseded:
            self.superseded[block] = bytes(self.image[ask.offset:ask.offset + BLOCK_SIZE])
        if self.faults.unreadable:
            self.faults.unreadable.difference_update(_blocks(ask.offset, len(ask.data)))
        _put(self.image, ask)
        self._done.append(ask)

    def _strike_write(self, ask: DiskWrite, how: str) -> int:
        """One write meets an armed fault; its result."""
        if how != "stale":                          # that did nothing yet: it counts when it falls back
            self.counts[WRITE_FAULTS[how]] += 1
        self.struck.append(f"write of {len(ask.data)} at {ask.offset}: {how}")
        part: DiskWrite | None = None
        if how == "stale":
            before = bytes(self.image[ask.offset:ask.offset + len(ask.data)])
            self.stale.append((ask.offset, before, ask.data))
            part = ask
        elif how == "misdirected":
            blocks = (len(self.image) - len(ask.data)) // BLOCK_SIZE
            part = ask._replace(offset=self._random.randrange(blocks) * BLOCK_SIZE)
            self.struck[-1] += f" to {part.offset}"
        elif how != "lost":
            cut = SECTOR_BYTES * self._random.randrange(len(ask.data) // SECTOR_BYTES)
            part = ask._replace(data=ask.data[:cut]) if cut else None
        if part is not None:
            self._write(part)
        return {"eio": -errno.EIO, "enospc": -errno.ENOSPC}.get(how, len(ask.data))

    def _finish_flush(self, operation: int) -> int:
        """Flushes may overlap: what one made durable is off the list of the other."""
        covered = self._covered.pop(operation)
        how = self.faults.flushes.popleft() if self.faults.flushes else ""
        if how == "fails":
            self.counts["flush error"] += 1
            self.struck.append(f"flush of {covered} writes fails")
            return -errno.EIO
        writes = self._done[:covered]
        del self._done[:covered]
        if how:
            self.counts["forgetful flush"] += 1
            self._lose(writes)
        else:
            for write in writes:
                _put(self._durable, write)
            self.flushes += 1
        for other in self._covered:
            self._covered[other] = max(0, self._covered[other] - covered)
        return -errno.EIO if how else 0

    def _lose(self, writes: list[DiskWrite]) -> None:
        """The cache in front of the medium dropped these; of each any part had reached it (K6)."""
        parts = [self._part(write) for write in writes]
        for part in _present(parts):
            _put(self._durable, part)
        for write in writes:
            end = write.offset + len(write.data)
            self.image[write.offset:end] = self._durable[write.offset:end]
        for write in self._done:
            _put(self.image, write)
        self.struck.append(f"flush fails and forgets: {_survivors(writes, parts)}")

    def _forget_flying(self) -> None:
        self._flying.clear()
        self._covered.clear()

    def _part(self, write: DiskWrite) -> DiskWrite | None:
        """What is on the medium of a write that nobody waited for (K4)."""
        fate = self._random.random()
        if fate < 0.4:
            return write
        if fate < 0.7:
            return None
        cut = SECTOR_BYTES * self._random.randint(0, len(write.data) // SECTOR_BYTES)
        if fate < 0.85:
            return write._replace(data=write.data[:cut]) if cut else None
        return write._replace(offset=write.offset + cut, data=write.data[cut:])


def past_the_end(ask: DiskAsk, size_bytes: int) -> bool:
    """A disk does what it can do whole, or says that it cannot."""
    if isinstance(ask, DiskFlush):
        return False
    length = ask.length if isinstance(ask, DiskRead) else len(ask.data)
    return ask.offset + length > size_bytes


def _blocks(offset: int, length: int) -> range:
    return range(offset // BLOCK_SIZE, (offset + length - 1) // BLOCK_SIZE + 1)


def _put(image: bytearray, write: DiskWrite) -> None:
    image[write.offset:write.offset + len(write.data)] = write.data


def _present(parts: Iterable[DiskWrite | None]) -> Iterable[DiskWrite]:
    return (part for part in parts if part is not None)


def _survivors(asked: list[DiskWrite], parts: list[DiskWrite | None]) -> str:
    whole = sum(part is ask for ask, part in zip(asked, parts, strict=True))
    gone = sum(part is None for part in parts)
    return f"{len(asked)} unsure writes: {whole} whole, {gone} gone, {len(asked) - whole - gone} torn"
