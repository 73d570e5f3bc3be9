"""A block client over NBD, as small as it can be: one connection, many requests under way.

It writes, flushes and counts replies; it knows nothing of repstore, so what it was told is
told by the protocol alone. Fixed newstyle, simple replies, unix socket.
"""
from __future__ import annotations

import socket
import struct
from urllib.parse import parse_qs, urlsplit

GREETING_MAGIC = b"NBDMAGICIHAVEOPT"
OPTION_GO = 7
OPTION_REPLY_MAGIC = 0x0003E889045565A9
REPLY_ACK = 1
REPLY_INFO = 3
REPLY_IS_ERROR = 1 << 31
INFO_EXPORT = 0
REQUEST_MAGIC = 0x25609513
SIMPLE_REPLY_MAGIC = 0x67446698
COMMAND_WRITE = 1
COMMAND_DISCONNECT = 2

REQUEST = struct.Struct(">IHHQQI")
SIMPLE_REPLY = struct.Struct(">IIQ")
OPTION = struct.Struct(">8sII")
OPTION_REPLY = struct.Struct(">QIII")

REPLY_TIMEOUT_S = 60.0


class NbdError(Exception):
    """The server refused, answered an error, or broke the protocol."""


class NbdWriter:
    """A connection to one export. Requests carry cookies; replies come in any order."""

    def __init__(self, uri: str) -> None:
        """Attach to `nbd+unix:///EXPORT?socket=PATH`."""
        parts = urlsplit(uri)
        if parts.scheme != "nbd+unix" or "socket" not in parse_qs(parts.query):
            raise NbdError(f"{uri}: must be nbd+unix:///EXPORT?socket=PATH")
        self._buffer = bytearray()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(REPLY_TIMEOUT_S)
        try:
            self._socket.connect(parse_qs(parts.query)["socket"][0])
            self.size_bytes = self._open(parts.path.removeprefix("/").encode())
        except BaseException:
            self._socket.close()
            raise

    def send_writes(self, writes: list[tuple[int, int, bytes]]) -> None:
        """Ask for writes of (cookie, offset, data), all in one go."""
        self._socket.sendall(b"".join(
            REQUEST.pack(REQUEST_MAGIC, 0, COMMAND_WRITE, cookie, offset, len(data)) + data
            for cookie, offset, data in writes))

    def replies(self) -> list[int]:
        """Wait for at least one reply; the cookies of all that have come. NbdError: one was
        an error."""
        while len(self._buffer) < SIMPLE_REPLY.size:
            self._receive()
        whole_bytes = len(self._buffer) - len(self._buffer) % SIMPLE_REPLY.size
        cookies = []
        for magic, error, cookie in SIMPLE_REPLY.iter_unpack(self._buffer[:whole_bytes]):
            if magic != SIMPLE_REPLY_MAGIC:
                raise NbdError(f"reply magic {magic:#x}, expected {SIMPLE_REPLY_MAGIC:#x}")
            if error:
                raise NbdError(f"request {cookie} was answered with error {error}")
            cookies.append(cookie)
        del self._buffer[:whole_bytes]
        return cookies

    def close(self) -> None:
        """Say goodbye; nothing may be under way."""
        self._socket.sendall(REQUEST.pack(REQUEST_MAGIC, 0, COMMAND_DISCONNECT, 0, 0, 0))
        self._socket.close()

    def _open(self, export: bytes) -> int:
        """The handshake; returns the size of the export."""
        if self._take(len(GREETING_MAGIC)) != GREETING_MAGIC:
            raise NbdError("not an NBD server of the fixed newstyle")
        self._take(2)
        self._socket.sendall(struct.pack(">I", 3))
        wish = struct.pack(">I", len(export)) + export + struct.pack(">H", 0)
        self._socket.sendall(OPTION.pack(b"IHAVEOPT", OPTION_GO, len(wish)) + wish)
        size_bytes = 0
        while True:
            magic, _, kind, length = OPTION_REPLY.unpack(self._take(OPTION_REPLY.size))
            data = self._take(length)
            if magic != OPTION_REPLY_MAGIC:
                raise NbdError(f"option reply magic {magic:#x}, expected {OPTION_REPLY_MAGIC:#x}")
            if kind & REPLY_IS_ERROR:
                raise NbdError(f"export {export.decode()!r}: refused ({data.decode(errors='replace')})")
            if kind == REPLY_INFO and int.from_bytes(data[:2], "big") == INFO_EXPORT:
                size_bytes = int.from_bytes(data[2:10], "big")
            if kind == REPLY_ACK:
                return size_bytes

    def _take(self, count: int) -> bytes:
        while len(self._buffer) < count:
            self._receive()
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        return taken

    def _receive(self) -> None:
        try:
            data = self._socket.recv(65536)
        except TimeoutError:
            raise NbdError(f"no reply within {REPLY_TIMEOUT_S:.0f} s") from None
        if not data:
            raise NbdError("the server closed the connection")
        self._buffer += data
