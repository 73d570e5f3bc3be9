"""The checkpoint root: segment table, plan, volumes. Everything but the pages it points to.

    root_header_t | segment_entry_t x segments | u32 plan x plan_count | volumes
    a volume: volume_entry_t | pending_t x pending_count | u32 crc x pending_crcs | trees
    a tree:   tree_entry_t | page_reference_t x directory_count      (map first, then bitmaps)

  R1 every count is compared with its limit and with the bytes that are left before it is used
  R2 the plan names each of its segments once, and nothing lives in one of them
  R3 at most one segment a class is open, and no open one stands in the plan; it is not written further
     than it has blocks
  R4 pending records lie inside their volume and cover (commit_lsn, last_lsn] without a gap;
     each of their payload blocks has its checksum
  R5 a volume's number and name are its own
  R6 nothing is left over
"""
import re
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from repstore import config, errors
from repstore._fast.checksum import crc32c
from repstore.format import (
    DIRECTORY_ENTRIES,
    GENERATIONS_MAX,
    LINEAGE_ENTRIES,
    OP_WRITE,
    PAGE_ENTRIES,
    ROOT_MAGIC,
    ROOT_VERSION,
    SEGMENT_CLASSES,
    SEGMENT_EMPTY,
    SEGMENT_FREE,
    SEGMENT_OPEN,
    page_reference_t,
    pending_t,
    root_header_t,
    segment_entry_t,
    tree_entry_t,
    volume_entry_t,
)
from repstore.store.device import Bytes, Device
from repstore.store.geometry import Geometry
from repstore.store.superblock import Superblock

NUMBER = np.dtype("<u4")       # an entry of the plan, or a checksum
Records = NDArray[np.void]
Numbers = NDArray[np.uint32]


@dataclass(frozen=True, slots=True)
class Tree:
    """A volume's extent map, or one of its change bitmaps: where its directories lie."""

    base_lsn: int
    directories: Records


@dataclass(frozen=True, slots=True)
class Volume:
    """One copy of a volume as the checkpoint has it; `entry` is its volume_entry_t."""

    entry: np.void
    pending: Records
    pending_crcs: Numbers
    trees: tuple[Tree, ...]

    @property
    def name(self) -> str:
        return bytes(self.entry["name"]).decode("ascii")


@dataclass(frozen=True, slots=True)
class Root:
    """A checkpoint. The log after batch `batch_sequence` is still to be replayed on it."""

    batch_sequence: int
    batch_crc: int
    segments: Records
    plan: Numbers
    volumes: tuple[Volume, ...] = ()

    def open_segments(self) -> dict[int, int]:
        """Segments the log was writing when the checkpoint was made, and may have gone on with, and how many
        blocks of each were written by then; 0: not known."""
        opened = np.flatnonzero(self.segments["state"] == SEGMENT_OPEN).tolist()
        return {number: int(self.segments["written_blocks"][number]) for number in opened}


def empty(geometry: Geometry) -> Root:
    """The root of a new store: no volume, and every segment may be entered."""
    return Root(0, 0, np.zeros(geometry.segment_count, segment_entry_t),
                np.arange(geometry.segment_count, dtype=np.uint32))


def encode(root: Root) -> bytes:
    """The bytes of a root."""
    parts = [root.segments.tobytes(), root.plan.astype(NUMBER).tobytes()]
    for volume in root.volumes:
        entry = np.array(volume.entry, volume_entry_t)
        entry["pending_count"] = len(volume.pending)
        entry["pending_crcs"] = len(volume.pending_crcs)
        entry["tree_count"] = len(volume.trees)
        parts += [entry.tobytes(), volume.pending.tobytes(), volume.pending_crcs.astype(NUMBER).tobytes()]
        for tree in volume.trees:
            head = np.zeros(1, tree_entry_t)
            head["base_lsn"] = tree.base_lsn
            head["directory_count"] = len(tree.directories)
            parts += [head.tobytes(), tree.directories.tobytes()]
    header = np.zeros(1, root_header_t)
    header["magic"] = ROOT_MAGIC
    header["version"] = ROOT_VERSION
    header["batch_sequence"] = root.batch_sequence
    header["batch_crc"] = root.batch_crc
    header["segment_count"] = len(root.segments)
    header["plan_count"] = len(root.plan)
    header["volume_count"] = len(root.volumes)
    header["root_bytes"] = root_header_t.itemsize + sum(map(len, parts))
    return b"".join([header.tobytes(), *parts])


