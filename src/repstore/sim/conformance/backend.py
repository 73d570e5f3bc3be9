"""What a disk backend promises the engine, as a suite for any of them.

    class TestMyBackend(BackendSuite):
        @pytest.fixture
        def disk(self, tmp_path):
            return MyDisk(tmp_path / "disk", 64 * BLOCK_SIZE)     # a `DiskUnderTest`, all zeros

  B1 Every operation is answered exactly once, in any order, however many are under way.
  B2 A read or write is answered with its whole length, a flush with 0; anything else is a
     negative errno. A short read or write is an error, never a length and never zeros.
  B3 What is begun after the answer of a write sees that write, and all of it.
  B4 A write changes its range and nothing else, a read its buffer and nothing else.
  B5 A flush that was answered with 0 covers every write that was answered before it began.
     One that failed is answered with an error, and promises nothing.
  B6 An operation that failed does not fail those after it.

`begin` lends the buffer until the answer: a page-aligned mmap of whole blocks. A device that
answers at once (`store.device.Device`) is made one of these by `DeviceDisk`. Two fixtures are
optional: `fail_next`, and `cut_power` for a backend that can lose what was not flushed.
"""
from __future__ import annotations

import errno
import mmap
from collections.abc import Callable
from itertools import pairwise
from random import Random
from typing import Protocol

import pytest

from repstore import errors
from repstore.format import BLOCK_SIZE
from repstore.store.device import Device

READ, WRITE, FLUSH = 1, 2, 3              # what the engine's seam calls them
MANY = 300                                # operations under way at once
MODEL_SEEDS = 10
MODEL_STEPS = 60

FailNext = Callable[[int], None]
CutPower = Callable[[], None]


class DiskUnderTest(Protocol):
    """A backend as the suite sees it. One thread."""

    @property
    def size_bytes(self) -> int:
        """Whole blocks, at least 64 of them."""

    def begin(self, verb: int, offset: int, buffer: mmap.mmap | None, token: int) -> None:
        """READ into, or WRITE from, all of `buffer` at `offset`; FLUSH has neither. Never waits."""

    def answers(self, count: int) -> list[tuple[int, int]]:
        """Waits for that many answers that were not given yet: (token, result)."""


