"""What a config store promises: C1-C6 of `coordination.interface`, as a suite for any of them.

    class TestMyStore(ConfigStoreSuite):
        @pytest.fixture
        def connect(self, tmp_path):
            return lambda: MyStore(tmp_path)     # every call: one more door to the same store

The store is empty when a test begins. A store that only one process can see may return the
same object from every call. Three more fixtures are optional: `unavailable`, `outcome_unknown`
and `race_s`.

Where threads race (C1) they begin together, take turns at every few instructions, and go on until
CONFLICTS swaps were lost to another thread or `race_s` seconds are over. Answers that C4 and C5
allow fail no race. A race in which hardly a swap was lost shows nothing: it is skipped, and says so.
"""
from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from random import Random
from typing import TypeVar

import pytest

from repstore import errors
from repstore.coordination.interface import ABSENT, KEY_BYTES_MAX, VALUE_BYTES_MAX, ConfigStore
from repstore.coordination.memory import MemoryConfigStore

Connect = Callable[[], ConfigStore]
Fault = Callable[[ConfigStore], AbstractContextManager[object]]

Answer = TypeVar("Answer")

RACERS = 4                # threads
RACE_S = 1.0              # at most
CONFLICTS = 200           # end a race: stores that check and write apart were caught with far fewer
CONFLICTS_LEAST = 5       # or nobody raced
SWITCH_S = 1e-5           # how long a thread goes on while another one wants to
MODEL_SEEDS = 20
MODEL_STEPS = 25
BAD_KEYS = ["", "x" * (KEY_BYTES_MAX + 1), "\u00e9" * (KEY_BYTES_MAX // 2 + 1), "a\0b"]


class ConfigStoreSuite:
    """Derive, give `connect`, run pytest."""

    @pytest.fixture
    def connect(self) -> Connect:
        """Gives doors to one store that is empty at first; what it opened it closes."""
        raise NotImplementedError("a ConfigStoreSuite needs the fixture `connect`")

    @pytest.fixture
    def unavailable(self) -> Fault:
        """While it is entered, the given store cannot be changed through that door (C5)."""
        pytest.skip("no fixture `unavailable` is given")

    @pytest.fixture
    def outcome_unknown(self) -> Fault:
        """While it is entered, a change through that door loses its answer (C4)."""
        pytest.skip("no fixture `outcome_unknown` is given")

    @pytest.fixture
    def race_s(self) -> float:
        """Seconds for which threads race at most; more for a store that answers slowly."""
        return RACE_S

    @pytest.fixture
    def store(self, connect: Connect) -> ConfigStore:
        """One door."""
        return connect()

    # --------------------------------------------------------------- compare-and-swap
    def test_an_absent_key(self, store: ConfigStore) -> None:
        assert store.get("volumes/a") is None
        assert store.list("") == {}
        assert store.watch(0) == ()
        assert not store.delete("volumes/a", 1)
        assert store.compare_and_swap("volumes/a", 1, b"x") is None

    def test_a_swap_succeeds_only_at_the_expected_revision(self, store: ConfigStore) -> None:
        first = swapped(store, "k", ABSENT, b"1")
        assert store.compare_and_swap("k", ABSENT, b"x") is None
        second = swapped(store, "k", first, b"2")
        assert second > first
        assert store.compare_and_swap("k", first, b"x") is None
        assert content(store) == {"k": (b"2", second)}

    def test_a_delete_succeeds_only_at_the_expected_revision(self, store: ConfigStore) -> None:
        first = swapped(store, "k", ABSENT, b"1")
        assert not store.delete("k", first + 1)
        assert not store.delete("k", ABSENT)
        assert store.delete("k", first)
        assert not store.delete("k", first)
        assert store.get("k") is None

    def test_revisions_never_come_back(self, store: ConfigStore) -> None:
        """C2: across deletes and re-creations, and over all keys of the store."""
        first = swapped(store, "k", ABSENT, b"1")
        assert store.delete("k", first)
        assert store.compare_and_swap("k", first, b"x") is None
        other = swapped(store, "other", ABSENT, b"1")
        again = swapped(store, "k", ABSENT, b"1")
        assert first < other < again
        assert other > first + 1              # the delete took a revision too

    def test_a_value_comes_back_byte_for_byte(self, store: ConfigStore) -> None:
        values = {"none": b"", "zeros": bytes(100), "all": bytes(range(256)),
                  "most": b"\xff" * VALUE_BYTES_MAX}
        for key, value in values.items():
            swapped(store, key, ABSENT, value)
        assert {key: entry.value for key, entry in store.list("").items()} == values
        entry = store.get("none")
        assert entry is not None              # an empty value is a value
        assert entry.value == b""

    def test_a_bytearray_is_copied(self, store: ConfigStore) -> None:
        value = bytearray(b"before")
        swapped(store, "k", ABSENT, value)    # type: ignore[arg-type]  # callers do this
        value[:] = b"after!"
        entry = store.get("k")
        assert entry is not None
        assert entry.value == b"before"

    # ----------------------------------------------------------------- bounds and keys
    @pytest.mark.parametrize("key", BAD_KEYS)
    def test_a_bad_key_is_refused(self, store: ConfigStore, key: str) -> None:
        with pytest.raises(errors.ConfigError):
            store.compare_and_swap(key, ABSENT, b"")
        with pytest.raises(errors.ConfigError):
            store.get(key)
        with pytest.raises(errors.ConfigError):
            store.delete(key, 1)
        assert store.list("") == {}

    def test_a_value_above_the_limit_changes_nothing(self, store: ConfigStore) -> None:
        with pytest.raises(errors.ConfigError, match=str(VALUE_BYTES_MAX)):
            store.compare_and_swap("k", ABSENT, bytes(VALUE_BYTES_MAX + 1))
        assert store.get("k") is None

    def test_a_list_is_by_prefix_and_in_order(self, store: ConfigStore) -> None:
        for key in ("nodes/b", "nodes/a", "volumes/a", "nodes_", "nodes/%", "Nodes/c"):
            swapped(store, key, ABSENT, key.encode())
        assert list(store.list("nodes/")) == ["nodes/%", "nodes/a", "nodes/b"]
        assert store.list("nodes/")["nodes/a"].value == b"nodes/a"
        assert list(store.list("")) == sorted(store.list(""))
        assert len(store.list("")) == 6

    # --------------------------------------------------------------------------- watch
    def test_a_watch_tells_the_latest_state_of_what_changed(self, store: ConfigStore) -> None:
        """C6, and once it has told everything it stays quiet."""
        one, two = swapped(store, "a", ABSENT, b"1"), swapped(store, "b", ABSENT, b"1")
        assert [change.key for change in store.watch(0)] == ["a", "b"]
        assert [change.key for change in store.watch(one)] == ["b"]
        assert store.watch(two) == ()
        assert store.watch(two) == ()
        swapped(store, "a", one, b"2")
        assert store.delete("b", two)
        changes = store.watch(two)
        assert [(change.key, change.value) for change in changes] == [("a", b"2"), ("b", None)]
        assert store.watch(changes[-1].revision) == ()

    def test_a_watch_sees_changes_through_another_door(self, connect: Connect) -> None:
        mine, theirs = connect(), connect()
        assert mine.watch(0) == ()
        revision = swapped(theirs, "k", ABSENT, b"v")
        assert [(change.key, change.revision) for change in mine.watch(0)] == [("k", revision)]
        assert theirs.delete("k", revision)
        assert [(change.key, change.value) for change in mine.watch(revision)] == [("k", None)]

    # ------------------------------------------------------------------------- several
    def test_a_get_sees_every_swap_that_returned(self, connect: Connect) -> None:
        """C3, through any door."""
        mine, theirs = connect(), connect()
        revision = ABSENT
        for number in range(20):
            revision = swapped(theirs, "k", revision, str(number).encode())
            assert content(mine) == {"k": (str(number).encode(), revision)}

    def test_of_many_swaps_at_once_one_wins_each_revision(self, connect: Connect, race_s: float) -> None:
        """C1: threads count together by compare-and-swap, each through its door: nothing is lost."""
        swapped(connect(), "counter", ABSENT, b"0")
        race, won = Race(race_s), list[int]()

        def count(store: ConfigStore) -> bool:
            entry = store.get("counter")
            assert entry is not None
            value = str(int(entry.value) + 1).encode()
            revision = race.tried(partial(store.compare_and_swap, "counter", entry.revision, value))
            if revision is not None:
                won.append(revision)
            return revision is not None

        race.run([partial(count, connect()) for _ in range(RACERS)])
        assert len(set(won)) == len(won), "two won one revision (C1)"
        entry = connect().get("counter")
        assert entry is not None
        counted, unknown = int(entry.value), len(race.unknown)
        assert len(won) <= counted <= len(won) + unknown, (
            f"{len(won)} swaps won and {unknown} of unknown outcome have counted to {counted} (C1)")
        race.end()

    def test_a_key_is_created_once_and_deleted_once(self, connect: Connect, race_s: float) -> None:
        """C1: of many that find it absent exactly one makes it, of many that find it one deletes it."""
        race, made, gone = Race(race_s), list[int](), list[int]()

        def make_or_delete(store: ConfigStore) -> bool:
            entry = store.get("k")
            if entry is None:
                revision = race.tried(partial(store.compare_and_swap, "k", ABSENT, b"v"))
                made.extend([] if revision is None else [revision])
                return revision is not None
            deleted = bool(race.tried(partial(store.delete, "k", entry.revision)))
            gone.extend([entry.revision] * deleted)
            return deleted

        race.run([partial(make_or_delete, connect()) for _ in range(RACERS)])
        assert len(set(made)) == len(made), "two made it at one revision (C1)"
        assert len(set(gone)) == len(gone), "two deleted it at one revision (C1)"
        entry = connect().get("k")
        replaced = set(made) - set(gone) - ({entry.revision} if entry else set())
        assert len(replaced) <= len(race.unknown), (
            f"at {len(replaced)} revisions it was made, and neither deleted nor left (C1)")
        race.end()

    def test_a_watcher_beside_writers_forgets_nothing(self, connect: Connect) -> None:
        """C6: whatever is folded together, the last state of every key is told, in order."""
        watcher, seen = connect(), dict[str, int]()

        def write(store: ConfigStore, name: str) -> None:
            for number in range(20):
                swapped(store, f"{name}{number}", ABSENT, b"v")

        revision = 0
        with together([partial(write, connect(), name) for name in "abc"]) as writers:
            while not all(writer.done() for writer in writers) or watcher.watch(revision):
                for change in watcher.watch(revision):
                    assert change.revision > revision
                    revision = seen[change.key] = change.revision
        assert seen == {key: entry.revision for key, entry in watcher.list("").items()}
        assert len(seen) == 60

    @pytest.mark.parametrize("seed", range(MODEL_SEEDS))
    def test_it_answers_like_the_model(self, store: ConfigStore, seed: int) -> None:
        """The memory store is the model; revisions may be other numbers, in the same order."""
        random, model = Random(seed), MemoryConfigStore()
        names = {ABSENT: ABSENT}                  # revision of the model -> of the store
        for _ in range(MODEL_STEPS):
            key, expected = random.choice("ab"), random.choice(list(names))
            if random.random() < 0.7:
                value = random.randbytes(random.randrange(4))
                wanted = model.compare_and_swap(key, expected, value)
                got = store.compare_and_swap(key, names[expected], value)
                assert (got is None) == (wanted is None)
            else:
                assert store.delete(key, names[expected]) == model.delete(key, expected)
            for change in model.watch(max(names)):
                names[change.revision] = next(c.revision for c in store.watch(0) if c.key == change.key)
            assert list(names.values()) == sorted(set(names.values()))
            for seen in names:
                wanted_changes = [(c.key, c.value, names[c.revision]) for c in model.watch(seen)]
                assert [(c.key, c.value, c.revision) for c in store.watch(names[seen])] == wanted_changes
        assert content(store) == {key: (value, names[revision])
                                  for key, (value, revision) in content(model).items()}

    # -------------------------------------------------------------------------- faults
    def test_unavailable_changes_nothing(self, connect: Connect, unavailable: Fault) -> None:
        """C5."""
        store = connect()
        revision = swapped(store, "k", ABSENT, b"1")
        with unavailable(store):
            with pytest.raises(errors.UnavailableError):
                store.compare_and_swap("k", revision, b"2")
            with pytest.raises(errors.UnavailableError):
                store.delete("k", revision)
        assert content(store) == {"k": (b"1", revision)}
        swapped(store, "k", revision, b"2")       # and it goes on

    def test_an_unknown_outcome_is_settled_by_the_same_swap(
            self, connect: Connect, outcome_unknown: Fault) -> None:
        """C4: sent again it succeeds, or it conflicts and a get tells who won."""
        store, value = connect(), b"ours"
        revision = swapped(store, "k", ABSENT, b"1")
        with outcome_unknown(store), pytest.raises(errors.OutcomeUnknownError):
            store.compare_and_swap("k", revision, value)
        again = store.compare_and_swap("k", revision, value)
        entry = store.get("k")
        assert entry is not None
        assert entry.value == value
        assert entry.revision == again or again is None

    def test_what_was_swapped_outlives_the_door_that_swapped_it(self, connect: Connect) -> None:
        mine, theirs = connect(), connect()
        revision = swapped(mine, "k", ABSENT, b"v")
        mine.close()
        assert content(theirs) == {"k": (b"v", revision)}
        assert content(connect()) == {"k": (b"v", revision)}


def swapped(store: ConfigStore, key: str, expected_revision: int, value: bytes) -> int:
    """A swap that must succeed."""
    revision = store.compare_and_swap(key, expected_revision, value)
    assert revision is not None, f"{key} is not at revision {expected_revision}"
    return revision


def content(store: ConfigStore) -> dict[str, tuple[bytes, int]]:
    """Everything in it; get and list must agree."""
    listed = store.list("")
    assert listed == {key: store.get(key) for key in listed}
    return {key: (entry.value, entry.revision) for key, entry in listed.items()}


class Race:
    """Threads that change one key at once, and what they were answered."""

    def __init__(self, duration_s: float) -> None:
        """The time runs from here on."""
        self.lost: list[object] = []              # somebody else was first
        self.unknown: list[errors.OutcomeUnknownError] = []
        self._won: list[object] = []
        self._duration_s = duration_s
        self._turns_from_s = time.monotonic() + duration_s / 2
        self._end_s = time.monotonic() + duration_s
        self._turn = threading.Condition()
        self._turns = 0

    def run(self, steps: list[Callable[[], bool]]) -> None:
        """Each step again and again, in its thread; it tells whether it has won."""
        with together([partial(self._repeat, step) for step in steps]):
            pass

    def tried(self, change: Callable[[], Answer]) -> Answer | None:
        """A change that another thread may spoil: its answer, None where its outcome is unknown."""
        try:
            answer = change()
        except errors.OutcomeUnknownError as error:
            self.unknown.append(error)
            return None
        (self._won if answer else self.lost).append(answer)
        return answer

    def end(self) -> None:
        """Skips the test of a race that nobody ran."""
        lost, changes = len(self.lost), len(self.lost) + len(self._won)
        if lost < CONFLICTS_LEAST:
            pytest.skip(f"of {changes} changes in {self._duration_s} s only {lost} were lost to another "
                        "thread: whether one of many wins was not tried")

    def _repeat(self, step: Callable[[], bool]) -> None:
        try:
            while not self._is_over():
                won = False
                with suppress(errors.UnavailableError):      # C5: nothing was changed
                    won = step()
                # at first without: threads that hand over to each other are seldom both in a swap
                if time.monotonic() > self._turns_from_s:
                    self._end_turn(waits=won)
        finally:
            self._end_turn(waits=False)

    def _is_over(self) -> bool:
        return len(self.lost) >= CONFLICTS or time.monotonic() > self._end_s

    def _end_turn(self, *, waits: bool) -> None:
        """Who has won lets another one come first: it may sleep until a lock of the store is free."""
        with self._turn:
            self._turns += 1
            turns = self._turns
            self._turn.notify_all()
            if waits and not self._is_over():
                self._turn.wait_for(lambda: self._turns > turns, max(0.0, self._end_s - time.monotonic()))


@contextmanager
def together(works: list[Callable[[], object]]) -> Iterator[list[Future[object]]]:
    """One thread each; they begin together, and all are done at the end. Raises what one raised."""
    begin = threading.Barrier(len(works))

    def run(work: Callable[[], object]) -> object:
        begin.wait()
        return work()

    interval_s = sys.getswitchinterval()
    # with the usual 5 ms a swap in memory is over before another thread has looked
    sys.setswitchinterval(SWITCH_S)
    try:
        with ThreadPoolExecutor(len(works)) as threads:
            futures = [threads.submit(run, work) for work in works]
            yield futures
        for future in futures:
            future.result()
    finally:
        sys.setswitchinterval(interval_s)
