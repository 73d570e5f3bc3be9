"""The handshake, option by option. Every script runs whole, byte by byte, and with more behind it."""
import contextlib
import errno
import re
import select
import socket
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from repstore_nbd import frontend

import repstore
from repstore import config
from repstore.node.native import Native
from repstore.volume.volume import DEPTH_MAX
from tests.cluster.harness import wait_until
from tests.nbd.wire import (
    ABORT,
    ACK,
    DISC,
    ERR_INVALID,
    ERR_POLICY,
    ERR_SHUTDOWN,
    ERR_TOO_BIG,
    ERR_UNKNOWN,
    ERR_UNSUP,
    ESHUTDOWN,
    EXPORT_NAME,
    GO,
    GREETING,
    INFO,
    LIST,
    LIST_META,
    META_CONTEXT,
    OPTION_MAGIC,
    READ,
    REP_INFO,
    SERVER,
    SET_META,
    STARTTLS,
    STRUCTURED,
    Client,
    client_flags,
    go,
    meta_context,
    option,
    option_replies,
    request,
    text,
)

SIZE = 1 << 20
WRITABLE_FLAGS = 1 | 4 | 8 | 32 | 64 | 256
BYTES_ACCEPTED = 2
WAIT_S = 10.0


def converse(words: bytes, **options: Any) -> tuple[bytes, bool]:
    """What the server says after the greeting, and whether it hung up; the same in any slices."""
    seen = []
    for size in (len(words), 1, 7):
        client = Client(size_bytes=SIZE, **options)
        heard = b"".join(client.talk(words[i:i + size]) for i in range(0, len(words), size))
        assert heard.startswith(GREETING)
        seen.append((heard[len(GREETING):], client.closed))
        client.leave()
    assert seen[0] == seen[1] == seen[2]
    return seen[0]


def types(*options_sent: bytes) -> list[int]:
    heard, closed = converse(client_flags() + b"".join(options_sent))
    assert not closed
    return [reply.type for reply in option_replies(heard)]


def test_go_tells_size_flags_and_the_block_sizes_that_were_asked_for() -> None:
    heard, closed = converse(client_flags() + go(b"demo", 0, 3))
    export, block_size, ack = option_replies(heard)
    assert not closed
    assert (export.type, export.data) == (REP_INFO, struct.pack(">HQH", 0, SIZE, WRITABLE_FLAGS))
    assert (block_size.type, block_size.data) == (REP_INFO, struct.pack(">HIII", 3, 1, 4096, 32 << 20))
    assert (ack.option, ack.type, ack.data) == (GO, ACK, b"")


@pytest.mark.parametrize("inline", [True, False])
def test_the_engine_may_open_at_once_or_later(inline: bool) -> None:
    client = Client(size_bytes=SIZE, inline=inline)
    heard = client.talk(client_flags() + go() + request(READ, 0, 512))
    assert heard.endswith(struct.pack(">IIQ", 0x67446698, 0, 1) + bytes(512))
    client.leave()


def test_a_client_that_leaves_while_its_export_is_opened() -> None:
    client = Client(inline=False)
    client.engine.feed(client.link, client_flags() + go() + request(READ, 0, 512))
    client.leave()


def test_info_gives_the_export_back() -> None:
    client = Client()
    heard = client.talk(client_flags() + go(number=INFO))
    assert [reply.type for reply in option_replies(heard[len(GREETING):])] == [REP_INFO, ACK]
    assert client.engine.export_users == 0
    client.leave()


def test_structured_replies_bring_the_df_flag() -> None:
    heard, _ = converse(client_flags() + option(STRUCTURED) + go())
    assert option_replies(heard)[1].data == struct.pack(">HQH", 0, SIZE, WRITABLE_FLAGS | 128)


def test_a_read_only_export_promises_no_change() -> None:
    client = Client()
    client.engine.read_only = True
    heard = client.talk(client_flags() + go())
    assert option_replies(heard[len(GREETING):])[0].data[-2:] == struct.pack(">H", 1 | 2 | 4 | 256)
    client.leave()


