"""Whether the copies of a volume are equal at one LSN, by a Merkle tree over their maps' checksums.

    digest of 512 blocks > 256 of them > 256 of those > ... > root

  W1 every copy's tree is that of its map at the same LSN (see `_fast/verify.pxd`): no pause of
     commits is needed to agree on it, and writes go on meanwhile
  W2 equal roots are proof of equality, but for 2^-64; else the descent asks only for children of
     nodes that differ, so that what is exchanged is in proportion to the differences
  W3 pages that differ are taken again with all their checksums, at a later LSN, the same on all
     copies: a range of blocks is reported only if it differs there
  W4 right is, of each block by itself, the copy whose medium has what its own map says; among several
     the one with the newest record, and if that does not tell the primary
  W5 it may be stopped and go on later, with the same copies: equality is proved anew, for all pages, and
     what was found in a page that differs stands while its digests are those of then, on every copy.
     Else, and where nothing was found, the page is looked at again
"""
from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby, pairwise
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from repstore import config, errors
from repstore.check.progress import Progress, silent
from repstore.format import PAGE_ENTRIES

FAN_OUT = 256
DIGEST_BYTES = 8
EXACT_PAGES = config.VERIFY_PAGES_EXACT
Digests = NDArray[np.uint64]
Checksums = NDArray[np.uint32]


class CopySource(Protocol):
    """One copy, wherever it is. Raises RepstoreError where it cannot answer."""

    def start(self, serial: int, wanted: Sequence[int]) -> int:
        """At the primary: begin on all copies; the LSN."""

    def wait(self, serial: int) -> int:
        """Until this copy has it; its number of pages."""

    def nodes(self, serial: int, level: int, first: int, count: int) -> Digests:
        """Digests of nodes of a level of the tree; level 0 are the pages."""

    def values(self, serial: int, place: int) -> Checksums:
        """Checksums of a wanted page."""

    def worth(self, first: int, blocks: int) -> Worth:
        """How good, and how new, blocks are here."""


@dataclass(frozen=True, slots=True)
class Worth:
    """Of a run of blocks on one copy, an entry for each."""

    good: NDArray[np.bool_]          # the medium has what the map says
    epochs: NDArray[np.uint64]       # of their records, 0: not known
    lsns: NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class Difference:
    """Blocks `first` to `first + blocks - 1` differ between copies; `right` is the good one of each of
    them, or empty."""

    first: int
    blocks: int
    differ: tuple[str, ...]          # copies that are not as the primary is
    right: str


@dataclass(frozen=True, slots=True)
class Looked:
    """A page that was looked at exactly, and what was found in it (W5)."""

    digests: tuple[int, ...]         # of the page before that, on each copy
    differences: tuple[Difference, ...]


@dataclass
class Verdict:
    """What a verification found out."""

    volume: str
    copies: tuple[str, ...]          # the primary first
    lsn: int = 0
    pages: int = 0
    complete: bool = False
    differing_pages: int = 0
    looked: dict[int, Looked] = field(default_factory=dict)         # by page; of before a stop, too
    exchanged_bytes: int = 0         # digests and checksums that were asked for

    @property
    def differences(self) -> list[Difference]:
        """What was found, in the order of blocks."""
        return [found for _, page in sorted(self.looked.items()) for found in page.differences]

    @property
    def verdict(self) -> str:
        """`equal`, `different`, or `interrupted`."""
        if not self.complete:
            return "interrupted"
        return "different" if self.differences else "equal"


def tree(leaves: Digests) -> list[Digests]:
    """The digests of all levels: the pages, then what stands above them, up to the root."""
    levels = [leaves]
    while len(levels[-1]) > 1:
        below = levels[-1]
        groups = range(0, len(below), FAN_OUT)
        levels.append(np.array([_digest(below[first:first + FAN_OUT]) for first in groups], np.uint64))
    return levels


def _digest(children: Digests) -> int:
    return int.from_bytes(hashlib.blake2b(children.tobytes(), digest_size=DIGEST_BYTES).digest(), "little")


def packed(numbers: Digests | Checksums) -> str:
    """Digests or checksums as they travel: base64 of little-endian numbers, half as long as decimals."""
    return base64.b64encode(numbers.astype(numbers.dtype.newbyteorder("<")).tobytes()).decode()


def unpacked_digests(text: str) -> Digests:
    """What `packed` made of digests."""
    return np.frombuffer(base64.b64decode(text), "<u8").astype(np.uint64)


def unpacked_worth(found: Mapping[str, str]) -> Worth:
    """What a copy said of a run of blocks."""
    good, epochs, lsns = (unpacked_digests(found[name]) for name in ("good", "epochs", "lsns"))
    return Worth(good.astype(bool), epochs, lsns)


