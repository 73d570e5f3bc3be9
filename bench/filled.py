"""Batches of operations on a filled volume, in this process: its own, or one that nodes serve.

  F1 The volume is 70 % of what its store may hold, every block of it was written, then half as
     many in random order: the cleaner works, as it does in any store that is not new.
  F2 Buffers are page-aligned and touched, and operations made, before a clock runs.
"""
from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

import repstore
from repstore import OPERATION_DTYPE, Operation, Volume
from repstore.node.directory import usual_store_bytes

BLOCK_BYTES = 4096
DEPTH = 32
FILL_BYTES = 128 << 10           # of one write while filling
FILL_DEPTH = 8
BUFFER_BLOCKS = 256              # far more than are under way: no two share a buffer
BATCH_OPERATIONS = 8192          # a fraction of a second: draining its end costs next to nothing
AGED = 0.5                       # of the volume, written again before anything is timed


class Load:
    """Random operations on a volume, `DEPTH` under way."""

    def __init__(self, volume: Volume) -> None:
        self._volume = volume
        self._blocks = volume.size_bytes // BLOCK_BYTES
        self._random = np.random.default_rng(1)
        self._buffer = repstore.aligned_buffer(BUFFER_BLOCKS * BLOCK_BYTES)
        self._buffer[:] = self._random.integers(0, 256, self._buffer.size, dtype=np.uint8)

    def fill(self) -> None:
        """F1."""
        offsets = np.arange(0, self._blocks * BLOCK_BYTES, FILL_BYTES)
        writes = self._operations(Operation.WRITE, offsets)
        writes["length"] = np.minimum(FILL_BYTES, self._blocks * BLOCK_BYTES - offsets)
        writes["buffer_offset"] = offsets % self._buffer.size
        self.do(writes, FILL_DEPTH)
        self.do(self.random(Operation.WRITE, round(self._blocks * AGED)))

    def random(self, kind: Operation, count: int = BATCH_OPERATIONS) -> NDArray[np.void]:
        """One-block operations all over the volume."""
        return self._operations(kind, self._random.integers(0, self._blocks, count) * BLOCK_BYTES)

    def writes_and_flushes(self, writes_per_flush: int) -> NDArray[np.void]:
        """Random writes, with a flush behind every `writes_per_flush` of them."""
        groups = BATCH_OPERATIONS // writes_per_flush
        made = self.random(Operation.WRITE, groups * (writes_per_flush + 1))
        flushes = made[writes_per_flush::writes_per_flush + 1]
        flushes["kind"] = Operation.FLUSH
        flushes["offset"] = flushes["length"] = 0
        return made

    def do(self, operations: NDArray[np.void], depth: int = DEPTH) -> float:
        """Carry out operations, `depth` at a time; how many seconds that took."""
        begun_s = time.perf_counter()
        self._volume.submit(operations, self._buffer, depth).wait()
        return time.perf_counter() - begun_s

    def iops(self, kind: Operation, seconds: float) -> float:
        """Random operations a second."""
        return self._rate(lambda: self.random(kind), 1.0, seconds)

    def flushed_iops(self, writes_per_flush: int, seconds: float) -> float:
        """Random writes a second when a flush follows every `writes_per_flush`."""
        share = writes_per_flush / (writes_per_flush + 1)
        return self._rate(lambda: self.writes_and_flushes(writes_per_flush), share, seconds)

    def _rate(self, make: Callable[[], NDArray[np.void]], share: float, seconds: float) -> float:
        """Only the time inside calls counts: what numpy needs to make operations is no I/O (F2)."""
        count, took_s = 0, 0.0
        while took_s < seconds:
            operations = make()
            took_s += self.do(operations)
            count += len(operations)
        return count * share / took_s

    def _operations(self, kind: Operation, offsets: NDArray[np.int64]) -> NDArray[np.void]:
        made = np.zeros(len(offsets), OPERATION_DTYPE)
        made["kind"] = kind
        made["offset"] = offsets
        made["length"] = BLOCK_BYTES
        made["buffer_offset"] = np.arange(len(made)) % BUFFER_BLOCKS * BLOCK_BYTES
        return made


class FilledVolume(Load):
    """A volume of one copy in a store of its own, filled (F1)."""

    def __init__(self, path: Path, size_bytes: int) -> None:
        self.path = path
        self._store = repstore.Store.create(path, usual_store_bytes(size_bytes))
        super().__init__(self._store.create_volume("bench", size_bytes))
        self.fill()

    def stats(self) -> dict[str, int]:
        """What its store counts."""
        return self._store.stats()

    def __enter__(self) -> FilledVolume:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self._store.close()
        self.path.unlink()
