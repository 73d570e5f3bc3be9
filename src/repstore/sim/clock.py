"""Virtual time: one heap of what is to happen, and the clocks that nodes read it by.

  C1 Time only moves between two actions; an action sees one time.
  C2 What is due at the same time happens in the order it was asked for: the heap never
     compares actions, and nothing depends on addresses or hashes.
  C3 Times are rounded up to the quantum: what falls into one of them happens at one time, as
     what arrives while a real loop is busy is all there in its next round.
  C4 What comes for something that stands still waits for the end of that, in the order it came,
     also when a second standstill begins before the first has ended.
"""
from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable

from repstore.sim.meeting import Met, Spans, nobody

Action = Callable[[], None]

# A machine that has been up for a while: 0 means "never" to those who keep times.
START_NS = 1_000_000_000_000
NS_PER_S = 1_000_000_000
PPM = 1_000_000


class VirtualClock:
    """The only source of time of a simulation."""

    def __init__(self, quantum_ns: int = 1) -> None:
        self.now_ns = START_NS
        self.quantum_ns = quantum_ns
        self._due: list[tuple[int, int, Action]] = []
        self._asked = 0

    @property
    def now_s(self) -> float:
        """Seconds, as control code counts them."""
        return self.now_ns / NS_PER_S

    def at(self, time_ns: int, action: Action) -> None:
        """Have `action` happen at `time_ns`, or now if that has passed."""
        self._asked += 1
        time_ns = -(-time_ns // self.quantum_ns) * self.quantum_ns
        heapq.heappush(self._due, (max(time_ns, self.now_ns), self._asked, action))

    def after(self, delay_ns: int, action: Action) -> None:
        """Have `action` happen that much later."""
        self.at(self.now_ns + delay_ns, action)

    def soon(self, action: Action) -> None:
        """Have `action` happen at this time, after all that is due at this time already."""
        self._asked += 1
        heapq.heappush(self._due, (self.now_ns, self._asked, action))

    def step(self, until_ns: int) -> bool:
        """Let the next thing happen, if one is due by `until_ns`. False: time is there now."""
        if not self._due or self._due[0][0] > until_ns:
            self.now_ns = max(self.now_ns, until_ns)
            return False
        self.now_ns, _, action = heapq.heappop(self._due)
        action()
        return True


class NodeClock:
    """What one machine's CLOCK_BOOTTIME says: it may run fast or slow, and it may step."""

    def __init__(self, clock: VirtualClock) -> None:
        self.drift_ppm = 0
        self._clock = clock
        self._since_ns = clock.now_ns        # true time of the last change of rate or step
        self._base_ns = clock.now_ns         # what it said then

    @property
    def now_ns(self) -> int:
        """What the machine believes the time is."""
        gone_ns = self._clock.now_ns - self._since_ns
        return self._base_ns + gone_ns + gone_ns * self.drift_ppm // PPM

    @property
    def now_s(self) -> float:
        """The same in seconds."""
        return self.now_ns / NS_PER_S

    def true_ns(self, local_ns: int) -> int:
        """When this clock will say `local_ns`, if nobody touches it; never too early."""
        left_ns = max(0, local_ns - self.now_ns)
        return self._clock.now_ns + (left_ns * PPM if not self.drift_ppm else
                                     left_ns * PPM * PPM // (PPM + self.drift_ppm) + PPM) // PPM

    def set_drift(self, drift_ppm: int) -> None:
        """From now on it gains (or loses) that many millionths."""
        self._base_ns, self._since_ns = self.now_ns, self._clock.now_ns
        self.drift_ppm = drift_ppm

    def step(self, step_ns: int) -> None:
        """Put it forward (or back) at once."""
        self._base_ns, self._since_ns = self.now_ns + step_ns, self._clock.now_ns


class Standstill:
    """The times in which something does nothing, and what came for it meanwhile (C4)."""

    def __init__(self, clock: VirtualClock) -> None:
        self._clock = clock
        self._until_ns = 0
        self._waiting: deque[Action] = deque()
        self._spans = Spans()                # met when something has to wait
        self._catching_up = False

    @property
    def is_on(self) -> bool:
        """Whether nothing is done now."""
        return self._until_ns > self._clock.now_ns

    def last_until(self, until_ns: int, met: Met = nobody) -> None:
        """Stand still from now until then, or longer if that was asked for."""
        self._until_ns = max(self._until_ns, until_ns)
        self._spans.add(until_ns, met)

    def put_off(self, action: Action) -> bool:
        """Whether `action` has to wait; if so, it is called again when its turn has come."""
        if self._catching_up or not (self.is_on or self._waiting):
            return False
        self._spans.meet(self._clock.now_ns)
        if not self._waiting:
            self._clock.at(self._until_ns, self._catch_up)
        self._waiting.append(action)
        return True

    def _catch_up(self) -> None:
        if self.is_on:
            self._clock.at(self._until_ns, self._catch_up)
            return
        self._catching_up = True
        while self._waiting:
            self._waiting.popleft()()
        self._catching_up = False
