"""A volume of production's engine whose disk is recorded, and what is promised about it.

    volume = RecordedVolume(store_bytes=MIB, segment_bytes=64 * KIB, size_blocks=64, seed=7)
    volume.begin_recording()
    volume.run([write(0, 4), write(2, 4), flush(), trim(1, 2)], depth=2)
    assert volume.check(second_crashes=4).faults == ()

Its content is the stamp of every block; a write of several blocks takes effect block by block.
The rules are those of `crash_check`; to go on means that the engine's invariants hold and a
write is taken and given back. The engine answers a reader only after the first checkpoint of
its life is durable.
"""
from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from random import Random

from repstore import config, errors
from repstore.sim.crash_check import CrashReport, Ledger, check_crashes
from repstore.sim.crash_states import SAMPLES, SUBSET_LIMIT
from repstore.sim.expectation import ZEROS
from repstore.sim.local import LocalVolume, Request
from repstore.sim.recording import Recording, RecordingDisk
from repstore.sim.workload import FLUSH, READ, TRIM, WRITE, WRITE_ZEROES
from repstore.store import geometry
from repstore.store.device import MemoryDevice
from repstore.store.store import format_device

STORE_UUID = bytes(range(16))
LAST_STAMP = 2**63            # of the write that tries a store after a crash
COLLECT_LIVES = 128           # a life is a cycle of objects around megabytes that the collector does not see


def boot_id(boot: int) -> bytes:
    """The machine's, after so many power cuts."""
    return boot.to_bytes(12, "big") + bytes(4)


def write(first: int, blocks: int = 1, *, fua: bool = False) -> Request:
    """Write blocks; their stamps are given when it is run."""
    return Request(WRITE, first, blocks, fua)


def trim(first: int, blocks: int) -> Request:
    """Give blocks back."""
    return Request(TRIM, first, blocks)


def write_zeroes(first: int, blocks: int) -> Request:
    """Make blocks read as zeros."""
    return Request(WRITE_ZEROES, first, blocks)


def flush() -> Request:
    """Make durable what was answered."""
    return Request(FLUSH)


class RecordedVolume:
    """A small store in memory with one volume of one copy, made anew."""

    def __init__(self, *, store_bytes: int = config.MIB, segment_bytes: int = 64 * config.KIB,
                 size_blocks: int, seed: int | None = None) -> None:
        """`seed` draws which disk operation is answered next; None: the oldest one."""
        self.geometry = geometry.choose(config.StoreOptions(store_bytes, segment_bytes))
        self.disk = RecordingDisk(bytearray(self.geometry.size_bytes))
        format_device(MemoryDevice(self.disk.image), self.geometry,
                      store_uuid=STORE_UUID, boot_id=boot_id(0))
        self.ledger: Ledger | None = None
        self._content = (ZEROS,) * size_blocks
        self._last_stamp = 0
        self._operations: dict[Request, int] = {}     # those under way, by the ledger's number
        self._random = None if seed is None else Random(seed)
        self._lives = 0
        self.local = self._open(self.disk, create_blocks=size_blocks)

    @property
    def content(self) -> tuple[int, ...]:
        """The stamp of every block when all that was asked for has taken effect, in that order."""
        return self._content

    @property
    def recording(self) -> Recording:
        """What was recorded; `begin_recording` comes first."""
        return self._ledger().recording

    def begin_recording(self) -> Ledger:
        """Flush, wait until nothing is under way, and record from here on."""
        self.run([flush()])
        self.local.settle()
        self.ledger = Ledger(self.disk.begin_recording(), self._content)
        return self.ledger

    def run(self, requests: Iterable[Request], depth: int = 1) -> None:
        """Have requests answered, `depth` at a time. StoreFailedError for one that failed."""
        asked = list(requests)
        self.local.run((self._ask(request) for request in asked), depth)
        for request in asked:
            if request.error:
                raise errors.StoreFailedError(f"{request} ended with errno {request.error}")

    def checkpoint(self) -> None:
        """Have a checkpoint made."""
        self.local.engine.settle()

    def kill_and_open(self) -> None:
        """The process ends when nothing is under way, and another one opens the store."""
        self.local.settle()
        self.local = self._open(self.disk)

    def check(self, *, every: int = 1, second_crashes: int = 0, subset_limit: int = SUBSET_LIMIT,
              samples: int = SAMPLES, seed: int = 0) -> CrashReport:
        """`crash_check.check_crashes` of what was recorded."""
        return check_crashes(self._ledger(), self.reopen, every=every, second_crashes=second_crashes,
                             subset_limit=subset_limit, samples=samples, seed=seed)

    @contextmanager
    def reopen(self, recording: Recording, boot: int) -> Iterator[tuple[int, ...]]:
        """A process on what a crash left: every block's stamp; then it takes a write."""
        self._lives += 1
        local = LocalVolume(RecordingDisk(recording.found(), recording), boot_id=boot_id(boot),
                            life_id=self._lives)
        yield tuple(local.read_all())
        last = Request(WRITE, local.size_blocks - 1, 1, fua=True, stamp=LAST_STAMP)
        local.run([last])
        found = local.read_all()[-1]
        if last.error or found != LAST_STAMP:
            raise errors.StoreFailedError(f"a write after the crash: errno {last.error}, reads as {found}")
        local.settle()
        if self._lives % COLLECT_LIVES == 0:
            gc.collect()

    def _open(self, disk: RecordingDisk, create_blocks: int = 0) -> LocalVolume:
        self._lives += 1
        return LocalVolume(disk, boot_id=boot_id(0), life_id=self._lives, create_blocks=create_blocks,
                           random=self._random, on_answer=self._answered)

    def _ledger(self) -> Ledger:
        if self.ledger is None:
            raise errors.ConfigError("nothing is recorded: begin_recording comes first")
        return self.ledger

    def _ask(self, request: Request) -> Request:
        """It is about to be handed to the engine: its stamps, and what it will lead to."""
        request.stamp = self._last_stamp + 1
        states = []
        for block, stamp in request.effects():
            self._content = (*self._content[:block], stamp, *self._content[block + 1:])
            states.append(self._content)
        self._last_stamp += len(states)
        if self.ledger is not None and request.kind != READ:
            self._operations[request] = self.ledger.asked(*states, durable=request.fua)
        return request

    def _answered(self, request: Request) -> None:
        operation = self._operations.pop(request, None)
        if self.ledger is not None and operation is not None and not request.error:
            self.ledger.answered(operation)
