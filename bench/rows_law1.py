"""Python decides, native code moves: does a client notice that a thread holds the GIL?

fio works on a served volume and logs every request, while the serving process lets a thread
hold the GIL in every other window. ours / theirs is the p99 latency with the GIL held over
that with the GIL free, one pair of windows a round: about 1 is right, less is better.
"""
from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.ratios import BenchError, Pace, Result, Row
from bench.rivals import RUN_TIMEOUT_S, Fio, need
from bench.rows_served import fill

LAW1_ROW = Row("law1_p99", "us", None, "the same with the GIL free; less is better")
LEAD_IN_S = 1.0                  # fio has connected and is under way
ALLOWANCE_S = 1.0                # fio goes on a little longer than the windows
LOG_MS, LOG_LATENCY_NS = 0, 1    # columns of fio's log

Window = tuple[float, float, float]      # begin, GIL held from here on, end; seconds since 1970


def law1_rows(work: Path, pace: Pace, names: frozenset[str]) -> Iterator[Result]:
    """p99 with the GIL held, and free."""
    need("fio")
    log_prefix = work / "law1"
    with holding(work / "held", pace) as (node, uri), ThreadPoolExecutor(1) as pool:
        fill(uri, work, pace.copies_volume_bytes)
        fio = Fio(uri, "randrw", work, (
            f"--write_lat_log={log_prefix}", "--log_unix_epoch=1", "--disable_clat=1", "--disable_slat=1"))
        running = pool.submit(fio, LEAD_IN_S + 2 * pace.rounds * pace.run_s + ALLOWANCE_S)
        time.sleep(LEAD_IN_S)
        windows = [next_window(node) for _ in range(pace.rounds)]
        running.result()
    log = np.loadtxt(log_prefix.with_name("law1_lat.1.log"), delimiter=",",
                     usecols=(LOG_MS, LOG_LATENCY_NS), dtype=np.int64)
    yield Result(LAW1_ROW, tuple(p99_us(log, held_s, end_s) for _, held_s, end_s in windows),
                 tuple(p99_us(log, begin_s, held_s) for begin_s, held_s, _ in windows))


@contextmanager
def holding(directory: Path, pace: Pace) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A running `bench.held_node`, and where it serves."""
    node = subprocess.Popen(
        [sys.executable, "-m", "bench.held_node", str(directory), str(pace.copies_volume_bytes),
         str(pace.run_s)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert node.stdout is not None
        state, _, uri = node.stdout.readline().strip().partition(" ")
        if state != "ready":
            raise BenchError("the node whose GIL is to be held did not start")
        yield node, uri
    finally:
        try:
            node.communicate(timeout=RUN_TIMEOUT_S)       # the end of its input ends it
        except subprocess.TimeoutExpired:
            node.kill()
            node.wait()


def next_window(node: subprocess.Popen[str]) -> Window:
    """Have it hold the GIL once."""
    assert node.stdin is not None
    assert node.stdout is not None
    node.stdin.write("\n")
    node.stdin.flush()
    begin_s, held_s, end_s = map(float, node.stdout.readline().split())
    return begin_s, held_s, end_s


def p99_us(log: NDArray[np.int64], begin_s: float, end_s: float) -> float:
    """Of the requests that ended in a window."""
    inside = (log[:, LOG_MS] >= begin_s * 1000) & (log[:, LOG_MS] < end_s * 1000)
    if not inside.any():
        raise BenchError(f"no request ended within {end_s - begin_s:.1f} s: law 1 is broken")
    return float(np.percentile(log[inside, LOG_LATENCY_NS], 99)) / 1000
