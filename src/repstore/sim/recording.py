"""What a workload asked of its disk, in order: the input of `crash_states`.

Any workload on any backend can be recorded: the image it began with, then every write and
flush as it begins and as it ends, and notes of whoever has to judge the states that follow.

    RecordingDevice    for a store that lies on `store.device.Device` (read, write, flush)
    RecordingDisk      for the engine of production, whose disk answers later
    Recording          for every other backend: its four verbs are called beside the real ones

Nothing here is safe to call from several threads at once: order is what is recorded.
"""
from __future__ import annotations

from dataclasses import dataclass, field

from repstore import errors
from repstore._fast.simulated import DiskFlush, DiskWrite
from repstore.sim.disk import DiskAsk
from repstore.sim.local import PlainDisk
from repstore.store.device import Bytes, MemoryDevice

RECORDED_WRITES_MAX = 2048      # more have more states than anybody can open


@dataclass(frozen=True, slots=True)
class WriteBegun:
    """`data` is on its way to `offset`; `number` counts the writes and flushes of a recording."""
    number: int
    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class WriteDone:
    """That write was answered: it is in the disk's cache."""
    number: int


@dataclass(frozen=True, slots=True)
class FlushBegun:
    """Everything answered so far is to be made durable."""
    number: int


@dataclass(frozen=True, slots=True)
class FlushDone:
    """That flush was answered: what it covers is durable."""
    number: int


@dataclass(frozen=True, slots=True)
class Note:
    """Something that happened just then, for whoever judges: an answer to a client."""
    what: object


Entry = WriteBegun | WriteDone | FlushBegun | FlushDone | Note


@dataclass
class Recording:
    """An image, of which all is durable, and what was done to it since.

    The image is copied: a backend may go on changing what it hands over. The first `past`
    entries had happened before the workload began: crashes come after them.
    Raises ConfigError for what no disk can be asked: a write past the image's end, an answer
    to what is not under way, more than RECORDED_WRITES_MAX writes and flushes.
    """
    image: bytes
    entries: list[Entry] = field(default_factory=list)
    past: int = 0
    _number: int = 0                                        # the last one given
    _flying: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        # a workload changes its backend's own bytearray, and every crash state would have it all
        self.image = bytes(self.image)

    def write_begun(self, offset: int, data: Bytes) -> int:
        """A write is handed to the disk; gives its number."""
        if not 0 <= offset <= len(self.image) - len(data):
            raise errors.ConfigError(
                f"write of {len(data)} bytes at {offset}: the image has {len(self.image)}")
        if self._number >= RECORDED_WRITES_MAX:
            raise errors.ConfigError(
                f"more than {RECORDED_WRITES_MAX} writes and flushes: record a shorter workload")
        number = self._begin()
        self.entries.append(WriteBegun(number, offset, bytes(data)))
        return number

    def write_done(self, number: int) -> None:
        """The disk answered that write, and it was whole."""
        self._end(number)
        self.entries.append(WriteDone(number))

    def flush_begun(self) -> int:
        """A flush is handed to the disk; gives its number."""
        number = self._begin()
        self.entries.append(FlushBegun(number))
        return number

    def flush_done(self, number: int) -> None:
        """The disk answered that flush, without an error."""
        self._end(number)
        self.entries.append(FlushDone(number))

    def note(self, what: object) -> None:
        """Something happened between two entries."""
        self.entries.append(Note(what))

    def writes(self) -> dict[int, WriteBegun]:
        """All writes by number, in the order they began."""
        return {entry.number: entry for entry in self.entries if isinstance(entry, WriteBegun)}

    def found(self) -> bytearray:
        """What a process reads that opens the disk now: every write that was answered."""
        image, writes = bytearray(self.image), self.writes()
        done = {entry.number for entry in self.entries if isinstance(entry, WriteDone)}
        for number, write in writes.items():
            if number in done:
                image[write.offset:write.offset + len(write.data)] = write.data
        return image

    def _begin(self) -> int:
        self._number += 1
        self._flying.add(self._number)
        return self._number

    def _end(self, number: int) -> None:
        if number not in self._flying:
            raise errors.ConfigError(f"write or flush {number} is not under way")
        self._flying.remove(number)


class RecordingDevice(MemoryDevice):
    """A device in memory that writes down what it is asked: one thing after the other."""

    def __init__(self, recording: Recording) -> None:
        super().__init__(recording.found())
        self.recording = recording

    def write(self, offset: int, data: Bytes) -> None:
        number = self.recording.write_begun(offset, data)
        super().write(offset, data)
        self.recording.write_done(number)

    def flush(self) -> None:
        self.recording.flush_done(self.recording.flush_begun())


class RecordingDisk(PlainDisk):
    """A disk of the engine that forgets nothing and writes down everything, once it has a recording."""

    def __init__(self, image: bytearray, recording: Recording | None = None) -> None:
        super().__init__(image)
        self.recording = recording
        self._numbers: dict[int, int] = {}        # by operation: number of its write or flush

    def begin_recording(self) -> Recording:
        """Nothing may be under way: what is there now counts as durable."""
        if self._flying:
            raise errors.BusyError(f"{len(self._flying)} disk operations are under way")
        self.recording = Recording(bytes(self.image))
        return self.recording

    def begin(self, ask: DiskAsk) -> None:
        super().begin(ask)
        if self.recording is None:
            return
        if isinstance(ask, DiskWrite):
            self._numbers[ask.operation] = self.recording.write_begun(ask.offset, ask.data)
        elif isinstance(ask, DiskFlush):
            self._numbers[ask.operation] = self.recording.flush_begun()

    def finish(self, operation: int) -> tuple[int, memoryview | None]:
        is_write = isinstance(self._flying[operation], DiskWrite)
        number = self._numbers.pop(operation, None)
        if self.recording is not None and number is not None:
            (self.recording.write_done if is_write else self.recording.flush_done)(number)
        return super().finish(operation)
