"""Every disk image that a crash may leave of a recorded workload.

    recording = ...                                    # see `recording`
    for state in crash_states(recording):
        reopen(state.image(recording)) and judge it by what had happened before state.position

Two kinds of crash, at every point of the recording:

  kill -9     writes that were answered are there; of those under way any subset
  power cut   writes that a later flush covered are there; of all others any subset

  S1 Subsets are exhaustive up to `subset_limit` unsure writes. Beyond it the newest that many
     are, with the older ones all there; besides, every prefix, every single write missing,
     and every single one alone.
  S2 One unsure write is cut at each 512 bytes, with the others all there or none.
  S3 A state that several points can leave is given once, with the latest of them: by then the
     most had been promised. So what holds for it holds for the earlier points as well.
  S4 Of two writes to one place the later one to begin wins, if it is there.
"""
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain, combinations

from repstore.sim.disk import SECTOR_BYTES
from repstore.sim.recording import (
    FlushBegun,
    FlushDone,
    Recording,
    WriteBegun,
    WriteDone,
)

SUBSET_LIMIT = 8


@dataclass(frozen=True, slots=True)
class CrashState:
    """One image: which writes are there, and of one of them perhaps only the beginning."""
    position: int             # entries of the recording that had happened
    power_lost: bool
    there: frozenset[int]     # numbers of the writes that are whole
    torn: int = 0             # number of the write that is cut; 0: none
    torn_bytes: int = 0       # of it that are there

    def image(self, recording: Recording) -> bytearray:
        """The disk as it would be found."""
        found = bytearray(recording.image)
        for number, write in recording.writes().items():
            if number in self.there:
                found[write.offset:write.offset + len(write.data)] = write.data
            elif number == self.torn:
                found[write.offset:write.offset + self.torn_bytes] = write.data[:self.torn_bytes]
        return found

    def __str__(self) -> str:
        how = "power cut" if self.power_lost else "kill"
        torn = f", write {self.torn} cut at {self.torn_bytes}" if self.torn else ""
        return f"{how} after entry {self.position}: writes {sorted(self.there)} there{torn}"


@dataclass(frozen=True, slots=True)
class Moment:
    """A point at which something unsure is about to become sure."""
    position: int
    power_lost: bool
    sure: frozenset[int]
    unsure: tuple[WriteBegun, ...]       # in the order they began


def crash_states(recording: Recording, subset_limit: int = SUBSET_LIMIT) -> Iterator[CrashState]:
    """All states of the module's rules, each once, those of the last points first (S3)."""
    seen: set[tuple[bool, frozenset[int], int, int]] = set()
    for moment in reversed(list(_moments(recording))):
        for there, torn, torn_bytes in chain(_whole(moment, subset_limit), _cut(moment)):
            key = (moment.power_lost, there, torn, torn_bytes)
            if key not in seen:
                seen.add(key)
                yield CrashState(moment.position, moment.power_lost, there, torn, torn_bytes)


@dataclass
class _Progress:
    """How far a recording has come, entry by entry."""
    begun: list[WriteBegun] = field(default_factory=list)
    done: set[int] = field(default_factory=set)
    durable: set[int] = field(default_factory=set)
    covered: dict[int, frozenset[int]] = field(default_factory=dict)      # by flush

    def moment(self, position: int, power_lost: bool) -> Moment:
        sure = frozenset(self.durable if power_lost else self.done)
        unsure = tuple(write for write in self.begun if write.number not in sure)
        return Moment(position, power_lost, sure, unsure)


def _moments(recording: Recording) -> Iterator[Moment]:
    """Just before each answer, and at the end: in between the possible states only grow."""
    progress = _Progress()
    for position, entry in enumerate(recording.entries):
        match entry:
            case WriteBegun():
                progress.begun.append(entry)
            case WriteDone():
                yield progress.moment(position, power_lost=False)
                progress.done.add(entry.number)
            case FlushBegun():
                progress.covered[entry.number] = frozenset(progress.done)
            case FlushDone():
                yield progress.moment(position, power_lost=True)
                progress.durable |= progress.covered.pop(entry.number)
    yield progress.moment(len(recording.entries), power_lost=False)
    yield progress.moment(len(recording.entries), power_lost=True)


def _whole(moment: Moment, limit: int) -> Iterator[tuple[frozenset[int], int, int]]:
    """Subsets of the unsure writes (S1)."""
    numbers = [write.number for write in moment.unsure]
    older, newest = numbers[:-limit], numbers[-limit:]
    for count in range(len(newest) + 1):
        for chosen in combinations(newest, count):
            yield moment.sure.union(older, chosen), 0, 0
    for i, number in enumerate(numbers if older else ()):
        yield moment.sure.union(numbers[:i]), 0, 0
        yield moment.sure.union(numbers[:i], numbers[i + 1:]), 0, 0
        yield moment.sure | {number}, 0, 0


def _cut(moment: Moment) -> Iterator[tuple[frozenset[int], int, int]]:
    """One write cut, the others all there or none (S2)."""
    everything = moment.sure.union(write.number for write in moment.unsure)
    for write in moment.unsure:
        for torn_bytes in range(SECTOR_BYTES, len(write.data), SECTOR_BYTES):
            yield everything - {write.number}, write.number, torn_bytes
            if len(moment.unsure) > 1:
                yield moment.sure, write.number, torn_bytes
