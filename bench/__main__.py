"""Compare repstore with what a user would take instead, on this machine, now.

    python -m bench [--quick] [--only NAME ...] [--data DIR] [--json FILE]

Prints `RATIO name ratio ours theirs unit` for each row, then its spread and its floor, and
`BELOW FLOOR` where it is. The exit code is 0 whatever was measured, and 2 for options that can
never be right. How it is measured: bench/README.md.
"""
from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from bench import rows_law1, rows_local, rows_served
from bench.demo_cluster import ClusterError
from bench.ratios import BenchError, Pace, Result, Row

MIB = 1 << 20
QUICK = Pace(rounds=5, run_s=0.8, volume_bytes=512 * MIB, copies_volume_bytes=1024 * MIB)
THOROUGH = Pace(rounds=15, run_s=1.0, volume_bytes=2048 * MIB, copies_volume_bytes=1024 * MIB)
ROUNDS_MIN, ROUNDS_MAX = 1, 1000
ROOM = 6                         # of the copies' volume: three stores, a raw file and some air

Measure = Callable[[Path, Pace, frozenset[str]], Iterator[Result]]
GROUPS: tuple[tuple[Measure, tuple[Row, ...]], ...] = (
    (rows_local.checksum_rows, (rows_local.CHECKSUM_ROW,)),
    (rows_local.store_rows, (rows_local.READ_ROW, rows_local.WRITE_ROW)),
    (rows_served.one_copy_rows, tuple(rows_served.ONE_COPY_ROWS)),
    (rows_served.copies_rows, tuple(rows_served.COPIES_ROWS)),
    (rows_law1.law1_rows, (rows_law1.LAW1_ROW,)),
)
NAMES = tuple(row.name for _, rows in GROUPS for row in rows)


def main(words: list[str] | None = None) -> int:
    """Measure the rows that are wanted."""
    options = parse(words)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit("bench: told to stop"))
    pace = pace_of(options)
    work = Path(tempfile.mkdtemp(prefix="repstore-bench-", dir=options.data))
    print(f"# {machine()}; {work}; {pace.rounds} rounds of pairs of {pace.run_s} s", flush=True)
    try:
        results = measure(work, pace, frozenset(options.only or NAMES))
    finally:
        shutil.rmtree(work)
    if options.json is not None:
        options.json.write_text(json.dumps(
            {"machine": machine(), "rounds": pace.rounds, "run_s": pace.run_s,
             "rows": [result.as_json() for result in results]}, indent=1) + "\n")
    return 0


def measure(work: Path, pace: Pace, names: frozenset[str]) -> list[Result]:
    """All groups that have a row among `names`. One that cannot be measured says why."""
    found = []
    for group, rows in GROUPS:
        wanted = names & {row.name for row in rows}
        if not wanted:
            continue
        done: set[str] = set()
        place = work / group.__name__
        place.mkdir()
        try:
            for result in group(place, pace, wanted):
                print(result.line(), flush=True)
                found.append(result)
                done.add(result.row.name)
        except (BenchError, ClusterError, subprocess.TimeoutExpired) as error:
            for row in rows:
                if row.name in wanted - done:
                    print(f"SKIPPED {row.name}: {str(error).splitlines()[0]}", flush=True)
        shutil.rmtree(place)
    return found


def parse(words: list[str] | None) -> argparse.Namespace:
    """What was asked for, refused before anything is made if it cannot be."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="Compare repstore with its peers.")
    parser.add_argument("--quick", action="store_true", help="small volumes, few rounds: about four minutes")
    parser.add_argument("--only", action="append", metavar="NAME", choices=NAMES,
                        help=f"this row only; may be repeated ({', '.join(NAMES)})")
    parser.add_argument("--rounds", type=int, help=f"pairs of runs, {ROUNDS_MIN} to {ROUNDS_MAX}")
    parser.add_argument("--data", type=Path, help="work in a directory on another disk")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything that was measured")
    options = parser.parse_args(words)
    if options.rounds is not None and not ROUNDS_MIN <= options.rounds <= ROUNDS_MAX:
        parser.error(f"--rounds {options.rounds}: must be {ROUNDS_MIN} to {ROUNDS_MAX}")
    place = options.data or Path(tempfile.gettempdir())
    if not place.is_dir():
        parser.error(f"--data {place}: is not a directory")
    needed_bytes, free_bytes = ROOM * pace_of(options).copies_volume_bytes, shutil.disk_usage(place).free
    if free_bytes < needed_bytes:
        parser.error(f"--data {place}: {free_bytes} bytes are free, {needed_bytes} are needed")
    if options.json is not None and not options.json.resolve().parent.is_dir():
        parser.error(f"--json {options.json}: no such directory")
    return options


def pace_of(options: argparse.Namespace) -> Pace:
    """The pace, with the rounds that were asked for."""
    usual = QUICK if options.quick else THOROUGH
    return Pace(options.rounds or usual.rounds, usual.run_s, usual.volume_bytes, usual.copies_volume_bytes)


def machine() -> str:
    """What the numbers are of."""
    models = [line.partition(": ")[2] for line in Path("/proc/cpuinfo").read_text().splitlines()
              if line.startswith("model name")]
    model = models[0] if models else platform.machine()
    return f"{len(os.sched_getaffinity(0))} x {model}, Linux {platform.release()}"


if __name__ == "__main__":
    sys.exit(main())
