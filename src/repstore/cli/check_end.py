"""How a check ends that comes to no verdict: one place for all of them.

    exit code   2  it could not be checked
                3  no cluster in the directory
              130  interrupted

1. One line on stderr says why, and with `--json` one on stdout: what was to be checked, `verdict`
   ("unusable" or "interrupted"), and `error`.
2. A usage error is none of these: it goes on to `app`, and prints nothing on stdout.
"""
from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import typer

from repstore import errors
from repstore.cli.options import (
    EXIT_INTERRUPTED,
    EXIT_NO_CLUSTER,
    EXIT_UNUSABLE,
    NoClusterError,
    complain,
)
from repstore.cli.show import print_json


@contextmanager
def told(asked: dict[str, object], *, as_json: bool,
         usage: tuple[type[errors.RepstoreError], ...] = ()) -> Iterator[None]:
    """Around a check of `asked`. What is raised and is not of `usage` ends it without a verdict."""
    try:
        yield
    except usage:
        raise
    except errors.RepstoreError as error:
        complain(str(error))
        if as_json:
            print_json({**asked, "verdict": "unusable", "error": str(error)})
        code = EXIT_NO_CLUSTER if isinstance(error, NoClusterError) else EXIT_UNUSABLE
        raise typer.Exit(code) from None
    except KeyboardInterrupt:
        complain("interrupted: there is no verdict")
        if as_json:
            print_json({**asked, "verdict": "interrupted"})
        raise typer.Exit(EXIT_INTERRUPTED) from None
