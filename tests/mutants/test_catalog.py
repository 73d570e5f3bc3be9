"""Every mutant applies to today's product, exactly once; and a handful dies in `make test`."""
from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.model.search import RULES
from tests.mutants.catalog import MUTANTS, Mutant
from tests.mutants.plant import ROOT, SWITCH, PlantError, by_file, plant, planted

ROOMS = ("checksum", "batch", "map", "checkpoint", "recovery", "cleaner", "acknowledgement", "membership",
         "resync", "repair", "coordination", "nbd")
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


def test_the_product_knows_no_switch() -> None:
    for top in ("src", "bindings"):
        for path in (ROOT / top).rglob("*.p*"):
            if path.suffix in (".py", ".pyx", ".pxd"):
                assert SWITCH not in path.read_text(), path


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
