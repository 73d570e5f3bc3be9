"""What a crash left of the log: which batches count, and whether the rest is torn or rotten.

Only the log of the last life counts, and only what the root's checkpoint does not hold yet.
It lies in the segments that were open at the checkpoint and in those of its plan, entered in
that order, several open at once. A batch proves that an earlier one was durable (flushed) or
acknowledged (completed) when it was closed.

Let k be the first batch of the chain that is missing or whose payload is not what was written.
  D1 a later batch says k was flushed: corruption. A whole header with a bad payload is kept
     (exactly its blocks will answer EIO); a missing batch refuses the store. Nothing is cut
  D2 a later batch says k was completed, in the same boot of the machine: corruption as well
  D3 the same after another boot: acknowledged and lost with the power. Cut, and tainted
  D4 nobody says so: a torn tail that nobody was promised. Cut
  D5 what does not chain to its predecessor though both are whole was never written by a store
     Unless the copies are one of several: then the log is cut there, and the store *incomplete*:
     its copies may neither lead nor count before they have learned from the others
  D6 after another boot the tail may be short without a trace: tainted, whatever was found
"""
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from repstore import config, errors
from repstore._fast.batch import BATCH_INFO_FIELDS, scan_segment
from repstore.format import BLOCK_SIZE, SEGMENT_CLASSES
from repstore.store.device import Device
from repstore.store.geometry import Geometry
from repstore.store.root import Root
from repstore.store.superblock import Superblock

BATCH_INFO = np.dtype(list(BATCH_INFO_FIELDS))
BATCH_PLACE = np.dtype([("segment", "<u4"), ("offset_blocks", "<u4")])
FAULT_NONE = 0

# A segment is empty while its first batch is on its way, for each class but one; one more
# than that in a row and the log cannot have gone further.
EMPTY_SEGMENTS_MAX = SEGMENT_CLASSES + 1

Infos = NDArray[np.void]


@dataclass(frozen=True, slots=True, eq=False)
class Recovery:
    """The batches to replay, in order, and what happened to the others."""

    batches: NDArray[np.void]        # BATCH_PLACE
    cut_sequence: int                # the last batch that counts
    tainted: bool                    # acknowledged writes may be missing
    damaged: tuple[int, ...]         # sequences kept though blocks of theirs are bad
    reason: str
    incomplete: bool = False         # durable writes are missing: other copies have them


def recover(device: Device, superblock: Superblock, root: Root, *, same_boot: bool, name: str,
            replicated: bool = False) -> Recovery:
    """Scan the log and decide. A store that was closed cleanly has none."""
    if superblock.clean:
        return Recovery(np.zeros(0, BATCH_PLACE), root.batch_sequence, False, (), "closed cleanly")
    found = scan(device, superblock, root)
    return decide(found, root.batch_sequence, root.batch_crc, same_boot=same_boot, name=name,
                  replicated=replicated)


