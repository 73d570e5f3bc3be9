"""The `repstore` command.

    app          the command tree, what goes to which stream, exit codes
    options      options that several commands share, sizes
    cluster      up, status
    nodes        node run | start | stop
    volumes      volume create | list | show | delete
    stores       store create | info
    simulate     sim
    check        check history (check_history), record (check_record), fsck (check_fsck),
                 explain | scrub (check_copies),
                 verify (check_verify); their ends without a verdict (check_end)
    supervisor   what `up` does: make, start, wait, watch, stop
    processes    node processes: started, waited for, stopped; and being one
    show         tables
"""
import sys
from typing import NoReturn

__all__ = ["main"]


def main() -> NoReturn:
    """The `repstore` command. An interrupt is no traceback, not even while modules are imported."""
    try:
        from repstore.cli import app

        sys.exit(app.run(sys.argv[1:]))
    except KeyboardInterrupt:
        print("repstore: interrupted", file=sys.stderr)
        sys.exit(130)                   # EXIT_INTERRUPTED of `options`, which may not be there yet
