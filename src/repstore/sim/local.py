"""One volume of one copy on an engine without peers: submit, and answer its disk step by step.

The smallest world that the engine of production runs in. There is no latency here: the owner
decides which disk operation is answered next, the oldest or one drawn from a seed. While somebody
waits for an answer and nothing is under way, time goes on to when the engine wants to be called again.
"""
from __future__ import annotations

import errno
import mmap
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from random import Random
from typing import Protocol

import numpy as np

from repstore._fast.simulated import DiskFlush, DiskRead, DiskWrite
from repstore._fast.waiting import Call
from repstore.format import BLOCK_SIZE
from repstore.sim.clock import START_NS
from repstore.sim.disk import DiskAsk, past_the_end
from repstore.sim.engine import SimulatedEngine, open_engine
from repstore.sim.expectation import ZEROS
from repstore.sim.workload import FLUSH, FUA, IO, READ, WRITE, stamped, stamps_of

VOLUME_INDEX = 1
VOLUME_UUID = bytes(range(16)).hex()
STEP_NS = 100_000             # of virtual time between two answers of the disk
STILL_NS = 60_000_000_000     # of virtual time without an answer to anybody: nothing goes on any more


class Disk(Protocol):
    """What answers an engine's disk operations."""

    @property
    def image(self) -> bytearray: ...
    def begin(self, ask: DiskAsk) -> object: ...
    def finish(self, operation: int) -> tuple[int, memoryview | None]: ...


class PlainDisk:
    """A disk that forgets nothing."""

    def __init__(self, image: bytearray) -> None:
        self.image = image
        self._flying: dict[int, DiskAsk] = {}

    def begin(self, ask: DiskAsk) -> None:
        """Take an operation on."""
        self._flying[ask.operation] = ask

    def finish(self, operation: int) -> tuple[int, memoryview | None]:
        """It is through: its result, and what a read gave."""
        ask = self._flying.pop(operation)
        if past_the_end(ask, len(self.image)):
            return -errno.EIO, None
        match ask:
            case DiskRead():
                return ask.length, memoryview(self.image)[ask.offset:ask.offset + ask.length]
            case DiskWrite():
                self.image[ask.offset:ask.offset + len(ask.data)] = ask.data
                return len(ask.data), None
            case DiskFlush():
                return 0, None


@dataclass(eq=False)
class Request:
    """One request of a workload; blocks of a write carry the stamps from `stamp` on."""
    kind: int
    first: int = 0            # block
    blocks: int = 0
    fua: bool = False
    stamp: int = ZEROS
    error: int = -1           # -1: not answered
    volume: int = VOLUME_INDEX
    memory: mmap.mmap | None = None
    ios: np.ndarray[tuple[int], np.dtype[np.void]] = field(default_factory=lambda: np.zeros(1, IO))
    call: Call | None = None

    def effects(self) -> list[tuple[int, int]]:
        """What it changes, in order: (block, stamp)."""
        if self.kind in (READ, FLUSH):
            return []
        return [(self.first + i, self.stamp + i if self.kind == WRITE else ZEROS) for i in range(self.blocks)]


