"""A volume whose disk is recorded, and the judge of what a crash may leave of it.

    volume = RecordedVolume(store_bytes=MIB, segment_bytes=64 * KIB, size_blocks=64, seed=7)
    volume.begin_recording()
    volume.run([write(0, 4), write(2, 4), flush(), trim(1, 2)], depth=2)
    for state in crash_states(volume.recording):
        assert volume.judge(state) == ""

What is found must be the state after some prefix of the requests, block by block, and
  J1 after a power cut that prefix holds everything that a flush or FUA write was answered for (D1)
  J2 after a kill it holds everything that was answered (D2)
  J3 every block is one that was written, or zeros; nothing newer without what came before it (D3)
  J4 the store opens without a fault, its invariants hold, it takes a write, and opens again
"""
from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from random import Random

from repstore import config, errors
from repstore.format import BLOCK_SIZE
from repstore.sim.crash_states import CrashState
from repstore.sim.expectation import ZEROS
from repstore.sim.local import LocalVolume, PlainDisk, Request
from repstore.sim.recording import Note, Recording, RecordingDisk
from repstore.sim.workload import FLUSH, READ, TRIM, WRITE, WRITE_ZEROES, stamps_of
from repstore.store import geometry
from repstore.store.device import MemoryDevice
from repstore.store.store import format_device

BOOT_ID = b"boot of the test"
NEXT_BOOT_ID = b"boot after power"
STORE_UUID = bytes(range(16))
LAST_STAMP = 2**63            # of the write that tries a store after a crash


@dataclass(frozen=True, slots=True)
class Asked:
    """A request was handed to the engine."""
    request: int


@dataclass(frozen=True, slots=True)
class Answered:
    """A request was answered, without an error."""
    request: int


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
        layout = geometry.choose(config.StoreOptions(store_bytes, segment_bytes))
        self.disk = RecordingDisk(bytearray(layout.size_bytes))
        format_device(MemoryDevice(self.disk.image), layout, store_uuid=STORE_UUID, boot_id=BOOT_ID)
        self.size_blocks = size_blocks
        self._requests: list[Request] = []
        self._numbers: dict[int, int] = {}            # by identity of a request
        self._ends: list[int] = []                    # effects up to and with each request
        self._effects: list[tuple[int, int]] = []
        self._random = None if seed is None else Random(seed)
        self._lives = 0
        self.local = self._open(create_blocks=size_blocks)

    @property
    def recording(self) -> Recording:
        """What was recorded; `begin_recording` comes first."""
        assert self.disk.recording is not None
        return self.disk.recording

    def begin_recording(self) -> Recording:
        """Flush, wait until nothing is under way, and record from here on."""
        self.run([flush()])
        self.local.settle()
        return self.disk.begin_recording()

    def run(self, requests: Iterable[Request], depth: int = 1) -> None:
        """Have requests answered, `depth` at a time; any error is one of ours."""
        asked = [self._number(request) for request in requests]
        self.local.run((self._ask(request) for request in asked), depth)
        for request in asked:
            assert request.error == 0, f"{request} ended with errno {request.error}"

    def checkpoint(self) -> None:
        """Have a checkpoint made."""
        self.local.engine.settle()

    def kill_and_open(self) -> None:
        """The process ends when nothing is under way, and another one opens the store."""
        self.local.settle()
        self.local = self._open()

    def judge(self, state: CrashState) -> str:
        """What is wrong with this state, or an empty string."""
        disk = PlainDisk(state.image(self.recording))
        boot_id = NEXT_BOOT_ID if state.power_lost else BOOT_ID
        try:
            local = LocalVolume(disk, boot_id=boot_id, life_id=self._lives + 1)
            found = local.read_all()
            fault = self._compare(found, self._promised(state)) or _go_on(local)
            local.settle()
            fault = fault or _open_again(disk, boot_id, self._lives + 2)
        except (errors.RepstoreError, AssertionError) as error:
            return f"{state}: {error} (J4)"
        return fault and f"{state}: {fault}"

    # ------------------------------------------------------------------------------ running
    def _open(self, create_blocks: int = 0) -> LocalVolume:
        self._lives += 1
        return LocalVolume(self.disk, boot_id=BOOT_ID, life_id=self._lives, create_blocks=create_blocks,
                           random=self._random, on_answer=self._answered)

    def _number(self, request: Request) -> Request:
        request.stamp = len(self._effects) + 1
        self._numbers[id(request)] = len(self._requests)
        self._requests.append(request)
        self._effects += request.effects()
        self._ends.append(len(self._effects))
        return request

    def _ask(self, request: Request) -> Request:
        if self.disk.recording is not None:
            self.recording.note(Asked(self._numbers[id(request)]))
        return request

    def _answered(self, request: Request) -> None:
        number = self._numbers.get(id(request))
        if self.disk.recording is not None and number is not None:
            self.recording.note(Answered(number))

    # ------------------------------------------------------------------------------ judging
    def _promised(self, state: CrashState) -> int:
        """How many effects must be there (J1, J2)."""
        before = next((note.what.request for note in self.recording.entries
                       if isinstance(note, Note) and isinstance(note.what, Asked)), len(self._requests))
        answered = durable = self._ends[before - 1] if before else 0
        covered: dict[int, int] = {}                  # by flush request
        for entry in self.recording.entries[:state.position]:
            match entry:
                case Note(Asked(number)):
                    covered[number] = answered
                case Note(Answered(number)):
                    request = self._requests[number]
                    if request.kind == FLUSH:
                        durable = max(durable, covered[number])
                        continue
                    answered = max(answered, self._ends[number])
                    if request.fua:
                        durable = max(durable, self._ends[number])
        return durable if state.power_lost else answered

    def _compare(self, found: list[int], promised: int) -> str:
        """Is this the state after some prefix, and after enough of them?"""
        expected = [ZEROS] * self.size_blocks
        longest = 0 if found == expected else -1
        for count, (block, stamp) in enumerate(self._effects, 1):
            expected[block] = stamp
            if found == expected:
                longest = count
        if longest < 0:
            return f"{found} is not the state after any prefix of the requests (J3)"
        if longest < promised:
            return f"{longest} effects of {len(self._effects)} are there, {promised} were promised (J1, J2)"
        return ""


def _go_on(local: LocalVolume) -> str:
    """The store must take a write, and give it back (J4)."""
    last = Request(WRITE, local.size_blocks - 1, 1, fua=True, stamp=LAST_STAMP)
    local.run([last])
    found = local.read_all()[-1]
    if last.error or found != LAST_STAMP:
        return f"a write after the crash: errno {last.error}, reads as {found} (J4)"
    return ""


def _open_again(disk: PlainDisk, boot_id: bytes, life_id: int) -> str:
    """What an older life left on the disk must not come back when the next one ends (J4)."""
    local = LocalVolume(PlainDisk(disk.image), boot_id=boot_id, life_id=life_id)
    last = Request(READ, local.size_blocks - 1, 1)
    local.run([last])
    assert last.memory is not None
    found = stamps_of(last.memory[:BLOCK_SIZE])
    if last.error or found != [LAST_STAMP]:
        return f"opened again: errno {last.error}, the last write reads as {found} (J4)"
    return ""
