"""A hostile byte stream on a link of frames, in any pieces: whole frames or nothing.

A loop of production with the echo engine, a socket, and pieces of frames sealed right or not. What
comes up is compared with a cutter of a few lines. First byte: bits 0 and 1 how it is cut to pieces.
"""
from __future__ import annotations

import atexit
import contextlib
import socket
from functools import cache

import numpy as np
from crc32c import crc32c

from repstore._fast.layout import (
    FRAME_BODY_MAX,
    FRAME_HEADER_BYTES,
    FRAME_MAGIC,
    FRAME_META_MAX,
    WIRE_VERSION,
    frame_header_t,
)
from tests.fast.conftest import FRAMES_ACCEPTED, RunningLoop, drivers
from tests.fuzz.frames import sealed
from tests.fuzz.script import Script

FRAMES_MAX = 64
INPUTS_A_LOOP = 500        # the echo engine remembers so many events


class Loops:
    """One loop for many inputs, and a new one before its memory of events is full."""

    def __init__(self) -> None:
        self._running: RunningLoop | None = None
        self._used = 0

    def next(self) -> RunningLoop:
        if self._running is None or self._used == INPUTS_A_LOOP:
            self.stop()
            self._running, self._used = RunningLoop(drivers()[0], -1), 0
        self._used += 1
        return self._running

    def stop(self) -> None:
        if self._running:
            self._running.stop()
            self._running = None


@cache
def loops() -> Loops:
    found = Loops()
    atexit.register(found.stop)
    return found


def run(data: bytes) -> None:
    """One input."""
    script = Script(data)
    style = script.number()
    stream = b"".join(pieces(script))
    running = loops().next()
    before = len(running.echo.events())
    number, theirs = running.link(FRAMES_ACCEPTED)
    running.peers.remove(theirs)
    with theirs:
        size = (1 + len(stream) // (1, 2, 7, 50)[style & 3]) or 1
        with contextlib.suppress(ConnectionError):
            for at in range(0, len(stream), size):
                theirs.sendall(stream[at:at + size])
            theirs.shutdown(socket.SHUT_WR)
        # closed before, with an echo unread, the kernel would reset it, and what was sent last be lost
        events = running.until(lambda events: any(event[:2] == ("down", number) for event in events[before:]))
    seen = [event[2:] for event in events[before:] if event[:2] == ("frame", number)]
    assert seen == cut(stream)                # what stood before garbage comes up


def pieces(script: Script) -> list[bytes]:
    """Frames and garbage, as the script has it."""
    found = []
    for i in range(FRAMES_MAX):
        if not script.left:
            break
        kind = script.number() % 3
        if kind == 0:
            found.append(script.take(script.number()))
            continue
        header = np.zeros(1, frame_header_t)
        header["lsn"], header["flags"] = i, script.number()
        meta = script.take(script.number())
        frame = bytearray(sealed(header, 200, meta, bytes(script.number(2))))
        if kind == 2:
            frame[script.number() % len(frame)] ^= script.number()
        found.append(bytes(frame))
    return found


def cut(stream: bytes) -> list[tuple[int, int]]:
    """(LSN, body bytes) of the frames before the first garbage, written down as plainly as can be."""
    found = []
    while len(stream) >= FRAME_HEADER_BYTES:
        header = np.frombuffer(stream, frame_header_t, 1).copy()
        meta_bytes, body_bytes, crc = (int(header[name][0]) for name in ("meta_bytes", "body_bytes", "crc"))
        end = FRAME_HEADER_BYTES + meta_bytes
        header["crc"] = 0
        if (header["magic"] != FRAME_MAGIC or header["version"] != WIRE_VERSION or meta_bytes > FRAME_META_MAX
                or body_bytes > FRAME_BODY_MAX or len(stream) < end + body_bytes
                or crc != crc32c(stream[FRAME_HEADER_BYTES:end], crc32c(header.tobytes()))):
            break
        found.append((int(header["lsn"][0]), body_bytes))
        stream = stream[end + body_bytes:]
    return found
