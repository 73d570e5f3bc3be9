"""The rooms and the arrows: who may import whom, walked over `import` and `cimport` lines.

1. An arrow that ALLOWED does not name is forbidden, between any two rooms.
2. There is no cycle between modules, inside a room or across rooms.
3. Nothing in the product imports `sim` but `cli`, and that lazily.
4. A binding sees the front door, or the published C API, and nothing behind it.
"""
import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
GROUND = {"errors", "config", "format", "_fast"}
ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "_fast": set(),
    "config": {"errors", "_fast"},
    "format": {"errors", "_fast"},
    "store": GROUND,
    "replication": GROUND,
    "coordination": GROUND,
    "check": {*GROUND, "store"},
    "node": {*GROUND, "store", "replication", "coordination"},
    "sim": {*GROUND, "store", "replication", "coordination", "check", "node"},
    "volume": {*GROUND, "store", "coordination", "node"},
    "front door": {"errors", "config", "volume"},
    "cli": {*GROUND, "front door", "store", "coordination", "check", "node", "volume", "sim", "nbd"},
    "nbd": {"front door"},
}
LAZY_ONLY = {("cli", "sim")}
CIMPORT = re.compile(r"^\s*(?:from\s+([\w.]+)\s+cimport|cimport\s+([\w.]+))", re.MULTILINE)
PYTHON_IMPORT = re.compile(r"^\s*(?:from\s+([\w.]+)\s+import|import\s+([\w.]+))", re.MULTILINE)

# (importing module, imported module, inside a function)
Arrow = tuple[str, str, bool]


def module_name(root: Path, path: Path) -> str:
    if path.is_relative_to(root / "bindings/nbd"):
        stem = path.stem.removeprefix("repstore_nbd.")
        return "repstore_nbd" if stem == "__init__" else f"repstore_nbd.{stem}"
    parts = path.relative_to(root / "src").with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room(module: str) -> str | None:
    """The room a module lives in; None for what is not ours."""
    parts = module.split(".")
    if parts[0] == "repstore_nbd":
        return "nbd"
    if parts[0] != "repstore":
        return None
    return parts[1] if len(parts) > 1 else "front door"


def python_arrows(source: str, module: str, is_package: bool) -> Iterator[tuple[str, bool]]:
    tree = ast.parse(source)
    lazy = {id(inner) for outer in ast.walk(tree)
            if isinstance(outer, ast.FunctionDef | ast.AsyncFunctionDef) for inner in ast.walk(outer)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, id(node) in lazy
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = module.split(".")[: None if is_package else -1]
                package = package[: len(package) - node.level + 1]
                base = ".".join([*package, *([base] if base else [])])
            for alias in node.names:
                yield f"{base}.{alias.name}", id(node) in lazy


def arrows(root: Path) -> list[Arrow]:
    """Every import of ours by ours, with names resolved to modules that exist."""
    files = [path for folder in ("src/repstore", "bindings") for suffix in (".py", ".pyx", ".pxd")
             for path in sorted((root / folder).rglob(f"*{suffix}"))]
    modules = {module_name(root, path) for path in files}
    found: list[Arrow] = []
    for path in files:
        module, source = module_name(root, path), path.read_text()
        if path.suffix == ".py":
            targets = list(python_arrows(source, module, path.name == "__init__.py"))
        else:
            matches = [*CIMPORT.findall(source), *PYTHON_IMPORT.findall(source)]
            targets = [(first or second, False) for first, second in matches]
        for target, is_lazy in targets:
            while target not in modules and room(target) and "." in target:
                target = target.rpartition(".")[0]
            if room(target) and target != module:
                found.append((module, target, is_lazy))
    return found


def forbidden(found: list[Arrow]) -> list[str]:
    complaints = []
    for module, target, is_lazy in found:
        here, there = room(module), room(target)
        assert here is not None
        assert there is not None
        if here != there and there not in ALLOWED.get(here, set()):
            complaints.append(f"{module} ({here}) must not import {target} ({there})")
        elif (here, there) in LAZY_ONLY and not is_lazy:
            complaints.append(f"{module} may import {target} only inside a function")
    return complaints


def cycles(found: list[Arrow]) -> list[list[str]]:
    """Every cycle met by a walk in depth first order; lazy imports count too."""
    graph: dict[str, set[str]] = {}
    for module, target, _ in found:
        graph.setdefault(module, set()).add(target)
    met: list[list[str]] = []
    done: set[str] = set()

    def walk(module: str, trail: list[str]) -> None:
        if module in trail:
            met.append([*trail[trail.index(module):], module])
        elif module not in done:
            for target in sorted(graph.get(module, ())):
                walk(target, [*trail, module])
            done.add(module)

    for module in sorted(graph):
        walk(module, [])
    return met


def test_no_arrow_points_the_wrong_way() -> None:
    assert forbidden(arrows(ROOT)) == []


def test_no_import_goes_in_a_circle() -> None:
    assert cycles(arrows(ROOT)) == []


def planted(root: Path, files: dict[str, str]) -> list[Arrow]:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return arrows(root)


@pytest.mark.parametrize(("name", "line"), [
    ("src/repstore/store/log.py", "from repstore.replication import membership"),
    ("src/repstore/store/log.py", "from ..replication import membership"),
    ("src/repstore/replication/plan.py", "import repstore.store.log"),
    ("src/repstore/store/log.py", "def late():\n    from repstore import sim"),
    ("src/repstore/cli.py", "from repstore import sim"),
    ("src/repstore/errors.py", "from repstore import config"),
    ("src/repstore/_fast/engine.pyx", "from repstore.store.log import open_store"),
    ("src/repstore/_fast/engine.pxd", "from repstore.format cimport superblock_t"),
    ("bindings/nbd/codec.pyx", "from repstore._fast.engine cimport engine_t"),
    ("bindings/nbd/shell.py", "from repstore.node import run_node"),
])
def test_a_planted_forbidden_arrow_is_caught(tmp_path: Path, name: str, line: str) -> None:
    rooms = {f"src/repstore/{path}": "" for path in (
        "__init__.py", "config.py", "format.py", "node.py", "sim/__init__.py", "store/log.py",
        "replication/membership.py", "_fast/engine.pxd")}
    assert len(forbidden(planted(tmp_path, {**rooms, name: line + "\n"}))) == 1


def test_an_allowed_arrow_is_let_through(tmp_path: Path) -> None:
    found = planted(tmp_path, {
        "src/repstore/__init__.py": "from repstore.volume import Volume\n",
        "src/repstore/volume.py": "from . import errors, node\n",
        "src/repstore/node.py": "from repstore.store.log import Log\n",
        "src/repstore/store/log.py": "import os\nfrom repstore._fast import layout\n",
        "src/repstore/_fast/layout.pxd": "from libc.stdint cimport uint32_t\n",
        "src/repstore/errors.py": "",
        "src/repstore/cli.py": "import repstore_nbd\ndef demo():\n    from repstore import sim\n",
        "src/repstore/sim/__init__.py": "from repstore import node\n",
        "bindings/nbd/__init__.py": "import repstore\n",
    })
    assert len(found) == 9
    assert forbidden(found) == []
    assert cycles(found) == []


def test_a_planted_cycle_is_caught(tmp_path: Path) -> None:
    found = planted(tmp_path, {
        "src/repstore/store/log.py": "from repstore.store import cleaner\n",
        "src/repstore/store/cleaner.py": "def victim():\n    from repstore.store import log\n",
    })
    assert cycles(found) == [["repstore.store.cleaner", "repstore.store.log", "repstore.store.cleaner"]]
