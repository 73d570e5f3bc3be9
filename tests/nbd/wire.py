"""NBD as a client writes and reads it: a second opinion on the bytes, in plain struct."""
import struct
from dataclasses import dataclass, field
from typing import Any

from repstore_nbd import frontend

from tests.nbd._fake_engine import FakeEngine

OPTION_MAGIC = 0x49484156454F5054
OPTION_REPLY_MAGIC = 0x0003E889045565A9
REQUEST_MAGIC = 0x25609513
SIMPLE_MAGIC = 0x67446698
CHUNK_MAGIC = 0x668E33EF
GREETING = b"NBDMAGIC" + b"IHAVEOPT" + struct.pack(">H", 3)

EXPORT_NAME, ABORT, LIST, STARTTLS, INFO, GO, STRUCTURED, LIST_META, SET_META = 1, 2, 3, 5, 6, 7, 8, 9, 10
ACK, SERVER, REP_INFO, META_CONTEXT = 1, 2, 3, 4
ERR_UNSUP, ERR_POLICY, ERR_INVALID, ERR_UNKNOWN, ERR_SHUTDOWN, ERR_TOO_BIG = (
    0x80000000 | number for number in (1, 2, 3, 6, 7, 9))
READ, WRITE, DISC, FLUSH, TRIM, CACHE, WRITE_ZEROES, BLOCK_STATUS = range(8)
FUA, NO_HOLE, DF, REQ_ONE, FAST_ZERO = 1, 2, 4, 8, 16
EPERM, EIO, ENOMEM, EINVAL, ENOSPC, EOVERFLOW, ENOTSUP, ESHUTDOWN = 1, 5, 12, 22, 28, 75, 95, 108


def client_flags(flags: int = 3) -> bytes:
    return struct.pack(">I", flags)


def option(number: int, data: bytes = b"") -> bytes:
    return struct.pack(">QII", OPTION_MAGIC, number, len(data)) + data


def text(words: bytes) -> bytes:
    return struct.pack(">I", len(words)) + words


def go(name: bytes = b"demo", *wanted: int, number: int = GO) -> bytes:
    return option(number, text(name) + struct.pack(f">H{len(wanted)}H", len(wanted), *wanted))


def meta_context(name: bytes, *queries: bytes, number: int = SET_META) -> bytes:
    listed = b"".join(text(query) for query in queries)
    return option(number, text(name) + struct.pack(">I", len(queries)) + listed)


def request(command: int, offset: int = 0, length: int = 0, payload: bytes = b"", cookie: int = 1,
            flags: int = 0) -> bytes:
    head = struct.pack(">IHHQQI", REQUEST_MAGIC, flags, command, cookie, offset, length or len(payload))
    return head + payload


@dataclass
class OptionReply:
    option: int
    type: int
    data: bytes


@dataclass
class Reply:
    """One answer: simple, or all chunks of a structured one put together."""
    cookie: int
    error: int = 0
    data: bytes = b""
    extents: list[tuple[int, int]] = field(default_factory=list)
    chunks: int = 0


def option_replies(data: bytes) -> list[OptionReply]:
    found = []
    while data:
        magic, number, kind, length = struct.unpack_from(">QIII", data)
        assert magic == OPTION_REPLY_MAGIC
        assert len(data) >= 20 + length
        found.append(OptionReply(number, kind, data[20:20 + length]))
        data = data[20 + length:]
    return found


def replies(stream: bytes, reads: dict[int, tuple[int, int]]) -> dict[int, Reply]:
    """By cookie; `reads` says offset and length of the reads, which simple replies do not."""
    found: dict[int, Reply] = {}
    data = memoryview(stream)            # slicing must not copy megabytes again and again
    done: set[int] = set()
    pieces: dict[int, bytearray] = {cookie: bytearray(length) for cookie, (_, length) in reads.items()}
    while data:
        magic, = struct.unpack_from(">I", data)
        if magic == SIMPLE_MAGIC:
            _, error, cookie = struct.unpack_from(">IIQ", data)
            length = reads[cookie][1] if cookie in reads and not error else 0
            assert len(data) >= 16 + length
            found[cookie] = Reply(cookie, error, bytes(data[16:16 + length]))
            data = data[16 + length:]
            assert cookie not in done
            done.add(cookie)
            continue
        assert magic == CHUNK_MAGIC
        _, flags, kind, cookie, length = struct.unpack_from(">IHHQI", data)
        body, data = data[20:20 + length], data[20 + length:]
        assert len(body) == length
        assert cookie not in done
        reply = found.setdefault(cookie, Reply(cookie))
        reply.chunks += 1
        if kind == 1:
            begin = struct.unpack_from(">Q", body)[0] - reads[cookie][0]
            pieces[cookie][begin:begin + length - 8] = body[8:]
        elif kind == 5:
            assert body[:4] == struct.pack(">I", 1)
            reply.extents = list(struct.iter_unpack(">II", body[4:]))
        else:
            assert kind == 0x8001
            reply.error, message_bytes = struct.unpack(">IH", body)
            assert message_bytes == 0
        if flags & 1:
            done.add(cookie)
            reply.data = bytes(pieces[cookie]) if cookie in reads and not reply.error else b""
    assert done == set(found)
    return found


class Client:
    """A fake engine with one connection to it."""

    def __init__(self, engine: FakeEngine | None = None, **options: Any) -> None:
        self.engine = engine or FakeEngine(frontend, **options)
        self.link = self.engine.connect()

    def talk(self, data: bytes) -> bytes:
        self.engine.feed(self.link, data)
        self.engine.pump()
        return self.engine.output(self.link)

    @property
    def closed(self) -> bool:
        return bool(self.engine.links[self.link].closed)

    def go(self, structured: bool = False) -> "Client":
        """Through the handshake; with chunks and block status if `structured`."""
        words = client_flags()
        if structured:
            words += option(STRUCTURED) + meta_context(b"demo", b"base:allocation")
        answer = self.talk(words + go())
        assert answer.startswith(GREETING)
        assert option_replies(answer[len(GREETING):])[-1].type == ACK
        return self

    def ask(self, *requests: bytes) -> dict[int, Reply]:
        return replies(self.talk(b"".join(requests)), reads_of(b"".join(requests)))

    def ask_one(self, command: int, *arguments: Any, **options: Any) -> Reply:
        answers = self.ask(request(command, *arguments, **options))
        assert list(answers) == [1]
        return answers[1]

    def leave(self) -> FakeEngine:
        """Hang up, and see that nothing is left behind and no promise was broken."""
        if self.engine.links[self.link].alive:
            self.engine.disconnect(self.link)
        self.engine.pump()
        assert self.engine.violations == []
        assert self.engine.requests_in_use == 0
        assert self.engine.export_users == 0
        return self.engine


def reads_of(stream: bytes) -> dict[int, tuple[int, int]]:
    found, position = {}, 0
    while position < len(stream):
        _, _, command, cookie, offset, length = struct.unpack_from(">IHHQQI", stream, position)
        position += 28 + (length if command == WRITE else 0)
        if command == READ:
            found[cookie] = (offset, length)
    return found
