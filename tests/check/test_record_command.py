"""`repstore check record`: a process between clients and an NBD server, ended by a signal."""
from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
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

    def end(self, code: int = 0) -> str:
        """What it complained about until SIGTERM."""
        self.process.send_signal(signal.SIGTERM)
        _, said = self.process.communicate(timeout=WAIT_S)
        assert self.process.returncode == code, said
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


def test_without_a_server_there_is_no_history(tmp_path: Path) -> None:
    proxy = Proxy(tmp_path)
    with pytest.raises(ConnectionLostError):
        NbdClient(proxy.path, "demo")
    said = proxy.end(1)
    assert "is not there: No such file or directory" in said
    assert "no history was written" in said
    assert not proxy.history.exists()


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
    (["--server", "/s", "--listen", "/nowhere/at/all"], "listen on /nowhere/at/all"),
    (["--server", "/s", "--listen", "/x/in", "--block-size", "1000"], "block size 1000"),
])
def test_a_wrong_address_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str],
                                    complaint: str) -> None:
    assert app.run(["check", "record", str(tmp_path / "h"), *arguments]) == 64
    assert complaint in capsys.readouterr().err


def test_a_place_where_no_history_can_be_made_is_refused_before_anybody_connects(
        capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run(["check", "record", "/nowhere/h", "--server", "/s", "--listen", "/x/in"]) == 64
    assert "/nowhere/h: no file can be made there" in capsys.readouterr().err


@pytest.mark.parametrize(("text", "address"), [
    ("nbd+unix:///demo?socket=/run/x", Path("/run/x")), ("nbd://localhost:10810/demo", ("localhost", 10810)),
    ("nbd://localhost", ("localhost", 10809)), ("./x", Path("x")), ("127.0.0.1:9", ("127.0.0.1", 9)),
    ("[::1]:9", ("::1", 9))])
def test_addresses(text: str, address: Any) -> None:
    assert check_record.parse_address(text) == address
