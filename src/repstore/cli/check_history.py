"""`repstore check history`."""
from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from repstore import errors
from repstore.check import history as history_check
from repstore.cli.check_fsck import ProgressLine
from repstore.cli.options import EXIT_INTERRUPTED, EXIT_UNUSABLE, Json, complain
from repstore.cli.show import print_json

EXIT_INCONSISTENT = 1


def history(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A history, as `check record` writes it.")],
    json: Json = False,
) -> None:
    """Is what clients were told consistent? Exit code 0: yes, 1: no, 2: no usable history."""
    try:
        verdict = history_check.check_file(file, ProgressLine())
    except errors.ConfigError as error:
        complain(str(error))
        if json:
            print_json({"file": str(file), "verdict": "unusable", "error": str(error)})
        raise typer.Exit(EXIT_UNUSABLE) from None
    except KeyboardInterrupt:
        complain("interrupted: there is no verdict")
        if json:
            print_json({"file": str(file), "verdict": "interrupted"})
        raise typer.Exit(EXIT_INTERRUPTED) from None
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
