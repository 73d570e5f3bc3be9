"""The disk verbs, the same over every driver: each answered once, short is an error."""
import mmap
import os
from collections.abc import Callable

import pytest

from repstore._fast.loop import Loop

from .conftest import RunningLoop

READ, WRITE, FLUSH = 1, 2, 3
Page = Callable[..., mmap.mmap]
Start = Callable[..., RunningLoop]


def disk_answers(running: RunningLoop, count: int) -> dict[int, int]:
    events = running.until(lambda events: sum(event[0] == "disk" for event in events) >= count)
    answers = [(token, value) for name, _, token, value in events if name == "disk"]
    assert len(answers) == len(dict(answers)) == count
    return dict(answers)


def test_written_is_read_back(start: Start, page: Page) -> None:
    running = start()
    source, target = page(b"\x5a" * 4096), page()
    running.echo.disk(WRITE, 8192, source, 1)
    assert disk_answers(running, 1) == {1: 4096}
    running.echo.disk(FLUSH, 0, b"", 2)
    running.echo.disk(READ, 8192, target, 3)
    assert disk_answers(running, 3) == {1: 4096, 2: 0, 3: 4096}
    assert target[:] == source[:]


def test_short_and_failing_verbs_are_negative(start: Start, page: Page) -> None:
    running = start()
    buffers = [page() for _ in range(2)]
    running.echo.disk(READ, 1 << 20, buffers[0], 1)         # at the end: nothing to read
    running.echo.disk(READ, (1 << 20) - 512, buffers[1], 2)  # 512 of 4096 bytes
    assert disk_answers(running, 2) == {1: -5, 2: -5}


def test_a_loop_without_a_disk_answers_with_an_error(driver: str, page: Page) -> None:
    running = RunningLoop(driver, -1)
    running.echo.disk(READ, 0, page(), 7)
    running.echo.disk(FLUSH, 0, b"", 8)
    assert disk_answers(running, 2) == {7: -9, 8: -9}
    running.stop()


def test_more_verbs_than_the_kernel_may_have_at_once(start: Start, page: Page) -> None:
    running = start()
    buffers = [page() for _ in range(6000)]
    for token, buffer in enumerate(buffers, 1):
        running.echo.disk(READ, 4096 * (token % 256), buffer, token)
    assert set(disk_answers(running, len(buffers)).values()) == {4096}


def ask(running: RunningLoop, kind: int, tokens: range) -> None:
    for token in tokens:
        running.echo.disk(kind, 4096 * token, bytearray(4096), token)


def test_reads_that_trickle_in_wait_for_an_answer_and_go_as_one(start: Start) -> None:
    running = start(keep_disk=True)
    ask(running, READ, range(1, 21))
    running.until(lambda _: len(running.echo.kept) >= 8)
    # the others do not wait with them
    ask(running, WRITE, range(21, 23))
    running.until(lambda _: running.echo.kept.count(WRITE) == 2)
    assert running.echo.kept.count(READ) == 8, "more are held until one is answered"
    running.echo.pass_on(1)
    running.until(lambda _: running.echo.kept.count(READ) == 20)
    assert len(disk_answers(running, 1)) == 1
    running.echo.pass_on(21)
    disk_answers(running, 22)


def test_few_reads_never_wait(start: Start) -> None:
    running = start(keep_disk=True)
    for count in range(1, 9):
        ask(running, READ, range(count, count + 1))
        running.until(lambda _, n=count: len(running.echo.kept) == n)
    running.echo.pass_on(8)
    disk_answers(running, 8)


def test_stop_waits_for_what_the_kernel_has(start: Start, page: Page) -> None:
    running = start()
    buffers = [page() for _ in range(200)]
    for token, buffer in enumerate(buffers, 1):
        running.echo.disk(WRITE, 4096 * token, buffer, token)
    running.stop()
    assert len(disk_answers(running, 200)) == 200


def test_a_driver_that_is_not_there_is_named() -> None:
    with pytest.raises(ValueError, match="backend 'abacus' is none of"):
        Loop(-1, "abacus")


def test_o_direct_where_the_file_system_has_it(driver: str, page: Page) -> None:
    path = os.path.join(os.path.dirname(__file__), f".direct-{os.getpid()}-{driver}")
    try:
        disk_fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_DIRECT)
    except OSError as error:
        pytest.skip(f"no O_DIRECT here: {error}")
    try:
        os.ftruncate(disk_fd, 1 << 16)
        running = RunningLoop(driver, disk_fd)
        target = page()
        running.echo.disk(WRITE, 4096, page(b"direct" * 600), 1)
        disk_answers(running, 1)
        running.echo.disk(READ, 4096, target, 2)
        assert disk_answers(running, 2) == {1: 4096, 2: 4096}
        assert target[:3600] == b"direct" * 600
        running.stop()
    finally:
        os.close(disk_fd)
        os.unlink(path)
