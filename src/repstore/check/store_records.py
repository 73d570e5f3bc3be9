"""The records in the segments: every living block was brought by one that says so.

A segment in use is a row of batches of one use, in which a life goes on where the one before it ended.
Their headers name for each payload block a volume, an LBA and a checksum: what a map says of the same
place must be the same.

  R1 a living block has a record that names its volume, its LBA and the checksum in the map
  R2 with `data` the block itself has that checksum, whether a record is there or not
  R3 behind a damaged header the search goes on block by block, so that it hides nothing but its own. What
     an earlier life had written where a later one went on is none of its batches any more
  R4 segments are looked at in order, and a `Position` says how far: it may be stopped and go on there
"""
from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from repstore._fast import inspection
from repstore._fast.checksum import crc32c, crc32c_blocks
from repstore._fast.control import Engine
from repstore.check import store_maps
from repstore.check.findings import Report
from repstore.check.position import Position
from repstore.check.progress import Progress
from repstore.format import (
    BATCH_AREA_BYTES,
    BATCH_HEADER_BYTES,
    BATCH_MAGIC,
    BATCH_PAYLOAD_BLOCKS,
    BLOCK_SIZE,
    DESCRIPTOR_BYTES,
    OP_COPY,
    OP_MOVE,
    OP_WRITE,
    SEGMENT_EMPTY,
    SEGMENT_FREE,
    batch_header_t,
    descriptor_t,
    extent_t,
)
from repstore.store.device import Device
from repstore.store.geometry import Geometry
from repstore.store.superblock import Superblock

PAYLOAD = np.dtype([("volume", "<u4"), ("lba", "<u8"), ("crc", "<u4"), ("record", "<u4")])


def check_records(device: Device, engine: Engine, state: Superblock, owners: NDArray[np.uint8],
                  report: Report, *, data: bool, position: Position, progress: Progress) -> None:
    """R1, R2 for every segment in use, from `position` on (R4)."""
    geometry = state.geometry
    segments = store_maps.read_segments(engine, geometry)
    in_use = np.flatnonzero(~np.isin(segments["state"], (SEGMENT_FREE, SEGMENT_EMPTY))).tolist()
    found = position.begin(state, report.store, data=data)
    try:
        for done, number in enumerate(in_use):
            progress("segments", done, len(in_use))
            if number < position.segment:
                continue
            start = geometry.segment_start(number)
            living = owners[start:start + geometry.segment_blocks] > 0
            reader = SegmentReader(device, state, number, int(segments["generation"][number]))
            left = _check_segment(device, engine, reader, start, living, found, data=data)
            position.pass_segment(number, left, found)
        if position.unexplained:
            unexplained = np.zeros(geometry.total_blocks, bool)
            unexplained[position.unexplained] = True
            _report_unexplained(device, engine, unexplained, found, data=data)
    finally:
        report.include(found)


def _check_segment(device: Device, engine: Engine, reader: SegmentReader, start: int,
                   living: NDArray[np.bool_], report: Report, *, data: bool) -> list[int]:
    """R1, R2 of one; the living blocks that no record brought."""
    explained = np.zeros(len(living), bool)
    for offset, payload in reader.batches() if living.any() else ():
        report.checked["batches in segments"] += 1
        if not len(payload):
            continue
        _check_batch(device, engine, start + offset + 1, payload, explained[offset + 1:], report, data=data)
        if explained[living].all():
            break
    left: list[int] = (start + np.flatnonzero(living & ~explained)).tolist()
    return left


class BlockReader(Protocol):
    """Where a SegmentReader reads."""

    def read(self, offset: int, length: int) -> memoryview: ...


class SegmentReader:
    """The batches of one use of a segment."""

    def __init__(self, device: BlockReader, state: Superblock, number: int, generation: int) -> None:
        self._device = device
        self._state = state
        self._number = number
        self._generation = generation
        self._life_id: int | None = None
        self._ended: set[int | None] = set()       # lives behind which another one went on

    def batches(self) -> Iterator[tuple[int, NDArray[np.void]]]:
        """(offset of the header, PAYLOAD of the blocks behind it), in the order they lie (R3)."""
        geometry = self._state.geometry
        offset = 0
        while offset < geometry.segment_blocks:
            block = self._read(geometry, offset)
            payload = None if block is None else self.parse(block, offset)
            if payload is None or offset + 1 + len(payload) > geometry.segment_blocks:
                offset += 1
                continue
            yield offset, payload
            offset += 1 + len(payload)

    def parse(self, block: memoryview, offset: int) -> NDArray[np.void] | None:
        """What a header block says of its payload; None if it is no header of this use."""
        header = np.frombuffer(block, batch_header_t, 1)[0]
        if (header["magic"] != BATCH_MAGIC or header["store_id"] != self._state.store_id
                or header["segment"] != self._number or header["generation"] != self._generation
                or header["offset_blocks"] != offset or header["payload_blocks"] > BATCH_PAYLOAD_BLOCKS
                or int(header["life_id"]) in self._ended):
            return None
        room = int(header["descriptor_count"]) * DESCRIPTOR_BYTES + int(header["payload_blocks"]) * 4
        if room > BATCH_AREA_BYTES or crc32c(bytes(block[:4]) + bytes(4) + bytes(block[8:])) != header["crc"]:
            return None
        payload = _payload(block, int(header["descriptor_count"]), int(header["payload_blocks"]))
        if payload is not None and int(header["life_id"]) != self._life_id:
            self._ended.add(self._life_id)
            self._life_id = int(header["life_id"])
        return payload

    def _read(self, geometry: Geometry, offset: int) -> memoryview | None:
        try:
            return self._device.read((geometry.segment_start(self._number) + offset) * BLOCK_SIZE, BLOCK_SIZE)
        except OSError:
            return None


