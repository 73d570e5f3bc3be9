"""The engine of production on a simulated disk: opened, and driven without a thread.

  G1 As in a process, a store is opened in two steps: recovery reads the image at once, then
     the first checkpoint of the new life is durable before anything is acknowledged.
  G2 Creating and deleting a copy is durable when it returns: the disk is pumped until it is,
     at one point of virtual time.
"""
from __future__ import annotations

import errno
from collections.abc import Callable, Collection, Sequence

from repstore import errors
from repstore._fast.control import Engine
from repstore._fast.simulated import SimulatedBackend
from repstore.format import BLOCK_SIZE
from repstore.store.device import MemoryDevice
from repstore.store.store import OpenedStore, any_life, open_device

UNREADABLE_FILL = b"\xee"
PUMPS_MAX = 100_000      # a checkpoint of a small store takes some dozens


class SimulatedEngine(Engine):
    """An engine as control code uses it, answered by whoever owns it."""

    def __init__(self, number: int, boot_id: bytes) -> None:
        self.backend = SimulatedBackend(self)
        self.exports: dict[int, int] = {}            # export id by volume index
        self.pump: Callable[[], bool] = _nobody
        self.on_lead: Callable[[int, int], None] = _unwatched

    def volume_create(self, index: int, uuid: str, name: str, size_blocks: int) -> None:
        """Add an empty copy, durably, though an earlier call may have made it and gave up its wait."""
        if index not in self.volume_indexes():
            self._when_idle(lambda: Engine.volume_create(self, index, uuid, name, size_blocks))
        self.settle()

    def volume_delete(self, index: int) -> None:
        """Drop a copy, durably."""
        self._when_idle(lambda: Engine.volume_delete(self, index))
        self.settle()

    def export_install(self, index: int, name: str, size_bytes: int, session: int) -> int:
        """Remembers where clients of this volume submit."""
        self.exports[index] = Engine.export_install(self, index, name, size_bytes, session)
        return self.exports[index]

    def lead(self, index: int, epoch: int, incarnation: int, members: Sequence[tuple[int, int]], copies: int,
             min_copies: int, durable: bool, session: int) -> None:
        """Tells who watches, too: of volume and epoch."""
        Engine.lead(self, index, epoch, incarnation, members, copies, min_copies, durable, session)
        self.on_lead(index, epoch)

    def settle(self, clean: bool = False) -> None:
        """Pump until a checkpoint that begins now is durable."""
        self.wait_for_checkpoint(self.checkpoint(clean))

    def wait_for_checkpoint(self, number: int) -> None:
        """Pump until that many are durable."""
        for _ in range(PUMPS_MAX):
            if self.checkpoints >= number:
                return
            if self.failed or not self.pump():
                break
        raise errors.StoreFailedError(f"checkpoint {number} does not come, {self.checkpoints} are there")

    def _when_idle(self, action: Callable[[], None]) -> None:
        for _ in range(PUMPS_MAX):
            try:
                action()
            except BlockingIOError:
                if not self.pump():
                    raise
            else:
                return


class DamagedDevice(MemoryDevice):
    """Memory, some blocks of which cannot be read."""

    def __init__(self, image: bytearray, unreadable: Collection[int]) -> None:
        super().__init__(image)
        self._unreadable = unreadable

    def read(self, offset: int, length: int) -> memoryview:
        blocks = range(offset // BLOCK_SIZE, (offset + length - 1) // BLOCK_SIZE + 1)
        if self._unreadable and any(block in self._unreadable for block in blocks):
            raise OSError(errno.EIO, "bad sector")
        return super().read(offset, length)


def open_engine(image: bytearray, name: str, *, number: int, boot_id: bytes, life_id: int,
                unreadable: Collection[int] = (), replicated: bool = False,
                knows_life: Callable[[int], bool] = any_life) -> tuple[SimulatedEngine, OpenedStore]:
    """Recover the store in `image` into an engine that has not turned yet (G1).

    `unreadable` blocks answer with an I/O error; to the replay they are not what was written.
    """
    opened = open_device(DamagedDevice(image, unreadable), name, boot_id=boot_id, life_id=life_id,
                         replicated=replicated, knows_life=knows_life)
    engine = SimulatedEngine(number, opened.boot_id)
    if unreadable:
        image = bytearray(image)
        for block in unreadable:
            image[block * BLOCK_SIZE:(block + 1) * BLOCK_SIZE] = UNREADABLE_FILL * BLOCK_SIZE
    try:
        engine.load(opened.superblock_block, opened.root_bytes, opened.batches.tolist(), memory=image,
                    lagging=opened.lagging)
    except ValueError as error:
        raise errors.CorruptionError(name, "a store that can be loaded", str(error)) from None
    if opened.recovery.incomplete:
        engine.mark_incomplete()
    engine.begin_life(life_id)
    return engine, opened


def _unwatched(index: int, epoch: int) -> None:
    """Nobody wants to know who leads."""


def _nobody() -> bool:
    raise AssertionError("nobody pumps this engine")
