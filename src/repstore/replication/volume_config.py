"""What the coordination store holds: one record a volume, one a node, one a cluster.

A VolumeConfig is the truth about a volume's membership. It only ever changes by
compare-and-swap, and only through the functions of `membership`.

Rules of a valid VolumeConfig (`check_volume`, run before every write, after every read):
  V1 1 <= min_copies <= copies, and placement names exactly `copies` different nodes
  V2 the in-sync set is a subset of placement, without repeats
  V3 from epoch 1 on the primary is in the in-sync set
  V4 lineage ascends in epoch, its live entries in LSN; it ends with `epoch` and
     has at most LINEAGE_ENTRIES_MAX entries
  V5 an attach's session is the newest session ever given (`last_session`)
"""
from __future__ import annotations

import itertools
from typing import Annotated, TypeVar

import msgspec

from repstore import config, errors

VOLUME_PREFIX = "volumes/"
NODE_PREFIX = "nodes/"
CLUSTER_KEY = "cluster"

NodeId = int                  # 0 .. NODES_MAX - 1, the same in configs, frames and links
Count32 = Annotated[int, msgspec.Meta(ge=0, lt=2**32)]
Count64 = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Identifier = Annotated[str, msgspec.Meta(max_length=64)]
Name = Annotated[str, msgspec.Meta(pattern=config.NAME_PATTERN)]


class Member(msgspec.Struct, frozen=True):
    """One copy that holds everything acknowledged, as it was when it joined."""
    node: Count32
    store_uuid: Identifier    # another disk in the same node is not this member
    boot_id: Identifier       # another boot since: what was not flushed may be gone (taint)
    join_lsn: Count64 = 0


class Lineage(msgspec.Struct, frozen=True):
    """An epoch and the first LSN it assigned: tells how far two logs are the same."""
    epoch: Count32
    first_lsn: Count64
    dead: bool = False        # none of its records is in the log of the epochs after it
    lossy: bool = False       # committed records of the epochs before it may not be in its log


class Attach(msgspec.Struct, frozen=True):
    """The one client that may write."""
    session: Count32
    client: Identifier        # name of the node that serves it
    token: Identifier         # random for each life of that node
    boot_id: Identifier       # of the client's host: its page cache dies with it
    incarnation: Count32      # of the volume when attached: another one refuses the session


class VolumeConfig(msgspec.Struct, frozen=True):
    """Membership and identity of one volume."""
    name: Name
    uuid: Identifier
    index: Count32            # cluster-wide number, never used twice
    size_bytes: Count64
    copies: Count32
    min_copies: Count32
    acknowledgement: config.Acknowledgement
    placement: tuple[Count32, ...]          # the nodes that hold, or should hold, a copy
    primary: Count32
    in_sync: tuple[Member, ...]             # the primary included
    epoch: Count32 = 0        # 0: created, never led
    incarnation: Count32 = 0
    lineage: tuple[Lineage, ...] = ()
    attach: Attach | None = None
    last_session: Count32 = 0

    def member(self, node: NodeId) -> Member | None:
        """The in-sync member on `node`, or None."""
        return next((member for member in self.in_sync if member.node == node), None)

    def in_sync_nodes(self) -> tuple[NodeId, ...]:
        """Node numbers of the in-sync set, in its order."""
        return tuple(member.node for member in self.in_sync)


class NodeConfig(msgspec.Struct, frozen=True):
    """One node: where its store and sockets are, and which process it is just now."""
    name: Name
    id: Count32
    store_path: str
    store_uuid: Identifier
    peer_socket: str = ""
    nbd_sockets: tuple[str, ...] = ()
    host_boot_id: Identifier = ""    # with pid, start and namespace: which process exactly
    pid: Count32 = 0
    pid_started: Count64 = 0
    pid_namespace: Identifier = ""
    boot_id: Identifier = ""         # what the store presents as its boot (see Member)
    life_id: Identifier = ""         # of the store, in this process: an older state of it has another
    behind_life_ids: tuple[Identifier, ...] = ()   # that its store may have till `life_id` is on its disk
    closed_boot_ids: tuple[Identifier, ...] = ()   # earlier boots behind which nothing was lost, newest first


class ClusterConfig(msgspec.Struct, frozen=True):
    """Counters of the whole cluster."""
    uuid: Identifier
    next_index: Count32 = 0          # volume indexes below it were given out


Record = TypeVar("Record", VolumeConfig, NodeConfig, ClusterConfig)


def volume_key(name: str) -> str:
    """Key of a volume's config."""
    return VOLUME_PREFIX + name


def node_key(name: str) -> str:
    """Key of a node's record."""
    return NODE_PREFIX + name


def encode(record: Record) -> bytes:
    """JSON bytes of a record; a VolumeConfig is checked first."""
    if isinstance(record, VolumeConfig):
        check_volume(record)
    return msgspec.json.encode(record)


def decode(data: bytes, kind: type[Record], where: str) -> Record:
    """The record in `data`; bytes that are none are corruption of the config store."""
    try:
        record = msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise errors.CorruptionError(where, f"a {kind.__name__}", str(error)) from error
    if isinstance(record, VolumeConfig):
        try:
            check_volume(record)
        except errors.ConfigError as error:
            raise errors.CorruptionError(where, "a valid VolumeConfig", str(error)) from error
    return record


def check_volume(volume: VolumeConfig) -> None:
    """Raise ConfigError naming the rule, the value and the limit that is broken."""
    nodes = volume.in_sync_nodes()
    if not 1 <= volume.copies <= config.COPIES_MAX:
        _refuse(volume, "V1", f"copies {volume.copies}, must be 1 to {config.COPIES_MAX}")
    if not 1 <= volume.min_copies <= volume.copies:
        _refuse(volume, "V1", f"min_copies {volume.min_copies}, must be 1 to {volume.copies}")
    if len(volume.placement) != volume.copies or _repeats(volume.placement):
        _refuse(volume, "V1", f"placement {volume.placement} must be {volume.copies} nodes")
    if _repeats(nodes) or not set(nodes) <= set(volume.placement):
        _refuse(volume, "V2", f"in-sync set {nodes} outside placement {volume.placement}")
    if volume.epoch and volume.primary not in nodes:
        _refuse(volume, "V3", f"primary {volume.primary} is not in the in-sync set {nodes}")
    _check_lineage(volume)
    if volume.attach is not None and volume.attach.session != volume.last_session:
        _refuse(volume, "V5", f"session {volume.attach.session}, last {volume.last_session}")


def _check_lineage(volume: VolumeConfig) -> None:
    lineage = volume.lineage
    if len(lineage) > config.LINEAGE_ENTRIES_MAX:
        _refuse(volume, "V4", f"{len(lineage)} lineage entries, at most {config.LINEAGE_ENTRIES_MAX}")
    if (lineage[-1].epoch if lineage else 0) != volume.epoch:
        _refuse(volume, "V4", f"lineage {lineage} does not end with epoch {volume.epoch}")
    for older, newer in itertools.pairwise(lineage):
        if older.epoch >= newer.epoch:
            _refuse(volume, "V4", f"lineage {older} before {newer}")
    for older, newer in itertools.pairwise(entry for entry in lineage if not entry.dead):
        if older.first_lsn > newer.first_lsn:
            _refuse(volume, "V4", f"lineage {older} before {newer}")


def _repeats(nodes: tuple[int, ...]) -> bool:
    return len(set(nodes)) != len(nodes)


def _refuse(volume: VolumeConfig, rule: str, fault: str) -> None:
    raise errors.ConfigError(f"volume {volume.name!r}: {fault} (rule {rule})")
