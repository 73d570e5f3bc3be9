"""The judge of crash states, on a store that is not ours: the examples of the documents, and broken ones."""
import contextlib
import copy
import io
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from repstore import errors
from repstore.format import BLOCK_SIZE
from repstore.sim.crash_check import FAULTS_MAX, CrashReport, Ledger, Reopen, check_crashes
from repstore.sim.crash_states import CrashState
from repstore.sim.difference import difference, distance
from repstore.sim.recording import Recording, RecordingDevice

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def example(document: str, number: int = 0) -> str:
    return str(EXAMPLE.findall((ROOT / document).read_text())[number])


def said_by(source: str) -> str:
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(compile(source, "crash_states.md", "exec"), {"__name__": "__main__"})
    return said.getvalue()


def test_the_example_runs_as_it_is_printed() -> None:
    source = example("docs/crash_states.md")
    [shown] = re.findall(r"# prints (.*)", source)
    assert said_by(source) == f"{shown}\n"


def test_the_example_of_a_volume_runs_as_it_is_printed() -> None:
    assert said_by(example("docs/crash_states.md", 2)) == ""


def test_the_failing_example_says_what_the_document_shows() -> None:
    document = (ROOT / "docs/crash_states.md").read_text()
    report, looked_at = re.findall(r"^```text\n(.*?)^```$", document, re.MULTILINE | re.DOTALL)
    flush = "        notes.device.flush()\n        ledger"
    source = example("docs/crash_states.md")
    assert flush in source
    said = said_by(source.replace(flush, "        ledger") + example("docs/crash_states.md", 1))
    assert said.startswith(report)
    assert said.endswith(f"(D1)\n{looked_at}")
    assert len(said.splitlines()) == 1 + FAULTS_MAX + len(looked_at.splitlines())


@pytest.mark.parametrize(("right", "wrong", "rule"), [
    ("        notes.device.flush()\n        ledger.answered(flush)", "        ledger.answered(flush)", "D1"),
    ("yield list(notes.texts)", "yield list(notes.texts)[::-1]", "D3"),
    ('notes.add("jam")', 'assert notes.texts', "OPEN"),
])
def test_a_store_that_breaks_a_promise_is_seen(right: str, wrong: str, rule: str) -> None:
    source = example("docs/crash_states.md")
    assert right in source
    assert f"({rule})" in said_by(source.replace(right, wrong))


class OwnDisk:
    """A backend that keeps its image in a bytearray, and hands that to its recording."""

    def __init__(self) -> None:
        self.image = bytearray(4 * BLOCK_SIZE)
        self.recording = Recording(self.image)  # type: ignore[arg-type]  # callers do this

    def write(self, offset: int, data: bytes) -> None:
        number = self.recording.write_begun(offset, data)
        self.image[offset:offset + len(data)] = data
        self.recording.write_done(number)


def test_a_backend_may_go_on_with_the_image_it_handed_over() -> None:
    """Its writes were there already in every state that should have lost them."""
    disk = OwnDisk()
    ledger = Ledger(disk.recording, state=0)
    for block in range(4):
        number = ledger.asked(block + 1, durable=True)      # and nobody flushes
        disk.write(block * BLOCK_SIZE, b"x" * BLOCK_SIZE)
        ledger.answered(number)

    @contextlib.contextmanager
    def reopen(recording: Recording, boot: int) -> Iterator[object]:
        yield recording.found().count(b"x" * BLOCK_SIZE)

    assert len(check_crashes(ledger, reopen).faults) == FAULTS_MAX


def test_bad_arguments_are_refused() -> None:
    ledger = Ledger(Recording(bytes(4096)), state=0)

    @contextlib.contextmanager
    def reopen(recording: Recording, boot: int) -> Iterator[object]:
        yield RecordingDevice(recording)

    with pytest.raises(errors.ConfigError, match="every 0"):
        check_crashes(ledger, reopen, every=0)
    with pytest.raises(errors.ConfigError, match="never asked"):
        ledger.answered(0)


# ----------------------------------------------------------------------- what a fault tells

