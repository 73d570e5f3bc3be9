"""The judge of crash states, on a store that is not ours: the examples of the documents, and broken ones."""
import contextlib
import io
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from repstore import errors
from repstore.format import BLOCK_SIZE
from repstore.sim.crash_check import FAULTS_MAX, Ledger, check_crashes
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
    assert said_by(example("docs/crash_states.md", 1)) == ""


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
