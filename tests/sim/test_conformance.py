"""Disks in memory and devices pass the suite of disk backends, and it sees those that do not."""
import mmap
import re
import signal
import subprocess
import sys
import threading
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
    MANY,
    READ,
    WRITE,
    Asker,
    BackendSuite,
    CutPower,
    DeviceDisk,
    DiskUnderTest,
    FailNext,
    read,
)
from repstore.sim.disk import DiskAsk, SimulatedDisk
from repstore.sim.local import Disk, PlainDisk
from repstore.sim.recording import Recording, RecordingDevice, RecordingDisk
from repstore.store.device import Device, FileDevice, MemoryDevice

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
        test(BackendSuite(), Asker(AskedDisk(broken(bytearray(SIZE_BYTES)))), *more)
        pytest.fail(f"{broken.__name__} passes {test.__name__}")


class Joined(SimulatedDisk):
    """A flush that begins while another one is under way is answered with it (B5)."""

    def begin(self, ask: DiskAsk) -> int:
        under_way = list(self._covered.values())
        duration_ns = super().begin(ask)
        if under_way and isinstance(ask, DiskFlush):
            self._covered[ask.operation] = min(under_way)
        return duration_ns


@pytest.mark.parametrize(("broken", "test"), [
    (Unflushed, BackendSuite.test_what_was_flushed_survives_a_power_cut),
    (Joined, BackendSuite.test_flushes_at_once_cover_what_was_answered_before_each),
])
def test_a_flush_that_covers_too_little_fails(broken: type[SimulatedDisk], test: Any) -> None:
    failed = 0
    for seed in range(10):
        disk = broken(bytearray(SIZE_BYTES), Random(seed))
        try:
            test(BackendSuite(), Asker(AskedDisk(disk)), lambda disk=disk: void(disk.cut_power()))
        except AssertionError:
            failed += 1
    assert failed > 3


def test_a_disk_on_which_no_flush_could_join_another_says_so() -> None:
    disk = DeviceDisk(MemoryDevice(bytearray(SIZE_BYTES)))
    with pytest.raises(pytest.skip.Exception, match="whether one flush joins another was not tried"):
        BackendSuite().test_flushes_at_once_cover_what_was_answered_before_each(Asker(disk), lambda: None)


class Hasty(DeviceDisk):
    """A write is answered, and copied from the buffer it was lent when the next operation comes (B3)."""

    late: tuple[int, mmap.mmap] | None = None

    def begin(self, verb: int, offset: int, buffer: mmap.mmap | None, token: int) -> None:
        late, self.late = self.late, (offset, buffer) if verb == WRITE and buffer is not None else None
        if late is not None:
            self._device.write(late[0], late[1][:])
        if self.late is None:
            super().begin(verb, offset, buffer, token)
        else:
            self._answers.append((token, len(self.late[1])))


def test_a_write_that_is_copied_after_its_answer_fails() -> None:
    for test, more in ((BackendSuite.test_a_write_changes_its_range_and_nothing_else, ("first",)),
                       (BackendSuite.test_of_writes_one_after_the_other_the_last_one_stays, ()),
                       (BackendSuite.test_it_reads_like_an_array_of_bytes, (0,))):
        disk = Hasty(MemoryDevice(bytearray(SIZE_BYTES)))
        with pytest.raises(AssertionError, match=r"begins with b'\\xee"):
            test(BackendSuite(), Asker(disk), *more)


class Caching(DeviceDisk):
    """What was read is kept in the buffer that was lent for it, for whoever reads it again (B4)."""

    def __init__(self, device: Device) -> None:
        super().__init__(device)
        self._kept: dict[int, mmap.mmap] = {}

    def begin(self, verb: int, offset: int, buffer: mmap.mmap | None, token: int) -> None:
        kept = self._kept.get(offset)
        if verb == READ and buffer is not None and kept is not None and len(kept) == len(buffer):
            buffer[:] = kept[:]
            self._answers.append((token, len(buffer)))
            return
        super().begin(verb, offset, buffer, token)
        if verb == READ and buffer is not None:
            self._kept[offset] = buffer
        else:
            self._kept.clear()


def test_a_read_whose_buffer_is_kept_after_its_answer_fails() -> None:
    asker = Asker(Caching(MemoryDevice(bytearray(SIZE_BYTES))))
    with pytest.raises(AssertionError, match=r"begins with b'\\xee"):
        BackendSuite().test_what_was_never_written_reads_as_zeros(asker)


class Silent(DeviceDisk):
    """Token 3 is not answered, and whoever waits for its answer waits for ever (B1)."""

    def begin(self, verb: int, offset: int, buffer: mmap.mmap | None, token: int) -> None:
        if token != 3:
            super().begin(verb, offset, buffer, token)

    def answers(self, count: int) -> list[tuple[int, int]]:
        given = super().answers(count)
        if len(given) < count:
            threading.Event().wait()
        return given


class Empty(Silent):
    """As that, but nobody waits."""

    def answers(self, count: int) -> list[tuple[int, int]]:
        return DeviceDisk.answers(self, count)


@pytest.mark.parametrize("broken", [Silent, Empty])
@pytest.mark.parametrize("test", [BackendSuite.test_many_under_way_are_each_answered_once,
                                  BackendSuite.test_a_flush_of_nothing_and_flushes_at_once])
def test_an_answer_that_never_comes_fails(broken: type[DeviceDisk], test: Any) -> None:
    handler = signal.getsignal(signal.SIGALRM)
    with pytest.raises(AssertionError, match=r"^token 3 was never answered"):
        test(BackendSuite(), Asker(broken(MemoryDevice(bytearray(SIZE_BYTES))), answer_s=0.05))
    assert signal.getsignal(signal.SIGALRM) is handler
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


class Twice(DeviceDisk):
    """An operation is answered once more (B1)."""

    def begin(self, verb: int, offset: int, buffer: mmap.mmap | None, token: int) -> None:
        super().begin(verb, offset, buffer, token)
        if token == MANY - 1:
            self._answers.append(self._answers[-1])


def test_a_second_answer_fails() -> None:
    asker = Asker(Twice(MemoryDevice(bytearray(SIZE_BYTES))))
    with pytest.raises(AssertionError, match=f"^token {MANY - 1} was answered, and is not under way"):
        BackendSuite().test_many_under_way_are_each_answered_once(asker)


def test_the_time_limit_of_a_whole_test_goes_on() -> None:
    """Plugins that end what takes too long have the same timer."""
    signal.setitimer(signal.ITIMER_REAL, 1000)
    try:
        read(Asker(DeviceDisk(MemoryDevice(bytearray(SIZE_BYTES)))), 0)
        assert 900 < signal.getitimer(signal.ITIMER_REAL)[0] <= 1000
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


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
