"""Which damage a run may do, and what was damaged: so that it can be said what must be right.

  A1 With an atlas a block of data is never damaged on so many copies that an in-sync set can be
     left without it: at most `min_copies` - 1 of its copies, always the same ones. Then every
     block can be had from some in-sync copy, whatever crashes; what nobody flushed may be on the
     damaged copy alone when power was lost.
  A2 Without an atlas any copy of any block may be damaged: it must read right or not at all.
  A3 A disk that loses or misplaces what it acknowledged cannot be told from one that was never
     asked. Only `bad_disk` does so, in either mode, and only where `min_copies` > 1.
  A4 Damage of single blocks strikes what a checkpoint covers: the last batches of a log are their
     own only proof, and to damage those is to lose them (A3).
"""
from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from repstore import errors
from repstore._fast.checksum import crc32c
from repstore.format import (
    BATCH_HEADER_BYTES,
    BATCH_MAGIC,
    BLOCK_SIZE,
    DESCRIPTOR_BYTES,
    OP_COPY,
    OP_MOVE,
    OP_WRITE,
    batch_header_t,
    descriptor_t,
)
from repstore.sim.plan import NO_NODE, Setup
from repstore.store import root as roots
from repstore.store import superblock
from repstore.store.device import MemoryDevice

CHUNK_BLOCKS = 4              # neighbours that may be damaged on the same copies
OPS_WITH_PAYLOAD = (OP_WRITE, OP_MOVE, OP_COPY)


@dataclass(frozen=True, slots=True)
class DataBlock:
    """A block of data on a disk, as the log says."""
    location: int
    volume: int               # index
    lba: int


@dataclass
class Damage:
    """What was damaged so far."""
    setup: Setup
    blocks: set[tuple[int, int]] = field(default_factory=set)          # (volume index, block)
    anywhere: bool = False                                             # a disk lost or misplaced data
    unread: bool = False                                               # reads failed, and what was read stays
    metadata: bool = False                                             # a store may not open
    fenced: bool = False                                               # a store may have failed
    unflushed: set[tuple[int, int]] = field(default_factory=set)       # those that no flush covered then
    power_was_cut: bool = False                                        # of some machine
    must_recover: bool = False                                         # all is healed, and can be had (A1)

    def may_strike(self, node: int, block: DataBlock) -> bool:
        """Whether the atlas allows for it (A1)."""
        setup = self.setup
        if not setup.atlas:
            return True
        if setup.bad_disk != NO_NODE:
            return node == setup.bad_disk
        plan = setup.volumes[block.volume - 1]
        place = (node - plan.first_node) % setup.nodes
        return place >= plan.copies or (place + block.lba // CHUNK_BLOCKS) % plan.copies < plan.min_copies - 1

    def is_damaged(self, volume: int, span: range) -> bool:
        """Whether these blocks may be errors."""
        blocks = self.blocks
        if self.must_recover:
            if not self.power_was_cut:
                return False
            blocks = self.unflushed            # power may have taken the other copies of these
        return self.anywhere or self.unread or any((volume, block) in blocks for block in span)

    @property
    def any(self) -> bool:
        """Whether anything was."""
        return self.anywhere or self.metadata or bool(self.blocks)


def data_blocks(image: bytearray) -> list[DataBlock]:
    """Blocks of data that a checkpoint covers, each the newest of its place in its volume (A4)."""
    device = MemoryDevice(image)
    try:
        found = superblock.read(device, "disk")
        root_bytes = roots.read(device, found.superblock, "disk")
        root = roots.decode(root_bytes, found.superblock.geometry, "disk")
    except errors.RepstoreError:
        return []
    newest: dict[tuple[int, int], tuple[int, int]] = {}
    firsts = np.frombuffer(image, "<u4")[::BLOCK_SIZE // 4]
    for location in np.flatnonzero(firsts == BATCH_MAGIC).tolist():
        for place, sequence, at in _batch(image, location):
            if sequence <= root.batch_sequence and newest.get(place, (0, 0))[0] <= sequence:
                newest[place] = (sequence, at)
    return [DataBlock(at, volume, lba) for (volume, lba), (_, at) in sorted(newest.items())]


def _batch(image: bytearray, location: int) -> list[tuple[tuple[int, int], int, int]]:
    """((volume, block), sequence, location) of everything that a batch brings."""
    start = location * BLOCK_SIZE
    header_block = bytes(image[start:start + BLOCK_SIZE])
    header = np.frombuffer(header_block, batch_header_t, 1)[0]
    if crc32c(header_block[:4] + bytes(4) + header_block[8:]) != header["crc"]:
        return []
    count = min(int(header["descriptor_count"]), (BLOCK_SIZE - BATCH_HEADER_BYTES) // DESCRIPTOR_BYTES)
    records = np.frombuffer(header_block, descriptor_t, count, BATCH_HEADER_BYTES)
    found = []
    at = location + 1
    for record in records:
        if record["operation"] in OPS_WITH_PAYLOAD:
            for i in range(int(record["blocks"])):
                found.append(((int(record["volume"]), int(record["lba"]) + i), int(header["sequence"]), at))
                at += 1
    return found
