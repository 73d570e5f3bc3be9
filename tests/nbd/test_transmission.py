"""Commands and replies against a model: a bytearray. In both reply forms, inline and deferred."""
import errno
import random
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.nbd.wire import (
    BLOCK_STATUS,
    CACHE,
    DF,
    DISC,
    EINVAL,
    EIO,
    ENOMEM,
    ENOSPC,
    ENOTSUP,
    EOVERFLOW,
    EPERM,
    ESHUTDOWN,
    FAST_ZERO,
    FLUSH,
    FUA,
    NO_HOLE,
    READ,
    REQ_ONE,
    TRIM,
    WRITE,
    WRITE_ZEROES,
    Client,
    client_flags,
    go,
    meta_context,
    option,
    reads_of,
    replies,
    request,
)

MIB = 1 << 20
SIZE = 8 * MIB
RS_FLUSH, RS_FUA, RS_NO_HOLE = 5, 1, 2



@pytest.fixture(params=["simple", "structured"])
def structured(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "structured")


@pytest.fixture(params=["inline", "deferred"])
def client(request: pytest.FixtureRequest, structured: bool) -> Client:
    return Client(size_bytes=SIZE, inline=request.param == "inline").go(structured)


def noise(length: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(length)


def test_what_is_written_is_read(client: Client) -> None:
    data = noise(8192)
    assert client.ask_one(WRITE, 4096, payload=data).error == 0
    assert client.ask_one(READ, 4096, 8192).data == data
    assert client.ask_one(READ, 5000, 100).data == data[904:1004]
    client.leave()


@pytest.mark.parametrize(("offset", "length"), [
    (0, 262144), (1, 262144), (4095, 262145), (0, 262145), (100, 3 * MIB), (0, SIZE), (4096, 5 * MIB + 7)])
def test_a_big_request_is_cut_and_answered_once(client: Client, offset: int, length: int) -> None:
    data = noise(length)
    assert client.ask_one(WRITE, offset, payload=data).error == 0
    assert bytes(client.engine.disk[offset:offset + length]) == data
    assert client.ask_one(READ, offset, length).data == data
    for _, _, begin, count in client.engine.log:
        assert count <= 262144
        assert begin in (offset, offset) or begin % 4096 == 0
    client.leave()


def test_parts_in_any_order_and_few_requests(structured: bool) -> None:
    client = Client(size_bytes=SIZE, requests=3, inline=False).go(structured)
    data = noise(2 * MIB)
    stream = request(WRITE, 512, payload=data)
    client.engine.feed(client.link, stream)
    client.engine.pump(random.Random(5).randrange)
    assert replies(client.engine.output(client.link), {})[1].error == 0
    reads = request(READ, 512, 2 * MIB, cookie=1) + request(READ, 0, 300000, cookie=2)
    client.engine.feed(client.link, reads)
    client.engine.pump(random.Random(6).randrange)
    answers = replies(client.engine.output(client.link), reads_of(reads))
    assert answers[1].data == data
    assert answers[2].data == bytes(512) + data[:300000 - 512]
    client.leave()


def test_two_big_reads_do_not_starve_each_other(structured: bool) -> None:
    """With requests for half of one read in all, each must still get its turn."""
    client = Client(size_bytes=SIZE, requests=4, inline=False).go(structured)
    other = Client(engine=client.engine)
    other.go(structured)
    for each in (client, other):
        each.engine.feed(each.link, request(READ, 0, 2 * MIB))
    client.engine.pump()
    for each in (client, other):
        assert replies(each.engine.output(each.link), {1: (0, 2 * MIB)})[1].data == bytes(2 * MIB)
    other.engine.disconnect(other.link)
    client.leave()


def test_df_asks_for_one_chunk(client: Client, structured: bool) -> None:
    answer = client.ask_one(READ, 0, MIB, flags=DF)
    if structured:
        assert (answer.chunks, answer.data) == (1, bytes(MIB))
    else:
        assert answer.error == EINVAL
    client.leave()


def test_a_big_read_comes_in_chunks(client: Client, structured: bool) -> None:
    assert client.ask_one(READ, 0, MIB).chunks == (4 if structured else 0)
    client.leave()


@pytest.mark.parametrize(("command", "offset", "length", "flags", "error"), [
    (READ, SIZE - 512, 1024, 0, EINVAL),
    (READ, SIZE, 1, 0, EINVAL),
    (READ, 2**64 - 1, 4096, 0, EINVAL),
    (READ, 0, 0, 0, EINVAL),
    (READ, 0, (32 << 20) + 1, 0, EINVAL),
    (READ, 0, 512, NO_HOLE, EINVAL),
    (TRIM, SIZE - 512, 1024, 0, EINVAL),
    (TRIM, 0, 0, 0, EINVAL),
    (WRITE_ZEROES, SIZE - 512, 1024, 0, ENOSPC),
    (WRITE_ZEROES, 0, 0, 0, EINVAL),
    (WRITE_ZEROES, 0, 512, FAST_ZERO, ENOTSUP),
    (BLOCK_STATUS, 0, SIZE + 1, 0, EINVAL),
    (FLUSH, 0, 512, 0, EINVAL),
    (FLUSH, 512, 0, 0, EINVAL),
    (FLUSH, 0, 0, DF, EINVAL),
    (CACHE, 0, 512, 0, EINVAL),
    (99, 0, 0, 0, EINVAL),
    (65535, 0, 512, 0, EINVAL),
])
def test_a_bad_command_is_refused_and_the_engine_not_asked(
        client: Client, command: int, offset: int, length: int, flags: int, error: int) -> None:
    assert client.ask_one(command, offset, length, flags=flags).error == error
    assert client.engine.log == []
    assert client.ask_one(READ, 0, 512).data == bytes(512)
    client.leave()


@pytest.mark.parametrize(("offset", "length", "flags", "error"), [
    (SIZE - 512, 1024, 0, ENOSPC), (0, (32 << 20) + 1, 0, ENOSPC), (0, 4096, 0x8000, EINVAL)])
def test_the_payload_of_a_refused_write_is_consumed(
        client: Client, offset: int, length: int, flags: int, error: int) -> None:
    stream = request(WRITE, offset, payload=bytes(length), flags=flags) + request(READ, 0, 512, cookie=2)
    answers = client.ask(stream)
    assert (answers[1].error, answers[2].error) == (error, 0)
    assert bytes(client.engine.disk) == bytes(SIZE)
    client.leave()


def test_a_write_without_length(client: Client) -> None:
    assert client.ask_one(WRITE).error == EINVAL
    client.leave()


def test_a_read_only_export_refuses_every_change() -> None:
    client = Client(size_bytes=SIZE)
    client.engine.read_only = True
    client.go()
    answers = client.ask(request(WRITE, 0, payload=bytes(512), cookie=1), request(TRIM, 0, 512, cookie=2),
                         request(WRITE_ZEROES, 0, 512, cookie=3), request(READ, 0, 512, cookie=4))
    assert [answers[cookie].error for cookie in (1, 2, 3, 4)] == [EPERM, EPERM, EPERM, 0]
    client.leave()


@pytest.mark.parametrize(("number", "wire"), [
    (errno.EPERM, EPERM), (errno.EROFS, EPERM), (errno.EIO, EIO), (errno.ENOMEM, ENOMEM),
    (errno.EINVAL, EINVAL), (errno.ENOSPC, ENOSPC), (errno.EDQUOT, ENOSPC), (errno.EOVERFLOW, EOVERFLOW),
    (errno.EOPNOTSUPP, ENOTSUP), (errno.ESHUTDOWN, ESHUTDOWN), (errno.ETIMEDOUT, EIO), (9999, EIO)])
def test_errors_of_the_engine_have_a_name_on_the_wire(client: Client, number: int, wire: int) -> None:
    client.engine.error_of = lambda kind, offset, length: number
    stream = [request(READ, 0, 512, cookie=1), request(WRITE, 0, payload=bytes(512), cookie=2),
              request(FLUSH, cookie=3), request(TRIM, 0, 512, cookie=4)]
    assert {answer.error for answer in client.ask(*stream).values()} == {wire}
    client.leave()


@pytest.mark.parametrize("command", [READ, WRITE])
@pytest.mark.parametrize("bad_part", [0, 1, 3])
def test_one_bad_part_fails_the_whole_and_the_stream_goes_on(
        client: Client, command: int, bad_part: int) -> None:
    client.engine.error_of = lambda kind, offset, length: (
        errno.EIO if offset == bad_part * 262144 and length == 262144 else 0)
    payload = noise(MIB) if command == WRITE else b""
    answers = client.ask(request(command, 0, MIB, payload), request(READ, 4 * MIB, 512, cookie=2))
    assert (answers[1].error, answers[2].error, answers[2].data) == (EIO, 0, bytes(512))
    client.leave()


def test_flags_reach_the_engine(client: Client) -> None:
    client.ask(request(WRITE, 0, payload=bytes(512), flags=FUA, cookie=1), request(FLUSH, cookie=2),
               request(WRITE_ZEROES, 0, 3 * MIB, flags=NO_HOLE | FUA, cookie=3),
               request(TRIM, 0, 4096, flags=FUA, cookie=4), request(WRITE_ZEROES, 0, 8, cookie=5))
    assert [(kind, flags) for kind, flags, _, _ in client.engine.log] == [
        (2, RS_FUA), (RS_FLUSH, 0), (4, RS_FUA | RS_NO_HOLE), (3, RS_FUA), (2, 0)]
    client.leave()


@pytest.mark.parametrize(("begin", "length", "parts"), [
    (512, 1024, [(2, 512, 1024)]),
    (4096, 8192, [(4, 4096, 8192)]),
    (4096, 8000, [(4, 4096, 4096), (2, 8192, 3904)]),
    (4000, 8192, [(2, 4000, 96), (4, 4096, 4096), (2, 8192, 4000)]),
    (4000, 200, [(2, 4000, 96), (2, 4096, 104)]),
])
def test_zeroes_of_a_part_of_a_block_are_written(
        client: Client, begin: int, length: int, parts: list[tuple[int, int, int]]) -> None:
    """The engine zeroes whole blocks; what is one command on the wire has one answer."""
    client.ask(request(WRITE, 0, payload=noise(16384)))
    del client.engine.log[:]
    assert client.ask_one(WRITE_ZEROES, begin, length, flags=NO_HOLE | FUA).error == 0
    assert [(kind, offset, count) for kind, _, offset, count in client.engine.log] == parts
    assert {flags & RS_FUA for _, flags, _, _ in client.engine.log} == {RS_FUA}
    expected = bytearray(noise(16384))
    expected[begin:begin + length] = bytes(length)
    assert client.engine.disk[:16384] == expected
    client.leave()


def test_block_status() -> None:
    client = Client(size_bytes=SIZE).go(structured=True)
    client.ask(request(WRITE, 8192, payload=noise(4096)),
               request(WRITE_ZEROES, 12288, 4096, flags=NO_HOLE, cookie=2))
    assert client.ask_one(BLOCK_STATUS, 0, 20480).extents == [(8192, 3), (4096, 0), (4096, 2), (4096, 3)]
    assert client.ask_one(BLOCK_STATUS, 4096, 20480, flags=REQ_ONE).extents == [(4096, 3)]
    assert client.ask_one(BLOCK_STATUS, 9000, 100).extents == [(100, 0)]
    client.engine.error_of = lambda kind, offset, length: errno.EIO
    assert client.ask_one(BLOCK_STATUS, 0, 4096).error == EIO
    client.leave()


def test_block_status_without_its_context_is_refused() -> None:
    for words in (b"", option(8), option(8) + meta_context(b"other", b"base:allocation")):
        client = Client(size_bytes=SIZE)
        client.talk(client_flags() + words + go())
        assert client.ask_one(BLOCK_STATUS, 0, 4096).error == EINVAL
        client.leave()


def test_disc_waits_for_the_answers_under_way(structured: bool) -> None:
    client = Client(size_bytes=SIZE, inline=False).go(structured)
    client.engine.feed(client.link, request(READ, 0, 4096) + request(WRITE, 0, payload=bytes(64), cookie=2)
                       + request(DISC) + b"trailing garbage")
    assert not client.closed
    assert client.engine.links[client.link].unread == b""
    client.engine.pump()
    assert client.closed
    assert set(replies(client.engine.output(client.link), {1: (0, 4096)})) == {1, 2}
    client.leave()


def test_disc_with_nothing_under_way_closes_at_once(client: Client) -> None:
    client.talk(request(DISC))
    assert client.closed
    client.leave()


def test_bad_magic_closes(client: Client) -> None:
    client.talk(request(READ, 0, 512) + b"\0" * 28)
    assert client.closed
    client.leave()


def test_byte_by_byte_and_with_the_next_command_behind(structured: bool) -> None:
    stream = (request(WRITE, 100, payload=noise(300)) + request(READ, 0, 512, cookie=2)
              + request(FLUSH, cookie=3) + request(WRITE, SIZE, payload=b"zz", cookie=4)
              + request(WRITE_ZEROES, 100, 10, cookie=5) + request(READ, 90, 30, cookie=6))
    heard = []
    for size in (len(stream), 1, 3, 29):
        client = Client(size_bytes=SIZE).go(structured)
        heard.append(b"".join(client.talk(stream[i:i + size]) for i in range(0, len(stream), size)))
        assert client.talk(stream[:20]) == b""
        client.leave()
    assert len(set(heard)) == 1
    assert replies(heard[0], reads_of(stream))[4].error == ENOSPC


@pytest.mark.parametrize("count", range(1, 40))
def test_reads_that_come_together_are_all_asked_for(structured: bool, count: int) -> None:
    """However many: the last of them must not wait for bytes that never come."""
    client = Client(size_bytes=SIZE, inline=False).go(structured)
    client.engine.feed(client.link, b"".join(request(READ, 0, 512, cookie=cookie) for cookie in range(count)))
    assert len(client.engine.pending) == count
    client.engine.pump()
    client.leave()


# ---- limits

def test_no_more_than_so_many_operations_in_flight(structured: bool) -> None:
    client = Client(size_bytes=SIZE, requests=5000, inline=False).go(structured)
    many = b"".join(request(READ, 0, 1, cookie=cookie) for cookie in range(1500))
    client.engine.feed(client.link, many)
    assert len(client.engine.pending) == 1024
    client.engine.pump()
    assert len(replies(client.engine.output(client.link), reads_of(many))) == 1500
    client.leave()


def test_an_answer_that_is_not_taken_counts_as_in_flight(structured: bool) -> None:
    client = Client(size_bytes=SIZE, requests=5000, inline=False).go(structured)
    client.engine.inline_completion = True
    many = b"".join(request(WRITE, 0, payload=b"x", cookie=cookie) for cookie in range(1500))
    client.engine.feed(client.link, many)
    assert len(client.engine.links[client.link].unsent) == 1024
    client.engine.pump()
    assert len(replies(client.engine.output(client.link), {})) == 1500
    client.leave()


def test_no_more_than_so_many_bytes_in_flight(structured: bool) -> None:
    client = Client(size_bytes=32 * MIB, requests=5000, inline=False).go(structured)
    many = b"".join(request(READ, 0, 20 * MIB, cookie=cookie) for cookie in range(4))
    client.engine.feed(client.link, many)
    assert len(client.engine.pending) == 2 * 80
    client.engine.pump()
    assert set(replies(client.engine.output(client.link), reads_of(many))) == {0, 1, 2, 3}
    client.leave()


@given(st.data())
@pytest.mark.fault("input: NBD commands in any slices", promise="answered as if they came whole")
def test_any_commands_in_any_slices_against_the_model(data: st.DataObject) -> None:
    """Whatever the engine's order, patience and the slices of the stream, the model is right."""
    size = 64 * 4096
    structured = data.draw(st.booleans())
    client = Client(size_bytes=size, requests=data.draw(st.integers(1, 8)),
                    inline=data.draw(st.booleans())).go(structured)
    model = bytearray(size)
    for _ in range(data.draw(st.integers(1, 6))):
        begin = data.draw(st.integers(0, size + 10))
        length = data.draw(st.sampled_from([1, 511, 4096, 4097, 131072, 262144]))
        command = data.draw(st.sampled_from([READ, WRITE, WRITE_ZEROES, TRIM, FLUSH]))
        payload = noise(length, begin) if command == WRITE else b""
        if command == FLUSH:
            begin = length = 0
        stream = request(command, begin, length, payload)
        cut = data.draw(st.integers(0, len(stream)))
        client.engine.feed(client.link, stream[:cut])
        client.engine.feed(client.link, stream[cut:])
        client.engine.pump(random.Random(begin).randrange)
        answer = replies(client.engine.output(client.link), reads_of(stream))[1]
        fits = begin + length <= size
        assert answer.error == (0 if fits else ENOSPC if command in (WRITE, WRITE_ZEROES) else EINVAL)
        if fits and command == READ:
            assert answer.data == model[begin:begin + length]
        elif fits and command != FLUSH:
            model[begin:begin + length] = payload or bytes(length)
    assert client.engine.disk == model
    client.leave()


@given(st.binary(max_size=200), st.booleans())
def test_garbage_after_the_handshake(garbage: bytes, structured: bool) -> None:
    client = Client(size_bytes=SIZE).go(structured)
    client.talk(garbage)
    client.talk(struct.pack(">I", 0x25609513) + garbage)
    client.leave()
