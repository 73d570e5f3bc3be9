"""Our config stores pass the suite that everybody's have to: memory, sqlite, and the simulated one."""
import sqlite3
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from random import Random

import pytest

from repstore import config, errors
from repstore.coordination import ConfigStore, MemoryConfigStore, SqliteConfigStore
from repstore.coordination.interface import ABSENT, Entry
from repstore.sim.clock import VirtualClock
from repstore.sim.config_store import ConfigFaults, NodeConfigStore
from repstore.sim.conformance.config_store import RACE_S, ConfigStoreSuite, Connect, Fault, together
from repstore.sim.control_thread import ControlThread


def refuse(operation: str, key: str) -> None:
    raise errors.UnavailableError(f"{operation} {key}")


def say_nothing(operation: str, key: str) -> None:
    raise errors.OutcomeUnknownError(f"{operation} {key}")


class TestMemory(ConfigStoreSuite):
    @pytest.fixture
    def connect(self) -> Connect:
        store = MemoryConfigStore()
        return lambda: store

    @pytest.fixture
    def unavailable(self) -> Fault:
        @contextmanager
        def enter(store: ConfigStore) -> Iterator[None]:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(store, "before", refuse)
                yield
        return enter

    @pytest.fixture
    def outcome_unknown(self) -> Fault:
        @contextmanager
        def enter(store: ConfigStore) -> Iterator[None]:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(store, "after", say_nothing)
                yield
        return enter


