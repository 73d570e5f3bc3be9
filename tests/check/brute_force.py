"""The obviously right history checker for one block: a device with a cache, in every order.

1. A period is what happened between two crashes of any kind. Of each, every linearization is
   tried: acknowledged operations must be in it, other writes may, and none happens in a later
   period.
2. The device has a content, which reads bring, and a medium, of which it is known what it may
   hold: what a write writes may be there or not, one that is durable is there for certain.
3. A kill changes neither. After a power cut the content is something that the medium may hold,
   and the medium holds that.
4. Durable is what was acknowledged with FUA, and what was over when a flush began that was
   answered without an error, in that period or a later one, with no power cut between.
"""
from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Literal

ANY = -1                      # a write of part of a block: nobody knows its value
NEVER = math.inf


@dataclass(frozen=True, slots=True)
class Op:
    """One operation on the block; `end` is NEVER, or the last moment, if `pending`."""

    begin: int
    end: float
    value: int
    is_read: bool = False
    pending: bool = False
    fua: bool = False


@dataclass(frozen=True, slots=True)
class Period:
    """Operations on the block, the beginnings of the flushes that succeeded, and how it ended."""

    ops: tuple[Op, ...]
    flushes: tuple[int, ...] = ()
    ended_by: Literal["kill", "power cut", ""] = ""


State = tuple[int, frozenset[int]]            # the content, and what the medium may hold


def consistent(periods: Iterable[Period], initial: int) -> bool:
    """Whether any order explains all reads; `initial` may be ANY."""
    periods = tuple(periods)
    values = {op.value for period in periods for op in period.ops} - {ANY} | {0}
    unknown = [(i, j) for i, period in enumerate(periods) for j, op in enumerate(period.ops)
               if op.value == ANY]
    # a value that nobody reads stands for all the others
    universe = [*values, -2]
    for chosen in itertools.product(universe, repeat=len(unknown)):
        for first in universe if initial == ANY else [initial]:
            if _explains(tuple(_with_values(periods, dict(zip(unknown, chosen, strict=True)))), first):
                return True
    return False


def _with_values(periods: tuple[Period, ...], chosen: dict[tuple[int, int], int]) -> Iterator[Period]:
    for i, period in enumerate(periods):
        yield replace(period, ops=tuple(replace(op, value=chosen.get((i, j), op.value))
                                        for j, op in enumerate(period.ops)))


def _explains(periods: tuple[Period, ...], initial: int) -> bool:
    states: set[State] = {(initial, frozenset({initial}))}
    for number, period in enumerate(periods):
        left = linearized(period, _durable(periods, number))
        states = set().union(*itertools.starmap(left, states))
        if period.ended_by == "power cut":
            states = {(kept, frozenset({kept})) for _, medium in states for kept in medium}
        if not states:
            return False
    return True


def _durable(periods: tuple[Period, ...], number: int) -> int:
    """Bit i: operation i of this period is durable once it has happened."""
    period = periods[number]
    flushed_later = False
    for earlier, later in itertools.pairwise(periods[number:]):
        if earlier.ended_by == "power cut":
            break
        flushed_later |= bool(later.flushes)
    return sum(1 << i for i, op in enumerate(period.ops)
               if flushed_later or (op.fua and not op.pending)
               or any(op.end < begin for begin in period.flushes))


def linearized(period: Period, durable: int) -> Callable[[int, frozenset[int]], frozenset[State]]:
    """A function from a state to all those at the end of the period; none: there is no order."""
    ops = period.ops
    must = sum(1 << i for i, op in enumerate(ops) if not op.pending)
    # bit i of before[j]: i must come before j if both do
    before = [sum(1 << i for i, first in enumerate(ops) if first.end < then.begin) for then in ops]

    @cache
    def explore(done: int, content: int, medium: frozenset[int]) -> frozenset[State]:
        found: set[State] = set()
        if must & ~done == 0:
            found.add((content, medium))
        for i, op in enumerate(ops):
            if done >> i & 1 or before[i] & must & ~done or (op.is_read and op.value != content):
                continue
            if any(done >> j & 1 and before[j] >> i & 1 for j in range(len(ops))):
                continue                      # too late for it
            if op.is_read:
                found |= explore(done | 1 << i, content, medium)
            else:
                there = frozenset({op.value}) if durable >> i & 1 else medium | {op.value}
                found |= explore(done | 1 << i, op.value, there)
        return frozenset(found)

    return lambda content, medium: explore(0, content, medium)
