"""A history file: one JSON object a line. What each may hold is in `docs/history.md`.

1. The first line is the header, the last one counts the operations: a file that was cut is
   not a history. So is nothing that claims the impossible; the error names the line.
2. The order of the lines between says nothing, the times do.
"""
from __future__ import annotations

import json
from dataclasses import MISSING, dataclass, fields
from typing import Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray

from repstore import config, errors
from repstore._fast.history_lines import (
    FIELDS,
    KINDS,
    NEVER_TIME,
    NUMBER_LIMITS,
    OPERATION_DTYPE,
    REASONS,
    TIME_MAX,
    WRONG_FIELD,
    parse,
)
from repstore._fast.layout import BLOCK_SIZE
from repstore.check.progress import Progress, silent

HISTORY_VERSION: Literal[1] = 1
HEADER_BYTES_MAX = 4096
FIRST_OPERATION_LINE = 2                  # the header is line 1
LINE_BYTES_MIN = 16                       # no right line is shorter
CRASH, END = KINDS.index("crash"), KINDS.index("end")
FLUSH = KINDS.index("flush")
TIMES = ("begin", "end", "until")
BEGINNINGS = ("zero", "unknown")


@dataclass(frozen=True, slots=True)
class Header:
    """The first line of a history file."""

    history: Literal[1]                   # version of the format
    block_size: int                       # bytes; a power of two from 512 to 4096
    blocks: int                           # of the volume
    initial: Literal["zero", "unknown"] = "unknown"
    incarnation: int = 1                  # of the volume when the history begins


@dataclass(frozen=True, slots=True, eq=False)
class History:
    """All of a history in memory, checked line by line.

    `operations` has OPERATION_DTYPE, a row a line, without the last line; `values` (uint64) are
    the values of all of them, each operation's at `first_value`.
    """

    header: Header
    operations: NDArray[np.void]
    values: NDArray[np.uint64]

    @staticmethod
    def line(operation: int) -> int:
        """The number of an operation's line in its file."""
        return operation + FIRST_OPERATION_LINE


@dataclass(frozen=True, slots=True)
class Crashes:
    """The crashes of a history, in order."""

    times: NDArray[np.int64]
    kept: NDArray[np.bool_]                   # the incarnation was the same afterwards: a kill
    operations: NDArray[np.intp]              # which say so

    def power_cuts(self) -> Crashes:
        """Those after which the incarnation was another one."""
        return Crashes(self.times[~self.kept], self.kept[~self.kept], self.operations[~self.kept])

    def before(self, operations: NDArray[np.void]) -> NDArray[np.intp]:
        """How many of them came before each operation."""
        return np.searchsorted(self.times, operations["begin"], side="right")

    def next_after(self, operations: NDArray[np.void]) -> NDArray[np.int64]:
        """The moment of the next one after each operation began; NEVER_TIME if there is none."""
        found: NDArray[np.int64] = np.append(self.times, NEVER_TIME)[self.before(operations)]
        return found


def load(file: BinaryIO, size_bytes: int | None = None, progress: Progress = silent) -> History:
    """Read a history. Raises ConfigError, naming the line, if the file holds none.

    No more than `size_bytes` are read, if given: a file that grows has an end, too.
    """
    first = file.readline(HEADER_BYTES_MAX)
    header = _header(first)
    operations, values = _lines(file, len(first), size_bytes, progress)
    operations = _without_end(operations)
    _check_ranges(header, operations)
    return History(header, operations, values)


def unusable(line: int, reason: str) -> errors.ConfigError:
    """The error for a line of a file that is no history."""
    return errors.ConfigError(f"not a usable history: line {line}: {reason}")


