"""The files of a cluster: made again after an interruption, never over somebody's data."""
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from repstore import config, errors
from repstore.coordination.interface import ConfigStore
from repstore.coordination.sqlite import SqliteConfigStore
from repstore.node import admin, lives, load_nodes, register_node
from repstore.node.directory import ClusterDirectory, add_volume, usual_store_bytes
from repstore.replication.volume_config import NodeConfig
from repstore.store import geometry, store

STORE_BYTES = 4 * config.MIB


@pytest.fixture
def directory(tmp_path: Path) -> ClusterDirectory:
    return ClusterDirectory(tmp_path)


@pytest.fixture
def configs(directory: ClusterDirectory) -> Iterator[SqliteConfigStore]:
    made = directory.open_config(create=True)
    yield made
    made.close()


def test_a_directory_without_a_cluster_stays_as_it_is(tmp_path: Path) -> None:
    directory = ClusterDirectory(tmp_path)
    assert not directory.exists()
    with pytest.raises(errors.NotFoundError, match="no cluster database"):
        directory.open_config()
    assert list(tmp_path.iterdir()) == []


def test_nodes_get_the_lowest_free_number(
        directory: ClusterDirectory, configs: SqliteConfigStore) -> None:
    assert [directory.add_node(configs, name, STORE_BYTES).id for name in ("n1", "other", "n2")] == [0, 1, 2]
    with pytest.raises(errors.ExistsError, match="node 'n1' exists"):
        directory.add_node(configs, "n1", STORE_BYTES)
    with pytest.raises(errors.ConfigError, match="node name"):
        directory.add_node(configs, "../n1", STORE_BYTES)
    node = load_nodes(configs)["other"]
    assert node.store_path == str(directory.path / "other.store")
    assert node.nbd_sockets == (str(directory.path / "other.nbd.sock"),)


def test_a_node_that_was_half_made_is_made_again(
        directory: ClusterDirectory, configs: SqliteConfigStore) -> None:
    first = directory.add_node(configs, "n1", STORE_BYTES)
    entry = configs.get("nodes/n1")
    assert entry is not None
    configs.delete("nodes/n1", entry.revision)        # as if it had ended before it registered
    assert directory.add_node(configs, "n1", STORE_BYTES).store_uuid == first.store_uuid


def test_a_store_of_another_size_is_not_taken(
        directory: ClusterDirectory, configs: SqliteConfigStore) -> None:
    store.create(directory.store_path("n1"), 2 * STORE_BYTES)
    with pytest.raises(errors.ExistsError, match=r"8388608 bytes with 0 volumes.*4194304"):
        directory.add_node(configs, "n1", STORE_BYTES)
    assert load_nodes(configs) == {}


def test_a_volume_above_what_the_stores_hold_is_refused(
        directory: ClusterDirectory, configs: SqliteConfigStore) -> None:
    directory.add_node(configs, "n1", STORE_BYTES)
    with pytest.raises(errors.ConfigError, match="volume of 4194304 bytes: the store of node 'n1' can hold"):
        add_volume(configs, config.VolumeOptions("v", STORE_BYTES))
    assert add_volume(configs, config.VolumeOptions("v", config.MIB)).index == 0


def test_a_moved_directory_has_its_files_where_it_is(tmp_path: Path) -> None:
    old = ClusterDirectory(tmp_path / "old")
    old.path.mkdir()
    configs = old.open_config(create=True)
    old.add_node(configs, "n1", STORE_BYTES)
    configs.close()
    new = ClusterDirectory(old.path.rename(tmp_path / "new"))
    configs = new.open_config()
    new.renew_addresses(configs, None)
    node = load_nodes(configs)["n1"]
    assert (node.store_path, node.peer_socket) == (str(new.store_path("n1")), str(new.path / "n1.peer.sock"))
    new.renew_addresses(configs, 7000)
    assert load_nodes(configs)["n1"].nbd_sockets == (str(new.path / "n1.nbd.sock"), "127.0.0.1:7000")
    configs.close()


def test_new_addresses_take_nothing_back_of_what_a_node_that_starts_has_entered(
        directory: ClusterDirectory, configs: SqliteConfigStore, monkeypatch: pytest.MonkeyPatch) -> None:
    node = directory.add_node(configs, "n1", STORE_BYTES)
    entered: list[NodeConfig] = []
    load = admin.load_nodes

    def load_and_begin(store: ConfigStore) -> dict[str, NodeConfig]:
        nodes = load(store)
        if not entered:
            entered.append(node)
            entered[0] = lives.begin_life(store, replace(node, pid=4711, life_id="l2"), "l1", "")
        return nodes

    monkeypatch.setattr(admin, "load_nodes", load_and_begin)
    directory.renew_addresses(configs, 7000)
    assert load(configs)["n1"] == replace(entered[0], nbd_sockets=load(configs)["n1"].nbd_sockets)
    assert load(configs)["n1"].nbd_sockets[-1] == "127.0.0.1:7000"


def test_at_most_so_many_nodes(directory: ClusterDirectory, configs: SqliteConfigStore) -> None:
    node = directory.add_node(configs, "n1", STORE_BYTES)
    for number in range(1, config.NODES_MAX):
        register_node(configs, type(node)(name=f"x{number}", id=number, store_path="", store_uuid=""))
    with pytest.raises(errors.ConfigError, match="nodes 17: must be 1 to 16"):
        directory.add_node(configs, "n17", STORE_BYTES)


@pytest.mark.parametrize("volume_bytes", [4096, config.MIB, 300 * config.MIB, 2 * config.GIB, config.TIB])
def test_the_usual_store_is_filled_to_seventy_percent(volume_bytes: int) -> None:
    store_bytes = usual_store_bytes(volume_bytes)
    chosen = geometry.choose(config.StoreOptions(store_bytes))
    assert volume_bytes <= 0.7 * chosen.capacity_bytes
    assert store_bytes % config.MIB == 0
    if volume_bytes > 100 * config.MIB:
        assert volume_bytes > 0.67 * chosen.capacity_bytes