@pytest.mark.parametrize(("flags", "zeroes"), [(3, 0), (1, 124), (0, 124)])
def test_export_name_is_answered_in_the_old_way(flags: int, zeroes: int) -> None:
    heard, closed = converse(client_flags(flags) + option(EXPORT_NAME, b"demo"))
    assert heard == struct.pack(">QH", SIZE, WRITABLE_FLAGS) + bytes(zeroes)
    assert not closed


def test_export_name_can_only_hang_up() -> None:
    assert converse(client_flags() + option(EXPORT_NAME, b"none")) == (b"", True)
    assert converse(client_flags() + option(EXPORT_NAME, b"x" * 300)) == (b"", True)
    assert converse(client_flags() + option(EXPORT_NAME, b"x" * 9000)) == (b"", True)


def test_list_names_the_exports() -> None:
    client = Client()
    client.engine.names = [b"demo", b"", b"x" * 300, b"last"]
    heard = option_replies(client.talk(client_flags() + option(LIST))[len(GREETING):])
    assert [(reply.type, reply.data) for reply in heard] == [
        (SERVER, text(b"demo")), (SERVER, text(b"")), (SERVER, text(b"last")), (ACK, b"")]
    client.leave()


def test_abort_is_acknowledged_before_the_link_is_closed() -> None:
    heard, closed = converse(client_flags() + option(ABORT))
    assert [reply.type for reply in option_replies(heard)] == [ACK]
    assert closed


@pytest.mark.parametrize(("error", "expected"), [
    (errno.ENOENT, ERR_UNKNOWN), (errno.EBUSY, ERR_POLICY), (errno.EACCES, ERR_POLICY),
    (errno.ESHUTDOWN, ERR_SHUTDOWN), (errno.EIO, 0x80000004)])
def test_an_export_that_cannot_be_opened(error: int, expected: int) -> None:
    client = Client()
    client.engine.open_error = error
    heard = option_replies(client.talk(client_flags() + go())[len(GREETING):])
    assert [reply.type for reply in heard] == [expected]
    client.engine.open_error = 0
    assert option_replies(client.talk(go()))[-1].type == ACK
    client.leave()


def test_what_is_refused_is_refused_and_the_next_option_is_read() -> None:
    big = option(99, bytes(9000))
    no_queries = option(SET_META, text(b"demo") + struct.pack(">I", 2) + text(b"base:allocation"))
    assert types(option(STARTTLS), option(99, b"data"), big, go(b"other"), go(b"x" * 300)) == [
        ERR_UNSUP, ERR_UNSUP, ERR_TOO_BIG, ERR_UNKNOWN, ERR_UNKNOWN]
    assert types(option(LIST, b"x"), option(STRUCTURED, b"x"), option(GO), option(GO, text(b"demo"))) == [
        ERR_INVALID] * 4
    assert types(
        option(GO, struct.pack(">I", 0xFFFFFFFF) + b"demo"),
        option(GO, text(b"demo") + struct.pack(">H", 2) + b"ab"),
        option(GO, text(b"demo") + struct.pack(">H", 0) + b"ab"),
    ) == [ERR_INVALID] * 3
    assert types(meta_context(b"demo", b"base:allocation")) == [ERR_INVALID]
    assert types(option(STRUCTURED), no_queries, option(SET_META), option(SET_META, text(b"demo"))) == [
        ACK, ERR_INVALID, ERR_INVALID, ERR_INVALID]


def test_a_number_of_queries_that_cannot_be() -> None:
    hostile = option(SET_META, text(b"demo") + struct.pack(">I", 0xFFFFFFFF) + text(b"q"))
    assert types(option(STRUCTURED), hostile) == [ACK, ERR_INVALID]


@pytest.mark.parametrize(("number", "queries", "found"), [
    (LIST_META, [], True), (LIST_META, [b"base:"], True), (LIST_META, [b"base:allocation"], True),
    (LIST_META, [b"qemu:"], False), (SET_META, [], False), (SET_META, [b"base:"], False),
    (SET_META, [b"qemu:x", b"base:allocation", b"base:allocation"], True)])
def test_contexts(number: int, queries: list[bytes], found: bool) -> None:
    heard, _ = converse(client_flags() + option(STRUCTURED) + meta_context(b"demo", *queries, number=number))
    context_id = 1 if number == SET_META else 0
    context = [(META_CONTEXT, struct.pack(">I", context_id) + b"base:allocation")] if found else []
    assert [(reply.type, reply.data) for reply in option_replies(heard)] == [
        (ACK, b""), *context, (ACK, b"")]


