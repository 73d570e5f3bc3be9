"""Two contents of a store told apart in a line, however large they are.

  1. What is short is shown whole, both of it.
  2. Of bytes, text, lists and tuples: how many places differ, and the first with what is there.
  3. Of dicts: how many keys differ, and the first with what is there.
  4. What is there is told by the same rules; of anything else the beginning of its repr.
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

SHOWN = 60            # characters of a content
AROUND = 8            # bytes, or characters of a text, on each side of a difference

ALIKE: tuple[type | tuple[type, ...], ...] = ((bytes, bytearray), str, list, tuple)
MISSING = object()    # where only the other content has something


def short(content: object) -> str:
    """Its repr, or the beginning of that and how long it is."""
    return "nothing" if content is MISSING else shortened(repr(content), SHOWN)


def shortened(text: str, limit: int) -> str:
    """All of it, or so many characters and how many there are."""
    return text if len(text) <= limit else f"{text[:limit]}... ({len(text)} characters)"


def difference(found: object, expected: object) -> str:
    """Where what was found first differs from what was expected, and how."""
    if max(len(repr(found)), len(repr(expected))) > SHOWN:
        if isinstance(found, dict) and isinstance(expected, dict) and _keys(found, expected):
            return _of_dicts(found, expected)
        if _alike(found, expected):
            return _of_sequences(found, expected)
    return f"found {short(found)}, expected {short(expected)}"


def distance(found: object, other: object) -> int:
    """In how many places they differ: bytes, items or keys; of anything else 1 or 0."""
    if isinstance(found, dict) and isinstance(other, dict):
        return len(_keys(found, other))
    if _alike(found, other):
        return _count(found, other)
    return int(found != other)


def _of_sequences(found: Any, expected: Any) -> str:
    places = _places(found, expected)
    at = int(places[0]) if len(places) else min(len(found), len(expected))
    count = f"{_count(found, expected)} of {max(len(found), len(expected))}"
    if isinstance(found, str | bytes | bytearray):
        kind = "characters" if isinstance(found, str) else "bytes"
        before = f", both after {_piece(found[:at], at - AROUND)}" if at else ""
        return (f"{count} {kind} differ, from {at} on: found {_piece(found, at)}, "
                f"expected {_piece(expected, at)}{before}")
    here, there = (content[at] if at < len(content) else MISSING for content in (found, expected))
    return f"{count} differ, first [{at}]: {difference(here, there)}"


def _piece(content: Any, at: int) -> str:
    piece = content[max(0, at):at + AROUND]
    return repr(piece if isinstance(piece, str) else bytes(piece))


def _of_dicts(found: dict[object, object], expected: dict[object, object]) -> str:
    keys, of = _keys(found, expected), len(found.keys() | expected.keys())
    here, there = (content.get(keys[0], MISSING) for content in (found, expected))
    return f"{len(keys)} of {of} keys differ, first [{short(keys[0])}]: {difference(here, there)}"


def _alike(found: object, other: object) -> bool:
    """Both are sequences that could be equal."""
    return any(isinstance(found, kind) and isinstance(other, kind) for kind in ALIKE)


def _count(found: Any, other: Any) -> int:
    return len(_places(found, other)) + abs(len(found) - len(other))


def _places(found: Sequence[object], other: Sequence[object]) -> npt.NDArray[np.intp]:
    """Where both have something, and not the same."""
    if isinstance(found, bytes | bytearray) and isinstance(other, bytes | bytearray):
        count = min(len(found), len(other))
        # not a list: a large content is compared with every one that could have been
        here, there = (np.array(memoryview(content)[:count], np.uint8) for content in (found, other))
        return np.flatnonzero(here != there)
    pairs = enumerate(zip(found, other, strict=False))
    return np.array([place for place, (one, another) in pairs if one != another], np.intp)


def _keys(found: dict[object, object], other: dict[object, object]) -> list[object]:
    return [key for key in {**other, **found}
            if key not in found or key not in other or found[key] != other[key]]
