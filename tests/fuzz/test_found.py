"""What fuzzing found, each said plainly: checksums that are right over metadata that is wrong."""
import numpy as np
import pytest

from repstore import config, errors
from repstore.format import (
    OP_EPOCH,
    OP_MOVE,
    OP_TRIM,
    OP_WRITE,
    OP_ZERO,
    SEGMENT_SEALED,
    page_reference_t,
    pending_t,
    segment_entry_t,
    volume_entry_t,
)
from repstore.sim.engine import open_engine
from repstore.sim.local import PlainDisk, Request
from repstore.sim.workload import FLUSH, WRITE
from repstore.store import root as roots
from repstore.store.root import Root, Tree, Volume
from tests.fuzz import stores
from tests.store.images import BOOT, Log, small_geometry

GEOMETRY = small_geometry(16 * config.MIB, config.MIB)
FIRST = GEOMETRY.segment_start(0)
EIO = 5


def opened_with(pending_record: tuple[int, int, int]) -> None:
    """Open a store whose root has this pending record: (operation, blocks, location)."""
    operation, blocks, location = pending_record
    entry = np.zeros(1, volume_entry_t)[0]
    entry["name"], entry["size_blocks"], entry["last_lsn"] = b"demo", 1000, blocks
    pending = np.zeros(1, pending_t)
    pending["lsn"], pending["blocks"] = 1, blocks
    pending["operation"], pending["location"] = operation, location
    crcs = np.zeros(blocks if operation == OP_WRITE else 0, np.uint32)
    plain = roots.empty(GEOMETRY)
    segments = plain.segments.copy()
    segments["state"][0] = SEGMENT_SEALED
    volume = Volume(entry, pending, crcs, (Tree(0, np.zeros(1, page_reference_t)),))
    log = Log(Root(0, 0, segments, plain.plan[1:], (volume,)), GEOMETRY)
    engine, _ = open_engine(log.device.image, "image", number=0, boot_id=BOOT, life_id=9)
    engine.check_invariants()


@pytest.mark.parametrize("record", [
    (OP_WRITE, 64, FIRST), (OP_TRIM, 900, 0), (OP_ZERO, 900, 1), (OP_EPOCH, 1, 0)])
def test_a_pending_record_that_the_log_can_have_is_taken(record: tuple[int, int, int]) -> None:
    opened_with(record)


@pytest.mark.parametrize("record", [
    (OP_WRITE, 65, FIRST), (OP_WRITE, 200, FIRST), (OP_TRIM, 1, FIRST), (OP_TRIM, 1, 2**32 - 1),
    (OP_ZERO, 1, FIRST), (OP_ZERO, 1, 0), (OP_MOVE, 1, 2**32 - 1), (0, 1, 0), (255, 1, 2**32 - 1)])
def test_a_pending_record_that_no_log_can_have_refuses_the_store(record: tuple[int, int, int]) -> None:
    with pytest.raises(errors.CorruptionError):
        opened_with(record)


def changed(area: str, offset: int, value: bytes) -> stores.BoundedVolume:
    """The store that was closed, with bytes of one area changed and all checksums right."""
    base = stores.bases()[1]
    image = bytearray(base.image)
    start = next(each.start for each in base.areas if each.name == area)
    image[start + offset:start + offset + len(value)] = value
    stores.seal(base, image)
    return stores.BoundedVolume(PlainDisk(image), boot_id=stores.BOOT_ID, life_id=99)


@pytest.mark.parametrize("location", [4, 2**20, 2**31, 2**32 - 1])
def test_a_map_page_that_points_outside_of_the_segments_is_a_bad_page(location: int) -> None:
    local = changed("leaf", 0, location.to_bytes(4, "little"))
    local.settle()
    assert set(local.read_all()) == {-1}
    local.settle()


def test_a_segment_table_that_contradicts_the_map_fences_the_store() -> None:
    """The table says that nothing lives where the map points: counting down from 0 would write a
    table that no later start can read."""
    base = stores.bases()[1]
    root = next(each for each in base.areas if each.name == "root")
    data = base.image[root.start:root.start + root.length]
    table = np.frombuffer(data, segment_entry_t, 12, 64).copy()
    table["live"] = 0
    local = changed("root", 64, table.tobytes())
    local.checks = False
    write, flush = Request(WRITE, 0, 8, stamp=7), Request(FLUSH)
    local.run([write, flush])
    assert write.error == EIO or flush.error == EIO or local.engine.failed
