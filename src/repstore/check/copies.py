"""What a node says about its own copy: where a block is, and how it is; scrubs of it.

Run by the node itself, beside its engine, on the store that it has open.
"""
from __future__ import annotations

import mmap
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from repstore import errors
from repstore._fast import inspection
from repstore._fast.checksum import crc32c
from repstore._fast.control import Engine
from repstore.check import store_maps, verify
from repstore.check.store_records import SegmentReader
from repstore.format import (
    BATCH_HEADER_BYTES,
    BLOCK_SIZE,
    LOCATION_BAD,
    LOCATION_HOLE,
    LOCATION_LOST,
    LOCATION_ZERO,
    OP_COPY,
    OP_MOVE,
    OP_WRITE,
    PAGE_ENTRIES,
    batch_header_t,
    descriptor_t,
    extent_t,
)
from repstore.store.superblock import Superblock

LOOKS_MAX = 8                    # at a block that is written anew each time it has been read
STATES = {LOCATION_HOLE: "hole", LOCATION_ZERO: "zeros", LOCATION_BAD: "bad", LOCATION_LOST: "lost"}
OPERATIONS = {OP_WRITE: "write", OP_MOVE: "move", OP_COPY: "copy"}
Walked = dict[int, list[tuple[int, NDArray[np.void]]]]      # of segments: header's place, payload


class Question(Protocol):
    """What is asked: see `node.inquiry`."""

    @property
    def what(self) -> str: ...
    @property
    def index(self) -> int: ...
    @property
    def numbers(self) -> dict[str, int]: ...


