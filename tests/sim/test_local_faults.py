"""A store on a disk that rots, fails and is slow: an error for exactly what is bad, and never wrong data."""
from __future__ import annotations

import errno
from random import Random

import pytest

from repstore import config, errors
from repstore._fast.simulated import DiskFlush, DiskRead, DiskWrite
from repstore.format import BATCH_MAGIC, BLOCK_SIZE
from repstore.sim.cluster import SimulatedCluster
from repstore.sim.durability import RecordedVolume, flush, write
from repstore.sim.local import LocalVolume, Request
from repstore.sim.recording import RecordingDisk
from repstore.sim.workload import READ, WRITE, stamped, stamps_of
from tests.sim import bad_blocks
from tests.sim.bad_blocks import LIMIT_S

CAPACITY_BLOCKS = 96             # what the smallest store takes
FULL_BLOCKS = 90
IDLE_NS = 3_000_000


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


def last_flushed_damaged(volume: RecordedVolume, damage: int) -> None:
    """Blocks 0 to 3 and then 4 are written and flushed, the store idles, its process is killed; a byte
    of the last batch with records turns over: so many blocks behind its header."""
    volume.run([write(0, 4), flush(), write(4), flush()])
    volume.local.idle(IDLE_NS)
    at = volume.disk.image.find(stamped(5, 1)) - BLOCK_SIZE
    assert at >= 0
    volume.disk.image[at + damage * BLOCK_SIZE + 1000] ^= 0x10


@pytest.mark.fault("disk: rot in the very last batch that was flushed, the process killed",
                   promise="never taken for a torn tail: an error for its blocks, or the store is refused")
def test_the_last_flushed_batch_is_no_torn_tail() -> None:
    volume = RecordedVolume(size_blocks=64)
    last_flushed_damaged(volume, 1)
    volume.kill_and_open()
    assert [read_block(volume.local, block) for block in range(4)] == [(0, [block + 1]) for block in range(4)]
    assert read_block(volume.local, 4)[0] == errno.EIO
    volume = RecordedVolume(size_blocks=64)
    last_flushed_damaged(volume, 0)
    with pytest.raises(errors.CorruptionError, match="proves that it was written"):
        volume.kill_and_open()


def test_what_was_flushed_is_told_once_and_after_a_while() -> None:
    volume = RecordedVolume(size_blocks=64)
    volume.run([write(0, 4), flush()])
    volume.local.settle()
    batches = volume.local.engine.stats()["batches"]
    volume.local.idle(IDLE_NS)
    assert volume.local.engine.stats()["batches"] == batches + 1
    volume.run([flush(), flush()])
    volume.local.idle(IDLE_NS)
    assert volume.local.engine.stats()["batches"] == batches + 1, "nothing new was flushed"
    for block in range(20):
        volume.run([write(block), flush()])
    assert volume.local.engine.stats()["batches"] == batches + 21, "the next write tells it"


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
    rotten = (5, 40)
    for block in rotten:
        rot(volume.disk.image, block + 1)
    others = [block for block in range(FULL_BLOCKS) if block not in rotten]
    volume.run(write(random.choice(others)) for _ in range(400))
    assert volume.local.engine.stats()["moved_blocks"] > 0
    assert {read_block(volume.local, block)[0] for block in rotten} == {errno.EIO}
    assert {read_block(volume.local, block)[0] for block in others} == {0}


@pytest.mark.parametrize("size_blocks", [FULL_BLOCKS, CAPACITY_BLOCKS])
@pytest.mark.parametrize("count", [6, 20, 40])
@pytest.mark.fault("disk: many rotten blocks in a full store of a single copy",
                   promise="an error for each of them, and every write ends")
def test_rot_takes_no_room_that_writes_need(size_blocks: int, count: int) -> None:
    random = Random(count)
    volume = RecordedVolume(size_blocks=size_blocks, seed=count)
    volume.run(write(block) for block in range(size_blocks))
    volume.local.settle()
    rotten = random.sample(range(size_blocks), count)
    for block in rotten:
        rot(volume.disk.image, block + 1)
    others = sorted(set(range(size_blocks)) - set(rotten))
    volume.run((write(random.choice(others)) for _ in range(400)), depth=4)
    for _ in range(2):
        found = volume.local.read_all()
        assert [block for block in range(size_blocks) if found[block] < 0] == sorted(rotten)
        assert [found[block] for block in others] == [volume.content[block] for block in others]
        volume.kill_and_open()
    volume.run(write(block) for block in rotten)
    assert volume.local.read_all() == list(volume.content)


