"""Virtual time: what stands still catches up in order (C4)."""
from functools import partial

from repstore.sim.clock import Standstill, VirtualClock


class Clerk:
    """Someone who writes down what comes, when not standing still."""

    def __init__(self, clock: VirtualClock) -> None:
        self.standstill = Standstill(clock)
        self.wrote: list[tuple[int, str]] = []
        self._clock = clock

    def comes(self, what: str) -> None:
        if not self.standstill.put_off(partial(self.comes, what)):
            self.wrote.append((self._clock.now_ns, what))


def settled(clock: VirtualClock) -> None:
    while clock.step(clock.now_ns + 1_000):
        pass


def test_nothing_waits_while_nothing_stands_still() -> None:
    clock = VirtualClock()
    clerk = Clerk(clock)
    clerk.comes("a")
    assert clerk.wrote == [(clock.now_ns, "a")]


def test_what_comes_in_two_standstills_that_overlap_keeps_its_order() -> None:
    clock = VirtualClock()
    clerk = Clerk(clock)
    start_ns = clock.now_ns
    clerk.standstill.last_until(start_ns + 100)
    clerk.comes("up")
    clock.at(start_ns + 50, lambda: clerk.standstill.last_until(start_ns + 300))
    clock.at(start_ns + 60, partial(clerk.comes, "down"))
    clock.at(start_ns + 200, partial(clerk.comes, "up again"))
    settled(clock)
    assert clerk.wrote == [(start_ns + 300, "up"), (start_ns + 300, "down"), (start_ns + 300, "up again")]


def test_what_comes_at_the_very_end_does_not_overtake() -> None:
    clock = VirtualClock()
    clerk = Clerk(clock)
    end_ns = clock.now_ns + 100
    clock.at(end_ns, partial(clerk.comes, "last"))      # asked for before the clock knew of the end
    clerk.standstill.last_until(end_ns)
    clerk.comes("first")
    settled(clock)
    assert clerk.wrote == [(end_ns, "first"), (end_ns, "last")]
