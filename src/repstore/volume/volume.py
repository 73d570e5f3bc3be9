"""One open volume, and operations under way on it.

  V1 A call waits without the GIL and wakes now and then to look at signals: Ctrl-C works.
     What was begun goes on; its memory stays in use until it is finished.
  V2 Nothing is sent that cannot be right: ranges are checked here, against the size.
  V3 Whoever closes a volume waits for what is under way, so that nobody waits for ever; whoever
     closes it meanwhile waits, too, for it may be going to end the engine. A close that was
     interrupted is taken up by the next one.
"""
from __future__ import annotations

import mmap
import threading
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, cast

import numpy as np
from numpy.typing import NDArray

from repstore import config, errors
from repstore._fast.control import Engine
from repstore._fast.layout import BLOCK_SIZE
from repstore._fast.waiting import Call
from repstore.volume.operations import (
    BLOCK_STATUS,
    FUA,
    NO_HOLE,
    OPERATION_DTYPE,
    Operation,
    check,
    cut,
    describe,
)

Buffer = bytes | bytearray | memoryview | NDArray[Any]       # anything contiguous in memory

DEPTH_MAX = 1024
DEPTH_USUAL = 32
ROW_BYTES_MAX = 1 * config.GIB           # a row's length has 32 bits: what is longer takes several
RANGE_STEP_BYTES = 2 * config.GIB        # trims, zeros and status of long ranges go in such steps
SIGNALS_S = 0.2                          # between two looks at signals while waiting
EXTENT_FIELDS = [("length", "<u4"), ("state", "<u4")]
EXTENT_HOLE, EXTENT_ZERO = 1, 2          # bits of a state


def aligned_buffer(size_bytes: int) -> NDArray[np.uint8]:
    """A zeroed, writable array of `size_bytes` (at least 1) uint8 that begins at a page.

    Reads of whole 4 KiB blocks into it, at multiples of 4096, are done without a copy.
    """
    if size_bytes < 1:
        raise errors.ConfigError(f"buffer of {size_bytes} bytes: must be at least 1")
    return np.frombuffer(mmap.mmap(-1, size_bytes), dtype=np.uint8)


@dataclass(frozen=True, slots=True)
class Extent:
    """A range of a volume, in bytes, whose blocks are alike."""

    offset: int
    length: int
    hole: bool          # never written, or trimmed: takes no space
    zero: bool          # reads as zeros

    @property
    def end(self) -> int:
        return self.offset + self.length


class Ticket:
    """Operations that were submitted and may still be under way. Thread-safe."""

    def __init__(self, call: Call, operations: NDArray[np.void],
                 pieces: tuple[NDArray[np.void], NDArray[np.intp]] | None,
                 error: Callable[[int, str], errors.RepstoreError]) -> None:
        self._call = call
        self._operations = operations
        self._pieces = pieces
        self._error = error
        self._lock = threading.Lock()
        self._settled = False

    @property
    def done(self) -> bool:
        """Whether all operations are finished; then `wait` returns, or raises, at once."""
        return self._call.done

    @property
    def failed(self) -> int:
        """How many operations failed, of those that are finished. Each has its errno in the
        `error` field of the array that was submitted."""
        if not self.done:
            return self._call.failed
        self.settle()
        return int(np.count_nonzero(self._operations["error"]))

    def wait(self) -> None:
        """Return when all operations have succeeded; raise the error of the first one that
        failed, once all are finished.

        Other Python threads run meanwhile. An interrupted wait (Ctrl-C) may be repeated.
        """
        self.settle()
        if self._call.failed:
            row = int(np.argmax(self._operations["error"] != 0))
            text = describe(self._operations, row)
            if self.failed > 1:
                text += f" (the first of {self.failed} that failed)"
            raise self._error(int(self._operations["error"][row]), text)

    def settle(self) -> None:
        """Wait like `wait`, but raise nothing: who wants to know asks `failed`."""
        while not self._call.wait_at_most(SIGNALS_S):
            pass
        with self._lock:
            if self._settled:
                return
            self._settled = True
            self._call.wait()                          # finished: only gives its memory back
            if self._pieces is not None:               # errors go back to the rows that were cut
                pieces, rows = self._pieces
                bad = np.flatnonzero(pieces["error"])[::-1]
                self._operations["error"][rows[bad]] = pieces["error"][bad]