SIZE_BYTES = 4 * BLOCK_SIZE


def raw_faults(ledger: Ledger, reopen: Reopen | None = None, **more: int) -> CrashReport:
    """Of a store whose content is its disk."""
    @contextlib.contextmanager
    def as_it_is(recording: Recording, boot: int) -> Iterator[object]:
        yield bytes(recording.found())
    return check_crashes(ledger, reopen or as_it_is, **more)


def overwritten(recording: Recording) -> Ledger:
    """A block of ones, flushed; then twos over it, of which any sectors may be there."""
    ledger = Ledger(recording, state=bytes(SIZE_BYTES))
    ones, twos = b"\1" * BLOCK_SIZE + bytes(3 * BLOCK_SIZE), b"\2" * BLOCK_SIZE + bytes(3 * BLOCK_SIZE)
    number = ledger.asked(ones, durable=True)
    recording.write_done(recording.write_begun(0, ones[:BLOCK_SIZE]))
    recording.flush_done(recording.flush_begun())
    ledger.answered(number)
    number = ledger.asked(twos)
    recording.write_done(recording.write_begun(0, twos[:BLOCK_SIZE]))
    ledger.answered(number)
    return ledger


def test_a_fault_of_large_contents_is_short_and_says_where_and_what() -> None:
    report = raw_faults(overwritten(Recording(bytes(SIZE_BYTES))))
    assert max(len(fault) for fault in report.faults) < 500
    assert len(str(report)) < 12_000
    ones, twos = r"b'\x01\x01\x01\x01\x01\x01\x01\x01'", r"b'\x02\x02\x02\x02\x02\x02\x02\x02'"
    assert report.faults[0] == (
        "power cut at the end (after 10 entries), 1 of 2 writes durable; "
        "in part: write 3 (4096 bytes at 0: sectors 0 of 8): "
        "this is not the content after any prefix of the operations; the nearest is that after 1 of 2 "
        f"effects: 512 of 16384 bytes differ, from 0 on: found {twos}, expected {ones} (D3)")
    assert f"from 2560 on: found {ones}, expected {twos}, both after {twos} (D3)" in str(report)


def test_a_fault_has_its_image_and_can_be_looked_at_again() -> None:
    report = raw_faults(overwritten(Recording(bytes(SIZE_BYTES))))
    images = [fault.image() for fault in report.faults]
    assert images[0] == b"\2" * 512 + b"\1" * (BLOCK_SIZE - 512) + bytes(3 * BLOCK_SIZE)
    assert images == [fault.life().found() for fault in report.faults]
    assert {(fault.state.power_lost, fault.boot, fault.second) for fault in report.faults} == {
        (True, 1, None), (False, 0, None)}
    copied = copy.deepcopy(report.faults[0])
    assert (copied, copied.image()) == (report.faults[0], images[0])


def test_a_fault_of_a_second_crash_has_the_image_that_this_one_left() -> None:
    """What the reopening of this store begins with wipes it."""
    recording = Recording(bytes(SIZE_BYTES))
    ledger = Ledger(recording, state=b"")
    number = ledger.asked(b"kept", durable=True)
    RecordingDevice(recording).write(0, b"kept".ljust(BLOCK_SIZE, b"\0"))
    recording.flush_done(recording.flush_begun())
    ledger.answered(number)

    @contextlib.contextmanager
    def reopen(recording: Recording, boot: int) -> Iterator[object]:
        device = RecordingDevice(recording)
        block = bytes(device.read(0, BLOCK_SIZE))
        device.write(0, bytes(BLOCK_SIZE))
        device.write(0, block)
        yield block.rstrip(b"\0")

    report = check_crashes(ledger, reopen, second_crashes=8)
    assert report.faults
    for fault in report.faults:
        assert fault.second is not None
        assert "; then, while it was reopened, " in fault
        assert fault.image() == fault.life().found() == bytes(SIZE_BYTES)
        with reopen(fault.life(), fault.boot) as found:
            assert found == b""


