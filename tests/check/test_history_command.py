"""`repstore check history` on what is no file, on large files, and when it is told to end."""
from __future__ import annotations

import io
import json
import os
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from bench.history_speed import write_history
from repstore import config, errors
from repstore.check import history as history_check
from repstore.check import history_file
from repstore.check.history import check, check_file
from repstore.check.history_file import load
from repstore.cli import app
from tests.check.random_histories import Manner, make_batch

GOOD = (b'{"history":1,"block_size":4096,"blocks":8,"initial":"zero"}\n'
        b'{"op":"write","block":0,"begin":0,"end":1,"values":[5]}\n'
        b'{"op":"read","block":0,"begin":2,"end":3,"values":[5]}\n'
        b'{"op":"end","operations":2}\n')
ANSWER_S = 30.0                       # the command ends at once; what hangs is seen by then
READING, JUDGING = "reading", "judging blocks"
STAGES = [READING, "counting operations", "sorting by blocks", JUDGING]


@pytest.fixture
def small_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a short history is a large one."""
    monkeypatch.setattr(config, "HISTORY_CHUNK_BYTES", 10_000)
    monkeypatch.setattr(config, "HISTORY_PORTION_ENTRIES", 100)


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A consistent history of 2,000 operations on 64 blocks."""
    write_history(tmp_path / "large", operations=2000, blocks=64, clients=4)
    return tmp_path / "large"


# ------------------------------------------------------------------------------ what is no file
def make(kind: str, path: Path) -> Path:
    if kind == "directory":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "link to a pipe":
        os.mkfifo(path.with_suffix(".pipe"))
        path.symlink_to(path.with_suffix(".pipe"))
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
    elif kind == "character device":
        return Path("/dev/zero")
    return path


@pytest.mark.parametrize("kind", ["directory", "pipe", "link to a pipe", "socket", "character device"])
def test_what_is_no_regular_file_is_refused_at_once(kind: str, tmp_path: Path) -> None:
    path = make(kind, tmp_path / "it")
    done = subprocess.run([sys.executable, "-m", "repstore.cli", "check", "history", str(path), "--json"],
                          capture_output=True, text=True, timeout=ANSWER_S)
    reason = f"{path}: is a {kind.removeprefix('link to a ')}: a history must be a regular file"
    assert (done.returncode, done.stderr) == (2, f"repstore: {reason}\n")
    assert json.loads(done.stdout) == {"file": str(path), "verdict": "unusable", "error": reason}


def test_a_pipe_that_takes_the_place_of_a_file_is_not_waited_for(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe, file = make("pipe", tmp_path / "pipe"), tmp_path / "file"
    file.touch()
    was_file = os.stat(file)
    assert stat.S_ISREG(was_file.st_mode)
    monkeypatch.setattr("repstore.check.history.os.stat", lambda path: was_file)
    with pytest.raises(errors.ConfigError, match="is a pipe"):
        check_file(pipe)


def test_a_block_device_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    values = list(os.stat("/"))
    values[0] = stat.S_IFBLK | 0o600
    monkeypatch.setattr("repstore.check.history.os.stat", lambda path: os.stat_result(values))
    with pytest.raises(errors.ConfigError, match="is a block device: a history must be a regular file"):
        check_file(Path("/dev/some"))


@pytest.mark.usefixtures("small_portions")
def test_a_file_that_grows_while_it_is_read_has_no_verdict(large: Path) -> None:
    """Not even where all that was read is right, nor is it read for as long as it grows."""
    whole = large.read_bytes()
    portions = 0

    def grow(what: str, done: int, of: int) -> None:
        nonlocal portions
        portions += 1
        assert portions < 100
        with large.open("ab") as file:
            file.write(whole[-20_000:])

    with pytest.raises(errors.ConfigError, match="large: was written to while it was read: a history is "):
        check_file(large, grow)
    large.write_bytes(whole[:-100])                                    # the recording had not ended yet
    with pytest.raises(errors.ConfigError, match="large: was written to while it was read"):
        check_file(large, grow)


def test_a_file_that_is_cut_while_it_is_read_has_no_verdict(
        large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "HISTORY_CHUNK_BYTES", 10_000)
    with pytest.raises(errors.ConfigError, match="large: was written to while it was read"):
        check_file(large, lambda what, done, of: os.truncate(large, done))


def test_a_line_longer_than_any_may_be_is_refused_where_it_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "HISTORY_CHUNK_BYTES", 200)
    monkeypatch.setattr(config, "HISTORY_LINE_BYTES_MAX", 200)
    lines = GOOD.splitlines(keepends=True)
    lines[2] = lines[2].replace(b",", b"," + b" " * 60)                 # 300 bytes, and ends
    with pytest.raises(errors.ConfigError, match="line 3: is longer than 200 bytes"):
        load(io.BytesIO(b"".join(lines)))


