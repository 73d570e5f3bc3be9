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
from repstore.cli.app import main

__all__ = ["main"]
