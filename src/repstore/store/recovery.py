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
  D7 what cannot be read is not absent. A missing k that may stand in an unreadable block (`unread`) is
     no end: what is there may have been flushed. It is waited for (`patience`); what stays unreadable is
     treated as in D1, whatever a later batch says: refused or, of several copies, cut and incomplete.
     Of a payload that cannot be read wholly the rest decides: if a block of it is not what was written, k is
     torn or rotten, as in D1-D4. If all of it is right the others are waited for; what stays unreadable may
     have been flushed: k is kept, and exactly these blocks are bad. Before k is cut, a batch behind all that
     were found is waited for, where it may stand in an unreadable block: it may say that k was flushed
"""
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from repstore import config, errors
from repstore._fast.batch import BATCH_INFO_FIELDS, scan_segment
from repstore._fast.checksum import crc32c_blocks
from repstore.format import BLOCK_SIZE, SEGMENT_CLASSES, batch_header_t
from repstore.store.device import Device
from repstore.store.geometry import Geometry
from repstore.store.patience import Patience
from repstore.store.root import Root
from repstore.store.superblock import Superblock
from repstore.store.unread import Place, Unread, payload_places

BATCH_INFO = np.dtype(list(BATCH_INFO_FIELDS))
BATCH_PLACE = np.dtype([("segment", "<u4"), ("offset_blocks", "<u4")])

# what a scan says of a batch whose header is whole
FAULT_NONE = 0
FAULT_BAD_PAYLOAD = 4            # a block of it is not what was written
FAULT_UNREAD = 5                 # blocks of it could not be read, and the others are right

CHECKSUM_BYTES = 4

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


@dataclass(frozen=True, slots=True, eq=False)
class Scan:
    """What was found where the log can have been."""

    batches: Infos                   # in no particular order
    unread: Unread


@dataclass(frozen=True, slots=True, eq=False)
class _End:
    """The first batch of the chain that does not count, and what is known about it."""

    k: int
    log: Infos                       # the batches before it that count
    damaged: tuple[int, ...]         # of these, whose payload is bad
    present: bool                    # whether a header of k was found
    later: Infos
    verdict: str
    unreadable: tuple[Place, ...]    # where k may stand: D7
    awaited: tuple[Place, ...]       # all that could not be read and may change this: the former too


def recover(device: Device, superblock: Superblock, root: Root, *, same_boot: bool, name: str,
            replicated: bool = False, patience: Patience | None = None) -> Recovery:
    """Scan the log and decide. A store that was closed cleanly has none.

    `patience` is for blocks on which the decision hangs; without it nothing is waited for.
    """
    if superblock.clean:
        return Recovery(np.zeros(0, BATCH_PLACE), root.batch_sequence, False, (), "closed cleanly")
    patience = patience or Patience()
    while True:
        found = scan(device, superblock, root)
        end = _walk(found.batches, root.batch_sequence, root.batch_crc, same_boot=same_boot, name=name,
                    unread=found.unread)
        awaited = [superblock.geometry.segment_start(segment) + block for segment, block in end.awaited]
        if not awaited or not patience.until_any_readable(device, awaited):
            break
    return _judge(end, same_boot=same_boot, name=name, replicated=replicated)


def scan(device: Device, superblock: Superblock, root: Root) -> Scan:
    """Every batch of the last life where the log can have been, and what could not be read there."""
    geometry = superblock.geometry
    generations = root.segments["generation"]
    reader = _SegmentReader(device, geometry, superblock)
    opened = root.open_segments()
    for number in opened:
        reader.classes[number] = int(root.segments["segment_class"][number])
    found = [reader.batches(number, int(generations[number]), written) for number, written in opened.items()]
    lookahead = max(EMPTY_SEGMENTS_MAX, config.RECOVERY_LOOKAHEAD_BYTES // geometry.segment_bytes)
    empty = searched = 0
    for number in root.plan.tolist():
        # a segment enters its next generation when the log enters it
        batches = reader.batches(number, (int(generations[number]) + 1) & 0xFFFFFFFF)
        searched += 1
        empty = 0 if len(batches) else empty + 1
        found.append(batches)
        if empty >= lookahead:
            break
    unread = Unread(frozenset(reader.unreadable), geometry.segment_blocks, reader.classes, opened,
                    tuple(root.plan[:searched].tolist()))
    return Scan(np.concatenate([np.zeros(0, BATCH_INFO), *found]), unread)


def decide(found: Infos, start_sequence: int, start_crc: int, *, same_boot: bool, name: str,
           replicated: bool = False, unread: Unread | None = None) -> Recovery:
    """Walk the chain from the checkpoint to the first batch that does not count (D1-D7)."""
    end = _walk(found, start_sequence, start_crc, same_boot=same_boot, name=name, unread=unread or Unread())
    return _judge(end, same_boot=same_boot, name=name, replicated=replicated)


def _walk(found: Infos, start_sequence: int, start_crc: int, *, same_boot: bool, name: str,
          unread: Unread) -> _End:
    log = _in_order(found, start_sequence)
    count = 0
    damaged: list[int] = []
    awaited: list[Place] = []
    while True:
        count += _sound_prefix(log[count:], start_sequence + count, _crc_before(log, count, start_crc))
        k = start_sequence + count + 1
        here = log[count] if count < len(log) and log[count]["sequence"] == k else None
        if here is not None and here["previous_crc"] != _crc_before(log, count, start_crc):
            raise errors.CorruptionError(_place(name, here), f"batch {k} that names the one before it (D5)",
                                         f"previous checksum {here['previous_crc']:#010x}")
        later = log[count + 1:] if here is not None else log[count:]
        verdict = _verdict(later, k, same_boot)
        if here is None or not (verdict == "corruption" or here["fault"] == FAULT_UNREAD):
            break
        if verdict != "corruption":
            awaited += unread.of_payload(here)
        damaged.append(k)
        count += 1
    unreadable = unread.begins(found[found["sequence"] < k]) if here is None else []
    awaited += unreadable
    if verdict != "corruption":
        awaited += unread.begins(found)      # what a later batch proves, no earlier one does
    return _End(k, log[:count], tuple(damaged), here is not None, later, verdict, tuple(unreadable),
                tuple(awaited))


def _judge(end: _End, *, same_boot: bool, name: str, replicated: bool) -> Recovery:
    k, log = end.k, end.log
    proven = not end.present and end.verdict == "corruption"
    if (proven or end.unreadable) and replicated:
        reason = "was written and is gone" if proven else f"may stand in {_unreadable(end.unreadable)} (D7)"
        return Recovery(_places(log), k - 1, True, end.damaged,
                        f"batch {k} {reason}: cut there, to be learned anew", True)
    if proven:
        seen = f", and {_unreadable(end.unreadable)}" if end.unreadable else ""
        raise errors.CorruptionError(
            _behind(name, end), f"batch {k}",
            f"none, though batch {end.later[-1]['sequence']} proves that it was written (D1, D2){seen}")
    if end.unreadable:
        raise errors.CorruptionError(_behind(name, end), f"batch {k}, or the end of the log",
                                     f"{_unreadable(end.unreadable)}: the batch may stand there (D7)")
    return Recovery(_places(log), k - 1, end.verdict == "lost" or not same_boot, end.damaged,
                    _reason(end.verdict, k, end.present, len(end.later), same_boot))


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


def _behind(name: str, end: _End) -> str:
    at = _place(name, end.log[-1]) if len(end.log) else f"{name}: at the checkpoint"
    return f"{at}, after batch {end.k - 1}"


def _unreadable(places: tuple[Place, ...]) -> str:
    segment, block = places[0]
    return f"block {block} of segment {segment}, which cannot be read"


class _SegmentReader:
    """Reads whole segments into one buffer, lists the batches in them, and remembers what it could not
    read (D7)."""

    def __init__(self, device: Device, geometry: Geometry, superblock: Superblock) -> None:
        self.device = device
        self.geometry = geometry
        self.superblock = superblock
        self.buffer = bytearray(geometry.segment_bytes)
        self.found = np.zeros(geometry.segment_blocks, BATCH_INFO)
        self.unreadable: set[Place] = set()
        self.classes: dict[int, int] = {}      # of segments in which a batch was found

    def batches(self, number: int, generation: int, first_block: int = 0) -> Infos:
        """The batches of one use of a segment from a block on, in the order they lie."""
        first = first_block * BLOCK_SIZE
        self.buffer[:first] = bytes(first)
        for offset, length in self._steps(first):
            self._read(number, offset, length)
        count = scan_segment(self.buffer, self.superblock.store_id, self.superblock.life_id, number,
                             generation, self.found.view(np.uint8))
        if count:
            at = int(self.found[0]["offset_blocks"]) * BLOCK_SIZE
            header = np.frombuffer(self.buffer, batch_header_t, 1, at)[0]
            self.classes[number] = int(header["segment_class"])
        found = self.found[:count].copy()
        for batch in found:
            self._look_past_unreadable(batch)
        return found

    def _look_past_unreadable(self, batch: np.void) -> None:
        """Zeros stand in the buffer for what could not be read: of such a payload the rest decides (D7)."""
        places = payload_places(batch)
        if self.unreadable.isdisjoint(places):
            return
        start = (int(batch["offset_blocks"]) + 1) * BLOCK_SIZE
        found = crc32c_blocks(memoryview(self.buffer)[start:start + len(places) * BLOCK_SIZE])
        # they grow down from the end of the header block
        expected = np.frombuffer(self.buffer, "<u4", len(places), start - len(places) * CHECKSUM_BYTES)[::-1]
        wrong = {place for place, differs in zip(places, expected != found, strict=True) if differs}
        batch["fault"] = FAULT_BAD_PAYLOAD if wrong - self.unreadable else FAULT_UNREAD

    def _steps(self, first: int) -> Iterator[tuple[int, int]]:
        end, step = self.geometry.segment_bytes, config.RECOVERY_READ_BYTES
        for offset in range(first, end, step):
            yield offset, min(step, end - offset)

    def _read(self, number: int, offset: int, length: int) -> None:
        """Blocks that cannot be read become zeros here, and are remembered."""
        target = memoryview(self.buffer)
        start = self.geometry.segment_start(number) * BLOCK_SIZE
        try:
            target[offset:offset + length] = self.device.read(start + offset, length)
        except OSError:
            if length == BLOCK_SIZE:
                target[offset:offset + length] = bytes(length)
                self.unreadable.add((number, offset // BLOCK_SIZE))
                return
            for block in range(offset, offset + length, BLOCK_SIZE):
                self._read(number, block, BLOCK_SIZE)
