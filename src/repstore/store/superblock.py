"""The superblock: four copies of one block that say which store this is and where its root is.

  S1 a copy counts only if checksum, magic, copy number and bounds are right and it stands
     where its own geometry puts it: torn, rotten and misdirected ones do not count
  S2 a store opens with the state that two copies of four agree on, the one with the highest
     sequence. The newest single copy would not do: one stray block would outvote the rest
  S3 writing: two copies, flush, the other two, flush; those that lag behind the state that was
     opened come first. A crash in between leaves two copies of the old state or two of the new
  S4 a newer major version, or an unknown incompatible feature, is refused, whatever follows
  S5 where both ends are damaged the inner copies are looked for at every place where `create`
     can have put them
  S6 a store may be smaller than its device, which grew, or was larger from the first: copy 3 is at no
     known place then. With copy 0 damaged the others are searched: a root, of which the headers stand in
     the first 24 MiB, tells how many segments the store has, and so nearly where its copies are. They
     count as ever (S1, S2). No device is read through: where both roots are gone with copy 0 there is no
     store to be saved, and a blank device of any size is known for one after those 24 MiB
  S7 "not a store" is said only where everything that was looked at could be read, and no superblock that
     is whole, no magic in block 0 and no root in block 1 was there
"""
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from repstore import config, errors
from repstore._fast.checksum import crc32c
from repstore.format import (
    BLOCK_SIZE,
    FEATURES_INCOMPAT,
    FEATURES_RO_COMPAT,
    FORMAT_MAJOR,
    FORMAT_MINOR,
    ROOT_MAGIC,
    SUPERBLOCK_COPIES,
    SUPERBLOCK_MAGIC,
    SUPERBLOCK_READ_QUORUM,
    root_header_t,
    superblock_t,
)
from repstore.store import geometry as layout
from repstore.store.device import Bytes, Device
from repstore.store.geometry import Geometry

CRC_OFFSET = 4
_SUPERBLOCK_MARK = SUPERBLOCK_MAGIC.to_bytes(4, "little")
_ROOTS_FOLLOWED = 4       # different ones: a store has two of the same, a payload may look like others


@dataclass(frozen=True, slots=True)
class Superblock:
    """One state of the store; the same in all four copies."""

    geometry: Geometry
    store_uuid: bytes
    sequence: int
    life_id: int
    boot_id: bytes
    clean: bool
    root_area: int
    root_bytes: int
    root_crc: int
    parent_crc: int = 0
    format_major: int = FORMAT_MAJOR
    format_minor: int = FORMAT_MINOR
    feature_compat: int = 0
    feature_ro_compat: int = 0
    feature_incompat: int = 0

    @property
    def store_id(self) -> int:
        """What every batch of this store carries: the first half of the uuid."""
        return int.from_bytes(self.store_uuid[:8], "little")


@dataclass(frozen=True, slots=True)
class Found:
    """What a quorum agreed on: its meaning, one of its blocks, and which copies agree."""

    superblock: Superblock
    block: bytes
    agreeing: tuple[int, ...]

    @property
    def copies(self) -> int:
        """How many agree."""
        return len(self.agreeing)

    @property
    def lagging(self) -> tuple[int, ...]:
        """The others: damaged, or of another state. They are written first (S3)."""
        return tuple(copy for copy in range(SUPERBLOCK_COPIES) if copy not in self.agreeing)


def encode(superblock: Superblock, copy_number: int) -> bytes:
    """The block of one copy."""
    geometry = superblock.geometry
    fields = np.zeros(1, superblock_t)
    fields["magic"] = SUPERBLOCK_MAGIC
    fields["copy_number"] = copy_number
    for name in ("format_major", "format_minor", "feature_compat", "feature_ro_compat",
                 "feature_incompat", "sequence", "parent_crc", "clean", "life_id", "root_area",
                 "root_bytes", "root_crc"):
        fields[name] = getattr(superblock, name)
    for name in ("total_blocks", "segment_blocks", "segment_count", "root_blocks", "page_slots"):
        fields[name] = getattr(geometry, name)
    fields["store_uuid"] = np.frombuffer(superblock.store_uuid, np.uint8)
    fields["boot_id"] = np.frombuffer(superblock.boot_id, np.uint8)
    block = bytearray(BLOCK_SIZE)
    block[:superblock_t.itemsize] = fields.tobytes()
    block[CRC_OFFSET:CRC_OFFSET + 4] = crc32c(block).to_bytes(4, "little")
    return bytes(block)


