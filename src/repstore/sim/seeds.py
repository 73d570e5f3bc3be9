"""Many seeds: run by a few processes, counted, reported.

A worker gives back a summary of a run, never its trace: whoever wants to see a failure runs its
seed again, which is what a seed is for.
"""
from __future__ import annotations

import multiprocessing
import re
import signal
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from itertools import takewhile
from math import inf
from multiprocessing.synchronize import Event

from repstore import config, errors
from repstore.sim.plan import SEED_MAX, draw
from repstore.sim.run import Outcome, run

JOBS_MAX = 64
SEEDS_MAX = 10_000_000
CHUNK_SEEDS = 8               # handed to a worker at a time
CHUNKS_AHEAD = 2              # handed over for each worker, so that none waits for us
RANGE = re.compile(r"([0-9]{1,19})\.\.([0-9]{1,19})")
RANGE_RULE = f"A..B with 0 <= A <= B <= {SEED_MAX}, both of them run"

# what a seed must come to on average, or the seeds are not worth their time
WORTH = {"operations": 500, "faults": 5, "crashes": 1}
WORTH_SEEDS_MIN = 25          # the average of fewer says nothing

_stop: Event | None = None    # in a worker: it is to begin no more seeds


def parse_range(text: str) -> range:
    """`1..2000`: both ends are run. ConfigError for anything else."""
    found = RANGE.fullmatch(text.strip())
    if found is None:
        raise errors.ConfigError(f"seeds {text!r}: must be {RANGE_RULE}")
    first, last = int(found[1]), int(found[2])
    if last < first:
        raise errors.ConfigError(f"seeds {text!r} end before they begin: must be {RANGE_RULE}")
    config.check_range("seed", last, 0, SEED_MAX)
    config.check_range("number of seeds", last - first + 1, 1, SEEDS_MAX)
    return range(first, last + 1)


@dataclass
class Summary:
    """What many runs came to."""
    wanted: int = 0               # seeds that were asked for
    seeds: int = 0                # those that were run
    operations: int = 0
    errors: int = 0
    crashes: int = 0
    simulated_s: float = 0.0
    wall_s: float = 0.0
    faults: Counter[str] = field(default_factory=Counter)
    effects: Counter[str] = field(default_factory=Counter)        # of them, and of operators
    failures: dict[int, str] = field(default_factory=dict)        # by seed
    interrupted: bool = False
    worker_died: bool = False

    @property
    def not_run(self) -> int:
        """Seeds of which nothing is known."""
        return self.wanted - self.seeds

    def lacks(self) -> list[str]:
        """What a seed has too little of on average; nothing where they are too few to tell."""
        if self.seeds < WORTH_SEEDS_MIN:
            return []
        found = {"operations": self.operations, "faults": sum(self.faults.values()), "crashes": self.crashes}
        return [f"{found[what] / self.seeds:.2f} {what} a seed, at least {least} are wanted"
                for what, least in WORTH.items() if found[what] < least * self.seeds]

    def add(self, outcome: Outcome) -> None:
        """One more run."""
        self.seeds += 1
        self.operations += outcome.operations
        self.errors += outcome.errors
        self.crashes += outcome.crashes
        self.simulated_s += outcome.simulated_s
        self.faults.update(outcome.faults)
        self.effects.update(outcome.effects)
        if outcome.failure:
            self.failures[outcome.seed] = outcome.failure

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return {"seeds": self.seeds, "not_run": self.not_run, "operations": self.operations,
                "errors": self.errors, "crashes": self.crashes,
                "simulated_hours": round(self.simulated_s / 3600, 4), "wall_s": round(self.wall_s, 3),
                "faults": dict(sorted(self.faults.items())),
                "effects": dict(sorted(self.effects.items())), "interrupted": self.interrupted,
                "worker_died": self.worker_died,
                "failures": [{"seed": seed, "failure": text} for seed, text in sorted(self.failures.items())]}


def run_seed(seed: int) -> Outcome:
    """One seed, without its trace."""
    outcome = run(draw(seed))
    outcome.trace = None
    return outcome


def _outcomes_here(seeds: range, until_s: float) -> Iterator[Outcome]:
    """Of those that begin before `until_s` of the monotonic clock, and before this process is to stop."""
    return map(run_seed, takewhile(lambda seed: time.monotonic() < until_s and not _is_stopped(), seeds))


def _is_stopped() -> bool:
    return _stop is not None and _stop.is_set()


class Workers:
    """Processes that run seeds, some at a time. What they had done when they were stopped, or one of them
    died, is not lost."""

    def __init__(self, jobs: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._jobs = jobs
        self._stop = context.Event()
        # no Pool: its end kills the workers, and one of them may hold the lock that another waits for
        self._pool = ProcessPoolExecutor(jobs, context, _begin_work, (self._stop,))
        self._given: deque[Future[list[Outcome]]] = deque()
        self._done: deque[Outcome] = deque()

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._pool.shutdown(cancel_futures=True)

    def outcomes(self, seeds: range, until_s: float) -> Iterator[Outcome]:
        """Of all of them, in order. BrokenProcessPool: a worker died."""
        size = min(CHUNK_SEEDS, -(-len(seeds) // self._jobs))
        for first in range(0, len(seeds), size):
            if time.monotonic() >= until_s:
                break
            chunk = seeds[first:first + size]
            self._given.append(self._pool.submit(_run_chunk, chunk, until_s))
            if len(self._given) > self._jobs * CHUNKS_AHEAD:
                yield from self._take()
        while self._given:
            yield from self._take()

    def rest(self) -> Iterator[Outcome]:
        """No seed begins any more: what was done and not taken yet."""
        self._stop.set()
        self._pool.shutdown(cancel_futures=True)
        self._given = deque(future for future in self._given
                            if not future.cancelled() and future.exception() is None)
        while self._done:
            yield self._done.popleft()
        while self._given:
            yield from self._take()

    def _take(self) -> Iterator[Outcome]:
        """The oldest chunk; what is not taken when an interrupt comes stays in `_done`."""
        self._done.extend(self._given[0].result())
        self._given.popleft()
        while self._done:
            yield self._done.popleft()


def run_seeds(seeds: range, jobs: int, told: Callable[[Summary], None] = lambda summary: None,
              limit_s: float = inf) -> Summary:
    """Run all of them, or as many as begin within `limit_s`; `told` after each one, in order."""
    config.check_range("jobs", jobs, 1, JOBS_MAX)
    summary = Summary(len(seeds))
    begun_s = time.monotonic()
    until_s = begun_s + limit_s

    def count(outcomes: Iterator[Outcome]) -> None:
        for outcome in outcomes:
            summary.add(outcome)
            summary.wall_s = time.monotonic() - begun_s
            told(summary)

    def carry_out(outcomes: Iterator[Outcome]) -> None:
        try:
            count(outcomes)
        except KeyboardInterrupt:
            summary.interrupted = True
        except BrokenProcessPool:
            summary.worker_died = True

    if jobs == 1 or len(seeds) == 1:
        carry_out(_outcomes_here(seeds, until_s))
    else:
        with Workers(jobs) as workers:
            carry_out(workers.outcomes(seeds, until_s))
            count(workers.rest())
    summary.wall_s = time.monotonic() - begun_s
    return summary


def _run_chunk(seeds: range, until_s: float) -> list[Outcome]:
    """In a worker: some seeds, one after the other."""
    return list(_outcomes_here(seeds, until_s))


def _begin_work(stop: Event) -> None:
    """In a worker. ^C reaches every process of a terminal: the one that asked decides what it means."""
    global _stop
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _stop = stop
