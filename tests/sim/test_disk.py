"""The simulated disk: what a kill and a power cut may leave."""
from random import Random

import pytest

from repstore._fast.simulated import DiskFlush, DiskRead, DiskWrite
from repstore.sim.disk import SECTOR_BYTES, SimulatedDisk

SIZE_BYTES = 64 * 1024
BLOCK = 4096
SEEDS = range(200)


def new_disk(seed: int = 0) -> SimulatedDisk:
    return SimulatedDisk(bytearray(SIZE_BYTES), Random(seed))


def do(disk: SimulatedDisk, ask: DiskWrite | DiskFlush) -> None:
    disk.begin(ask)
    disk.finish(ask.operation)


def block(letter: bytes) -> bytes:
    return letter * BLOCK


def test_a_write_is_read_once_it_is_done() -> None:
    disk = new_disk()
    disk.begin(DiskWrite(0, BLOCK, block(b"a")))
    disk.begin(DiskRead(1, BLOCK, BLOCK))
    assert bytes(disk.finish(1)[1] or b"") == bytes(BLOCK)
    assert disk.finish(0) == (BLOCK, None)
    disk.begin(DiskRead(1, BLOCK, BLOCK))
    assert bytes(disk.finish(1)[1] or b"") == block(b"a")


@pytest.mark.parametrize("crash", ["kill", "cut_power"])
def test_what_was_flushed_is_there_after_any_crash(crash: str) -> None:
    for seed in SEEDS:
        disk = new_disk(seed)
        do(disk, DiskWrite(0, 0, block(b"a")))
        do(disk, DiskFlush(0))
        getattr(disk, crash)()
        assert disk.image[:BLOCK] == block(b"a")


def test_a_kill_leaves_everything_that_was_done() -> None:
    for seed in SEEDS:
        disk = new_disk(seed)
        do(disk, DiskWrite(0, 0, block(b"a")))
        disk.kill()
        assert disk.image[:BLOCK] == block(b"a")


def test_a_power_cut_leaves_any_part_of_what_was_not_flushed() -> None:
    found = set()
    for seed in SEEDS:
        disk = new_disk(seed)
        do(disk, DiskWrite(0, 0, block(b"a")))
        disk.cut_power()
        sectors = [disk.image[at:at + SECTOR_BYTES] for at in range(0, BLOCK, SECTOR_BYTES)]
        assert all(sector in (b"a" * SECTOR_BYTES, bytes(SECTOR_BYTES)) for sector in sectors)
        found.add(bytes(sector[0] for sector in sectors))
    assert {b"a" * 8, bytes(8)} < found
    assert len(found) > 8                        # torn at sectors as well


def test_a_flush_covers_only_what_was_done_when_it_was_asked_for() -> None:
    lost = 0
    for seed in SEEDS:
        disk = new_disk(seed)
        disk.begin(DiskWrite(0, 0, block(b"a")))
        disk.begin(DiskFlush(1))
        disk.finish(0)
        disk.finish(1)
        disk.cut_power()
        lost += disk.image[:BLOCK] != block(b"a")
    assert lost > 0


def test_flushes_may_overlap() -> None:
    for seed in SEEDS:
        disk = new_disk(seed)
        do(disk, DiskWrite(0, 0, block(b"a")))
        disk.begin(DiskFlush(1))
        do(disk, DiskWrite(0, BLOCK, block(b"b")))
        disk.begin(DiskFlush(2))
        disk.finish(2)
        disk.finish(1)
        disk.cut_power()
        assert disk.image[:2 * BLOCK] == block(b"a") + block(b"b")


def test_a_crash_is_drawn_from_the_seed() -> None:
    images = []
    for _ in range(2):
        disk = new_disk(5)
        for i in range(8):
            do(disk, DiskWrite(0, i * BLOCK, block(b"a")))
        disk.begin(DiskWrite(0, 0, block(b"b")))
        disk.cut_power()
        images.append(bytes(disk.image))
    assert images[0] == images[1]
