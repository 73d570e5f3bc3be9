"""What passes on one NBD connection, as operations of a history. Sans-I/O: bytes in, no bytes out.

The recording proxy hands in every byte of both directions, in the order it came and before it
is passed on: so an operation is recorded as begun before the server has all of it, and as
ended before the client knows.

  N1 Nothing is passed on after `UnrecordableError`: what cannot be read cannot be recorded.
  N2 Requests that were not answered when the connection ends are lost: they may still happen.
  N3 Trim is recorded as zeros for the whole 4 KiB blocks of its range, which is what repstore
     promises of it. A flush covers what was answered on any connection.
"""
from __future__ import annotations

import struct
from collections.abc import Callable, Generator
from dataclasses import dataclass, field

from repstore import config
from repstore._fast.layout import BLOCK_SIZE
from repstore.check.recorder import Operation, Recorder

PAYLOAD_BYTES_MAX = 64 * 1024 * 1024       # of one read or write; servers take 32 MiB at most
OPTION_BYTES_MAX = 64 * 1024
GREETING = b"NBDMAGICIHAVEOPT"
OPTION_MAGIC = b"IHAVEOPT"
OPTION_REPLY_MAGIC = 0x0003E889045565A9
REQUEST_MAGIC, SIMPLE_MAGIC, CHUNK_MAGIC = 0x25609513, 0x67446698, 0x668E33EF
NO_ZEROES = 2                              # of the handshake flags
OPT_EXPORT_NAME, OPT_ABORT, OPT_STARTTLS, OPT_GO, OPT_EXTENDED_HEADERS = 1, 2, 5, 7, 11
REP_ACK, REP_INFO, INFO_EXPORT = 1, 3, 0
READ, WRITE, DISC, FLUSH, TRIM, CACHE, WRITE_ZEROES, BLOCK_STATUS = range(8)
FUA = 1
CHUNK_DONE = 1
CHUNK_DATA, CHUNK_HOLE, CHUNK_ERROR = 1, 2, 0x8000

Parser = Generator[int, bytes, None]       # yields how many bytes it wants next


class UnrecordableError(Exception):
    """The connection uses what cannot be recorded, or breaks the protocol."""


@dataclass(slots=True)
class Asked:
    """A request without its answer yet."""

    kind: int
    offset: int
    length: int
    operation: Operation | None
    data: bytearray = field(default_factory=bytearray)       # of a read in chunks
    error: int = 0


class _Feed:
    """Gives a parser exactly what it asks for, however the bytes come."""

    def __init__(self, parser: Parser) -> None:
        self._parser = parser
        self._buffer = bytearray()
        self._wanted = next(parser)

    def __call__(self, data: bytes) -> None:
        self._buffer += data
        used = 0
        while len(self._buffer) - used >= self._wanted:
            piece = bytes(memoryview(self._buffer)[used:used + self._wanted])
            used += self._wanted
            try:
                self._wanted = self._parser.send(piece)
            except StopIteration:
                raise UnrecordableError("bytes after the end of the connection") from None
        del self._buffer[:used]


