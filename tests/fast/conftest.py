"""A loop with the echo engine, over each driver this machine has."""
import contextlib
import errno
import mmap
import os
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from repstore._fast.loop import Loop

WAIT_S = 20.0
RING_RETRY_S = 0.01
FRAMES_ACCEPTED, BYTES_ACCEPTED, FRAMES_CONNECTED = 1, 2, 3
Event = tuple[str, int, int, int]


def drivers() -> list[str]:
    try:
        from repstore._fast import uring  # noqa: F401
        Loop(-1, "uring")
    except (ImportError, ValueError, OSError):
        return ["threads"]
    return ["uring", "threads"]


def echo_engine(loop: Loop, **options: int) -> Any:
    module = pytest.importorskip("tests.fast._echo", reason="REPSTORE_TEST_EXTENSIONS=1 builds it")
    return module.Echo(loop, **options)


def new_loop(disk_fd: int, backend: str) -> Loop:
    """Without root a ring's memory counts against what the user may lock, and the kernel takes its
    time to give back that of the loops before: then it is waited for."""
    give_up = time.monotonic() + WAIT_S
    while True:
        try:
            return Loop(disk_fd, backend)
        except OSError as error:
            if error.errno != errno.ENOMEM or time.monotonic() > give_up:
                raise
            select.select([], [], [], RING_RETRY_S)


class RunningLoop:
    """One loop in its thread; `until` waits for what the engine is told."""

    def __init__(self, backend: str, disk_fd: int, **options: int) -> None:
        self.loop = new_loop(disk_fd, backend)
        self.echo = echo_engine(self.loop, **options)
        self.peers: list[socket.socket] = []
        self.thread = threading.Thread(target=self.loop.run, daemon=True)
        self.thread.start()

    def until(self, condition: Callable[[list[Event]], Any]) -> list[Event]:
        give_up = time.monotonic() + WAIT_S
        while True:
            events: list[Event] = self.echo.events()
            if condition(events):
                return events
            left = give_up - time.monotonic()
            assert left > 0, f"not within {WAIT_S} s; so far {events[-20:]}"
            select.select([self.echo.event_fd], [], [], left)
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(self.echo.event_fd)

    def link(self, kind: int = BYTES_ACCEPTED) -> tuple[int, socket.socket]:
        """A link and the other end of its socket."""
        ours, theirs = socket.socketpair()
        with ours:
            number = self.loop.add_socket(ours.fileno(), kind)
        self.until(lambda events: ("up", number, 0, kind) in events)
        theirs.settimeout(WAIT_S)
        self.peers.append(theirs)
        return number, theirs

    def stop(self) -> None:
        self.loop.stop()
        self.thread.join(WAIT_S)
        assert not self.thread.is_alive()
        for peer in self.peers:
            peer.close()


@pytest.fixture(params=drivers())
def driver(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def start(driver: str, tmp_path: Path) -> Iterator[Callable[..., RunningLoop]]:
    running: list[RunningLoop] = []
    path = tmp_path / "disk"
    path.write_bytes(bytes(1 << 20))
    disk_fd = os.open(path, os.O_RDWR)

    def start_loop(**options: int) -> RunningLoop:
        running.append(RunningLoop(driver, disk_fd, **options))
        return running[-1]

    yield start_loop
    for loop in running:
        loop.stop()
        assert loop.echo.lent == 0, "every lent body is answered"
        assert loop.echo.untimely == 0, "the time comes before everything else in a round"
    os.close(disk_fd)


@pytest.fixture
def page() -> Callable[[bytes], mmap.mmap]:
    """A page-aligned buffer of one block."""
    def make(content: bytes = b"") -> mmap.mmap:
        buffer = mmap.mmap(-1, 4096)
        buffer[:len(content)] = content
        return buffer
    return make