def _header(line: bytes) -> Header:
    if not line.endswith(b"\n"):
        raise unusable(1, f"no header: it must be one line of at most {HEADER_BYTES_MAX} bytes")
    header = Header(**_header_fields(line))
    size = header.block_size
    if not config.HISTORY_SECTOR_BYTES_MIN <= size <= BLOCK_SIZE or size & (size - 1):
        raise unusable(1, f"block_size {size}: must be a power of two from "
                          f"{config.HISTORY_SECTOR_BYTES_MIN} to {BLOCK_SIZE}")
    if not 1 <= header.blocks <= config.VOLUME_BYTES_MAX // size:
        raise unusable(1, f"blocks {header.blocks}: must be 1 to {config.VOLUME_BYTES_MAX // size}")
    if not 0 <= header.incarnation <= TIME_MAX:
        raise unusable(1, f"incarnation {header.incarnation}: must be 0 to {TIME_MAX}")
    return header


def _header_fields(line: bytes) -> dict[str, Any]:
    """Those of the first line, each of its right type."""
    try:
        found = json.loads(line.decode(), object_pairs_hook=_each_once)
    except (ValueError, RecursionError) as error:
        raise _no_header("it is not one JSON object") from error
    if not isinstance(found, dict):
        raise _no_header("it is not one JSON object")
    version = found.get("history", HISTORY_VERSION)
    if type(version) is int and version != HISTORY_VERSION:
        # another version may have other fields: of those it says nothing
        raise _no_header(f"it is of version {version} of the format, and {HISTORY_VERSION} is read")
    known = {field.name for field in fields(Header)}
    for name, value in found.items():
        if name not in known:
            raise _no_header(f"it has the unknown field {name!r}")
        if name == "initial" and value not in BEGINNINGS:
            raise _no_header(f"{name!r} must be " + " or ".join(f'"{each}"' for each in BEGINNINGS))
        if name != "initial" and type(value) is not int:       # True is an int, and no number
            raise _no_header(f"{name!r} must be a whole number")
    for field in fields(Header):
        if field.name not in found and field.default is MISSING:
            raise _no_header(f"it lacks the field {field.name!r}")
    return found


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise _no_header(f"it has twice the field {name!r}")
        found[name] = value
    return found


def _no_header(reason: str) -> errors.ConfigError:
    """The error for a first line that is none."""
    return unusable(1, f"no header: {reason}")


