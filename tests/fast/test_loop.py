"""The loop: when it turns, when it sleeps, how it ends, and what it falls back to."""
import os
import resource
import select
import socket
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from repstore import config
from repstore._fast.loop import Loop

from .conftest import (
    BYTES_ACCEPTED,
    FRAMES_ACCEPTED,
    FRAMES_CONNECTED,
    WAIT_S,
    RunningLoop,
    drivers,
    echo_engine,
)

Start = Callable[..., RunningLoop]
DESCRIPTORS = 2048        # a full table of links, and whatever else a test process has open


def test_a_busy_engine_is_turned_again_before_the_loop_sleeps(start: Start) -> None:
    running = start(busy_turns=1000)
    running.until(lambda _: running.echo.turns >= 1000)


def test_an_idle_loop_sleeps(start: Start) -> None:
    running = start()
    running.link()
    before = running.echo.turns
    # nothing to wait for: 50 ms of silence is the point
    select.select([], [], [], 0.05)
    assert running.echo.turns - before <= 2


def test_a_deadline_is_kept(start: Start) -> None:
    running = start(deadline_after_ns=30_000_000)
    running.until(lambda _: running.echo.late_ns)
    assert running.echo.late_ns < WAIT_S * 1e9


def test_wake_gives_a_turn(start: Start) -> None:
    running = start()
    running.link()
    before = running.echo.turns
    running.loop.wake()
    running.until(lambda _: running.echo.turns > before)


@pytest.mark.parametrize("family", [socket.AF_UNIX, socket.AF_INET])
def test_connections_are_accepted_with_the_kind_of_their_listener(
    start: Start, tmp_path: Path, family: socket.AddressFamily
) -> None:
    running = start()
    address = str(tmp_path / "listen") if family == socket.AF_UNIX else ("127.0.0.1", 0)
    with socket.socket(family) as listener:
        listener.bind(address)
        listener.listen()
        address = listener.getsockname()
        running.loop.add_listener(listener.fileno(), BYTES_ACCEPTED)
    for turn in range(3):
        with socket.socket(family) as client:
            client.settimeout(WAIT_S)
            client.connect(address)
            client.sendall(b"hello")
            assert client.recv(100) == b"hello"
        ups_and_downs = 2 * (turn + 1)
        running.until(lambda events, n=ups_and_downs: sum(e[0] in ("up", "down") for e in events) == n)
    assert {event[3] for event in running.echo.events() if event[0] == "up"} == {BYTES_ACCEPTED}


def test_stop_ends_listeners_and_links(start: Start, tmp_path: Path) -> None:
    running = start()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "listen"))
        listener.listen()
        running.loop.add_listener(listener.fileno(), FRAMES_ACCEPTED)
    number, theirs = running.link()
    running.loop.stop()
    assert theirs.recv(1) == b""
    running.stop()
    assert running.echo.events()[-1][:2] == ("down", number)
    with socket.socket() as late, pytest.raises(OSError, match=r"no link for a socket: .*shutdown"):
        running.loop.add_socket(late.fileno(), BYTES_ACCEPTED)


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    """As many as a full table of links takes: a login may have 1024 of them, more for the asking."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < DESCRIPTORS:
        pytest.skip(f"a process has at most {hard} descriptors here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, DESCRIPTORS), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("many_descriptors")
def test_more_links_than_the_table_holds_are_closed(start: Start) -> None:
    running = start()
    pairs = [socket.socketpair() for _ in range(3)]

    def take(count: int, kind: int) -> set[int]:
        return {running.loop.add_socket(pairs[0][0].fileno(), kind) for _ in range(count)}

    frontends = take(config.LINKS_MAX - config.LINKS_RESERVED, BYTES_ACCEPTED)
    with pytest.raises(OSError, match="no link for a socket: Too many open files"):
        running.loop.add_socket(pairs[1][0].fileno(), BYTES_ACCEPTED)
    peers = take(config.LINKS_RESERVED, FRAMES_ACCEPTED)      # the last ones are for them
    assert len(frontends | peers) == config.LINKS_MAX
    with pytest.raises(OSError, match="no link for a socket: Too many open files"):
        running.loop.add_socket(pairs[1][0].fileno(), FRAMES_CONNECTED)
    for pair in pairs:
        pair[0].close()
        pair[1].close()
    running.until(lambda events: sum(event[0] == "down" for event in events) == config.LINKS_MAX)


def test_misuse_is_an_error() -> None:
    loop = Loop(-1, "threads")
    with pytest.raises(RuntimeError, match="no engine"):
        loop.run()
    with pytest.raises(OSError, match="Bad file descriptor"):
        loop.add_socket(-1, BYTES_ACCEPTED)
    running = RunningLoop("threads", -1)
    running.stop()
    with pytest.raises(RuntimeError, match="runs once"):
        running.loop.run()


def test_a_loop_that_never_ran_lets_go_of_its_sockets() -> None:
    ours, theirs = socket.socketpair()
    loop = Loop(-1, "threads")
    echo_engine(loop)
    loop.add_socket(ours.fileno(), BYTES_ACCEPTED)
    ours.close()
    del loop
    theirs.settimeout(WAIT_S)
    assert theirs.recv(1) == b""
    theirs.close()


def test_who_waits_for_the_lock_gets_it_from_a_loop_that_never_sleeps(start: Start) -> None:
    running = start(busy_turns=2**31 - 1)
    done = threading.Event()

    def take_it_often() -> None:
        for _ in range(200):
            running.loop.wake()
        done.set()

    thread = threading.Thread(target=take_it_often)
    thread.start()
    thread.join(WAIT_S)
    assert done.is_set()


FILTERED = textwrap.dedent("""
    import ctypes, logging, struct, sys
    logging.basicConfig(stream=sys.stdout, format="%(message)s")
    libc = ctypes.CDLL(None, use_errno=True)
    # BPF: load the system call's number; 425..427 (io_uring) are refused with EPERM
    program = b"".join(struct.pack("HBBI", *line) for line in (
        (0x20, 0, 0, 0), (0x35, 0, 2, 425), (0x25, 1, 0, 427),
        (0x06, 0, 0, 0x00050000 | 1), (0x06, 0, 0, 0x7FFF0000)))
    filters = ctypes.create_string_buffer(program)
    header = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(filters))
    assert libc.prctl(38, 1, 0, 0, 0) == 0
    assert libc.prctl(22, 2, ctypes.create_string_buffer(header), 0, 0) == 0
    from repstore._fast.loop import Loop
    print(Loop(-1, "auto").backend)
    try:
        Loop(-1, "uring")
    except OSError as error:
        print(error)
""")


@pytest.mark.skipif("uring" not in drivers(), reason="no io_uring to be refused")
def test_where_io_uring_is_refused_the_pool_takes_over() -> None:
    assert Loop(-1, "auto").backend == "uring"
    done = subprocess.run([sys.executable, "-c", FILTERED], capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}, check=False)
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "io_uring is refused here (Operation not permitted): I/O goes through the thread pool",
        "threads",
        "[Errno 1] io_uring: Operation not permitted",
    ]
