"""Faults that lie in wait, and are told when something meets them.

A cut without a message, an outage that nobody asked into, a pause in which nothing came: such a fault
did nothing, and a run full of them proves nothing. So whoever carries out a fault tells it each time
something was lost, late, refused or put off because of it; the first time counts (`Scene.counted`).
Being told draws nothing and asks the clock for nothing: what is counted changes no run.
"""
from __future__ import annotations

from collections.abc import Callable, Hashable

Met = Callable[[], None]


def nobody() -> None:
    """Is told of a fault that is not counted: a test's own."""


class Waiting:
    """The faults that are on and met nothing yet, by what would meet them."""

    def __init__(self) -> None:
        self._waiting: dict[Hashable, list[Met]] = {}

    def add(self, key: Hashable, met: Met) -> None:
        """One more, beside those that do the same there already."""
        self._waiting.setdefault(key, []).append(met)

    def put(self, key: Hashable, met: Met) -> None:
        """One that takes the place of another: there is one at a time."""
        self._waiting[key] = [met]

    def over(self, key: Hashable) -> None:
        """What did that is over: those that met nothing never will."""
        self._waiting.pop(key, None)

    def meet(self, key: Hashable) -> None:
        """Something met them."""
        for met in self._waiting.pop(key, ()):
            met()


class Spans:
    """The same for faults that end by themselves, each at a time of its own."""

    def __init__(self) -> None:
        self._waiting: list[tuple[int, Met]] = []

    def add(self, until_ns: int, met: Met) -> None:
        """One that is on until then."""
        self._waiting.append((until_ns, met))

    def meet(self, at_ns: int) -> None:
        """Something met those that are still on at that time."""
        if self._waiting:
            waiting, self._waiting = self._waiting, []
            for until_ns, met in waiting:
                if until_ns > at_ns:
                    met()