def decode(block: Bytes, copy_number: int) -> Superblock | None:
    """The copy in `block`, or None if it does not count (S1). FormatVersionError as S4."""
    raw = bytes(block)
    if len(raw) != BLOCK_SIZE or not _checksum_holds(raw):
        return None
    fields = np.frombuffer(raw, superblock_t, 1)[0]
    if fields["magic"] != SUPERBLOCK_MAGIC:
        return None
    _check_version(fields)
    if fields["copy_number"] != copy_number:
        return None
    geometry = Geometry(*(int(fields[name]) for name in (
        "total_blocks", "segment_blocks", "segment_count", "root_blocks", "page_slots")))
    try:
        geometry.check()
    except errors.ConfigError:
        return None
    if fields["root_area"] > 1 or fields["root_bytes"] > geometry.root_bytes_max or fields["clean"] > 1:
        return None
    return Superblock(
        geometry=geometry, store_uuid=fields["store_uuid"].tobytes(), sequence=int(fields["sequence"]),
        life_id=int(fields["life_id"]), boot_id=fields["boot_id"].tobytes(), clean=bool(fields["clean"]),
        root_area=int(fields["root_area"]), root_bytes=int(fields["root_bytes"]),
        root_crc=int(fields["root_crc"]), parent_crc=int(fields["parent_crc"]),
        format_major=int(fields["format_major"]), format_minor=int(fields["format_minor"]),
        feature_compat=int(fields["feature_compat"]), feature_ro_compat=int(fields["feature_ro_compat"]),
        feature_incompat=int(fields["feature_incompat"]))


def read(device: Device, name: str) -> Found:
    """What the copies on `device` agree on (S2); `name` says in errors which store it is.

    A CorruptionError for want of a quorum has an OSError as its cause if a copy could not be read.
    """
    try:
        return _read_quorum(device, name)
    except errors.FormatVersionError as error:
        raise errors.FormatVersionError(f"{name}: {error}") from None