class EngineDevice:
    """The store of an engine that runs, to read only."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def read(self, offset: int, length: int) -> memoryview:
        """See `store.device.Device`."""
        room = mmap.mmap(-1, length)             # aligned, as a read past the page cache must be
        if not inspection.read_blocks(self._engine, offset // BLOCK_SIZE, room):
            raise OSError(5, "Input/output error")
        return memoryview(room)


class CopyInquiries:
    """Answers questions about the copies of one engine. Raises LookupError for a volume that has
    none here, ValueError for numbers out of range, BlockingIOError: ask again in a moment."""

    def __init__(self, engine: Engine, state: Superblock) -> None:
        self._engine = engine
        self._state = state
        self._answers: dict[str, Callable[[int, dict[str, int]], dict[str, Any]]] = {
            "explain": self._explain, "scrub start": self._scrub_start, "scrub stop": self._scrub_stop,
            "scrub state": self._scrub_state, "verify start": self._verify_start,
            "verify state": self._verify_state, "verify nodes": self._verify_nodes,
            "verify page": self._verify_page, "verify worth": self._verify_worth}
        self._scrub_serial = 0                   # of the scrub that was begun last
        self._tree: tuple[int, list[verify.Digests]] = (0, [])        # of which verification

    def __call__(self, question: Question) -> dict[str, Any]:
        answer = self._answers.get(question.what)
        if answer is None:
            raise LookupError(f"nobody here knows what {question.what!r} means")
        return answer(question.index, question.numbers)

    # ------------------------------------------------------------------------------ explain
    def _explain(self, index: int, numbers: dict[str, int]) -> dict[str, Any]:
        """The block was so at an LSN from `commit_lsn` to `until_lsn`: commits go on meanwhile."""
        copy = self._engine.volume_state(index)
        block = self._explain_run(index, numbers["lba"], 1)[0]
        return {"role": copy.role, "epoch": copy.epoch, "commit_lsn": copy.commit_lsn,
                "until_lsn": self._engine.volume_state(index).commit_lsn,
                "learning": copy.learning} | block

    def _explain_run(self, index: int, first: int, blocks: int) -> list[dict[str, Any]]:
        """State, place, checksum and record of blocks."""
        walked: Walked = {}
        return [self._explain_block(index, first + i, entry, walked)
                for i, entry in enumerate(self._entries(index, first, blocks))]

    def _entries(self, index: int, first: int, blocks: int) -> NDArray[np.void]:
        entries = np.zeros(blocks, extent_t)
        inspection.read_map(self._engine, index, first, entries.view(np.uint8))
        return entries

    def _explain_block(self, index: int, lba: int, entry: np.void, walked: Walked) -> dict[str, Any]:
        """What is bad where the map said that it is may have been written anew, and its place given
        away, before it was read: then it is looked at where it is now."""
        for _ in range(LOOKS_MAX):
            location, crc = int(entry["location"]), int(entry["crc"])
            found = {"state": STATES.get(location, "data"), "location": location, "checksum": crc}
            if found["state"] == "data":
                found |= self._explain_data(index, lba, location, crc, walked)
            if found.get("medium", "good") == "good":
                return found
            asked, entry = entry, self._entries(index, lba, 1)[0]
            if entry == asked:
                return found
            walked.clear()               # the batches that were written since are not in it
        raise BlockingIOError(f"block {lba} is written anew all the time")

    def _explain_data(self, index: int, lba: int, location: int, crc: int, walked: Walked) -> dict[str, Any]:
        """Segment, checksum and record of a block; the record is found by walking the segment's headers,
        once for all blocks in it."""
        geometry = self._state.geometry
        numbers, offsets = store_maps.segments_of(geometry, np.array([location], np.uint32))
        number, offset = int(numbers[0]), int(offsets[0])
        found: dict[str, Any] = {"segment": number, "offset": offset, "medium": self._medium(location, crc)}
        device = EngineDevice(self._engine)
        if number not in walked:
            segment = store_maps.read_segments(self._engine, geometry)[number]
            reader = SegmentReader(device, self._state, number, int(segment["generation"]))
            walked[number] = list(reader.batches())
        for start, payload in walked[number]:
            if start + len(payload) >= offset:
                break
        else:
            return found | {"record": "none: its batch header is damaged, or still on its way"}
        if start >= offset:
            return found | {"record": "none: its batch header is damaged"}
        header_block = geometry.segment_start(number) + start
        return found | self._record(device, header_block, payload[offset - start - 1], index, lba)

    def _medium(self, location: int, crc: int) -> str:
        """What the disk gives: `good`, `unreadable`, or another checksum."""
        try:
            found = crc32c(EngineDevice(self._engine).read(location * BLOCK_SIZE, BLOCK_SIZE))
        except OSError:
            return "unreadable"
        return "good" if found == crc else f"checksum {found:#010x}"

    @staticmethod
    def _record(device: EngineDevice, header_block: int, payload: np.void, index: int,
                lba: int) -> dict[str, Any]:
        block = device.read(header_block * BLOCK_SIZE, BLOCK_SIZE)
        header = np.frombuffer(block, batch_header_t, 1)[0]
        record = np.frombuffer(block, descriptor_t, int(header["descriptor_count"]), BATCH_HEADER_BYTES)[
            int(payload["record"])]
        if (int(payload["volume"]), int(payload["lba"])) != (index, lba):
            return {"record": f"of volume {payload['volume']}, block {payload['lba']}"}
        operation = int(record["operation"])
        within = lba - int(record["lba"])
        return {"record": OPERATIONS.get(operation, str(operation)), "batch": int(header["sequence"]),
                "record_checksum": int(payload["crc"]),
                "record_epoch": int(record["epoch"]) if operation == OP_WRITE else None,
                "lsn": int(record["lsn"]) + (within if operation == OP_WRITE else 0) or None}

    # -------------------------------------------------------------------------------- scrub
    def _scrub_start(self, index: int, numbers: dict[str, int]) -> dict[str, Any]:
        if inspection.scrub_state(self._engine)[0] and inspection.scrub_state(self._engine)[1] != index:
            raise errors.BusyError("another volume is being scrubbed here")
        serial = numbers["serial"]               # without one nobody could look at it
        inspection.scrub_start(self._engine, index, numbers["first"], numbers["rate_bytes_s"])
        self._scrub_serial = serial
        return self._scrub_state(index, numbers)

    def _scrub_stop(self, index: int, numbers: dict[str, int]) -> dict[str, Any]:
        state = self._scrub_state(index, numbers)
        inspection.scrub_stop(self._engine)
        return state | {"running": False}

    def _scrub_state(self, index: int, numbers: dict[str, int]) -> dict[str, Any]:
        """Of the scrub with this serial: what a later one read is not the answer."""
        if numbers["serial"] != self._scrub_serial:
            raise LookupError("it does not go on: another scrub began here, or the node was restarted")
        running, _, next_lba, read_blocks, bad_blocks, bad_pages = inspection.scrub_state(self._engine)
        lost = [lba for volume, lba in inspection.lost_blocks(self._engine) if volume == index]
        return {"running": running, "next_lba": next_lba, "read_blocks": read_blocks,
                "bad_blocks": bad_blocks, "bad_pages": bad_pages,
                "lost_blocks": len(lost), "first_lost": lost[:16],
                "size_blocks": self._engine.volume_state(index).size_blocks}

    # ------------------------------------------------------------------------------- verify
    def _verify_start(self, index: int, numbers: dict[str, int]) -> dict[str, Any]:
        wanted = sorted(page for name, page in numbers.items() if name.startswith("page"))
        return {"lsn": inspection.verify_start(self._engine, index, numbers["serial"], wanted)}

    def _verify_state(self, index: int, numbers: dict[str, int]) -> dict[str, Any]:
        state, serial, lsn, done, pages = inspection.verify_state(self._engine)
        return {"state": state if serial == numbers["serial"] else "idle", "lsn": lsn, "done": done,
                "pages": pages}

    def _verify_nodes(self, index: int, numbers: dict[str, int]) -> dict[str, Any]:
        serial = numbers["serial"]
        if self._tree[0] != serial:
            leaves = np.zeros(inspection.verify_state(self._engine)[4], np.uint64)
            inspection.verify_leaves(self._engine, serial, leaves.view(np.uint8))
            self._tree = (serial, verify.tree(leaves))
        levels = self._tree[1]
        level, first, count = numbers["level"], numbers["first"], min(numbers["count"], verify.FAN_OUT)
        if not 0 <= level < len(levels) or first < 0:
            raise ValueError(f"level {level}, node {first}: the tree has {len(levels)} levels")
        return {"digests": verify.packed(levels[level][first:first + count])}

    def _verify_page(self, index: int, numbers: dict[str, int]) -> dict[str, Any]:
        values = np.zeros(PAGE_ENTRIES, np.uint32)
        inspection.verify_values(self._engine, numbers["serial"], numbers["place"], values.view(np.uint8))
        return {"values": verify.packed(values)}

    def _verify_worth(self, index: int, numbers: dict[str, int]) -> dict[str, Any]:
        first, blocks = numbers["first"], numbers["blocks"]
        if not 0 < blocks <= PAGE_ENTRIES:
            raise ValueError(f"{blocks} blocks: must be 1 to {PAGE_ENTRIES}")
        said = self._explain_run(index, first, blocks)
        zeros = ("hole", "zeros")
        worth = {"good": [block["state"] in zeros or block.get("medium") == "good" for block in said],
                 "epochs": [block.get("record_epoch") or 0 for block in said],
                 "lsns": [block.get("lsn") or 0 for block in said]}
        return {name: verify.packed(np.array(values, np.uint64)) for name, values in worth.items()}
