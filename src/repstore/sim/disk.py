"""A disk that can be pulled: what was written is volatile until a later flush is through.

  K1 A write is visible when it is done, and durable when a flush that was asked for after
     that is done. A flush promises nothing about writes still under way.
  K2 A killed process leaves everything that was done; of what was under way any part.
  K3 A power cut leaves everything durable; of the rest any part.
  K4 "Any part" is drawn from the seed: each write all, not at all, or torn at 512 bytes.
     Of two writes to one place the later one wins, if it is there.
"""
from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from random import Random

from repstore._fast.simulated import DiskFlush, DiskRead, DiskWrite

SECTOR_BYTES = 512

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
        duration_ns = random.randint(self.least_ns, self.most_ns)
        return duration_ns * self.rare_factor if random.random() < self.rare_share else duration_ns


READ_LATENCY = Latency(60_000, 300_000)
WRITE_LATENCY = Latency(30_000, 400_000)
FLUSH_LATENCY = Latency(80_000, 1_500_000)


class SimulatedDisk:
    """An image with a volatile cache in front of it. It outlives the engines that use it."""

    def __init__(self, image: bytearray, random: Random) -> None:
        self.image = image                          # what a read sees
        self.flushes = 0
        self._durable = bytearray(image)
        self._random = random
        self._done: list[DiskWrite] = []            # visible, not durable
        self._flying: dict[int, DiskAsk] = {}       # by operation, in the order they were asked
        self._covered: dict[int, int] = {}          # by flush: writes done when it was asked

    def begin(self, ask: DiskAsk) -> int:
        """Take an operation on; gives how long it will take, in nanoseconds."""
        self._flying[ask.operation] = ask
        if isinstance(ask, DiskRead):
            return READ_LATENCY.draw(self._random)
        if isinstance(ask, DiskWrite):
            return WRITE_LATENCY.draw(self._random)
        self._covered[ask.operation] = len(self._done)
        return FLUSH_LATENCY.draw(self._random)

    def finish(self, operation: int) -> tuple[int, memoryview | None]:
        """An operation is through: its result, and what a read gave."""
        ask = self._flying.pop(operation)
        if isinstance(ask, DiskRead):
            return ask.length, memoryview(self.image)[ask.offset:ask.offset + ask.length]
        if isinstance(ask, DiskWrite):
            _put(self.image, ask)
            self._done.append(ask)
            return len(ask.data), None
        self._finish_flush(operation)
        return 0, None

    def kill(self) -> str:
        """The process that used the disk is gone (K2). Tells what became of its writes."""
        flying = [ask for ask in self._flying.values() if isinstance(ask, DiskWrite)]
        parts = [self._part(ask) for ask in flying]
        for part in _present(parts):
            _put(self.image, part)
            self._done.append(part)
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

    def _finish_flush(self, operation: int) -> None:
        """Flushes may overlap: what one made durable is off the list of the other."""
        covered = self._covered.pop(operation)
        for write in self._done[:covered]:
            _put(self._durable, write)
        del self._done[:covered]
        for other in self._covered:
            self._covered[other] = max(0, self._covered[other] - covered)
        self.flushes += 1

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


def _put(image: bytearray, write: DiskWrite) -> None:
    image[write.offset:write.offset + len(write.data)] = write.data


def _present(parts: Iterable[DiskWrite | None]) -> Iterable[DiskWrite]:
    return (part for part in parts if part is not None)


def _survivors(asked: list[DiskWrite], parts: list[DiskWrite | None]) -> str:
    whole = sum(part is ask for ask, part in zip(asked, parts, strict=True))
    gone = sum(part is None for part in parts)
    return f"{len(asked)} unsure writes: {whole} whole, {gone} gone, {len(asked) - whole - gone} torn"
