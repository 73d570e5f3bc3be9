"""Law 1: Python decides, native code moves. Whoever holds the GIL holds up no I/O.

In every node process at once a thread holds the GIL for a while; a client goes on through a
node that is not the primary, so that its requests pass through two of them and are copied to
the third.
"""
from __future__ import annotations

import bisect
import itertools
import os
import random
import signal
import threading
import time
from pathlib import Path

import pytest

from tests.cluster.harness import ClusterHarness, Shape, wait_until
from tests.nbd import wire

WINDOWS = 10
WINDOW_S = 1.0
DEPTH = 16
BLOCK_BYTES = 4096
GAP_MAX_S = 0.1
TRIES = 3                  # of a measurement that the machine itself disturbed

pytestmark = pytest.mark.slow

Span = tuple[float, float]


class Load(threading.Thread):
    """Random 4 KiB requests, half of them writes; `completed` are their times."""

    def __init__(self, cluster: ClusterHarness, name: str) -> None:
        super().__init__(name="load")
        self.completed: list[float] = []
        self.errors: list[str] = []
        self._client = cluster.connect(name)
        self._stopping = threading.Event()
        self._chance = random.Random(1)

    def run(self) -> None:
        try:
            under_way = 0
            while under_way or not self._stopping.is_set():
                while under_way < DEPTH and not self._stopping.is_set():
                    self._send()
                    under_way += 1
                completions = self._client.receive()
                under_way -= len(completions)
                self.completed += [time.monotonic()] * len(completions)
                self.errors += [f"error {each.error}" for each in completions if each.error]
        except Exception as error:
            self.errors.append(f"{type(error).__name__}: {error}")
        finally:
            self._client.close()

    def _send(self) -> None:
        offset = self._chance.randrange(self._client.size_bytes // BLOCK_BYTES) * BLOCK_BYTES
        if self._chance.random() < 0.5:
            self._client.send(wire.READ, offset, BLOCK_BYTES)
        else:
            self._client.send(wire.WRITE, offset, payload=os.urandom(BLOCK_BYTES))

    def finish(self) -> None:
        self._stopping.set()
        self.join()
        assert self.errors == []


def held_spans(cluster: ClusterHarness) -> list[list[Span]]:
    """Of every node, when its GIL was held: as it says itself."""
    found: list[list[Span]] = []
    for name in cluster.names:
        path = cluster.directory / f"{name}.holds"
        lines = path.read_text().splitlines() if path.exists() else []
        found.append([(float(begun), float(ended)) for begun, ended in (line.split() for line in lines)])
    return found


def hold_everywhere(cluster: ClusterHarness, times: int) -> Span:
    """Have all nodes hold their GILs, for the `times`th time; when all of them did at once."""
    cluster.signal(signal.SIGUSR2)
    wait_until(lambda: all(len(spans) == times for spans in held_spans(cluster)), "the GILs are free again")
    spans = [spans[-1] for spans in held_spans(cluster)]
    return max(begun for begun, _ in spans), min(ended for _, ended in spans)


def rate(times: list[float], spans: list[Span]) -> float:
    """Completions a second within the spans."""
    counts = [bisect.bisect_right(times, end) - bisect.bisect_left(times, begin) for begin, end in spans]
    return sum(counts) / sum(end - begin for begin, end in spans)


def longest_gap_s(times: list[float], span: Span) -> float:
    first, last = bisect.bisect_left(times, span[0]), bisect.bisect_right(times, span[1])
    inside = [span[0], *times[first:last], span[1]]
    return max(after - before for before, after in itertools.pairwise(inside))


def measure(cluster: ClusterHarness, already_held: int) -> tuple[float, float, float]:
    """Completions held over free; the longest gap while held, and while free."""
    load = Load(cluster, next(name for name in cluster.names if name != cluster.primary()))
    load.start()
    held: list[Span] = []
    free: list[Span] = []
    try:
        wait_until(lambda: len(load.completed) > 1000 or load.errors, "the load is under way")
        for window in range(WINDOWS):
            free.append((time.monotonic(), time.monotonic() + WINDOW_S))
            wait_until(lambda: time.monotonic() >= free[-1][1], "a free window is over")
            held.append(hold_everywhere(cluster, already_held + window + 1))
    finally:
        load.finish()
    assert sum(end - begin for begin, end in held) > 0.8 * WINDOWS * WINDOW_S
    return (rate(load.completed, held) / rate(load.completed, free),
            max(longest_gap_s(load.completed, span) for span in held),
            max(longest_gap_s(load.completed, span) for span in free))


@pytest.mark.fault("process: the GIL held", promise="I/O goes on")
def test_io_goes_on_while_every_gil_is_held(tmp_path: Path) -> None:
    with ClusterHarness(tmp_path, Shape(hold_gil_s=WINDOW_S)) as cluster:
        cluster.start()
        epoch = cluster.wait_in_sync().epoch
        for attempt in range(TRIES):
            ratio, held_gap_s, free_gap_s = measure(cluster, attempt * WINDOWS)
            print(f"completions held / free {ratio:.2f}, longest gap {held_gap_s * 1000:.0f} ms held, "
                  f"{free_gap_s * 1000:.0f} ms free")
            if ratio >= 0.5 and held_gap_s <= GAP_MAX_S:
                break                   # what waits for the GIL waits in every measurement
        assert ratio >= 0.5
        assert held_gap_s <= GAP_MAX_S
        assert cluster.volume().epoch == epoch
        assert not cluster.crashed()


@pytest.mark.fault("process: five seconds without Python", promise="no failover")
def test_five_seconds_without_python_cause_no_failover(tmp_path: Path) -> None:
    with ClusterHarness(tmp_path, Shape(hold_gil_s=5.0)) as cluster:
        cluster.start()
        before = cluster.wait_in_sync()
        load = Load(cluster, next(name for name in cluster.names if name != cluster.primary()))
        load.start()
        try:
            wait_until(lambda: len(load.completed) > 1000 or load.errors, "the load is under way")
            held = hold_everywhere(cluster, 1)
        finally:
            load.finish()
        assert held[1] - held[0] > 4.5
        assert longest_gap_s(load.completed, held) <= 1.0
        # whoever had wanted a change would have made it by now
        after = cluster.settle(cluster.names[0])
        assert (after.epoch, after.primary, after.in_sync) == (before.epoch, before.primary, before.in_sync)
