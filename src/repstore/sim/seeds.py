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
from collections.abc import Callable, Generator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field

from repstore import config, errors
from repstore.sim.plan import SEED_MAX, draw
from repstore.sim.run import Outcome, run

JOBS_MAX = 64
SEEDS_MAX = 10_000_000
CHUNK_SEEDS = 8               # handed to a worker at a time
CHUNKS_AHEAD = 2              # handed over for each worker, so that none waits for us
RANGE = re.compile(r"(\d{1,19})\.\.(\d{1,19})")
RANGE_RULE = f"A..B with 0 <= A <= B <= {SEED_MAX}, both of them run"


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
    seeds: int = 0
    operations: int = 0
    errors: int = 0
    crashes: int = 0
    simulated_s: float = 0.0
    wall_s: float = 0.0
    faults: Counter[str] = field(default_factory=Counter)
    failures: dict[int, str] = field(default_factory=dict)        # by seed
    interrupted: bool = False

    def add(self, outcome: Outcome) -> None:
        """One more run."""
        self.seeds += 1
        self.operations += outcome.operations
        self.errors += outcome.errors
        self.crashes += outcome.crashes
        self.simulated_s += outcome.simulated_s
        self.faults.update(outcome.faults)
        if outcome.failure:
            self.failures[outcome.seed] = outcome.failure

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return {"seeds": self.seeds, "operations": self.operations, "errors": self.errors,
                "crashes": self.crashes,
                "simulated_hours": round(self.simulated_s / 3600, 4), "wall_s": round(self.wall_s, 3),
                "faults": dict(sorted(self.faults.items())), "interrupted": self.interrupted,
                "failures": [{"seed": seed, "failure": text} for seed, text in sorted(self.failures.items())]}


def run_seed(seed: int) -> Outcome:
    """One seed, without its trace."""
    outcome = run(draw(seed))
    outcome.trace = None
    return outcome


def run_chunk(seeds: range) -> list[Outcome]:
    """Some seeds, one after the other."""
    return [run_seed(seed) for seed in seeds]


def run_seeds(seeds: range, jobs: int, told: Callable[[Summary], None] = lambda summary: None,
              limit_s: float = float("inf")) -> Summary:
    """Run all of them, or as many as begin within `limit_s`; `told` after each one, in order."""
    config.check_range("jobs", jobs, 1, JOBS_MAX)
    summary = Summary()
    begun_s = time.monotonic()
    try:
        with closing(_outcomes(seeds, jobs)) as outcomes:
            for outcome in outcomes:
                summary.add(outcome)
                summary.wall_s = time.monotonic() - begun_s
                told(summary)
                if summary.wall_s > limit_s:
                    break
    except KeyboardInterrupt:
        summary.interrupted = True
    return summary


def _outcomes(seeds: range, jobs: int) -> Generator[Outcome, None, None]:
    if jobs == 1 or len(seeds) == 1:
        yield from map(run_seed, seeds)
        return
    size = min(CHUNK_SEEDS, -(-len(seeds) // jobs))
    chunks = (seeds[first:first + size] for first in range(0, len(seeds), size))
    # no Pool: its end kills the workers, and one of them may hold the lock that another waits for
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), _leave_interrupts) as pool:
        given: deque[Future[list[Outcome]]] = deque()
        try:
            for chunk in chunks:
                given.append(pool.submit(run_chunk, chunk))
                if len(given) > jobs * CHUNKS_AHEAD:
                    yield from given.popleft().result()
            while given:
                yield from given.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def _leave_interrupts() -> None:
    """^C reaches every process of a terminal: the one that asked decides what it means."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
