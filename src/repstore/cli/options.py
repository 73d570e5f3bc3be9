"""Options that several commands share, and how a size is written."""
from __future__ import annotations

import re
import sys
from fractions import Fraction
from pathlib import Path
from typing import Annotated

import typer

from repstore import config, errors
from repstore.coordination import SqliteConfigStore
from repstore.node.directory import ClusterDirectory

EXIT_REFUSED = 1       # it could not be done; one line says why
EXIT_FAULTED = 2       # `status` only
EXIT_UNUSABLE = 2      # `check`, `sim`: not done to its end, so there is no verdict
EXIT_NO_CLUSTER = 3
EXIT_USAGE = 64
EXIT_UNWRITTEN = 74
EXIT_INTERRUPTED = 130
EXIT_NO_READER = 141

UNITS = {"": 1, "b": 1, "kib": config.KIB, "mib": config.MIB, "gib": config.GIB, "tib": config.TIB}
SIZE_PATTERN = r"([0-9]+(?:\.[0-9]+)?) *([a-z]*)"
SIZE_RULE = "a number, and perhaps KiB, MiB, GiB or TiB"


def parse_size(text: str | int) -> int:
    """Bytes: `4096`, `512MiB`, `1.5GiB`."""
    found = re.fullmatch(SIZE_PATTERN, str(text).strip().lower())
    if found is None or found[2] not in UNITS:
        raise typer.BadParameter(f"size {text!r}: must be {SIZE_RULE}")
    size_bytes = Fraction(found[1]) * UNITS[found[2]]
    if size_bytes.denominator != 1:
        raise typer.BadParameter(f"size {text!r}: is not a whole number of bytes")
    return int(size_bytes)


def format_size(size_bytes: int) -> str:
    """The size in the largest unit that leaves at most one digit behind the point exact."""
    for unit, factor in (("TiB", config.TIB), ("GiB", config.GIB), ("MiB", config.MIB), ("KiB", config.KIB)):
        if size_bytes >= factor:
            return f"{size_bytes / factor:.1f}".removesuffix(".0") + unit
    return f"{size_bytes}B"


Data = Annotated[Path, typer.Option("--data", metavar="DIR", help="Directory of the cluster.")]
Json = Annotated[bool, typer.Option("--json", help="One line of JSON instead of tables.")]
Size = Annotated[int, typer.Option("--size", parser=parse_size, metavar="SIZE",
                                   help=f"Size: {SIZE_RULE}.")]


class NoClusterError(errors.NotFoundError):
    """No cluster in the directory: a command ends with EXIT_NO_CLUSTER."""


def open_cluster(data: Path) -> tuple[ClusterDirectory, SqliteConfigStore]:
    """The cluster in `data`. Raises NoClusterError."""
    directory = ClusterDirectory(data)
    if not directory.exists():
        raise NoClusterError(f"{data}: no cluster there")
    return directory, directory.open_config()


def complain(text: str) -> None:
    """One line for a person, on stderr."""
    print(f"repstore: {text}", file=sys.stderr, flush=True)
