"""Links: frames whole or not at all, streams by the window, sends in order, every token answered."""
import socket
import threading
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from repstore._fast.checksum import crc32c
from repstore._fast.layout import FRAME_BODY_MAX, FRAME_MAGIC, FRAME_META_MAX, frame_header_t

from .conftest import BYTES_ACCEPTED, FRAMES_ACCEPTED, FRAMES_CONNECTED, RunningLoop, drivers

Start = Callable[..., RunningLoop]


def frame(number: int, meta: bytes = b"", body: bytes = b"", **fields: int) -> bytes:
    header = np.zeros(1, dtype=frame_header_t)
    header["magic"], header["type"], header["version"] = FRAME_MAGIC, 2, 1
    header["meta_bytes"], header["body_bytes"], header["lsn"] = len(meta), len(body), number
    for name, value in fields.items():
        header[name] = value
    if "crc" not in fields:
        header["crc"] = crc32c(meta, crc32c(header.tobytes()))
    return header.tobytes() + meta + body


def receive(theirs: socket.socket, count: int) -> bytes:
    parts = bytearray()
    while len(parts) < count:
        part = theirs.recv(min(1 << 20, count - len(parts)))
        assert part, f"closed after {len(parts)} of {count} bytes"
        parts += part
    return bytes(parts)


