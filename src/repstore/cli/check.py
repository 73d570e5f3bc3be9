"""`repstore check`: proofs that anyone can run. Each command has a module of its own."""
from __future__ import annotations

import signal
import threading

import typer

from repstore.cli import check_copies, check_fsck, check_history, check_record, check_verify

app = typer.Typer(help="Check what repstore promises; only scrub, which mends, changes anything.",
                  no_args_is_help=True)


@app.callback()
def checks() -> None:
    """Check what repstore promises; only scrub, which mends, changes anything."""
    # one that is told to end says how far it came, like one that is interrupted
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)


app.command()(check_history.history)
app.command()(check_record.record)
app.command()(check_fsck.fsck)
app.command()(check_copies.explain)
app.command()(check_copies.scrub)
app.command()(check_verify.verify)
