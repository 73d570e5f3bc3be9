"""`repstore check record`: a process between clients and an NBD server, ended by a signal."""
from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from repstore_nbd import frontend

from repstore import errors
from repstore.check.history import check_file
from repstore.cli import app, check_record
from tests.cluster.nbd_client import ConnectionLostError, NbdClient
from tests.nbd import wire
from tests.nbd._fake_engine import FakeEngine

WAIT_S = 60.0
BLOCK = 4096


class Server:
    """The NBD server on a memory of its own, behind a socket."""

    def __init__(self, path: Path) -> None:
        self._engine = FakeEngine(frontend)
        self._lock = threading.Lock()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    def forget(self) -> None:
        """Lose everything."""
        with self._lock:
            self._engine.disk[:] = bytes(len(self._engine.disk))

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(WAIT_S)

    def _start(self, body: Any, *arguments: Any) -> None:
        thread = threading.Thread(target=body, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                self._start(self._serve, self._listener.accept()[0])

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            with self._lock:
                link = self._engine.connect()
            data = b""
            while True:
                with self._lock:
                    self._engine.feed(link, data)
                    self._engine.pump()
                    answer = self._engine.output(link)
                connection.sendall(answer)
                data = connection.recv(1 << 20)
                if not data:
                    return


class Proxy:
    """The command as a process."""

    def __init__(self, directory: Path, *arguments: str) -> None:
        self.history = directory / "history"
        self.path = str(directory / "in")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "repstore.cli", "check", "record", str(self.history), "--json",
             "--server", str(directory / "server"), "--listen", self.path, *arguments],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        assert json.loads(self.process.stdout.readline()) == {"listen": self.path, "file": str(self.history)}
        self.told: dict[str, Any] = {}

    def end(self, code: int = 0, number: signal.Signals = signal.SIGTERM) -> str:
        """What it complained about until the signal; `told` is its last line on stdout."""
        self.process.send_signal(number)
        shown, said = self.process.communicate(timeout=WAIT_S)
        assert self.process.returncode == code, said
        self.told = json.loads(shown)
        return said


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path / "server")
    yield server
    server.close()


@pytest.fixture
def proxy(tmp_path: Path, server: Server) -> Iterator[Proxy]:
    proxy = Proxy(tmp_path, "--fresh")
    yield proxy
    if proxy.process.poll() is None:
        proxy.process.kill()
        proxy.process.communicate()


def test_several_connections_are_recorded(proxy: Proxy) -> None:
    with NbdClient(proxy.path, "demo") as first, NbdClient(proxy.path, "demo") as second:
        for block in range(8):
            first.send(wire.WRITE, block * BLOCK, payload=bytes([block + 1]) * BLOCK)
        answered = 0
        while answered < 8:
            answered += len(first.receive())
        assert second.ask(wire.READ, 0, 8 * BLOCK).data[::BLOCK] == bytes(range(1, 9))
        second.ask(wire.TRIM, 0, BLOCK)
        assert first.ask(wire.READ, 0, BLOCK).data == bytes(BLOCK)
        first.ask(wire.FLUSH)
    assert proxy.end() == ""
    verdict = check_file(proxy.history)
    assert verdict.consistent
    assert (verdict.operations, verdict.reads_checked, verdict.undecided_reads) == (12, 9, 0)
    assert proxy.told == {"file": str(proxy.history), "verdict": "recorded", "operations": 12}
    assert not Path(proxy.path).exists()


@pytest.mark.parametrize(("number", "flushed", "consistent"), [
    (signal.SIGUSR1, False, True), (signal.SIGUSR1, True, False), (signal.SIGUSR2, False, False)])
def test_a_crash_is_marked_by_a_signal(proxy: Proxy, server: Server, number: signal.Signals, flushed: bool,
                                       consistent: bool) -> None:
    with NbdClient(proxy.path, "demo") as client:
        client.ask(wire.WRITE, 0, payload=b"a" * BLOCK)
        if flushed:
            client.ask(wire.FLUSH)
        server.forget()
        proxy.process.send_signal(number)
        # the signal came before: the loop sees it at the latest with the bytes that follow
        client.ask(wire.FLUSH)
        client.ask(wire.READ, 0, BLOCK)
    proxy.end()
    verdict = check_file(proxy.history)
    assert (verdict.crashes, verdict.consistent) == (1, consistent)


def test_what_cannot_be_recorded_ends_the_connection_alone(proxy: Proxy) -> None:
    with NbdClient(proxy.path, "demo") as client, socket.socket(socket.AF_UNIX) as garbage:
        client.ask(wire.WRITE, 0, payload=b"a" * BLOCK)
        garbage.settimeout(WAIT_S)
        garbage.connect(proxy.path)
        garbage.sendall(b"\0" * 100)
        while garbage.recv(1000):
            pass
        assert client.ask(wire.READ, 0, BLOCK).data == b"a" * BLOCK
    assert "cannot be recorded: neither a request nor an option" in proxy.end()
    assert check_file(proxy.history).consistent


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_when_nobody_came_there_is_no_history(proxy: Proxy, number: signal.Signals) -> None:
    error = "nobody opened the volume: no history was written"
    assert proxy.end(2, number) == f"repstore: {error}\n"
    assert proxy.told == {"file": str(proxy.history), "verdict": "unusable", "error": error}
    assert not proxy.history.exists()


def test_a_client_is_turned_away_while_the_server_is_away(proxy: Proxy, tmp_path: Path) -> None:
    (tmp_path / "server").unlink()
    with pytest.raises(ConnectionLostError):
        NbdClient(proxy.path, "demo")
    assert "a client is turned away, the server" in proxy.end(2)