@pytest.mark.parametrize("words", [
    client_flags(4),
    client_flags() + b"GET / HTTP/1.1\r\n\r\n",
    client_flags() + struct.pack(">QII", OPTION_MAGIC, 99, (1 << 20) + 1),
    client_flags() + option(99) * 1025,
])
def test_what_is_no_client_is_hung_up_on(words: bytes) -> None:
    assert converse(words)[1]


# ------------------------------------------------------------------------- the real engine

class EngineClient:
    """A client of the engine itself, whose control side is the test."""

    def __init__(self, native: Native) -> None:
        self.native = native
        self.engine = native.engine
        self.socket, theirs = socket.socketpair()
        self.socket.settimeout(WAIT_S)
        with theirs:
            native.loop.add_socket(theirs.fileno(), BYTES_ACCEPTED)
        assert self.receive(len(GREETING)) == GREETING
        self.socket.sendall(client_flags())

    def receive(self, count: int) -> bytes:
        heard = b""
        while len(heard) < count:
            heard += (more := self.socket.recv(count - len(heard)))
            assert more, "hung up"
        return heard

    def answer(self) -> int:
        """The type of the next option reply."""
        head = self.receive(20)
        _, _, kind, length = struct.unpack(">QIII", head)
        self.receive(length)
        return int(kind)

    def opens(self, index: int, session: int) -> None:
        """Volume v`index`, that is attached here under this session."""
        name = f"v{index}"
        self.socket.sendall(go(name.encode()))
        assert self.asked() == [("attach", name)]
        self.engine.export_install(index, name, SIZE, session)
        assert [self.answer(), self.answer()] == [REP_INFO, ACK]

    def error_of_a_read(self) -> int:
        self.socket.sendall(request(READ, 0, 4096))
        _, error, _ = struct.unpack(">IIQ", self.receive(16))
        return int(error)

    def asked(self) -> list[tuple[object, ...]]:
        """What the control side is asked; waits for something."""
        select.select([self.engine.event_fd], [], [], WAIT_S)
        return [(event[0], event[2]) for event in self.engine.events()]


@pytest.fixture
def engine_client() -> Iterator[EngineClient]:
    native = Native(0, None, frontend=frontend)
    native.start()
    client = EngineClient(native)
    with contextlib.closing(client.socket):
        yield client
    native.stop()


LONGEST = b"n" * config.VOLUME_NAME_BYTES_MAX


@pytest.mark.parametrize("name", [
    b"", b"\xff\xfe", b"caf\xe9", "\u00e9".encode() * 40, b"demo\0xyz", b"demo\0", b"-demo", LONGEST + b"n",
    LONGEST + b"\0", LONGEST * 4])
def test_a_name_that_no_volume_can_have_is_refused_as_it_is(engine_client: EngineClient, name: bytes) -> None:
    engine_client.socket.sendall(go(name))
    assert engine_client.answer() == ERR_UNKNOWN
    assert engine_client.engine.events() == []
    engine_client.socket.sendall(go(LONGEST))
    assert engine_client.asked() == [("attach", LONGEST.decode())]
    engine_client.engine.export_install(1, LONGEST.decode(), SIZE, 1)
    assert [engine_client.answer(), engine_client.answer()] == [REP_INFO, ACK]


def test_the_engine_takes_the_names_that_volumes_may_have(engine_client: EngineClient) -> None:
    for name in [prefix + bytes([byte]) for prefix in (b"", b"v") for byte in range(256)]:
        engine_client.socket.sendall(go(name))
        if re.search(config.NAME_PATTERN, name.decode("latin-1")):
            assert engine_client.asked() == [("attach", name.decode())]
            engine_client.engine.export_refuse(name.decode(), errno.EBUSY)
            assert engine_client.answer() == ERR_POLICY
        else:
            assert engine_client.answer() == ERR_UNKNOWN


