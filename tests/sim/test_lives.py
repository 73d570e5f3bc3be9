"""Where a life of a store goes on, and what a start costs of its log (L7)."""
from __future__ import annotations

import errno
from random import Random

import pytest

from repstore import config
from repstore._fast.simulated import DiskWrite
from repstore.check import store_maps
from repstore.format import BLOCK_SIZE
from repstore.sim.local import LocalVolume, PlainDisk, Request
from repstore.sim.workload import WRITE
from repstore.store import geometry
from repstore.store.device import MemoryDevice
from repstore.store.geometry import Geometry
from repstore.store.store import format_device

BOOT_ID = bytes(16)
LEFT_BLOCKS = 3          # at the end of a segment, where the next batch has no room
LOW_SEGMENTS = 4         # free ones of a small store below which a life goes on where the last one ended


class Worn(PlainDisk):
    """Some blocks take no writes."""

    def __init__(self, image: bytearray, blocks: set[int]) -> None:
        super().__init__(image)
        self.blocks = blocks

    def finish(self, operation: int) -> tuple[int, memoryview | None]:
        ask = self._flying[operation]
        if isinstance(ask, DiskWrite):
            first = ask.offset // BLOCK_SIZE
            if not self.blocks.isdisjoint(range(first, first + len(ask.data) // BLOCK_SIZE)):
                del self._flying[operation]
                return -errno.EIO, None
        return super().finish(operation)


def new_store(size_bytes: int, segment_bytes: int) -> tuple[Geometry, bytearray]:
    layout = geometry.choose(config.StoreOptions(size_bytes, segment_bytes))
    image = bytearray(layout.size_bytes)
    format_device(MemoryDevice(image), layout, store_uuid=bytes(range(16)), boot_id=BOOT_ID)
    return layout, image


@pytest.mark.fault("crash: again and again in a full store, with no time to clean between",
                   promise="a start takes no room of the log")
@pytest.mark.parametrize("clean", [True, False])
def test_a_start_takes_no_segment_where_few_are_free(clean: bool) -> None:
    """It goes on behind the last batch that counts. What the end of a life lost does not come back behind
    what the next one wrote."""
    layout, image = new_store(config.MIB, 64 * config.KIB)
    blocks = layout.capacity_bytes // BLOCK_SIZE - 4
    may_read = [{0} for _ in range(blocks)]
    starts = taken = written = 0
    for life in range(1, 150):
        volume = LocalVolume(PlainDisk(image), boot_id=BOOT_ID, life_id=life, random=Random(life),
                             create_blocks=blocks if life == 1 else 0)
        before, free = entered(volume, layout), volume.engine.stats()["segments_free"]
        found = volume.read_all()
        assert all(stamp in may for stamp, may in zip(found, may_read, strict=True)), found
        may_read = [{stamp} for stamp in found]
        writes = range(blocks) if life == 1 else [7 * life % blocks]
        volume.run([Request(WRITE, block, 1, True, 1000 * life + block) for block in writes])
        for block in writes:
            may_read[block] = {1000 * life + block}
        if clean:
            volume.engine.settle(clean=True)
        else:
            for block in range(4):                    # killed in the middle of these
                volume.submit(Request(WRITE, block, 1, stamp=5_000_000 + 1000 * life + block))
                may_read[block].add(5_000_000 + 1000 * life + block)
            for _ in range(life % 4):
                volume.pump()
        volume.engine.check_invariants()
        if free <= LOW_SEGMENTS and life > 1:
            starts += 1
            written += volume.engine.stats()["moved_blocks"] + 2 * volume.engine.stats()["batches"]
            taken += entered(volume, layout) - before
    assert starts > 50
    assert taken * (layout.segment_blocks - LEFT_BLOCKS) <= written


def entered(volume: LocalVolume, layout: Geometry) -> int:
    """How often the log has entered a segment."""
    return int(store_maps.read_segments(volume.engine, layout)["generation"].sum())


@pytest.mark.fault("disk: a block of the log that cannot be written, where segments are free",
                   promise="it ends one life, not each that follows")
def test_a_block_that_cannot_be_written_ends_one_life() -> None:
    layout, image = new_store(32 * config.MIB, 256 * config.KIB)
    worn = Worn(image, {layout.segment_start(0) + 40})
    volume = LocalVolume(worn, boot_id=BOOT_ID, life_id=1, create_blocks=256)
    volume.run([Request(WRITE, block, 1, True, 1 + block) for block in range(60)])
    assert volume.engine.failed == errno.EIO
    volume = LocalVolume(worn, boot_id=BOOT_ID, life_id=2)
    volume.run([Request(WRITE, block, 1, True, 101 + block) for block in range(60)])
    assert volume.read_all()[:60] == list(range(101, 161))
