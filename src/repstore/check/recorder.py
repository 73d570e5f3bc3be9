"""Writes a history file of what a client asks of a volume and is told.

    with Recorder(Path("run.history"), volume.size_bytes, initial="zero") as recorder:
        recorded = recorder.wrap(volume)
        recorded.write(0, data)           # and so on, from any thread

  R1 An operation has begun before it is asked for, and ends after its answer came: the recorded
     interval holds the real one. No two moments are the same.
  R2 The value of a block is a 64-bit hash of its content; 0 is a block of zeros. Equal contents
     are equal values: what that leaves undecided the checker counts, see docs/history.md.
  R3 Where an operation touches part of a block only, the block's value is null: unknown.
  R4 What is under way when the recording ends, or when all copies crash, was never answered.
  R5 The last line is written by `close` alone: a recording that was cut is seen to be.
  R6 What a history cannot say is refused with a ConfigError when it is told, before anything is
     written or ended: who records to the end has a file that can be judged.
"""
from __future__ import annotations

import contextlib
import hashlib
import operator
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Protocol, Self, get_args

from repstore import config, errors
from repstore._fast.history_lines import TIME_MAX, UNKNOWN_VALUE
from repstore._fast.layout import BLOCK_SIZE
from repstore.check.history_file import HISTORY_VERSION

BLOCKS_PER_LINE = 65_536
OFFSET_MAX = 2**65               # NBD asks for 64 bits, and a length behind them
Kind = Literal["read", "write", "zero", "flush"]
Initial = Literal["zero", "unknown"]
Buffer = bytes | bytearray | memoryview


class RecordedCalls(Protocol):
    """What can be recorded: a Volume, or anything with these calls of it."""

    @property
    def size_bytes(self) -> int: ...
    def read(self, offset: int, length: int) -> bytes: ...
    def write(self, offset: int, data: Any, *, fua: bool = False) -> None: ...
    def trim(self, offset: int, length: int, *, fua: bool = False) -> None: ...
    def write_zeroes(self, offset: int, length: int, *, fua: bool = False) -> None: ...
    def flush(self) -> None: ...


def block_value(block: bytes) -> int:
    """The value of a block's content (R2)."""
    if not block.strip(b"\0"):
        return 0
    value = int.from_bytes(hashlib.blake2b(block, digest_size=8).digest(), "little")
    return 1 if value in (0, UNKNOWN_VALUE) else value


def whole_number(what: str, value: object, least: int, most: int, unit: str = "") -> int:
    """`value` as an int. ConfigError for what is none, and outside these limits."""
    try:
        number = operator.index(value)                   # type: ignore[arg-type]
    except TypeError:
        raise errors.ConfigError(
            f"{what} {value!r}: must be a whole number from {least} to {most}") from None
    config.check_range(what, number, least, most, unit)
    return number