def unpacked_checksums(text: str) -> Checksums:
    """What `packed` made of checksums."""
    return np.frombuffer(base64.b64decode(text), "<u4").astype(np.uint32)


def verify(verdict: Verdict, copies: Mapping[str, CopySource], serials: Callable[[], int],
           progress: Progress = silent) -> None:
    """Compare the copies of `verdict`, and fill it in as far as it comes."""
    primary = copies[verdict.copies[0]]
    serial = serials()
    verdict.lsn = primary.start(serial, ())
    found = {name: copy.wait(serial) for name, copy in copies.items()}
    verdict.pages = found[verdict.copies[0]]
    for name, pages in found.items():
        if pages != verdict.pages:
            raise errors.CorruptionError(f"copy on {name}", f"{verdict.pages} map pages", pages)
    differing = _descend(verdict, copies, serial, progress)
    verdict.differing_pages = len(differing)
    verdict.looked = {page: looked for page, looked in verdict.looked.items()
                      if looked.differences and looked.digests == differing.get(page)}
    unseen = [page for page in differing if page not in verdict.looked]
    for place in range(0, len(unseen), EXACT_PAGES):
        progress("pages that differ", place, len(unseen))
        exactly = unseen[place:place + EXACT_PAGES]
        differences = _look_exactly(verdict, copies, serials(), exactly)
        verdict.looked |= {page: Looked(differing[page], tuple(differences[page])) for page in exactly}
    verdict.complete = True


def _descend(verdict: Verdict, copies: Mapping[str, CopySource], serial: int,
             progress: Progress) -> dict[int, tuple[int, ...]]:
    """Pages whose digests are not the same on all copies, with them (W2)."""
    counts = [verdict.pages]
    while counts[-1] > 1:
        counts.append(-(-counts[-1] // FAN_OUT))
    differing = _unequal(verdict, copies, serial, len(counts) - 1, 0, 1)
    for level in range(len(counts) - 2, -1, -1):
        parents, differing = differing, {}
        for done, parent in enumerate(parents):
            progress(f"level {level} of the tree", done, len(parents))
            first = parent * FAN_OUT
            differing |= _unequal(verdict, copies, serial, level, first, min(FAN_OUT, counts[level] - first))
    return differing


def _unequal(verdict: Verdict, copies: Mapping[str, CopySource], serial: int, level: int, first: int,
             count: int) -> dict[int, tuple[int, ...]]:
    rows = np.array([copies[name].nodes(serial, level, first, count) for name in verdict.copies])
    verdict.exchanged_bytes += rows.size * DIGEST_BYTES
    differ = np.flatnonzero((rows != rows[0]).any(axis=0)).tolist()
    return {first + i: tuple(rows[:, i].tolist()) for i in differ}


def _look_exactly(verdict: Verdict, copies: Mapping[str, CopySource], serial: int,
                  pages: list[int]) -> dict[int, list[Difference]]:
    """Which blocks of these pages differ, at one LSN (W3)?"""
    found: dict[int, list[Difference]] = {page: [] for page in pages}
    copies[verdict.copies[0]].start(serial, pages)
    for copy in copies.values():
        copy.wait(serial)
    for place, page in enumerate(pages):
        rows = [copies[name].values(serial, place) for name in verdict.copies]
        verdict.exchanged_bytes += len(rows) * PAGE_ENTRIES * 4
        unlike = np.array([row != rows[0] for row in rows])
        for first, blocks in _runs(unlike):
            differ = tuple(name for name, row in zip(verdict.copies, unlike, strict=True) if row[first])
            lba = page * PAGE_ENTRIES + first
            found[page] += [Difference(begin, length, differ, right)
                            for begin, length, right in _right_sides(verdict, copies, lba, blocks)]
    return found


def _runs(unlike: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """(first, length) of runs of blocks that differ on the same copies."""
    changes = np.flatnonzero((unlike[:, 1:] != unlike[:, :-1]).any(axis=0)) + 1
    edges = [0, *changes.tolist(), unlike.shape[1]]
    return [(first, end - first) for first, end in pairwise(edges) if unlike[:, first].any()]


def _right_sides(verdict: Verdict, copies: Mapping[str, CopySource], first: int,
                 blocks: int) -> list[tuple[int, int, str]]:
    """(first block, length, right copy) of the parts of a run (W4); empty: no copy has what its map says."""
    worth = {name: copies[name].worth(first, blocks) for name in verdict.copies}

    def right(i: int) -> str:
        good = [name for name in verdict.copies if worth[name].good[i]]
        # the first of equals: the primary
        return max(good, key=lambda name: (worth[name].epochs[i], worth[name].lsns[i]), default="")

    parts = []
    for name, places in groupby(range(blocks), right):
        place = list(places)
        parts.append((first + place[0], len(place), name))
    return parts
