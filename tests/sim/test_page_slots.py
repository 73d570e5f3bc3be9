"""Checkpoints of a map of several pages, judged in the one arrangement of slots that a breach needs.

Slots are taken one behind the other, round the end, and a checkpoint has four pairs of writes of neighbouring
slots under way. So an old slot is free again at once only where the round has come to it, and a page
waits for its turn only where the free slots in front of it lie apart.
"""
import numpy as np
import pytest

from repstore import config
from repstore.format import BLOCK_SIZE, PAGE_ENTRIES, page_reference_t
from repstore.sim.durability import RecordedVolume, write
from repstore.sim.local import Request
from repstore.store import root as roots
from repstore.store import superblock
from repstore.store.device import MemoryDevice

STORE_BYTES = 16 * config.MIB
PAGES = 6                        # the map's
LAST = PAGES - 1                 # is written to go round
ROUNDS_MOST = 400
WRITES = 2 * 4                   # of a checkpoint under way: four lanes, each slot has two blocks


def in_page(page: int) -> Request:
    """A write to a block of this page."""
    return write(page * PAGE_ENTRIES + 7)


def slots(volume: RecordedVolume) -> tuple[list[int], int]:
    """Where the last checkpoint has each page of the map, and their directory."""
    device = MemoryDevice(volume.disk.image)
    state = superblock.read(device, "store").superblock
    root = roots.decode(roots.read(device, state, "store"), state.geometry)
    directory = int(root.volumes[0].trees[0].directories["slot"][0])
    block = state.geometry.page_base + directory
    pages = np.frombuffer(device.read(block * BLOCK_SIZE, BLOCK_SIZE), page_reference_t)["slot"]
    return pages[:PAGES].tolist(), directory


@pytest.fixture
def volume() -> RecordedVolume:
    """Five pages lie in every other slot, and the next slot that is free is the one before them."""
    made = RecordedVolume(store_bytes=STORE_BYTES, segment_bytes=64 * config.KIB,
                          size_blocks=PAGES * PAGE_ENTRIES, seed=1)
    for page in (LAST, LAST, *range(LAST)):
        made.run([in_page(page)])
        made.checkpoint()
    first = slots(made)[0][0]
    for _ in range(ROUNDS_MOST):
        made.run([in_page(LAST)])
        made.checkpoint()
        pages, directory = slots(made)
        if directory == first - 2:
            break
    assert pages[:LAST] == list(range(first, first + 2 * LAST, 2))
    assert directory == first - 2
    made.begin_recording()
    return made


def test_a_slot_that_the_last_checkpoint_names_is_not_written(volume: RecordedVolume) -> None:
    volume.run([in_page(0), in_page(1)])
    volume.checkpoint()
    assert volume.check(every=60, subset_limit=2, samples=0).faults == ()


def test_what_is_written_while_a_page_waits_is_not_in_the_checkpoint(volume: RecordedVolume) -> None:
    volume.run([in_page(page) for page in range(PAGES)])
    volume.run([in_page(0) for _ in range(16)])     # what is overwritten below lies in another segment
    local = volume.local
    local.settle()
    local.engine.checkpoint()
    while local._turn():
        pass
    pages, local._due = local._due, []         # the disk takes its time with them
    assert len(pages) == WRITES
    volume.run([in_page(LAST - 1), in_page(LAST)])
    local._due += pages
    local.settle()
    assert volume.check(every=60, subset_limit=2, samples=0).faults == ()
