"""What only the sqlite store can get wrong: other processes, stopped writers, foreign files."""
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from repstore import config, errors
from repstore.coordination.interface import ABSENT
from repstore.coordination.sqlite import SqliteConfigStore


def test_a_directory_without_a_database(tmp_path: Path) -> None:
    with pytest.raises(errors.NotFoundError, match=r"cluster\.db"):
        SqliteConfigStore(tmp_path / "cluster.db")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.fault("coordination: a file that is no database", promise="refused, and left as it is")
def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "cluster.db"
    path.write_bytes(b"not a database" * 400)
    with pytest.raises(errors.CorruptionError, match="sqlite database"):
        SqliteConfigStore(path)
    assert path.read_bytes() == b"not a database" * 400


def test_what_was_swapped_is_there_after_reopening(tmp_path: Path) -> None:
    path = tmp_path / "cluster.db"
    first = SqliteConfigStore(path, create=True)
    revision = first.compare_and_swap("k", ABSENT, b"v")
    first.close()
    second = SqliteConfigStore(path)
    entry = second.get("k")
    assert entry is not None
    assert (entry.value, entry.revision) == (b"v", revision)
    second.close()
    with pytest.raises(errors.UnavailableError, match="closed"):
        second.get("k")


def test_a_watcher_sees_another_connection(tmp_path: Path) -> None:
    path = tmp_path / "cluster.db"
    mine, theirs = SqliteConfigStore(path, create=True), SqliteConfigStore(path)
    assert mine.watch(0) == ()
    revision = theirs.compare_and_swap("k", ABSENT, b"v")
    assert [change.revision for change in mine.watch(0)] == [revision]
    mine.close()
    theirs.close()


@pytest.mark.fault("coordination: not reachable", promise="nothing was changed, and it is said")
def test_a_locked_database_changes_nothing_and_says_so(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "CONFIG_BUSY_S", 0.05)
    path = tmp_path / "cluster.db"
    store = SqliteConfigStore(path, create=True)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(errors.UnavailableError):
        store.compare_and_swap("k", ABSENT, b"v")
    assert store.get("k") is None             # readers are not held up
    other.execute("COMMIT")
    other.close()
    assert store.compare_and_swap("k", ABSENT, b"v") is not None
    store.close()


WRITER = """
import sys
import time
from repstore.coordination.sqlite import SqliteConfigStore
store = SqliteConfigStore(sys.argv[1])
print("ready", flush=True)
revision = 0
while True:
    revision = store.compare_and_swap("theirs", revision, b"x" * 2000)
    time.sleep(0.002)    # sqlite's lock is not fair: a writer without a pause starves others
"""


@pytest.mark.fault("coordination: a writer that is stopped", promise="nobody waits for it for ever")
def test_a_stopped_writer_never_holds_the_database(tmp_path: Path) -> None:
    """S1: SIGSTOP at any instruction of a busy writer leaves no lock to wait for.

    It may be stopped inside the one statement itself; then the wait is bounded and the
    writer, once it goes on, finishes. So most stops must not hold us up, and none for ever.
    """
    path = tmp_path / "cluster.db"
    store = SqliteConfigStore(path, create=True)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path)],
                              stdout=subprocess.PIPE, env=environment)
    assert writer.stdout is not None
    try:
        assert writer.stdout.readline() == b"ready\n"
        revision: int | None = ABSENT
        for _ in range(20):
            os.kill(writer.pid, signal.SIGSTOP)
            entry = store.get("theirs")        # reads never wait
            assert entry is None or len(entry.value) == 2000
            os.kill(writer.pid, signal.SIGCONT)
            assert revision is not None
            revision = store.compare_and_swap("mine", revision, b"y")
        os.kill(writer.pid, signal.SIGKILL)
        writer.wait()
        assert revision is not None
        assert store.compare_and_swap("mine", revision, b"z") is not None
    finally:
        writer.kill()
        writer.wait()
        writer.stdout.close()
        store.close()
