"""Every disk image that a crash may leave of a recorded workload.

    recording = ...                                    # see `recording`
    for state in crash_states(recording):
        reopen(state.image(recording)) and judge it by what had happened before state.position

`crash_check` does the loop and the judging. Two kinds of crash, at every point of the recording:

  kill -9     writes that were answered are there; of those under way any subset
  power cut   writes that a later flush covered are there; of all others any subset

  S1 Subsets are exhaustive up to `subset_limit` unsure writes. Beyond it the newest that many
     are, with the older ones all there; every prefix, every single write missing, every single
     one alone; and `samples` subsets drawn from the seed, their writes torn at random too.
  S2 One unsure write is cut at each 512 bytes, its beginning or its end there, with the others
     all there or none.
  S3 A state that several points can leave is given once, with the latest of them: by then the
     most had been promised. So what holds for it holds for the earlier points as well.
  S4 Of two writes to one place the later one to begin wins, if it is there.
  S5 The same recording, limits and seed give the same states in the same order.

The bounds follow CrashMonkey (OSDI'18): short workloads, every point, beat long ones.
"""
from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain, combinations
from random import Random

from repstore import errors
from repstore.sim.disk import SECTOR_BYTES
from repstore.sim.recording import (
    Entry,
    FlushBegun,
    FlushDone,
    Recording,
    WriteBegun,
    WriteDone,
)

SUBSET_LIMIT = 8
SUBSET_LIMIT_MAX = 16           # 65,536 subsets at every point
SAMPLES = 32
SAMPLED_TORN_SHARE = 0.2        # of the writes of a drawn subset
NAMED_MAX = 6                   # writes of one fate that a state is told with

# writes that are whole, as bits by number; of torn ones the sectors, as bits
Part = tuple[int, tuple[tuple[int, int], ...]]


@dataclass(frozen=True, slots=True)
class CrashState:
    """One image: which writes are there, and of some perhaps only a few sectors."""
    position: int                             # entries of the recording that had happened
    power_lost: bool
    whole: int                                # bit n: write n is there
    torn: tuple[tuple[int, int], ...] = ()    # (write, its sectors of 512 bytes that are there, as bits)

    @property
    def there(self) -> frozenset[int]:
        """Numbers of the writes that are whole."""
        return frozenset(number for number in range(self.whole.bit_length()) if self.whole >> number & 1)

    def image(self, recording: Recording) -> bytearray:
        """The disk as it would be found."""
        found = bytearray(recording.image)
        for piece in self._pieces(recording):
            found[piece.offset:piece.offset + len(piece.data)] = piece.data
        return found

    def next_life(self, recording: Recording) -> Recording:
        """The recording on which a process goes on that finds this state (S6).

        S6 What a power cut left is durable. What a kill left may still be lost with the power,
           unless a flush had covered it: those writes are the next recording's past.
        """
        if self.power_lost:
            return Recording(bytes(self.image(recording)))
        durable = _progress(recording.entries[:self.position]).durable
        following = Recording(recording.image)
        numbers = [(following.write_begun(piece.offset, piece.data), durable >> piece.number & 1)
                   for piece in self._pieces(recording)]
        for number in [number for number, is_durable in numbers if is_durable]:
            following.write_done(number)
        following.flush_done(following.flush_begun())
        for number in [number for number, is_durable in numbers if not is_durable]:
            following.write_done(number)
        following.past = len(following.entries)
        return following

    def _pieces(self, recording: Recording) -> Iterator[WriteBegun]:
        """What is there of every write, in the order they began (S4)."""
        torn = dict(self.torn)
        for number, write in recording.writes().items():
            if self.whole >> number & 1:
                yield write
            sectors = torn.get(number, 0)
            for sector in range(sectors.bit_length()):
                if sectors >> sector & 1:
                    at = sector * SECTOR_BYTES
                    yield WriteBegun(number, write.offset + at, write.data[at:at + SECTOR_BYTES])

    def told(self, recording: Recording) -> str:
        """How the disk came to be so, in words: when, and what became of each write that was not sure.

        Numbers of writes and flushes are those that the recording gave.
        """
        progress = _progress(recording.entries[:self.position])
        moment = progress.moment(self.position, self.power_lost)
        there, part, missing, torn = list[str](), list[str](), list[str](), dict(self.torn)
        for write in moment.unsure:
            name = f"write {write.number} ({len(write.data)} bytes at {write.offset}"
            if self.whole >> write.number & 1:
                there.append(f"{name})")
            elif torn.get(write.number):
                part.append(f"{name}: sectors {_ranges(torn[write.number])} of {_sectors(write)})")
            else:
                missing.append(f"{name})")
        fates = {"there": there, "in part": part, "missing": missing}
        told = [f"{fate}: {_listed(names)}" for fate, names in fates.items() if names]
        sure = f"{moment.sure.bit_count()} of {len(progress.begun)} writes "
        sure += "durable" if self.power_lost else "answered"
        return "; ".join([f"{self._how} {self._when(recording)}, {sure}", *told])

    @property
    def _how(self) -> str:
        return "power cut" if self.power_lost else "kill"

    def _when(self, recording: Recording) -> str:
        match recording.entries[self.position:self.position + 1]:
            case [WriteDone(number)]:
                return f"before the answer of write {number} (entry {self.position})"
            case [FlushDone(number)]:
                return f"before the answer of flush {number} (entry {self.position})"
            case []:
                return f"at the end (after {self.position} entries)"
        return f"before entry {self.position}"

    def __str__(self) -> str:
        torn = "".join(f", of write {number} sectors {_ranges(sectors)}" for number, sectors in self.torn)
        return f"{self._how} before entry {self.position}: writes {sorted(self.there)} there{torn}"