class TestSqlite(ConfigStoreSuite):
    @pytest.fixture
    def connect(self, tmp_path: Path) -> Iterator[Connect]:
        stores: list[SqliteConfigStore] = []

        def opened() -> ConfigStore:
            stores.append(SqliteConfigStore(tmp_path / "cluster.db", create=True))
            return stores[-1]

        yield opened
        for store in stores:
            store.close()

    @pytest.fixture
    def race_s(self) -> float:
        """Who finds it locked sleeps up to 100 ms."""
        return 3.0

    @pytest.fixture
    def unavailable(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fault:
        """Another process sits in a transaction."""
        monkeypatch.setattr(config, "CONFIG_BUSY_S", 0.05)

        @contextmanager
        def enter(store: ConfigStore) -> Iterator[None]:
            other = sqlite3.connect(tmp_path / "cluster.db", isolation_level=None)
            other.execute("BEGIN IMMEDIATE")
            yield
            other.execute("COMMIT")
            other.close()
        return enter


@pytest.mark.parametrize("fate", ["done", "not done", "done later"])
class TestSimulatedDoor(ConfigStoreSuite):
    @pytest.fixture
    def connect(self, fate: str) -> Connect:
        self.clock, self.faults = VirtualClock(), ConfigFaults(Random(1))
        store = MemoryConfigStore()
        control = ControlThread(self.clock, lambda action: False, lambda: False, lambda: None)
        return lambda: NodeConfigStore(store, self.faults, "n1", self.clock, control)

    @pytest.fixture
    def unavailable(self) -> Fault:
        @contextmanager
        def enter(store: ConfigStore) -> Iterator[None]:
            self.faults.away.add("n1")
            yield
            self.faults.clear()
        return enter

    @pytest.fixture
    def outcome_unknown(self, fate: str, monkeypatch: pytest.MonkeyPatch) -> Fault:
        monkeypatch.setattr("repstore.sim.config_store.UNKNOWN_FATES", (fate,))

        @contextmanager
        def enter(store: ConfigStore) -> Iterator[None]:
            self.faults.unknown_share["n1"] = 1.0
            yield
            self.faults.clear()
        return enter


# ------------------------------------------------------ the suite sees stores that break a promise

class Forgetful(MemoryConfigStore):
    """A deleted key takes its revision with it (C2)."""

    def delete(self, key: str, expected_revision: int) -> bool:
        done = super().delete(key, expected_revision)
        if done:
            del self._entries[key]
            self._revision -= 1
        return done


class Blind(MemoryConfigStore):
    """A swap does not look (C1)."""

    def compare_and_swap(self, key: str, expected_revision: int, value: bytes) -> int | None:
        entry = self.get(key)
        return super().compare_and_swap(key, entry.revision if entry else ABSENT, value)


class Deaf(MemoryConfigStore):
    """A watch does not tell of deletes (C6)."""

    def watch(self, after_revision: int):  # type: ignore[no-untyped-def]
        return tuple(change for change in super().watch(after_revision) if change.value is not None)


@pytest.mark.parametrize(("broken", "test"), [
    (Forgetful, ConfigStoreSuite.test_revisions_never_come_back),
    (Blind, ConfigStoreSuite.test_a_swap_succeeds_only_at_the_expected_revision),
    (Deaf, ConfigStoreSuite.test_a_watch_tells_the_latest_state_of_what_changed),
])
def test_a_store_that_breaks_a_promise_fails(broken, test) -> None:  # type: ignore[no-untyped-def]
    with suppress(AssertionError):
        test(ConfigStoreSuite(), broken())
        pytest.fail(f"{broken.__name__} passes {test.__name__}")


class Unlocked(MemoryConfigStore):
    """Nothing keeps two swaps apart (C1)."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = nullcontext()  # type: ignore[assignment]


class Apart(MemoryConfigStore):
    """A swap looks under the lock, and writes under it once more (C1)."""

    def compare_and_swap(self, key: str, expected_revision: int, value: bytes) -> int | None:
        with self._lock:
            present = self._present(key)
        if expected_revision != (ABSENT if present is None else present.revision):
            return None
        with self._lock:
            self._revision += 1
            self._entries[key] = (value, self._revision)
            return self._revision


class Early(MemoryConfigStore):
    """A swap takes its revision as it looks, and is there later (C1, C6)."""

    def compare_and_swap(self, key: str, expected_revision: int, value: bytes) -> int | None:
        with self._lock:
            present = self._present(key)
            if expected_revision != (ABSENT if present is None else present.revision):
                return None
            self._revision += 1
            revision = self._revision
        with self._lock:
            self._entries[key] = (value, revision)
        return revision


each_race = pytest.mark.parametrize("race", [
    ConfigStoreSuite.test_of_many_swaps_at_once_one_wins_each_revision,
    ConfigStoreSuite.test_a_key_is_created_once_and_deleted_once])


@each_race
@pytest.mark.parametrize("broken", [Unlocked, Apart, Early])
def test_a_store_that_loses_a_swap_fails(broken: Callable[[], MemoryConfigStore], race) -> None:  # type: ignore[no-untyped-def]
    """In practically every race; a second one, for the machine may have given all time to others."""
    said = ""
    for _ in range(2):
        store = broken()
        try:
            race(ConfigStoreSuite(), lambda store=store: store, RACE_S)
        except AssertionError as error:
            said = str(error)
            break
    assert "(C1)" in said


class Orderly(MemoryConfigStore):
    """Who gets a key has it until he has changed it: nobody is ever late."""

    def __init__(self) -> None:
        super().__init__()
        self._key_lock = threading.Lock()
        self._holder = 0

    def get(self, key: str) -> Entry | None:
        if self._holder != threading.get_ident():
            self._key_lock.acquire()
            self._holder = threading.get_ident()
        return super().get(key)

    def compare_and_swap(self, key: str, expected_revision: int, value: bytes) -> int | None:
        revision = super().compare_and_swap(key, expected_revision, value)
        self._let_go()
        return revision

    def delete(self, key: str, expected_revision: int) -> bool:
        done = super().delete(key, expected_revision)
        self._let_go()
        return done

    def _let_go(self) -> None:
        if self._holder == threading.get_ident():
            self._holder = 0
            self._key_lock.release()


@each_race
def test_a_store_on_which_nobody_is_late_says_so(race) -> None:  # type: ignore[no-untyped-def]
    store = Orderly()
    with pytest.raises(pytest.skip.Exception, match=r"^of \d+ changes in 0.1 s only 0 were lost"):
        race(ConfigStoreSuite(), lambda: store, 0.1)


class Uncertain(MemoryConfigStore):
    """Every third call fails as it may: nothing was changed, or nobody knows (C4, C5)."""

    def __init__(self) -> None:
        super().__init__(before=self._refuse, after=self._say_nothing)
        self._calls = 0

    def _refuse(self, operation: str, key: str) -> None:
        self._calls += 1
        if threading.current_thread() is not threading.main_thread() and self._calls % 3 == 0:
            refuse(operation, key)

    def _say_nothing(self, operation: str, key: str) -> None:
        if threading.current_thread() is not threading.main_thread() and self._calls % 5 == 0:
            say_nothing(operation, key)


@each_race
def test_a_store_that_is_away_at_times_loses_no_race(race) -> None:  # type: ignore[no-untyped-def]
    store = Uncertain()
    race(ConfigStoreSuite(), lambda: store, RACE_S)


def test_what_a_thread_of_the_suite_raises_fails_the_test() -> None:
    """pytest itself only warns of it."""
    interval_s = sys.getswitchinterval()
    with pytest.raises(errors.UnavailableError), together([partial(refuse, "get", "k"), nobody]):
        pass
    assert sys.getswitchinterval() == interval_s


def nobody() -> None:
    """Has nothing to do."""
