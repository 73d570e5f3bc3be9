"""Kill rounds by the hundred.

    python -m tests.cluster.soak [--rounds 200] [--seed N] [--data DIR]

Prints a line a round and a summary; exit code 0 when every round held. The seed is random
unless given. A failed run leaves its stores in DIR.
"""
from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.cluster.rounds import KillRounds


def main() -> int:
    """Run the rounds; 1 as soon as one fails."""
    parser = argparse.ArgumentParser(description="kill -9 under load, restart, compare; again and again")
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--data", type=Path, default=None, help="default: a temporary directory")
    options = parser.parse_args()
    seed = random.SystemRandom().randrange(2**32) if options.seed is None else options.seed
    directory = options.data or Path(tempfile.mkdtemp(prefix="repstore-soak-"))
    print(f"seed {seed}, {options.rounds} rounds in {directory}", flush=True)
    begun_s = time.monotonic()
    cases: Counter[str] = Counter()
    acknowledged = 0
    with KillRounds(directory, seed) as rounds:
        for number in range(options.rounds):
            try:
                result = rounds.run(number)
            except Exception as error:
                print(f"round {number} of seed {seed} FAILED: {error}\nthe stores are in {directory}")
                return 1
            cases[result.case] += 1
            acknowledged += result.acknowledged
            print(f"{number:4} {result}", flush=True)
        verdict = rounds.verdict()
        if not verdict.consistent:
            print(f"seed {seed}: NOT CONSISTENT, see {directory}/history\n{verdict.contradiction}")
            return 1
        print(verdict)
    shutil.rmtree(directory)
    told = ", ".join(f"{case} {count}" for case, count in sorted(cases.items()))
    print(f"PASS {options.rounds} rounds ({told}), {acknowledged} acknowledged writes, none lost, "
          f"{time.monotonic() - begun_s:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
