"""The command tree, and what becomes of errors.

    exit code   0  done; `status`: healthy
                1  it could not be done, one line on stderr says why; `status`: degraded
                2  `status`: faulted; `check`, `sim`: it could not be done to its end
                3  no cluster in the directory
               64  the command, or a value in it, can never be right
               74  what there is to say could not be written
              130  interrupted
              141  whoever read the output went away

1. Results go to stdout, everything else to stderr: what reads `--json` sees nothing else.
2. A RepstoreError is an answer, not a traceback; anything else is a bug and shows itself.
"""
from __future__ import annotations

import errno
import os
import sys
from typing import cast

import typer

from repstore import errors
from repstore.cli import check, cluster, nodes, simulate, stores, volumes
from repstore.cli.options import (
    EXIT_INTERRUPTED,
    EXIT_NO_CLUSTER,
    EXIT_NO_READER,
    EXIT_REFUSED,
    EXIT_UNUSABLE,
    EXIT_UNWRITTEN,
    EXIT_USAGE,
    NoClusterError,
    complain,
)

# typer carries the library it is built on along, under a name of its own
UsageError = cast(type[Exception], typer.BadParameter.__bases__[0])

app = typer.Typer(
    name="repstore", no_args_is_help=True, add_completion=False, rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Replicated block storage on one machine: several copies of a volume, served over NBD.",
    epilog="Exit codes: 0 done, 1 could not be done, 3 no cluster in DIR, 64 wrong usage; "
           "status: 0 healthy, 1 degraded, 2 faulted.")
app.command()(cluster.up)
app.command()(cluster.status)
app.command("sim")(simulate.simulate)
app.add_typer(nodes.app, name="node")
app.add_typer(volumes.app, name="volume")
app.add_typer(stores.app, name="store")
app.add_typer(check.app, name="check")


def run(arguments: list[str]) -> int:
    """Carry out one command line; its exit code."""
    try:
        code = typer.main.get_command(app).main(
            args=arguments, prog_name="repstore", standalone_mode=False)
        sys.stdout.flush()
    except UsageError as error:
        complain(f"{_sentence(error)}; see `repstore --help`")
        return EXIT_USAGE
    except errors.ConfigError as error:
        complain(str(error))
        return EXIT_USAGE
    except NoClusterError as error:
        complain(str(error))
        return EXIT_NO_CLUSTER
    except errors.RepstoreError as error:
        complain(str(error))
        # of a check 1 is a verdict
        return EXIT_UNUSABLE if arguments[:1] == ["check"] else EXIT_REFUSED
    except (KeyboardInterrupt, typer.Abort):
        complain("interrupted")
        return EXIT_INTERRUPTED
    except (BrokenPipeError, SystemExit):          # typer makes an exit of the first, of nothing else
        _give_up_output()
        return EXIT_NO_READER
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EIO) or error.filename is not None:
            raise
        _give_up_output()
        complain(f"the output cannot be written: {error.strerror}")
        return EXIT_UNWRITTEN
    return int(code or 0)


def _give_up_output() -> None:
    """What is left in the buffer goes nowhere: the interpreter would complain about it at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _sentence(error: Exception) -> str:
    text = getattr(error, "format_message", error.__str__)()
    return str(text).strip().rstrip(".") or "wrong usage"
