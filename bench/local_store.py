"""A filled store in this process, and operations on its one volume.

  L1 The volume fills 70 % of the store or more and every block of it was written, then part of
     it again in random order: the cleaner has begun, as in any store that is not new.
  L2 Buffers are page-aligned and touched, and operations made, before a clock runs.
"""
from __future__ import annotations

import mmap
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from repstore._fast.control import IO_FIELDS, Call
from repstore.node.native import Native
from repstore.store.store import create, open_store

OPERATION_DTYPE = np.dtype(list(IO_FIELDS))
READ, WRITE, FLUSH = 1, 2, 5
BLOCK_BYTES = 4096
FILLED = 0.7
SEGMENT_UNIT = 1 << 20
FILL_BYTES = 128 << 10           # of one write while filling
BUFFER_BLOCKS = 256              # far more than are under way: no two share a buffer
CHUNK_OPERATIONS = 8192          # a fraction of a second: draining its end costs next to nothing
AGED = 0.5                       # of the volume, written again before anything is timed


def store_bytes_for(volume_bytes: int) -> int:
    """The size of a store that volumes of so much fill to FILLED."""
    return round(volume_bytes / FILLED) // SEGMENT_UNIT * SEGMENT_UNIT


class LocalVolume:
    """A volume with one copy, led by this process."""

    def __init__(self, path: Path, volume_bytes: int, frontend: object | None = None) -> None:
        create(path, store_bytes_for(volume_bytes))
        self.path = path
        self.name = "bench"
        self.blocks = volume_bytes // BLOCK_BYTES
        self.buffer = np.frombuffer(mmap.mmap(-1, BUFFER_BLOCKS * BLOCK_BYTES), dtype=np.uint8)
        self._random = np.random.default_rng(1)
        self.buffer[:] = self._random.integers(0, 256, self.buffer.size, dtype=np.uint8)
        self.native = Native(0, open_store(path), frontend=frontend)
        self.native.start()
        engine = self.native.engine
        engine.volume_create(1, "00" * 16, self.name, self.blocks)
        engine.lead(1, 1, 1, [], 1, 1, False, 1)
        self._export = engine.export_install(1, self.name, volume_bytes, 1)
        engine.set_primary(1, 0, 1)

    def __enter__(self) -> LocalVolume:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.native.stop()

    def fill(self) -> None:
        """Write all of it, then a part of it in random order (L1)."""
        per_write = FILL_BYTES // BLOCK_BYTES
        offsets = np.arange(0, self.blocks * BLOCK_BYTES, FILL_BYTES, dtype=np.uint64)
        writes = self.operations(WRITE, offsets)
        writes["length"] = np.minimum(FILL_BYTES, self.blocks * BLOCK_BYTES - offsets)
        writes["buffer_offset"] = np.arange(len(writes)) % (BUFFER_BLOCKS // per_write) * FILL_BYTES
        self.do(writes, depth=8)
        for _ in range(round(self.blocks * AGED) // CHUNK_OPERATIONS):
            self.do(self.random(WRITE))

    def operations(self, kind: int, offsets: NDArray[np.uint64]) -> NDArray[np.void]:
        """Operations of one block each, at these byte offsets."""
        made = np.zeros(len(offsets), OPERATION_DTYPE)
        made["kind"] = kind
        made["export_id"] = self._export
        made["offset"] = offsets
        made["length"] = BLOCK_BYTES
        made["buffer_offset"] = np.arange(len(made)) % BUFFER_BLOCKS * BLOCK_BYTES
        return made

    def random(self, kind: int, count: int = CHUNK_OPERATIONS) -> NDArray[np.void]:
        """One-block operations all over the volume."""
        blocks = self._random.integers(0, self.blocks, count, dtype=np.uint64)
        return self.operations(kind, blocks * BLOCK_BYTES)

    def writes_with_flushes(self, writes_per_flush: int) -> NDArray[np.void]:
        """Random writes, with a flush behind every `writes_per_flush` of them."""
        made = self.random(WRITE, CHUNK_OPERATIONS // writes_per_flush * (writes_per_flush + 1))
        flushes = made[writes_per_flush::writes_per_flush + 1]
        flushes["kind"] = FLUSH
        flushes["offset"] = flushes["length"] = 0
        return made

    def start(self, operations: NDArray[np.void], depth: int = 32) -> Call:
        """Hand operations over."""
        return self.native.engine.start(operations.view(np.uint8), self.buffer, depth)

    def do(self, operations: NDArray[np.void], depth: int = 32) -> float:
        """Carry out operations, `depth` at a time; how many seconds that took."""
        begun_s = time.perf_counter()
        failed = self.start(operations, depth).wait()
        took_s = time.perf_counter() - begun_s
        if failed:
            raise RuntimeError(f"{failed} of {len(operations)} operations failed, the first with "
                               f"errno {operations['error'][operations['error'] != 0][0]}")
        return took_s

    def iops(self, kind: int, seconds: float) -> float:
        """Random operations at depth 32 for a while, counted by the second."""
        return self._rate(lambda: self.random(kind), 1.0, seconds)

    def flushed_iops(self, writes_per_flush: int, seconds: float) -> float:
        """Writes a second, when one flush follows every `writes_per_flush`."""
        share = writes_per_flush / (writes_per_flush + 1)
        return self._rate(lambda: self.writes_with_flushes(writes_per_flush), share, seconds)

    def _rate(self, make: Callable[[], NDArray[np.void]], share: float, seconds: float) -> float:
        """Only the time inside calls counts: numpy's share in making operations is not I/O."""
        count, took_s = 0, 0.0
        while took_s < seconds:
            operations = make()
            took_s += self.do(operations)
            count += len(operations)
        return count * share / took_s
