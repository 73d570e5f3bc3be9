"""What `repstore check verify` costs: volumes of 1, 10 and 100 GiB mapped, with few and many differences.

    python -m bench.verify_cost [--gib N ...] [--data DIR] [--plot FILE] [--json FILE]

Two copies, whose maps are made without their data (`mapped_copies`), each on an engine of production
without peers; a copy is asked as its node would be, and every question and answer is coded as it
travels. A row is one verification: first of equal copies, then after one of them wrote some blocks
that the other did not.

- `CPU`: of both engines, both nodes' answers and the one who compares. The maps
  are in memory, where they stay once they were read.
- `digests`: digests and checksums that were asked for, 8 and 4 bytes each: what verify reports.
- `messages`: all questions and answers, as JSON.
- `pause`: the longest that a write of a client took while the first copy took its digests, and the
  longest of as many writes while it did not: CPU time of everything that stood in its way, the
  simulated disk included, which takes no time.

Which copy is right is not asked here, for no block has the data its map names: in a cluster that is one
`explain` more on each copy for each run of blocks that differs.
"""
from __future__ import annotations

import argparse
import gc
import itertools
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from bench.mapped_copies import mapped_copy
from repstore import config
from repstore._fast import inspection
from repstore.check import verify
from repstore.check.copies import CopyInquiries
from repstore.format import BLOCK_SIZE
from repstore.node.inquiry import Answer, Inquiry
from repstore.sim.local import VOLUME_INDEX, LocalVolume, Request
from repstore.sim.workload import WRITE

SIZES_GIB = (1, 10, 100)
DIFFERENT_BLOCKS = (0, 1, 100, 10_000)
LEAST_WRITES = 200               # of a measurement of the pause


class MeasuredCopy:
    """One copy, asked as `check verify` asks a node; see `check.verify.CopySource`."""

    def __init__(self, volume: LocalVolume) -> None:
        self.volume = volume
        self.followers: list[MeasuredCopy] = []      # begin when this copy does, as its members would
        self.message_bytes = 0
        self._inquiries = CopyInquiries(volume.engine, volume.opened.superblock)

    def start(self, serial: int, wanted: Sequence[int]) -> int:
        """Begin on all copies; the LSN."""
        pages = {f"page{place}": page for place, page in enumerate(wanted)}
        for follower in self.followers:
            follower.start(serial, wanted)
        return int(self._ask("verify start", serial=serial, **pages)["lsn"])

    def wait(self, serial: int) -> int:
        """Until this copy has it; its number of pages."""
        while inspection.verify_state(self.volume.engine)[0] not in ("done", "failed"):
            self.volume.pump()
        return int(self._ask("verify state", serial=serial)["pages"])

    def nodes(self, serial: int, level: int, first: int, count: int) -> verify.Digests:
        """Digests of nodes of a level of the tree."""
        found = self._ask("verify nodes", serial=serial, level=level, first=first, count=count)
        return verify.unpacked_digests(found["digests"])

    def values(self, serial: int, place: int) -> verify.Checksums:
        """Checksums of a wanted page."""
        return verify.unpacked_checksums(self._ask("verify page", serial=serial, place=place)["values"])

    def worth(self, first: int, blocks: int) -> verify.Worth:
        """Nothing: no block has the data that its map names."""
        return verify.Worth(np.zeros(blocks, bool), np.zeros(blocks, np.uint64), np.zeros(blocks, np.uint64))

    def _ask(self, what: str, **numbers: int) -> dict[str, Any]:
        question = msgspec.json.encode(Inquiry("0" * 32, what, VOLUME_INDEX, numbers))
        found = self._inquiries(msgspec.json.decode(question, type=Inquiry))
        answer = msgspec.json.encode(Answer("0" * 32, value=found))
        self.message_bytes += len(question) + len(answer)
        return msgspec.json.decode(answer, type=Answer).value


@dataclass(frozen=True)
class Cost:
    """One verification. Times are of the CPU."""
    mapped_bytes: int
    different_blocks: int
    differing_pages: int
    cpu_s: float
    digest_bytes: int
    message_bytes: int


@dataclass(frozen=True)
class Pause:
    """The longest write of a client, in CPU seconds: while a verification ran, and otherwise."""
    mapped_bytes: int
    writes: int
    verifying_s: float
    otherwise_s: float


@dataclass
class Pair:
    """Two copies of one volume. Equal until `differ` was called."""
    primary: MeasuredCopy
    other: MeasuredCopy
    serials: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    def __post_init__(self) -> None:
        self.primary.followers = [self.other]

    def differ(self, blocks: int, seed: int = 7) -> None:
        """Let the other copy write so many blocks, spread by chance, that the primary does not;
        more of them are the same ones and some."""
        lbas = np.random.default_rng(seed).permutation(self.other.volume.size_blocks)[:blocks]
        self.other.volume.run([Request(WRITE, int(lba), 1, stamp=1 + int(lba)) for lba in lbas], depth=32)

    def verified(self) -> verify.Verdict:
        """What a verification finds."""
        verdict = verify.Verdict("bench", ("primary", "other"))
        verify.verify(verdict, {"primary": self.primary, "other": self.other}, lambda: next(self.serials))
        return verdict

    def cost(self, different_blocks: int) -> Cost:
        """Verify, and see what it took. AssertionError if it does not find what there is."""
        copies = (self.primary, self.other)
        for copy in copies:
            copy.message_bytes = 0
        begun_s = time.process_time()
        verdict = self.verified()
        used_s = time.process_time() - begun_s
        found = sum(difference.blocks for difference in verdict.differences)
        assert found == different_blocks, f"{different_blocks} blocks differ, {found} were found"
        return Cost(self.primary.volume.size_blocks * BLOCK_SIZE, different_blocks, verdict.differing_pages,
                    used_s, verdict.exchanged_bytes, sum(copy.message_bytes for copy in copies))