def test_a_volume_is_awaited_while_who_asked_for_it_is_there(engine_client: EngineClient) -> None:
    """The control side asks for that when it goes on (X8)."""
    engine, gone = engine_client.engine, EngineClient(engine_client.native)
    assert not engine.export_awaited("v")
    gone.socket.sendall(go(b"v"))
    assert gone.asked() == [("attach", "v")]
    assert engine.export_awaited("v")
    assert not engine.export_awaited("w")
    gone.socket.shutdown(socket.SHUT_WR)
    assert gone.socket.recv(1) == b"", "the engine has not hung up"
    gone.socket.close()
    assert not engine.export_awaited("v")
    engine_client.opens(1, 1)
    assert not engine.export_awaited("v")


def test_information_on_an_export_opens_none(engine_client: EngineClient) -> None:
    engine = engine_client.engine
    engine_client.socket.sendall(go(b"v", number=INFO))
    assert engine_client.asked() == [("describe", "v")]
    engine.export_refuse("v", errno.ESTALE)        # is for those who open it
    engine.export_describe("v", SIZE)
    assert [engine_client.answer(), engine_client.answer()] == [REP_INFO, ACK]
    engine_client.socket.sendall(go(b"w", number=INFO))
    assert engine_client.asked() == [("describe", "w")]
    engine.export_describe("w", 0, errno.ENOENT)
    assert engine_client.answer() == ERR_UNKNOWN
    engine_client.socket.sendall(go(b"v"))
    assert engine_client.asked() == [("attach", "v")]


def test_an_export_that_a_client_has_open_is_kept_for_it(engine_client: EngineClient) -> None:
    engine = engine_client.engine
    engine_client.socket.sendall(go(b"v0"))
    assert engine_client.asked() == [("attach", "v0")]
    for index in range(config.EXPORTS_MAX):
        engine.export_install(index, f"v{index}", SIZE, 1)
    assert [engine_client.answer(), engine_client.answer()] == [REP_INFO, ACK]
    engine.export_revoke(0, errno.ESHUTDOWN)
    with pytest.raises(OSError, match="too many volumes are attached"):
        engine.export_install(1000, "new", SIZE, 1)
    engine.export_revoke(1, errno.ESHUTDOWN)
    assert engine.export_install(1000, "new", SIZE, 1) not in range(config.EXPORTS_MAX)


def test_a_connection_of_a_session_that_is_over_is_refused_whoever_has_its_place(
        engine_client: EngineClient) -> None:
    """The volume was attached elsewhere and here again, then another one has its place, and stands still."""
    engine = engine_client.engine
    engine_client.opens(0, session=1)
    for index in range(1, config.EXPORTS_MAX):
        engine.export_install(index, f"v{index}", SIZE, 1)
    engine.export_install(0, "v0", SIZE, 3)
    assert engine_client.error_of_a_read() == ESHUTDOWN
    engine.export_revoke(0, errno.ESHUTDOWN)
    other = engine.export_install(1000, "other", SIZE, 1)
    flushes = np.zeros((2, DEPTH_MAX), repstore.OPERATION_DTYPE)
    flushes["kind"], flushes["export_id"] = repstore.Operation.FLUSH, other
    calls = [engine.start(some.view(np.uint8), None, DEPTH_MAX) for some in flushes]
    wait_until(lambda: engine.stats()["requests"] > DEPTH_MAX, "it has all requests that it may have")
    assert engine_client.error_of_a_read() == ESHUTDOWN
    engine.check_invariants()
    engine.export_revoke(1000, errno.ESHUTDOWN)
    assert [call.wait() for call in calls] == [DEPTH_MAX, DEPTH_MAX]


def test_who_leaves_a_session_that_is_over_leaves_the_next_to_who_has_it(engine_client: EngineClient) -> None:
    engine = engine_client.engine
    engine_client.opens(0, session=1)
    another = EngineClient(engine_client.native)
    with contextlib.closing(another.socket):
        another.opens(0, session=3)
        for index in range(1, config.EXPORTS_MAX):
            engine.export_install(index, f"v{index}", SIZE, 1)
        engine_client.socket.sendall(request(DISC))
        assert engine_client.socket.recv(1) == b""
        engine.export_revoke(0, errno.ESHUTDOWN)
        with pytest.raises(OSError, match="too many volumes are attached"):
            engine.export_install(1000, "new", SIZE, 1)
