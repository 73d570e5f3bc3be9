"""Every input that a fuzzer ever found worth keeping, on the build of production."""
import pytest

from tests.fuzz.seeds import CORPUS
from tests.fuzz.targets import TARGETS

FILES = sorted(path for path in CORPUS.glob("*/*") if path.is_file())


@pytest.mark.parametrize("target", TARGETS)
def test_the_corpus_does_no_harm(target: str) -> None:
    inputs = [path for path in FILES if path.parent.name == target]
    assert inputs
    for path in inputs:
        try:
            TARGETS[target](path.read_bytes())
        except Exception as fault:
            fault.add_note(f"input {path}")
            raise


def test_the_corpus_is_small_and_of_these_targets() -> None:
    assert {path.parent.name for path in FILES} == set(TARGETS)
    assert sum(path.stat().st_size for path in FILES) < 2**20
