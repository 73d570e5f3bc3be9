"""The shortest plan that still fails: delta debugging over faults and operations.

Zeller and Hildebrandt, "Simplifying and Isolating Failure-Inducing Input" (2002), ddmin without
its complements of single pieces, first over the faults, then over the operations, until neither
gets any shorter. What counts as the same failure is its kind: the rule in brackets at the end of
its message, or its first words. Deterministic: the same plan gives the same shortest one.
"""
from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TypeVar

from msgspec.structs import replace

from repstore.sim.plan import Plan
from repstore.sim.run import Outcome, run

RUNS_MAX = 600                # each costs as much as the run that failed, or less
RULE = re.compile(r"\((\w+)\)$")
NUMBERS = re.compile(r"[0-9a-f]{8,}|\d+")

Part = TypeVar("Part")


def kind_of(failure: str) -> str:
    """What two failures have in common that are the same bug, as far as can be told."""
    rule = RULE.search(failure)
    return rule[1] if rule else NUMBERS.sub("#", failure)[:40]


def minimize(plan: Plan, failure: str, tell: Callable[[Plan, Outcome], None] = lambda shorter, outcome: None,
             ) -> tuple[Plan, Outcome]:
    """The shortest plan found that fails like `plan` does, and what came of it.

    `tell` is given each one on the way: who is interrupted has the last of them.
    """
    wanted = kind_of(failure)
    budget = [RUNS_MAX]
    best: list[tuple[Plan, Outcome]] = []

    def fails(candidate: Plan) -> bool:
        if budget[0] <= 0:
            return False
        budget[0] -= 1
        outcome = run(candidate)
        if not outcome.failure or kind_of(outcome.failure) != wanted:
            return False
        best[:] = [(candidate, outcome)]
        tell(candidate, outcome)
        return True

    if not fails(plan):
        raise AssertionError(f"seed {plan.seed} does not fail again with: {failure}")
    before = None
    while before != best[0][0] and budget[0] > 0:
        before = best[0][0]
        shortest(before.faults, lambda kept: fails(replace(best[0][0], faults=tuple(kept))))
        shortest(before.asks, lambda kept: fails(replace(best[0][0], asks=tuple(kept))))
    return best[0]


def shortest(parts: Sequence[Part], fails: Callable[[Sequence[Part]], bool]) -> Sequence[Part]:
    """Leave out pieces, halves first and single ones last, as long as it still fails."""
    if parts and fails(parts[:0]):
        return parts[:0]
    pieces = 2
    while parts:
        size = -(-len(parts) // pieces)
        at = 0
        shorter = False
        while at < len(parts):
            rest = [*parts[:at], *parts[at + size:]]
            if rest and fails(rest):
                parts, shorter = rest, True
            else:
                at += size
        if size == 1 and not shorter:
            break
        pieces = min(len(parts), max(2, pieces if shorter else pieces * 2))
    return parts