@dataclass(frozen=True, slots=True)
class Moment:
    """A point at which something unsure is about to become sure."""
    position: int
    power_lost: bool
    sure: int                            # writes, as bits by number
    unsure: tuple[WriteBegun, ...]       # in the order they began


def crash_states(recording: Recording, subset_limit: int = SUBSET_LIMIT, *, samples: int = SAMPLES,
                 seed: int = 0) -> Iterator[CrashState]:
    """All states of the module's rules, each once, those of the last points first (S3).

    `subset_limit` 1 to SUBSET_LIMIT_MAX; `samples` a point beyond it, 0 or more. ConfigError else.
    """
    if not 1 <= subset_limit <= SUBSET_LIMIT_MAX:
        raise errors.ConfigError(f"subset_limit {subset_limit}: must be 1 to {SUBSET_LIMIT_MAX}")
    if samples < 0:
        raise errors.ConfigError(f"samples {samples}: must be 0 or more")
    return _states(recording, subset_limit, samples, Random(seed))


def _states(recording: Recording, subset_limit: int, samples: int, random: Random) -> Iterator[CrashState]:
    seen: set[tuple[bool, Part]] = set()
    for moment in reversed(list(_moments(recording))):
        drawn = _drawn(moment, samples, random) if len(moment.unsure) > subset_limit else ()
        for part in chain(_whole(moment, subset_limit), _cut(moment), drawn):
            if (moment.power_lost, part) not in seen:
                seen.add((moment.power_lost, part))
                yield CrashState(moment.position, moment.power_lost, *part)


@dataclass
class _Progress:
    """How far a recording has come, entry by entry; sets of writes are bits by number."""
    begun: list[WriteBegun] = field(default_factory=list)
    done: int = 0
    durable: int = 0
    covered: dict[int, int] = field(default_factory=dict)      # by flush

    def take(self, entry: Entry) -> None:
        match entry:
            case WriteBegun():
                self.begun.append(entry)
            case WriteDone():
                self.done |= 1 << entry.number
            case FlushBegun():
                self.covered[entry.number] = self.done
            case FlushDone():
                self.durable |= self.covered.pop(entry.number)

    def moment(self, position: int, power_lost: bool) -> Moment:
        sure = self.durable if power_lost else self.done
        unsure = tuple(write for write in self.begun if not sure >> write.number & 1)
        return Moment(position, power_lost, sure, unsure)


def _progress(entries: Iterable[Entry]) -> _Progress:
    progress = _Progress()
    for entry in entries:
        progress.take(entry)
    return progress


def _moments(recording: Recording) -> Iterator[Moment]:
    """Just before each answer, and at the end: in between the possible states only grow."""
    progress = _Progress()
    for position, entry in enumerate(recording.entries):
        if position >= recording.past and isinstance(entry, WriteDone | FlushDone):
            yield progress.moment(position, power_lost=isinstance(entry, FlushDone))
        progress.take(entry)
    yield progress.moment(len(recording.entries), power_lost=False)
    yield progress.moment(len(recording.entries), power_lost=True)


def _whole(moment: Moment, limit: int) -> Iterator[Part]:
    """Subsets of the unsure writes (S1)."""
    bits = [1 << write.number for write in moment.unsure]
    older, newest = bits[:-limit], bits[-limit:]
    base = moment.sure | sum(older)
    for count in range(len(newest) + 1):
        for chosen in combinations(newest, count):
            yield base | sum(chosen), ()
    everything = moment.sure | sum(bits)
    before = moment.sure
    for bit in bits if older else ():
        yield before, ()
        yield everything & ~bit, ()
        yield moment.sure | bit, ()
        before |= bit


def _cut(moment: Moment) -> Iterator[Part]:
    """One write cut, the others all there or none (S2)."""
    everything = moment.sure | sum(1 << write.number for write in moment.unsure)
    for write in moment.unsure:
        count = _sectors(write)
        for cut in range(1, count):
            beginning = (1 << cut) - 1
            for sectors in (beginning, (1 << count) - 1 & ~beginning):
                yield everything & ~(1 << write.number), ((write.number, sectors),)
                if len(moment.unsure) > 1:
                    yield moment.sure, ((write.number, sectors),)


def _drawn(moment: Moment, samples: int, random: Random) -> Iterator[Part]:
    """Subsets by chance, from hardly anything to nearly all, with torn writes in them (S1)."""
    for _ in range(samples):
        share, whole, torn = random.random(), moment.sure, []
        for write in moment.unsure:
            if random.random() >= share:
                continue
            if random.random() < SAMPLED_TORN_SHARE:
                torn.append((write.number, random.getrandbits(_sectors(write))))
            else:
                whole |= 1 << write.number
        yield whole, tuple(torn)


def _sectors(write: WriteBegun) -> int:
    return -(-len(write.data) // SECTOR_BYTES)


def _ranges(bits: int) -> str:
    """Those that are set: 0-2, 5."""
    numbers = [number for number in range(bits.bit_length()) if bits >> number & 1]
    firsts = [number for number in numbers if number - 1 not in numbers]
    lasts = [number for number in numbers if number + 1 not in numbers]
    return ", ".join(f"{first}-{last}" if last > first else f"{first}"
                     for first, last in zip(firsts, lasts, strict=True))


def _listed(names: list[str]) -> str:
    """The newest of them."""
    more = f"{len(names) - NAMED_MAX} older ones, " if len(names) > NAMED_MAX else ""
    return more + ", ".join(names[-NAMED_MAX:])
