"""Metadata pages as they lie, and where the entries of the maps point.

  M1 both blocks of every page have the checksum its reference names, and no slot is used twice. A
     map page that points outside of the segments is not taken by the engine: all its blocks are lost then
  M2 every entry points into a segment in use, behind a batch header, to a block of its own
  M3 a segment counts as many living blocks as the maps point to
"""
from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from repstore._fast import inspection
from repstore._fast.checksum import crc32c
from repstore._fast.control import Engine
from repstore.check.findings import Report
from repstore.check.progress import Progress
from repstore.format import (
    BLOCK_SIZE,
    DIRECTORY_ENTRIES,
    LOCATION_LOST,
    LOCATION_ZERO,
    PAGE_ENTRIES,
    SEGMENT_EMPTY,
    SEGMENT_FREE,
    extent_t,
    page_reference_t,
)
from repstore.store.device import Device
from repstore.store.geometry import Geometry
from repstore.store.root import Root

SEGMENT_STATE = np.dtype(list(inspection.SEGMENT_FIELDS))
TREE_NAMES = ("map", *(f"change bitmap {number}" for number in range(8)))


def check_pages(device: Device, geometry: Geometry, root: Root, report: Report, progress: Progress) -> None:
    """M1."""
    used: list[NDArray[np.uint32]] = []
    for done, volume in enumerate(root.volumes):
        progress("metadata pages of volumes", done, len(root.volumes))
        for name, tree in zip(TREE_NAMES, volume.trees, strict=False):
            for number, reference in enumerate(tree.directories):
                where = f"volume {volume.name}, {name}, directory {number}"
                page = _read_page(device, geometry, reference, where, report)
                if page is None:
                    continue
                used.append(np.array([reference["slot"]], np.uint32))
                first = number * DIRECTORY_ENTRIES
                for place, content in _pages_below(device, geometry, page, where, used, report):
                    if tree is volume.trees[0]:
                        _check_places(geometry, volume.name, first + place, content, report)
    slots = np.concatenate([np.zeros(0, np.uint32), *used])
    values, counts = np.unique(slots, return_counts=True)
    for slot in values[counts > 1]:
        report.add("page", f"slot {slot}", "one page", f"{counts[values == slot][0]}")


def _pages_below(device: Device, geometry: Geometry, directory: memoryview, where: str,
                 used: list[NDArray[np.uint32]], report: Report) -> Iterator[tuple[int, memoryview]]:
    """The whole pages that a directory names, with their places in it; notes the slots in `used`."""
    references = np.frombuffer(directory, page_reference_t)
    used.append(references["slot"][references["slot"] != 0])
    for place in np.flatnonzero(references["slot"]).tolist():
        page = _read_page(device, geometry, references[place], f"{where}, page {place}", report)
        if page is not None:
            yield place, page


def _check_places(geometry: Geometry, volume: str, number: int, page: memoryview, report: Report) -> None:
    """Does every entry of a map page that names a place name one in a segment?"""
    locations = np.frombuffer(page, extent_t)["location"]
    segments, _ = segments_of(geometry, locations)
    for i in np.flatnonzero((locations > LOCATION_LOST) & (segments < 0)).tolist():
        report.add("pointer", f"volume {volume}, block {number * PAGE_ENTRIES + i}", "a block of a segment",
                   f"block {locations[i]} of the store: all {PAGE_ENTRIES} blocks of its map page are lost")


def _read_page(device: Device, geometry: Geometry, reference: np.void, where: str,
               report: Report) -> memoryview | None:
    """The page, if one of its two blocks is what its reference names; None for no page, too."""
    slot = int(reference["slot"])
    if slot == 0:
        return None
    report.checked["pages"] += 1
    if slot >= geometry.page_slots:
        report.add("page", where, f"a slot below {geometry.page_slots}", slot)
        return None
    whole = None
    for block in geometry.page_blocks(slot):
        try:
            page = device.read(block * BLOCK_SIZE, BLOCK_SIZE)
        except OSError as error:
            report.add("page", f"{where}, block {block}", "a readable block", error.strerror)
            continue
        if (found := crc32c(page)) == reference["crc"]:
            whole = page
        else:
            report.add("page", f"{where}, block {block}", f"checksum {int(reference['crc']):#010x}",
                       f"{found:#010x}")
    return whole


