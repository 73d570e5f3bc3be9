"""Real faults by the hour.

    python -m tests.cluster.soak_real [--minutes 60] [--run-seconds 120] [--seed N] [--steps]

Runs of `tests.cluster.real_faults` with the seeds N, N+1, ... one after the other, each with a
cluster of its own; a line for each, and a summary in any case. Exit code 0 when all held. The
seed is random unless given. --steps tells each fault as it begins and ends.
"""
from __future__ import annotations

import argparse
import random
import sys
import time
from collections import Counter
from dataclasses import dataclass, field

from tests.cluster.real_faults import Outcome, RealFaults, workplace


@dataclass
class Summary:
    """All runs so far."""

    runs: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    answered: int = 0
    written: int = 0
    reads_checked: int = 0
    epochs: int = 0
    longest_pause_s: float = 0.0
    slowest_heal_s: float = 0.0

    def add(self, outcome: Outcome) -> None:
        """One more."""
        self.runs += 1
        self.faults += outcome.faults
        self.errors += outcome.errors
        self.answered += outcome.answered
        self.written += outcome.written
        self.reads_checked += outcome.verdict.reads_checked
        self.epochs += outcome.epochs
        self.longest_pause_s = max(self.longest_pause_s, outcome.longest_pause_s)
        self.slowest_heal_s = max(self.slowest_heal_s, outcome.slowest_heal_s)

    def __str__(self) -> str:
        rows = [("rounds", self.runs), ("faults", self.faults.total()),
                *((f"  {kind}", count) for kind, count in sorted(self.faults.items())),
                ("epochs", self.epochs), ("operations answered", self.answered), ("  writes", self.written),
                *((f"  told {name}", count) for name, count in sorted(self.errors.items())),
                ("reads of blocks judged", self.reads_checked),
                ("longest pause of a client, s", round(self.longest_pause_s, 1)),
                ("slowest healing, s", round(self.slowest_heal_s, 1))]
        return "\n".join(f"{name:30} {value:>14,}" for name, value in rows)


def run(seed: int, seconds: float, *, steps: bool = False) -> Outcome:
    """One run; AssertionError says what is wrong, where its files are, and its seed."""
    lines: list[str] = []

    def tell(line: str) -> None:
        lines.append(line)
        if steps:
            print(line, flush=True)

    try:
        with workplace() as (directory, own), \
                RealFaults(directory, seed, own_file_system=own, tell=tell) as faults:
            return faults.run(seconds)
    except BaseException as error:
        error.add_note("\n".join(["steps of the run:", *lines]))
        error.add_note(f"seed {seed}; again: python -m tests.cluster.soak_real --seed {seed} --steps")
        raise


def main() -> int:
    """Run after run; 1 as soon as one fails."""
    parser = argparse.ArgumentParser(description="faults of real processes under recorded clients")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--run-seconds", type=float, default=120)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--steps", action="store_true")
    options = parser.parse_args()
    first = random.SystemRandom().randrange(2**32) if options.seed is None else options.seed
    begun_s = time.monotonic()
    summary, verdict = Summary(), ""
    while not verdict and (left_s := options.minutes * 60 - (time.monotonic() - begun_s)) > 0:
        seed = first + summary.runs
        try:
            outcome = run(seed, min(left_s, options.run_seconds), steps=options.steps)
        except Exception as error:
            print(f"seed {seed}: {error}", *getattr(error, "__notes__", ()), sep="\n")
            verdict = f"FAIL: seed {seed}, see above"
        else:
            print(outcome, flush=True)
            summary.add(outcome)
    print(f"\nfrom seed {first}, {time.monotonic() - begun_s:.0f} s; what held:\n{summary}")
    print(verdict or "PASS: every history is consistent, all copies are equal, all healed in time")
    return 1 if verdict else 0


if __name__ == "__main__":
    sys.exit(main())
