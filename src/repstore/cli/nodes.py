"""`repstore node run | start | stop`."""
from __future__ import annotations

from contextlib import closing
from typing import Annotated

import typer

from repstore import config, errors
from repstore.cli.options import EXIT_REFUSED, Data, Json, complain, open_cluster
from repstore.cli.processes import ServingNode, await_ready, start_node, stop_nodes
from repstore.cli.show import print_json
from repstore.node import NodeConfig, load_nodes
from repstore.node.directory import ClusterDirectory
from repstore.node.process import is_running

app = typer.Typer(help="The processes that hold the copies.", no_args_is_help=True)
Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the node, such as n1.")]


@app.command()
def run(
    name: Name, data: Data,
    ready_fd: Annotated[int | None, typer.Option(
        hidden=True, help="File descriptor that is told when the node serves.")] = None,
) -> None:
    """Be a node, in the foreground, until SIGTERM or SIGINT."""
    directory, _ = _known(data, name)
    ServingNode(directory, name, ready_fd).run()


@app.command()
def start(name: Name, data: Data, json: Json = False) -> None:
    """Start a node that has died or was stopped; it goes on by itself afterwards."""
    directory, node = _known(data, name)
    if is_running(node):
        raise errors.BusyError(f"node {name!r} runs already (pid {node.pid})")
    started = start_node(directory, name)
    await_ready(started)
    if json:
        print_json({"name": name, "pid": started.process.pid})
    else:
        print(f"node {name} runs (pid {started.process.pid})")


@app.command()
def stop(name: Name, data: Data) -> None:
    """Have a node close its store and end. The volumes go on with the copies that are left."""
    directory, node = _known(data, name)
    if not is_running(node):
        raise errors.NotFoundError(f"node {name!r} does not run")
    if stop_nodes(directory, [name]):
        complain(f"node {name} did not stop within {config.STOP_TIMEOUT_S:.0f} s and was killed")
        raise typer.Exit(EXIT_REFUSED)


def _known(data: Data, name: str) -> tuple[ClusterDirectory, NodeConfig]:
    directory, configs = open_cluster(data)
    with closing(configs):
        nodes = load_nodes(configs)
    if name not in nodes:
        raise errors.NotFoundError(f"{data}: no node {name!r}, there are {', '.join(sorted(nodes))}")
    return directory, nodes[name]
