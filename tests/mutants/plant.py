"""A copy of the tree with every mutant in it, each behind one switch.

    REPSTORE_MUTANT=17 PYTHONPATH=... python ...      runs mutant 17; 0, or nothing, runs the product

  P1 The product's own tree is only read. The copy lies under `build/`, which nothing ships
  P2 One build serves all native mutants: each place asks the switch, which is read once
  P3 A mutant that does not apply stops everything: `PlantError` says which, and why
"""
from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from tests.mutants.catalog import Mutant

ROOT = Path(__file__).resolve().parents[2]
TREE = ROOT / "build/mutants"
VARIABLE = "REPSTORE_MUTANT"
SWITCH = "rs_mutant"
COPIED = ("src", "bindings", "tests", "bench", "setup.py", "pyproject.toml", "README.md", "LICENSE")
LEFT_OUT = {"__pycache__", ".hypothesis", ".pytest_cache", ".mypy_cache", ".ruff_cache"}
BUILD_LIMIT_S = 1800

HEADER = f"""/* One switch a process: which planted fault is awake. Only in the copy that is tested. */
#ifndef REPSTORE_MUTANT_SWITCH_H
#define REPSTORE_MUTANT_SWITCH_H
#include <stdlib.h>
static int {SWITCH} __attribute__((unused));
__attribute__((constructor)) static void {SWITCH}_read(void)
{{
    const char* number = getenv("{VARIABLE}");
    {SWITCH} = number ? atoi(number) : 0;
}}
#endif
"""
NATIVE_SWITCH = f'\n\ncdef extern from "mutant_switch.h" nogil:\n    int {SWITCH}\n'
PYTHON_SWITCH = f"\n\nfrom repstore._mutant_switch import {SWITCH}  # noqa: E402\n"
C_SWITCH = '#include "mutant_switch.h"\n'
PYTHON_MODULE = f'import os\n\n{SWITCH} = int(os.environ.get("{VARIABLE}", "0"))\n'


class PlantError(Exception):
    """A mutant that does not apply, or a copy that does not build."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a mutant goes in its file."""

    begin: int
    end: int
    text: str              # what stands there instead


def place_of(source: str, mutant: Mutant) -> Place:
    """The one place of `mutant.original` in its file, and what replaces it. PlantError: not exactly one."""
    lines = mutant.original.split("\n")
    whole = re.compile("^( *)" + r"\n\1".join(map(re.escape, lines)) + "$", re.MULTILINE)
    found = list(whole.finditer(source))
    if len(found) == 1:
        return Place(found[0].start(), found[0].end(), _branches(mutant, found[0][1]))
    count = source.count(mutant.original)
    if count != 1 or len(lines) > 1:
        raise PlantError(f"mutant {mutant.number} ({mutant.name}): its text is "
                         f"{max(count, len(found))} times in {mutant.file}, must be there once: "
                         f"{mutant.original!r}")
    begin = source.index(mutant.original)
    choice = (f"({SWITCH} == {mutant.number} ? ({mutant.mutated}) : ({mutant.original}))"
              if mutant.file.endswith((".c", ".h"))
              else f"(({mutant.mutated}) if {SWITCH} == {mutant.number} else ({mutant.original}))")
    return Place(begin, begin + len(mutant.original), choice)


def _branches(mutant: Mutant, indent: str) -> str:
    """Whole statements: one branch for each."""
    text = []
    for head, body in ((f"if {SWITCH} == {mutant.number}:", mutant.mutated), ("else:", mutant.original)):
        text += [indent + head, *(f"{indent}    {line}" for line in body.split("\n"))]
    return "\n".join(text)