def headers(volume: RecordedVolume) -> list[int]:
    """The blocks that hold a batch header, of this use of their segment or of an older one."""
    magic = BATCH_MAGIC.to_bytes(4, "little")
    return [block for block in range(volume.geometry.segment_base, volume.geometry.total_blocks)
            if volume.disk.image[block * BLOCK_SIZE:block * BLOCK_SIZE + 4] == magic]


@pytest.mark.parametrize("size_blocks", [FULL_BLOCKS, CAPACITY_BLOCKS])
@pytest.mark.parametrize("step", [1, 2, 5])
@pytest.mark.fault("disk: damaged batch headers in a store that was checkpointed",
                   promise="no block is lost, and no room: what lies behind is found through the maps")
def test_what_lies_behind_a_damaged_header_is_moved_like_everything_else(size_blocks: int, step: int) -> None:
    random = Random(step)
    volume = RecordedVolume(size_blocks=size_blocks, seed=step)
    volume.run(write(block, min(2, size_blocks - block)) for block in range(0, size_blocks, 2))
    volume.checkpoint()
    damaged = headers(volume)[::step]
    for block in damaged:
        volume.disk.image[block * BLOCK_SIZE + 200] ^= 1
    rotten = 7
    rot(volume.disk.image, rotten + 1)
    others = [block for block in range(size_blocks) if block != rotten]
    volume.run((write(random.choice(others)) for _ in range(600)), depth=4)
    assert volume.local.engine.stats()["bad_blocks"] > 1
    expected = list(volume.content)
    expected[rotten] = -1
    assert volume.local.read_all() == expected
    volume.kill_and_open()
    assert volume.local.read_all() == expected


@pytest.mark.fault("disk: many rotten blocks in a full store, another copy is whole",
                   promise="all of them are mended, and every write ends")
def test_rot_in_a_full_store_is_mended_without_room_for_it() -> None:
    random = Random(1)
    cluster = SimulatedCluster(1, nodes=2, store_bytes=config.MIB, segment_bytes=64 * config.KIB)
    cluster.create_volume("demo", FULL_BLOCKS, copies=2)
    cluster.run_until(lambda: cluster.is_healthy("demo"), LIMIT_S)
    cluster.life("n1").control.attach("demo", cluster.clock.now_s)
    stamps = [1000 + block for block in range(FULL_BLOCKS)]
    for block in range(FULL_BLOCKS):
        assert bad_blocks.write(cluster, "n1", block, stamps[block]) == 0
    rotten = random.sample(range(FULL_BLOCKS), 40)
    for i, block in enumerate(rotten):
        name = ("n1", "n2")[i % 2]
        bad_blocks.rot(cluster.node(name).disk, bad_blocks.location(cluster, name, block))
    others = sorted(set(range(FULL_BLOCKS)) - set(rotten))
    for stamp in range(2000, 2400):
        block = random.choice(others)
        stamps[block] = stamp
        assert bad_blocks.write(cluster, "n1", block, stamp) == 0
    found = [bad_blocks.read(cluster, "n1", block) for block in range(FULL_BLOCKS)]
    assert found == [(0, [stamp]) for stamp in stamps]
    assert bad_blocks.lost(cluster, "n1") == bad_blocks.lost(cluster, "n2") == []


def test_a_full_store_goes_on_taking_overwrites() -> None:
    random = Random(7)
    volume = RecordedVolume(size_blocks=CAPACITY_BLOCKS, seed=7)
    last = CAPACITY_BLOCKS - 8
    volume.run(write(first, 8) for first in range(0, CAPACITY_BLOCKS, 8))
    volume.run((write(random.randrange(last), random.randint(1, 8)) for _ in range(400)), depth=6)
    assert volume.local.engine.stats()["cleaned_segments"] > 0


def test_a_read_that_fails_is_an_error_of_its_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("repstore.sim.durability.RecordingDisk", FailingDisk)
    volume = RecordedVolume(size_blocks=64)
    volume.run([write(0, 2), flush()])
    assert isinstance(volume.disk, FailingDisk)
    volume.disk.failing = DiskRead
    assert read_block(volume.local, 0)[0] == errno.EIO
    assert read_block(volume.local, 0) == (0, [1])


def test_a_checkpoint_that_is_asked_for_while_the_log_drains_is_the_one_that_comes() -> None:
    local = RecordedVolume(size_blocks=64).local
    local.submit(Request(WRITE, 0, 8))
    first = local.engine.checkpoint()
    local.submit(Request(WRITE, 8, 8))         # a turn: it begins, and waits for the first write
    second = local.engine.checkpoint(clean=True)
    assert second == first
    local.engine.wait_for_checkpoint(second)
