"""What a disk backend promises the engine, as a suite for any of them.

    class TestMyBackend(BackendSuite):
        @pytest.fixture
        def disk(self, tmp_path):
            return MyDisk(tmp_path / "disk", 64 * BLOCK_SIZE)     # a `DiskUnderTest`, all zeros

  B1 Every operation is answered exactly once, in any order, however many are under way, and
     before the suite has waited for `answer_s` seconds.
  B2 A read or write is answered with its whole length, a flush with 0; anything else is a
     negative errno. A short read or write is an error, never a length and never zeros.
  B3 What is begun after the answer of a write sees that write, and all of it.
  B4 A write changes its range and nothing else, a read its buffer and nothing else.
  B5 A flush that was answered with 0 covers every write that was answered before it began.
     One that failed is answered with an error, and promises nothing.
  B6 An operation that failed does not fail those after it.

`begin` lends the buffer until the answer: a page-aligned mmap of whole blocks. With the answer
it is taken back and overwritten, so nothing may be copied from it afterwards. A device that
answers at once (`store.device.Device`) is made one of these by `DeviceDisk`. Three fixtures are
optional: `fail_next`, `cut_power` for a backend that can lose what was not flushed, `answer_s`.
"""
from __future__ import annotations

import errno
import mmap
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from random import Random
from types import FrameType
from typing import Protocol

import pytest

from repstore import errors
from repstore.format import BLOCK_SIZE
from repstore.store.device import Device

READ, WRITE, FLUSH = 1, 2, 3              # what the engine's seam calls them
MANY = 300                                # operations under way at once
MODEL_SEEDS = 10
MODEL_STEPS = 60
FLUSH_ROUNDS = 20                         # at most; each has a letter of its own
FLUSH_ROUNDS_OVERLAPPED = 5               # are enough: what a power cut takes may be drawn
ANSWER_S = 10.0
UNREAD, TAKEN_BACK = b"?", b"\xee"        # in a buffer that nobody read into, and after its answer

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
        """Waits for that many answers that were not given yet: (token, result). More may be there."""


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


class NoAnswer(BaseException):
    """Nobody answered in time. No Exception: the backend that waits must not catch it."""


