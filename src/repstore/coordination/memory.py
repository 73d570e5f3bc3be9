"""A ConfigStore in memory: for tests and the simulator.

Faults are asked for through one hook, called before and after every operation, so the
product path carries no test flags: `before` may raise UnavailableError (nothing
happened, C5), `after` may raise OutcomeUnknownError (it did happen, nobody was told).
"""
from __future__ import annotations

import threading
from collections.abc import Callable

from repstore.coordination.interface import ABSENT, Change, Entry, check_key, check_value

Hook = Callable[[str, str], None]      # (operation, key); raises to inject a fault


def no_fault(operation: str, key: str) -> None:
    """The hook of a store that never fails."""


class MemoryConfigStore:
    """A dictionary with revisions."""

    def __init__(self, before: Hook = no_fault, after: Hook = no_fault) -> None:
        self._entries: dict[str, tuple[bytes | None, int]] = {}    # None: deleted
        self._revision = 0
        self._lock = threading.Lock()
        self.before = before
        self.after = after

    def get(self, key: str) -> Entry | None:
        check_key(key)
        self.before("get", key)
        with self._lock:
            return self._present(key)

    def compare_and_swap(self, key: str, expected_revision: int, value: bytes) -> int | None:
        check_key(key)
        check_value(value)
        self.before("compare_and_swap", key)
        with self._lock:
            revision = self._write(key, expected_revision, bytes(value))
        self.after("compare_and_swap", key)
        return revision

    def delete(self, key: str, expected_revision: int) -> bool:
        check_key(key)
        self.before("delete", key)
        with self._lock:
            exists = self._present(key) is not None
            done = exists and self._write(key, expected_revision, None) is not None
        self.after("delete", key)
        return done

    def list(self, prefix: str) -> dict[str, Entry]:
        self.before("list", prefix)
        with self._lock:
            return {key: Entry(value, revision)
                    for key, (value, revision) in sorted(self._entries.items())
                    if value is not None and key.startswith(prefix)}

    def watch(self, after_revision: int) -> tuple[Change, ...]:
        self.before("watch", "")
        with self._lock:
            changes = [Change(key, value, revision)
                       for key, (value, revision) in self._entries.items()
                       if revision > after_revision]
        return tuple(sorted(changes, key=lambda change: change.revision))

    def close(self) -> None:
        """Nothing to give back."""

    def _present(self, key: str) -> Entry | None:
        value, revision = self._entries.get(key, (None, ABSENT))
        return None if value is None else Entry(value, revision)

    def _write(self, key: str, expected_revision: int, value: bytes | None) -> int | None:
        present = self._present(key)
        if expected_revision != (ABSENT if present is None else present.revision):
            return None
        self._revision += 1
        self._entries[key] = (value, self._revision)
        return self._revision
