"""Stores whose maps say that everything was written, without the data: as large as one likes.

A store is made as always, in a sparse file; then a map that names a block for every LBA is put
where a checkpoint would have put it, and the root says so. The engine that opens it is the one of
production. What its blocks hold nobody knows: reading one is an error, comparing maps is not.
"""
from __future__ import annotations

import mmap
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from repstore import config
from repstore._fast.checksum import crc32c
from repstore.format import (
    BATCH_BLOCKS,
    BLOCK_SIZE,
    DIRECTORY_ENTRIES,
    PAGE_ENTRIES,
    SEGMENT_SEALED,
    extent_t,
    page_reference_t,
)
from repstore.sim.local import LocalVolume, PlainDisk
from repstore.store import geometry as layout
from repstore.store import root as roots
from repstore.store import superblock
from repstore.store.device import MemoryDevice
from repstore.store.geometry import Geometry
from repstore.store.store import format_device

BOOT_ID = bytes(16)
STORE_PERCENT = 180              # of what is mapped: room to write, and nothing to do for the cleaner
EXTRA_MIB = 64                   # beside it


def mapped_copy(path: Path, mapped_bytes: int) -> LocalVolume:
    """A volume with a map like `mapped_image`, served by an engine. One is equal to another."""
    return LocalVolume(PlainDisk(mapped_image(path, mapped_bytes)), boot_id=BOOT_ID, life_id=2)


def mapped_image(path: Path, mapped_bytes: int) -> bytearray:
    """A cleanly closed store with a volume of `mapped_bytes`, all of it mapped, in a sparse file that
    nobody sees any more and that goes with its image. Always the same one."""
    size_blocks = mapped_bytes // BLOCK_SIZE
    store_mib = mapped_bytes * STORE_PERCENT // 100 // config.MIB + EXTRA_MIB
    geometry = layout.choose(config.StoreOptions(store_mib * config.MIB))
    with path.open("w+b") as file:
        file.truncate(geometry.size_bytes)
        # a map of a file is all that is asked of an image, though it is no bytearray
        image = cast("bytearray", mmap.mmap(file.fileno(), geometry.size_bytes))
    path.unlink()
    format_device(MemoryDevice(image), geometry, store_uuid=bytes(16), boot_id=BOOT_ID)
    new = LocalVolume(PlainDisk(image), boot_id=BOOT_ID, life_id=1, create_blocks=size_blocks)
    new.engine.settle(clean=True)
    fill_map(image)
    return image


def fill_map(image: bytearray) -> None:
    """Let the map of the one volume in a cleanly closed store name a block for every LBA."""
    device = MemoryDevice(image)
    state = superblock.read(device, "image").superblock
    geometry = state.geometry
    root = roots.decode(roots.read(device, state, "image"), geometry)
    volume = root.volumes[0]
    size_blocks = int(volume.entry["size_blocks"])

    payload = np.flatnonzero(np.arange(geometry.segment_blocks) % BATCH_BLOCKS)
    count = -(-size_blocks // len(payload))
    used, plan = root.plan[-count:], root.plan[:-count]
    segments = root.segments.copy()
    segments["state"][used] = SEGMENT_SEALED
    segments["generation"][used] = 1
    segments["live"][used] = len(payload)
    segments["live"][used[-1]] = size_blocks - (count - 1) * len(payload)

    extents = np.zeros(-(-size_blocks // PAGE_ENTRIES) * PAGE_ENTRIES, extent_t)
    starts = np.array([geometry.segment_start(int(number)) for number in used])
    extents["location"][:size_blocks] = np.add.outer(starts, payload).ravel()[:size_blocks]
    extents["crc"][:size_blocks] = np.random.default_rng(1).integers(0, 2**32, size_blocks, np.uint32)

    lsn = int(volume.entry["last_lsn"]) + size_blocks
    slot = geometry.page_slots // 2            # far from what the store has written itself
    pages = extents.view(np.uint8).reshape(-1, BLOCK_SIZE)
    references = write_pages(device, geometry, pages, slot, lsn)
    references.resize(-(-len(pages) // DIRECTORY_ENTRIES) * DIRECTORY_ENTRIES)
    directories = write_pages(device, geometry, references.view(np.uint8).reshape(-1, BLOCK_SIZE),
                              slot + len(pages), lsn)

    entry = volume.entry.copy()
    for what in ("last_lsn", "commit_lsn", "durable_lsn"):
        entry[what] = lsn
    filled = replace(volume, entry=entry, trees=(replace(volume.trees[0], directories=directories),
                                                 *volume.trees[1:]))
    data = roots.encode(replace(root, segments=segments, plan=plan, volumes=(filled,)))
    for area in (0, 1):
        device.write(geometry.root_start(area) * BLOCK_SIZE, data + bytes(-len(data) % BLOCK_SIZE))
    superblock.write(device, replace(state, root_bytes=len(data), root_crc=crc32c(data)))


def write_pages(device: MemoryDevice, geometry: Geometry, pages: NDArray[np.uint8], slot: int,
                lsn: int) -> NDArray[np.void]:
    """Both blocks of each page, from this slot on; what names them."""
    for block in geometry.page_blocks(slot):
        device.write(block * BLOCK_SIZE, pages.tobytes())
    references = np.zeros(len(pages), page_reference_t)
    references["slot"] = slot + np.arange(len(pages))
    references["crc"] = [crc32c(page) for page in pages]
    references["max_lsn"] = lsn
    return references
