"""A store that somebody changed: superblocks, root, directories, leaves, batches, payload.

The script is a list of patches on one of two small stores: one that was killed with a log to
replay, one that was closed cleanly. A sealed patch has all checksums above it made right again, so
that what lies behind them is reached; a raw one is rot. Promised: the store is refused with an error of
ours, or it opens, answers every request and comes to rest; and as long as nothing but rot happened,
its invariants hold and no block of a store that was closed reads as anything it never was.
"""
from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from crc32c import crc32c

from repstore import config, errors
from repstore.format import (
    BATCH_AREA_BYTES,
    BLOCK_SIZE,
    batch_header_t,
    page_reference_t,
    superblock_t,
)
from repstore.sim.local import LocalVolume, PlainDisk, Request
from repstore.sim.workload import FLUSH, READ, TRIM, WRITE, WRITE_ZEROES
from repstore.store import geometry, recovery, superblock
from repstore.store import root as roots
from repstore.store.device import MemoryDevice
from repstore.store.store import format_device
from tests.fuzz.script import Script

BOOT_ID = b"boot of the fuzz"
SIZE_BLOCKS = 64
PATCHES_MAX = 32
PUMPS_MAX = 5000
READ_BLOCKS_MAX = 64           # of a volume whose size was changed too


class BoundedVolume(LocalVolume):
    """One that notices when its engine never comes to rest."""

    pumps = 0
    checks = True                # what contradicts itself under right checksums only fsck can tell

    def settle(self) -> None:
        while self.pump():
            pass
        self.engine.events()
        if self.checks:
            self.engine.check_invariants()

    def pump(self) -> bool:
        self.pumps += 1
        assert self.pumps < PUMPS_MAX, f"not at rest: {self.engine.stats()}"
        return super().pump()


@dataclass(frozen=True)
class Area:
    """A part of a store, and how its checksum is found: at `owner`, over all of it."""

    name: str
    start: int
    length: int
    owner: int = 0             # byte on the store where the checksum of this page stands


@dataclass(frozen=True)
class Base:
    """A store before anything happens to it; `seals` are its pages, the lowest first."""

    image: bytes
    superblocks: tuple[int, ...]
    root: Area
    seals: tuple[Area, ...]
    batches: tuple[int, ...]   # bytes where their header blocks lie, in order of the log
    stamps: tuple[int, ...]    # what every block of the volume holds

    @property
    def areas(self) -> list[Area]:
        """What a patch can be about. Of four superblocks the first stands for all."""
        logs = [Area("batch", start, 2 * BLOCK_SIZE) for start in self.batches]
        return [Area("superblock", 0, superblock_t.itemsize), self.root, *self.seals, *logs]


def run(data: bytes) -> None:
    """One input."""
    script = Script(data)
    base = bases()[script.number() % 2]
    image = bytearray(base.image)
    sealed, raw = patches(base, script)
    for start, value in sealed:
        image[start:start + len(value)] = value
    if sealed:
        seal(base, image)
    for start, value in raw:
        image[start:start + len(value)] = value
    try:
        local = BoundedVolume(PlainDisk(image), boot_id=BOOT_ID, life_id=99)
    except errors.RepstoreError:
        return
    local.checks = not sealed
    local.settle()
    for index in local.engine.volume_indexes():
        found = read_some(local, index)
        if not sealed and base is bases()[1]:
            assert all(stamp in (-1, right) for stamp, right in zip(found, base.stamps, strict=True)), found
    for index in local.engine.volume_indexes():
        last = local.engine.volume_state(index).size_blocks - 1
        local.run([Request(WRITE, 0, 1, stamp=777, volume=index), Request(TRIM, last, 1, volume=index),
                   Request(FLUSH, volume=index)])
    local.settle()


def read_some(local: LocalVolume, index: int) -> list[int]:
    """What the first blocks hold; the last ones are read too."""
    size = local.engine.volume_state(index).size_blocks
    reads = [Request(READ, block, 1, volume=index) for block in range(min(size, READ_BLOCKS_MAX))]
    local.run([*reads, Request(READ, size - 1, 1, volume=index)], depth=8)
    return [stamp for read in reads for stamp in local._stamps(read)]


def patches(base: Base, script: Script) -> tuple[list[tuple[int, bytes]], list[tuple[int, bytes]]]:
    """What the script changes: before all checksums are made right, and after."""
    sealed, raw = [], []
    areas = base.areas
    for _ in range(PATCHES_MAX):
        if not script.left:
            break
        style, area = script.number(), areas[script.number() % len(areas)]
        at = area.start + script.number(2) % area.length
        value = script.take(1 + (style >> 1) % 8)[:area.start + area.length - at]
        if style & 1:
            sealed.append((at, value))
        elif area.name == "superblock":
            raw.append((base.superblocks[style >> 4 & 3] * BLOCK_SIZE + at, value))
        else:
            raw.append((at, value))
    return sealed, raw