class NbdObserver:
    """One connection. One thread.

    `opened(export name, size in bytes)` is called when the client may send requests, and gives
    the recorder they go to; it may raise UnrecordableError.
    """

    def __init__(self, client: int, opened: Callable[[str, int], Recorder]) -> None:
        self._client = client
        self._opened = opened
        self._recorder: Recorder | None = None
        self._export = ""
        self._size_bytes = 0
        self._no_zeroes = False
        self._awaiting_export_name = False
        self._asked: dict[int, Asked] = {}
        self.from_client = _Feed(self._requests())
        self.from_server = _Feed(self._replies())

    def closed(self) -> None:
        """The connection is gone."""
        for asked in self._asked.values():
            if asked.operation is not None:
                asked.operation.lost()
        self._asked.clear()

    # ---------------------------------------------------------------------- from the client
    def _requests(self) -> Parser:
        flags, = struct.unpack(">I", (yield 4))
        self._no_zeroes = bool(flags & NO_ZEROES)
        while True:
            magic = yield 4
            if magic == OPTION_MAGIC[:4]:
                yield from self._option()
            elif int.from_bytes(magic, "big") == REQUEST_MAGIC:
                yield from self._request()
            else:
                raise UnrecordableError(f"neither a request nor an option: {magic.hex()}")

    def _option(self) -> Parser:
        rest, option, length = struct.unpack(">4sII", (yield 12))
        if rest != OPTION_MAGIC[4:] or length > OPTION_BYTES_MAX or self._recorder is not None:
            raise UnrecordableError(f"option {option} of {length} bytes where none belongs")
        data = yield length
        if option == OPT_EXPORT_NAME:
            self._export = data.decode(errors="replace")
            self._awaiting_export_name = True
        elif option == OPT_GO and length >= 6:
            name_bytes, = struct.unpack_from(">I", data)
            self._export = data[4:4 + name_bytes].decode(errors="replace")

    def _request(self) -> Parser:
        flags, kind, cookie, offset, length = struct.unpack(">HHQQI", (yield 24))
        if self._recorder is None:
            raise UnrecordableError("a request before the export was opened")
        if kind == DISC:
            return
        if cookie in self._asked:
            raise UnrecordableError(f"cookie {cookie} is used twice")
        asked = Asked(kind, offset, length, self._begin(kind, offset, length, fua=bool(flags & FUA)))
        self._asked[cookie] = asked
        if kind in (READ, WRITE) and length > PAYLOAD_BYTES_MAX:
            raise UnrecordableError(f"a payload of {length} bytes, more than {PAYLOAD_BYTES_MAX}")
        if kind == WRITE:
            data = yield length
            if asked.operation is not None:
                asked.operation.content(data)

    def _begin(self, kind: int, offset: int, length: int, *, fua: bool) -> Operation | None:
        assert self._recorder is not None
        begin = self._recorder.begin
        if kind == READ:
            return begin(self._client, "read", offset, length)
        if kind == WRITE:
            return begin(self._client, "write", offset, length, fua=fua)
        if kind == WRITE_ZEROES:
            return begin(self._client, "zero", offset, length, fua=fua)
        if kind == TRIM:
            first = -(-offset // BLOCK_SIZE) * BLOCK_SIZE
            whole = (offset + length) // BLOCK_SIZE * BLOCK_SIZE - first
            return begin(self._client, "zero", first, whole, fua=fua)
        return begin(self._client, "flush") if kind == FLUSH else None

    # ---------------------------------------------------------------------- from the server
    def _replies(self) -> Parser:
        greeting = yield len(GREETING) + 2
        if not greeting.startswith(GREETING):
            raise UnrecordableError("not an NBD server of the newstyle handshake")
        server_no_zeroes = greeting[-1] & NO_ZEROES
        while self._recorder is None:
            first = yield 8
            if self._awaiting_export_name:
                self._size_bytes = int.from_bytes(first, "big")
                yield 2 + (0 if self._no_zeroes and server_no_zeroes else 124)
                self._recorder = self._opened(self._export, self._size_bytes)
            else:
                yield from self._option_reply(first)
        while True:
            magic = int.from_bytes((yield 4), "big")
            if magic == SIMPLE_MAGIC:
                yield from self._simple_reply()
            elif magic == CHUNK_MAGIC:
                yield from self._chunk()
            else:
                raise UnrecordableError(f"not a reply: {magic:#x}")

    def _option_reply(self, magic: bytes) -> Parser:
        if int.from_bytes(magic, "big") != OPTION_REPLY_MAGIC:
            raise UnrecordableError(f"not the reply to an option: {magic.hex()}")
        option, kind, length = struct.unpack(">III", (yield 12))
        if length > OPTION_BYTES_MAX:
            raise UnrecordableError(f"a reply of {length} bytes to option {option}")
        data = yield length
        if kind == REP_INFO and option == OPT_GO and data[:2] == bytes(2) and length >= 10:
            self._size_bytes, = struct.unpack_from(">Q", data, 2)
        elif kind == REP_ACK and option == OPT_GO:
            self._recorder = self._opened(self._export, self._size_bytes)
        elif kind == REP_ACK and option in (OPT_STARTTLS, OPT_EXTENDED_HEADERS):
            raise UnrecordableError("TLS" if option == OPT_STARTTLS else "extended headers")

    def _simple_reply(self) -> Parser:
        error, cookie = struct.unpack(">IQ", (yield 12))
        asked = self._answered(cookie)
        asked.error = error
        if asked.kind == READ and not error:
            asked.data = bytearray((yield asked.length))
        self._finish(cookie)

    def _chunk(self) -> Parser:
        flags, kind, cookie, length = struct.unpack(">HHQI", (yield 16))
        asked = self._answered(cookie)
        if length > PAYLOAD_BYTES_MAX + 8:
            raise UnrecordableError(f"a chunk of {length} bytes, more than {PAYLOAD_BYTES_MAX}")
        body = yield length
        if kind & CHUNK_ERROR:
            number = int.from_bytes(body[:4], "big") if length >= 6 else 0
            if not number:
                raise UnrecordableError("an error that does not say which")
            asked.error = asked.error or number
        elif kind in (CHUNK_DATA, CHUNK_HOLE) and asked.kind == READ:
            self._place(asked, kind, body)
        if flags & CHUNK_DONE:
            self._finish(cookie)

    @staticmethod
    def _place(asked: Asked, kind: int, body: bytes) -> None:
        """One piece of what a read brings."""
        if not asked.data:
            asked.data = bytearray(asked.length)
        start = int.from_bytes(body[:8], "big") - asked.offset
        piece = body[8:] if kind == CHUNK_DATA else bytes(
            min(int.from_bytes(body[8:12], "big"), PAYLOAD_BYTES_MAX))
        if start < 0 or start + len(piece) > asked.length:
            raise UnrecordableError("a piece of a read outside of what was asked for")
        asked.data[start:start + len(piece)] = piece

    def _answered(self, cookie: int) -> Asked:
        if cookie not in self._asked:
            raise UnrecordableError(f"a reply to cookie {cookie}, which nobody asked")
        return self._asked[cookie]

    def _finish(self, cookie: int) -> None:
        asked = self._asked.pop(cookie)
        if asked.operation is None:
            return
        if asked.error:
            asked.operation.failed(min(asked.error, config.HISTORY_ERROR_MAX))
        elif asked.kind == READ:
            if len(asked.data) != asked.length:
                raise UnrecordableError(f"a read of {asked.length} bytes brought {len(asked.data)}")
            asked.operation.done(asked.data)
        else:
            asked.operation.done()
