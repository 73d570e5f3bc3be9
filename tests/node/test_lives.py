"""Which life of its store a node had last: what its record says (I1-I3)."""
import pytest
from msgspec.structs import replace

from repstore import errors
from repstore.coordination.memory import MemoryConfigStore
from repstore.node.admin import register_node
from repstore.node.lives import begin_life, knows_life, life_has_begun, life_name
from repstore.replication.volume_config import NodeConfig


def test_a_life_that_somebody_has_written_over_is_not_confirmed() -> None:
    store = MemoryConfigStore()
    node = NodeConfig(name="n1", id=1, store_path="", store_uuid="d1", life_id="l2")
    register_node(store, replace(node, life_id="l1"))
    entered = begin_life(store, node, "l1", "")
    assert entered.behind_life_ids == ("l1",)
    register_node(store, replace(node, life_id="l3"))
    with pytest.raises(errors.UnavailableError, match="'n1': its record was written anew"):
        life_has_begun(store, entered)


def test_lives_that_served_nobody_are_the_last_one_as_well() -> None:
    store = MemoryConfigStore()
    node = NodeConfig(name="n1", id=1, store_path="", store_uuid="d1")
    assert knows_life(store, "n1", 1)
    register_node(store, node)
    assert knows_life(store, "n1", 1)
    for life in range(1, 5):
        begin_life(store, replace(node, life_id=life_name(life)), life_name(life - 1), "")
    assert [knows_life(store, "n1", life) for life in range(6)] == 5 * [True] + [False]
    life_has_begun(store, replace(node, life_id=life_name(4)))
    assert [knows_life(store, "n1", life) for life in range(6)] == [False, False, False, False, True, False]
