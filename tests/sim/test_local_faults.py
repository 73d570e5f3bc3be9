"""A store on a disk that rots, fails and is slow: an error for exactly what is bad, and never wrong data."""
from __future__ import annotations

import errno
from random import Random

import pytest

from repstore._fast.simulated import DiskFlush, DiskRead, DiskWrite
from repstore.format import BLOCK_SIZE
from repstore.sim.durability import RecordedVolume, flush, write
from repstore.sim.local import LocalVolume, Request
from repstore.sim.recording import RecordingDisk
from repstore.sim.workload import READ, stamped, stamps_of

FULL_BLOCKS = 90                 # of 110 that the smallest store takes


class FailingDisk(RecordingDisk):
    """Fails the next operation of a kind once, and is well again."""

    failing: type | None = None

    def finish(self, operation: int) -> tuple[int, memoryview | None]:
        if self.failing is not None and isinstance(self._flying[operation], self.failing):
            self.failing = None
            del self._flying[operation]
            return -errno.EIO, None
        return super().finish(operation)


def read_block(local: LocalVolume, block: int) -> tuple[int, list[int]]:
    """Errno and stamp of one block."""
    request = Request(READ, block, 1)
    local.run([request])
    assert request.memory is not None
    return request.error, stamps_of(request.memory[:BLOCK_SIZE])


def rot(image: bytearray, stamp: int) -> None:
    """One bit of every copy of this block turns over."""
    block = stamped(stamp, 1)
    at = image.find(block)
    assert at >= 0, f"no block carries stamp {stamp}"
    while at >= 0:
        image[at + 1000] ^= 0x10
        at = image.find(block)


def test_a_rotten_block_is_an_error_and_the_others_are_right() -> None:
    volume = RecordedVolume(size_blocks=64)
    volume.run([write(0, 8), flush()])
    rot(volume.disk.image, 4)
    assert [read_block(volume.local, block)[0] for block in range(8)] == [0, 0, 0, errno.EIO, 0, 0, 0, 0]
    assert [read_block(volume.local, block)[1] for block in (2, 4)] == [[3], [5]]


@pytest.mark.parametrize("operation", [DiskFlush, DiskWrite])
def test_a_failed_operation_is_not_tried_again(monkeypatch: pytest.MonkeyPatch, operation: type) -> None:
    monkeypatch.setattr("repstore.sim.durability.RecordingDisk", FailingDisk)
    volume = RecordedVolume(size_blocks=64)
    volume.run([write(0, 8)])
    assert isinstance(volume.disk, FailingDisk)
    volume.disk.failing = operation
    failed, after = write(8, fua=True), flush()
    volume.local.run([failed])
    volume.local.run([after])
    assert (failed.error, after.error) == (errno.EIO, errno.EIO)
    assert volume.local.engine.failed == errno.EIO


def test_a_segment_is_not_used_again_while_it_is_read() -> None:
    volume = RecordedVolume(size_blocks=64, seed=1)
    volume.run([write(first, 8) for first in range(0, 64, 8)])
    volume.local.settle()
    slow = Request(READ, 0, 1)
    volume.local.submit(slow)
    held, = volume.local._due
    volume.local._due.clear()
    overwrites = [volume._ask(write(first, 8)) for _ in range(8) for first in range(0, 64, 8)]
    for request in overwrites:
        volume.local.submit(request)
        while request.error < 0:
            volume.local.pump()
    assert slow.error < 0
    assert volume.local.engine.stats()["checkpoints"] > 1
    volume.local.engine.backend.disk_done(held, *volume.disk.finish(held))
    volume.local.settle()
    assert slow.memory is not None
    assert (slow.error, stamps_of(slow.memory[:BLOCK_SIZE])) == (0, [1])


def test_rot_stays_an_error_when_the_cleaner_has_passed() -> None:
    random = Random(3)
    volume = RecordedVolume(size_blocks=FULL_BLOCKS, seed=3)
    volume.run(write(block) for block in range(FULL_BLOCKS))
    rotten = (5, 40)                           # each keeps its segment: a few are all such a store can bear
    for block in rotten:
        rot(volume.disk.image, block + 1)
    others = [block for block in range(FULL_BLOCKS) if block not in rotten]
    volume.run(write(random.choice(others)) for _ in range(400))
    assert volume.local.engine.stats()["moved_blocks"] > 0
    assert {read_block(volume.local, block)[0] for block in rotten} == {errno.EIO}
    assert {read_block(volume.local, block)[0] for block in others} == {0}


def test_a_full_store_goes_on_taking_overwrites() -> None:
    random = Random(7)
    volume = RecordedVolume(size_blocks=110, seed=7)
    volume.run(write(first, min(8, 110 - first)) for first in range(0, 110, 8))
    volume.run((write(random.randrange(102), random.randint(1, 8)) for _ in range(400)), depth=6)
    assert volume.local.engine.stats()["cleaned_segments"] > 0


def test_a_read_that_fails_is_an_error_of_its_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("repstore.sim.durability.RecordingDisk", FailingDisk)
    volume = RecordedVolume(size_blocks=64)
    volume.run([write(0, 2), flush()])
    assert isinstance(volume.disk, FailingDisk)
    volume.disk.failing = DiskRead
    assert read_block(volume.local, 0)[0] == errno.EIO
    assert read_block(volume.local, 0) == (0, [1])
