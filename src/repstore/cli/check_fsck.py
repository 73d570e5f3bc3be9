"""`repstore check fsck`."""
from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from repstore.check.findings import KINDS, Report
from repstore.check.fsck import check_store
from repstore.check.position import fresh, load, save
from repstore.cli.check_end import told
from repstore.cli.options import EXIT_INTERRUPTED, Json, complain
from repstore.cli.show import print_json

EXIT_FINDINGS = 1


def fsck(
    store: Annotated[Path, typer.Argument(
        metavar="STORE", help="File or block device that nobody uses now.")],
    data: Annotated[bool, typer.Option("--data", help="Read every block of payload, too.")] = False,
    resume: Annotated[Path | None, typer.Option(
        "--resume", metavar="FILE", help="When interrupted, keep there how far it came, and go on.")] = None,
    json: Json = False,
) -> None:
    """Is a store whole? Reads only. Exit code 0: clean, 1: findings, 2: it cannot be checked."""
    report = Report(str(store))
    with told({"store": str(store)}, as_json=json):
        position = fresh() if resume is None else load(resume)
        try:
            check_store(store, data=data, report=report, position=position, progress=ProgressLine())
        except KeyboardInterrupt:
            _show(report, as_json=json)
            if resume is not None:
                save(resume, position)
                complain(f"interrupted: --resume {resume} goes on from there")
            raise typer.Exit(EXIT_INTERRUPTED) from None
    if resume is not None:
        resume.unlink(missing_ok=True)
    _show(report, as_json=json)
    if report.counts:
        raise typer.Exit(EXIT_FINDINGS)


class ProgressLine:
    """One line on a terminal's stderr that is written over; silent elsewhere."""

    def __init__(self) -> None:
        self._told = ""

    def __call__(self, what: str, done: int, of: int) -> None:
        text = f"{what}: {100 * done // max(1, of)} %"
        if text != self._told and sys.stderr.isatty():
            print(f"\r{text:60}", end="\r", file=sys.stderr, flush=True)
            self._told = text


def _show(report: Report, *, as_json: bool) -> None:
    if as_json:
        print_json(report.as_json())
        return
    for finding in report.findings:
        print(finding)
    if sum(report.counts.values()) > len(report.findings):
        print(f"... and {sum(report.counts.values()) - len(report.findings)} more")
    for kind, count in sorted(report.counts.items()):
        print(f"{count} x {kind}: {KINDS[kind]}")
    looked = ", ".join(f"{count} {what}" for what, count in report.checked.items())
    print(f"{report.store}: {report.verdict}; looked at {looked or 'nothing'}")