class Volume:
    """An open volume: a range of bytes, of which any part can be read and written.

    Made by `Store.open_volume`, `Store.create_volume` and `Cluster.volume`. Offsets and lengths
    are bytes, of any alignment; whole blocks of 4096 are fastest. Calls wait, without the GIL,
    until the operation is done; all of them may be used by several threads at once. What two
    threads do to the same bytes at the same time happens in either order.

    A write is done when every in-sync copy has it (acknowledgement `dev`): it survives the death
    of any process. It survives the loss of power when a later `flush` is done, or with `fua`.

    Every method raises OutOfRangeError for a range that is empty or reaches outside the volume
    (nothing was done then), NoSpaceError when the store is full, CorruptionError when blocks
    cannot be verified, StoreFailedError when the store takes no more writes (close and reopen
    it), and FencedError when the volume was closed, deleted, or attached by another client.
    """

    def __init__(self, name: str, size_bytes: int, engine: Engine, export_id: int, *,
                 error: Callable[[int, str], errors.RepstoreError],
                 revoke: Callable[[], None], release: Callable[[], None]) -> None:
        """Not for users: `revoke` ends what can be ended at once, `release` gives the rest back."""
        self.name = name
        self.size_bytes = size_bytes
        self._engine = engine
        self._export_id = export_id
        self._error = error
        self._revoke = revoke
        self._release = release
        self._lock = threading.Lock()
        self._closing = threading.RLock()              # may be closed in a signal handler within a close
        self._under_way: set[Ticket] = set()
        self._open = True
        self._released = False

    def __repr__(self) -> str:
        return f"<Volume {self.name!r}, {self.size_bytes} bytes{'' if self._open else ', closed'}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()

    def read(self, offset: int, length: int) -> bytes:
        """The `length` bytes from `offset` on, checked against their checksums."""
        room = np.empty(_check_range(self, "read", offset, length), dtype=np.uint8)
        self._do(Operation.READ, offset, length, 0, room)
        return room.tobytes()

    def readinto(self, offset: int, buffer: Buffer) -> int:
        """Read into a writable buffer as many bytes as it has; returns how many these are."""
        length = _view(buffer).nbytes
        _check_range(self, "read", offset, length)
        self._do(Operation.READ, offset, length, 0, buffer)
        return length

    def write(self, offset: int, data: Buffer, *, fua: bool = False) -> None:
        """Put `data` (bytes, bytearray, array, ...) at `offset`; with `fua` it is durable on
        return. More than 256 KiB are written in pieces, several at a time."""
        length = _view(data).nbytes
        _check_range(self, "write", offset, length)
        self._do(Operation.WRITE, offset, length, FUA * fua, data)

    def trim(self, offset: int, length: int, *, fua: bool = False) -> None:
        """Give back the space of the whole blocks in a range: they read as zeros afterwards.
        Parts of blocks at its ends stay as they are."""
        self._do_range(Operation.TRIM, offset, length, FUA * fua)

    def write_zeroes(self, offset: int, length: int, *, fua: bool = False, no_hole: bool = False) -> None:
        """Make every byte of a range zero. Its whole blocks give back their space, or with
        `no_hole` stay allocated."""
        end = offset + _check_range(self, "write_zeroes", offset, length)
        first, last = -(-offset // BLOCK_SIZE) * BLOCK_SIZE, end // BLOCK_SIZE * BLOCK_SIZE
        if first > last:                               # inside one block
            first = last = end
        if offset < first:
            self.write(offset, bytes(first - offset), fua=fua)
        if first < last:
            self._do_range(Operation.WRITE_ZEROES, first, last - first, FUA * fua | NO_HOLE * no_hole)
        if last < end:
            self.write(last, bytes(end - last), fua=fua)

    def flush(self) -> None:
        """Return when every write that was done before is durable on every in-sync copy."""
        self._do(Operation.FLUSH, 0, 0, 0, None)

    def block_status(self, offset: int, length: int) -> list[Extent]:
        """The extents of a range, in order: which parts are holes, and which read as zeros.

        Holes and zeros are told in whole blocks of 4096; the first and last extent end with
        the range.
        """
        _check_range(self, "block status", offset, length)
        extents: list[Extent] = []
        end = offset + length
        while offset < end:
            for extent in self._status(offset, min(end - offset, RANGE_STEP_BYTES)):
                offset = extent.end
                extents.append(extent)
        return _merged(extents)

    def submit(self, operations: NDArray[np.void], buffer: Buffer | None = None,
               depth: int = DEPTH_USUAL) -> Ticket:
        """Begin many operations, `depth` (1 to 1024) of them at a time; wait with the Ticket.

        `operations` is a one-dimensional, writable array of OPERATION_DTYPE. For each row set
        `kind` (an Operation), `offset` and `length` in bytes, `flags` (0, FUA, NO_HOLE) and, of
        reads and writes, `buffer_offset`: where in `buffer` the bytes go to or come from.
        `error` is set when a row is finished: 0, or the errno. `export_id` and `reserved` are
        not the caller's. WRITE_ZEROES takes whole blocks of 4096 only. Rows begin in order but
        finish in any: a FLUSH covers the rows that were finished before it began, so wait
        between writes and the flush that is for them.

        Array and buffer must be left alone until the Ticket is done. Zero-copy where the buffer
        is aligned (see `aligned_buffer`). Raises ConfigError or OutOfRangeError, before
        anything is begun, for a row that cannot be done.
        """
        if operations.dtype != OPERATION_DTYPE or operations.ndim != 1 or len(operations) == 0:
            raise errors.ConfigError(
                f"operations of shape {operations.shape} and {operations.dtype}: must be one-dimensional, "
                "not empty, and of OPERATION_DTYPE")
        if not (operations.flags.writeable and operations.flags.c_contiguous):
            raise errors.ConfigError("operations: must be writable and contiguous")
        config.check_range("depth", depth, 1, DEPTH_MAX)
        room = _as_bytes(buffer, for_reads=bool((operations["kind"] == Operation.READ).any()))
        check(operations, self.size_bytes, 0 if room is None else len(room))
        operations["error"] = 0
        return self._start(operations, cut(operations), room, depth)

    def close(self) -> None:
        """Wait for what is under way and give the volume back. Closing twice is harmless."""
        with self._lock:
            self._open = False
            under_way = list(self._under_way)
        with self._closing:                            # V3
            if self._released:
                return
            self._revoke()
            for ticket in under_way:
                ticket.settle()
            if not self._released:                     # by a close within this one
                self._release()
                self._released = True

    def _do(self, kind: Operation, offset: int, length: int, flags: int, buffer: Buffer | None) -> None:
        """One operation, whose range was checked and whose buffer is as long."""
        rows = -(-max(length, 1) // ROW_BYTES_MAX)
        begin = np.arange(rows, dtype=np.uint64) * np.uint64(ROW_BYTES_MAX)
        operations = np.zeros(rows, OPERATION_DTYPE)
        operations["kind"], operations["flags"] = kind, flags
        operations["offset"], operations["buffer_offset"] = begin + np.uint64(offset), begin
        operations["length"] = np.minimum(np.uint64(length) - begin, np.uint64(ROW_BYTES_MAX))
        room = _as_bytes(buffer, for_reads=kind == Operation.READ)
        self._start(operations, cut(operations), room, DEPTH_USUAL).wait()

    def _do_range(self, kind: Operation, offset: int, length: int, flags: int) -> None:
        _check_range(self, kind.name.lower(), offset, length)
        for begin in range(offset, offset + length, RANGE_STEP_BYTES):
            self._do(kind, begin, min(RANGE_STEP_BYTES, offset + length - begin), flags, None)

    def _status(self, offset: int, length: int) -> list[Extent]:
        """What one answer holds: at least the first extent of the range."""
        operations = np.zeros(1, OPERATION_DTYPE)
        operations["kind"], operations["offset"], operations["length"] = BLOCK_STATUS, offset, length
        room = np.zeros(BLOCK_SIZE, dtype=np.uint8)
        self._start(operations, None, room, 1).wait()
        # a row that is finished has the length of its answer
        found = room[:int(operations["length"][0])].view(EXTENT_FIELDS)
        ends = offset + np.cumsum(found["length"], dtype=np.uint64).astype(np.int64)
        return [Extent(int(end) - int(one["length"]), int(one["length"]),
                       bool(one["state"] & EXTENT_HOLE), bool(one["state"] & EXTENT_ZERO))
                for end, one in zip(ends, found, strict=True)]

    def _start(self, operations: NDArray[np.void], pieces: tuple[NDArray[np.void], NDArray[np.intp]] | None,
               room: NDArray[np.uint8] | None, depth: int) -> Ticket:
        begun = operations if pieces is None else pieces[0]
        begun["export_id"] = self._export_id
        with self._lock:
            if not self._open:
                raise errors.FencedError(f"volume {self.name!r} was closed: open it again")
            for finished in [ticket for ticket in self._under_way if ticket.done]:
                finished.settle()
                self._under_way.discard(finished)
            call = self._engine.start(begun.view(np.uint8), room, depth)
            ticket = Ticket(call, operations, pieces, self._error)
            self._under_way.add(ticket)
        return ticket


def _check_range(volume: Volume, what: str, offset: int, length: int) -> int:
    if length < 1 or offset < 0 or offset + length > volume.size_bytes:
        raise errors.OutOfRangeError(
            f"{what} of {length} bytes at {offset}: volume {volume.name!r} has {volume.size_bytes} bytes, "
            "the length must be at least 1")
    return length


def _view(buffer: Buffer) -> memoryview:
    # an array is a buffer to the type checker only from Python 3.12 on
    return memoryview(cast(bytes, buffer))


def _as_bytes(buffer: Buffer | None, *, for_reads: bool) -> NDArray[np.uint8] | None:
    """The caller's memory itself, or a copy where it may only be read and only is."""
    if buffer is None:
        return None
    view = _view(buffer)
    if not view.c_contiguous or view.nbytes == 0:
        raise errors.ConfigError(f"buffer of shape {view.shape}: must be contiguous and not empty")
    if view.readonly and for_reads:
        raise errors.ConfigError("buffer: reads need one that is writable")
    array: NDArray[np.uint8] = np.frombuffer(view, dtype=np.uint8)
    return array.copy() if view.readonly else array


def _merged(extents: list[Extent]) -> list[Extent]:
    """Answers end anywhere: neighbours that are alike are one extent."""
    merged: list[Extent] = []
    for extent in extents:
        last = merged[-1] if merged else None
        if last is not None and (last.hole, last.zero) == (extent.hole, extent.zero):
            merged[-1] = Extent(last.offset, last.length + extent.length, last.hole, last.zero)
        else:
            merged.append(extent)
    return merged