def planted(source: str, mutants: Sequence[Mutant], file: str) -> str:
    """The text of `file` with these mutants in it."""
    places = sorted((place_of(source, mutant) for mutant in mutants), key=lambda place: place.begin)
    for before, after in pairwise(places):
        if after.begin < before.end:
            raise PlantError(f"{file}: two mutants overlap: {before.text!r} and {after.text!r}")
    for place in reversed(places):
        source = source[:place.begin] + place.text + source[place.end:]
    if file.endswith((".pyx", ".pxd")):
        return source + NATIVE_SWITCH
    if not file.endswith(".py"):
        return C_SWITCH + source
    source += PYTHON_SWITCH
    try:
        compile(source, file, "exec")
    except SyntaxError as error:
        raise PlantError(f"{file} with its mutants is no Python: {error}") from None
    return source


def by_file(mutants: Iterable[Mutant]) -> dict[str, list[Mutant]]:
    """The mutants of each file."""
    files: dict[str, list[Mutant]] = {}
    for mutant in mutants:
        files.setdefault(mutant.file, []).append(mutant)
    return files


def plant(mutants: Sequence[Mutant], root: Path = ROOT, tree: Path = TREE) -> Path:
    """Bring the copy up to date. Files that stay the same keep their time, so little is built again."""
    rewritten = {}
    for file, some in by_file(mutants).items():
        if not (root / file).is_file():
            raise PlantError(f"mutant {some[0].number} ({some[0].name}): there is no file {file}")
        rewritten[file] = planted((root / file).read_text(), some, file).encode()
    rewritten["src/repstore/_fast/mutant_switch.h"] = HEADER.encode()
    rewritten["src/repstore/_mutant_switch.py"] = PYTHON_MODULE.encode()
    fresh = not tree.exists()
    wanted = set(rewritten)
    for top in COPIED:
        for path in _files(root / top):
            name = str(path.relative_to(root))
            if path.suffix == ".so" and not fresh:
                wanted.add(name)
                continue
            wanted.add(name)
            if name not in rewritten:
                _copy(path, tree / name)
    for name, data in rewritten.items():
        _write(tree / name, data)
    # every extension is said to depend on every header: an old one makes nothing out of date
    os.utime(tree / "src/repstore/_fast/mutant_switch.h", (0, 0))
    if fresh:
        _copy_build(root, tree)
    for path in [path for top in COPIED for path in _files(tree / top)]:
        if path.suffix != ".so" and str(path.relative_to(tree)) not in wanted:
            path.unlink()
    link = tree / "src/repstore_nbd"             # here both Python and Cython find it without being installed
    if not link.is_symlink():
        link.symlink_to("../bindings/nbd")
    return tree


def _files(top: Path) -> list[Path]:
    if top.is_file():
        return [top]
    return [path for path in sorted(top.rglob("*")) if path.is_file() and not LEFT_OUT & set(path.parts)]


def _copy(source: Path, target: Path) -> None:
    if target.exists() and target.read_bytes() == source.read_bytes():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(source, target)


def _write(target: Path, data: bytes) -> None:
    if target.exists() and target.read_bytes() == data:
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(data)


def _copy_build(root: Path, tree: Path) -> None:
    """What the product's own build made: only what has mutants in it is made anew."""
    for path in (root / "build").glob("*"):
        if path != tree and path.is_dir():
            shutil.copytree(path, tree / "build" / path.name, copy_function=shutil.copy2)


def build(tree: Path = TREE) -> None:
    """Compile the copy. PlantError: it does not."""
    environment = {**os.environ, "REPSTORE_TEST_EXTENSIONS": "1"}
    if shutil.which("ccache") and "CC" not in environment:
        environment["CC"] = "ccache gcc"
    made = subprocess.run([sys.executable, "setup.py", "-q", "build_ext", "--inplace"], cwd=tree,
                          env=environment, capture_output=True, text=True, timeout=BUILD_LIMIT_S)
    if made.returncode:
        said = made.stdout[-2000:] + made.stderr[-4000:]
        raise PlantError(f"the copy with the mutants does not build:\n{said}")


def environment_of(number: int, tree: Path = TREE) -> dict[str, str]:
    """What a process needs to run the copy with this mutant."""
    return {**os.environ, VARIABLE: str(number),
            "PYTHONPATH": os.pathsep.join(map(str, (tree, tree / "src")))}