def test_a_state_names_its_writes_and_their_sectors() -> None:
    recording = Recording(bytes(64 * BLOCK_SIZE))
    for block in range(12):
        recording.write_done(recording.write_begun(block * BLOCK_SIZE, b"x" * BLOCK_SIZE))
        if block == 1:
            recording.flush_done(recording.flush_begun())
    flying = recording.write_begun(40 * BLOCK_SIZE, b"x" * 1000)
    flush = recording.flush_begun()
    recording.write_done(flying)
    recording.flush_done(flush)
    writes = recording.writes()
    first, *others, last = (1 << number for number in writes)
    told = CrashState(28, True, first | sum(others[:9]), ((12, 0b11000101), (last.bit_length() - 1, 0))
                      ).told(recording)
    assert told == (
        "power cut before the answer of write 14 (entry 28), 2 of 13 writes durable; "
        "there: 2 older ones, write 6 (4096 bytes at 16384), write 7 (4096 bytes at 20480), "
        "write 8 (4096 bytes at 24576), write 9 (4096 bytes at 28672), write 10 (4096 bytes at 32768), "
        "write 11 (4096 bytes at 36864); in part: write 12 (4096 bytes at 40960: sectors 0, 2, 6-7 of 8); "
        "missing: write 13 (4096 bytes at 45056), write 14 (1000 bytes at 163840)")
    at_the_end = CrashState(len(recording.entries), False, first).told(recording)
    assert at_the_end.startswith("kill at the end (after 30 entries), 13 of 13 writes answered")
    assert "(entry 29), " in CrashState(29, False, first).told(recording)
    assert str(CrashState(3, False, 0b110, ((3, 0b11),))) == (
        "kill before entry 3: writes [1, 2] there, of write 3 sectors 0-1")


def test_a_report_says_that_there_may_be_more() -> None:
    ledger = overwritten(Recording(bytes(SIZE_BYTES)))
    some = raw_faults(ledger, every=4)
    assert str(some).splitlines()[0].endswith(f"reopening: {len(some.faults)} faults")

    @contextlib.contextmanager
    def broken(recording: Recording, boot: int) -> Iterator[object]:
        raise ValueError("no" * 10_000)
        yield

    all_of_them = raw_faults(ledger, broken)
    assert len(all_of_them.faults) == FAULTS_MAX
    assert str(all_of_them).splitlines()[0].endswith(": 20 faults shown of 20 or more: it stops at 20")
    assert len(str(all_of_them)) < 20_000


@pytest.mark.parametrize(("found", "expected", "told"), [
    (["milk"], ["milk", "tea"], "found ['milk'], expected ['milk', 'tea']"),
    ({"a": 1}, None, "found {'a': 1}, expected None"),
    (tuple(range(64)), (*range(63), 9), "1 of 64 differ, first [63]: found 63, expected 9"),
    (list(range(64)), list(range(60)), "4 of 64 differ, first [60]: found 60, expected nothing"),
    ("a" * 100, "a" * 90, "10 of 100 characters differ, from 90 on: found 'aaaaaaaa', expected '', "
                          "both after 'aaaaaaaa'"),
    (bytearray(b"a" * 100), b"", "100 of 100 bytes differ, from 0 on: found b'aaaaaaaa', expected b''"),
    ({"a": "x" * 90, "b": 1}, {"a": "x" * 90, "c": 1},
     "2 of 3 keys differ, first ['c']: found nothing, expected 1"),
    ([b"a" * 90], [b"a" * 89 + b"b"], "1 of 1 differ, first [0]: 1 of 90 bytes differ, from 89 on: "
                                      "found b'a', expected b'b', both after b'aaaaaaaa'"),
    ([0] * 90, (0,) * 90, f"found {str([0] * 90)[:60]}... (270 characters), "
                          f"expected {str((0,) * 90)[:60]}... (270 characters)"),
])
def test_contents_are_told_apart_in_a_line(found: object, expected: object, told: str) -> None:
    assert difference(found, expected) == told
    assert distance(found, expected) > 0 == distance(found, copy.deepcopy(found))
