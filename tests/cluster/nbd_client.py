"""An NBD client that keeps many requests under way: blocking, simple replies, no retries.

What a request meets is reported as it is: an error in the reply is a `Completion` with that
error, a lost connection is `ConnectionLostError`. Both are findings for the test to judge.
"""
from __future__ import annotations

import socket
import struct
from dataclasses import dataclass

from tests.nbd import wire

SIMPLE_REPLY = struct.Struct(">IIQ")
OPTION_REPLY = struct.Struct(">QIII")
RECEIVE_BYTES = 1 << 20
TIMEOUT_S = 60.0


class ConnectionLostError(Exception):
    """The other end is gone, or was never there."""


class RefusedError(Exception):
    """The server answered, but does not serve this export."""


@dataclass(frozen=True, slots=True)
class Completion:
    """One finished request; `data` is what a read brought."""

    cookie: int
    error: int
    data: bytes


class NbdClient:
    """One connection to one export."""

    def __init__(self, path: str, export: str, timeout_s: float = TIMEOUT_S) -> None:
        self._received = bytearray()
        self._read_bytes: dict[int, int] = {}
        self._cookie = 0
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(timeout_s)
        try:
            self._connect(path)
            self.size_bytes = self._open(export)
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> NbdClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def wait_at_most(self, timeout_s: float) -> None:
        """For an answer, from now on; then TimeoutError."""
        self._socket.settimeout(timeout_s)

    @property
    def next_cookie(self) -> int:
        """What `send` will return."""
        return self._cookie + 1

    def send(self, command: int, offset: int = 0, length: int = 0, payload: bytes = b"", *,
             flags: int = 0) -> int:
        """Ask; returns the cookie that the reply will carry."""
        self._cookie += 1
        if command == wire.READ:
            self._read_bytes[self._cookie] = length
        self._send_all(wire.request(command, offset, length, payload, self._cookie, flags))
        return self._cookie

    def receive(self) -> list[Completion]:
        """Wait for a reply; returns all that are there by then."""
        found: list[Completion] = []
        while not found:
            while (completion := self._next_completion()) is not None:
                found.append(completion)
            if not found:
                self._receive_more()
        return found

    def ask(self, command: int, offset: int = 0, length: int = 0, payload: bytes = b"", *,
            flags: int = 0) -> Completion:
        """One request and its reply; nothing else may be under way."""
        cookie = self.send(command, offset, length, payload, flags=flags)
        completion, = self.receive()
        assert completion.cookie == cookie
        return completion

    def close(self) -> None:
        """Hang up, politely if the server is still there."""
        try:
            self._socket.sendall(wire.request(wire.DISC))
        except OSError:
            pass
        finally:
            self._socket.close()

    def _connect(self, path: str) -> None:
        try:
            self._socket.connect(path)
        except OSError as error:
            raise ConnectionLostError(f"{path}: {error}") from None

    def _open(self, export: str) -> int:
        if self._take(len(wire.GREETING)) != wire.GREETING:
            raise RefusedError("not an NBD server of the fixed newstyle")
        self._send_all(wire.client_flags() + wire.go(export.encode()))
        size_bytes = 0
        while True:
            _, _, kind, length = OPTION_REPLY.unpack(self._take(OPTION_REPLY.size))
            data = self._take(length)
            if kind == wire.REP_INFO and data[:2] == b"\0\0":
                size_bytes = int.from_bytes(data[2:10], "big")
            elif kind == wire.ACK:
                return size_bytes
            elif kind & 0x80000000:
                raise RefusedError(f"export {export!r}: error {kind:#x} {data.decode(errors='replace')}")

    def _next_completion(self) -> Completion | None:
        if len(self._received) < SIMPLE_REPLY.size:
            return None
        magic, error, cookie = SIMPLE_REPLY.unpack_from(self._received)
        assert magic == wire.SIMPLE_MAGIC, f"reply magic {magic:#x}"
        data_bytes = 0 if error else self._read_bytes.get(cookie, 0)
        if len(self._received) < SIMPLE_REPLY.size + data_bytes:
            return None
        self._read_bytes.pop(cookie, None)
        data = bytes(self._received[SIMPLE_REPLY.size:SIMPLE_REPLY.size + data_bytes])
        del self._received[:SIMPLE_REPLY.size + data_bytes]
        return Completion(cookie, error, data)

    def _take(self, count: int) -> bytes:
        while len(self._received) < count:
            self._receive_more()
        taken = bytes(self._received[:count])
        del self._received[:count]
        return taken

    def _send_all(self, data: bytes) -> None:
        try:
            self._socket.sendall(data)
        except TimeoutError:
            raise
        except OSError as error:
            raise ConnectionLostError(str(error)) from None

    def _receive_more(self) -> None:
        try:
            data = self._socket.recv(RECEIVE_BYTES)
        except TimeoutError:
            raise
        except OSError as error:
            raise ConnectionLostError(str(error)) from None
        if not data:
            raise ConnectionLostError("the server closed the connection")
        self._received += data
