"""Trace validation: does what a simulated cluster did happen in the model, too?

    python -m tests.model.replay --seeds 1..2000

`replay` keeps the states of the model that fit what was seen so far. From one view to the next the model
may take any steps, also those that cannot be seen (proposals, answers, flushes), as long as everything
visible is as it was or as it will be. A crash is only taken where one was recorded.

One way through is proof enough, so it is not asked for all: first with few states kept after each view, and
if that leads nowhere with more (EFFORTS). A run that is refused in the end might still be explained by a
state that was not kept; if a search was broken off where it found none, it is undecided.
"""
from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from repstore.errors import ConfigError
from repstore.sim.oracles import Oracle
from repstore.sim.plan import NO_NODE, Plan, draw
from repstore.sim.run import play
from repstore.sim.scene import Scene
from repstore.sim.seeds import parse_range
from tests.model._replay import Follower
from tests.model.episodes import Episode, episodes
from tests.model.search import STEPS
from tests.model.trace import Recorder

CUT_POWER = STEPS.index("cut power")


@dataclass(frozen=True, slots=True)
class Effort:
    """How hard a way is looked for."""
    states_kept: int        # after each view
    entries_max: int        # looked at between two


EFFORTS = (Effort(300, 50_000), Effort(5_000, 200_000), Effort(50_000, 1_000_000))


class TraceError(AssertionError):
    """The model cannot do what was seen."""


class UndecidedError(Exception):
    """Too many states fit: whether the model can do what was seen was not found out."""


def replay(episode: Episode) -> None:
    """Follow an episode in the model, or raise TraceError, or UndecidedError."""
    problem: Exception | None = None
    for effort in EFFORTS:
        problem = _follow(episode, effort)
        if problem is None:
            return
    assert problem is not None
    raise problem


def _follow(episode: Episode, effort: Effort) -> Exception | None:
    """What stands in the way."""
    moments = episode.moments
    model = Follower(len(moments[0].view[1]), episode.lsns, effort.entries_max)
    states = [model.at_rest(episode.last, episode.flushed)]
    flushes = any(moment.crash is not None and moment.crash[0] == CUT_POWER for moment in moments)
    for number, (before, after) in enumerate(pairwise(moments), 1):
        found, whole = model.follow(states, before.view, after.view, after.crash, flushes, effort.states_kept)
        if not found:
            error = TraceError if whole else UndecidedError
            crash = f" with {STEPS[after.crash[0]]} of node {after.crash[1]}" if after.crash else ""
            return error(f"view {number} of {len(moments)}: no step of the model leads from {before.view} to "
                         f"{after.view}{crash}; one of {len(states)} states is {model.view(states[0])}")
        states = found
    return None


def recorded(plan: Plan) -> list[Recorder]:
    """Run a plan, with a recorder on every volume that has two copies or more."""
    scene = Scene(plan)
    recorders = [Recorder(scene.cluster, volume.name) for volume in plan.setup.volumes if volume.copies > 1]
    try:
        play(scene, Oracle(scene))
    finally:
        scene.cluster.close()
    return recorders


def replayed(seed: int, tally: Counter[str]) -> Iterator[str]:
    """Replay all that a seed does; each refusal in words."""
    plan = draw(seed)
    if plan.setup.bad_disk != NO_NODE:
        tally["seeds with a disk that loses what it acknowledged: not in the model"] += 1
        return
    tally["seeds"] += 1
    for recorder in recorded(plan):
        for episode in episodes(recorder):
            tally["episodes"] += 1
            tally["views"] += len(episode.moments)
            tally["epochs"] += episode.moments[-1].view[0][0] - 1
            tally["crashes"] += sum(moment.crash is not None for moment in episode.moments)
            tally["episodes followed up to the model's numbers, not to rest"] += not episode.whole
            try:
                replay(episode)
            except UndecidedError as error:
                tally["undecided"] += 1
                yield f"seed {seed}, {episode.began_ns} ns: undecided: {error}"
            except TraceError as error:
                tally["refused"] += 1
                yield f"seed {seed}, {episode.began_ns} ns: {error}"


def main() -> int:
    """Exit code 0: all happened in the model; 1: something did not; 2: of something it was not found out."""
    parser = argparse.ArgumentParser(prog="python -m tests.model.replay", description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", default="1..150", help="A..B, both included")
    try:
        seeds = parse_range(parser.parse_args().seeds)
    except ConfigError as error:
        parser.error(str(error))
    tally: Counter[str] = Counter(refused=0, undecided=0)
    begun = time.monotonic()
    for seed in seeds:
        for line in replayed(seed, tally):
            print(line, flush=True)
    counts = ", ".join(f"{name}: {count:,}" for name, count in tally.items())
    print(f"{time.monotonic() - begun:.0f} s: {counts}")
    return 1 if tally["refused"] else 2 if tally["undecided"] else 0


if __name__ == "__main__":
    sys.exit(main())
