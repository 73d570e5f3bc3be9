"""The policy decides what the transcripts in testdata say, action by action."""
from pathlib import Path

import pytest

from tests.replication.transcript import Transcript

SCENARIOS = sorted((Path(__file__).parent / "testdata").glob("*.txt"))


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_transcript(path: Path) -> None:
    text = path.read_text()
    assert Transcript().run(text) == text


def test_there_are_transcripts() -> None:
    assert len(SCENARIOS) >= 12