def longest_write_s(volume: LocalVolume, random: np.random.Generator) -> float:
    """CPU seconds of one write of a block, from the client's request to its answer."""
    write = Request(WRITE, int(random.integers(volume.size_blocks)), 1, stamp=1)
    begun_s = time.process_time()
    volume.run([write])
    taken_s = time.process_time() - begun_s
    assert write.error == 0, f"a write failed: {write.error}"
    return taken_s


def pause_of(pair: Pair) -> Pause:
    """The longest write on the primary while it takes its digests; the last thing done with a pair."""
    gc.collect()
    gc.freeze()                                  # or Python's own pause is the longest
    copy, volume = pair.primary, pair.primary.volume
    random = np.random.default_rng(11)
    verifying_s: list[float] = []
    while len(verifying_s) < LEAST_WRITES:
        begun_s = time.process_time()
        copy.start(next(pair.serials), ())       # whoever writes now waits for this too
        start_s = time.process_time() - begun_s
        while inspection.verify_state(volume.engine)[0] != "done":
            verifying_s.append(start_s + longest_write_s(volume, random))
            start_s = 0.0
    otherwise_s = [longest_write_s(volume, random) for _ in verifying_s]
    return Pause(volume.size_blocks * BLOCK_SIZE, len(verifying_s), max(verifying_s), max(otherwise_s))


def measure(directory: Path, mapped_bytes: int,
            different_blocks: Sequence[int] = DIFFERENT_BLOCKS) -> tuple[list[Cost], Pause]:
    """All rows of one size. Each wants more differences than the one before."""
    pair = Pair(MeasuredCopy(mapped_copy(directory / "primary", mapped_bytes)),
                MeasuredCopy(mapped_copy(directory / "other", mapped_bytes)))
    pair.verified()                              # reads the maps
    costs = []
    for blocks in different_blocks:
        pair.differ(blocks)
        costs.append(pair.cost(blocks))
    return costs, pause_of(pair)


def draw(costs: Sequence[Cost], pauses: Sequence[Pause], path: Path) -> None:
    """CPU time, bytes and pause, as a PNG."""
    import matplotlib
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (times, exchanged, pause) = pyplot.subplots(1, 3, figsize=(15, 5), layout="constrained")
    sizes = sorted({cost.mapped_bytes for cost in costs})
    for size in sizes:
        rows = [cost for cost in costs if cost.mapped_bytes == size]
        name = f"{size // config.GIB} GiB"
        differing = [max(cost.different_blocks, 0.1) for cost in rows]      # zero has no logarithm
        times.plot(differing, [cost.cpu_s for cost in rows], "o-", label=name)
        exchanged.plot(differing, [cost.digest_bytes for cost in rows], "o-", label=name)
    for axis, title in ((times, "CPU seconds of both copies and the comparison"),
                        (exchanged, "bytes of digests and checksums exchanged")):
        axis.set(xscale="log", yscale="log", title=title, xlabel="blocks that differ (leftmost: none)")
        axis.legend()
    gib = [size.mapped_bytes / config.GIB for size in pauses]
    pause.plot(gib, [size.verifying_s * 1000 for size in pauses], "o-", label="while the digests are taken")
    pause.plot(gib, [size.otherwise_s * 1000 for size in pauses], "o-", label="otherwise")
    pause.axhline(100, color="tab:red", linestyle="--", label="limit")
    pause.set(xscale="log", yscale="log", title="longest write of a client, ms", xlabel="GiB mapped")
    pause.legend()
    figure.suptitle("verify of two copies")
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def main(words: Sequence[str] | None = None) -> int:
    """Measure and print all rows, and draw them."""
    parser = argparse.ArgumentParser(prog="python -m bench.verify_cost", description=__doc__.splitlines()[0])
    parser.add_argument("--gib", type=int, nargs="+", default=SIZES_GIB, help="sizes to measure")
    parser.add_argument("--data", type=Path, help="directory for the stores: 1 GiB for 100 GiB")
    parser.add_argument("--plot", type=Path, default=Path("verify-cost.png"), help="where the drawing goes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything that was measured")
    chosen = parser.parse_args(words)
    costs: list[Cost] = []
    pauses: list[Pause] = []
    print(f"{'mapped':>8} {'blocks':>7} {'pages':>6} {'CPU':>11} {'digests':>14} {'messages':>14}")
    for gib in chosen.gib:
        with tempfile.TemporaryDirectory(dir=chosen.data) as scratch:
            rows, pause = measure(Path(scratch), gib * config.GIB)
        for row in rows:
            print(f"{gib:>4} GiB {row.different_blocks:>7} {row.differing_pages:>6} "
                  f"{row.cpu_s * 1000:>8.1f} ms {row.digest_bytes:>12} B {row.message_bytes:>12} B",
                  flush=True)
        print(f"{gib:>4} GiB pause: {pause.verifying_s * 1000:.2f} ms, otherwise "
              f"{pause.otherwise_s * 1000:.2f} ms, {pause.writes} writes each", flush=True)
        costs += rows
        pauses.append(pause)
    draw(costs, pauses, chosen.plot)
    if chosen.json is not None:
        chosen.json.write_text(json.dumps({"costs": [asdict(cost) for cost in costs],
                                           "pauses": [asdict(pause) for pause in pauses]}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
