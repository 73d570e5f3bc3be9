"""The coordination store as one node sees it: away, late, and not saying what became of a swap.

  F1 Away: UnavailableError, and nothing was changed (C5 of `coordination.interface`).
  F2 Unknown: the swap is asked for and no answer comes. It happened, or it did not, or it
     will happen a while later, when the request that is stuck somewhere gets through.
  F3 Late: a watch tells what was true a while ago. A get is never late (C3).
"""
from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from random import Random

from repstore import errors
from repstore.coordination.interface import Change, ConfigStore, Entry
from repstore.sim.clock import VirtualClock

LATE_SWAP_MOST_NS = 2_000_000_000
UNKNOWN_FATES = ("done", "not done", "done later")


@dataclass
class ConfigFaults:
    """What nodes meet at the store, and since when each of its revisions is there."""
    random: Random
    away: set[str] = field(default_factory=set)            # nodes that do not reach it
    unknown_share: dict[str, float] = field(default_factory=dict)
    watch_lag_ns: dict[str, int] = field(default_factory=dict)
    struck: dict[str, int] = field(default_factory=dict)   # swaps by what became of them
    seen_ns: dict[int, int] = field(default_factory=dict)  # by revision: when it was first seen

    def clear(self) -> None:
        """The store answers again."""
        self.away.clear()
        self.unknown_share.clear()
        self.watch_lag_ns.clear()


class NodeConfigStore:
    """One node's door to the store. See `ConfigStore`."""

    def __init__(self, store: ConfigStore, faults: ConfigFaults, name: str, clock: VirtualClock) -> None:
        self._store = store
        self._faults = faults
        self._name = name
        self._clock = clock

    def get(self, key: str) -> Entry | None:
        self._reach()
        return self._store.get(key)

    def compare_and_swap(self, key: str, expected_revision: int, value: bytes) -> int | None:
        self._reach()
        faults = self._faults
        share = faults.unknown_share.get(self._name, 0.0)
        if not share or faults.random.random() >= share:
            return self._store.compare_and_swap(key, expected_revision, value)
        fate = faults.random.choice(UNKNOWN_FATES)
        faults.struck[fate] = faults.struck.get(fate, 0) + 1
        swap = partial(self._store.compare_and_swap, key, expected_revision, value)
        if fate == "done":
            swap()
        elif fate == "done later":
            self._clock.after(faults.random.randrange(LATE_SWAP_MOST_NS), lambda: void(swap()))
        raise errors.OutcomeUnknownError(f"{key}: no answer")

    def delete(self, key: str, expected_revision: int) -> bool:
        self._reach()
        return self._store.delete(key, expected_revision)

    def list(self, prefix: str) -> dict[str, Entry]:
        self._reach()
        return self._store.list(prefix)

    def watch(self, after_revision: int) -> tuple[Change, ...]:
        self._reach()
        changes = self._store.watch(after_revision)
        lag_ns = self._faults.watch_lag_ns.get(self._name, 0)
        if not lag_ns:
            return changes
        now_ns = self._clock.now_ns
        first_seen = [self._faults.seen_ns.setdefault(change.revision, now_ns) for change in changes]
        # a prefix: whoever has seen a revision has seen all before it
        count = next((i for i, seen_ns in enumerate(first_seen) if seen_ns + lag_ns > now_ns), len(changes))
        return changes[:count]

    def close(self) -> None:
        """Nothing to give back."""

    def _reach(self) -> None:
        if self._name in self._faults.away:
            raise errors.UnavailableError(f"{self._name} does not reach the coordination store")


def void(value: object) -> None:
    """What came of a late swap interests nobody."""
