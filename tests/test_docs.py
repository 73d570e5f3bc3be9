"""What the documents say is what the code does.

1. Every table of docs/format.md is compared with the struct, or the constants, it describes,
   and every struct of disk and wire has a table.
2. The Python example of README.md runs as it is printed.
3. Files and functions that the documents name exist, and links lead somewhere.
"""
import re
from pathlib import Path

import numpy as np
import pytest

from repstore import format as disk_format
from repstore._fast import layout

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
