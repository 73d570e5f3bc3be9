"""Commands against the coordination store: bad requests change nothing, placement is even."""
import pytest
from hypothesis import given
from hypothesis import strategies as st

from repstore import errors
from repstore.config import NODES_MAX, VolumeOptions
from repstore.coordination.memory import MemoryConfigStore
from repstore.node.admin import (
    create_volume,
    delete_volume,
    detach_volume,
    load_nodes,
    load_volumes,
    register_node,
)
from repstore.replication.volume_config import NodeConfig


def store_with(nodes: int) -> MemoryConfigStore:
    store = MemoryConfigStore()
    for number in range(nodes):
        register_node(store, NodeConfig(
            name=f"n{number}", id=number, store_path="/s", store_uuid=f"d{number}", boot_id="b"))
    return store


def test_a_volume_begins_with_all_its_copies_in_sync() -> None:
    store = store_with(3)
    volume = create_volume(store, VolumeOptions("v", 1 << 20, 3))
    assert volume.epoch == 0
    assert volume.min_copies == 2
    assert sorted(volume.in_sync_nodes()) == [0, 1, 2]
    assert load_volumes(store) == {"v": volume}


@given(st.lists(st.integers(1, 4), max_size=12))
def test_copies_and_primaries_are_spread(copies: list[int]) -> None:
    store = store_with(4)
    for number, count in enumerate(copies):
        create_volume(store, VolumeOptions(f"v{number}", 1 << 20, count))
    volumes = load_volumes(store).values()
    held = [sum(node in volume.placement for volume in volumes) for node in range(4)]
    assert max(held) - min(held) <= 1
    assert len({volume.index for volume in volumes}) == len(copies)


def test_what_cannot_be_is_refused_and_changes_nothing() -> None:
    store = store_with(2)
    create_volume(store, VolumeOptions("v", 1 << 20, 2))
    before = {key: entry.value for key, entry in store.list("").items()}
    with pytest.raises(errors.ExistsError, match="'v'"):
        create_volume(store, VolumeOptions("v", 1 << 20, 1))
    with pytest.raises(errors.ConfigError, match="3 copies need 3 nodes, there are 2"):
        create_volume(store, VolumeOptions("w", 1 << 20, 3))
    with pytest.raises(errors.NotFoundError):
        delete_volume(store, "w")
    with pytest.raises(errors.NotFoundError):
        detach_volume(store, "w")
    with pytest.raises(errors.ConfigError, match=str(NODES_MAX)):
        register_node(store, NodeConfig(name="n9", id=NODES_MAX, store_path="", store_uuid=""))
    with pytest.raises(errors.ExistsError, match="n1"):
        register_node(store, NodeConfig(name="other", id=1, store_path="", store_uuid=""))
    assert {key: entry.value for key, entry in store.list("").items()} == before
    assert sorted(load_nodes(store)) == ["n0", "n1"]
