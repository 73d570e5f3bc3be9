"""A failed run for a person: what went wrong in the world, what was decided, and the blocks in question.

Times are seconds since the beginning of the simulation. What crossed a wire or a disk is left
out, but for operations of clients on the blocks that the failure names, and the last lines.
"""
from __future__ import annotations

import re
from collections.abc import Iterator

from repstore.sim.clock import NS_PER_S, START_NS
from repstore.sim.run import Outcome
from repstore.sim.trace import Entry, line_of

LAST_LINES = 25               # before the end: everything
WIRE = re.compile(r"(sends|receives|reads|writes|flushes|disk|link|closes|client (asks|got)) ")
SPAN = re.compile(r"client (?:asks|got) \w+ (\d+)\+(\d+)")
NAMED_BLOCK = re.compile(r"block (\d+)|(?:read|write|trim|zero) (\d+)\+")


def timeline(outcome: Outcome) -> str:
    """Text of some dozens to some hundreds of lines."""
    assert outcome.trace is not None
    entries = outcome.trace.entries
    named = NAMED_BLOCK.search(outcome.failure)
    block = int(named[1] or named[2]) if named else None
    lines = list(_lines(entries[:-LAST_LINES], block))
    tail = [_line(entry) for entry in entries[-LAST_LINES:]]
    end = f"{'FAILED':>14} {outcome.failure}"
    return "\n".join([*lines, "   ... the last lines, all of them:", *tail, end])


def _lines(entries: list[Entry], block: int | None) -> Iterator[str]:
    for entry in entries:
        what = line_of(entry).split(" ", 2)[2]
        if WIRE.match(what) and not (block is not None and _is_about(what, block)):
            continue
        yield _line(entry)


def _is_about(what: str, block: int) -> bool:
    found = SPAN.match(what)
    return found is not None and int(found[1]) <= block < int(found[1]) + int(found[2])


def _line(entry: Entry) -> str:
    now_ns, where, what = line_of(entry).split(" ", 2)
    return f"{(int(now_ns) - START_NS) / NS_PER_S:14.6f} {where:6} {what}"