def test_a_history_that_cannot_be_written_to_its_end_is_none(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    async def fail(self: check_record.RecordingProxy, ready: Callable[[], None]) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(check_record.RecordingProxy, "run", fail)
    file = tmp_path / "history"
    assert app.run(["check", "record", str(file), "--json", "--server", str(tmp_path / "server"), "--listen",
                    str(tmp_path / "in")]) == 2
    said = capsys.readouterr()
    assert json.loads(said.out)["verdict"] == "unusable"
    assert f"{file}: not written to its end, so it is no history: No space left" in said.err


@pytest.mark.parametrize(("address", "reason"), [
    ("{}/nothing", "No such file or directory"), ("{}/refuses", "Connection refused"),
    ("nbd://no-such-host.invalid/demo", "")])
def test_a_server_that_is_not_there_is_told_at_the_start(
        tmp_path: Path, capsys: pytest.CaptureFixture[str], address: str, reason: str) -> None:
    file, listen = tmp_path / "history", tmp_path / "in"
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(tmp_path / "refuses"))
        code = app.run(["check", "record", str(file), "--json", "--server", address.format(tmp_path),
                        "--listen", str(listen)])
    said = capsys.readouterr()
    assert code == 2
    assert said.err.startswith("repstore: the server ")
    assert f"is not there: {reason}" in said.err
    told = json.loads(said.out)
    assert told == {"file": str(file), "verdict": "unusable",
                    "error": said.err.removeprefix("repstore: ").rstrip("\n")}
    assert not file.exists()
    assert not listen.exists()


def test_a_server_that_does_not_take_a_connection_is_not_waited_for(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    async def wait(self: check_record.RecordingProxy) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(check_record, "CONNECT_TIMEOUT_S", 0.0)
    monkeypatch.setattr(check_record.RecordingProxy, "_connection", wait)
    assert app.run(["check", "record", str(tmp_path / "h"), "--server", "/s", "--listen", "/x/in"]) == 2
    assert "the server /s is not there: no connection in 0 s" in capsys.readouterr().err


def test_a_recorder_that_was_killed_leaves_no_usable_history(proxy: Proxy) -> None:
    with NbdClient(proxy.path, "demo") as client:
        client.ask(wire.WRITE, 0, payload=b"a" * BLOCK)
        proxy.process.kill()
        proxy.process.communicate()
    with pytest.raises(errors.ConfigError, match="not a usable history"):
        check_file(proxy.history)


@pytest.mark.parametrize(("arguments", "complaint"), [
    (["--server", "s", "--listen", "/x/in"], "'s': must be an NBD URI"),
    (["--server", "nbd+unix:///demo", "--listen", "/x/in"], "names no socket"),
    (["--server", "/s", "--listen", "1.2.3.4:10"], "must be a loopback address"),
    (["--server", "/s", "--listen", "/s"], "listen on /s: must be another address than the server's"),
    (["--server", "nbds://h/demo", "--listen", "/x/in"], "'nbds://h/demo': must begin with nbd:// or"),
    (["--server", "http://h/x", "--listen", "/x/in"], "'http://h/x': must begin with nbd:// or nbd+unix://"),
    (["--server", "unix:/run/s", "--listen", "/x/in"], "'unix:/run/s': must begin with nbd://"),
    (["--server", "nbd:unix:/run/s", "--listen", "/x/in"], "'nbd:unix:/run/s': must begin with nbd://"),
    (["--server", "nbd+unix:/run/s", "--listen", "/x/in"], "must begin with nbd:// or nbd+unix://"),
    (["--server", "/s", "--listen", "tcp://localhost:10"], "'tcp://localhost:10': must begin with"),
    (["--server", "nbd://h:port/demo", "--listen", "/x/in"], "'nbd://h:port/demo': is no URI: Port"),
    (["--server", "nbd://h:0/demo", "--listen", "/x/in"], "port 0: must be 1 to 65535"),
    (["--server", "localhost:65536", "--listen", "/x/in"], "port 65536: must be 1 to 65535"),
    (["--server", "/s", "--listen", "127.0.0.1:0"], "port 0: must be 1 to 65535"),
    (["--server", "/s", "--listen", "/x/in", "--block-size", "1000"], "block size 1000"),
])
def test_a_wrong_address_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str],
                                    complaint: str) -> None:
    assert app.run(["check", "record", str(tmp_path / "h"), *arguments]) == 64
    assert complaint in capsys.readouterr().err


@pytest.mark.usefixtures("server")
def test_an_address_that_cannot_be_listened_at_is_refused(
        tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run(["check", "record", str(tmp_path / "h"), "--server", str(tmp_path / "server"), "--listen",
                    "/nowhere/at/all"]) == 64
    assert "listen on /nowhere/at/all: No such file or directory" in capsys.readouterr().err


def test_a_place_where_no_history_can_be_made_is_refused_before_anybody_connects(
        capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run(["check", "record", "/nowhere/h", "--server", "/s", "--listen", "/x/in"]) == 64
    assert "/nowhere/h: no file can be made there" in capsys.readouterr().err


@pytest.mark.parametrize(("text", "address"), [
    ("nbd+unix:///demo?socket=/run/x", Path("/run/x")), ("nbd://localhost:10810/demo", ("localhost", 10810)),
    ("nbd://localhost", ("localhost", 10809)), ("./x", Path("x")), ("127.0.0.1:9", ("127.0.0.1", 9)),
    ("[::1]:9", ("::1", 9)), ("./nbds://x", Path("nbds:/x")), ("here/a:b", Path("here/a:b")),
    ("nbd://[::1]:9/demo", ("::1", 9)), ("localhost:65535", ("localhost", 65535))])
def test_addresses(text: str, address: Any) -> None:
    assert check_record.parse_address(text) == address
