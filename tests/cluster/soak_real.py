"""Real faults by the hour.

    python -m tests.cluster.soak_real [--seconds 3600] [--run-seconds 120] [--seed N] [--steps]

Runs of `tests.cluster.real_faults` with the seeds N, N+1, ... one after the other, each with a
cluster of its own; a line for each, and a summary. Exit code 0 when all held. The seed is random
unless given. --steps tells each fault as it begins and ends.
"""
from __future__ import annotations

import argparse
import random
import sys
import time
from collections import Counter

from tests.cluster.real_faults import Outcome, RealFaults, workplace


def run(seed: int, seconds: float, *, steps: bool = False) -> Outcome:
    """One run; AssertionError says what is wrong and where its files are."""
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
        raise


def main() -> int:
    """Run after run; 1 as soon as one fails."""
    parser = argparse.ArgumentParser(description="faults of real processes under recorded clients")
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--run-seconds", type=float, default=120)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--steps", action="store_true")
    options = parser.parse_args()
    first = random.SystemRandom().randrange(2**32) if options.seed is None else options.seed
    begun_s = time.monotonic()
    faults: Counter[str] = Counter()
    answered, seed = 0, first
    while (left_s := options.seconds - (time.monotonic() - begun_s)) > 0:
        try:
            outcome = run(seed, min(left_s, options.run_seconds), steps=options.steps)
        except Exception as error:
            print(f"seed {seed} FAILED: {error}", *getattr(error, "__notes__", ()), sep="\n")
            return 1
        print(outcome, flush=True)
        faults += outcome.faults
        answered += outcome.answered
        seed += 1
    told = ", ".join(f"{kind} {count}" for kind, count in sorted(faults.items()))
    print(f"PASS {seed - first} runs, {faults.total()} faults ({told}), {answered} requests answered, "
          f"every history consistent, all copies equal, {time.monotonic() - begun_s:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
