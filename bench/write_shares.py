"""What a store that is 70 % full writes besides the data of its clients: headers, moves, metadata.

    python -m bench.write_shares [--gib N] [--passes N] [--data DIR]

Random writes of a block, all over a volume of N GiB (`filled`), as many as it has blocks in each pass.
Everything is counted by the engine; a page of metadata is two blocks, and a checkpoint writes
its root twice and four superblocks.
"""
from __future__ import annotations

import argparse
import sys
import tempfile
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from bench.filled import BLOCK_BYTES, FilledVolume
from repstore import Operation
from repstore.format import SUPERBLOCK_COPIES
from repstore.store import superblock
from repstore.store.device import FileDevice

GIB = 1 << 30
PAGE_COPIES = ROOT_COPIES = 2


@dataclass(frozen=True)
class Written:
    """Blocks written, by what they are."""
    data: int
    moved: int
    headers: int
    pages: int
    checkpoints: int
    root_blocks: int

    @property
    def metadata(self) -> int:
        """Of checkpoints: pages, roots, superblocks."""
        return self.pages + self.checkpoints * (ROOT_COPIES * self.root_blocks + SUPERBLOCK_COPIES)

    @property
    def total(self) -> int:
        """All of it."""
        return self.data + self.moved + self.headers + self.metadata


def measure(path: Path, size_bytes: int, passes: int) -> Written:
    """Fill a volume, write it over, count."""
    with FilledVolume(path, size_bytes) as filled:
        before = filled.stats()
        for _ in range(passes):
            filled.do(filled.random(Operation.WRITE, size_bytes // BLOCK_BYTES))
        after = filled.stats()
        with closing(FileDevice(path, writable=False)) as device:
            root_bytes = superblock.read(device, str(path)).superblock.root_bytes
    grown = {name: after[name] - before[name] for name in after}
    return Written(grown["user_blocks"], grown["moved_blocks"], grown["batches"],
                   PAGE_COPIES * grown["pages_written"], grown["checkpoints"], -(-root_bytes // BLOCK_BYTES))


def main() -> int:
    """Measure, and print what was written."""
    parser = argparse.ArgumentParser(prog="python -m bench.write_shares", description=__doc__.splitlines()[0])
    parser.add_argument("--gib", type=int, default=4, help="size of the volume")
    parser.add_argument("--passes", type=int, default=2, help="how often it is written over")
    parser.add_argument("--data", type=Path, help="directory for the store")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=chosen.data) as scratch:
        written = measure(Path(scratch, "store"), chosen.gib * GIB, chosen.passes)
    for name, blocks in (("data", written.data), ("moved by the cleaner", written.moved),
                         ("batch headers", written.headers), ("metadata", written.metadata),
                         ("of it pages, twice each", written.pages), ("all", written.total)):
        print(f"{name:<24} {blocks:>10} blocks {blocks / written.total:>7.2%}")
    each = written.metadata / max(1, written.checkpoints)
    print(f"{written.checkpoints} checkpoints, {each:.0f} blocks each, roots of {written.root_blocks}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
