"""When the cleaner works: under load as little as it can, ahead of it while nobody wants the disk."""
from random import Random

import pytest

from repstore import config
from repstore._fast.simulated import DiskRead
from repstore.format import BLOCK_SIZE
from repstore.sim.durability import STORE_UUID, boot_id, write
from repstore.sim.local import STEP_NS, LocalVolume, PlainDisk
from repstore.store import geometry
from repstore.store.device import MemoryDevice
from repstore.store.store import format_device

LAYOUT = geometry.choose(config.StoreOptions(16 * config.MIB, 128 * config.KIB))
SIZE_BLOCKS = LAYOUT.capacity_bytes * 7 // 10 // BLOCK_SIZE
IDLE_STEPS = 20_000_000 // STEP_NS
RESERVED_SEGMENTS = 2            # of so small a store


class Unread(LocalVolume):
    """No read is answered: the cleaner stands still."""

    def _turn(self) -> bool:
        busy = super()._turn()
        self._due = [each for each in self._due if not isinstance(self._disk._flying[each], DiskRead)]
        return busy


@pytest.fixture
def volume() -> LocalVolume:
    """Seventy percent full, written from end to end."""
    disk = PlainDisk(bytearray(LAYOUT.size_bytes))
    format_device(MemoryDevice(disk.image), LAYOUT, store_uuid=STORE_UUID, boot_id=boot_id(0))
    volume = LocalVolume(disk, boot_id=boot_id(0), life_id=1, create_blocks=SIZE_BLOCKS)
    volume.run((write(first, min(8, SIZE_BLOCKS - first)) for first in range(0, SIZE_BLOCKS, 8)), depth=4)
    volume.settle()
    return volume


def rest(volume: LocalVolume) -> None:
    """Nobody wants the disk for a while, and what that starts is finished."""
    for _ in range(2 * IDLE_STEPS):
        volume.pump()
    volume.settle()


def overwrite(volume: LocalVolume, count: int, seed: int) -> None:
    random = Random(seed)
    volume.run((write(random.randrange(SIZE_BLOCKS)) for _ in range(count)), depth=8)


def test_it_makes_room_ahead_of_a_burst_while_nobody_wants_the_disk(volume: LocalVolume) -> None:
    overwrite(volume, 3 * SIZE_BLOCKS, seed=1)
    loaded = volume.engine.stats()["segments_free"]
    rest(volume)
    rested = volume.engine.stats()
    assert loaded < LAYOUT.segment_count // 8 <= rested["segments_free"]
    overwrite(volume, LAYOUT.segment_blocks * LAYOUT.segment_count // 20, seed=2)
    assert volume.engine.stats()["moved_blocks"] == rested["moved_blocks"]      # the burst found room
    volume.engine.check_invariants()


def test_it_rests_where_nothing_is_worth_moving(volume: LocalVolume) -> None:
    written = volume.engine.stats()["batches"]
    rest(volume)
    assert not volume.pump()
    assert volume.engine.stats()["moved_blocks"] == 0
    assert volume.engine.stats()["batches"] == written


def test_what_it_moves_ahead_reads_as_before(volume: LocalVolume) -> None:
    overwrite(volume, 3 * SIZE_BLOCKS, seed=3)
    before, moved = volume.read_all(), volume.engine.stats()["moved_blocks"]
    rest(volume)
    assert volume.engine.stats()["moved_blocks"] > moved
    assert volume.read_all() == before


def test_clients_leave_the_last_segments_to_the_cleaner() -> None:
    """However many of them want room while it stands still."""
    disk = PlainDisk(bytearray(LAYOUT.size_bytes))
    format_device(MemoryDevice(disk.image), LAYOUT, store_uuid=STORE_UUID, boot_id=boot_id(0))
    volume = Unread(disk, boot_id=boot_id(0), life_id=1, create_blocks=SIZE_BLOCKS)
    volume.run((write(first, min(8, SIZE_BLOCKS - first)) for first in range(0, SIZE_BLOCKS, 8)), depth=4)
    random = Random(1)
    for _ in range(3000):
        volume.submit(write(random.randrange(SIZE_BLOCKS)))
        volume.pump()
    while volume.pump():
        pass
    assert volume.engine.stats()["segments_free"] == RESERVED_SEGMENTS
    assert any(request.error < 0 for request in volume._open)
