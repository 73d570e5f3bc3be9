"""What the documents say is what the code does.

1. Every table of docs/format.md is compared with the struct, or the constants, it describes,
   and every struct of disk and wire has a table.
2. The Python example of README.md runs as it is printed.
3. Files and functions that the documents name exist, and links lead somewhere.
4. Commands that they name exist, with the options that are shown.
"""
import re
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import typer

from repstore import format as disk_format
from repstore._fast import layout
from repstore.cli.app import app

ROOT = Path(__file__).resolve().parents[1]
FORMAT = (ROOT / "docs/format.md").read_text()
README = (ROOT / "README.md").read_text()
DOCUMENTS = ["README.md", "CHANGELOG.md",
             *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")))]
STRUCT_TABLE = re.compile(
    r"^\*\*`(\w+_t)`\*\*, (\d+) bytes\n\n\| offset .*\n\|[-:|]+\n((?:\|.*\n)+)", re.MULTILINE)
FIELD_ROW = re.compile(r"^\| (\d+) \| (\d+) \| `(\w+)` \| (.+) \|$", re.MULTILINE)
CONSTANT_ROW = re.compile(r"^\| `([A-Z][A-Z0-9_]+)` \| (\d+) \| .+ \|$", re.MULTILINE)
SOURCE_NAME = re.compile(r"`((?:src|bindings|bench|tests|docs)/[\w./]+)`")
LINK = re.compile(r"\]\((?!https?://)([^)#]+)\)")
FUNCTION_NAME = re.compile(r"`([a-z]+)\.([a-z_]+)\(\)`")
EXAMPLE = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# in code: between backticks, or indented; a comment or two spaces end it
COMMAND = re.compile(r"(?:^ {4}|`)(?:\.venv/bin/)?(repstore|make|python -m) ([\w-][^`\n#]*?)(?:`|#| {2}|$)",
                     re.MULTILINE)
OPTION = re.compile(r"--[a-z-]+")

Row = tuple[int, int, str]


def documented_structs(text: str) -> dict[str, tuple[int, list[Row]]]:
    """Size and rows (offset, size, field) of every struct table."""
    return {name: (int(size), [(int(offset), int(length), field)
                               for offset, length, field, _ in FIELD_ROW.findall(rows)])
            for name, size, rows in STRUCT_TABLE.findall(text)}


def real_structs() -> dict[str, tuple[int, list[Row]]]:
    return {name: (dtype.itemsize, [(place[1], place[0].itemsize, field)
                                    for field, place in (dtype.fields or {}).items()])
            for name, dtype in vars(layout).items() if isinstance(dtype, np.dtype) and name.endswith("_t")}


def test_every_struct_has_a_table_and_every_table_is_right() -> None:
    documented, real = documented_structs(FORMAT), real_structs()
    assert documented.keys() == {name for name in real if not name.startswith("_")}
    for name, table in documented.items():
        assert table == real[name], name


@pytest.mark.parametrize("name", [name for name in disk_format.__all__ if name.endswith("_t")])
def test_the_structs_of_the_disk_format_are_those_of_the_tables(name: str) -> None:
    dtype = getattr(disk_format, name)
    size, rows = documented_structs(FORMAT)[name]
    assert dtype.itemsize == size
    assert list(dtype.names) == [field for _, _, field in rows]


def test_every_constant_has_the_value_the_document_gives() -> None:
    rows = CONSTANT_ROW.findall(FORMAT)
    assert {name: int(value) for name, value in rows} == {name: getattr(layout, name) for name, _ in rows}


@pytest.mark.parametrize("prefix", ["OP_", "FRAME_"])
def test_no_operation_and_no_frame_is_left_out(prefix: str) -> None:
    named = {name for name, _ in CONSTANT_ROW.findall(FORMAT) if name.startswith(prefix)}
    assert named == {name for name in vars(layout) if name.startswith(prefix)} - {"FRAME_MAGIC"}


@pytest.mark.parametrize(("right", "wrong"), [
    ("| 32 | 8 | `sequence` |", "| 32 | 4 | `sequence` |"),
    ("| 0 | 4 | `location` |", "| 4 | 4 | `location` |"),
    ("| `base_lsn` |", "| `start_lsn` |"),
    ("**`extent_t`**, 8 bytes", "**`extent_t`**, 16 bytes"),
])
def test_a_table_that_drifts_is_noticed(right: str, wrong: str) -> None:
    assert right in FORMAT
    real = {name: struct for name, struct in real_structs().items() if not name.startswith("_")}
    assert documented_structs(FORMAT) == real
    assert documented_structs(FORMAT.replace(right, wrong, 1)) != real


def test_the_example_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                        capsys: pytest.CaptureFixture[str]) -> None:
    [source] = EXAMPLE.findall(README)
    assert len(source.splitlines()) <= 20
    monkeypatch.chdir(tmp_path)
    exec(compile(source, "README.md", "exec"), {"__name__": "__main__"})
    shown = [line.partition("# prints ")[2] for line in source.splitlines() if "# prints " in line]
    assert shown
    assert capsys.readouterr().out.splitlines() == shown


