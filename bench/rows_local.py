"""Rows of one process: a store it owns, against fio and a loop of our own; checksums.

The store's owner hands over a numpy array of operations and waits; fio reads the store's own
file. Both sides pass the page cache by.
"""
from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from bench.filled import BLOCK_BYTES, DEPTH, FilledVolume
from bench.ratios import BenchError, Pace, Result, Row, await_rest, compare
from bench.rivals import Fio, InPlace, compile_in_place, raw_file, warm
from repstore import Operation
from repstore._fast.checksum import crc32c_blocks

WRITES_PER_FLUSH = 32
CHECKSUM_BLOCKS = 1024

READ_ROW = Row("read_qd32_inprocess", "IOPS", 0.9, "fio io_uring on the store's own file")
WRITE_ROW = Row("write_qd32_flush32_inprocess", "IOPS", 1.0,
                "in-place O_DIRECT writes with as many flushes")
CHECKSUM_ROW = Row("crc32c_4k", "blocks/s", 2.0, "the PyPI package, block by block")


def store_rows(work: Path, pace: Pace, names: frozenset[str]) -> Iterator[Result]:
    """Reads and flushed writes, in process."""
    ourselves = (os.getpid(),)
    with FilledVolume(work / "local.store", pace.volume_bytes) as volume:
        if READ_ROW.name in names:
            await_rest(os.getpid())
            warm(volume.path)
            fio = Fio(volume.path, "randread", work, ("--readonly",))
            yield compare(READ_ROW, pace, lambda seconds: volume.iops(Operation.READ, seconds),
                          fio, ourselves)
        if WRITE_ROW.name in names:
            raw = raw_file(work / "inplace.raw", pace.volume_bytes)
            rival = faster_in_place(work, raw, pace)
            yield compare(WRITE_ROW, pace, lambda seconds: volume.flushed_iops(WRITES_PER_FLUSH, seconds),
                          rival, ourselves)
            raw.unlink()


def faster_in_place(work: Path, raw: Path, pace: Pace) -> InPlace:
    """The manner of flushing that is the faster one on this machine: we are not to win by the
    other one."""
    program = compile_in_place(work)
    manners = [InPlace(program, raw, DEPTH, WRITES_PER_FLUSH, manner) for manner in ("stream", "barrier")]
    return max(manners, key=lambda writer: writer(pace.run_s))


def checksum_rows(work: Path, pace: Pace, names: frozenset[str]) -> Iterator[Result]:
    """CRC32C of many blocks in one call, against a call a block."""
    try:
        from crc32c import crc32c as rival
    except ImportError:
        raise BenchError("the PyPI package crc32c is not installed (pip install '.[dev]')") from None
    data = np.random.default_rng(2).integers(0, 256, CHECKSUM_BLOCKS * BLOCK_BYTES, dtype=np.uint8)
    blocks = [data[start:start + BLOCK_BYTES].data for start in range(0, data.size, BLOCK_BYTES)]
    checksums = np.empty(CHECKSUM_BLOCKS, np.uint32)

    def ours(seconds: float) -> float:
        count, begun_s = 0, time.perf_counter()
        while time.perf_counter() - begun_s < seconds:
            crc32c_blocks(data.data, checksums)
            count += CHECKSUM_BLOCKS
        return count / (time.perf_counter() - begun_s)

    def theirs(seconds: float) -> float:
        count, begun_s = 0, time.perf_counter()
        while time.perf_counter() - begun_s < seconds:
            for block in blocks:
                rival(block)
            count += CHECKSUM_BLOCKS
        return count / (time.perf_counter() - begun_s)

    if crc32c_blocks(data.data).tolist() != [rival(block) for block in blocks]:
        raise BenchError("the two CRC32C do not agree")
    yield compare(CHECKSUM_ROW, pace, ours, theirs)
