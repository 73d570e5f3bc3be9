"""A device that fails reads while its store is opened: for a moment, or for longer than is waited for.

The engine reads through a descriptor that gives nothing, until another one is put in its place.
"""
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from repstore import config
from repstore._fast import inspection
from repstore._fast.control import Engine
from repstore.format import LOCATION_LOST, PAGE_ENTRIES, extent_t
from repstore.sim.clock import NS_PER_S
from repstore.sim.durability import STORE_UUID, boot_id, flush, write
from repstore.sim.local import VOLUME_INDEX, LocalVolume, PlainDisk
from repstore.store import geometry
from repstore.store.device import MemoryDevice
from repstore.store.store import OpenedStore, format_device, open_store

FAILS_S = 0.05
SHORT_PATIENCE_NS = 50_000_000
SIZE_BLOCKS = 2 * PAGE_ENTRIES


class FailingDescriptor:
    """Cannot be read from, until it is mended."""

    def __init__(self, path: Path) -> None:
        self.number = os.open(os.devnull, os.O_WRONLY)
        self._good = os.open(path, os.O_RDONLY)

    def mend(self) -> None:
        os.dup2(self._good, self.number)

    def close(self) -> None:
        os.close(self.number)
        os.close(self._good)


def store_file(path: Path, *, checkpointed: bool) -> Path:
    """A store whose blocks are all written; without a checkpoint they stand in its log alone."""
    layout = geometry.choose(config.StoreOptions(32 * config.MIB))
    image = bytearray(layout.size_bytes)
    format_device(MemoryDevice(image), layout, store_uuid=STORE_UUID, boot_id=boot_id(0))
    volume = LocalVolume(PlainDisk(image), boot_id=boot_id(0), life_id=1, create_blocks=SIZE_BLOCKS)
    volume.run([*(write(first, 8) for first in range(0, SIZE_BLOCKS, 8)), flush()], depth=4)
    if checkpointed:
        volume.engine.settle(clean=True)
    path.write_bytes(image)
    return path


@pytest.fixture
def descriptor(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[FailingDescriptor]:
    made = FailingDescriptor(store_file(tmp_path / "s", checkpointed=request.param))
    yield made
    made.close()


@pytest.fixture
def opened(tmp_path: Path, descriptor: FailingDescriptor) -> Iterator[OpenedStore]:
    """What Python reads of it is there."""
    found = open_store(tmp_path / "s")
    yield found
    found.close()


def load(opened: OpenedStore, descriptor: int, patience_ns: int = 10 * NS_PER_S) -> Engine:
    engine = Engine(0, opened.boot_id)
    engine.load(opened.superblock_block, opened.root_bytes, opened.batches.tolist(), descriptor,
                patience_ns=patience_ns)
    return engine


def locations(engine: Engine) -> NDArray[np.uint32]:
    """Where the map has each block; its pages are read now."""
    found = np.zeros(SIZE_BLOCKS, extent_t)
    inspection.read_map(engine, VOLUME_INDEX, 0, found.view(np.uint8))
    return found["location"].astype(np.uint32)


@pytest.mark.parametrize("descriptor", [True, False], ids=["checkpoint", "log"], indirect=True)
@pytest.mark.fault("disk: reads fail for a moment while a store is opened",
                   promise="opened a moment later, and nothing is lost")
def test_what_can_be_read_a_moment_later_is_waited_for(
        opened: OpenedStore, descriptor: FailingDescriptor) -> None:
    mending = threading.Timer(FAILS_S, descriptor.mend)
    mending.start()
    engine = load(opened, descriptor.number)
    mending.join()
    found = locations(engine)
    assert (found != LOCATION_LOST).all()
    assert (found > LOCATION_LOST).sum() > SIZE_BLOCKS // 2    # of a log the last records wait


@pytest.mark.parametrize("descriptor", [True], indirect=True)
def test_a_directory_that_stays_unreadable_is_lost_with_its_pages(
        opened: OpenedStore, descriptor: FailingDescriptor) -> None:
    engine = load(opened, descriptor.number, SHORT_PATIENCE_NS)
    assert (locations(engine) == LOCATION_LOST).all()


@pytest.mark.parametrize("descriptor", [False], indirect=True)
def test_a_log_that_stays_unreadable_refuses_the_store(
        opened: OpenedStore, descriptor: FailingDescriptor) -> None:
    with pytest.raises(ValueError, match="a log batch is not what recovery found"):
        load(opened, descriptor.number, SHORT_PATIENCE_NS)
