"""`repstore sim`: the shipped engine in simulated worlds, one for each seed.

    exit code   0  every promise was kept
                1  a promise was broken: the seed is named, a single run shows its timeline;
                   --worth: too little happens in a seed
                2  a worker died, nothing was broken so far
               64  a seed, range or plan that can never be run; a file that cannot be written
              130  interrupted, nothing was broken so far

SIGTERM is an interrupt, too: what was found so far is shown, and the workers end with us.
"""
from __future__ import annotations

import json
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from math import inf
from pathlib import Path
from typing import Annotated, Any

import typer

from repstore import config, errors
from repstore.check.regular_file import read_regular
from repstore.cli.options import EXIT_INTERRUPTED, EXIT_REFUSED, EXIT_UNUSABLE, EXIT_USAGE, Json, complain

JOBS = min(2, os.cpu_count() or 1)
PROGRESS_S = 1.0              # between two lines of progress on a terminal

# how files of ours begin: no other one is written over
PLAN_BEGINS = re.compile(rb'\s*\{\s*"seed"\s*:')
TRACE_BEGINS = re.compile(rb"[0-9]+ \S+ \S")
BEGINNING_BYTES = 256

Seed = Annotated[int | None, typer.Option("--seed", metavar="N", help="Run one seed, and show a failure.")]
Seeds = Annotated[str | None, typer.Option("--seeds", metavar="A..B", help="Run all of these seeds.")]
PlanFile = Annotated[Path | None, typer.Option("--plan", metavar="FILE", help="Run a plan that was saved.")]
Minimize = Annotated[bool, typer.Option("--minimize", help="Shorten a run that fails.")]
Save = Annotated[Path | None, typer.Option("--save", metavar="FILE", help="Write the plan that was run.")]
TraceFile = Annotated[Path | None, typer.Option("--trace", metavar="FILE", help="Write the trace.")]
Jobs = Annotated[int, typer.Option("--jobs", metavar="N", help="Processes, for many seeds.")]
Minutes = Annotated[float | None, typer.Option("--minutes", metavar="M", help="Begin no seed after that.")]
Worth = Annotated[bool, typer.Option("--worth", help="Fail if too little happens in a seed, on average.")]


def simulate(seed: Seed = None, seeds: Seeds = None, plan: PlanFile = None, minimize: Minimize = False,
             save: Save = None, trace: TraceFile = None, jobs: Jobs = JOBS,
             minutes: Minutes = None, worth: Worth = False, as_json: Json = False) -> int:
    """Run the shipped engine in simulated worlds: crashes, cut links, lying disks, and what is promised."""
    from repstore.sim.seeds import JOBS_MAX

    if sum(chosen is not None for chosen in (seed, seeds, plan)) != 1:
        raise errors.ConfigError("exactly one of --seed, --seeds and --plan must be given")
    config.check_range("jobs", jobs, 1, JOBS_MAX)
    if seeds is not None:
        if minimize or save or trace:
            raise errors.ConfigError("--minimize, --save and --trace are for a single run")
        if minutes is not None and not 0 < minutes < inf:
            raise errors.ConfigError(f"--minutes {minutes}: must be more than 0")
        with _termination_interrupts():
            return _many(seeds, jobs, minutes, worth, as_json)
    if minutes is not None or worth:
        raise errors.ConfigError(f"--{'worth' if worth else 'minutes'} is for --seeds")
    if save is not None and trace is not None and _is_same_file(save, trace):
        raise errors.ConfigError(f"--save {save}, --trace {trace}: must be two files")
    _must_be_writable(save, PLAN_BEGINS, "plan")
    _must_be_writable(trace, TRACE_BEGINS, "trace")
    with _termination_interrupts():
        return _one(seed, plan, minimize, save, trace, as_json)


@contextmanager
def _termination_interrupts() -> Iterator[None]:
    """Meanwhile SIGTERM is what SIGINT is."""
    if threading.current_thread() is not threading.main_thread():
        yield                                          # where signals are handled by somebody else
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _one(seed: int | None, plan_file: Path | None, minimize: bool, save: Path | None, trace: Path | None,
         as_json: bool) -> int:
    from repstore.sim import minimize as minimizing
    from repstore.sim import plan as plans
    from repstore.sim.run import Outcome, run

    if plan_file is not None:
        plan = plans.decode(read_regular(plan_file, "a plan", config.PLAN_BYTES_MAX), str(plan_file))
    else:
        assert seed is not None
        plan = plans.draw(seed)
    outcome, interrupted = Outcome(plan.seed), False

    def keep(shorter: plans.Plan, again: Outcome) -> None:
        nonlocal plan, outcome
        plan, outcome = shorter, again
        complain(f"shortened to {len(plan.faults)} faults, {len(plan.asks)} operations")

    try:
        outcome = run(plan)
        if outcome.failure and minimize:
            minimizing.minimize(plan, outcome.failure, keep)
    except KeyboardInterrupt:
        interrupted = True
    try:
        unwritten = [_write(save, plans.encode(plan)),
                     _write(trace, bytes(outcome.trace) if outcome.trace is not None else None)]
        if as_json:
            print(json.dumps({**_as_dict(outcome, plan), "interrupted": interrupted}), flush=True)
        elif outcome.failure or not interrupted:
            _show(outcome, plan)
            sys.stdout.flush()
        for sentence in filter(None, unwritten):
            complain(sentence)
    except KeyboardInterrupt:
        interrupted, unwritten = True, []
    if interrupted:
        complain(f"seed {plan.seed}: interrupted, " + (
            f"it is known to fail: {outcome.failure}" if outcome.failure else "nothing was broken so far"))
    if outcome.failure:
        return EXIT_REFUSED
    if interrupted:
        return EXIT_INTERRUPTED
    return EXIT_USAGE if any(unwritten) else 0


