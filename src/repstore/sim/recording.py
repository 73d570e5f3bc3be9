"""What a workload asked of its disk, in order: the input of `crash_states`.

Any workload on any backend can be recorded: the image it began with, then every write and
flush as it begins and as it ends, and notes of whoever has to judge the states that follow.
"""
from __future__ import annotations

from dataclasses import dataclass, field

from repstore._fast.simulated import DiskFlush, DiskWrite
from repstore.sim.disk import DiskAsk
from repstore.sim.local import PlainDisk


@dataclass(frozen=True, slots=True)
class WriteBegun:
    """`data` is on its way to `offset`; `number` counts the writes of a recording."""
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
    """An image, of which all is durable, and what was done to it since."""
    image: bytes
    entries: list[Entry] = field(default_factory=list)

    def note(self, what: object) -> None:
        """Something happened between two entries."""
        self.entries.append(Note(what))

    def writes(self) -> dict[int, WriteBegun]:
        """All writes by number, in the order they began."""
        return {entry.number: entry for entry in self.entries if isinstance(entry, WriteBegun)}


class RecordingDisk(PlainDisk):
    """A disk that forgets nothing and writes down everything, from `begin_recording` on."""

    def __init__(self, image: bytearray) -> None:
        super().__init__(image)
        self.recording: Recording | None = None
        self._numbers: dict[int, int] = {}        # by operation: number of its write or flush
        self._next = 0

    def begin_recording(self) -> Recording:
        """Nothing may be under way: what is there now counts as durable."""
        assert not self._flying, f"{len(self._flying)} disk operations are under way"
        self.recording = Recording(bytes(self.image))
        return self.recording

    def begin(self, ask: DiskAsk) -> None:
        super().begin(ask)
        if self.recording is None or not isinstance(ask, DiskWrite | DiskFlush):
            return
        self._next += 1
        self._numbers[ask.operation] = self._next
        self.recording.entries.append(WriteBegun(self._next, ask.offset, ask.data)
                                      if isinstance(ask, DiskWrite) else FlushBegun(self._next))

    def finish(self, operation: int) -> tuple[int, memoryview | None]:
        is_write = isinstance(self._flying[operation], DiskWrite)
        number = self._numbers.pop(operation, None)
        if self.recording is not None and number is not None:
            self.recording.entries.append(WriteDone(number) if is_write else FlushDone(number))
        return super().finish(operation)