class Asker:
    """Asks a backend as an engine does: what it lends it takes back with the answer (B1, B4).

    AssertionError for an answer that does not come within `answer_s` seconds, or comes twice.
    """

    def __init__(self, disk: DiskUnderTest, answer_s: float = ANSWER_S) -> None:
        self.found: dict[int, bytes] = {}         # by token: what the last read of that name gave
        self._disk = disk
        self._answer_s = answer_s
        self._lent: dict[int, tuple[int, mmap.mmap | None, bytes]] = {}      # verb, buffer, its content

    @property
    def size_bytes(self) -> int:
        return self._disk.size_bytes

    def begin(self, verb: int, offset: int, buffer: mmap.mmap | None, token: int) -> None:
        """As the backend's; whatever is in a buffer to read into is not what will be read."""
        if verb == READ and buffer is not None:
            overwrite(buffer, UNREAD)
        self._lent[token] = (verb, buffer, b"" if buffer is None else buffer[:])
        self._disk.begin(verb, offset, buffer, token)

    def answers(self, count: int) -> list[tuple[int, int]]:
        """Waits for that many: (token, result)."""
        return [self._answer() for _ in range(count)]

    def all_answers(self) -> dict[int, int]:
        """Waits until nothing is under way: results by token."""
        return dict(self.answers(len(self._lent)))

    def _answer(self) -> tuple[int, int]:
        try:
            with deadline(self._answer_s):
                given = self._disk.answers(1)
        except NoAnswer as late:
            raise AssertionError(f"{self._unanswered()} within {self._answer_s} s (B1)") from late
        assert given, f"{self._unanswered()}: there is nothing to wait for (B1)"
        [(token, result)] = given
        assert token in self._lent, f"token {token} was answered, and is not under way (B1)"
        verb, buffer, content = self._lent.pop(token)
        if buffer is None:
            return token, result
        if verb == READ:
            self.found[token] = buffer[:]
        else:
            assert_same(buffer[:], content)
        overwrite(buffer, TAKEN_BACK)
        return token, result

    def _unanswered(self) -> str:
        first, *others = sorted(self._lent)
        more = f", nor were {len(others)} others" if others else ""
        return f"token {first} was never answered{more}"


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

    @pytest.fixture
    def answer_s(self) -> float:
        """Seconds that an operation may take until it counts as never answered."""
        return ANSWER_S

    @pytest.fixture
    def asker(self, disk: DiskUnderTest, answer_s: float) -> Asker:
        """The disk, asked as an engine does."""
        return Asker(disk, answer_s)

    # ------------------------------------------------------------------ completion (B1, B2)
    def test_every_verb_is_answered_once_with_all_it_did(self, asker: Asker) -> None:
        asker.begin(WRITE, 0, filled(b"a", 3), 1)
        assert asker.answers(1) == [(1, 3 * BLOCK_SIZE)]
        asker.begin(READ, 0, filled(b"\0", 2), 2)
        asker.begin(FLUSH, 0, None, 3)
        assert sorted(asker.answers(2)) == [(2, 2 * BLOCK_SIZE), (3, 0)]

    def test_many_under_way_are_each_answered_once(self, asker: Asker) -> None:
        blocks = asker.size_bytes // BLOCK_SIZE
        for token in range(MANY):
            verb = (READ, READ, WRITE, FLUSH)[token % 4]
            # reads and writes apart from each other: what overlaps has no order
            place = token % (blocks // 2) + (blocks // 2 if verb == WRITE else 0)
            asker.begin(verb, place * BLOCK_SIZE if verb != FLUSH else 0,
                        None if verb == FLUSH else filled(b"w"), token)
        answered = asker.answers(MANY)
        assert sorted(token for token, _ in answered) == list(range(MANY))
        for token, result in answered:
            assert result == (0 if token % 4 == 3 else BLOCK_SIZE)
        read(asker, 0)                            # a second answer of one of them would come here

    def test_a_flush_of_nothing_and_flushes_at_once(self, asker: Asker) -> None:
        for token in range(5):
            asker.begin(FLUSH, 0, None, token)
        assert sorted(asker.answers(5)) == [(token, 0) for token in range(5)]

    # --------------------------------------------------------------------- order (B3, B4)
    def test_what_was_never_written_reads_as_zeros(self, asker: Asker) -> None:
        for offset in (0, 0, BLOCK_SIZE, asker.size_bytes - BLOCK_SIZE):
            assert_same(read(asker, offset), bytes(BLOCK_SIZE))

    @pytest.mark.parametrize("place", ["first", "middle", "last"])
    def test_a_write_changes_its_range_and_nothing_else(self, asker: Asker, place: str) -> None:
        offset = {"first": 0, "middle": 5 * BLOCK_SIZE, "last": asker.size_bytes - 2 * BLOCK_SIZE}[place]
        write(asker, offset, filled(b"w", 2))
        expected = bytearray(asker.size_bytes)
        expected[offset:offset + 2 * BLOCK_SIZE] = b"w" * 2 * BLOCK_SIZE
        assert_same(read(asker, 0, asker.size_bytes // BLOCK_SIZE), expected)

    def test_of_writes_one_after_the_other_the_last_one_stays(self, asker: Asker) -> None:
        for letter in (b"a", b"b", b"c"):
            write(asker, BLOCK_SIZE, filled(letter))
            assert_same(read(asker, BLOCK_SIZE), letter * BLOCK_SIZE)

    @pytest.mark.parametrize("seed", range(MODEL_SEEDS))
    def test_it_reads_like_an_array_of_bytes(self, asker: Asker, seed: int) -> None:
        """Rounds of operations at once, those of one round apart from each other."""
        random, model = Random(seed), bytearray(asker.size_bytes)
        blocks = asker.size_bytes // BLOCK_SIZE
        for _ in range(MODEL_STEPS):
            lengths, reads = dict[int, int](), dict[int, int]()       # by token; offsets of reads
            cuts = sorted(random.sample(range(blocks + 1), 9))
            for token, (first, end) in enumerate(pairwise(cuts)):
                offset, buffer = first * BLOCK_SIZE, filled(random.randbytes(1), end - first)
                is_write, lengths[token] = random.random() < 0.5, len(buffer)
                if is_write:
                    model[offset:end * BLOCK_SIZE] = buffer[:]
                else:
                    reads[token] = offset
                asker.begin(WRITE if is_write else READ, offset, buffer, token)
            assert asker.all_answers() == lengths
            for token, offset in reads.items():
                assert_same(asker.found[token], model[offset:offset + lengths[token]])

    # -------------------------------------------------------------------- errors (B2, B6)
    def test_a_read_past_the_end_is_an_error(self, asker: Asker) -> None:
        """All of it, or its last block only: a short read is no read."""
        asker.begin(READ, asker.size_bytes, filled(b"r"), 1)
        asker.begin(READ, asker.size_bytes - BLOCK_SIZE, filled(b"r", 2), 2)
        assert all(result < 0 for _, result in asker.answers(2))
        assert_same(read(asker, asker.size_bytes - BLOCK_SIZE), bytes(BLOCK_SIZE))

    @pytest.mark.parametrize("verb", [READ, WRITE, FLUSH])
    def test_a_failure_is_a_negative_errno_and_ends_there(
            self, asker: Asker, fail_next: FailNext, verb: int) -> None:
        write(asker, 0, filled(b"a"))
        fail_next(verb)
        asker.begin(verb, BLOCK_SIZE, None if verb == FLUSH else filled(b"x"), 1)
        [(token, result)] = asker.answers(1)
        assert token == 1
        assert -4096 < result < 0
        assert_same(read(asker, 0), b"a" * BLOCK_SIZE)            # others are not touched
        write(asker, BLOCK_SIZE, filled(b"b"))
        assert_same(read(asker, BLOCK_SIZE), b"b" * BLOCK_SIZE)

    # -------------------------------------------------------------------------- flush (B5)
    def test_what_was_flushed_survives_a_power_cut(self, asker: Asker, cut_power: CutPower) -> None:
        write(asker, 0, filled(b"a", 4))
        flush(asker)
        write(asker, 8 * BLOCK_SIZE, filled(b"b"))         # may be lost, or torn
        cut_power()
        assert_same(read(asker, 0, 4), b"a" * 4 * BLOCK_SIZE)
        assert set(read(asker, 8 * BLOCK_SIZE)) <= set(b"\0b")
        write(asker, 0, filled(b"c"))
        assert_same(read(asker, 0), b"c" * BLOCK_SIZE)

    def test_flushes_at_once_cover_what_was_answered_before_each(
            self, asker: Asker, cut_power: CutPower) -> None:
        """The second one covers a write that was answered after the first one had begun."""
        overlapped = 0
        for number in range(FLUSH_ROUNDS):
            letter = bytes([ord("A") + number])
            write(asker, 0, filled(letter, 16))
            asker.begin(FLUSH, 0, None, 1)
            asker.begin(WRITE, 16 * BLOCK_SIZE, filled(letter), 2)
            results = dict(asker.answers(1))
            if 2 not in results:
                results |= asker.answers(1)
            overlapped += 1 not in results
            asker.begin(FLUSH, 0, None, 3)
            results |= asker.all_answers()
            assert results == {1: 0, 2: BLOCK_SIZE, 3: 0}
            cut_power()
            assert_same(read(asker, 0, 17), letter * 17 * BLOCK_SIZE)
            if overlapped == FLUSH_ROUNDS_OVERLAPPED:
                return
        if not overlapped:
            pytest.skip(f"in {FLUSH_ROUNDS} rounds no write was answered while a flush was under way: "
                        "whether one flush joins another was not tried")


def assert_same(found: bytes, expected: bytes | bytearray) -> None:
    """The same bytes, or the first block that is not: pytest's own diff of so many takes hours."""
    assert len(found) == len(expected)
    for at in range(0, len(expected), BLOCK_SIZE):
        if found[at:at + BLOCK_SIZE] != expected[at:at + BLOCK_SIZE]:
            raise AssertionError(f"block {at // BLOCK_SIZE} of {len(expected) // BLOCK_SIZE} begins with "
                                 f"{found[at:at + 16]!r}, not {expected[at:at + 16]!r}")


@contextmanager
def deadline(duration_s: float) -> Iterator[None]:
    """What takes longer is interrupted: NoAnswer. Only in the main thread, which alone sees signals."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    begun_s = time.monotonic()
    handler = signal.signal(signal.SIGALRM, _late)
    theirs_s, _ = signal.setitimer(signal.ITIMER_REAL, duration_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        if theirs_s:
            # whoever limits the time of a whole test has the same timer
            signal.setitimer(signal.ITIMER_REAL, max(theirs_s - (time.monotonic() - begun_s), 0.001))


def _late(number: int, frame: FrameType | None) -> None:
    raise NoAnswer


def overwrite(buffer: mmap.mmap, letter: bytes) -> None:
    """Nothing else is in it any more."""
    buffer[:] = letter * len(buffer)


def filled(letter: bytes, blocks: int = 1) -> mmap.mmap:
    """A page-aligned buffer, as the engine's are."""
    buffer = mmap.mmap(-1, blocks * BLOCK_SIZE)
    buffer[:] = letter * blocks * BLOCK_SIZE
    return buffer


def read(asker: Asker, offset: int, blocks: int = 1) -> bytes:
    """Blocks that can be read."""
    asker.begin(READ, offset, filled(UNREAD, blocks), 901)
    assert asker.answers(1) == [(901, blocks * BLOCK_SIZE)]
    return asker.found[901]


def write(asker: Asker, offset: int, buffer: mmap.mmap) -> None:
    """Written, and answered."""
    asker.begin(WRITE, offset, buffer, 902)
    assert asker.answers(1) == [(902, len(buffer))]


def flush(asker: Asker) -> None:
    """Flushed, and answered."""
    asker.begin(FLUSH, 0, None, 903)
    assert asker.answers(1) == [(903, 0)]
