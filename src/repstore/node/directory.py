"""A cluster on one machine is a directory; which file is what, and how they come to be.

    cluster.db          the coordination store
    NAME.store          the store of node NAME (n1, n2, ...)
    NAME.log            what its processes had to say, newest last
    NAME.status.json    what the running one tells about itself (see `report`)
    NAME.peer.sock      where it listens to the other nodes
    NAME.nbd.sock       where it serves every volume by name over NBD
    up.lock             held by the command that supervises the nodes

  D1 Making a node is repeatable: its store is whole or absent, and it is registered last.
  D2 A store that already holds copies of volumes is never taken for a new node's.
  D3 The nodes' records name absolute paths; they are renewed when the nodes are started, so
     that a directory may be moved while nothing runs in it.
"""
from __future__ import annotations

from functools import partial
from pathlib import Path
from uuid import UUID

from msgspec.structs import replace

from repstore import config, errors
from repstore.coordination.interface import ConfigStore
from repstore.coordination.sqlite import SqliteConfigStore
from repstore.node import admin
from repstore.node.report import REPORT_SUFFIX
from repstore.node.shell import DATABASE_NAME, socket_path
from repstore.replication.volume_config import NodeConfig, VolumeConfig
from repstore.store import geometry, store

FILL_AIMED_AT = 0.7               # a cleaner with less room moves more than it frees
STORE_BYTES_USUAL_MIN = 16 * config.MIB
LOOPBACK = "127.0.0.1"


class ClusterDirectory:
    """The files of one cluster, by what they are."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).resolve()
        self.database = self.path / DATABASE_NAME
        self.lock = self.path / "up.lock"

    def exists(self) -> bool:
        """Whether a cluster was made here."""
        return self.database.is_file()

    def open_config(self, *, create: bool = False) -> SqliteConfigStore:
        """The coordination store; NotFoundError where no cluster is."""
        return SqliteConfigStore(self.database, create=create)

    def store_path(self, name: str) -> Path:
        return self.path / f"{name}.store"

    def log_path(self, name: str) -> Path:
        return self.path / f"{name}.log"

    def report_path(self, name: str) -> Path:
        return self.path / (name + REPORT_SUFFIX)

    def add_node(self, configs: ConfigStore, name: str, store_bytes: int) -> NodeConfig:
        """Make a node with an empty store (D1)."""
        config.check_name(name, "node")
        nodes = admin.load_nodes(configs)
        if name in nodes:
            raise errors.ExistsError(f"node {name!r} exists")
        config.check_range("nodes", len(nodes) + 1, config.NODES_MIN, config.NODES_MAX)
        number = min(set(range(config.NODES_MAX)) - {node.id for node in nodes.values()})
        path = self.store_path(name)
        found = store.info(path) if path.exists() else store.create(path, store_bytes)
        if found.volumes or found.size_bytes != store_bytes:
            raise errors.ExistsError(
                f"{path}: a store of {found.size_bytes} bytes with {len(found.volumes)} volumes "
                f"is there already, node {name!r} needs an empty one of {store_bytes}")   # D2
        node = NodeConfig(
            name=name, id=number, store_path=str(path), store_uuid=UUID(found.uuid).hex,
            boot_id=store.kernel_boot_id().hex())
        return admin.register_node(configs, self._addressed(node, None))

    def renew_addresses(self, configs: ConfigStore, nbd_port: int | None) -> None:
        """Before the nodes are started: where their files and sockets are now (D3).

        With `nbd_port` they listen on loopback TCP as well, n1 at that port, n2 at the next.
        """
        for node in admin.load_nodes(configs).values():
            port = None if nbd_port is None else nbd_port + node.id
            admin.register_node(configs, node, partial(self._readdressed, node, port))

    def _readdressed(self, node: NodeConfig, port: int | None, record: NodeConfig | None) -> NodeConfig:
        """What else its record says stays: it may just be starting."""
        return self._addressed(record or node, port)

    def _addressed(self, node: NodeConfig, port: int | None) -> NodeConfig:
        sockets = [socket_path(self.path, f"{node.name}.nbd.sock")]
        if port is not None:
            sockets.append(f"{LOOPBACK}:{port}")
        return replace(
            node, store_path=str(self.store_path(node.name)),
            peer_socket=socket_path(self.path, f"{node.name}.peer.sock"),
            nbd_sockets=tuple(sockets))


def add_volume(configs: ConfigStore, options: config.VolumeOptions) -> VolumeConfig:
    """Enter a new volume, if the stores of the nodes it goes to can hold it."""
    return admin.create_volume(
        configs, options, lambda node: store.info(node.store_path).capacity_bytes)


def usual_store_bytes(volume_bytes: int) -> int:
    """A store whose capacity one volume, written all over, fills to FILL_AIMED_AT; whole MiB."""
    wanted_bytes = int(volume_bytes / FILL_AIMED_AT)
    store_bytes = max(STORE_BYTES_USUAL_MIN, _whole_mib(wanted_bytes))
    while geometry.choose(config.StoreOptions(store_bytes)).capacity_bytes < wanted_bytes:
        store_bytes += _whole_mib(store_bytes // 64)
    return store_bytes


def _whole_mib(size_bytes: int) -> int:
    return -(-size_bytes // config.MIB) * config.MIB