def exchange(theirs: socket.socket, data: bytes, pieces: int = 1) -> bytes:
    """Sends in a thread of its own, so that neither side waits for the other."""
    size = max(1, len(data) // pieces)

    def send() -> None:
        for at in range(0, len(data), size):
            theirs.sendall(data[at:at + size])

    thread = threading.Thread(target=send)
    thread.start()
    back = receive(theirs, len(data))
    thread.join()
    return back


SIZES = [(0, 0), (1, 0), (0, 1), (FRAME_META_MAX, FRAME_BODY_MAX), (100, 4096), (8, 65536)]


@pytest.mark.parametrize("kind", [FRAMES_ACCEPTED, FRAMES_CONNECTED])
@pytest.mark.parametrize("pieces", [1, 7, 1000])
def test_frames_come_up_whole(start: Start, kind: int, pieces: int) -> None:
    running = start()
    noise = np.random.default_rng(1).bytes(FRAME_BODY_MAX + FRAME_META_MAX)
    data = b"".join(frame(i, noise[:meta], noise[-body:] if body else b"")
                    for i, (meta, body) in enumerate(SIZES * 4))
    _, theirs = running.link(kind)
    with theirs:
        assert exchange(theirs, data, pieces) == data
    seen = [event[2:] for event in running.echo.events() if event[0] == "frame"]
    assert seen == [(i, body) for i, (_, body) in enumerate(SIZES * 4)]


def test_a_frame_byte_by_byte_with_the_next_behind_it(start: Start) -> None:
    running = start()
    data = frame(1, b"meta", b"body") + frame(2)
    _, theirs = running.link(FRAMES_ACCEPTED)
    with theirs:
        for at in range(len(data)):
            theirs.sendall(data[at:at + 1])
        assert receive(theirs, len(data)) == data


@pytest.mark.parametrize("bad", [
    frame(1, magic=1),
    frame(1, version=2),
    frame(1, crc=1),
    frame(1, meta_bytes=FRAME_META_MAX + 1),
    frame(1, body_bytes=FRAME_BODY_MAX + 1),
    frame(1, meta_bytes=2**32 - 1, body_bytes=2**32 - 1),
    frame(1, b"meta")[:-1] + b"A",
    b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: */*\r\nConnection: close\r\n\r\n",
], ids=["magic", "version", "crc", "meta", "body", "both", "flipped", "http"])
def test_garbage_cuts_the_link_after_what_was_good(start: Start, bad: bytes) -> None:
    running = start()
    number, theirs = running.link(FRAMES_ACCEPTED)
    with theirs:
        theirs.sendall(frame(7, b"good", b"good") + bad)
        events = running.until(lambda events: ("down", number, 0, 0) in events)
    assert [event[2] for event in events if event[0] == "frame"] == [7]


@given(data=st.binary(min_size=64, max_size=400))
def test_any_garbage_does_no_harm(data: bytes) -> None:
    for backend in drivers():
        running = RunningLoop(backend, -1)
        number, theirs = running.link(FRAMES_ACCEPTED)
        with theirs:
            theirs.sendall(data)
            running.until(lambda events, number=number: ("down", number, 0, 0) in events)
        running.stop()


def test_a_stream_keeps_what_was_not_consumed(start: Start) -> None:
    running = start(unit=1000)
    data = np.random.default_rng(2).bytes(5_000_000)
    _, theirs = running.link()
    with theirs:
        assert exchange(theirs, data, 333) == data


def test_a_window_that_nobody_consumes_stops_the_sender(start: Start) -> None:
    running = start(unit=2**31 - 1)
    number, theirs = running.link()
    data = bytes(3 << 20)
    with theirs:
        theirs.settimeout(0.2)
        with pytest.raises(TimeoutError):
            theirs.sendall(data)
        events = running.until(lambda events: events[-1][3] == 1 << 20)
        assert max(event[3] for event in events if event[0] == "bytes") == 1 << 20
        # consumed at last: resuming offers the window again
        running.echo.unit(1)
        running.echo.hold(number, 0)
        theirs.settimeout(20)
        assert receive(theirs, 1 << 20) == data[:1 << 20]


def test_a_held_link_waits(start: Start) -> None:
    running = start()
    number, theirs = running.link(FRAMES_ACCEPTED)
    running.echo.hold_at_next_frame()
    with theirs:
        theirs.sendall(frame(1) + frame(2) + frame(3))
        running.until(lambda events: events[-1][:3] == ("frame", number, 1))
        assert receive(theirs, 64) == frame(1)
        theirs.setblocking(False)
        with pytest.raises(BlockingIOError):
            theirs.recv(1)
        theirs.settimeout(20)
        running.echo.hold(number, 0)
        assert receive(theirs, 128) == frame(2) + frame(3)


def test_sends_are_answered_in_order_and_leave_in_order(start: Start) -> None:
    running = start()
    number, theirs = running.link()
    noise = np.random.default_rng(3).bytes(1 << 20)
    expected = bytearray()
    for token in range(1, 400):
        head, body = noise[:token % 90], noise[-(token * 37 % 20_000):] if token % 3 else b""
        if token % 50 == 0:
            head, body = noise[:100_000], b""
        expected += head + body
        running.echo.send(number, head, body, token)
    with theirs:
        assert receive(theirs, len(expected)) == bytes(expected)
        running.until(lambda events: sum(event[0] == "sent" for event in events) == 399)
    assert [e[2] for e in running.echo.events() if e[0] == "sent"] == list(range(1, 400))


def test_a_link_that_dies_answers_every_token_first(start: Start) -> None:
    running = start()
    number, theirs = running.link()
    for token in range(1, 30):
        running.echo.send(number, b"head", bytes(1 << 20), token)
    theirs.close()
    events = running.until(lambda events: ("down", number, 0, 0) in events)
    assert [event[2] for event in events if event[0] == "sent"] == list(range(1, 30))
    assert events[-1][0] == "down"
    running.echo.send(number, b"late", b"", 77)
    running.echo.send(5000, b"never was", b"", 78)
    events = running.until(lambda events: events[-1][2] == 78)
    assert [event[2] for event in events[-2:]] == [77, 78]


def test_a_peer_that_never_reads_is_cut_at_the_limit(start: Start) -> None:
    running = start()
    number, theirs = running.link()
    body = bytes(1 << 20)
    with theirs:
        for token in range(1, 144):
            running.echo.send(number, b"", body, token)
        events = running.until(lambda events: ("down", number, 0, 0) in events)
    assert sum(event[0] == "sent" for event in events) <= 143


def test_close_lets_out_what_was_queued(start: Start) -> None:
    running = start()
    number, theirs = running.link()
    with theirs:
        theirs.sendall(b"QUIT")
        assert receive(theirs, 4) == b"QUIT"
        assert theirs.recv(1) == b""
    running.until(lambda events: ("down", number, 0, 0) in events)


def test_close_does_not_wait_for_ever_for_a_peer_that_does_not_read(start: Start) -> None:
    running = start()
    number, theirs = running.link()
    with theirs:
        running.echo.send(number, b"", bytes(4 << 20), 1)
        running.echo.close(number)
        events = running.until(lambda events: ("down", number, 0, 0) in events)
        assert ("sent", number, 1, 0) in events


def test_numbers_come_back_only_after_link_down(start: Start) -> None:
    running = start()
    for _ in range(5):
        number, theirs = running.link(BYTES_ACCEPTED)
        theirs.close()
        running.until(lambda events, number=number: ("down", number, 0, 0) in events)
    names = [event[0] for event in running.echo.events() if event[0] in ("up", "down")]
    assert names == ["up", "down"] * 5


def test_many_links_at_once(start: Start) -> None:
    running = start()
    links = [running.link() for _ in range(50)]
    data = np.random.default_rng(4).bytes(300_000)
    threads = [threading.Thread(target=lambda s=theirs: (exchange(s, data, 5), s.close()))
               for _, theirs in links]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    running.until(lambda events: sum(event[0] == "down" for event in events) == 50)
