"""Damage to simulated stores, by volume and block, and reads that may end with an error."""
import mmap
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from repstore._fast import inspection
from repstore._fast.simulated import DiskRead, DiskWrite
from repstore._fast.waiting import Call
from repstore.format import BLOCK_SIZE, extent_t
from repstore.sim.cluster import SimulatedCluster
from repstore.sim.disk import SimulatedDisk
from repstore.sim.workload import IO, READ, WRITE, stamped, stamps_of

EIO = 5
LIMIT_S = 40.0


def location(cluster: SimulatedCluster, node: str, lba: int, volume: int = 1) -> int:
    """Where a copy has a block, in blocks of its store."""
    return int(extents(cluster, node, lba, 1, volume)["location"][0])


def extents(cluster: SimulatedCluster, node: str, first: int, count: int,
            volume: int = 1) -> NDArray[np.void]:
    """Map entries of a copy."""
    found = np.zeros(count, extent_t)
    inspection.read_map(cluster.life(node).engine, volume, first, found.view(np.uint8))
    return found


def lost(cluster: SimulatedCluster, node: str) -> list[tuple[int, int]]:
    """(volume, LBA) of the blocks that a node knows as lost."""
    return inspection.lost_blocks(cluster.life(node).engine)


def rot(disk: SimulatedDisk, block: int) -> None:
    """One flipped bit, on the medium."""
    for image in (disk.image, disk._durable):
        image[block * BLOCK_SIZE + 1234] ^= 0x10


class UnreadableBlocks:
    """Blocks of a disk that answer a read with EIO until they are written anew."""

    def __init__(self, disk: SimulatedDisk) -> None:
        self.blocks: set[int] = set()
        self._disk = disk
        self._finish = disk.finish
        disk.finish = self.finish  # type: ignore[method-assign]

    def finish(self, operation: int) -> tuple[int, memoryview | None]:
        """Like the disk's own."""
        ask = self._disk._flying[operation]
        result = self._finish(operation)
        if isinstance(ask, DiskWrite):
            self.blocks -= set(touched(ask.offset, len(ask.data)))
        if isinstance(ask, DiskRead) and self.blocks.intersection(touched(ask.offset, ask.length)):
            return -EIO, None
        return result


def touched(offset: int, length: int) -> Iterable[int]:
    return range(offset // BLOCK_SIZE, (offset + length) // BLOCK_SIZE)


def start(cluster: SimulatedCluster, node: str, kind: int, lba: int, memory: mmap.mmap) -> Call:
    """Begin one operation through a node."""
    return _start(cluster, node, kind, lba, memory)[0]


def _start(cluster: SimulatedCluster, node: str, kind: int, lba: int, memory: mmap.mmap) -> tuple[Call, Any]:
    life = cluster.life(node)
    ios = np.zeros(1, IO)
    ios["kind"], ios["offset"], ios["length"] = kind, lba * BLOCK_SIZE, len(memory)
    ios["export_id"] = life.engine.exports[1]
    call = life.engine.start(ios.view(np.uint8).data, memory, 1)
    life.run()
    return call, ios


def _operate(cluster: SimulatedCluster, node: str, kind: int, lba: int, memory: mmap.mmap) -> int:
    call, ios = _start(cluster, node, kind, lba, memory)
    cluster.run_until(lambda: call.done, LIMIT_S)
    call.end()
    return int(ios["error"][0])


def read(cluster: SimulatedCluster, node: str, lba: int, blocks: int = 1) -> tuple[int, list[int]]:
    """errno and stamps of a read through a node."""
    memory = mmap.mmap(-1, blocks * BLOCK_SIZE)
    error = _operate(cluster, node, READ, lba, memory)
    return error, stamps_of(memory[:])


def write(cluster: SimulatedCluster, node: str, lba: int, stamp: int, blocks: int = 1) -> int:
    """errno of a write through a node."""
    memory = mmap.mmap(-1, blocks * BLOCK_SIZE)
    memory[:] = stamped(stamp, blocks)
    return _operate(cluster, node, WRITE, lba, memory)
