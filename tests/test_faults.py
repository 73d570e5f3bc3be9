"""docs/faults.md is what the marks of the tests say, and only a test that runs is a proof."""
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults import ROOT, Collected, document


def test_the_fault_matrix_is_what_the_marks_say() -> None:
    done = subprocess.run([sys.executable, "-m", "tests.faults", "--check"], cwd=ROOT, check=False,
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


PLANTED = """
import pytest
fault = pytest.mark.fault
@fault("disk: rot", promise="mended")
def test_runs(): pass
@fault("disk: rot", promise="mended")
@pytest.mark.skip
def test_skipped(): pass
@fault("crash: kill", promise="kept")
@pytest.mark.xfail
def test_fails(): pass
@fault("crash: cut", promise="kept")
@pytest.mark.skipif(False, reason="here it would run")
def test_depends(): pass
@fault("weather: rain", promise="wet")
def test_wrong(): pass
@fault("disk: rot")
def test_no_promise(): pass
"""


def test_a_test_that_does_not_run_is_no_proof(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.faults.ROOT", tmp_path)
    (tmp_path / "test_planted.py").write_text(PLANTED)
    (tmp_path / "none.ini").write_text("")
    collected = Collected()
    pytest.main(["--collect-only", "-qq", "-p", "no:cacheprovider", "-c", str(tmp_path / "none.ini"),
                 str(tmp_path)], plugins=[collected])
    assert collected.proofs == {("disk: rot", "mended"): {("test_planted.py", "test_runs")},
                                ("crash: kill", "kept"): set(), ("crash: cut", "kept"): set()}
    assert len(collected.wrong) == 2
    text = document(collected.proofs)
    assert "| rot | mended | [test_runs](../test_planted.py) |" in text
    assert "| kill | kept | **none** |" in text
