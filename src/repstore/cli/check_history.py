"""`repstore check history`."""
from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from repstore.check import history as history_check
from repstore.cli.check_end import told
from repstore.cli.check_fsck import ProgressLine
from repstore.cli.options import Json
from repstore.cli.show import print_json

EXIT_INCONSISTENT = 1


def history(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A history, as `check record` writes it.")],
    json: Json = False,
) -> None:
    """Is what clients were told consistent? Exit code 0: yes, 1: no, 2: no usable history."""
    with told({"file": str(file)}, as_json=json):
        verdict = history_check.check_file(file, ProgressLine())
    if json:
        print_json(dataclasses.asdict(verdict))
    else:
        _show(verdict)
    if not verdict.consistent:
        raise typer.Exit(EXIT_INCONSISTENT)


def _show(verdict: history_check.Verdict) -> None:
    print(f"{'consistent' if verdict.consistent else 'NOT CONSISTENT'}: {verdict.operations} operations, "
          f"{verdict.crashes} crashes, {verdict.reads_checked} reads of {verdict.blocks_checked} blocks")
    if verdict.undecided_reads:
        print(f"{verdict.undecided_reads} reads are undecided: equal values were written close together")
    if verdict.contradiction is not None:
        print(f"blocks that contradict themselves: {verdict.bad_blocks}; the smallest contradiction:\n")
        print(verdict.contradiction)
