"""Which life of its store a node had last, and behind which boots nothing was lost: in the node's record.

A store tells how it was closed, and in which boot. Whether it is the one that was there last only the record
can tell, and which volumes have not heard yet that a boot lost nothing: a start may be given up, and a
process die, before they were told.

  I1 a life is entered before it begins on the disk, and confirmed when it has. One that was not confirmed
     served nobody: of the lives since the last confirmed one the store may have any, and lacks nothing
  I2 a store with another life is an older state that was put back, or another store: it lacks what came since
  I3 boots that the store went through without a loss are remembered, the last CLOSED_BOOTS_MAX of them,
     until a start finds that one lost something; each volume is told for itself (V6 of
     `replication.policy`)
"""
from __future__ import annotations

from msgspec.structs import replace

from repstore import config, errors
from repstore.coordination.interface import ConfigStore
from repstore.node.admin import load_nodes, register_node, update
from repstore.replication.volume_config import NodeConfig, node_key


def life_name(life_id: int) -> str:
    """As records have it."""
    return f"{life_id:016x}"


def knows_life(store: ConfigStore, name: str, life_id: int) -> bool:
    """Whether a store that had this life is the one that its node had last, for all its record says (I2)."""
    found_life_id = life_name(life_id)
    return found_life_id in _lives(load_nodes(store).get(name), found_life_id)


def begin_life(store: ConfigStore, node: NodeConfig, found_life_id: str,
               closed_boot_id: str) -> NodeConfig:
    """Enter a node whose process is about to begin a life of a store that had another one, and was closed
    cleanly in an earlier boot (or none: empty). Returns the record: its `closed_boot_ids` are the boots
    whose end lost nothing (I3).
    """
    def begun(last: NodeConfig | None) -> NodeConfig:
        lives = _lives(last, found_life_id)
        if last is None or found_life_id not in lives:
            return replace(node, behind_life_ids=(), closed_boot_ids=())
        return replace(node, behind_life_ids=lives[lives.index(found_life_id):][:config.LIVES_MAX],
                       closed_boot_ids=_closed_boots(last, node, closed_boot_id)[:config.CLOSED_BOOTS_MAX])
    return register_node(store, node, begun)


def life_has_begun(store: ConfigStore, node: NodeConfig) -> None:
    """The life that `begin_life` entered is on its disk (I1): from now on no older one is the last.
    UnavailableError: somebody has written the record meanwhile, and it says nothing of us."""
    def confirmed(record: NodeConfig | None) -> NodeConfig:
        if record is None or record.life_id != node.life_id:
            raise errors.UnavailableError(f"node {node.name!r}: its record was written anew while it started")
        return replace(record, behind_life_ids=())
    update(store, node_key(node.name), NodeConfig, confirmed)


def _lives(record: NodeConfig | None, found_life_id: str) -> tuple[str, ...]:
    """Those of which the store may have any (I1), newest first; of a node that never ran, what is found."""
    if record is None or record.life_id == "":
        return (found_life_id,)
    return (record.life_id, *record.behind_life_ids)


def _closed_boots(last: NodeConfig, node: NodeConfig, closed_boot_id: str) -> tuple[str, ...]:
    """From the one that ended now on, or, in the same boot, those before it."""
    boots = (last.boot_id, *last.closed_boot_ids)
    if closed_boot_id:
        return boots[boots.index(closed_boot_id):] if closed_boot_id in boots else ()
    return boots[boots.index(node.boot_id) + 1:] if node.boot_id in boots else ()
