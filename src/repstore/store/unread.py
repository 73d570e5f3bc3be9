"""The blocks of a log that could not be read, and whether the next batch may begin in one of them.

A batch of a class goes behind the last one of its class, in the same segment; or into a segment that
the log enters with it, the next of the plan. A segment is entered when its first batch is begun, and
a batch gets its number when it is closed. So behind batch k - 1 the next one may begin

  U1 behind the last batch of each class, where its segment has a block left. A class leaves a segment
     for good: what lies behind its batches in an earlier one was never written
  U2 at the start of the first segments of the plan that have no batch of the chain, one for each class:
     the other classes may have entered those in front, with batches that are not closed yet
  U3 and nowhere else. What batches up to k - 1 or a later one take was read, or is no place to begin

An older checkpoint does not say how far a segment was written that was open then. Of such a one the batches
before it are read too. If the last of them cannot be read, it stands where the next one may: that is not told
apart.
"""
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from repstore.format import SEGMENT_CLASSES

Place = tuple[int, int]          # segment, and block in it


@dataclass(frozen=True, slots=True)
class Unread:
    """What a scan could not read, and what it takes to know where a log may go on."""

    places: frozenset[Place] = frozenset()
    segment_blocks: int = 0
    classes: dict[int, int] | None = None      # of segments that were open, or in which a batch was found
    opened: dict[int, int] | None = None       # segments that were open, and how many blocks of them written
    planned: tuple[int, ...] = ()              # segments of the plan that were searched, in its order

    def begins(self, before: NDArray[np.void]) -> list[Place]:
        """The unreadable blocks in which the next batch may begin. `before`: every batch that was found up
        to the one in front of it, those of the checkpoint too."""
        if not self.places:
            return []
        return [place for place in self._next_places(before) if place in self.places]

    def of_payload(self, batch: np.void) -> list[Place]:
        """The unreadable blocks of this batch's payload."""
        return [place for place in payload_places(batch) if place in self.places]

    def _next_places(self, before: NDArray[np.void]) -> list[Place]:
        classes = self.classes or {}
        # (sequence, segment, block behind it) of the last batch of each class
        heads = {classes[segment]: (0, segment, written) for segment, written in (self.opened or {}).items()}
        newest_first = before[np.argsort(before["sequence"])[::-1]]
        entered, last = np.unique(newest_first["segment"], return_index=True)
        for segment, batch in zip(entered.tolist(), newest_first[last], strict=True):
            end = int(batch["offset_blocks"]) + 1 + int(batch["payload_blocks"])
            heads[classes[segment]] = max(
                heads.get(classes[segment], (0, 0, 0)), (int(batch["sequence"]), segment, end))
        ahead = [segment for segment in self.planned if segment not in entered][:SEGMENT_CLASSES]
        return [(segment, end) for _, segment, end in heads.values() if end < self.segment_blocks] + [
            (segment, 0) for segment in ahead]


def payload_places(batch: np.void) -> list[Place]:
    """Where the payload of a batch lies."""
    segment, first = int(batch["segment"]), int(batch["offset_blocks"]) + 1
    return [(segment, block) for block in range(first, first + int(batch["payload_blocks"]))]