def _read_quorum(device: Device, name: str) -> Found:
    if device.size_bytes < config.STORE_BYTES_MIN:
        raise errors.ConfigError(f"{name} is not a store: {device.size_bytes // BLOCK_SIZE} whole blocks of "
                                 f"{BLOCK_SIZE} bytes, at least {config.STORE_BYTES_MIN // BLOCK_SIZE}")
    ends = [_read_copy(device, 0, 0), _read_copy(device, device.size_bytes // BLOCK_SIZE - 1, 3)]
    geometries = list(dict.fromkeys(copy[0].geometry for copy in ends if copy))
    _refuse_truncated(device, geometries, name)
    found = _agreed(device, geometries) or _agreed(device, layout.possible(device.size_bytes))
    if found is not None:
        return found
    search = _Search(device)
    remains = [copy for position, block in search.remains() if (copy := _decode_at(position, block))]
    geometries = list(dict.fromkeys(superblock.geometry for superblock in remains))
    _refuse_truncated(device, geometries, name)
    found = _agreed(device, geometries)
    if found is not None:
        return found
    if any(ends) or remains or search.error or _carries_magic(device):
        raise errors.CorruptionError(
            name, f"{SUPERBLOCK_READ_QUORUM} superblocks of {SUPERBLOCK_COPIES} that agree",
            "none or one that is whole: damaged beyond its copies") from search.error
    raise errors.ConfigError(f"{name} is not a store: no superblock in it")


def write(device: Device, superblock: Superblock) -> None:
    """All four copies, in the order of S3."""
    positions = superblock.geometry.superblock_positions
    for pair in ((0, 1), (2, 3)):
        for copy_number in pair:
            device.write(positions[copy_number] * BLOCK_SIZE, encode(superblock, copy_number))
        device.flush()


def check_writable(superblock: Superblock, name: str) -> None:
    """Refuse to write what has features that this code would not keep up."""
    unknown = superblock.feature_ro_compat & ~FEATURES_RO_COMPAT
    if unknown:
        raise errors.FormatVersionError(f"{name} may only be read: unknown feature bits {unknown:#x}")


def _refuse_truncated(device: Device, geometries: list[Geometry], name: str) -> None:
    for geometry in geometries:
        if geometry.size_bytes > device.size_bytes:
            raise errors.CorruptionError(name, f"{geometry.size_bytes} bytes",
                                         f"{device.size_bytes}: the file was truncated")


def _agreed(device: Device, geometries: list[Geometry]) -> Found | None:
    votes: dict[Superblock, list[int]] = {}
    blocks: dict[Superblock, bytes] = {}
    for geometry in geometries:
        for copy_number, position in enumerate(geometry.superblock_positions):
            copy = _read_copy(device, position, copy_number)
            if copy is not None and copy[0].geometry == geometry:
                votes.setdefault(copy[0], []).append(copy_number)
                blocks.setdefault(*copy)
    agreed = [superblock for superblock, copies in votes.items() if len(copies) >= SUPERBLOCK_READ_QUORUM]
    if not agreed:
        return None
    newest = max(agreed, key=lambda superblock: superblock.sequence)
    return Found(newest, blocks[newest], tuple(votes[newest]))


def _read_copy(device: Device, position: int, copy_number: int) -> tuple[Superblock, bytes] | None:
    if position >= device.size_bytes // BLOCK_SIZE:
        return None
    try:
        block = bytes(device.read(position * BLOCK_SIZE, BLOCK_SIZE))
    except OSError:
        return None     # an unreadable copy is a damaged copy: the quorum decides
    superblock = decode(block, copy_number)
    return None if superblock is None else (superblock, block)


def _decode_at(position: int, block: bytes) -> Superblock | None:
    """The copy in a block that was found, if it is one that belongs there (S1)."""
    number = int(np.frombuffer(block, superblock_t, 1)[0]["copy_number"])
    if number >= SUPERBLOCK_COPIES:
        return None
    superblock = decode(block, number)
    return superblock if superblock and superblock.geometry.superblock_positions[number] == position else None


def _carries_magic(device: Device) -> bool:
    """Whether there was a store: in block 0 its superblock began, in block 1 its root."""
    try:
        front = np.frombuffer(device.read(0, 2 * BLOCK_SIZE), "<u4")
    except OSError:
        return True     # nothing may be said about it, least of all that it is empty
    return bool(front[0] == SUPERBLOCK_MAGIC or front[BLOCK_SIZE // 4] == ROOT_MAGIC)


def remains(device: Device) -> list[int]:
    """The blocks by which a store, or what is left of one, could be found again on this device: of its
    superblocks and of its roots."""
    search = _Search(device)
    return [position for position, _ in search.remains()] + search.roots


class _Search:
    """Looks for superblocks where they may be of a store of unknown size (S6)."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._blocks = device.size_bytes // BLOCK_SIZE
        self.roots: list[int] = []           # blocks in which one begins
        self.error: OSError | None = None    # of a block that could not be read

    def remains(self) -> Iterator[tuple[int, bytes]]:
        """Blocks with magic and checksum of a superblock, and where they are."""
        counts: list[int] = []
        for position, block in self._marked(0, min(layout.FRONT_BLOCKS, self._blocks)):
            if block[:4] == _SUPERBLOCK_MARK:
                yield position, block
            else:
                self.roots.append(position)
                counts.append(int(np.frombuffer(block, root_header_t, 1)[0]["segment_count"]))
        possible = [count for count in dict.fromkeys(counts)
                    if config.SEGMENTS_MIN <= count <= config.SEGMENTS_MAX]
        for count in possible[:_ROOTS_FOLLOWED]:
            for first, end in layout.spans(count, self._blocks):
                for position, block in self._marked(first, end):
                    if block[:4] == _SUPERBLOCK_MARK:
                        yield position, block

    def _marked(self, first: int, end: int) -> Iterator[tuple[int, bytes]]:
        """The blocks in [first, end) that begin as a superblock that is whole, or as a root."""
        step = config.RECOVERY_READ_BYTES // BLOCK_SIZE
        for start in range(first, end, step):
            data = self._read(start, min(step, end - start))
            marks = np.frombuffer(data, "<u4")[::BLOCK_SIZE // 4]
            for i in np.flatnonzero((marks == SUPERBLOCK_MAGIC) | (marks == ROOT_MAGIC)).tolist():
                block = bytes(data[i * BLOCK_SIZE:(i + 1) * BLOCK_SIZE])
                if block[:4] != _SUPERBLOCK_MARK or _checksum_holds(block):
                    yield start + i, block

    def _read(self, start: int, blocks: int) -> Bytes:
        """What cannot be read is zeros here; why is kept (S7)."""
        try:
            return self._device.read(start * BLOCK_SIZE, blocks * BLOCK_SIZE)
        except OSError as error:
            self.error = error
            if blocks == 1:
                return bytes(BLOCK_SIZE)
            return b"".join(self._read(start + i, 1) for i in range(blocks))


def _check_version(fields: np.void) -> None:
    if fields["format_major"] > FORMAT_MAJOR:
        raise errors.FormatVersionError(
            f"store of format {fields['format_major']}.{fields['format_minor']}: "
            f"this repstore reads up to {FORMAT_MAJOR}.{FORMAT_MINOR}")
    unknown = int(fields["feature_incompat"]) & ~FEATURES_INCOMPAT
    if unknown:
        raise errors.FormatVersionError(f"store with unknown feature bits {unknown:#x}")


def _checksum_holds(raw: bytes) -> bool:
    stored = int.from_bytes(raw[CRC_OFFSET:CRC_OFFSET + 4], "little")
    return crc32c(raw[:CRC_OFFSET] + bytes(4) + raw[CRC_OFFSET + 4:]) == stored
