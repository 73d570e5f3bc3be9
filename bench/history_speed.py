"""How fast a history is checked: from a file of ten million operations to the verdict.

    python -m bench.history_speed [--operations N] [--blocks N] [--clients N] [--data DIR]

Each client has one operation of one block under way at a time, half of them reads; the
history is consistent. The check runs in a process of its own, whose time and peak memory are
printed; the limits are a minute and 8 GiB for the ten million of the default.
"""
from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

OPERATION_TIME = 1000                 # between two effects
LINES_AT_ONCE = 100_000


def write_history(path: Path, operations: int, blocks: int, clients: int, seed: int = 1) -> None:
    """A consistent history: operation i takes effect at (i + 1) x OPERATION_TIME."""
    random = np.random.default_rng(seed)
    effect = (np.arange(operations, dtype=np.int64) + clients) * OPERATION_TIME
    reach = OPERATION_TIME * clients // 2 - 1         # so that no client has two under way
    begin = effect - random.integers(0, reach, operations)
    end = effect + random.integers(0, reach, operations)
    block = random.integers(0, blocks, operations)
    is_read = random.random(operations) < 0.5
    value = values_seen(block, is_read)
    kinds = np.where(is_read, "read", "write")
    with path.open("w") as file:
        file.write(f'{{"history":1,"block_size":4096,"blocks":{blocks},"initial":"zero"}}\n')
        for at in range(0, operations, LINES_AT_ONCE):
            rows = slice(at, at + LINES_AT_ONCE)
            file.write("".join(
                f'{{"op":"{kind}","client":{(at + place) % clients},"block":{where},"begin":{first},'
                f'"end":{last},"values":[{content}]}}\n'
                for place, (kind, where, first, last, content) in enumerate(zip(
                    kinds[rows].tolist(), block[rows].tolist(), begin[rows].tolist(), end[rows].tolist(),
                    value[rows].tolist(), strict=True))))
        file.write(f'{{"op":"end","operations":{operations}}}\n')


def values_seen(block: NDArray[np.int64], is_read: NDArray[np.bool_]) -> NDArray[np.int64]:
    """What each operation writes (its number), or reads: the last write before it, or zeros."""
    order = np.argsort(block, kind="stable")
    number = np.arange(1, len(block) + 1)
    written = np.where(is_read[order], 0, number[order])
    first = np.concatenate([[0], np.flatnonzero(np.diff(block[order])) + 1])
    place = np.arange(len(block))
    last = np.maximum.accumulate(np.where(written > 0, place, -1))
    start = np.repeat(first, np.diff(np.append(first, len(block))))
    value = np.empty(len(block), np.int64)
    value[order] = np.where(last >= start, written[np.maximum(last, 0)], 0)
    return value


def main() -> int:
    """Make the file, check it, print one line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--operations", type=int, default=10_000_000)
    parser.add_argument("--blocks", type=int, default=2**18)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--data", type=Path, default=None, help="directory for the file")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=chosen.data) as scratch:
        path = Path(scratch, "history")
        write_history(path, chosen.operations, chosen.blocks, chosen.clients)
        begun_s = time.monotonic()
        process = subprocess.Popen([sys.executable, "-m", "repstore.cli", "check", "history", str(path)])
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.monotonic() - begun_s
        print(f"HISTORY {chosen.operations} operations, {path.stat().st_size / 1e6:.0f} MB: {seconds:.1f} s, "
              f"{used.ru_utime + used.ru_stime:.1f} s of CPU, peak {used.ru_maxrss / 2**20:.2f} GiB")
        return process.returncode


if __name__ == "__main__":
    sys.exit(main())
