"""A ConfigStore in one sqlite file: the embedded default, for nodes of one machine.

  S1 Every change is ONE statement in autocommit mode: a process that is stopped or
     killed at any instruction cannot sit in an open transaction and block the others.
  S2 synchronous=FULL: a swap that returned survives power loss. The journal is WAL:
     readers never wait for a writer, and one fsync makes a change durable.
  S3 A deleted key stays as a row without value, so that the revision counter
     (the largest revision in the table) never falls (C2) and watchers see the delete.
  S4 Waiting for another writer is bounded (CONFIG_BUSY_S); running out of it changed
     nothing and says so (UnavailableError).
"""
from __future__ import annotations

import sqlite3
import threading
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from repstore import config, errors
from repstore.coordination.interface import ABSENT, Change, Entry, check_key, check_value

_SCHEMA = """CREATE TABLE IF NOT EXISTS config (
    key TEXT PRIMARY KEY, value BLOB, revision INTEGER NOT NULL UNIQUE) WITHOUT ROWID"""
_NEXT = "(SELECT coalesce(max(revision), 0) + 1 FROM config)"
_CREATE = f"""INSERT INTO config (key, value, revision) VALUES (?, ?, {_NEXT})
    ON CONFLICT (key) DO UPDATE SET value = excluded.value, revision = excluded.revision
    WHERE config.value IS NULL RETURNING revision"""
_REPLACE = f"""UPDATE config SET value = ?, revision = {_NEXT}
    WHERE key = ? AND revision = ? AND value IS NOT NULL RETURNING revision"""
_GET = "SELECT value, revision FROM config WHERE key = ? AND value IS NOT NULL"
_LIST = """SELECT key, value, revision FROM config
    WHERE substr(key, 1, ?) = ? AND value IS NOT NULL ORDER BY key"""
_WATCH = "SELECT key, value, revision FROM config WHERE revision > ? ORDER BY revision"

# sqlite gave up before it wrote anything; all other failures of a write leave it open
_UNCHANGED = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_CANTOPEN,
              sqlite3.SQLITE_READONLY)


class SqliteConfigStore:
    """The config database of a cluster directory. One connection a thread."""

    def __init__(self, path: str | Path, *, create: bool = False) -> None:
        self._path = Path(path)
        self._local = threading.local()
        self._connections: deque[sqlite3.Connection] = deque()
        self._lock = threading.Lock()
        self._closed = False
        if not create and not self._path.is_file():
            raise errors.NotFoundError(f"{self._path}: no cluster database there")
        try:
            connection = self._connection()
            connection.execute("PRAGMA journal_mode = WAL").fetchone()
            connection.execute(_SCHEMA)
        except sqlite3.DatabaseError as error:
            self.close()
            raise _translated(error, self._path, writing=False) from error

    def get(self, key: str) -> Entry | None:
        check_key(key)
        rows = self._read(_GET, (key,))
        return Entry(bytes(rows[0][0]), rows[0][1]) if rows else None

    def compare_and_swap(self, key: str, expected_revision: int, value: bytes) -> int | None:
        check_key(key)
        check_value(value)
        if expected_revision == ABSENT:
            return self._write(_CREATE, (key, bytes(value)))
        return self._write(_REPLACE, (bytes(value), key, expected_revision))

    def delete(self, key: str, expected_revision: int) -> bool:
        check_key(key)
        return self._write(_REPLACE, (None, key, expected_revision)) is not None

    def list(self, prefix: str) -> dict[str, Entry]:
        rows = self._read(_LIST, (len(prefix), prefix))
        return {key: Entry(bytes(value), revision) for key, value, revision in rows}

    def watch(self, after_revision: int) -> tuple[Change, ...]:
        """A poll costs one pragma (it reads the WAL index) while nothing changes."""
        version = self._read("PRAGMA data_version", ())[0][0]
        seen = (version, getattr(self._local, "own_changes", 0), after_revision)
        if seen == getattr(self._local, "quiet_at", None):
            return ()
        rows = self._read(_WATCH, (after_revision,))
        # data_version was read first: a change in between is looked at twice, not missed
        self._local.quiet_at = seen if not rows else None
        return tuple(Change(key, None if value is None else bytes(value), revision)
                     for key, value, revision in rows)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            connections, self._connections = self._connections, deque()
        for connection in connections:
            connection.close()

    def _connection(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None or self._closed:
            with self._lock:
                if self._closed:
                    raise errors.UnavailableError(f"{self._path}: the config store was closed")
                connection = sqlite3.connect(
                    self._path, timeout=config.CONFIG_BUSY_S, isolation_level=None,
                    check_same_thread=False)
                self._connections.append(connection)
            connection.execute("PRAGMA synchronous = FULL")
            self._local.connection = connection
        return connection

    def _read(self, statement: str, parameters: tuple[object, ...]) -> Sequence[Any]:
        try:
            return self._connection().execute(statement, parameters).fetchall()
        except sqlite3.Error as error:
            raise _translated(error, self._path, writing=False) from error

    def _write(self, statement: str, parameters: tuple[object, ...]) -> int | None:
        try:
            # fetchall: the statement, and with it the transaction, ends here (S1)
            rows = self._connection().execute(statement, parameters).fetchall()
        except sqlite3.Error as error:
            raise _translated(error, self._path, writing=True) from error
        # data_version does not count this connection's own changes
        self._local.own_changes = getattr(self._local, "own_changes", 0) + 1
        return rows[0][0] if rows else None


def _translated(error: sqlite3.Error, path: Path, *, writing: bool) -> errors.RepstoreError:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
        return errors.CorruptionError(f"{path}", "a sqlite database", str(error))
    if not writing or code in _UNCHANGED:
        return errors.UnavailableError(f"{path}: {error}")
    return errors.OutcomeUnknownError(f"{path}: {error}; the change may have been made")