def seal(base: Base, image: bytearray) -> None:
    """All checksums right again, from the payload and the leaves up to the superblocks."""
    previous: int | None = None
    for start in base.batches:
        previous = seal_batch(image, start, previous)
    for area in base.seals:
        put_crc(image, area.owner, crc32c(bytes(image[area.start:area.start + area.length])))
    fields = np.frombuffer(image, superblock_t, 1)
    length = min(int(fields["root_bytes"][0]), len(image) - base.root.start)
    root_crc = crc32c(bytes(image[base.root.start:base.root.start + length]))
    block = bytes(image[:BLOCK_SIZE])
    del fields
    for copy_number, position in enumerate(base.superblocks):
        copy = np.frombuffer(bytearray(block), superblock_t, 1).copy()
        copy["copy_number"], copy["root_crc"], copy["crc"] = copy_number, root_crc, 0
        rest = block[superblock_t.itemsize:]
        copy["crc"] = crc32c(copy.tobytes() + rest)
        image[position * BLOCK_SIZE:(position + 1) * BLOCK_SIZE] = copy.tobytes() + rest


def seal_batch(image: bytearray, start: int, previous: int | None) -> int:
    """Payload and header checksums of a batch, chained to the one before; its own."""
    header = np.frombuffer(image, batch_header_t, 1, start)
    blocks = min(int(header["payload_blocks"][0]), BATCH_AREA_BYTES // 4, len(image) // BLOCK_SIZE)
    for i in range(blocks):
        at = start + (1 + i) * BLOCK_SIZE
        if at < len(image):
            put_crc(image, start + BLOCK_SIZE - 4 * (i + 1), crc32c(bytes(image[at:at + BLOCK_SIZE])))
    if previous is not None:
        header["previous_crc"] = previous
    header["crc"] = 0
    header["crc"] = crc32c(bytes(image[start:start + BLOCK_SIZE]))
    return int(header["crc"][0])


def put_crc(image: bytearray, at: int, crc: int) -> None:
    image[at:at + 4] = crc.to_bytes(4, "little")


@cache
def bases() -> tuple[Base, Base]:
    """The store that was killed, and the one that was closed."""
    layout = geometry.choose(config.StoreOptions(config.MIB, 64 * config.KIB))
    image = bytearray(layout.size_bytes)
    format_device(MemoryDevice(image), layout, store_uuid=bytes(range(16)), boot_id=BOOT_ID)
    local = BoundedVolume(PlainDisk(image), boot_id=BOOT_ID, life_id=5, create_blocks=SIZE_BLOCKS)
    local.run([Request(WRITE, 8 * i, 8, stamp=1000 + 8 * i) for i in range(6)])
    local.engine.settle()
    local.run([Request(WRITE, 4, 3, stamp=2000), Request(TRIM, 10, 2), Request(WRITE_ZEROES, 12, 3),
               Request(FLUSH), Request(WRITE, 40, 5, stamp=3000, fua=True)])
    local.settle()
    stamps = tuple(local.read_all())
    killed = base_of(image, stamps)
    local.engine.settle(clean=True)
    return killed, base_of(image, stamps)


def base_of(image: bytearray, stamps: tuple[int, ...]) -> Base:
    """Where everything lies in a store."""
    device = MemoryDevice(bytearray(image))
    state = superblock.read(device, "base").superblock
    data = roots.read(device, state, "base")
    layout, root = state.geometry, roots.decode(data, state.geometry)
    start = layout.root_start(state.root_area) * BLOCK_SIZE
    seals: list[Area] = []
    for volume in root.volumes:
        for tree in volume.trees:
            seals += tree_areas(image, layout, start + data.find(tree.directories.tobytes()), tree)
    seals.sort(key=lambda area: area.name == "directory")      # leaves before what names them
    places: Any = recovery.recover(device, state, root, same_boot=True, name="base").batches
    batches = tuple((layout.segment_start(int(place["segment"])) + int(place["offset_blocks"])) * BLOCK_SIZE
                    for place in places)
    return Base(bytes(image), layout.superblock_positions, Area("root", start, len(data)), tuple(seals),
                batches, stamps)


def tree_areas(image: bytearray, layout: geometry.Geometry, start: int, tree: roots.Tree) -> list[Area]:
    """The pages of one tree; `start` is the byte where its directory references stand."""
    crc_at = page_reference_t.fields["crc"][1] if page_reference_t.fields else 0
    found: list[Area] = []
    for i, reference in enumerate(tree.directories):
        if reference["slot"]:
            at = (layout.page_base + int(reference["slot"])) * BLOCK_SIZE
            found.append(Area("directory", at, BLOCK_SIZE, start + i * page_reference_t.itemsize + crc_at))
            leaves = np.frombuffer(bytes(image[at:at + BLOCK_SIZE]), page_reference_t)
            found += [Area("leaf", (layout.page_base + int(leaf["slot"])) * BLOCK_SIZE, BLOCK_SIZE,
                           at + j * page_reference_t.itemsize + crc_at)
                      for j, leaf in enumerate(leaves) if leaf["slot"]]
    return found
