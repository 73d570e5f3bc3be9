"""Explore the protocol model:  python -m tests.model --epochs 3 --crashes 1 [--without R-eject ...]"""
from __future__ import annotations

import argparse
import sys

from tests.model.search import GIB, RULES, Bounds, search

SOAK = (Bounds(3, 2, 2, 1), Bounds(3, 1, 3, 1), Bounds(3, 1, 3, 2))
SOAK_GIB = 16


def main() -> int:
    """Exit code 0: no promise broken; 1: one is; 2: not all states were seen."""
    parser = argparse.ArgumentParser(prog="python -m tests.model", description=__doc__)
    for name, value in (("nodes", 3), ("lsns", 2), ("epochs", 2), ("crashes", 1)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--without", nargs="+", default=[], choices=RULES, metavar="RULE",
                        help="take rules out: " + ", ".join(RULES))
    parser.add_argument("--memory-gib", type=float, default=4)
    parser.add_argument("--soak", action="store_true", help="the largest bounds that fit 16 GiB and an hour")
    asked = parser.parse_args()
    if asked.soak:
        return soak()
    found = search(Bounds(asked.nodes, asked.lsns, asked.epochs, asked.crashes), tuple(asked.without),
                   int(asked.memory_gib * GIB))
    print(found)
    return 1 if found.broken else 0 if found.complete else 2


def soak() -> int:
    """Every bound of SOAK in turn; stops at the first that is not fully explored, or breaks."""
    for bounds in SOAK:
        found = search(bounds, memory_bytes=SOAK_GIB * GIB)
        print(found, flush=True)
        if found.broken or not found.complete:
            return 1 if found.broken else 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