class Operation:
    """One operation under way. Exactly one of `done`, `failed`, `lost` and `over` ends it; one that
    raises ConfigError has not."""

    def __init__(self, recorder: Recorder, client: int, kind: Kind, offset: int, length: int, *,
                 fua: bool) -> None:
        """Made by `Recorder.begin`, which says what may be. Raises ConfigError."""
        _check_choice("operation", kind, get_args(Kind))
        self.kind = kind
        self.client = whole_number("client", client, 0, config.HISTORY_CLIENT_MAX)
        # a range outside of the volume can be asked for, and is refused there
        self.offset = whole_number("offset", offset, -OFFSET_MAX, OFFSET_MAX, "bytes")
        self.length = whole_number("length", length, -OFFSET_MAX, OFFSET_MAX, "bytes")
        self.fua = bool(fua)
        self.begin = 0
        self._values: list[int | None] | None = None
        self._recorder = recorder

    @property
    def values(self) -> list[int | None] | None:
        """Of each block that a read or write touches what it holds (R2); None: nobody said.

        May be set, by whoever stamps blocks with numbers of their own: whole numbers less than
        2^64 - 1, 0 for a block of zeros, None where it is not known. Raises ConfigError."""
        return self._values

    @values.setter
    def values(self, values: Sequence[int | None]) -> None:
        self._check_has_content()
        blocks = self._recorder.blocks_touched(self.offset, self.length)
        if len(values) != blocks:
            raise errors.ConfigError(f"{len(values)} values: must be {blocks}, one a block of {self.kind} "
                                     f"of {self.length} bytes at {self.offset}")
        self._values = [None if value is None else whole_number("value", value, 0, UNKNOWN_VALUE - 1)
                        for value in values]

    def content(self, data: Buffer) -> None:
        """The bytes that a write writes, or a read brought. Raises ConfigError unless they are as
        many as its length."""
        self._check_has_content()
        view = memoryview(data).cast("B")
        if len(view) != self.length:
            raise errors.ConfigError(f"{self.kind} of {self.length} bytes at {self.offset}: its data has "
                                     f"{len(view)} bytes, must be {self.length}")
        self._values = self._recorder.values(self.offset, view)

    def done(self, data: Buffer | None = None) -> None:
        """It was answered without an error; a read brought `data`, or its values were set. Raises
        ConfigError for a read of which neither is known, or that brought another number of bytes."""
        end = self._recorder.now()
        if data is not None:
            self.content(data)
        elif self.kind == "read" and self._values is None:
            raise errors.ConfigError(f"read of {self.length} bytes at {self.offset}: it was answered, so its "
                                     "data must be told; `failed` and `lost` need none")
        self._recorder.end(self, end=end)

    def failed(self, errno: int) -> None:
        """It was answered with an error, a number from 1 to 2^31 - 1 (else ConfigError): a write
        may have happened, now or later, or not."""
        error = whole_number("errno", errno, 1, config.HISTORY_ERROR_MAX)
        self._recorder.end(self, end=self._recorder.now(), error=error)

    def lost(self) -> None:
        """It will not be answered: a write may have happened, or still happen, or not."""
        self._recorder.end(self)

    def over(self) -> None:
        """It will not be answered: a write has happened by now, or never will."""
        self._recorder.end(self, until=self._recorder.now())

    def _check_has_content(self) -> None:
        if self.kind not in ("read", "write"):
            raise errors.ConfigError(f"data of a {self.kind}: only reads and writes have any")


def check_block_size(block_size: int) -> None:
    """ConfigError for bytes that no block of a history can have."""
    size = whole_number("block size", block_size, config.HISTORY_SECTOR_BYTES_MIN, BLOCK_SIZE, "bytes")
    if size & (size - 1):
        raise errors.ConfigError(f"block size {block_size} bytes: must be a power of two")


