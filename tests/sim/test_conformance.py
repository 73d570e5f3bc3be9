"""Disks in memory and devices pass the suite of disk backends, and it sees those that do not."""
import mmap
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from inspect import getsource
from pathlib import Path
from random import Random
from typing import Any

import pytest

from repstore._fast.simulated import DiskFlush, DiskRead, DiskWrite
from repstore.coordination.interface import ConfigStore
from repstore.format import BLOCK_SIZE
from repstore.sim.conformance.backend import (
    FLUSH,
    READ,
    WRITE,
    BackendSuite,
    CutPower,
    DeviceDisk,
    DiskUnderTest,
    FailNext,
)
from repstore.sim.disk import SimulatedDisk
from repstore.sim.local import Disk, PlainDisk
from repstore.sim.recording import Recording, RecordingDevice, RecordingDisk
from repstore.store.device import FileDevice, MemoryDevice

SIZE_BYTES = 64 * BLOCK_SIZE
DOCUMENT = Path(__file__).resolve().parents[2] / "docs/conformance.md"


class AskedDisk:
    """What answers the engine's asks in the simulator, answered in an order drawn from a seed."""

    def __init__(self, disk: Disk) -> None:
        self.disk = disk
        self.size_bytes = SIZE_BYTES
        self._random = Random(3)
        self._flying: list[int] = []
        self._operations: dict[int, tuple[int, mmap.mmap | None]] = {}     # token and buffer

    def begin(self, verb: int, offset: int, buffer: mmap.mmap | None, token: int) -> None:
        operation = next(number for number in range(10_000) if number not in self._operations)
        self._operations[operation] = (token, buffer)
        self._flying.append(operation)
        if verb == FLUSH or buffer is None:
            self.disk.begin(DiskFlush(operation))
        elif verb == READ:
            self.disk.begin(DiskRead(operation, offset, len(buffer)))
        else:
            self.disk.begin(DiskWrite(operation, offset, buffer[:]))

    def answers(self, count: int) -> list[tuple[int, int]]:
        given = []
        for _ in range(count):
            operation = self._flying.pop(self._random.randrange(len(self._flying)))
            token, buffer = self._operations.pop(operation)
            result, data = self.disk.finish(operation)
            if data is not None and buffer is not None:
                buffer[:] = bytes(data)
            given.append((token, result))
        return given


class TestSimulatedDisk(BackendSuite):
    @pytest.fixture
    def disk(self) -> DiskUnderTest:
        self.simulated = SimulatedDisk(bytearray(SIZE_BYTES), Random(1))
        return AskedDisk(self.simulated)

    @pytest.fixture
    def fail_next(self, disk: DiskUnderTest) -> FailNext:
        def fail(verb: int) -> None:
            if verb == READ:
                self.simulated.faults.failing_reads += 1
            elif verb == WRITE:
                self.simulated.faults.writes.append("eio")
            else:
                self.simulated.faults.flushes.append("fails")
        return fail

    @pytest.fixture
    def cut_power(self, disk: DiskUnderTest) -> CutPower:
        return lambda: void(self.simulated.cut_power())


class TestPlainDisk(BackendSuite):
    @pytest.fixture
    def disk(self) -> DiskUnderTest:
        return AskedDisk(PlainDisk(bytearray(SIZE_BYTES)))


class TestRecordingDisk(BackendSuite):
    @pytest.fixture
    def disk(self) -> DiskUnderTest:
        return AskedDisk(RecordingDisk(bytearray(SIZE_BYTES)))


class TestMemoryDevice(BackendSuite):
    @pytest.fixture
    def disk(self) -> DiskUnderTest:
        return DeviceDisk(MemoryDevice(bytearray(SIZE_BYTES)))


class TestRecordingDevice(BackendSuite):
    @pytest.fixture
    def disk(self) -> DiskUnderTest:
        return DeviceDisk(RecordingDevice(Recording(bytes(SIZE_BYTES))))


