"""The coordination store as one node sees it: away, late, and not saying what became of a swap.

  F1 Away: UnavailableError, and nothing was changed (C5 of `coordination.interface`).
  F2 Unknown: the swap is asked for and no answer comes. It happened, or it did not, or it
     will happen a while later, when the request that is stuck somewhere gets through.
  F3 Late: a watch tells what was true a while ago. A get is never late (C3).
  F4 Slow: a request travels, and its answer does. What is asked for happens in between, also when
     the process that asked is gone by then; the control code that asked stands meanwhile.
"""
from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import TypeVar

from repstore import errors
from repstore.coordination.interface import Change, ConfigStore, Entry
from repstore.sim.clock import VirtualClock
from repstore.sim.control_thread import ControlThread
from repstore.sim.meeting import Waiting

LATE_SWAP_MOST_NS = 2_000_000_000
UNKNOWN_FATES = ("done", "not done", "done later")
Answer = TypeVar("Answer")


@dataclass
class ConfigFaults:
    """What nodes meet at the store, and since when each of its revisions is there."""
    random: Random
    away: set[str] = field(default_factory=set)            # nodes that do not reach it
    unknown_share: dict[str, float] = field(default_factory=dict)
    watch_lag_ns: dict[str, int] = field(default_factory=dict)
    slow_most_ns: dict[str, int] = field(default_factory=dict)   # a request, or an answer, travels so long
    struck: dict[str, int] = field(default_factory=dict)   # swaps by what became of them
    seen_ns: dict[int, int] = field(default_factory=dict)  # by revision: when it was first seen
    waiting: Waiting = field(default_factory=Waiting)      # faults that met no call yet, by kind and node

    def clear(self) -> None:
        """The store answers again."""
        self.away.clear()
        self.unknown_share.clear()
        self.watch_lag_ns.clear()
        self.slow_most_ns.clear()


class NodeConfigStore:
    """One node's door to the store. See `ConfigStore`."""

    def __init__(self, store: ConfigStore, faults: ConfigFaults, name: str, clock: VirtualClock,
                 control: ControlThread) -> None:
        self._store = store
        self._faults = faults
        self._name = name
        self._clock = clock
        self._control = control       # that asks

    def get(self, key: str) -> Entry | None:
        return self._ask(partial(self._store.get, key))

    def compare_and_swap(self, key: str, expected_revision: int, value: bytes) -> int | None:
        return self._ask(partial(self._swap, key, expected_revision, value))

    def delete(self, key: str, expected_revision: int) -> bool:
        return self._ask(partial(self._store.delete, key, expected_revision))

    def list(self, prefix: str) -> dict[str, Entry]:
        return self._ask(partial(self._store.list, prefix))

    def watch(self, after_revision: int) -> tuple[Change, ...]:
        return self._ask(partial(self._watch, after_revision))

    def close(self) -> None:
        """Nothing to give back."""

    def _ask(self, question: Callable[[], Answer]) -> Answer:
        """Ask it now, or while the control code stands (F4)."""
        most_ns = self._faults.slow_most_ns.get(self._name, 0)
        if not most_ns or not self._control.can_wait:
            return self._reach(question)
        there_ns, back_ns = (self._faults.random.randrange(most_ns) for _ in range(2))
        self._faults.waiting.meet(("slow", self._name))
        answer: Future[Answer] = Future()
        self._clock.after(there_ns, partial(self._answer, question, answer))
        self._control.wait(there_ns + back_ns)
        return answer.result(0)

    def _answer(self, question: Callable[[], Answer], answer: Future[Answer]) -> None:
        try:
            answer.set_result(self._reach(question))
        except errors.RepstoreError as error:
            answer.set_exception(error)

    def _reach(self, question: Callable[[], Answer]) -> Answer:
        if self._name in self._faults.away:
            self._faults.waiting.meet(("away", self._name))
            raise errors.UnavailableError(f"{self._name} does not reach the coordination store")
        return question()

    def _swap(self, key: str, expected_revision: int, value: bytes) -> int | None:
        faults = self._faults
        share = faults.unknown_share.get(self._name, 0.0)
        if not share or faults.random.random() >= share:
            return self._store.compare_and_swap(key, expected_revision, value)
        fate = faults.random.choice(UNKNOWN_FATES)
        faults.struck[fate] = faults.struck.get(fate, 0) + 1
        faults.waiting.meet(("unknown", self._name))
        swap = partial(self._store.compare_and_swap, key, expected_revision, value)
        if fate == "done":
            swap()
        elif fate == "done later":
            self._clock.after(faults.random.randrange(LATE_SWAP_MOST_NS), lambda: void(swap()))
        raise errors.OutcomeUnknownError(f"{key}: no answer")

    def _watch(self, after_revision: int) -> tuple[Change, ...]:
        changes = self._store.watch(after_revision)
        lag_ns = self._faults.watch_lag_ns.get(self._name, 0)
        if not lag_ns:
            return changes
        now_ns = self._clock.now_ns
        first_seen = [self._faults.seen_ns.setdefault(change.revision, now_ns) for change in changes]
        # a prefix: whoever has seen a revision has seen all before it
        count = next((i for i, seen_ns in enumerate(first_seen) if seen_ns + lag_ns > now_ns), len(changes))
        if count < len(changes):
            self._faults.waiting.meet(("late", self._name))
        return changes[:count]


def void(value: object) -> None:
    """What came of a late swap interests nobody."""
