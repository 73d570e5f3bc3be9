"""`repstore store create | info`."""
from __future__ import annotations

import dataclasses
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from repstore import errors
from repstore.cli.options import Data, Json, format_size, open_cluster, parse_size
from repstore.cli.show import print_json, print_table
from repstore.node import load_nodes
from repstore.store import store

app = typer.Typer(help="The stores that copies lie in: one file or block device each.", no_args_is_help=True)
SomeData = Annotated[Path | None, typer.Option(
    "--data", metavar="DIR", help="Cluster: TARGET is then the name of a node of it.")]


@app.command()
def create(
    target: Annotated[str, typer.Argument(
        metavar="TARGET", help="File or block device; with --data the name of a new node.")],
    size: Annotated[int | None, typer.Option(
        parser=parse_size, metavar="SIZE", help="Size, such as 4GiB. (block device: all of it)")] = None,
    segment_size: Annotated[int | None, typer.Option(
        parser=parse_size, metavar="SIZE",
        help="Unit of cleaning, a power of two. (by the store's size)")] = None,
    force: Annotated[bool, typer.Option(
        "--force", help="Overwrite a store that a block device carries already.")] = False,
    data: SomeData = None,
    json: Json = False,
) -> None:
    """Make an empty store; with --data a new node of a cluster, with its store."""
    path = Path(target)
    if data is None:
        store.create(path, size, segment_bytes=segment_size, force=force)
    else:
        path = _new_node(data, target, size)
    _show(path, as_json=json)


@app.command()
def info(
    target: Annotated[str, typer.Argument(
        metavar="TARGET", help="File or block device; with --data the name of a node.")],
    data: SomeData = None,
    json: Json = False,
) -> None:
    """What a store is and holds, as of its last checkpoint; it may be in use meanwhile."""
    path = Path(target)
    if data is not None:
        _, configs = open_cluster(data)
        with closing(configs):
            node = load_nodes(configs).get(target)
        if node is None:
            raise errors.NotFoundError(f"{data}: no node {target!r}")
        path = Path(node.store_path)
    _show(path, as_json=json)


def _new_node(data: Data, name: str, size_bytes: int | None) -> Path:
    if size_bytes is None:
        raise errors.ConfigError(f"node {name!r}: its store needs a --size")
    directory, configs = open_cluster(data)
    with closing(configs):
        return Path(directory.add_node(configs, name, size_bytes).store_path)


def _show(path: Path, *, as_json: bool) -> None:
    found = store.info(path)
    if as_json:
        print_json(dataclasses.asdict(found))
        return
    used = found.capacity_bytes and 100 * found.live_bytes / found.capacity_bytes
    print_table(f"store {found.path}", ("what", "value"), [
        ("uuid", found.uuid), ("format", found.format), ("size", format_size(found.size_bytes)),
        ("room for copies", format_size(found.capacity_bytes)), ("filled", f"{used:.0f} %"),
        ("segments", f"{found.segments} of {format_size(found.segment_bytes)}, {found.free_segments} free"),
        ("closed cleanly", "yes" if found.clean else "no"), ("in use by", found.in_use_by or "nobody")])
    print_table(
        f"{len(found.volumes)} copies", ("volume", "size", "epoch", "last LSN", "committed", "learning"),
        [(volume.name, format_size(volume.size_bytes), volume.epoch, volume.last_lsn, volume.commit_lsn,
          "yes" if volume.learning else "no") for volume in found.volumes])