@pytest.mark.parametrize("document", DOCUMENTS)
def test_what_a_document_points_to_exists(document: str) -> None:
    path = ROOT / document
    text = path.read_text()
    missing = [name for name in SOURCE_NAME.findall(text) if not (ROOT / name).exists()]
    missing += [link for link in LINK.findall(text) if not (path.parent / link).exists()]
    assert not missing


def test_the_architecture_names_every_room_of_the_data_plane() -> None:
    text = (ROOT / "docs/architecture.md").read_text()
    listed = set(re.findall(r"\w+", text[text.index("    _fast "):text.index("    store ")]))
    rooms = {path.stem for path in (ROOT / "src/repstore/_fast").glob("*.p[xy][dx]")}
    assert rooms - listed == set()


def test_functions_that_the_architecture_names_exist() -> None:
    """`room.function()` stands for a function in src/repstore/_fast/room.pyx."""
    named = FUNCTION_NAME.findall((ROOT / "docs/architecture.md").read_text())
    assert named
    for room, function in named:
        source = ROOT / f"src/repstore/_fast/{room}.pyx"
        assert source.exists(), room
        assert re.search(rf"^cdef .*\b{function}\(", source.read_text(), re.MULTILINE), f"{room}.{function}"


def repstore_faults(arguments: str) -> list[str]:
    """What the command line `repstore ARGUMENTS` names that is not there."""
    command = typer.main.get_command(app)
    words = arguments.split()
    while words and (below := getattr(command, "commands", None)):
        name = words.pop(0)
        if name not in below:
            return [f"repstore {arguments}: no command {name}"]
        command = below[name]
    known = {option for parameter in command.params for option in parameter.opts}
    return [f"repstore {arguments}: no {option}" for option in OPTION.findall(arguments)
            if option not in known]


def make_faults(arguments: str) -> list[str]:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    return [f"make {arguments}: no such target"] if arguments.split()[0] not in targets else []


def module_faults(arguments: str) -> list[str]:
    name = arguments.split()[0]
    found = find_spec(name)
    if found is not None and found.submodule_search_locations:
        found = find_spec(f"{name}.__main__")
    if found is None or found.origin is None:
        return [f"python -m {arguments}: no such module"]
    source = Path(found.origin).read_text()
    return [f"python -m {arguments}: no {option}" for option in OPTION.findall(arguments)
            if not re.search(rf"\b{option[2:]}\b", source)]


FAULTS = {"repstore": repstore_faults, "make": make_faults, "python -m": module_faults}


def commands(text: str) -> list[tuple[str, str]]:
    """Every program and its arguments; a line that goes on is one."""
    return COMMAND.findall(re.sub(r"\\\n\s+", "", text))


def command_faults(text: str) -> list[str]:
    return [fault for program, arguments in commands(text) for fault in FAULTS[program](arguments)]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_commands_that_a_document_names_exist(document: str) -> None:
    assert command_faults((ROOT / document).read_text()) == []


@pytest.mark.parametrize("wrong", [
    "`repstore check every`", "`repstore explain demo 7`", "    repstore status --date DIR  # soon",
    "`make everything`", "`python -m tests.everything`", "`python -m tests.model --planets 3`"])
def test_a_command_that_is_not_there_is_noticed(wrong: str) -> None:
    assert len(command_faults(wrong)) == 1


def test_many_commands_are_looked_at() -> None:
    named = [program for document in DOCUMENTS for program, _ in commands((ROOT / document).read_text())]
    assert min(named.count(program) for program in FAULTS) > 5