def _lines(file: BinaryIO, done_bytes: int, size_bytes: int | None,
           progress: Progress) -> tuple[NDArray[np.void], NDArray[np.uint64]]:
    """All lines after the header, parsed chunk by chunk; `progress` is told where more follow."""
    rows: list[NDArray[np.void]] = []
    found: list[NDArray[np.uint64]] = []
    lines = values = 0
    rest = b""
    while chunk := file.read(_next_bytes(done_bytes, size_bytes)):
        done_bytes += len(chunk)
        if size_bytes is not None and done_bytes < size_bytes:
            progress("reading", done_bytes, size_bytes)
        text = rest + chunk
        cut = text.rfind(b"\n") + 1
        text, rest = text[:cut], text[cut:]
        too_long = f"is longer than {config.HISTORY_LINE_BYTES_MAX} bytes"
        # of those that end here only the first can be longer than a chunk
        if text.find(b"\n") > config.HISTORY_LINE_BYTES_MAX:
            raise unusable(lines + FIRST_OPERATION_LINE, too_long)
        if len(rest) > config.HISTORY_LINE_BYTES_MAX:
            raise unusable(lines + text.count(b"\n") + FIRST_OPERATION_LINE, too_long)
        room = np.empty(text.count(b"\n"), OPERATION_DTYPE)
        value_room = np.empty(len(text) // 2, np.uint64)
        right, used, reason, field = parse(text, room, value_room, values)
        if reason:
            raise unusable(lines + right + FIRST_OPERATION_LINE, _reason(reason, field))
        rows.append(room)
        found.append(value_room[:used].copy())
        lines, values = lines + right, values + used
        if lines > config.HISTORY_OPERATIONS_MAX or values > config.HISTORY_VALUES_MAX:
            raise unusable(lines, f"more than {config.HISTORY_OPERATIONS_MAX} operations or "
                                  f"{config.HISTORY_VALUES_MAX} values")
    if rest:
        raise unusable(lines + FIRST_OPERATION_LINE, "has no line feed: the file was cut")
    if not rows:
        raise unusable(FIRST_OPERATION_LINE, "is missing: the file was cut")
    return np.concatenate(rows), np.concatenate(found)


def _next_bytes(done_bytes: int, size_bytes: int | None) -> int:
    if size_bytes is None:
        return config.HISTORY_CHUNK_BYTES
    return min(config.HISTORY_CHUNK_BYTES, max(0, size_bytes - done_bytes))


def _reason(reason: int, field: int) -> str:
    text, name = REASONS[reason], FIELDS[field]
    if text.endswith("field"):
        text += f" {name!r}"
    return f"{text}: {_rule(name)}" if reason == WRONG_FIELD else text


def _rule(name: str) -> str:
    """What the field of an operation may hold."""
    if name not in NUMBER_LIMITS:
        return "it is true or false"
    numbers = f"from 0 below {NUMBER_LIMITS[name]}"
    if name in TIMES:
        return f"times are whole numbers {numbers}"
    if name == "values":
        return f"it lists null and whole numbers {numbers}"
    return f"it is a whole number {numbers}"


def _without_end(operations: NDArray[np.void]) -> NDArray[np.void]:
    ends = np.flatnonzero(operations["kind"] == END)
    count = len(operations) - 1
    if len(ends) == 0:
        raise unusable(History.line(count), 'the last line is not {"op":"end"}: the file was cut')
    if ends[0] != count:
        raise unusable(History.line(int(ends[0]) + 1), "comes after the end of the history")
    promised = int(operations[count]["block"])
    if promised != count:
        raise unusable(History.line(count), f"promises {promised} operations, there are {count}")
    return operations[:count]


def _check_ranges(header: Header, operations: NDArray[np.void]) -> None:
    about_blocks = operations["kind"] < FLUSH
    block, count = operations["block"], operations["count"].astype(np.uint64)
    room = header.blocks - np.minimum(block, header.blocks)
    outside = about_blocks & (count > room)
    if outside.any():
        at = int(np.argmax(outside))
        raise unusable(History.line(at), f"blocks {block[at]} to {int(block[at]) + int(count[at]) - 1}: "
                                         f"the volume has {header.blocks}")


def find_crashes(history: History) -> Crashes:
    """The crashes of a history. Raises ConfigError for what cannot have been."""
    operations = history.operations
    found = np.flatnonzero(operations["kind"] == CRASH)
    if len(found) > config.HISTORY_CRASHES_MAX:
        raise unusable(History.line(int(found[config.HISTORY_CRASHES_MAX])),
                       f"more than {config.HISTORY_CRASHES_MAX} crashes")
    found = found[np.argsort(operations["begin"][found], kind="stable")]
    incarnations = [history.header.incarnation, *map(int, operations["block"][found])]
    for before, after, operation in zip(incarnations, incarnations[1:], found, strict=False):
        if after < before:
            raise unusable(History.line(int(operation)),
                           f"incarnation {after} after {before}: it never decreases")
    crashes = Crashes(operations["begin"][found].astype(np.int64), np.diff(incarnations) == 0, found)
    _check_answers(history, crashes)
    return crashes


def acknowledged(operations: NDArray[np.void]) -> NDArray[np.bool_]:
    """Which were answered, without an error."""
    answered: NDArray[np.bool_] = (operations["end"] != NEVER_TIME) & (operations["error"] == 0)
    return answered


def _check_answers(history: History, crashes: Crashes) -> None:
    """None was acknowledged across a crash."""
    operations = history.operations
    next_crash = crashes.next_after(operations)
    across = acknowledged(operations) & (operations["end"] > next_crash)
    if across.any():
        at = int(np.argmax(across))
        raise unusable(History.line(at), f"began at {operations['begin'][at]} and was acknowledged at "
                                         f"{operations['end'][at]}, across the crash at {next_crash[at]}")


def last_moments(operations: NDArray[np.void], crashes: Crashes) -> NDArray[np.int64]:
    """When each operation was over: answered, or without any effect from then on. What a crash cut
    was over before anything could begin again."""
    next_crash = crashes.next_after(operations)
    last = np.where(acknowledged(operations), operations["end"], operations["until"])
    return np.minimum(last, np.where(next_crash == NEVER_TIME, NEVER_TIME, next_crash - 1))
