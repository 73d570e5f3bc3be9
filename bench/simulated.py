"""How fast the simulator is: virtual seconds and client operations in a second of one processor.

    python -m bench.simulated [--seeds A..B]

One line: `SIMULATED seeds s/seed simulated s/s operations/s`. There is nothing to compare it
with; it is here so that a change that makes seeds dear is seen.
"""
from __future__ import annotations

import argparse
import time

from repstore.sim.seeds import parse_range, run_seeds

SEEDS = "1..100"


def main() -> None:
    """Run the seeds on one processor and say what they cost."""
    parser = argparse.ArgumentParser(description="How fast the simulator is.")
    parser.add_argument("--seeds", default=SEEDS, metavar="A..B")
    seeds = parse_range(parser.parse_args().seeds)
    begun_s = time.process_time()
    summary = run_seeds(seeds, jobs=1)
    taken_s = time.process_time() - begun_s
    print(f"SIMULATED {summary.seeds} seeds {taken_s / summary.seeds:.3f} s/seed "
          f"{summary.simulated_s / taken_s:.1f} simulated s/s "
          f"{summary.operations / taken_s:.0f} operations/s")


if __name__ == "__main__":
    main()
