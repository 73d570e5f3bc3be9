"""Our config stores pass the suite that everybody's have to: memory, sqlite, and the simulated one."""
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random

import pytest

from repstore import config, errors
from repstore.coordination import ConfigStore, MemoryConfigStore, SqliteConfigStore
from repstore.coordination.interface import ABSENT
from repstore.sim.clock import VirtualClock
from repstore.sim.config_store import ConfigFaults, NodeConfigStore
from repstore.sim.conformance.config_store import ConfigStoreSuite, Connect, Fault
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