def _payload(block: memoryview, records: int, blocks: int) -> NDArray[np.void] | None:
    """Volume, LBA, checksum and record of each payload block; None if the counts contradict."""
    descriptors = np.frombuffer(block, descriptor_t, records, BATCH_HEADER_BYTES)
    brings = np.isin(descriptors["operation"], (OP_WRITE, OP_MOVE, OP_COPY))
    lengths = np.where(brings, descriptors["blocks"], 0).astype(np.int64)
    if lengths.sum() != blocks or (lengths > BATCH_PAYLOAD_BLOCKS).any():
        return None
    payload = np.zeros(blocks, PAYLOAD)
    of = np.repeat(np.arange(records), lengths)
    first = np.repeat(np.cumsum(lengths) - lengths, lengths)
    payload["volume"] = descriptors["volume"][of]
    payload["lba"] = descriptors["lba"][of] + (np.arange(blocks) - first).astype(np.uint64)
    payload["record"] = of
    payload["crc"] = np.frombuffer(block, np.uint32)[len(block) // 4 - blocks:][::-1]
    return payload


def _check_batch(device: Device, engine: Engine, location: int, payload: NDArray[np.void],
                 explained: NDArray[np.bool_], report: Report, *, data: bool) -> None:
    """R1 for the blocks of one batch that live, and R2."""
    entries = _map_of(engine, payload)
    here = entries["location"] == location + np.arange(len(payload))
    explained[:len(payload)] |= here
    for i in np.flatnonzero(here & (entries["crc"] != payload["crc"])):
        report.add("record", _where(engine, int(payload["volume"][i]), int(payload["lba"][i]), entries[i]),
                   f"checksum {int(entries['crc'][i]):#010x}, as the map says",
                   f"{int(payload['crc'][i]):#010x}")
    if data:
        for i in np.flatnonzero(here):
            check_block(device, engine, int(payload["volume"][i]), int(payload["lba"][i]), entries[i], report)


def _map_of(engine: Engine, payload: NDArray[np.void]) -> NDArray[np.void]:
    """The map entries of the blocks that a batch names; zeros for volumes that are gone."""
    entries = np.zeros(len(payload), extent_t)
    sizes = {index: engine.volume_state(index).size_blocks for index in engine.volume_indexes()}
    edges = np.flatnonzero(np.diff(payload["record"])) + 1
    for part in np.split(np.arange(len(payload)), edges):
        volume, lba = int(payload["volume"][part[0]]), int(payload["lba"][part[0]])
        if volume in sizes and lba + len(part) <= sizes[volume]:
            inspection.read_map(engine, volume, lba, entries[part[0]:part[-1] + 1].view(np.uint8))
    return entries


def _where(engine: Engine, index: int, lba: int, entry: np.void) -> str:
    """A block as people know it: by the name of its volume, as in every finding."""
    name = engine.volume_state(index).name
    return f"volume {name}, block {lba}, block {int(entry['location'])} of the store"


def check_block(device: Device, engine: Engine, index: int, lba: int, entry: np.void,
                report: Report) -> None:
    """Is a block what the map says (R2)?"""
    report.checked["blocks of data"] += 1
    try:
        block = device.read(int(entry["location"]) * BLOCK_SIZE, BLOCK_SIZE)
    except OSError as error:
        report.add("data", _where(engine, index, lba, entry), "a readable block", error.strerror)
        return
    found = int(crc32c_blocks(block)[0])
    if found != entry["crc"]:
        report.add("data", _where(engine, index, lba, entry), f"checksum {int(entry['crc']):#010x}",
                   f"{found:#010x}")


def _report_unexplained(device: Device, engine: Engine, unexplained: NDArray[np.bool_], report: Report, *,
                        data: bool) -> None:
    """Who points to the blocks that no record brought?"""
    for index, first, entries in store_maps.map_pages(engine):
        inside = entries["location"] < len(unexplained)
        for i in np.flatnonzero(inside & unexplained[np.where(inside, entries["location"], 0)]):
            where = _where(engine, index, first + int(i), entries[i])
            report.add("record", where, "a record that brought it", "none: its batch header is damaged")
            if data:
                check_block(device, engine, index, first + int(i), entries[i], report)
