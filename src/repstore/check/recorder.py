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
"""
from __future__ import annotations

import contextlib
import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Protocol, Self

from repstore import config, errors
from repstore._fast.history_lines import UNKNOWN_VALUE
from repstore._fast.layout import BLOCK_SIZE
from repstore.check.history_file import HISTORY_VERSION

BLOCKS_PER_LINE = 65_536
Kind = Literal["read", "write", "zero", "flush"]
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


class Operation:
    """One operation under way. Exactly one of `done`, `failed`, `lost` and `over` ends it."""

    def __init__(self, recorder: Recorder, client: int, kind: Kind, offset: int, length: int, *,
                 fua: bool) -> None:
        self.kind = kind
        self.client = client
        self.offset = offset
        self.length = length
        self.fua = fua
        self.begin = 0
        self.values: list[int | None] | None = None
        self._recorder = recorder

    def content(self, data: Buffer) -> None:
        """The bytes that a write writes, or a read brought; as many as its length."""
        self.values = self._recorder.values(self.offset, data)

    def done(self, data: Buffer | None = None) -> None:
        """It was answered without an error; a read brought `data`."""
        end = self._recorder.now()
        if data is not None:
            self.content(data)
        self._recorder.end(self, end=end)

    def failed(self, errno: int) -> None:
        """It was answered with an error: a write may have happened, now or later, or not."""
        self._recorder.end(self, end=self._recorder.now(), error=errno)

    def lost(self) -> None:
        """It will not be answered: a write may have happened, or still happen, or not."""
        self._recorder.end(self)

    def over(self) -> None:
        """It will not be answered: a write has happened by now, or never will."""
        self._recorder.end(self, until=self._recorder.now())


def check_block_size(block_size: int) -> None:
    """ConfigError for bytes that no block of a history can have."""
    config.check_range("block size", block_size, config.HISTORY_SECTOR_BYTES_MIN, BLOCK_SIZE, "bytes")
    if block_size & (block_size - 1):
        raise errors.ConfigError(f"block size {block_size} bytes: must be a power of two")


class Recorder:
    """A history file being written. Thread-safe."""

    def __init__(self, path: Path, size_bytes: int, *, block_size: int = BLOCK_SIZE,
                 initial: Literal["zero", "unknown"] = "unknown", incarnation: int = 1,
                 clock: Callable[[], int] = time.monotonic_ns) -> None:
        """Make the file, of which there must be none. `initial`: what blocks hold before the
        first operation. Raises ConfigError."""
        check_block_size(block_size)
        config.check_range("volume size", size_bytes, 1, config.VOLUME_BYTES_MAX, "bytes")
        self.size_bytes = size_bytes
        self.block_size = block_size
        self.incarnation = incarnation
        self._clock = clock
        self._moment = -1
        self._lines = 0
        self._lock = threading.Lock()
        self._under_way: set[Operation] = set()
        try:
            self._file = path.open("x")
        except OSError as error:
            raise errors.ConfigError(f"{path}: {error.strerror}") from error
        self._file.write(f'{{"history":{HISTORY_VERSION},"block_size":{block_size},'
                         f'"blocks":{-(-size_bytes // block_size)},"initial":"{initial}",'
                         f'"incarnation":{incarnation}}}\n')

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()

    def wrap(self, volume: RecordedCalls, client: int = 0) -> RecordedVolume:
        """`volume` with all its calls recorded, as those of a client of this number."""
        return RecordedVolume(self, volume, client)

    def begin(self, client: int, kind: Kind, offset: int = 0, length: int = 0, *, fua: bool = False,
              data: Buffer | None = None) -> Operation:
        """An operation is about to be asked for. A write's `data` may be told later, by
        `Operation.content`."""
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
        that nothing acknowledged may be missing, else only what was flushed has to be there."""
        with self._lock:
            for operation in sorted(self._under_way, key=lambda each: each.begin):
                self._write(operation)
            self._under_way.clear()
            self.incarnation = incarnation
            self._line(f'{{"op":"crash","begin":{self._next_moment()},"incarnation":{incarnation}}}\n')

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
        self._moment = max(self._clock(), self._moment + 1)
        return self._moment

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
        self._client = client

    def read(self, offset: int, length: int) -> bytes:
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
        if not isinstance(number, int) or number <= 0:
            number = errors.RepstoreError.default_errno
        operation.failed(number)
        raise
