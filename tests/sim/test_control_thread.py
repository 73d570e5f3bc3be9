"""Control code that stands in the middle of a decision, and a coordination store that is slow (F4)."""
import threading
from functools import partial
from random import Random

import pytest

from repstore import errors
from repstore.coordination.memory import MemoryConfigStore
from repstore.sim.clock import Standstill, VirtualClock
from repstore.sim.config_store import ConfigFaults, NodeConfigStore
from repstore.sim.control_thread import ControlThread

MS = 1_000_000
LONG_NS = 100_000 * MS


class Clerk:
    """Control code that writes down what it does, and when."""

    def __init__(self, may_wait: bool = True) -> None:
        self.clock = VirtualClock()
        self.began_ns = self.clock.now_ns
        self.threads = threading.active_count()
        self.hold = Standstill(self.clock)
        self.thread = ControlThread(self.clock, self.hold.put_off, lambda: may_wait,
                                    lambda: self.write("waits"))
        self.wrote: list[tuple[int, str]] = []

    def write(self, what: str) -> None:
        self.wrote.append(((self.clock.now_ns - self.began_ns) // MS, what))

    def work(self, name: str, *waits_ms: int) -> None:
        self.write(name + " begins")
        for wait_ms in waits_ms if self.thread.can_wait else ():
            self.thread.wait(wait_ms * MS)
            self.write(name)

    def settle(self) -> None:
        while self.clock.step(self.began_ns + LONG_NS):
            pass


def test_a_decision_stands_and_the_next_waits_for_it() -> None:
    clerk = Clerk()
    clerk.thread.decide(partial(clerk.work, "a", 10, 20))
    clerk.thread.decide(partial(clerk.work, "b"))
    clerk.clock.after(15 * MS, lambda: clerk.write("the world"))
    clerk.settle()
    assert clerk.wrote == [(0, "a begins"), (0, "waits"), (10, "a"), (10, "waits"), (15, "the world"),
                           (30, "a"), (30, "b begins")]
    assert threading.active_count() == clerk.threads


def test_what_may_not_wait_takes_no_time_and_no_thread() -> None:
    clerk = Clerk(may_wait=False)
    clerk.thread.decide(partial(clerk.work, "a", 10))
    clerk.thread.decide(lambda: clerk.write(threading.current_thread().name))
    assert clerk.wrote == [(0, "a begins"), (0, threading.main_thread().name)]


def test_it_does_not_go_on_while_it_is_held() -> None:
    clerk = Clerk()
    clerk.thread.decide(partial(clerk.work, "a", 10))
    clerk.hold.last_until(clerk.began_ns + 50 * MS)
    clerk.settle()
    assert clerk.wrote == [(0, "a begins"), (0, "waits"), (50, "a")]


def test_an_end_ends_it_where_it_stands() -> None:
    clerk = Clerk()
    cleared: list[str] = []

    def work() -> None:
        try:
            clerk.work("a", 10)
        except Exception:
            cleared.append("an error that could be handled")
        finally:
            cleared.append("ended")

    clerk.thread.decide(work)
    clerk.thread.decide(partial(clerk.work, "b"))
    clerk.thread.end()
    clerk.settle()
    assert clerk.wrote == [(0, "a begins"), (0, "waits")]
    assert cleared == ["ended"]
    assert threading.active_count() == clerk.threads


def test_it_can_end_itself() -> None:
    clerk = Clerk()

    def work() -> None:
        clerk.work("a", 10)
        clerk.thread.end()

    clerk.thread.decide(work)
    clerk.thread.decide(partial(clerk.work, "b"))
    clerk.settle()
    assert clerk.wrote == [(0, "a begins"), (0, "waits"), (10, "a")]


def test_an_error_comes_out_where_time_goes_on() -> None:
    clerk = Clerk()

    def work() -> None:
        clerk.work("a", 10)
        raise ValueError("a mistake")

    clerk.thread.decide(work)
    with pytest.raises(ValueError, match="a mistake"):
        clerk.settle()


# ------------------------------------------------------------------------------- the slow store

def slow_door(clerk: Clerk) -> tuple[MemoryConfigStore, ConfigFaults, NodeConfigStore]:
    store, faults = MemoryConfigStore(), ConfigFaults(Random(1))
    faults.slow_most_ns["n1"] = 1000 * MS
    return store, faults, NodeConfigStore(store, faults, "n1", clerk.clock, clerk.thread)


def test_a_slow_swap_happens_while_its_asker_stands() -> None:
    clerk = Clerk()
    store, _, door = slow_door(clerk)
    clerk.thread.decide(lambda: clerk.write(f"revision {door.compare_and_swap('key', 0, b'value')}"))
    seen_ns = 0
    while clerk.clock.step(clerk.began_ns + LONG_NS):
        seen_ns = seen_ns or (clerk.clock.now_ns if store.get("key") else 0)
    [_, (answered_ms, told)] = clerk.wrote
    assert told == "revision 1"
    assert 0 < (seen_ns - clerk.began_ns) // MS < answered_ms


def test_a_slow_swap_happens_also_when_its_asker_is_gone() -> None:
    clerk = Clerk()
    store, _, door = slow_door(clerk)
    clerk.thread.decide(lambda: clerk.write(f"revision {door.compare_and_swap('key', 0, b'value')}"))
    clerk.thread.end()
    assert store.get("key") is None
    clerk.settle()
    entry = store.get("key")
    assert entry is not None
    assert entry.value == b"value"
    assert clerk.wrote == [(0, "waits")]


def test_a_slow_store_that_is_away_says_so_late() -> None:
    clerk = Clerk()
    _, faults, door = slow_door(clerk)
    faults.away.add("n1")

    def work() -> None:
        with pytest.raises(errors.UnavailableError, match="n1 does not reach"):
            door.watch(0)
        clerk.write("told")

    clerk.thread.decide(work)
    clerk.settle()
    [_, (told_ms, _)] = clerk.wrote
    assert told_ms > 0
