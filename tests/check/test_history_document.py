"""docs/history.md says of every field what the parser does, and its example runs."""
from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest

from repstore._fast.history_lines import ALLOWED, FIELDS, KINDS, OPERATION_DTYPE, REQUIRED, parse
from repstore.check.history import check_file
from repstore.check.history_file import Header

TEXT = (Path(__file__).resolve().parents[2] / "docs/history.md").read_text()
EXAMPLE = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def table(first_column: str) -> tuple[list[str], list[list[str]]]:
    """The heads and rows of the table that begins with this column."""
    rows = TEXT[TEXT.index(f"| {first_column} |"):].split("\n\n")[0].splitlines()
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    return cells[0], cells[2:]


def test_the_table_of_fields_is_what_the_parser_does() -> None:
    heads, rows = table("field")
    assert tuple(heads[1:-1]) == KINDS
    assert tuple(row[0].strip("`") for row in rows) == FIELDS
    for column, kind in enumerate(KINDS, 1):
        must = {row[0].strip("`") for row in rows if row[column] == "must"}
        may = {row[0].strip("`") for row in rows if row[column] in ("must", "may")}
        assert must == {"op", *REQUIRED[kind]}
        assert may == {"op", *ALLOWED[kind]}
    assert all(row[-1] for row in rows)


def accepted(field: str, number: int) -> bool:
    """Whether some line may have this number in the field."""
    kind = {"incarnation": "crash", "operations": "end", "count": "read"}.get(field, "write")
    line: dict[str, object] = {"op": kind} | dict.fromkeys(REQUIRED[kind], 1)
    if kind == "write":
        line["values"] = [1]
    line[field] = [number] if field == "values" else number
    text = json.dumps(line).encode() + b"\n"
    right, *_ = parse(text, np.empty(1, OPERATION_DTYPE), np.empty(1, np.uint64), 0)
    return bool(right)


def test_numbers_may_be_as_large_as_the_document_says() -> None:
    [sentence] = re.findall(r"Numbers are whole, from 0: (.+?)\. ", " ".join(TEXT.split()))
    others = {"begin", "block", "end", "until", "incarnation", "operations"}
    told: set[str] = set()
    for names, power, less in re.findall(r"([\w`, ]+?) less than 2\^(\d+)( - 1)?", sentence):
        limit = 2**int(power) - bool(less)
        for field in re.findall(r"`(\w+)`", names) or others:
            assert accepted(field, limit - 1), field
            assert not accepted(field, limit), field
            told.add(field)
    assert told == {*FIELDS} - {"op", "fua"}


def test_the_table_of_the_header_is_what_is_read() -> None:
    _, rows = table("header field")
    told = {row[0].strip("`"): row[1].strip("`") for row in rows}
    real = {field.name: "" if field.default is dataclasses.MISSING else json.dumps(field.default)
            for field in dataclasses.fields(Header)}
    assert told == real


def test_the_example_makes_a_history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [source] = EXAMPLE.findall(TEXT)
    monkeypatch.chdir(tmp_path)
    exec(compile(source, "docs/history.md", "exec"), {"__name__": "__main__"})
    verdict = check_file(tmp_path / "run.history")
    assert (verdict.consistent, verdict.reads_checked) == (True, 2)
