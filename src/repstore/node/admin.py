"""What a command changes in the coordination store: nodes, volumes, attaches.

Nodes notice by their watch and act; nothing here talks to one. Every change is a
compare-and-swap of one record, tried again on top of what another writer made of it.
"""
from __future__ import annotations

import uuid as uuids
from collections.abc import Callable
from typing import TypeVar

from msgspec.structs import replace

from repstore import config, errors
from repstore.coordination.interface import ABSENT, ConfigStore
from repstore.replication import membership
from repstore.replication.volume_config import (
    CLUSTER_KEY,
    NODE_PREFIX,
    VOLUME_PREFIX,
    ClusterConfig,
    Member,
    NodeConfig,
    NodeId,
    VolumeConfig,
    decode,
    encode,
    node_key,
    volume_key,
)

Record = TypeVar("Record", VolumeConfig, NodeConfig, ClusterConfig)


def update(store: ConfigStore, key: str, kind: type[Record],
           change: Callable[[Record | None], Record]) -> Record:
    """Read, change, swap; again when somebody else was first."""
    for _ in range(config.SWAPS_MAX):
        entry = store.get(key)
        old = None if entry is None else decode(entry.value, kind, key)
        new = change(old)
        if new == old:
            return new
        revision = ABSENT if entry is None else entry.revision
        if store.compare_and_swap(key, revision, encode(new)) is not None:
            return new
    raise errors.UnavailableError(f"{key}: lost {config.SWAPS_MAX} compare-and-swaps in a row")


def load_nodes(store: ConfigStore) -> dict[str, NodeConfig]:
    """All nodes by name."""
    return {key.removeprefix(NODE_PREFIX): decode(entry.value, NodeConfig, key)
            for key, entry in store.list(NODE_PREFIX).items()}


def load_volumes(store: ConfigStore) -> dict[str, VolumeConfig]:
    """All volumes by name."""
    return {key.removeprefix(VOLUME_PREFIX): decode(entry.value, VolumeConfig, key)
            for key, entry in store.list(VOLUME_PREFIX).items()}


def load_volume(store: ConfigStore, name: str) -> VolumeConfig:
    """One volume, or NotFoundError."""
    config.check_name(name)
    entry = store.get(volume_key(name))
    if entry is None:
        raise errors.NotFoundError(f"no volume {name!r}")
    return decode(entry.value, VolumeConfig, name)


def register_node(store: ConfigStore, node: NodeConfig,
                  change: Callable[[NodeConfig | None], NodeConfig] | None = None) -> NodeConfig:
    """Enter a node, or what has changed about it (its process, its sockets, its disk): `node`, or what
    `change` makes of the record there."""
    config.check_name(node.name, "node")
    if node.id >= config.NODES_MAX:
        raise errors.ConfigError(f"node id {node.id}, must be below {config.NODES_MAX}")
    for other in load_nodes(store).values():
        if other.id == node.id and other.name != node.name:
            raise errors.ExistsError(f"node id {node.id} is {other.name!r}, not {node.name!r}")
    return update(store, node_key(node.name), NodeConfig, change or (lambda old: node))


def create_volume(store: ConfigStore, options: config.VolumeOptions,
                  room_bytes: Callable[[NodeConfig], int] = lambda node: config.VOLUME_BYTES_MAX,
                  ) -> VolumeConfig:
    """Enter a new volume; the nodes chosen for it make their copies and one leads.

    `room_bytes` tells how large a volume a node's store can hold at all.
    """
    name = options.name
    if store.get(volume_key(name)) is not None:
        raise errors.ExistsError(f"volume {name!r} exists")
    placement = _place(load_nodes(store), load_volumes(store), options.copies)
    for node in placement:
        if options.size_bytes > room_bytes(node):
            raise errors.ConfigError(f"volume of {options.size_bytes} bytes: the store of node "
                                     f"{node.name!r} can hold {room_bytes(node)}")
    volume = VolumeConfig(
        name=name, uuid=str(uuids.uuid4()), index=_next_index(store),
        size_bytes=options.size_bytes, copies=options.copies,
        min_copies=options.needed_copies, acknowledgement=options.acknowledgement,
        placement=tuple(node.id for node in placement), primary=placement[0].id,
        in_sync=tuple(Member(node.id, node.store_uuid, node.boot_id) for node in placement))
    if store.compare_and_swap(volume_key(name), ABSENT, encode(volume)) is None:
        raise errors.ExistsError(f"volume {name!r} exists")
    return volume


def delete_volume(store: ConfigStore, name: str) -> VolumeConfig:
    """Remove a volume and, as the nodes notice, all its copies."""
    for _ in range(config.SWAPS_MAX):
        volume = load_volume(store, name)
        entry = store.get(volume_key(name))
        if entry is not None and store.delete(volume_key(name), entry.revision):
            return volume
    raise errors.UnavailableError(f"volume {name!r}: its config keeps changing")


def detach_volume(store: ConfigStore, name: str) -> VolumeConfig:
    """End the present attach: its session is refused from then on."""
    def change(old: VolumeConfig | None) -> VolumeConfig:
        if old is None:
            raise errors.NotFoundError(f"no volume {name!r}")
        return membership.detached(old)
    return update(store, volume_key(name), VolumeConfig, change)


def _place(nodes: dict[str, NodeConfig], volumes: dict[str, VolumeConfig],
           copies: int) -> list[NodeConfig]:
    """The nodes with the fewest copies; among them, fewest primaries first."""
    if len(nodes) < copies:
        raise errors.ConfigError(f"{copies} copies need {copies} nodes, there are {len(nodes)}")
    if len(volumes) >= config.VOLUMES_MAX:
        raise errors.ConfigError(f"{len(volumes)} volumes, at most {config.VOLUMES_MAX} fit")

    def load(node: NodeConfig) -> tuple[int, int, NodeId]:
        held = sum(node.id in volume.placement for volume in volumes.values())
        led = sum(node.id == volume.primary for volume in volumes.values())
        return held, led, node.id

    chosen = sorted(nodes.values(), key=load)[:copies]
    return sorted(chosen, key=lambda node: load(node)[1:])


def _next_index(store: ConfigStore) -> int:
    """An index never used before: an old copy of a deleted volume must match no new one."""
    def change(old: ClusterConfig | None) -> ClusterConfig:
        if old is None:
            return ClusterConfig(str(uuids.uuid4()), 1)
        if old.next_index >= config.VOLUME_INDEXES_MAX:
            raise errors.ConfigError(f"{old.next_index} volumes were made, "
                                     f"at most {config.VOLUME_INDEXES_MAX} ever can be")
        return replace(old, next_index=old.next_index + 1)
    return update(store, CLUSTER_KEY, ClusterConfig, change).next_index - 1
