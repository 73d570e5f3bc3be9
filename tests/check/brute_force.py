"""The obviously right history checker for one block: it tries every order.

Segments are what happened between two crashes. Of a segment, every linearization is tried:
acknowledged operations must be in it, other writes may. What may survive it is the content at
any cut of any linearization that has every durable write before the cut.
"""
from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache

ANY = -1                      # a write of part of a block: nobody knows its value


@dataclass(frozen=True, slots=True)
class Op:
    """One operation on the block; `end` is infinite, or the last moment, if `pending`."""

    begin: int
    end: float
    value: int
    is_read: bool = False
    pending: bool = False
    durable: bool = False


Segment = tuple[Op, ...]


def consistent(segments: Iterable[Segment], initial: int) -> bool:
    """Whether any order explains all reads; `initial` may be ANY."""
    segments = tuple(segments)
    values = {op.value for segment in segments for op in segment} - {ANY} | {0}
    unknown = [(i, j) for i, segment in enumerate(segments) for j, op in enumerate(segment)
               if op.value == ANY]
    # a value that nobody reads stands for all the others
    universe = [*values, -2]
    for chosen in itertools.product(universe, repeat=len(unknown)):
        for first in universe if initial == ANY else [initial]:
            if _explains(_with_values(segments, dict(zip(unknown, chosen, strict=True))), first):
                return True
    return False


def _with_values(segments: tuple[Segment, ...], chosen: dict[tuple[int, int], int]) -> Iterator[Segment]:
    for i, segment in enumerate(segments):
        yield tuple(Op(op.begin, op.end, chosen.get((i, j), op.value), op.is_read, op.pending, op.durable)
                    for j, op in enumerate(segment))


def _explains(segments: Iterator[Segment], initial: int) -> bool:
    possible = {initial}
    for segment in segments:
        possible = {left for value in possible for left in survivors(segment, value) or ()}
        if not possible:
            return False
    return True


def survivors(segment: Segment, initial: int) -> frozenset[int] | None:
    """What may be found after a crash; None where no linearization exists at all."""
    everything = (1 << len(segment)) - 1
    must = sum(1 << i for i, op in enumerate(segment) if not op.pending)
    durable = sum(1 << i for i, op in enumerate(segment) if op.durable)
    # bit i of before[j]: i must come before j if both do
    before = [sum(1 << i for i, first in enumerate(segment) if first.end < then.begin) for then in segment]

    @cache
    def explore(done: int, value: int) -> frozenset[int] | None:
        found: set[int] = set()
        completes = must & ~done == 0
        for i in range(len(segment)):
            op = segment[i]
            if done >> i & 1 or before[i] & must & ~done or (op.is_read and op.value != value):
                continue
            if any(done >> j & 1 and before[j] >> i & 1 for j in range(len(segment))):
                continue                      # too late for it
            rest = explore(done | 1 << i, value if op.is_read else op.value)
            if rest is not None:
                completes = True
                found |= rest
        if not completes:
            return None
        if durable & ~done == 0:
            found.add(value)
        return frozenset(found)

    assert everything >= must
    return explore(0, initial)


NEVER = math.inf
