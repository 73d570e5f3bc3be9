"""Operations a second of a filled store in this process, for pytest-benchmark to keep and compare.

    python -m pytest bench/test_iops.py --benchmark-autosave
    python -m pytest bench/test_iops.py --benchmark-compare

A round is one batch call. `iops` of a benchmark is that of its median round, flushes not counted.
These numbers follow the disk's mood; whether repstore is fast enough is told by the ratios of
`python -m bench`.
"""
from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
from numpy.typing import NDArray
from pytest_benchmark.fixture import BenchmarkFixture

from bench.filled import BATCH_OPERATIONS, BLOCK_BYTES, DEPTH, FilledVolume
from bench.rivals import warm
from repstore import Operation
from repstore._fast.checksum import crc32c_blocks

VOLUME_BYTES = 256 << 20
ROUNDS = 7
SERIAL_OPERATIONS = 512          # of a batch that does one thing after the other
CHECKSUM_BLOCKS = 1024


@pytest.fixture(scope="module")
def volume(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FilledVolume]:
    with FilledVolume(tmp_path_factory.mktemp("iops") / "bench.store", VOLUME_BYTES) as volume:
        warm(volume.path)
        yield volume


def measure(benchmark: BenchmarkFixture, volume: FilledVolume, make: Callable[[], NDArray[np.void]],
            depth: int = DEPTH) -> None:
    benchmark.pedantic(  # type: ignore[no-untyped-call]
        volume.do, setup=lambda: ((make(), depth), {}), rounds=ROUNDS, warmup_rounds=1)
    if benchmark.stats is not None:                    # None with --benchmark-disable
        counted = int(np.count_nonzero(make()["kind"] != Operation.FLUSH))
        benchmark.extra_info["iops"] = round(counted / benchmark.stats.stats.median)


@pytest.mark.parametrize("kind", [Operation.READ, Operation.WRITE], ids=["read", "write"])
@pytest.mark.parametrize(("depth", "count"), [(1, SERIAL_OPERATIONS), (DEPTH, BATCH_OPERATIONS)],
                         ids=["qd1", "qd32"])
def test_random(benchmark: BenchmarkFixture, volume: FilledVolume, kind: Operation, depth: int,
                count: int) -> None:
    measure(benchmark, volume, lambda: volume.random(kind, count), depth)


@pytest.mark.parametrize(("writes_per_flush", "depth"), [(1, 1), (32, DEPTH)], ids=["qd1", "qd32"])
def test_write_and_flush(benchmark: BenchmarkFixture, volume: FilledVolume, writes_per_flush: int,
                         depth: int) -> None:
    operations = SERIAL_OPERATIONS if depth == 1 else BATCH_OPERATIONS
    measure(benchmark, volume, lambda: volume.writes_and_flushes(writes_per_flush)[:operations], depth)


@pytest.mark.parametrize("kind", [Operation.TRIM, Operation.WRITE_ZEROES], ids=["trim", "write_zeroes"])
def test_give_back(benchmark: BenchmarkFixture, volume: FilledVolume, kind: Operation) -> None:
    """The last two: afterwards the volume is not full any more."""
    measure(benchmark, volume, lambda: volume.random(kind))


def test_checksums(benchmark: BenchmarkFixture) -> None:
    data = np.random.default_rng(2).integers(0, 256, CHECKSUM_BLOCKS * BLOCK_BYTES, dtype=np.uint8)
    checksums = np.empty(CHECKSUM_BLOCKS, np.uint32)
    benchmark(crc32c_blocks, data, checksums)
