"""`repstore sim`: the shipped engine in simulated worlds, one for each seed.

    exit code   0  every promise was kept
                1  a promise was broken: the seed is named, a single run shows its timeline
               64  a seed, range or plan that can never be run
              130  interrupted, nothing was broken so far
"""
from __future__ import annotations

import json
import os
import signal
import sys
from math import inf
from pathlib import Path
from typing import Annotated, Any

import typer

from repstore import errors
from repstore.cli.options import EXIT_INTERRUPTED, EXIT_REFUSED, Json, complain

JOBS = min(2, os.cpu_count() or 1)
PROGRESS_S = 1.0              # between two lines of progress on a terminal

Seed = Annotated[int | None, typer.Option("--seed", metavar="N", help="Run one seed, and show a failure.")]
Seeds = Annotated[str | None, typer.Option("--seeds", metavar="A..B", help="Run all of these seeds.")]
PlanFile = Annotated[Path | None, typer.Option("--plan", metavar="FILE", help="Run a plan that was saved.")]
Minimize = Annotated[bool, typer.Option("--minimize", help="Shorten a run that fails.")]
Save = Annotated[Path | None, typer.Option("--save", metavar="FILE", help="Write the plan that was run.")]
TraceFile = Annotated[Path | None, typer.Option("--trace", metavar="FILE", help="Write the trace.")]
Jobs = Annotated[int, typer.Option("--jobs", metavar="N", help="Processes, for many seeds.")]
Minutes = Annotated[float | None, typer.Option("--minutes", metavar="M", help="Begin no seed after that.")]


def simulate(seed: Seed = None, seeds: Seeds = None, plan: PlanFile = None, minimize: Minimize = False,
             save: Save = None, trace: TraceFile = None, jobs: Jobs = JOBS,
             minutes: Minutes = None, as_json: Json = False) -> int:
    """Run the shipped engine in simulated worlds: crashes, cut links, lying disks, and what is promised."""
    if sum(chosen is not None for chosen in (seed, seeds, plan)) != 1:
        raise errors.ConfigError("exactly one of --seed, --seeds and --plan must be given")
    if seeds is not None:
        if minimize or save or trace:
            raise errors.ConfigError("--minimize, --save and --trace are for a single run")
        if minutes is not None and not 0 < minutes < inf:
            raise errors.ConfigError(f"--minutes {minutes}: must be more than 0")
        return _many(seeds, jobs, minutes, as_json)
    if minutes is not None:
        raise errors.ConfigError("--minutes is for --seeds")
    for output in (save, trace):
        if output is not None:
            _must_be_writable(output)
    return _one(seed, plan, minimize, save, trace, as_json)


def _one(seed: int | None, plan_file: Path | None, minimize: bool, save: Path | None, trace: Path | None,
         as_json: bool) -> int:
    from repstore.sim import minimize as minimizing
    from repstore.sim import plan as plans
    from repstore.sim.run import run

    plan = plans.draw(seed) if seed is not None else plans.decode(_bytes_of(plan_file), str(plan_file))
    outcome = run(plan)
    if outcome.failure and minimize:
        plan, outcome = minimizing.minimize(
            plan, outcome.failure, lambda text: complain(f"shortened to {text}"))
    if save is not None:
        save.write_bytes(plans.encode(plan))
    if trace is not None and outcome.trace is not None:
        trace.write_bytes(bytes(outcome.trace))
    if as_json:
        print(json.dumps(_as_dict(outcome, plan)))
    else:
        _show(outcome, plan)
    return EXIT_REFUSED if outcome.failure else 0


def _must_be_writable(path: Path) -> None:
    """Before a run of which nothing could be kept."""
    try:
        path.open("ab").close()
    except OSError as error:
        raise errors.ConfigError(f"{path}: {error.strerror}") from None


def _bytes_of(path: Path | None) -> bytes:
    assert path is not None
    try:
        return path.read_bytes()
    except OSError as error:
        raise errors.ConfigError(f"{path}: {error.strerror}") from None


def _as_dict(outcome: Any, plan: Any) -> dict[str, object]:
    return {"seed": outcome.seed, "failure": outcome.failure, "simulated_s": round(outcome.simulated_s, 6),
            "operations": outcome.operations, "errors": outcome.errors, "crashes": outcome.crashes,
            "faults": outcome.faults, "trace": outcome.trace.digest() if outcome.trace else "",
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
    print(f"seed {outcome.seed}: {'FAILED' if outcome.failure else 'ok'}, {outcome.operations} operations, "
          f"{outcome.crashes} crashes, {outcome.simulated_s:.1f} s; {counts}")


def _many(text: str, jobs: int, minutes: float | None, as_json: bool) -> int:
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

    # SIGTERM is an interrupt, too: it shows what was found, and the workers end with us
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        summary = run_seeds(wanted, jobs, tell, inf if minutes is None else minutes * 60)
    finally:
        signal.signal(signal.SIGTERM, before)
    if as_json:
        print(json.dumps(summary.as_dict()))
    else:
        _show_summary(summary)
    if summary.failures:
        return EXIT_REFUSED
    return EXIT_INTERRUPTED if summary.interrupted else 0


def _show_summary(summary: Any) -> None:
    for kind, count in sorted(summary.faults.items()):
        print(f"{count:10d}  {kind}")
    seeds = max(1, summary.seeds)
    print(f"{summary.seeds} seeds, {len(summary.failures)} failed{', INTERRUPTED' * summary.interrupted}: "
          f"{summary.simulated_s / 3600:.2f} simulated hours in {summary.wall_s:.0f} s, "
          f"{summary.operations / seeds:.0f} operations, {sum(summary.faults.values()) / seeds:.1f} faults "
          f"and {summary.crashes / seeds:.1f} crashes a seed")
    for seed, failure in sorted(summary.failures.items()):
        print(f"  seed {seed}: {failure}")