class TestFileDevice(BackendSuite):
    @pytest.fixture
    def disk(self, tmp_path: Path) -> Iterator[DiskUnderTest]:
        path = tmp_path / "disk"
        path.write_bytes(bytes(SIZE_BYTES))
        device = FileDevice(path)
        yield DeviceDisk(device)
        device.close()


# --------------------------------------------------- the suite sees disks that break a promise

class Short(PlainDisk):
    """A read past the end gives zeros (B2)."""

    def finish(self, operation: int) -> tuple[int, memoryview | None]:
        ask = self._flying[operation]
        if isinstance(ask, DiskRead) and ask.offset + ask.length > len(self.image):
            del self._flying[operation]
            return ask.length, memoryview(bytes(ask.length))
        return super().finish(operation)


class Late(PlainDisk):
    """A write is answered before it can be read (B3)."""

    def finish(self, operation: int) -> tuple[int, memoryview | None]:
        ask = self._flying[operation]
        if isinstance(ask, DiskWrite):
            del self._flying[operation]
            return len(ask.data), None
        return super().finish(operation)


class Wide(PlainDisk):
    """A write spoils its neighbour (B4)."""

    def finish(self, operation: int) -> tuple[int, memoryview | None]:
        ask = self._flying[operation]
        answer = super().finish(operation)
        if isinstance(ask, DiskWrite):
            self.image[(ask.offset - 1) % len(self.image)] ^= 1
        return answer


class Unflushed(SimulatedDisk):
    """A flush is answered and covers nothing (B5)."""

    def finish(self, operation: int) -> tuple[int, memoryview | None]:
        if isinstance(self._flying[operation], DiskFlush):
            del self._flying[operation]
            return 0, None
        return super().finish(operation)


@pytest.mark.parametrize(("broken", "test", "more"), [
    (Short, BackendSuite.test_a_read_past_the_end_is_an_error, ()),
    (Late, BackendSuite.test_of_writes_one_after_the_other_the_last_one_stays, ()),
    (Wide, BackendSuite.test_a_write_changes_its_range_and_nothing_else, ("middle",)),
])
def test_a_disk_that_breaks_a_promise_fails(monkeypatch: pytest.MonkeyPatch, broken: type[PlainDisk],
                                            test: Any, more: tuple[str, ...]) -> None:
    # where pytest does not shorten what it says: a diff of 256 KiB of bytes took it hours
    monkeypatch.setenv("CI", "true")
    with suppress(AssertionError):
        test(BackendSuite(), AskedDisk(broken(bytearray(SIZE_BYTES))), *more)
        pytest.fail(f"{broken.__name__} passes {test.__name__}")


def test_a_flush_that_covers_nothing_fails() -> None:
    failed = 0
    for seed in range(10):
        disk = Unflushed(bytearray(SIZE_BYTES), Random(seed))
        try:
            BackendSuite().test_what_was_flushed_survives_a_power_cut(
                AskedDisk(disk), lambda disk=disk: void(disk.cut_power()))  # type: ignore[misc]
        except AssertionError:
            failed += 1
    assert failed > 3


def test_the_signatures_in_the_document_are_those_of_the_protocols() -> None:
    told = re.findall(r"^def .*(?=: \.\.\.)", DOCUMENT.read_text(), re.MULTILINE)
    assert len(told) == 8
    protocols = getsource(DiskUnderTest) + getsource(ConfigStore)
    assert [signature for signature in told if f"    {signature}:\n" not in protocols] == []


def test_the_example_of_the_document_passes(tmp_path: Path) -> None:
    document = DOCUMENT.read_text()
    [source] = re.findall(r"^```python\n(.*?)^```$", document, re.MULTILINE | re.DOTALL)
    (tmp_path / "test_mine.py").write_text(source)
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)],
                          cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout


def void(value: object) -> None:
    """Nobody wants it."""