def _is_same_file(one: Path, other: Path) -> bool:
    """Also by another name; neither needs to be there."""
    try:
        return one.resolve() == other.resolve() or one.samefile(other)
    except OSError:
        return False


def _must_be_writable(path: Path | None, begins: re.Pattern[bytes], what: str) -> None:
    """Before a run of which nothing could be kept. What is there already must be ours."""
    if path is None:
        return
    try:
        try:
            path.open("xb").close()
            path.unlink()                              # of a run that does not end nothing is left
            return
        except FileExistsError:
            path.open("ab").close()
        if not path.is_file():
            return
        with path.open("rb") as file:
            beginning = file.read(BEGINNING_BYTES)
    except OSError as error:
        raise errors.ConfigError(f"{path}: {error.strerror}") from None
    if beginning and not begins.match(beginning):
        raise errors.ConfigError(f"{path}: is there already, and is no {what}")


def _write(path: Path | None, data: bytes | None) -> str:
    """Empty, or the sentence that says why it was not done. None: there is nothing to write."""
    if path is None:
        return ""
    if data is None:
        return f"{path}: was not written, the run did not come to its end"
    try:
        path.write_bytes(data)
    except OSError as error:
        return f"{path}: could not be written: {error.strerror}"
    return ""


def _as_dict(outcome: Any, plan: Any) -> dict[str, object]:
    return {"seed": outcome.seed, "failure": outcome.failure, "simulated_s": round(outcome.simulated_s, 6),
            "operations": outcome.operations, "errors": outcome.errors, "crashes": outcome.crashes,
            "faults": outcome.faults, "effects": outcome.effects,
            "trace": outcome.trace.digest() if outcome.trace else "",
            "planned_faults": len(plan.faults), "planned_operations": len(plan.asks)}


def _show(outcome: Any, plan: Any) -> None:
    from repstore.sim.timeline import timeline

    if outcome.failure:
        print(plan.setup)
        for fault in plan.faults:
            print(f"  {fault.at_ns / 1e9:10.6f} s  {fault}")
        print(f"  {len(plan.asks)} operations")
        if outcome.trace is not None:
            print(timeline(outcome))
        print(outcome.detail, file=sys.stderr)
    counts = ", ".join(f"{count} {kind}" for kind, count in outcome.faults.items()) or "no faults"
    if outcome.effects:
        counts += f" ({', '.join(f'{count} {what}' for what, count in outcome.effects.items())})"
    print(f"seed {outcome.seed}: {'FAILED' if outcome.failure else 'ok'}, {outcome.operations} operations, "
          f"{outcome.crashes} crashes, {outcome.simulated_s:.1f} s; {counts}")


def _many(text: str, jobs: int, minutes: float | None, worth: bool, as_json: bool) -> int:
    from repstore.sim.seeds import Summary, parse_range, run_seeds

    wanted = parse_range(text)
    told_s = [0.0]
    failed: set[int] = set()

    def tell(summary: Summary) -> None:
        for seed in summary.failures.keys() - failed:
            failed.add(seed)
            complain(f"seed {seed} FAILED: {summary.failures[seed]}")
        if sys.stderr.isatty() and summary.wall_s - told_s[0] > PROGRESS_S:
            told_s[0] = summary.wall_s
            complain(f"{summary.seeds} of {len(wanted)} seeds, {len(summary.failures)} failed, "
                     f"{summary.simulated_s / 3600:.2f} simulated hours in {summary.wall_s:.0f} s")

    summary = run_seeds(wanted, jobs, tell, inf if minutes is None else minutes * 60)
    if as_json:
        print(json.dumps(summary.as_dict()), flush=True)
    else:
        _show_summary(summary)
        sys.stdout.flush()
    if summary.worker_died:
        complain("a worker died, and with it what is known of the seeds that were under way")
    lacking = summary.lacks() if worth else []
    for sentence in lacking:
        complain(f"the seeds are not worth their time: {sentence}")
    if summary.failures:
        return EXIT_REFUSED
    if summary.interrupted:
        return EXIT_INTERRUPTED
    if summary.worker_died:
        return EXIT_UNUSABLE
    return EXIT_REFUSED if lacking else 0


def _show_summary(summary: Any) -> None:
    for kind, count in sorted(summary.faults.items()):
        print(f"{count:10d}  {kind}")
    for what, count in sorted(summary.effects.items()):
        print(f"{count:10d}    {what}")
    seeds = max(1, summary.seeds)
    print(f"{summary.seeds} seeds, {len(summary.failures)} failed{', INTERRUPTED' * summary.interrupted}: "
          f"{summary.simulated_s / 3600:.2f} simulated hours in {summary.wall_s:.0f} s, "
          f"{summary.operations / seeds:.0f} operations, {sum(summary.faults.values()) / seeds:.1f} faults "
          f"and {summary.crashes / seeds:.1f} crashes a seed")
    if summary.not_run:
        why = ("interrupted" if summary.interrupted else "a worker died" if summary.worker_died
               else "the time was over, none of them was begun")
        print(f"  {summary.not_run} of {summary.wanted} seeds were not run: {why}")
    for seed, failure in sorted(summary.failures.items()):
        print(f"  seed {seed}: {failure}")