class LocalVolume:
    """An opened store with one volume in it, served by a primary that has no members."""

    def __init__(self, disk: Disk, *, boot_id: bytes, life_id: int, create_blocks: int = 0,
                 random: Random | None = None,
                 on_answer: Callable[[Request], None] = lambda request: None) -> None:
        self.engine: SimulatedEngine
        self.engine, self.opened = open_engine(
            disk.image, "simulated", number=0, boot_id=boot_id, life_id=life_id)
        self._disk = disk
        self._random = random
        self._now_ns = START_NS
        self._call_again_ns = 0
        self._answered_ns = START_NS           # or asked
        self._due: list[int] = []
        self._on_answer = on_answer
        self._open: list[Request] = []
        self.engine.pump = self.pump
        self.engine.wait_for_checkpoint(1)
        if create_blocks:
            self.engine.volume_create(VOLUME_INDEX, VOLUME_UUID, "volume", create_blocks)
        self._lead()

    @property
    def size_blocks(self) -> int:
        """Blocks of the volume."""
        return self.engine.volume_state(VOLUME_INDEX).size_blocks

    def pump(self) -> bool:
        """One turn and one answer of the disk. False: nothing is under way any more."""
        busy = self._turn()
        if not self._due:
            return busy
        operation = self._due.pop(self._random.randrange(len(self._due)) if self._random else 0)
        self.engine.backend.disk_done(operation, *self._disk.finish(operation))
        return True

    def settle(self) -> None:
        """Until nothing is under way."""
        while self.pump():
            pass
        self.engine.events()
        self.engine.check_invariants()

    def idle(self, duration_ns: int) -> None:
        """Nobody asks for anything for so long."""
        until_ns = self._now_ns + duration_ns
        while self._now_ns < until_ns:
            self.pump()
        self.settle()

    def submit(self, request: Request) -> None:
        """Hand a request to the engine, and let it see it before it is handed another one."""
        request.ios["kind"], request.ios["flags"] = request.kind, FUA if request.fua else 0
        request.ios["offset"], request.ios["length"] = request.first * BLOCK_SIZE, request.blocks * BLOCK_SIZE
        request.ios["export_id"] = self.engine.exports[request.volume]
        request.memory = mmap.mmap(-1, max(1, request.blocks) * BLOCK_SIZE)
        if request.kind == WRITE:
            request.memory[:] = stamped(request.stamp, request.blocks)
        self._open.append(request)
        self._answered_ns = self._now_ns
        request.call = self.engine.start(request.ios.view(np.uint8), request.memory, 1)
        self._turn()

    def run(self, requests: Iterable[Request], depth: int = 1) -> None:
        """Have them all answered, `depth` of them under way at a time."""
        for request in requests:
            while len(self._open) >= depth:
                self._pump_on()
            self.submit(request)
        while self._open:
            self._pump_on()

    def read_all(self, volume: int = VOLUME_INDEX, blocks_a_request: int = 32,
                 stamped_bytes: int = BLOCK_SIZE) -> list[int]:
        """The stamp of every block, or sector of one; -1 for what is none of ours or cannot be read."""
        size_blocks = self.engine.volume_state(volume).size_blocks
        reads = [Request(READ, first, min(blocks_a_request, size_blocks - first), volume=volume)
                 for first in range(0, size_blocks, blocks_a_request)]
        self.run(reads, depth=8)
        found: list[int] = []
        for read in reads:
            found += self._stamps(read, stamped_bytes)
        return found

    def _stamps(self, read: Request, stamped_bytes: int = BLOCK_SIZE) -> list[int]:
        """What an answered read gave; where one of its blocks is bad, the others one by one."""
        assert read.memory is not None
        if not read.error:
            return stamps_of(read.memory[:read.blocks * BLOCK_SIZE], stamped_bytes)
        singles = [Request(READ, read.first + i, 1, volume=read.volume) for i in range(read.blocks)]
        if len(singles) == 1:
            return [-1] * (BLOCK_SIZE // stamped_bytes)
        self.run(singles, depth=8)
        return [stamp for single in singles for stamp in self._stamps(single, stamped_bytes)]

    def _turn(self) -> bool:
        """Whether the engine wants another one at once."""
        self._now_ns += STEP_NS
        self._call_again_ns, busy = self.engine.backend.turn(self._now_ns)
        for ask in self.engine.backend.take():
            assert isinstance(ask, DiskRead | DiskWrite | DiskFlush), f"an engine without peers asks {ask}"
            self._disk.begin(ask)
            self._due.append(ask.operation)
        self._collect()
        return busy

    def _lead(self) -> None:
        """Lead every copy alone."""
        for index in self.engine.volume_indexes():
            state = self.engine.volume_state(index)
            epoch, session = max(state.epoch, state.sealed_epoch) + 1, state.session + 1
            self.engine.lead(index, epoch, 1, [], 1, 1, False, session)
            self.engine.export_install(index, state.name, state.size_blocks * BLOCK_SIZE, session)
            self.engine.set_primary(index, 0, epoch)

    def _pump_on(self) -> None:
        if self.pump() or not self._open or self.pump():
            return
        if not self._call_again_ns or self._now_ns > self._answered_ns + STILL_NS:
            raise AssertionError(f"{len(self._open)} requests are not answered and nothing is under way")
        self._now_ns = max(self._now_ns, self._call_again_ns)

    def _collect(self) -> None:
        for request in [request for request in self._open if request.call and request.call.done]:
            assert request.call is not None
            request.call.end()
            request.error = int(request.ios["error"][0])
            self._open.remove(request)
            self._answered_ns = self._now_ns
            self._on_answer(request)
