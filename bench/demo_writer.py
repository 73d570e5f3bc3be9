"""The demo's client: a process of its own that writes until it is told to stop (SIGTERM).

    python -m bench.demo_writer URI JOURNAL --first-block N --blocks N [--depth N] [--seed N]

  1. A block is 4 KiB of one 32-byte stamp over and over: magic, sequence number, block number
     and their sum. Any mix of two writes, and any block in the wrong place, shows.
  2. Every write has its own sequence number, and no block has two writes under way, so each
     block's last acknowledged write is known for certain.
  3. A write goes into the journal when, and only when, it was acknowledged.
  4. Writes fall at random into a window that slides over the region, as the hot part of real
     data does: so what changes in a few seconds is a part of the region, not all of it.
"""
from __future__ import annotations

import argparse
import os
import random
import signal
import struct
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from bench.demo_nbd import NbdError, NbdWriter

BLOCK_BYTES = 4096
STAMP = struct.Struct("<QQQQ")
STAMP_MAGIC = int.from_bytes(b"repstore", "little")
# sequence, block, sent and acknowledged (CLOCK_MONOTONIC, ns): one acknowledged write
JOURNAL_RECORD = struct.Struct("<QQQQ")
JOURNAL_FLUSH_S = 0.1
WINDOW_BLOCKS = 1024
WRITES_A_STEP = 32               # then the window slides by one block


@dataclass
class Sent:
    """A write under way."""
    block: int
    sent_ns: int


class Writer:
    """Keeps `depth` writes under way in the blocks of one region."""

    def __init__(self, client: NbdWriter, journal: BinaryIO, first_block: int, blocks: int,
                 depth: int, seed: int) -> None:
        self._client = client
        self._journal = journal
        self._first_block = first_block
        self._blocks = blocks
        self._window = min(WINDOW_BLOCKS, blocks)
        self._depth = depth
        self._random = random.Random(seed)
        self._under_way: dict[int, Sent] = {}
        self._busy_blocks: set[int] = set()
        self._sequence = 0
        self.stopping = False

    def run(self) -> None:
        """Write until told to stop, then wait for what is under way."""
        parent = os.getppid()
        next_flush_s = 0.0
        while self._under_way or not self.stopping:
            self._fill()
            if self._under_way:
                self._acknowledge(self._client.replies())
            if time.monotonic() >= next_flush_s:
                self._journal.flush()
                next_flush_s = time.monotonic() + JOURNAL_FLUSH_S
                self.stopping |= os.getppid() != parent        # nobody is left to stop us
        self._journal.flush()

    def _fill(self) -> None:
        if self.stopping:
            return
        writes = []
        now_ns = time.monotonic_ns()
        while len(self._under_way) < self._depth:
            place = self._sequence // WRITES_A_STEP + self._random.randrange(self._window)
            block = self._first_block + place % self._blocks
            if block in self._busy_blocks:
                continue
            self._sequence += 1
            self._busy_blocks.add(block)
            self._under_way[self._sequence] = Sent(block, now_ns)
            writes.append((self._sequence, block * BLOCK_BYTES, content(self._sequence, block)))
        if writes:
            self._client.send_writes(writes)

    def _acknowledge(self, sequences: list[int]) -> None:
        now_ns = time.monotonic_ns()
        for sequence in sequences:
            sent = self._under_way.pop(sequence)
            self._busy_blocks.remove(sent.block)
            self._journal.write(JOURNAL_RECORD.pack(sequence, sent.block, sent.sent_ns, now_ns))


def content(sequence: int, block: int) -> bytes:
    """What write number `sequence` puts into `block`."""
    stamp = STAMP.pack(STAMP_MAGIC, sequence, block, STAMP_MAGIC + sequence + block)
    return stamp * (BLOCK_BYTES // STAMP.size)


def main() -> int:
    """Exit code 0: stopped when asked, with every write acknowledged."""
    parser = argparse.ArgumentParser(description="Write to one region of an NBD export until SIGTERM.")
    parser.add_argument("uri")
    parser.add_argument("journal", type=Path)
    parser.add_argument("--first-block", type=int, required=True)
    parser.add_argument("--blocks", type=int, required=True)
    parser.add_argument("--depth", type=int, default=16)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    if options.blocks < 2 * options.depth:
        parser.error(f"--blocks {options.blocks}: must be at least {2 * options.depth}, twice the depth")
    try:
        client = NbdWriter(options.uri)
        with options.journal.open("xb") as journal:
            writer = Writer(client, journal, options.first_block, options.blocks, options.depth, options.seed)

            def stop(*_: object) -> None:
                writer.stopping = True

            signal.signal(signal.SIGTERM, stop)
            signal.signal(signal.SIGINT, signal.SIG_IGN)      # the demo decides when we end
            writer.run()
        client.close()
    except (NbdError, OSError) as error:
        print(f"writer: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
