"""Arrays of operations: their rows, what makes one valid, and how large ones are cut.

  A1 All rows are checked before the first one begins; the first bad one is named.
  A2 A read or write whose blocks are more than REQUEST_BYTES_MAX is done in pieces of at most
     that, cut at blocks of the volume; it is not atomic. The error of a row is that of its first
     piece that failed.
"""
from __future__ import annotations

import enum

import numpy as np
from numpy.typing import NDArray

from repstore import config, errors
from repstore._fast.layout import BLOCK_SIZE
from repstore._fast.waiting import IO_FIELDS

FUA = 1              # flag of a write, trim or write-zeroes: durable before it is done
NO_HOLE = 2          # flag of write-zeroes: the range stays allocated

OPERATION_DTYPE: np.dtype[np.void] = np.dtype(list(IO_FIELDS))
BLOCK_STATUS = 6     # `Volume.block_status` only: its answer is no bytes of the volume


class Operation(enum.IntEnum):
    """What a row of an OPERATION_DTYPE array asks for."""
    READ = 1
    WRITE = 2
    TRIM = 3
    WRITE_ZEROES = 4
    FLUSH = 5


def check(operations: NDArray[np.void], size_bytes: int, buffer_bytes: int) -> None:
    """Refuse an array with a row that is not valid for a volume and a buffer of these sizes."""
    kind, flags = operations["kind"], operations["flags"]
    _refuse(operations, (kind < Operation.READ) | (kind > Operation.FLUSH),
            "no operation of that kind: must be READ, WRITE, TRIM, WRITE_ZEROES or FLUSH", errors.ConfigError)
    _refuse(operations, flags > (FUA | NO_HOLE), "flags must be of FUA and NO_HOLE", errors.ConfigError)
    offset, length = operations["offset"], operations["length"].astype(np.uint64)
    has_range = kind != Operation.FLUSH
    size = np.uint64(size_bytes)
    _refuse(operations, has_range & (length == 0), "the length must be at least 1", errors.OutOfRangeError)
    _refuse(operations, has_range & ((offset > size) | (length > size - np.minimum(offset, size))),
            f"the volume has {size_bytes} bytes", errors.OutOfRangeError)
    unaligned = (offset | length) % np.uint64(BLOCK_SIZE) != 0
    _refuse(operations, (kind == Operation.WRITE_ZEROES) & unaligned,
            f"must be whole blocks of {BLOCK_SIZE} bytes", errors.OutOfRangeError)
    place, room = operations["buffer_offset"], np.uint64(buffer_bytes)
    _refuse(operations, _has_data(operations) & ((place > room) | (length > room - np.minimum(place, room))),
            f"the buffer has {buffer_bytes} bytes", errors.OutOfRangeError)


def describe(operations: NDArray[np.void], row: int) -> str:
    """One row in words, for messages."""
    one = operations[row]
    kind = int(one["kind"])
    name = "block status" if kind == BLOCK_STATUS else f"kind {kind}"
    if kind in set(Operation):
        name = Operation(kind).name.lower()
    text = f"{name} of {one['length']} bytes at {one['offset']}"
    return text if len(operations) == 1 else f"operation {row}: {text}, buffer offset {one['buffer_offset']}"


def cut(operations: NDArray[np.void]) -> tuple[NDArray[np.void], NDArray[np.intp]] | None:
    """The array in pieces, and the row each came from; None if nothing is too large (A2)."""
    # pieces end where blocks of the volume do: what lies before the first block's end counts
    skipped = (operations["offset"] % np.uint64(BLOCK_SIZE)).astype(np.int64)
    length = operations["length"].astype(np.int64)
    too_large = _has_data(operations) & (skipped + length > config.REQUEST_BYTES_MAX)
    if not too_large.any():
        return None
    counts = np.where(too_large, -(-(length + skipped) // config.REQUEST_BYTES_MAX), 1)
    rows = np.repeat(np.arange(len(operations)), counts)
    number = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    begin = np.maximum(number * config.REQUEST_BYTES_MAX - skipped[rows], 0)
    end = np.minimum((number + 1) * config.REQUEST_BYTES_MAX - skipped[rows], length[rows])
    pieces = operations[rows]
    cut_rows = too_large[rows]
    pieces["offset"] += begin.astype(np.uint64)
    pieces["buffer_offset"] += begin.astype(np.uint64)
    pieces["length"][cut_rows] = (end - begin)[cut_rows]
    return pieces, rows


def _has_data(operations: NDArray[np.void]) -> NDArray[np.bool_]:
    kind = operations["kind"]
    has: NDArray[np.bool_] = (kind == Operation.READ) | (kind == Operation.WRITE)
    return has


def _refuse(operations: NDArray[np.void], bad: NDArray[np.bool_], rule: str,
            error: type[errors.RepstoreError]) -> None:
    if bad.any():
        raise error(f"{describe(operations, int(bad.argmax()))}: {rule}")
