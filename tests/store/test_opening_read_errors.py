"""A device that fails reads while its store is opened: for a moment, or for longer than is waited for.

The engine reads through a descriptor that gives nothing, or nothing behind the roots, until another one is
put in its place.
"""
import contextlib
import errno
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from functools import partialmethod
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from repstore import config, errors
from repstore._fast import inspection
from repstore._fast.control import Engine
from repstore.format import BLOCK_SIZE, LOCATION_LOST, PAGE_ENTRIES, extent_t
from repstore.node import native
from repstore.node.native import Native
from repstore.sim.clock import NS_PER_S
from repstore.sim.durability import STORE_UUID, boot_id, flush, write
from repstore.sim.local import VOLUME_INDEX, LocalVolume, PlainDisk
from repstore.store import geometry
from repstore.store.device import MemoryDevice
from repstore.store.store import OpenedStore, format_device, open_store

FAILS_S = 0.05
SHORT_PATIENCE_NS = 50_000_000
PAUSES_LEAST_S = 0.04        # between three tries
PATIENCE_NS = 1_500_000_000
HICCUP_S = 0.9
SIZE_BLOCKS = 2 * PAGE_ENTRIES
LAYOUT = geometry.choose(config.StoreOptions(32 * config.MIB))


class FailingDescriptor:
    """Cannot be read from, until it is mended."""

    def __init__(self, path: Path) -> None:
        self._bad = os.open(os.devnull, os.O_WRONLY)
        self._good = os.open(path, os.O_RDONLY)
        head = path.with_suffix(".head")
        head.write_bytes(path.read_bytes()[:LAYOUT.page_base * BLOCK_SIZE])
        self._head = os.open(head, os.O_RDONLY)
        self.number = os.dup(self._bad)

    def fail(self) -> None:
        """It gives nothing."""
        os.dup2(self._bad, self.number)

    def fail_behind_roots(self) -> None:
        """The first superblock is there, and no page, nor the log. Three of four times the disk seems
        silent: in a short patience, if this process stands still for a moment, for all of it."""
        os.dup2(self._head, self.number)

    def mend(self) -> None:
        os.dup2(self._good, self.number)

    def mend_after(self, seconds: float) -> threading.Timer:
        mending = threading.Timer(seconds, self.mend)
        mending.start()
        return mending

    def close(self) -> None:
        for number in (self.number, self._bad, self._good, self._head):
            os.close(number)


def store_file(path: Path, *, checkpointed: bool) -> Path:
    """A store whose blocks are all written; without a checkpoint they stand in its log alone."""
    image = bytearray(LAYOUT.size_bytes)
    format_device(MemoryDevice(image), LAYOUT, store_uuid=STORE_UUID, boot_id=boot_id(0))
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


def cut_off_for_a_moment(path: Path, whole: Path, left_blocks: int) -> subprocess.Popen[bytes]:
    """All but so many blocks cannot be read for HICCUP_S. By a shell without a sanitizer: the runtime of
    ThreadSanitizer in one ended it, and nothing came back."""
    os.truncate(path, left_blocks * BLOCK_SIZE)
    environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    return subprocess.Popen(["sh", "-c", f"sleep {HICCUP_S}; cat {whole} > {path}"], env=environment)


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
    mending = descriptor.mend_after(FAILS_S)
    engine = load(opened, descriptor.number)
    mending.join()
    found = locations(engine)
    assert (found != LOCATION_LOST).all()
    assert (found > LOCATION_LOST).sum() > SIZE_BLOCKS // 2    # of a log the last records wait


@pytest.mark.parametrize("descriptor", [True], indirect=True)
def test_a_directory_that_stays_unreadable_is_lost_with_its_pages(
        opened: OpenedStore, descriptor: FailingDescriptor) -> None:
    descriptor.fail_behind_roots()
    engine = load(opened, descriptor.number, PATIENCE_NS)
    assert (locations(engine) == LOCATION_LOST).all()


@pytest.mark.parametrize("descriptor", [False], indirect=True)
def test_a_log_that_stays_unreadable_refuses_the_store(
        opened: OpenedStore, descriptor: FailingDescriptor) -> None:
    descriptor.fail_behind_roots()
    with pytest.raises(ValueError, match="a log batch is not what recovery found"):
        load(opened, descriptor.number, PATIENCE_NS)


@pytest.mark.parametrize("descriptor", [True, False], ids=["checkpoint", "log"], indirect=True)
@pytest.mark.fault("disk: it gives nothing at all while a store is opened, nor 10 s later",
                   promise="not opened, and nothing is lost: it can be opened later")
def test_a_store_of_which_nothing_can_be_read_is_not_opened(
        opened: OpenedStore, descriptor: FailingDescriptor) -> None:
    with pytest.raises(OSError, match=r"block \d+ cannot be read, and nothing else either") as refused:
        load(opened, descriptor.number, SHORT_PATIENCE_NS)
    assert refused.value.errno == errno.EIO
    descriptor.mend()
    assert (locations(load(opened, descriptor.number)) != LOCATION_LOST).all()


@pytest.mark.parametrize("descriptor", [True], indirect=True)
def test_a_page_of_which_nothing_can_be_read_is_not_looked_at(
        opened: OpenedStore, descriptor: FailingDescriptor) -> None:
    descriptor.mend()
    engine = load(opened, descriptor.number, SHORT_PATIENCE_NS)
    descriptor.fail()
    with pytest.raises(OSError, match=r"block \d+ cannot be read, and nothing else either"):
        locations(engine)
    descriptor.mend()
    assert (locations(engine) != LOCATION_LOST).all()


@pytest.mark.parametrize("descriptor", [True], indirect=True)
def test_a_node_says_that_its_disk_gives_nothing(
        opened: OpenedStore, descriptor: FailingDescriptor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OpenedStore, "descriptor", descriptor.number)
    monkeypatch.setattr(native.NodeEngine, "load", partialmethod(Engine.load, patience_ns=SHORT_PATIENCE_NS))
    with pytest.raises(errors.UnavailableError, match=r"s: .*block \d+ cannot be read") as refused:
        Native(0, opened)
    assert refused.value.errno == errno.EIO


@pytest.mark.parametrize("descriptor", [True], indirect=True)
@pytest.mark.parametrize("behind_roots", [True, False])
def test_a_page_is_tried_three_times_however_long_a_try_took(
        opened: OpenedStore, descriptor: FailingDescriptor, behind_roots: bool) -> None:
    if behind_roots:
        descriptor.fail_behind_roots()
    began_s = time.monotonic()
    with contextlib.suppress(OSError):
        load(opened, descriptor.number, patience_ns=1)
    assert time.monotonic() - began_s >= PAUSES_LEAST_S


@pytest.mark.parametrize("left_blocks", [0, LAYOUT.page_base], ids=["nothing", "roots"])
def test_what_came_back_does_not_shorten_the_patience_with_the_next(tmp_path: Path, left_blocks: int) -> None:
    """First the directory cannot be read, then its pages, and each for more than half of the patience. Maps
    are looked at with the GIL held: a process brings back what was cut off."""
    path, whole = store_file(tmp_path / "s", checkpointed=True), tmp_path / "whole"
    whole.write_bytes(path.read_bytes())
    opened = open_store(path)
    descriptor = os.open(path, os.O_RDONLY)
    with cut_off_for_a_moment(path, whole, left_blocks):
        engine = load(opened, descriptor, PATIENCE_NS)
    with cut_off_for_a_moment(path, whole, left_blocks):
        found = locations(engine)
    os.close(descriptor)
    opened.close()
    assert (found != LOCATION_LOST).all()
