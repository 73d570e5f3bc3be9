"""How two things are compared on a machine whose disk changes its speed by the minute.

  M1 A round is one short run of ours and one of theirs, back to back; who begins alternates.
  M2 The result is the median of the rounds' ratios, never a ratio of two averages: each ratio
     saw one state of the disk. The spread is the lowest and the highest of them.
  M3 Before a run everything we drive is at rest: what one side left behind (a cleaner, a
     checkpoint) must not be paid for by the other.
  M4 A floor is a fact to print, never a reason to fail: measuring has no exit code.
"""
from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

REST_LOOK_S = 0.05
REST_BYTES_MAX = 64 << 10        # a look in which less was moved found the process at rest
REST_TIMEOUT_S = 3.0

Side = Callable[[float], float]  # runs for so many seconds, returns a rate


class BenchError(Exception):
    """A row cannot be measured here; the text says why."""


@dataclass(frozen=True, slots=True)
class Row:
    """One comparison, ours / theirs. Without a floor it is only shown."""
    name: str
    unit: str
    floor: float | None
    rival: str                   # what the other side is, for people


@dataclass(frozen=True, slots=True)
class Result:
    """A row, measured."""
    row: Row
    ours: tuple[float, ...]
    theirs: tuple[float, ...]

    @property
    def ratios(self) -> list[float]:
        """One per round."""
        return [ours / theirs for ours, theirs in zip(self.ours, self.theirs, strict=True)]

    @property
    def ratio(self) -> float:
        """What counts (M2)."""
        return statistics.median(self.ratios)

    @property
    def below_floor(self) -> bool:
        """Whether the row is worse than it may be."""
        return self.row.floor is not None and self.ratio < self.row.floor

    def line(self) -> str:
        """`RATIO name ratio ours theirs unit`, then what people want to know beside it."""
        ratios = self.ratios
        text = (f"RATIO {self.row.name} {self.ratio:.2f} {statistics.median(self.ours):.0f} "
                f"{statistics.median(self.theirs):.0f} {self.row.unit} "
                f"spread {min(ratios):.2f}-{max(ratios):.2f} of {len(ratios)}")
        if self.row.floor is None:
            return text
        text += f" floor {self.row.floor:.1f}"
        return text + " BELOW FLOOR" if self.below_floor else text

    def as_json(self) -> dict[str, object]:
        """Everything that was measured, for `--json`."""
        return {**asdict(self.row), "ratio": self.ratio, "ratios": self.ratios, "ours": self.ours,
                "theirs": self.theirs, "below_floor": self.below_floor}


@dataclass(frozen=True, slots=True)
class Pace:
    """How long and how often, and how large the volumes are."""
    rounds: int
    run_s: float
    volume_bytes: int
    copies_volume_bytes: int


def compare(row: Row, pace: Pace, ours: Side, theirs: Side, pids: tuple[int, ...] = ()) -> Result:
    """Measure a row; `pids` are the processes that must be at rest before each run."""
    found: tuple[list[float], list[float]] = ([], [])
    for number in range(pace.rounds):
        order = (0, 1) if number % 2 == 0 else (1, 0)
        for which in order:                                                      # M1
            for pid in pids:
                await_rest(pid)                                                  # M3
            found[which].append((ours, theirs)[which](pace.run_s))
    return Result(row, tuple(found[0]), tuple(found[1]))


def await_rest(pid: int) -> None:
    """Return when a process moves next to nothing to or from disks, or after a while anyhow."""
    deadline_s = time.monotonic() + REST_TIMEOUT_S
    before = _moved_bytes(pid)
    while time.monotonic() < deadline_s:
        time.sleep(REST_LOOK_S)
        now = _moved_bytes(pid)
        if now - before < REST_BYTES_MAX:
            return
        before = now


def _moved_bytes(pid: int) -> int:
    try:
        text = Path(f"/proc/{pid}/io").read_text()
    except OSError as error:
        raise BenchError(f"process {pid} is gone or not ours to look at ({error.strerror})") from error
    counters = dict(line.split(": ") for line in text.splitlines())
    return int(counters["read_bytes"]) + int(counters["write_bytes"])
