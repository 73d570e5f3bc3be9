"""`repstore volume create | list | show | delete`."""
from __future__ import annotations

from contextlib import closing
from typing import Annotated, Literal

import typer

from repstore import config, errors
from repstore.cli.options import Data, Json, Size, format_size, open_cluster
from repstore.cli.show import print_json, print_table, print_volume
from repstore.node import delete_volume
from repstore.node.directory import add_volume
from repstore.node.status import ClusterStatus, VolumeStatus, cluster_status

app = typer.Typer(help="The volumes of a cluster.", no_args_is_help=True)
Name = Annotated[str, typer.Argument(metavar="NAME", help=f"Name of the volume: {config.NAME_RULE}.")]


@app.command()
def create(
    name: Name, data: Data, size: Size,
    copies: Annotated[int, typer.Option(help="Copies, 1 to 8, each on a node of its own.")] = 1,
    min_copies: Annotated[int | None, typer.Option(
        help="With fewer copies in sync nothing is acknowledged. (default: copies - 1, at least 1)")] = None,
    ack: Annotated[Literal["dev", "durable"], typer.Option(
        help="Acknowledge a write when every in-sync copy wrote it (dev) or flushed it (durable).")] = "dev",
    json: Json = False,
) -> None:
    """Make a volume; nodes that run serve it at once, the others when they start."""
    options = config.VolumeOptions(name, size, copies, min_copies, ack)
    _, configs = open_cluster(data)
    with closing(configs):
        add_volume(configs, options)
    _show_one(_status(data), name, as_json=json)


@app.command("list")
def list_volumes(data: Data, json: Json = False) -> None:
    """All volumes, oldest first."""
    volumes = _status(data).volumes
    if json:
        print_json(volumes)
        return
    print_table(
        f"{len(volumes)} volumes", ("volume", "size", "copies", "health", "primary", "epoch", "acknowledged"),
        [(volume.name, format_size(volume.size_bytes), volume.copies_wanted, volume.health,
          volume.primary, volume.epoch, volume.acknowledgement) for volume in volumes])


@app.command()
def show(name: Name, data: Data, json: Json = False) -> None:
    """One volume and its copies."""
    _show_one(_status(data), name, as_json=json)


@app.command()
def delete(name: Name, data: Data, json: Json = False) -> None:
    """Remove a volume and all its copies, for ever; whoever is attached gets errors."""
    _, configs = open_cluster(data)
    with closing(configs):
        deleted = delete_volume(configs, name)
    if json:
        print_json({"deleted": name, "index": deleted.index})
    else:
        print(f"volume {name} is deleted")


def _status(data: Data) -> ClusterStatus:
    directory, configs = open_cluster(data)
    with closing(configs):
        return cluster_status(directory, configs)


def _show_one(status: ClusterStatus, name: str, *, as_json: bool) -> None:
    volume: VolumeStatus | None = status.volume(name)
    if volume is None:
        raise errors.NotFoundError(f"no volume {name!r}")
    if as_json:
        print_json(volume)
    else:
        print_volume(volume)
