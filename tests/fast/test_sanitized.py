"""The builds of `make sanitize` notice what they are made for: a silent one would pass for a clean one."""
import os
import subprocess
import sys
from pathlib import Path

import pytest

KIND = os.environ.get("REPSTORE_SANITIZED", "")
PLANTED = {
    ("address", "read_byte(16, 16)"): "heap-buffer-overflow",
    ("address", "shift_one(40)"): "ILL on unknown address",
    ("thread", "count_in_two_threads()"): "data race",
}


def ran(call: str, reports: Path) -> tuple[int, str]:
    """The exit code of a process that calls it, and what its sanitizer wrote."""
    logged = f"log_path={reports}/report"
    options = {name: f"{os.environ.get(name, '')}:{logged}" for name in ("ASAN_OPTIONS", "TSAN_OPTIONS")}
    program = f"from tests.fast._planted import *; {call}"
    ended = subprocess.run([sys.executable, "-c", program], env=os.environ | options, check=False,
                           timeout=300)
    return ended.returncode, "".join(path.read_text() for path in sorted(reports.iterdir()))


@pytest.mark.parametrize(("kind", "call"), PLANTED)
def test_a_planted_fault_is_reported_and_ends_in_failure(kind: str, call: str, tmp_path: Path) -> None:
    if kind != KIND:
        pytest.skip(f"not the build of `.ci/scratch {kind}`")
    status, report = ran(call, tmp_path)
    assert status != 0
    assert PLANTED[kind, call] in report


def test_what_is_sound_is_not_reported(tmp_path: Path) -> None:
    if KIND not in ("address", "thread"):
        pytest.skip("not a build of `.ci/scratch address` or `.ci/scratch thread`")
    assert ran("read_byte(16, 15) + shift_one(3)", tmp_path) == (0, "")
