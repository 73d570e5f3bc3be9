"""What a client may find in each block: the promises D1, D2 and D3 as arithmetic on stamps.

  W1 A block may read as the newest acknowledged write, or as any write to it whose outcome is
     not known. Whoever has been read is from then on the only one (D2).
     A write that ended with an error may still come up later, until a newer one is acknowledged.
  W2 Once acknowledged writes were lost with power, which a client is always told, a block may
     read as what it held at the last flush or FUA write that covers it, or as anything written
     to it since (D1).
  W3 What is found then is a prefix of the acknowledged order: a write that is there has every
     write below it that was answered before it was asked for (D3).
"""
from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field

ZEROS = 0                     # stamp of a block without data
NEVER = -1                    # not answered


@dataclass(slots=True)
class Version:
    """One content that a block was given, in the order they were asked for."""
    stamp: int
    answered: int             # number of the answer, NEVER without one
    contested: bool = False   # it was answered, and met another one: its place among them is not known


@dataclass
class Expectation:
    """What each block of one volume may read as, by stamp. Events are numbered as they come."""
    may: dict[int, set[int]] = field(default_factory=dict)
    _events: int = 0
    _versions: dict[int, list[Version]] = field(default_factory=dict)     # the first one is durable
    _failed: dict[int, set[int]] = field(default_factory=dict)            # writes that ended with an error
    _unsure: dict[int, None] = field(default_factory=dict)                # blocks that have more than one
    _contested: set[int] = field(default_factory=set)           # two writes met: their order is not known
    _ever: dict[int, set[int]] = field(default_factory=dict)
    _asked: list[tuple[int, int]] = field(default_factory=list)           # (first stamp, number), ascending

    def of(self, block: int) -> set[int]:
        """Stamps that `block` may read as."""
        may = self.may.get(block, {ZEROS})
        return may | self._failed[block] if block in self._failed else may

    def was(self, block: int, stamp: int) -> bool:
        """Whether the block ever may have held that."""
        return stamp == ZEROS or stamp in self._ever.get(block, ())

    def now(self) -> int:
        """A number for what happens just now."""
        self._events += 1
        return self._events

    def begin(self, block: int, stamp: int) -> None:
        """A write is on its way: from now on it may be there."""
        self.may[block] = self.may.get(block, {ZEROS}) | {stamp}
        self._versions.setdefault(block, [Version(ZEROS, 0)]).append(Version(stamp, NEVER))
        self._unsure[block] = None
        self._ever.setdefault(block, set()).add(stamp)

    def asked(self, first_stamp: int) -> None:
        """A write that gives the stamps from `first_stamp` on was asked for."""
        self._asked.append((first_stamp, self.now()))

    def is_sure(self, block: int) -> bool:
        """Whether one content is left that it may have, whatever power takes."""
        return block not in self._unsure

    def fail(self, block: int, stamp: int) -> None:
        """A write ended with an error."""
        self._failed.setdefault(block, set()).add(stamp)

    def acknowledge(self, block: int, stamp: int) -> None:
        """A write was answered: this is what the block holds."""
        self._failed.pop(block, None)
        self.settle(block, stamp)

    def contest(self, block: int, stamp: int) -> None:
        """A write was answered that met another one on this block: either may be the last."""
        self._contested.add(block)
        for version in self._versions.get(block, ()):
            version.contested |= version.stamp == stamp

    def settle(self, block: int, stamp: int) -> None:
        """This is what the block holds: it was acknowledged, or read (W1)."""
        self._contested.discard(block)
        self.may[block] = {stamp}
        versions = self._versions.get(block)
        if versions is None:
            self._versions[block] = [Version(stamp, self._events)]
            return
        before = []
        while versions and versions[-1].stamp != stamp:
            version = versions.pop()             # asked for later, and never happened; or before this one
            if version.contested:
                before.append(version)
        this = versions.pop() if versions else Version(stamp, self._events)
        versions += [*reversed(before), this]
        if versions[-1].answered == NEVER:
            versions[-1].answered = self._events

    def durable(self, block: int, before: int) -> None:
        """A flush asked for at event `before` was answered: what was answered by then stays."""
        versions = self._versions.get(block, [])
        if block in self._contested:
            return
        for last in range(len(versions) - 1, 0, -1):
            if NEVER < versions[last].answered <= before:
                del versions[:last]
                break
        if len(versions) <= 1:
            self._unsure.pop(block, None)

    def flushed(self, before: int) -> None:
        """The same for every block."""
        for block in list(self._unsure):
            self.durable(block, before)

    def lose(self) -> None:
        """Acknowledged writes may be gone (W2)."""
        for block, versions in self._versions.items():
            self.may[block] = {version.stamp for version in versions}

    def unseen(self, block: int) -> None:
        """After a loss the block could not be read: a flush proves nothing of what it was given before."""
        for version in self._versions.get(block, [])[1:]:
            version.answered = NEVER

    def missing_below(self, found: dict[int, int]) -> str:
        """Which promise of W3 the whole content `found` after a loss breaks; empty: none.

        Call it before anything found is settled, or unseen. Zeros say nothing: they have no number.
        """
        newest = max((self._asked_at(stamp) for stamp in found.values() if stamp != ZEROS), default=0)
        for block, stamp in sorted(found.items()):
            versions = self._versions.get(block, [])
            place = next((i for i, version in enumerate(versions) if version.stamp == stamp), None)
            if place is None or stamp == ZEROS or block in self._contested:
                continue
            for later in versions[place + 1:]:
                if later.stamp != ZEROS and NEVER < later.answered < newest:
                    return (f"block {block} reads as {stamp}; {later.stamp}, answered at {later.answered}, "
                            f"is gone though a write asked for at {newest} is there (W3)")
        return ""

    def _asked_at(self, stamp: int) -> int:
        place = bisect_right(self._asked, (stamp, 1 << 62)) - 1
        return self._asked[place][1] if place >= 0 else 0
