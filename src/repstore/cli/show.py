"""Tables for people. Whoever reads with a program takes `--json`."""
from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence

import msgspec
from rich.console import Console
from rich.table import Table

from repstore.cli.options import format_size
from repstore.node.status import ClusterStatus, NodeStatus, VolumeStatus

WIDTH_OF_A_PIPE = 140
COLOURS = {"healthy": "green", "degraded": "yellow", "faulted": "red"}


def print_json(value: object) -> None:
    """One line, there when this returns."""
    try:
        line = msgspec.json.encode(value).decode()
    except UnicodeEncodeError:                   # a file name need not be UTF-8; escaped it is JSON
        line = json.dumps(msgspec.to_builtins(value), separators=(",", ":"))
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Numbers to the right, everything else to the left."""
    rows = [list(row) for row in rows]
    table = Table()
    for place, column in enumerate(columns):
        is_number = all(isinstance(row[place], int) for row in rows)
        table.add_column(column, justify="right" if is_number else "left", overflow="fold")
    for row in rows:
        table.add_row(*("-" if value is None or value == "" else str(value) for value in row))
    console = _console()
    console.print(title, style="bold", highlight=False, markup=False)
    console.print(table)


def print_status(status: ClusterStatus) -> None:
    """The whole cluster."""
    health = f"[{COLOURS[status.health]}]{status.health}[/]"
    _console().print(f"cluster {status.directory}: {health}", highlight=False)
    for volume in status.volumes:
        print_volume(volume)
    print_nodes(status.nodes)


def print_volume(volume: VolumeStatus) -> None:
    """One volume and its copies."""
    reason = f" ({volume.reason})" if volume.reason else ""
    print_table(
        f"volume {volume.name}, {format_size(volume.size_bytes)}, {volume.health}{reason}, epoch "
        f"{volume.epoch}, acknowledged: {volume.acknowledgement}, attached: {volume.attached or 'nobody'}",
        ("copy on", "pid", "role", "in sync", "epoch", "last LSN", "committed", "durable", "resync"),
        [(copy.node, copy.pid or "-", copy.role, "yes" if copy.in_sync else "no", copy.epoch,
          copy.last_lsn, copy.commit_lsn, copy.durable_lsn, _progress(volume, copy.node))
         for copy in volume.copies])


def print_nodes(nodes: Iterable[NodeStatus]) -> None:
    """All nodes with their stores."""
    print_table(
        "nodes", ("node", "pid", "store", "filled", "bad blocks", "fault", "NBD"),
        [(node.name, node.pid or "-", node.store, _filled(node), node.bad_blocks,
          node.fault or ("full" if node.full else ""), " ".join(node.nbd)) for node in nodes])


def _progress(volume: VolumeStatus, node: str) -> str:
    resync = volume.resync
    if node not in resync.nodes:
        return ""
    return f"{format_size(resync.done_bytes)} of {format_size(resync.total_bytes)}"


def _filled(node: NodeStatus) -> str:
    if not node.stats:
        return ""
    return f"{100 * node.stats['live_blocks'] / max(1, node.stats['capacity_blocks']):.0f} %"


def _console() -> Console:
    return Console(width=None if sys.stdout.isatty() else WIDTH_OF_A_PIPE)
