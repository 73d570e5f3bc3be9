"""Every ConfigStore keeps the promises C1-C6 of `coordination.interface`: one suite, all stores."""
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from repstore import errors
from repstore.coordination import ConfigStore, MemoryConfigStore, SqliteConfigStore
from repstore.coordination.interface import ABSENT, KEY_BYTES_MAX, VALUE_BYTES_MAX

Maker = Callable[[], ConfigStore]


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ConfigStore]:
    made = (MemoryConfigStore() if request.param == "memory"
            else SqliteConfigStore(tmp_path / "cluster.db", create=True))
    yield made
    made.close()


def test_absent_key(store: ConfigStore) -> None:
    assert store.get("volumes/a") is None
    assert store.list("") == {}
    assert store.watch(0) == ()
    assert not store.delete("volumes/a", 1)


def test_swap_succeeds_only_at_the_expected_revision(store: ConfigStore) -> None:
    first = store.compare_and_swap("k", ABSENT, b"1")
    assert first is not None
    assert store.compare_and_swap("k", ABSENT, b"x") is None
    second = store.compare_and_swap("k", first, b"2")
    assert second is not None
    assert second > first
    assert store.compare_and_swap("k", first, b"x") is None
    entry = store.get("k")
    assert entry is not None
    assert (entry.value, entry.revision) == (b"2", second)


def test_revisions_never_come_back(store: ConfigStore) -> None:
    first = store.compare_and_swap("k", ABSENT, b"1")
    assert first is not None
    assert not store.delete("k", first + 1)
    assert store.delete("k", first)
    assert not store.delete("k", first)
    assert store.get("k") is None
    assert store.compare_and_swap("k", first, b"x") is None
    again = store.compare_and_swap("k", ABSENT, b"1")
    assert again is not None
    assert again > first + 1          # the delete took a revision too


def test_list_is_by_prefix_and_ordered(store: ConfigStore) -> None:
    for key in ("nodes/b", "nodes/a", "volumes/a", "nodes_", "nodes/%"):
        store.compare_and_swap(key, ABSENT, key.encode())
    assert list(store.list("nodes/")) == ["nodes/%", "nodes/a", "nodes/b"]
    assert store.list("nodes/")["nodes/a"].value == b"nodes/a"
    assert len(store.list("")) == 5


def test_watch_tells_the_latest_state_of_what_changed(store: ConfigStore) -> None:
    one = store.compare_and_swap("a", ABSENT, b"1")
    two = store.compare_and_swap("b", ABSENT, b"1")
    assert one is not None
    assert two is not None
    assert [change.key for change in store.watch(0)] == ["a", "b"]
    assert store.watch(two) == ()
    assert store.watch(two) == ()                 # and stays quiet
    store.compare_and_swap("a", one, b"2")
    store.delete("b", two)
    changes = store.watch(two)
    assert [(change.key, change.value) for change in changes] == [("a", b"2"), ("b", None)]
    assert store.watch(changes[-1].revision) == ()


@pytest.mark.parametrize("key", ["", "x" * (KEY_BYTES_MAX + 1), "a\0b"])
def test_bad_keys_are_refused(store: ConfigStore, key: str) -> None:
    with pytest.raises(errors.ConfigError):
        store.compare_and_swap(key, ABSENT, b"")
    with pytest.raises(errors.ConfigError):
        store.get(key)


def test_a_value_above_the_limit_changes_nothing(store: ConfigStore) -> None:
    with pytest.raises(errors.ConfigError, match=str(VALUE_BYTES_MAX)):
        store.compare_and_swap("k", ABSENT, bytes(VALUE_BYTES_MAX + 1))
    assert store.get("k") is None
    assert store.compare_and_swap("k", ABSENT, bytes(VALUE_BYTES_MAX)) is not None


def test_of_many_swaps_at_once_one_wins_each_revision(store: ConfigStore) -> None:
    """Four threads count to 100 together by compare-and-swap: no increment is lost."""
    store.compare_and_swap("counter", ABSENT, b"0")

    def count() -> None:
        done = 0
        while done < 25:
            entry = store.get("counter")
            assert entry is not None
            value = str(int(entry.value) + 1).encode()
            done += store.compare_and_swap("counter", entry.revision, value) is not None

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    entry = store.get("counter")
    assert entry is not None
    assert entry.value == b"100"


OPERATIONS = st.lists(st.tuples(
    st.sampled_from(["swap", "delete"]), st.sampled_from("ab"), st.integers(0, 8),
    st.binary(max_size=3)), max_size=25)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(OPERATIONS)
def test_sqlite_and_memory_answer_alike(
        tmp_path_factory: pytest.TempPathFactory,
        operations: list[tuple[str, str, int, bytes]]) -> None:
    """The memory store is the model of the sqlite one, revisions included."""
    memory = MemoryConfigStore()
    sqlite = SqliteConfigStore(tmp_path_factory.mktemp("db") / "cluster.db", create=True)
    for verb, key, revision, value in operations:
        if verb == "swap":
            assert (memory.compare_and_swap(key, revision, value)
                    == sqlite.compare_and_swap(key, revision, value))
        else:
            assert memory.delete(key, revision) == sqlite.delete(key, revision)
        for seen in range(0, 9, 3):
            assert memory.watch(seen) == sqlite.watch(seen)
    assert memory.list("") == sqlite.list("")
    sqlite.close()
