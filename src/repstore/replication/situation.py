"""What a volume's policy knows of the world around it, shared by its three roles."""
from __future__ import annotations

from dataclasses import dataclass, field

from repstore.replication.actions import Swap
from repstore.replication.volume_config import Member, NodeId, VolumeConfig


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a node is in this life of it. Told by its hello, never by the config store."""
    node: NodeId
    store_uuid: str
    boot_id: str
    closed_boot_ids: tuple[str, ...] = ()      # of ourselves: earlier boots whose end lost nothing


@dataclass
class Situation:
    """Facts only; the roles decide."""
    me: Identity
    volume: VolumeConfig
    revision: int
    peers: dict[NodeId, Identity] = field(default_factory=dict)     # links that are up
    dead: set[NodeId] = field(default_factory=set)     # proved, and not back yet
    swap: Swap | None = None        # in flight: its outcome is not known
    next_swap_s: float = 0.0        # no new swap before that

    def identity_of(self, node: NodeId) -> Identity | None:
        """Who `node` is now; None while we have no link to it."""
        return self.me if node == self.me.node else self.peers.get(node)

    def is_member(self, identity: Identity) -> bool:
        """Whether this node, with this disk, is in the in-sync set."""
        member = self.volume.member(identity.node)
        return member is not None and member.store_uuid == identity.store_uuid

    def as_member(self, identity: Identity, join_lsn: int) -> Member:
        """The config's entry for a node that joins in its present life."""
        return Member(identity.node, identity.store_uuid, identity.boot_id, join_lsn)