class DeviceDisk:
    """A device that answers at once, as a backend."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._answers: list[tuple[int, int]] = []

    @property
    def size_bytes(self) -> int:
        return self._device.size_bytes

    def begin(self, verb: int, offset: int, buffer: mmap.mmap | None, token: int) -> None:
        try:
            result = self._done(verb, offset, buffer)
        except errors.OutOfRangeError:
            result = -errno.EIO
        except OSError as error:
            result = -(error.errno or errno.EIO)
        self._answers.append((token, result))

    def answers(self, count: int) -> list[tuple[int, int]]:
        given, self._answers = self._answers[:count], self._answers[count:]
        return given

    def _done(self, verb: int, offset: int, buffer: mmap.mmap | None) -> int:
        if verb == FLUSH or buffer is None:
            self._device.flush()
            return 0
        if verb == READ:
            buffer[:] = bytes(self._device.read(offset, len(buffer)))
        else:
            self._device.write(offset, buffer[:])
        return len(buffer)


class BackendSuite:
    """Derive, give `disk`, run pytest."""

    @pytest.fixture
    def disk(self) -> DiskUnderTest:
        """A disk of zeros, at least 64 blocks."""
        raise NotImplementedError("a BackendSuite needs the fixture `disk`")

    @pytest.fixture
    def fail_next(self, disk: DiskUnderTest) -> FailNext:
        """Makes the next operation of this verb fail."""
        pytest.skip("no fixture `fail_next` is given")

    @pytest.fixture
    def cut_power(self, disk: DiskUnderTest) -> CutPower:
        """The power of the disk fails and comes back; nothing is under way any more."""
        pytest.skip("no fixture `cut_power` is given")

    # ------------------------------------------------------------------ completion (B1, B2)
    def test_every_verb_is_answered_once_with_all_it_did(self, disk: DiskUnderTest) -> None:
        disk.begin(WRITE, 0, filled(b"a", 3), 1)
        assert disk.answers(1) == [(1, 3 * BLOCK_SIZE)]
        disk.begin(READ, 0, filled(b"\0", 2), 2)
        disk.begin(FLUSH, 0, None, 3)
        assert sorted(disk.answers(2)) == [(2, 2 * BLOCK_SIZE), (3, 0)]

    def test_many_under_way_are_each_answered_once(self, disk: DiskUnderTest) -> None:
        blocks, buffers = disk.size_bytes // BLOCK_SIZE, []
        for token in range(MANY):
            verb = (READ, READ, WRITE, FLUSH)[token % 4]
            # reads and writes apart from each other: what overlaps has no order
            place = token % (blocks // 2) + (blocks // 2 if verb == WRITE else 0)
            buffers.append(filled(b"w"))
            disk.begin(verb, place * BLOCK_SIZE if verb != FLUSH else 0,
                       None if verb == FLUSH else buffers[-1], token)
        answered = disk.answers(MANY)
        assert sorted(token for token, _ in answered) == list(range(MANY))
        for token, result in answered:
            assert result == (0 if token % 4 == 3 else BLOCK_SIZE)

    def test_a_flush_of_nothing_and_flushes_at_once(self, disk: DiskUnderTest) -> None:
        for token in range(5):
            disk.begin(FLUSH, 0, None, token)
        assert sorted(disk.answers(5)) == [(token, 0) for token in range(5)]

    # --------------------------------------------------------------------- order (B3, B4)
    def test_what_was_never_written_reads_as_zeros(self, disk: DiskUnderTest) -> None:
        for offset in (0, BLOCK_SIZE, disk.size_bytes - BLOCK_SIZE):
            assert_same(read(disk, offset), bytes(BLOCK_SIZE))

    @pytest.mark.parametrize("place", ["first", "middle", "last"])
    def test_a_write_changes_its_range_and_nothing_else(self, disk: DiskUnderTest, place: str) -> None:
        offset = {"first": 0, "middle": 5 * BLOCK_SIZE, "last": disk.size_bytes - 2 * BLOCK_SIZE}[place]
        source = filled(b"w", 2)
        write(disk, offset, source)
        assert_same(source[:], b"w" * 2 * BLOCK_SIZE)
        expected = bytearray(disk.size_bytes)
        expected[offset:offset + 2 * BLOCK_SIZE] = source[:]
        assert_same(read(disk, 0, disk.size_bytes // BLOCK_SIZE), expected)

    def test_of_writes_one_after_the_other_the_last_one_stays(self, disk: DiskUnderTest) -> None:
        for letter in (b"a", b"b", b"c"):
            write(disk, BLOCK_SIZE, filled(letter))
            assert_same(read(disk, BLOCK_SIZE), letter * BLOCK_SIZE)

    @pytest.mark.parametrize("seed", range(MODEL_SEEDS))
    def test_it_reads_like_an_array_of_bytes(self, disk: DiskUnderTest, seed: int) -> None:
        """Rounds of operations at once, those of one round apart from each other."""
        random, model = Random(seed), bytearray(disk.size_bytes)
        blocks = disk.size_bytes // BLOCK_SIZE
        for _ in range(MODEL_STEPS):
            reads: dict[int, tuple[int, mmap.mmap]] = {}
            cuts = sorted(random.sample(range(blocks + 1), 9))
            for token, (first, end) in enumerate(pairwise(cuts)):
                offset, buffer = first * BLOCK_SIZE, filled(random.randbytes(1), end - first)
                is_write = random.random() < 0.5
                if is_write:
                    model[offset:end * BLOCK_SIZE] = buffer[:]
                else:
                    reads[token] = (offset, buffer)
                disk.begin(WRITE if is_write else READ, offset, buffer, token)
            assert all(result > 0 for _, result in disk.answers(8))
            for offset, buffer in reads.values():
                assert_same(buffer[:], model[offset:offset + len(buffer)])

    # -------------------------------------------------------------------- errors (B2, B6)
    def test_a_read_past_the_end_is_an_error(self, disk: DiskUnderTest) -> None:
        """All of it, or its last block only: a short read is no read."""
        disk.begin(READ, disk.size_bytes, filled(b"r"), 1)
        disk.begin(READ, disk.size_bytes - BLOCK_SIZE, filled(b"r", 2), 2)
        assert all(result < 0 for _, result in disk.answers(2))
        assert_same(read(disk, disk.size_bytes - BLOCK_SIZE), bytes(BLOCK_SIZE))

    @pytest.mark.parametrize("verb", [READ, WRITE, FLUSH])
    def test_a_failure_is_a_negative_errno_and_ends_there(
            self, disk: DiskUnderTest, fail_next: FailNext, verb: int) -> None:
        write(disk, 0, filled(b"a"))
        fail_next(verb)
        disk.begin(verb, BLOCK_SIZE, None if verb == FLUSH else filled(b"x"), 1)
        [(token, result)] = disk.answers(1)
        assert token == 1
        assert -4096 < result < 0
        assert_same(read(disk, 0), b"a" * BLOCK_SIZE)            # others are not touched
        write(disk, BLOCK_SIZE, filled(b"b"))
        assert_same(read(disk, BLOCK_SIZE), b"b" * BLOCK_SIZE)

    # -------------------------------------------------------------------------- flush (B5)
    def test_what_was_flushed_survives_a_power_cut(self, disk: DiskUnderTest, cut_power: CutPower) -> None:
        write(disk, 0, filled(b"a", 4))
        flush(disk)
        write(disk, 8 * BLOCK_SIZE, filled(b"b"))         # may be lost, or torn
        cut_power()
        assert_same(read(disk, 0, 4), b"a" * 4 * BLOCK_SIZE)
        assert set(read(disk, 8 * BLOCK_SIZE)) <= set(b"\0b")
        write(disk, 0, filled(b"c"))
        assert_same(read(disk, 0), b"c" * BLOCK_SIZE)

    def test_flushes_at_once_cover_what_was_answered_before_each(
            self, disk: DiskUnderTest, cut_power: CutPower) -> None:
        write(disk, 0, filled(b"a"))
        disk.begin(FLUSH, 0, None, 1)
        disk.begin(WRITE, BLOCK_SIZE, filled(b"b"), 2)
        disk.begin(FLUSH, 0, None, 3)
        assert sorted(disk.answers(3)) == [(1, 0), (2, BLOCK_SIZE), (3, 0)]
        flush(disk)
        cut_power()
        assert_same(read(disk, 0, 2), b"a" * BLOCK_SIZE + b"b" * BLOCK_SIZE)


def assert_same(found: bytes, expected: bytes | bytearray) -> None:
    """The same bytes, or the first block that is not: pytest's own diff of so many takes hours."""
    assert len(found) == len(expected)
    for at in range(0, len(expected), BLOCK_SIZE):
        if found[at:at + BLOCK_SIZE] != expected[at:at + BLOCK_SIZE]:
            raise AssertionError(f"block {at // BLOCK_SIZE} of {len(expected) // BLOCK_SIZE} begins with "
                                 f"{found[at:at + 16]!r}, not {expected[at:at + 16]!r}")


def filled(letter: bytes, blocks: int = 1) -> mmap.mmap:
    """A page-aligned buffer, as the engine's are."""
    buffer = mmap.mmap(-1, blocks * BLOCK_SIZE)
    buffer[:] = letter * blocks * BLOCK_SIZE
    return buffer


def read(disk: DiskUnderTest, offset: int, blocks: int = 1) -> bytes:
    """Blocks that can be read."""
    buffer = filled(b"?", blocks)
    disk.begin(READ, offset, buffer, 901)
    assert disk.answers(1) == [(901, len(buffer))]
    return buffer[:]


def write(disk: DiskUnderTest, offset: int, buffer: mmap.mmap) -> None:
    """Written, and answered."""
    disk.begin(WRITE, offset, buffer, 902)
    assert disk.answers(1) == [(902, len(buffer))]


def flush(disk: DiskUnderTest) -> None:
    """Flushed, and answered."""
    disk.begin(FLUSH, 0, None, 903)
    assert disk.answers(1) == [(903, 0)]