def _check_choice(what: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise errors.ConfigError(f"{what} {value!r}: must be one of {', '.join(map(repr, choices))}")


class Recorder:
    """A history file being written. Thread-safe."""

    def __init__(self, path: Path, size_bytes: int, *, block_size: int = BLOCK_SIZE,
                 initial: Initial = "unknown", incarnation: int = 1,
                 clock: Callable[[], int] = time.monotonic_ns) -> None:
        """Make the file, of which there must be none. `initial`: what blocks hold before the
        first operation; `incarnation`: the volume's, from 0; `clock`: whole numbers from 0 of any
        unit. All numbers but the sizes are less than 2^63 - 1. Raises ConfigError."""
        check_block_size(block_size)
        _check_choice("initial", initial, get_args(Initial))
        self.size_bytes = whole_number("volume size", size_bytes, 1, config.VOLUME_BYTES_MAX, "bytes")
        self.block_size = operator.index(block_size)
        self.incarnation = whole_number("incarnation", incarnation, 0, TIME_MAX)
        self._clock = clock
        self._moment = -1
        self._told_time()
        self._lines = self._crashes = 0
        self._lock = threading.Lock()
        self._under_way: set[Operation] = set()
        try:
            self._file = path.open("x")
        except OSError as error:
            raise errors.ConfigError(f"{path}: {error.strerror}") from error
        self._file.write(f'{{"history":{HISTORY_VERSION},"block_size":{self.block_size},'
                         f'"blocks":{-(-self.size_bytes // self.block_size)},"initial":"{initial}",'
                         f'"incarnation":{self.incarnation}}}\n')

    @property
    def operations(self) -> int:
        """Lines between the first and the last one so far; a crash is one, too."""
        return self._lines

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()

    def wrap(self, volume: RecordedCalls, client: int = 0) -> RecordedVolume:
        """`volume` with all its calls recorded, as those of a client of this number (less than 2^32).
        Raises ConfigError for another one."""
        return RecordedVolume(self, volume, client)

    def begin(self, client: int, kind: Kind, offset: int = 0, length: int = 0, *, fua: bool = False,
              data: Buffer | None = None) -> Operation:
        """An operation of `length` bytes is about to be asked for, by a client of a number less than
        2^32. A write's `data` may be told later, by `Operation.content`. Raises ConfigError."""
        operation = Operation(self, client, kind, offset, length, fua=fua)
        if data is not None:
            operation.content(data)
        with self._lock:
            operation.begin = self._next_moment()
            self._under_way.add(operation)
        return operation

    def crash(self, incarnation: int) -> None:
        """All copies have crashed, and none runs yet again. What is under way now will count as
        never answered. `incarnation` is that of the volume afterwards: the same as before says
        that nothing acknowledged may be missing, else only what was flushed has to be there.
        Raises ConfigError for one less than before, and for too many crashes."""
        with self._lock:
            incarnation = whole_number("incarnation", incarnation, self.incarnation, TIME_MAX)
            config.check_range("crashes", self._crashes + 1, 0, config.HISTORY_CRASHES_MAX)
            moment = self._next_moment()
            self._crashes += 1
            for operation in sorted(self._under_way, key=lambda each: each.begin):
                self._write(operation)
            self._under_way.clear()
            self.incarnation = incarnation
            self._line(f'{{"op":"crash","begin":{moment},"incarnation":{incarnation}}}\n')

    def close(self) -> None:
        """Write down what was never answered, and the last line. Closing twice is harmless."""
        with self._lock:
            if self._file.closed:
                return
            for operation in sorted(self._under_way, key=lambda each: each.begin):
                self._write(operation)
            self._under_way.clear()
            self._file.write(f'{{"op":"end","operations":{self._lines}}}\n')
            self._file.close()

    # ------------------------------------------------------------------- for its operations
    def now(self) -> int:
        """A moment after all earlier ones."""
        with self._lock:
            return self._next_moment()

    def end(self, operation: Operation, *, end: int | None = None, error: int = 0,
            until: int | None = None) -> None:
        """Write an operation down, unless a crash or `close` has done so."""
        with self._lock:
            if operation in self._under_way:
                self._under_way.remove(operation)
                self._write(operation, end=end, error=error, until=until)

    def blocks_touched(self, offset: int, length: int) -> int:
        """How many blocks a range of bytes touches."""
        first, _, _, end = self._blocks(offset, length)
        return end - first

    def values(self, offset: int, data: Buffer) -> list[int | None]:
        """The value of each block that `data` at `offset` touches; None where it is a part."""
        size, view = self.block_size, memoryview(data)
        values: list[int | None] = []
        for start in range(offset // size * size, offset + len(view), size):
            stop = min(start + size, self.size_bytes)
            is_whole = offset <= start and stop <= offset + len(view)
            values.append(block_value(bytes(view[start - offset:stop - offset])) if is_whole else None)
        return values

    def _next_moment(self) -> int:
        self._moment = whole_number("time", max(self._told_time(), self._moment + 1), 0, TIME_MAX)
        return self._moment

    def _told_time(self) -> int:
        return whole_number("time of the clock", self._clock(), 0, TIME_MAX)

    def _write(self, operation: Operation, *, end: int | None = None, error: int = 0,
               until: int | None = None) -> None:
        tail = f'"begin":{operation.begin}'
        if end is not None:
            tail += f',"end":{end}'
        if error:
            tail += f',"error":{error}'
        if operation.kind == "flush":
            self._line(f'{{"op":"flush","client":{operation.client},{tail}}}\n')
            return
        if operation.kind != "read":
            tail += f',"until":{until}' * (until is not None) + ',"fua":true' * operation.fua
        for kind, block, count, values in self._pieces(operation):
            text = "" if values is None else ',"values":[' + ",".join(
                "null" if value is None else str(value) for value in values) + "]"
            self._line(f'{{"op":"{kind}","client":{operation.client},"block":{block},"count":{count},'
                       f"{tail}{text}}}\n")

    def _pieces(self, operation: Operation) -> Iterator[tuple[str, int, int, list[int | None] | None]]:
        """The lines of an operation: kind, first block, blocks, values."""
        first, whole, end_whole, end = self._blocks(operation.offset, operation.length)
        if (operation.length < 1 or operation.offset < 0
                or operation.offset + operation.length > self.size_bytes):
            return                                       # refused: it was about no block
        if operation.kind == "zero":
            if whole < end_whole:
                yield "zero", whole, end_whole - whole, None
            for block in {first, end - 1}:
                if not whole <= block < end_whole:
                    yield "write", block, 1, [None]
            return
        values = operation.values
        if values is None and operation.kind == "write":
            values = [None] * (end - first)
        for block in range(first, end, BLOCKS_PER_LINE):
            count = min(BLOCKS_PER_LINE, end - block)
            yield (operation.kind, block, count,
                   None if values is None else values[block - first:block - first + count])

    def _blocks(self, offset: int, length: int) -> tuple[int, int, int, int]:
        """First block touched, first and end of the whole ones, end of those touched."""
        size, end = self.block_size, offset + length
        end_whole = -(-end // size) if end == self.size_bytes else end // size
        return offset // size, -(-offset // size), end_whole, -(-end // size)

    def _line(self, text: str) -> None:
        self._file.write(text)
        self._lines += 1


class RecordedVolume:
    """A volume's calls, recorded. As thread-safe as the volume is."""

    def __init__(self, recorder: Recorder, volume: RecordedCalls, client: int) -> None:
        self.size_bytes = volume.size_bytes
        self._recorder = recorder
        self._volume = volume
        self._client = whole_number("client", client, 0, config.HISTORY_CLIENT_MAX)

    def read(self, offset: int, length: int) -> bytes:
        """Raises ConfigError, too, where the volume gives fewer or more bytes than it was asked for."""
        operation = self._recorder.begin(self._client, "read", offset, length)
        with _failure_of(operation):
            data = self._volume.read(offset, length)
        operation.done(data)
        return data

    def write(self, offset: int, data: Any, *, fua: bool = False) -> None:
        view = memoryview(data).cast("B")
        operation = self._recorder.begin(self._client, "write", offset, len(view), fua=fua, data=view)
        with _failure_of(operation):
            self._volume.write(offset, data, fua=fua)
        operation.done()

    def trim(self, offset: int, length: int, *, fua: bool = False) -> None:
        """Only whole blocks of 4 KiB are zeros afterwards, the rest stays as it is."""
        begin = -(-offset // BLOCK_SIZE) * BLOCK_SIZE
        whole = (offset + length) // BLOCK_SIZE * BLOCK_SIZE - begin
        operation = self._recorder.begin(self._client, "zero", begin, whole, fua=fua)
        with _failure_of(operation):
            self._volume.trim(offset, length, fua=fua)
        operation.done()

    def write_zeroes(self, offset: int, length: int, *, fua: bool = False) -> None:
        operation = self._recorder.begin(self._client, "zero", offset, length, fua=fua)
        with _failure_of(operation):
            self._volume.write_zeroes(offset, length, fua=fua)
        operation.done()

    def flush(self) -> None:
        operation = self._recorder.begin(self._client, "flush")
        with _failure_of(operation):
            self._volume.flush()
        operation.done()


@contextlib.contextmanager
def _failure_of(operation: Operation) -> Iterator[None]:
    """Whatever is raised ends the operation as failed."""
    try:
        yield
    except BaseException as error:
        number = getattr(error, "errno", None)
        if not isinstance(number, int) or not 1 <= number <= config.HISTORY_ERROR_MAX:
            number = errors.RepstoreError.default_errno
        operation.failed(number)
        raise