def scan(device: Device, superblock: Superblock, root: Root) -> Infos:
    """Every batch of the last life where the log can have been, in no particular order."""
    geometry = superblock.geometry
    generations = root.segments["generation"]
    reader = _SegmentReader(device, geometry, superblock)
    found = [reader.batches(number, int(generations[number])) for number in root.open_segments()]
    lookahead = max(EMPTY_SEGMENTS_MAX, config.RECOVERY_LOOKAHEAD_BYTES // geometry.segment_bytes)
    empty = 0
    for number in root.plan.tolist():
        # a segment enters its next generation when the log enters it
        batches = reader.batches(number, (int(generations[number]) + 1) & 0xFFFFFFFF)
        empty = 0 if len(batches) else empty + 1
        if empty >= lookahead:
            break
        found.append(batches)
    return np.concatenate([np.zeros(0, BATCH_INFO), *found])


def decide(found: Infos, start_sequence: int, start_crc: int, *, same_boot: bool, name: str,
           replicated: bool = False) -> Recovery:
    """Walk the chain from the checkpoint to the first batch that does not count (D1-D6)."""
    log = _in_order(found, start_sequence)
    count = 0
    damaged: list[int] = []
    while True:
        count += _sound_prefix(log[count:], start_sequence + count, _crc_before(log, count, start_crc))
        k = start_sequence + count + 1
        here = log[count] if count < len(log) and log[count]["sequence"] == k else None
        if here is not None and here["previous_crc"] != _crc_before(log, count, start_crc):
            raise errors.CorruptionError(_place(name, here), f"batch {k} that names the one before it (D5)",
                                         f"previous checksum {here['previous_crc']:#010x}")
        later = log[count + 1:] if here is not None else log[count:]
        verdict = _verdict(later, k, same_boot)
        if verdict != "corruption":
            break
        if here is None and replicated:
            return Recovery(_places(log[:count]), start_sequence + count, True, tuple(damaged),
                            f"batch {k} was written and is gone: cut there, to be learned anew", True)
        if here is None:
            at = _place(name, log[count - 1]) if count else f"{name}: at the checkpoint"
            raise errors.CorruptionError(
                f"{at}, after batch {k - 1}", f"batch {k}",
                f"none, though batch {later[-1]['sequence']} proves that it was written (D1, D2)")
        damaged.append(k)
        count += 1
    return Recovery(_places(log[:count]), start_sequence + count, verdict == "lost" or not same_boot,
                    tuple(damaged), _reason(verdict, k, here is not None, len(later), same_boot))


def _in_order(found: Infos, start_sequence: int) -> Infos:
    """The batches after the checkpoint by sequence; of two with the same the better one."""
    after = found[found["sequence"] > start_sequence]
    after = after[np.lexsort((after["fault"], after["sequence"]))]
    return after[np.unique(after["sequence"], return_index=True)[1]]


def _sound_prefix(log: Infos, sequence: int, crc: int) -> int:
    """How many batches from the first on follow each other and are whole."""
    expected = np.arange(sequence + 1, sequence + 1 + len(log), dtype=np.uint64)
    previous = np.concatenate([np.array([crc], np.uint32), log["crc"][:-1]])[:len(log)]
    sound = ((log["sequence"] == expected) & (log["previous_crc"] == previous)
             & (log["fault"] == FAULT_NONE))
    return len(log) if sound.all() else int(np.argmin(sound))


def _crc_before(log: Infos, count: int, start_crc: int) -> int:
    return int(log[count - 1]["crc"]) if count else start_crc


def _verdict(later: Infos, k: int, same_boot: bool) -> str:
    """What the later batches prove about batch k."""
    if (later["flushed_sequence"] >= k).any():
        return "corruption"
    if (later["completed_sequence"] >= k).any():
        return "corruption" if same_boot else "lost"
    return "end"


def _reason(verdict: str, k: int, present: bool, later: int, same_boot: bool) -> str:
    if verdict == "lost":
        return f"batch {k} was acknowledged and is gone with the power: cut there (D3)"
    text = f"log ends at batch {k - 1}"
    if present or later:
        text = f"torn tail: cut at batch {k}, {later} later ones dropped (D4)"
    return text if same_boot else f"{text}; the machine was booted since: the end is not certain (D6)"


def _places(log: Infos) -> NDArray[np.void]:
    places = np.zeros(len(log), BATCH_PLACE)
    places["segment"] = log["segment"]
    places["offset_blocks"] = log["offset_blocks"]
    return places


def _place(name: str, batch: np.void) -> str:
    return f"{name}: segment {batch['segment']}, block {batch['offset_blocks']}"


class _SegmentReader:
    """Reads whole segments into one buffer and lists the batches in them."""

    def __init__(self, device: Device, geometry: Geometry, superblock: Superblock) -> None:
        self.device = device
        self.geometry = geometry
        self.superblock = superblock
        self.buffer = bytearray(geometry.segment_bytes)
        self.found = np.zeros(geometry.segment_blocks, BATCH_INFO)

    def batches(self, number: int, generation: int) -> Infos:
        """The batches of one use of a segment, in the order they lie."""
        start = self.geometry.segment_start(number) * BLOCK_SIZE
        for offset, length in self._steps():
            self._read(start, offset, length)
        count = scan_segment(self.buffer, self.superblock.store_id, self.superblock.life_id, number,
                             generation, self.found.view(np.uint8))
        return self.found[:count].copy()

    def _steps(self) -> Iterator[tuple[int, int]]:
        step = min(config.RECOVERY_READ_BYTES, self.geometry.segment_bytes)
        for offset in range(0, self.geometry.segment_bytes, step):
            yield offset, step

    def _read(self, start: int, offset: int, length: int) -> None:
        """Blocks that cannot be read become zeros here: damage, on which `decide` decides."""
        target = memoryview(self.buffer)
        try:
            target[offset:offset + length] = self.device.read(start + offset, length)
        except OSError:
            if length == BLOCK_SIZE:
                target[offset:offset + length] = bytes(length)
                return
            for block in range(offset, offset + length, BLOCK_SIZE):
                self._read(start, block, BLOCK_SIZE)
