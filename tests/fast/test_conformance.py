"""The drivers of production pass the suite of disk backends: io_uring, and the thread pool."""
import mmap
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from repstore.format import BLOCK_SIZE
from repstore.sim.conformance.backend import BackendSuite

from .conftest import RunningLoop

SIZE_BYTES = 64 * BLOCK_SIZE


class LoopDisk:
    """The loop's disk verbs, asked for through the echo engine."""

    def __init__(self, running: RunningLoop) -> None:
        self.size_bytes = SIZE_BYTES
        self._running = running
        self._given = 0

    def begin(self, verb: int, offset: int, buffer: mmap.mmap | None, token: int) -> None:
        self._running.echo.disk(verb, offset, b"" if buffer is None else buffer, token)

    def answers(self, count: int) -> list[tuple[int, int]]:
        wanted = self._given + count
        events = self._running.until(lambda events: sum(event[0] == "disk" for event in events) >= wanted)
        answers = [(token, value) for name, _, token, value in events if name == "disk"]
        given, self._given = answers[self._given:wanted], wanted
        return given


class TestDrivers(BackendSuite):
    @pytest.fixture
    def disk(self, driver: str, tmp_path: Path) -> Iterator[LoopDisk]:
        path = tmp_path / "disk"
        path.write_bytes(bytes(SIZE_BYTES))
        disk_fd = os.open(path, os.O_RDWR)
        running = RunningLoop(driver, disk_fd)
        yield LoopDisk(running)
        running.stop()
        os.close(disk_fd)
