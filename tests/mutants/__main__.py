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

from tests.mutants.catalog import MUTANTS, Mutant
from tests.mutants.plant import TREE, PlantError, build, environment_of, plant
from tests.mutants.table import HEAD, Verdict, write

CHECK_LIMIT_S = 300.0
SOUND_LIMIT_S = 1800.0        # for the checks of all mutants
FIRST_SEED = 1_000_000        # far from the seeds that tests name
SEEDS = 60
SEEDS_S = 20.0                # for all seeds of one mutant
TESTS_FAILED = 1              # pytest's exit codes: others but 0 say that it could not test
ALL_PASSED = 0


def check_fails(checks: Sequence[str], number: int) -> str:
    """Run checks on a mutant, all tests or all files of them: what failed first, empty if nothing did.
    PlantError: they cannot be run."""
    named, shown = "::" in checks[0], " ".join(checks)
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "--no-header", "-rf",
               "-m", "" if named else "not slow and not client", *checks]
    try:
        ran = subprocess.run(command, cwd=TREE, env=environment_of(number), capture_output=True, text=True,
                             timeout=CHECK_LIMIT_S if number else SOUND_LIMIT_S)
    except subprocess.TimeoutExpired:
        return f"{shown} (does not end)"
    if ran.returncode == ALL_PASSED:
        return ""
    if ran.returncode < 0:
        return f"{shown} (dies of signal {-ran.returncode})"
    if ran.returncode != TESTS_FAILED:
        said = ran.stdout[-2000:] + ran.stderr[-2000:]
        raise PlantError(f"{shown} cannot be run on mutant {number}:\n{said}")
    failed = [line.split()[1] for line in ran.stdout.splitlines() if line.startswith("FAILED ")]
    return failed[0] if failed else shown


def seed_fails(number: int, count: int, limit_s: float) -> tuple[int, str, float]:
    """Try random seeds on a mutant: how many were tried, what the last one broke, in how many seconds."""
    command = [sys.executable, "-m", "tests.mutants.seeds", str(FIRST_SEED), str(count), str(limit_s)]
    begun_s = time.monotonic()
    try:
        ran = subprocess.run(command, cwd=TREE, env=environment_of(number), capture_output=True, text=True,
                             timeout=limit_s + CHECK_LIMIT_S)
    except subprocess.TimeoutExpired:
        return 0, "a seed does not end", time.monotonic() - begun_s
    if ran.returncode < 0:
        return 0, f"dies of signal {-ran.returncode}", time.monotonic() - begun_s
    if ran.returncode:
        raise PlantError(f"seeds cannot be run on mutant {number}:\n{ran.stderr[-2000:]}")
    found = json.loads(ran.stdout)
    return found["tried"], found["failure"], found["seconds"]


def judge(mutant: Mutant, seeds: int, limit_s: float) -> Verdict:
    """Kill one mutant."""
    killed_by, told = "", ""
    begun_s = time.monotonic()
    for check in mutant.checks:
        killed_by = check_fails([check], mutant.number)
        if killed_by:
            break
    seconds = time.monotonic() - begun_s
    if mutant.seeds and seeds:
        tried, failure, seeds_s = seed_fails(mutant.number, seeds, limit_s)
        told = f"{tried} in {seeds_s:.1f} s: {_short(failure)}" if failure else f"none of {tried}"
        if failure and not killed_by:
            killed_by, seconds = f"seed {FIRST_SEED + tried - 1}", seconds + seeds_s
    return Verdict(mutant, killed_by, seconds, told)


def _short(failure: str) -> str:
    first = failure.split("\n")[0].replace("|", "/")
    return first if len(first) <= 70 else first[:67] + "..."


def sound(mutants: Sequence[Mutant], seeds: int, limit_s: float) -> bool:
    """Whether the unmutated copy passes everything that is to kill mutants."""
    checks = dict.fromkeys(check for mutant in mutants for check in mutant.checks)
    whole = True
    named = [check for check in checks if "::" in check]
    for some in (named, [check for check in checks if check not in named]):
        failed = check_fails(some, 0) if some else ""
        if failed:
            print(f"the unmutated copy fails {failed}", flush=True)
            whole = False
    if seeds and any(mutant.seeds for mutant in mutants):
        tried, failure, _ = seed_fails(0, seeds, limit_s)
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
    parser.add_argument("--seconds", type=float, default=SEEDS_S, metavar="S",
                        help="seconds of random seeds at most for each")
    parser.add_argument("--skip-sound", action="store_true",
                        help="do not run the checks on the unmutated copy first")
    parser.add_argument("--write", action="store_true", help="write what is seen to docs/mutants.md")
    options = parser.parse_args(arguments)
    chosen = [mutant for mutant in MUTANTS if options.only is None or mutant.number in options.only]
    if options.only is not None and len(chosen) != len(set(options.only)):
        print(f"no mutant with one of these numbers: {options.only}", file=sys.stderr)
        return 2
    try:
        return _kill(chosen, options)
    except PlantError as error:
        print(f"mutants: {error}", file=sys.stderr)
        return 2


def _kill(chosen: Sequence[Mutant], options: argparse.Namespace) -> int:
    begun_s = time.monotonic()
    plant(MUTANTS)
    build()
    print(f"{len(MUTANTS)} mutants planted and built in {time.monotonic() - begun_s:.0f} s", flush=True)
    whole = options.skip_sound or sound(chosen, options.seeds, options.seconds)
    print(HEAD, end="", flush=True)
    verdicts = []
    for mutant in chosen:
        verdicts.append(judge(mutant, options.seeds, options.seconds))
        print(verdicts[-1].row(), flush=True)
    killed = sum(bool(verdict.killed_by) for verdict in verdicts)
    tried = (f"with {options.seeds} random seeds, or {options.seconds:.0f} s of them, at most for each"
             if options.seeds else "without random seeds")
    summary = f"{killed} of {len(chosen)} mutants killed in {time.monotonic() - begun_s:.0f} s, {tried}."
    print(summary, flush=True)
    if options.write:
        write(verdicts, summary if options.only is None else "")
    return 0 if whole and killed == len(chosen) else 1


if __name__ == "__main__":
    sys.exit(main())
