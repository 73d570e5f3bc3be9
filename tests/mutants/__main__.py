"""`python -m tests.mutants`: plant every mutant, and show which check kills it and how fast.

    exit code  0  every mutant was killed, and the unmutated copy passes everything
               1  one survived, or the unmutated copy fails a check
               2  a mutant does not apply, the copy does not build, or a check cannot be run

  M1 The same build runs everything: the switch alone makes the difference
  M2 A check that cannot be run (not found, broken by itself) is an error, never a kill
  M3 A mutant is killed by the first of its checks that fails, or by a random seed
"""
from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

from tests.mutants.catalog import MUTANTS, Mutant
from tests.mutants.plant import TREE, PlantError, build, environment_of, plant

CHECK_LIMIT_S = 300.0
FIRST_SEED = 1_000_000        # far from the seeds that tests name
SEEDS = 40
SEEDS_LIMIT_S = 300.0
TESTS_FAILED = 1              # pytest's exit codes: others but 0 say that it could not test
ALL_PASSED = 0


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of one mutant."""

    mutant: Mutant
    killed_by: str = ""
    seconds: float = 0.0
    seeds: str = ""            # how many seeds it took, or that none of so many did

    def line(self) -> str:
        """A row of the table."""
        mutant = self.mutant
        return " | ".join(("", str(mutant.number), mutant.room, mutant.rule, mutant.name,
                           self.killed_by or "SURVIVED", f"{self.seconds:.1f}", self.seeds, "")).strip()


HEAD = ("| # | room | rule | mutant | killed by | s | random seeds |\n"
        "|---|---|---|---|---|---|---|")


def check_fails(check: str, number: int) -> str:
    """Run one check on a mutant: what failed, empty if nothing did. PlantError: it cannot be run."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "--no-header", "-rf",
               "-m", "" if "::" in check else "not slow and not client", check]
    try:
        ran = subprocess.run(command, cwd=TREE, env=environment_of(number), capture_output=True, text=True,
                             timeout=CHECK_LIMIT_S)
    except subprocess.TimeoutExpired:
        return f"{check} (does not end)"
    if ran.returncode == ALL_PASSED:
        return ""
    if ran.returncode < 0:
        return f"{check} (dies of signal {-ran.returncode})"
    if ran.returncode != TESTS_FAILED:
        said = ran.stdout[-2000:] + ran.stderr[-2000:]
        raise PlantError(f"{check} cannot be run on mutant {number}:\n{said}")
    failed = [line.split()[1] for line in ran.stdout.splitlines() if line.startswith("FAILED ")]
    return failed[0] if failed else check


def seed_fails(number: int, count: int) -> tuple[int, str, float]:
    """Try random seeds on a mutant: how many were tried, what the last one broke, seconds."""
    command = [sys.executable, "-m", "tests.mutants.seeds", str(FIRST_SEED), str(count), str(SEEDS_LIMIT_S)]
    begun_s = time.monotonic()
    try:
        ran = subprocess.run(command, cwd=TREE, env=environment_of(number), capture_output=True, text=True,
                             timeout=SEEDS_LIMIT_S + CHECK_LIMIT_S)
    except subprocess.TimeoutExpired:
        return 0, "a seed does not end", time.monotonic() - begun_s
    if ran.returncode < 0:
        return 0, f"dies of signal {-ran.returncode}", time.monotonic() - begun_s
    if ran.returncode:
        raise PlantError(f"seeds cannot be run on mutant {number}:\n{ran.stderr[-2000:]}")
    found = json.loads(ran.stdout)
    return found["tried"], found["failure"], found["seconds"]


def judge(mutant: Mutant, seeds: int) -> Verdict:
    """Kill one mutant."""
    killed_by, told = "", ""
    begun_s = time.monotonic()
    for check in mutant.checks:
        killed_by = check_fails(check, mutant.number)
        if killed_by:
            break
    seconds = time.monotonic() - begun_s
    if mutant.seeds and seeds:
        tried, failure, seeds_s = seed_fails(mutant.number, seeds)
        told = f"{tried} in {seeds_s:.0f} s: {_short(failure)}" if failure else f"none of {tried}"
        if failure and not killed_by:
            killed_by, seconds = f"seed {FIRST_SEED + tried - 1}", seconds + seeds_s
    return Verdict(mutant, killed_by, seconds, told)


def _short(failure: str) -> str:
    first = failure.split("\n")[0].replace("|", "/")
    return first if len(first) <= 70 else first[:67] + "..."


def sound(mutants: Sequence[Mutant], seeds: int) -> bool:
    """Whether the unmutated copy passes everything that is to kill mutants."""
    checks = dict.fromkeys(check for mutant in mutants for check in mutant.checks)
    whole = True
    for check in checks:
        failed = check_fails(check, 0)
        if failed:
            print(f"the unmutated copy fails {failed}", flush=True)
            whole = False
    if seeds and any(mutant.seeds for mutant in mutants):
        tried, failure, _ = seed_fails(0, seeds)
        if failure:
            print(f"the unmutated copy fails seed {FIRST_SEED + tried - 1}: {failure}", flush=True)
            whole = False
    return whole


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description="Kill every planted fault.")
    parser.add_argument("--only", type=int, nargs="+", metavar="N", help="these mutants, by number")
    parser.add_argument("--seeds", type=int, default=SEEDS, metavar="N",
                        help="random seeds at most for each; 0: none")
    parser.add_argument("--skip-sound", action="store_true",
                        help="do not run the checks on the unmutated copy first")
    options = parser.parse_args(arguments)
    chosen = [mutant for mutant in MUTANTS if options.only is None or mutant.number in options.only]
    if options.only is not None and len(chosen) != len(set(options.only)):
        print(f"no mutant with one of these numbers: {options.only}", file=sys.stderr)
        return 2
    try:
        return _kill(chosen, options.seeds, not options.skip_sound)
    except PlantError as error:
        print(f"mutants: {error}", file=sys.stderr)
        return 2


def _kill(chosen: Sequence[Mutant], seeds: int, look_first: bool) -> int:
    begun_s = time.monotonic()
    plant(MUTANTS)
    build()
    print(f"{len(MUTANTS)} mutants planted and built in {time.monotonic() - begun_s:.0f} s", flush=True)
    whole = not look_first or sound(chosen, seeds)
    print(HEAD, flush=True)
    survived = 0
    for mutant in chosen:
        verdict = judge(mutant, seeds)
        survived += not verdict.killed_by
        print(verdict.line(), flush=True)
    print(f"{len(chosen) - survived} of {len(chosen)} mutants killed "
          f"in {time.monotonic() - begun_s:.0f} s", flush=True)
    return 1 if survived or not whole else 0


if __name__ == "__main__":
    sys.exit(main())