def read(device: Device, superblock: Superblock, name: str) -> bytes:
    """The bytes of the current root, as long as the superblock says and with its checksum."""
    geometry = superblock.geometry
    block_bytes = geometry.size_bytes // geometry.total_blocks
    where = f"{name}: root area {superblock.root_area}"
    length = -(-superblock.root_bytes // block_bytes) * block_bytes
    if not root_header_t.itemsize <= superblock.root_bytes <= geometry.root_bytes_max:
        raise errors.CorruptionError(where, f"{root_header_t.itemsize} to {geometry.root_bytes_max} bytes",
                                     f"{superblock.root_bytes} bytes")
    try:
        data = bytes(device.read(geometry.root_start(superblock.root_area) * block_bytes, length))
    except OSError as error:
        raise errors.CorruptionError(where, "a readable root", error) from error
    data = data[:superblock.root_bytes]
    if crc32c(data) != superblock.root_crc:
        raise errors.CorruptionError(where, f"checksum {superblock.root_crc:#010x}", f"{crc32c(data):#010x}")
    return data


def read_either(device: Device, superblock: Superblock, name: str) -> tuple[bytes, int]:
    """The current root and the area it was found in: the one the superblock names, or the other
    one, which holds the same root unless a crash came between. A CorruptionError has an OSError as its
    cause if one of them could not be read."""
    try:
        return read(device, superblock, name), superblock.root_area
    except errors.CorruptionError as error:
        other = replace(superblock, root_area=1 - superblock.root_area)
        try:
            return read(device, other, name), other.root_area
        except errors.CorruptionError as second:
            raise error from error.__cause__ or second.__cause__


def decode(data: Bytes, geometry: Geometry, where: str = "root") -> Root:
    """The root in `data`, every rule checked; CorruptionError names what is wrong."""
    cursor = _Cursor(bytes(data), where)
    header = cursor.records(root_header_t, 1, 1, "header")[0]
    cursor.expect("magic", ROOT_MAGIC, header["magic"])
    if header["version"] > ROOT_VERSION:
        raise errors.FormatVersionError(f"{where} of version {header['version']}, "
                                        f"this repstore reads up to {ROOT_VERSION}")
    cursor.expect("version", ROOT_VERSION, header["version"])
    cursor.expect("length", len(data), header["root_bytes"])
    cursor.expect("segments", geometry.segment_count, header["segment_count"])
    segments = cursor.records(segment_entry_t, geometry.segment_count, geometry.segment_count, "segments")
    plan = cursor.numbers(header["plan_count"], geometry.segment_count, "plan")
    _check_segments(cursor, segments, plan, geometry)
    volume_count = cursor.bounded(header["volume_count"], config.VOLUMES_MAX, "volumes")
    volumes = tuple(_decode_volume(cursor, geometry) for _ in range(volume_count))
    for what in ("index", "name"):
        if len({volume.entry[what] for volume in volumes}) != volume_count:
            cursor.refuse("volumes", f"{volume_count} different of {what}", "one twice")
    cursor.expect("bytes left", 0, cursor.left)
    return Root(int(header["batch_sequence"]), int(header["batch_crc"]), segments, plan, volumes)


class _Cursor:
    """Takes a root apart from front to back and never reads past its end (R1)."""

    def __init__(self, data: bytes, where: str) -> None:
        self.data = data
        self.where = where
        self.offset = 0

    @property
    def left(self) -> int:
        return len(self.data) - self.offset

    def refuse(self, what: str, expected: object, found: object) -> None:
        raise errors.CorruptionError(f"{self.where}, byte {self.offset}, {what}", expected, found)

    def expect(self, what: str, expected: int, found: Any) -> None:
        if expected != found:
            self.refuse(what, expected, found)

    def bounded(self, count: Any, limit: int, what: str) -> int:
        if count > limit:
            self.refuse(what, f"at most {limit}", count)
        return int(count)

    def records(self, dtype: np.dtype[Any], count: Any, limit: int, what: str) -> Records:
        length = self.bounded(count, limit, what) * dtype.itemsize
        if length > self.left:
            self.refuse(what, f"{length} bytes", f"{self.left} left")
        found = np.frombuffer(self.data, dtype, int(count), self.offset)
        self.offset += length
        return found

    def numbers(self, count: Any, limit: int, what: str) -> Numbers:
        return self.records(NUMBER, count, limit, what).view(np.uint32)


def _check_segments(cursor: _Cursor, segments: Records, plan: Numbers, geometry: Geometry) -> None:
    if (segments["state"] > SEGMENT_EMPTY).any() or (segments["segment_class"] >= SEGMENT_CLASSES).any():
        cursor.refuse("segments", "known states and classes", "an unknown one")
    if (segments["live"] > geometry.segment_blocks).any():
        cursor.refuse("segments", f"at most {geometry.segment_blocks} live blocks", segments["live"].max())
    if len(plan) and plan.max() >= geometry.segment_count:
        cursor.refuse("plan", f"segments below {geometry.segment_count}", plan.max())
    if len(np.unique(plan)) != len(plan):
        cursor.refuse("plan", "every segment once", "one twice")
    ahead = segments[plan]
    if ahead["live"].any() or not np.isin(ahead["state"], (SEGMENT_FREE, SEGMENT_EMPTY)).all():
        cursor.refuse("plan", "empty segments", "one with live blocks, or in use")
    opened = segments["segment_class"][segments["state"] == SEGMENT_OPEN]
    if len(np.unique(opened)) != len(opened):
        cursor.refuse("segments", "one open segment a class", f"{len(opened)} open")
    if (segments["written_blocks"] > geometry.segment_blocks).any():
        cursor.refuse("segments", f"at most {geometry.segment_blocks} written blocks",
                      segments["written_blocks"].max())


def _decode_volume(cursor: _Cursor, geometry: Geometry) -> Volume:
    entry = cursor.records(volume_entry_t, 1, 1, "volume")[0]
    _check_volume(cursor, entry)
    pending = cursor.records(pending_t, entry["pending_count"], config.PENDING_RECORDS_MAX, "pending records")
    crcs = cursor.numbers(entry["pending_crcs"], config.PENDING_BLOCKS_MAX, "pending checksums")
    _check_pending(cursor, entry, pending, crcs, geometry)
    tree_count = cursor.bounded(entry["tree_count"], 1 + GENERATIONS_MAX, "trees")
    directories_max = -(-int(entry["size_blocks"]) // (PAGE_ENTRIES * DIRECTORY_ENTRIES))
    trees = []
    for _ in range(tree_count):
        head = cursor.records(tree_entry_t, 1, 1, "tree")[0]
        directories = cursor.records(page_reference_t, head["directory_count"], directories_max,
                                     "directories")
        if (directories["slot"] >= geometry.page_slots).any():
            cursor.refuse("directories", f"page slots below {geometry.page_slots}",
                          directories["slot"].max())
        trees.append(Tree(int(head["base_lsn"]), directories))
    return Volume(entry, pending, crcs, tuple(trees))


def _check_volume(cursor: _Cursor, entry: np.void) -> None:
    # numpy strips the zero bytes at the end: a full field would have no end for C
    name = bytes(entry["name"])
    if len(name) > config.VOLUME_NAME_BYTES_MAX or not re.search(
            config.NAME_PATTERN, name.decode("ascii", "replace")):
        cursor.refuse("volume name", config.NAME_RULE, repr(name))
    size_blocks_max = config.VOLUME_BYTES_MAX // config.VOLUME_BYTES_MIN
    if not 1 <= entry["size_blocks"] <= size_blocks_max:
        cursor.refuse("volume size", f"1 to {size_blocks_max} blocks", entry["size_blocks"])
    cursor.bounded(entry["index"], config.VOLUME_INDEXES_MAX - 1, "volume index")
    cursor.bounded(entry["lineage_count"], LINEAGE_ENTRIES, "lineage")
    if entry["commit_lsn"] > entry["last_lsn"]:
        cursor.refuse("volume", f"commit at or before LSN {entry['last_lsn']}", entry["commit_lsn"])
    if entry["tree_count"] == 0:
        cursor.refuse("trees", "an extent map", "none")


def _check_pending(cursor: _Cursor, entry: np.void, pending: Records, crcs: Numbers,
                   geometry: Geometry) -> None:
    lsn = int(entry["commit_lsn"])
    payload_blocks = 0
    for record in pending:
        blocks, lba = int(record["blocks"]), int(record["lba"])
        if int(record["lsn"]) != lsn + 1 or not 1 <= blocks <= int(entry["size_blocks"]) - lba:
            cursor.refuse("pending record", f"LSN {lsn + 1}, inside {entry['size_blocks']} blocks",
                          f"LSN {record['lsn']}, {blocks} blocks at {lba}")
        if record["operation"] == OP_WRITE:
            payload_blocks += blocks
            location = int(record["location"])
            if not geometry.segment_base <= location <= geometry.total_blocks - blocks:
                cursor.refuse("pending record", "a location in the segments", location)
        lsn += blocks
    cursor.expect("last LSN of the pending records", int(entry["last_lsn"]), lsn)
    cursor.expect("pending checksums", payload_blocks, len(crcs))
