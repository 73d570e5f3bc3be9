"""One exploration of the protocol model: its rules and promises by name, what it found in words."""
from __future__ import annotations

import time
from dataclasses import dataclass

from tests.model._explore import Explorer

# in the order of their numbers in steps.pxd, rules.pxd and promises.pxd
STEPS = ("write", "append", "say written", "flush", "reply", "reply flush", "learn", "copy", "begin join",
         "say flushed", "forget learner", "submit eject", "submit join", "submit promotion", "win", "lose",
         "hear outcome", "read config", "stand", "move up", "seal", "pull", "kill", "cut power", "resign",
         "fail", "start again", "submit leave", "refuse once", "seal late")
RULES = ("R-eject", "R-caught-up", "R-flushed", "R-both-sets", "R-boot", "R-seal", "R-taint", "R-session",
         "R-client", "R-epoch", "R-proof", "R-told", "R-void")
PROMISES = {
    1: "S1: an in-sync member does not have all that an answered flush covers on its disk",
    2: "S2: a clean in-sync member lacks an acknowledged write",
    3: "S3: the primary lacks a write that was acknowledged in its incarnation",
    4: "S4: two primaries can have a new write acknowledged",
    5: "S5: an in-sync member holds a committed block that was lost to everybody else",
    6: "S6: an LSN was promised twice, with different content",
}
GIB = 1 << 30
PAIRS = {"append", "say written", "flush", "learn", "copy", "begin join", "say flushed", "forget learner",
         "submit eject", "submit join", "seal", "pull", "resign", "submit leave",
         "seal late"}


@dataclass(frozen=True, slots=True)
class Bounds:
    """How far a search goes: log positions, epochs (the first included), crashes of either kind."""
    nodes: int = 3
    lsns: int = 2
    epochs: int = 2
    crashes: int = 1

    def __str__(self) -> str:
        return f"{self.nodes} nodes, {self.lsns} LSNs, {self.epochs} epochs, {self.crashes} crashes"


@dataclass(frozen=True, slots=True)
class Found:
    """What a search came to. `broken` names a promise; `steps` is a shortest way there."""
    bounds: Bounds
    states: int
    transitions: int
    depth: int
    seconds: float
    memory_bytes: int
    complete: bool
    broken: str = ""
    steps: tuple[str, ...] = ()

    def __str__(self) -> str:
        verdict = self.broken or ("no promise broken" if self.complete else "INCOMPLETE: out of memory")
        lines = [f"{self.bounds}: {self.states:,} states, {self.transitions:,} transitions, "
                 f"depth {self.depth}, {self.seconds:.1f} s, {self.memory_bytes / GIB:.2f} GiB: {verdict}"]
        return "\n".join([*lines, *(f"{i:4} {step}" for i, step in enumerate(self.steps, 1))])


def search(bounds: Bounds, without: tuple[str, ...] = (), memory_bytes: int = 2 * GIB) -> Found:
    """Explore every state within `bounds`, with the rules `without` taken out."""
    explorer = Explorer(bounds.nodes, bounds.lsns, bounds.epochs, bounds.crashes,
                        [RULES.index(rule) for rule in without], memory_bytes)
    begun = time.monotonic()
    explorer.run()
    seconds = time.monotonic() - begun
    broken = PROMISES[explorer.broken] if explorer.broken else ""
    steps = tuple(retrace(explorer, explorer.broken_state)) if broken else ()
    return Found(bounds, explorer.count, explorer.transitions, explorer.depth, seconds, explorer.memory_bytes,
                 explorer.complete, broken, steps)


def retrace(explorer: Explorer, state: int) -> list[str]:
    """The steps to a state under one naming: the search itself renames nodes as it goes."""
    world, steps = explorer.initial(), []
    for wanted in explorer.path(state)[1:]:
        number, a, b, world = next(step for step in explorer.successors(world)
                                   if explorer.same(step[3], wanted))
        steps.append(describe(STEPS[number], a, b))
    return steps


def describe(step: str, a: int, b: int) -> str:
    """One step in words."""
    if step in PAIRS:
        return f"n{a + 1} {step} n{b + 1}"
    if step == "submit promotion":
        return f"n{a + 1} {step}, {b} LSNs committed"
    return f"n{a + 1} {step}, {b} LSNs left" if step in {"kill", "cut power", "fail"} else f"n{a + 1} {step}"
