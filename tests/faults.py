"""The fault matrix: fault x promise x the test that proves it, written from the tests' own marks.

    @pytest.mark.fault("disk: bit rot", promise="served from another copy, and mended")
    def test_...

`python -m tests.faults` collects every test and writes docs/faults.md; `--check` only compares.
A mark on a test that is skipped, skipped on a condition, or expected to fail proves nothing: where
it is the only one, the matrix says so. One test may carry several marks.
"""
from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCUMENT = ROOT / "docs/faults.md"
AREAS = {
    "disk": "Disks",
    "space": "Full disks",
    "crash": "Crashes and power",
    "network": "Networks",
    "coordination": "The coordination store",
    "process": "Processes",
    "clock": "Clocks",
    "input": "Bad input",
}
NO_PROOF = ("skip", "skipif", "xfail")
HEAD = """# What may go wrong, what is promised, and the test that proves it

Written by `python -m tests.faults` from the marks of the tests: do not edit. A test that is skipped or
expected to fail is no proof and is not listed.
"""


class Collected:
    """A pytest plugin: the marks of everything that was collected."""

    def __init__(self) -> None:
        self.proofs: dict[tuple[str, str], set[tuple[str, str]]] = defaultdict(set)
        self.wrong: list[str] = []

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for item in items:
            for mark in item.iter_markers("fault"):
                self._take(item, mark)

    def _take(self, item: pytest.Item, mark: pytest.Mark) -> None:
        well_formed = (len(mark.args) == 1 and set(mark.kwargs) == {"promise"}
                       and mark.args[0].partition(": ")[0] in AREAS and mark.args[0].partition(": ")[2])
        if not well_formed:
            self.wrong.append(f"{item.nodeid}: fault{mark.args} {mark.kwargs}: must be fault('AREA: NAME', "
                              f"promise=...), AREA one of {', '.join(AREAS)}")
            return
        tests = self.proofs[mark.args[0], mark.kwargs["promise"]]
        if not any(item.get_closest_marker(name) for name in NO_PROOF):
            name = getattr(item, "originalname", None) or item.name
            tests.add((item.path.relative_to(ROOT).as_posix(), name))


def document(proofs: dict[tuple[str, str], set[tuple[str, str]]]) -> str:
    """docs/faults.md of these marks."""
    lines = [HEAD]
    for area, title in AREAS.items():
        rows = sorted((name.partition(": ")[2], promise, tests)
                      for (name, promise), tests in proofs.items() if name.startswith(f"{area}: "))
        if not rows:
            continue
        lines += [f"## {title}\n", "| fault | promise | proof |", "|---|---|---|"]
        for fault, promise, tests in rows:
            proof = "<br>".join(f"[{name}](../{path})" for path, name in sorted(tests)) or "**none**"
            lines.append(f"| {fault} | {promise} | {proof} |")
        lines.append("")
    return "\n".join(lines)


def collect(paths: list[str]) -> Collected:
    """The marks of the tests under these paths. SystemExit with the reasons if one is malformed."""
    collected = Collected()
    said = StringIO()
    with redirect_stdout(said):
        code = pytest.main(["--collect-only", "-qq", *paths], plugins=[collected])
    if collected.wrong or code:
        sys.exit("\n".join([*collected.wrong, f"collecting the tests ended with {code}",
                            *said.getvalue().splitlines()[-20:]]))
    return collected


def main() -> None:
    parser = argparse.ArgumentParser(description="write docs/faults.md from the tests' marks")
    parser.add_argument("--check", action="store_true", help="compare only; exit 1 where it differs")
    options = parser.parse_args()
    text = document(collect([str(ROOT / "tests")]).proofs)
    if not options.check:
        DOCUMENT.write_text(text)
    elif not DOCUMENT.exists() or DOCUMENT.read_text() != text:
        sys.exit("docs/faults.md is not what the marks say: run `make faults`")


if __name__ == "__main__":
    main()