def map_pages(engine: Engine) -> Iterator[tuple[int, int, NDArray[np.void]]]:
    """(volume, first LBA, entries) of every map page that is not empty."""
    for index in engine.volume_indexes():
        size_blocks = engine.volume_state(index).size_blocks
        for first in range(0, size_blocks, PAGE_ENTRIES):
            entries = np.zeros(min(PAGE_ENTRIES, size_blocks - first), extent_t)
            inspection.read_map(engine, index, first, entries.view(np.uint8))
            if entries["location"].any():
                yield index, first, entries


def segments_of(geometry: Geometry, locations: NDArray[np.uint32],
                ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Segment and offset in it of each location; -1 for one that no segment has."""
    relative = locations.astype(np.int64) - geometry.segment_base
    middle = geometry.half * geometry.segment_blocks         # superblock copy 2
    outside = (relative < 0) | (relative == middle)
    relative -= relative > middle
    number = relative // geometry.segment_blocks
    outside |= number >= geometry.segment_count
    return np.where(outside, -1, number), relative % geometry.segment_blocks


def check_pointers(engine: Engine, geometry: Geometry, report: Report,
                   progress: Progress) -> NDArray[np.uint8]:
    """M2. Returns for each block of the store how many entries point to it."""
    owners = np.zeros(geometry.total_blocks, np.uint8)
    states = read_segments(engine, geometry)["state"]
    in_use = ~np.isin(states, (SEGMENT_FREE, SEGMENT_EMPTY))
    total = sum(engine.volume_state(index).size_blocks for index in engine.volume_indexes())
    done = 0
    for index, first, entries in map_pages(engine):
        progress("map entries", done, total)
        done += len(entries)
        volume = engine.volume_state(index).name
        locations = entries["location"]
        for lba in first + np.flatnonzero((locations > LOCATION_ZERO) & (locations <= LOCATION_LOST)):
            report.add("lost", f"volume {volume}, block {lba}", "its content", "none")
        lbas = first + np.flatnonzero(locations > LOCATION_LOST)
        locations = locations[locations > LOCATION_LOST]
        report.checked["blocks"] += len(locations)
        numbers, offsets = segments_of(geometry, locations)
        good = (numbers >= 0) & (offsets > 0)
        good[good] &= in_use[numbers[good]]
        for lba, location in zip(lbas[~good], locations[~good], strict=True):
            report.add("pointer", f"volume {volume}, block {lba}", "a block of a segment in use",
                       f"block {location} of the store")
        _own(owners, volume, lbas[good], locations[good], report)
    return owners


def _own(owners: NDArray[np.uint8], volume: str, lbas: NDArray[np.int64], locations: NDArray[np.uint32],
         report: Report) -> None:
    order = np.argsort(locations, kind="stable")
    twice = np.zeros(len(locations), bool)
    twice[order[1:]] = locations[order[1:]] == locations[order[:-1]]
    twice |= owners[locations] > 0
    for lba, location in zip(lbas[twice], locations[twice], strict=True):
        report.add("owner", f"volume {volume}, block {lba}", "a block of its own",
                   f"block {location} of the store, which another entry points to")
    owners[locations] = np.minimum(owners[locations] + 1, 2)


def read_segments(engine: Engine, geometry: Geometry) -> NDArray[np.void]:
    """SEGMENT_STATE of every segment."""
    found = np.zeros(geometry.segment_count, SEGMENT_STATE)
    inspection.read_segments(engine, found.view(np.uint8))
    return found


def check_live(engine: Engine, geometry: Geometry, owners: NDArray[np.uint8], report: Report) -> None:
    """M3. With a page lost or a block owned twice the counts cannot agree, and are not looked at."""
    if report.counts["page"] or report.counts["owner"] or report.counts["pointer"]:
        return
    numbers, _ = segments_of(geometry, np.flatnonzero(owners).astype(np.uint32))
    living = np.bincount(numbers, minlength=geometry.segment_count)
    counted = read_segments(engine, geometry)["live"]
    report.checked["segments"] += geometry.segment_count
    for number in np.flatnonzero(living != counted):
        report.add("live", f"segment {number}", f"{living[number]} blocks, as the maps say", counted[number])
