"""`repstore up` and `repstore status`."""
from __future__ import annotations

from contextlib import closing
from typing import Annotated, Literal

import typer

from repstore.cli.options import (
    EXIT_FAULTED,
    EXIT_REFUSED,
    Data,
    Json,
    complain,
    open_cluster,
    parse_size,
)
from repstore.cli.processes import nbd_uri
from repstore.cli.show import print_json, print_status, print_table
from repstore.cli.supervisor import Signals, Supervisor, Wanted, check_wanted, locked
from repstore.node.directory import ClusterDirectory
from repstore.node.status import ClusterStatus, cluster_status

EXIT_BY_HEALTH = {"healthy": 0, "degraded": 1, "faulted": EXIT_FAULTED}


def up(
    data: Data,
    nodes: Annotated[int | None, typer.Option(help="Node processes, 1 to 16. (new cluster: 3)")] = None,
    copies: Annotated[int | None, typer.Option(
        help="Copies of the volume, 1 to 8, each on a node of its own. (new cluster: 3)")] = None,
    size: Annotated[int | None, typer.Option(
        parser=parse_size, metavar="SIZE",
        help="Size of the volume, such as 2GiB. (new cluster: needed)")] = None,
    volume: Annotated[str | None, typer.Option(help="Name of the volume. (new cluster: demo)")] = None,
    ack: Annotated[Literal["dev", "durable"] | None, typer.Option(
        help="A write is acknowledged when every in-sync copy has written it (dev), or has "
             "flushed it (durable). (new cluster: dev)")] = None,
    store_size: Annotated[int | None, typer.Option(
        parser=parse_size, metavar="SIZE",
        help="Size of each node's store. (new cluster: the volume fills it to 70 %)")] = None,
    nbd_port: Annotated[int | None, typer.Option(
        help="Serve NBD on 127.0.0.1 too: the first node at this port, the next at the one after.")] = None,
    json: Json = False,
) -> None:
    """Start a cluster of node processes on this machine and serve a volume.

    A new directory gets stores and a volume; one that has them is served again, and what is
    given then has to match. Stays until SIGINT or SIGTERM, then stops the nodes cleanly. A
    node that dies is not started again: `repstore node start` does that.

    With --json one line is printed when the volume is served by a primary with all copies in
    sync: {"volume", "size_bytes", "primary", "nodes": [{"name", "pid", "nbd"}]}.
    """
    directory = ClusterDirectory(data)
    wanted = Wanted(nodes, copies, size, store_size, volume, ack, nbd_port)
    check_wanted(directory, wanted)
    with locked(directory):
        clean, ready = _serve(directory, wanted, as_json=json)
    if not (clean and ready):
        raise typer.Exit(EXIT_REFUSED)


def _serve(directory: ClusterDirectory, wanted: Wanted, *, as_json: bool) -> tuple[bool, bool]:
    """Whether it ended cleanly, and whether it ever served."""
    ready = None
    with Signals() as signals:
        supervisor = Supervisor(directory, wanted, signals)
        supervisor.prepare()
        try:
            supervisor.start()
            ready = supervisor.await_served()
            if ready is not None:
                _announce(ready, supervisor.volume, as_json=as_json)
                supervisor.watch()
        finally:
            clean = supervisor.stop()
    if ready is None:
        complain("told to stop before the volume was served")
    return clean, ready is not None


def status(data: Data, json: Json = False) -> None:
    """Show volumes, copies, roles, epochs, LSNs, resync progress and pids.

    Exit code: 0 healthy, 1 degraded (served, but a copy or a node is missing), 2 faulted
    (some volume is not served), 3 no cluster in DIR.
    """
    directory, configs = open_cluster(data)
    with closing(configs):
        found = cluster_status(directory, configs)
    if json:
        print_json(found)
    else:
        print_status(found)
    raise typer.Exit(EXIT_BY_HEALTH[found.health])


def _announce(ready: ClusterStatus, name: str, *, as_json: bool) -> None:
    volume = ready.volume(name)
    assert volume is not None
    if volume.reason:
        complain(f"volume {name!r} is {volume.health}: {volume.reason}")
    if as_json:
        print_json({
            "volume": name, "size_bytes": volume.size_bytes, "primary": volume.primary,
            "nodes": [{"name": node.name, "pid": node.pid, "nbd": nbd_uri(node.nbd[0], name),
                       **({"nbd_tcp": nbd_uri(node.nbd[1], name)} if len(node.nbd) > 1 else {})}
                      for node in ready.nodes]})
        return
    print_table(
        f"volume {name} is served: epoch {volume.epoch}, primary {volume.primary}; stop with Ctrl-C",
        ("node", "pid", "block clients connect to"),
        [(node.name, node.pid or "-", "\n".join(nbd_uri(address, name) for address in node.nbd))
         for node in ready.nodes])
