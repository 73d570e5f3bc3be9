"""Every mutant applies to today's product, exactly once; and a handful dies in `make test`."""
from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.model.search import RULES
from tests.mutants import __main__ as command
from tests.mutants import table
from tests.mutants.catalog import MUTANTS, Mutant
from tests.mutants.plant import ROOT, SWITCH, VARIABLE, PlantError, by_file, plant, planted

ROOMS = ("checksum", "batch", "map", "checkpoint", "recovery", "cleaner", "acknowledgement", "membership",
         "space", "resync", "repair", "coordination", "nbd")
HANDFUL = ("12", "30", "60", "62", "90")

STATEMENT = Mutant(1, "map", "a statement", "a.pyx", "x = 1\nif x:\n    y = 2", "x = 3", ())
EXPRESSION = Mutant(2, "map", "an expression", "a.pyx", "p < q", "p > q", ())
SOURCE = "def f(p, q):\n    x = 1\n    if x:\n        y = 2\n    return p < q\n"


def test_there_are_enough_of_them_in_every_room_and_for_every_rule() -> None:
    assert len(MUTANTS) >= 25
    assert len({mutant.number for mutant in MUTANTS}) == len(MUTANTS)
    assert 0 not in {mutant.number for mutant in MUTANTS}
    assert {mutant.room for mutant in MUTANTS} == set(ROOMS)
    assert {mutant.rule for mutant in MUTANTS} == {"", *RULES}, "the rules of the protocol model"


@pytest.mark.parametrize("file", sorted(by_file(MUTANTS)))
def test_every_mutant_applies(file: str) -> None:
    mutants = by_file(MUTANTS)[file]
    text = planted((ROOT / file).read_text(), mutants, file)
    for mutant in mutants:
        assert len(re.findall(rf"{SWITCH} == {mutant.number}\b", text)) == 1


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: str(mutant.number))
def test_every_check_of_a_mutant_exists(mutant: Mutant) -> None:
    assert mutant.checks or mutant.seeds
    for check in mutant.checks:
        file, _, name = check.partition("::")
        assert (ROOT / file).is_file()
        assert name.partition("[")[0] in (ROOT / file).read_text()


def test_a_statement_gets_a_branch_and_an_expression_a_choice() -> None:
    text = planted(SOURCE, [STATEMENT, EXPRESSION], "a.py")
    assert text.startswith(
        "def f(p, q):\n    if rs_mutant == 1:\n        x = 3\n    else:\n        x = 1\n"
        "        if x:\n            y = 2\n    return ((p > q) if rs_mutant == 2 else (p < q))\n")


@pytest.mark.parametrize(("mutants", "said"), [
    ([replace(EXPRESSION, original="p << q")], "0 times in a.pyx"),
    ([replace(EXPRESSION, original="x")], "times in a.pyx"),
    ([replace(STATEMENT, original="x = 1\nif x:\n  y = 2")], "0 times in a.pyx"),
    ([STATEMENT, replace(EXPRESSION, original="x = 1")], "overlap"),
])
def test_a_mutant_that_does_not_apply_is_an_error(mutants: list[Mutant], said: str) -> None:
    with pytest.raises(PlantError, match=said):
        planted(SOURCE, mutants, "a.pyx")


def test_a_mutant_of_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(PlantError, match=r"no file src/gone\.py"):
        plant([replace(EXPRESSION, file="src/gone.py")], tree=tmp_path / "tree")


def test_the_command_names_a_mutant_that_does_not_apply(monkeypatch: pytest.MonkeyPatch,
                                                        capsys: pytest.CaptureFixture[str]) -> None:
    gone = replace(MUTANTS[0], original="this text is nowhere")
    monkeypatch.setattr(command, "MUTANTS", (gone,))
    assert command.main([]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert f"mutant {gone.number} ({gone.name}): its text is 0 times in {gone.file}" in said.err


def test_neither_the_product_nor_its_build_knows_the_switch() -> None:
    looked_at = set()
    for top in ("src", "bindings"):
        for path in (ROOT / top).rglob("*"):
            if path.suffix in (".py", ".pyx", ".pxd", ".c", ".h", ".so"):
                looked_at.add(path.suffix)
                data = path.read_bytes()
                assert SWITCH.encode() not in data, path
                assert VARIABLE.encode() not in data, path
    assert looked_at >= {".py", ".pyx", ".pxd", ".c", ".h", ".so"}


def test_the_table_has_every_mutant_that_there_is() -> None:
    lines = table.rows(table.DOCUMENT.read_text())
    for mutant in MUTANTS:
        assert mutant.number in lines, f"make mutants ARGS='--write --only {mutant.number}'"
        assert f"| {mutant.room} | {mutant.rule} | {mutant.name} |" in lines[mutant.number]
        assert "SURVIVED" not in lines[mutant.number]
    assert len(lines) == len(MUTANTS)


def test_a_new_line_of_the_table_takes_the_place_of_the_older_one(monkeypatch: pytest.MonkeyPatch,
                                                                  tmp_path: Path) -> None:
    document = tmp_path / "mutants.md"
    document.write_text(f"before\n\n{table.BEGIN}2 of 2.\n\n{table.HEAD}{table.END}\nbehind\n")
    monkeypatch.setattr(table, "DOCUMENT", document)
    first, second = table.Verdict(MUTANTS[0], "tests/a.py::b", 1.25), table.Verdict(MUTANTS[1])
    table.write([second, first], "")
    table.write([replace(second, killed_by="seed 7", seeds="1 in 0.1 s")], "")
    written = document.read_text()
    assert written.startswith(f"before\n\n{table.BEGIN}2 of 2.\n\n{table.HEAD}| {MUTANTS[0].number} |")
    assert written.endswith(f"| `seed 7` | 0.0 | 1 in 0.1 s |\n{table.END}\nbehind\n")
    assert "`a.py::b` | 1.2" in written
    assert "SURVIVED" not in written


def test_a_number_that_no_mutant_has_is_refused() -> None:
    ran = subprocess.run([sys.executable, "-m", "tests.mutants", "--only", "4711"], cwd=ROOT,
                         capture_output=True, text=True, timeout=60)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "4711" in ran.stderr


@pytest.mark.slow
def test_a_handful_of_mutants_dies() -> None:
    ran = subprocess.run([sys.executable, "-m", "tests.mutants", "--seeds", "0", "--only", *HANDFUL],
                         cwd=ROOT, capture_output=True, text=True, timeout=1800)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert f"{len(HANDFUL)} of {len(HANDFUL)} mutants killed" in ran.stdout
