"""Virtual time: one heap of what is to happen, for everything of one simulation.

  C1 Time only moves between two actions; an action sees one time.
  C2 What is due at the same time happens in the order it was asked for: the heap never
     compares actions, and nothing depends on addresses or hashes.
"""
from __future__ import annotations

import heapq
from collections.abc import Callable

Action = Callable[[], None]

# A machine that has been up for a while: 0 means "never" to those who keep times.
START_NS = 1_000_000_000_000
NS_PER_S = 1_000_000_000


class VirtualClock:
    """The only clock of a simulation."""

    def __init__(self) -> None:
        self.now_ns = START_NS
        self._due: list[tuple[int, int, Action]] = []
        self._asked = 0

    @property
    def now_s(self) -> float:
        """Seconds, as control code counts them."""
        return self.now_ns / NS_PER_S

    def at(self, time_ns: int, action: Action) -> None:
        """Have `action` happen at `time_ns`, or now if that has passed."""
        self._asked += 1
        heapq.heappush(self._due, (max(time_ns, self.now_ns), self._asked, action))

    def after(self, delay_ns: int, action: Action) -> None:
        """Have `action` happen that much later."""
        self.at(self.now_ns + delay_ns, action)

    def step(self, until_ns: int) -> bool:
        """Let the next thing happen, if one is due by `until_ns`. False: time is there now."""
        if not self._due or self._due[0][0] > until_ns:
            self.now_ns = max(self.now_ns, until_ns)
            return False
        self.now_ns, _, action = heapq.heappop(self._due)
        action()
        return True