def test_what_needs_too_much_memory_has_no_verdict(
        large: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def no_room(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(history_check, "find", no_room)
    assert app.run(["check", "history", str(large)]) == 2
    assert capsys.readouterr() == ("", f"repstore: {large}: to check it needs more memory than there is\n")


def test_a_name_that_is_no_text_is_told_in_json(tmp_path: Path) -> None:
    """A traceback would have the exit code that says: not consistent."""
    path = os.fsdecode(os.fsencode(tmp_path) + b"/\xff")
    done = subprocess.run([sys.executable, "-m", "repstore.cli", "check", "history", path, "--json"],
                          capture_output=True, timeout=ANSWER_S)
    assert (done.returncode, done.stderr.count(b"\n")) == (2, 1)
    assert json.loads(done.stdout)["file"] == path


# ------------------------------------------------------------------------------------ progress
@pytest.mark.usefixtures("small_portions")
def test_a_large_history_tells_how_far_it_is(large: Path) -> None:
    told: list[tuple[str, int, int]] = []
    assert check_file(large, lambda *each: told.append(each)).consistent
    assert list(dict.fromkeys(what for what, _, _ in told)) == STAGES
    for stage in STAGES:
        places = [done for what, done, _ in told if what == stage]
        [of] = {of for what, _, of in told if what == stage}
        assert len(places) > 5
        assert places == sorted(set(places))
        assert places[0] > 0
        assert places[-1] < of
    told.clear()
    large.write_bytes(large.read_bytes().replace(b'"values":[0]', b'"values":[77]'))
    assert check_file(large, lambda *each: told.append(each)).bad_blocks > 10
    assert "contradictions" in {what for what, _, _ in told}


def test_a_small_history_tells_nothing(large: Path) -> None:
    told: list[object] = []
    assert check_file(large, lambda *each: told.append(each)).consistent
    assert not told


@pytest.mark.parametrize("portion", [1, 2, 7, 50, 10_000])
def test_the_verdict_is_the_same_in_portions_of_any_size(
        portion: int, monkeypatch: pytest.MonkeyPatch) -> None:
    text = make_batch(Random(11), 200, Manner(crashes_max=2, equal_values=True, partial_writes=True)).text
    whole = check(load(io.BytesIO(text)))
    assert whole.bad_blocks > 1
    monkeypatch.setattr(config, "HISTORY_PORTION_ENTRIES", portion)
    assert check(load(io.BytesIO(text))) == whole


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.usefixtures("small_portions")
def test_progress_is_shown_on_a_terminal_only(
        large: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run(["check", "history", str(large)]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    assert app.run(["check", "history", str(large)]) == 0
    shown = terminal.getvalue()
    assert all(f"\r{stage}: " in shown for stage in STAGES)
    assert "\n" not in shown
    assert capsys.readouterr().out == out


# ---------------------------------------------------------------------------------------- ended
ENDED_BY_SIGNAL = """
import os, signal, sys
from repstore import config
from repstore.cli import app, check_history
path, number, stage = sys.argv[1:]
def progress(what, done, of):
    if what == stage:
        os.kill(os.getpid(), int(number))
config.HISTORY_CHUNK_BYTES, config.HISTORY_PORTION_ENTRIES = 10_000, 100
check_history.ProgressLine = lambda: progress
sys.exit(app.run(["check", "history", path, "--json"]))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("stage", [READING, JUDGING])
def test_a_signal_ends_it_without_a_verdict(number: signal.Signals, stage: str, large: Path) -> None:
    done = subprocess.run([sys.executable, "-c", ENDED_BY_SIGNAL, str(large), str(int(number)), stage],
                          capture_output=True, text=True, timeout=ANSWER_S)
    assert (done.returncode, done.stderr) == (130, "repstore: interrupted: there is no verdict\n")
    assert json.loads(done.stdout) == {"file": str(large), "verdict": "interrupted"}


@pytest.mark.usefixtures("small_portions")
@pytest.mark.parametrize("stage", STAGES)
def test_it_can_be_ended_at_every_stage(stage: str, large: Path) -> None:
    def end(what: str, done: int, of: int) -> None:
        if what == stage:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        check_file(large, end)
    assert check_file(large).consistent                                # nothing is left of it


def test_no_more_than_the_size_is_read() -> None:
    file = io.BytesIO(GOOD + b"what comes afterwards")
    assert len(history_file.load(file, len(GOOD)).operations) == 2
    assert file.tell() == len(GOOD)
