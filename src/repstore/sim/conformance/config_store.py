"""What a config store promises: C1-C6 of `coordination.interface`, as a suite for any of them.

    class TestMyStore(ConfigStoreSuite):
        @pytest.fixture
        def connect(self, tmp_path):
            return lambda: MyStore(tmp_path)     # every call: one more door to the same store

The store is empty when a test begins. A store that only one process can see may return the
same object from every call. Two more fixtures are optional: `unavailable` and `outcome_unknown`.
"""
from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from random import Random

import pytest

from repstore import errors
from repstore.coordination.interface import ABSENT, KEY_BYTES_MAX, VALUE_BYTES_MAX, ConfigStore
from repstore.coordination.memory import MemoryConfigStore

Connect = Callable[[], ConfigStore]
Fault = Callable[[ConfigStore], AbstractContextManager[object]]

COUNTERS = 4              # threads that count together
COUNT_EACH = 25
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

    def test_of_many_swaps_at_once_one_wins_each_revision(self, connect: Connect) -> None:
        """C1: threads count together by compare-and-swap, each through its door: nothing is lost."""
        swapped(connect(), "counter", ABSENT, b"0")
        won: list[int] = []

        def count(store: ConfigStore) -> None:
            done = 0
            while done < COUNT_EACH:
                entry = store.get("counter")
                assert entry is not None
                value = str(int(entry.value) + 1).encode()
                revision = store.compare_and_swap("counter", entry.revision, value)
                if revision is not None:
                    won.append(revision)
                    done += 1

        in_threads([partial(count, connect()) for _ in range(COUNTERS)])
        assert len(set(won)) == len(won) == COUNTERS * COUNT_EACH
        entry = connect().get("counter")
        assert entry is not None
        assert entry.value == str(COUNTERS * COUNT_EACH).encode()

    def test_a_key_is_created_once(self, connect: Connect) -> None:
        """C1: of many that find it absent exactly one makes it."""
        won: list[tuple[str, bool]] = []

        def create(store: ConfigStore, key: str) -> None:
            won.append((key, store.compare_and_swap(key, ABSENT, b"v") is not None))

        keys = [f"k{number}" for number in range(10)]
        for key in keys:
            in_threads([partial(create, connect(), key) for _ in range(COUNTERS)])
        assert sorted(key for key, is_ours in won if is_ours) == keys
        assert len(won) == COUNTERS * len(keys)

    def test_a_watcher_beside_writers_forgets_nothing(self, connect: Connect) -> None:
        """C6: whatever is folded together, the last state of every key is told, in order."""
        watcher, seen = connect(), dict[str, int]()

        def write(store: ConfigStore, name: str) -> None:
            for number in range(20):
                swapped(store, f"{name}{number}", ABSENT, b"v")

        threads = started([partial(write, connect(), name) for name in "abc"])
        revision = 0
        while any(thread.is_alive() for thread in threads) or watcher.watch(revision):
            for change in watcher.watch(revision):
                assert change.revision > revision
                revision = seen[change.key] = change.revision
        for thread in threads:
            thread.join()
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


def started(works: list[Callable[[], object]]) -> list[threading.Thread]:
    """One thread each."""
    threads = [threading.Thread(target=work) for work in works]
    for thread in threads:
        thread.start()
    return threads


def in_threads(works: list[Callable[[], object]]) -> None:
    """All at once, until all are done."""
    for thread in started(works):
        thread.join()
