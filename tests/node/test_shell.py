"""The process around a node: sockets, publishing, the loop; with an engine that does nothing."""
import errno
import os
import resource
import signal
import socket
import stat
import threading
from pathlib import Path
from random import Random

import pytest
from msgspec.structs import replace

from repstore import config, errors
from repstore.coordination.sqlite import SqliteConfigStore
from repstore.node.admin import load_nodes, register_node, update
from repstore.node.process import is_gone
from repstore.node.shell import (
    DATABASE_NAME,
    LISTEN_FRONTENDS,
    LISTEN_PEERS,
    NodeShell,
    client_shell,
    connect_unix,
    listen_unix,
    run_node,
    socket_path,
)
from repstore.replication.volume_config import NodeConfig, node_key
from tests.node.fake_cluster import FakeCluster
from tests.node.fake_engine import FakeEngine


class IdleEngine(FakeEngine):
    """Has an event descriptor, and keeps the sockets it is given."""

    def __init__(self, node: int) -> None:
        super().__init__(FakeCluster(Random(0), 3), node)
        self.event_fd = os.eventfd(0, os.EFD_CLOEXEC)
        self.connected: list[int] = []
        self.met = threading.Event()

    def connect_peer(self, node_id: int, socket_fd: int) -> None:
        os.close(socket_fd)
        self.connected.append(node_id)
        self.met.set()


class IdleNative:
    """A NativeNode over an IdleEngine."""

    def __init__(self, node: int, store_uuid: str) -> None:
        self.engine = IdleEngine(node)
        self.store_uuid = store_uuid
        self.boot_id = "boot"
        self.closed_boot_id = self.found_life_id = ""
        self.life_id = "life"
        self.listeners: list[tuple[str, int]] = []
        self.descriptors: list[int] = []
        self.stopped = False

    def add_listener(self, socket_fd: int, kind: int) -> None:
        with socket.socket(fileno=os.dup(socket_fd)) as named:
            self.listeners.append((named.getsockname(), kind))
        self.descriptors.append(socket_fd)

    def start(self) -> None:
        pass

    def stop(self) -> None:
        self.stopped = True
        for descriptor in [*self.descriptors, self.engine.event_fd]:
            os.close(descriptor)


def directory_with(tmp_path: Path, nodes: int) -> Path:
    store = SqliteConfigStore(tmp_path / DATABASE_NAME, create=True)
    for number in range(nodes):
        name = f"n{number}"
        register_node(store, NodeConfig(
            name=name, id=number, store_path=str(tmp_path / name), store_uuid=f"d{number}",
            peer_socket=socket_path(tmp_path, f"{name}.peer"),
            nbd_sockets=(socket_path(tmp_path, f"{name}.nbd"),)))
    store.close()
    return tmp_path


def nodes_of(directory: Path) -> dict[str, NodeConfig]:
    store = SqliteConfigStore(directory / DATABASE_NAME)
    try:
        return load_nodes(store)
    finally:
        store.close()


def test_a_node_publishes_its_process_meets_its_peers_and_stops_cleanly(tmp_path: Path) -> None:
    directory = directory_with(tmp_path, 2)
    natives = {name: IdleNative(number, f"d{number}") for number, name in enumerate(["n0", "n1"])}
    ready: dict[str, NodeShell] = {}
    up = {name: threading.Event() for name in natives}

    def on_ready(shell: NodeShell) -> None:
        assert shell.control is not None
        name = shell.control.identity.name
        ready[name] = shell
        up[name].set()

    threads = [threading.Thread(target=run_node, args=(
        directory, name, lambda node, knows_life: natives[node.name], on_ready)) for name in natives]
    for thread in threads:
        thread.start()
    assert all(event.wait(20) for event in up.values())
    assert natives["n1"].engine.met.wait(20)
    assert natives["n1"].engine.connected[0] == 0        # the higher one connects
    published = nodes_of(directory)["n0"]
    assert published.pid == os.getpid()
    assert not is_gone(published)
    assert natives["n0"].listeners == [
        (str(directory / "n0.peer"), LISTEN_PEERS), (str(directory / "n0.nbd"), LISTEN_FRONTENDS)]
    for shell in ready.values():
        shell.request_stop()
    for thread in threads:
        thread.join(20)
    assert all(native.stopped for native in natives.values())
    assert natives["n0"].engine.connected == []
    assert is_gone(nodes_of(directory)["n0"])


@pytest.mark.parametrize("removed", [False, True])
def test_a_node_that_stops_unpublishes_itself_and_nobody_else(tmp_path: Path, removed: bool) -> None:
    """Its store is free before its record is written: another process may be this node by then, or the
    node be none any more."""
    directory = directory_with(tmp_path, 1)
    store = SqliteConfigStore(directory / DATABASE_NAME)
    old = NodeShell(store, IdleNative(0, "d0"), "n0", load_nodes(store)["n0"])
    old.start()
    successor = replace(load_nodes(store)["n0"], pid_started=1)      # another start time, another process
    native_stop = old._native.stop

    def stop() -> None:
        native_stop()
        if removed:
            entry = store.get(node_key("n0"))
            assert entry is not None
            assert store.delete(node_key("n0"), entry.revision)
        else:
            update(store, node_key("n0"), NodeConfig, lambda record: successor)

    old._native.stop = stop
    old.close()
    assert load_nodes(store) == ({} if removed else {"n0": successor})
    store.close()


def test_a_life_is_entered_before_it_begins_and_confirmed_when_it_has(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = directory_with(tmp_path, 1)
    store = SqliteConfigStore(directory / DATABASE_NAME)
    register_node(store, replace(load_nodes(store)["n0"], life_id="l1", boot_id="b1"))
    native = IdleNative(0, "d0")
    native.life_id, native.found_life_id, native.boot_id, native.closed_boot_id = "l2", "l1", "b2", "b1"
    at_start: list[NodeConfig] = []
    monkeypatch.setattr(native, "start", lambda: at_start.append(load_nodes(store)["n0"]))
    shell = NodeShell(store, native, "n0", load_nodes(store)["n0"])
    shell.start()
    [entered] = at_start
    assert (entered.life_id, entered.behind_life_ids, entered.closed_boot_ids) == ("l2", ("l1",), ("b1",))
    assert load_nodes(store)["n0"] == replace(entered, behind_life_ids=())
    assert shell.control is not None
    assert shell.control.identity.peer.closed_boot_ids == ("b1",)
    shell.close()
    store.close()


def test_a_client_meets_every_node(tmp_path: Path) -> None:
    directory = directory_with(tmp_path, 1)
    listener = listen_unix(nodes_of(directory)["n0"].peer_socket)
    store = SqliteConfigStore(directory / DATABASE_NAME)
    register_node(store, NodeConfig(name="n0", id=0, store_path="", store_uuid="d0",
                                    peer_socket=listener.getsockname(), pid=1))
    native = IdleNative(2, "")
    shell = client_shell(store, native)
    shell.start()
    thread = threading.Thread(target=shell.run)
    thread.start()
    assert native.engine.met.wait(20)
    shell.request_stop()
    thread.join(20)
    shell.close()
    store.close()
    listener.close()
    assert native.listeners == []


class CrampedEngine(IdleEngine):
    """May open no more files when it is given its first socket."""

    def connect_peer(self, node_id: int, socket_fd: int) -> None:
        if not self.connected:
            self.connected.append(node_id)
            os.close(socket_fd)
            raise OSError(errno.EMFILE, "Too many open files")
        super().connect_peer(node_id, socket_fd)


def test_a_peer_for_which_no_file_can_be_opened_is_met_later(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "CONNECT_RETRY_MAX_S", 0.05)
    directory = directory_with(tmp_path, 1)
    store = SqliteConfigStore(directory / DATABASE_NAME)
    with listen_unix(nodes_of(directory)["n0"].peer_socket) as listener:
        register_node(store, NodeConfig(name="n0", id=0, store_path="", store_uuid="d0",
                                        peer_socket=listener.getsockname(), pid=1))
        native = IdleNative(2, "")
        os.close(native.engine.event_fd)
        native.engine = CrampedEngine(2)
        shell = client_shell(store, native)
        shell.start()
        thread = threading.Thread(target=shell.run)
        thread.start()
        met = native.engine.met.wait(5)
        shell.request_stop()
        thread.join(20)
        shell.close()
        store.close()
    assert met


def test_a_node_with_another_disk_is_refused(tmp_path: Path) -> None:
    directory = directory_with(tmp_path, 1)
    native = IdleNative(0, "another")
    with pytest.raises(errors.ConfigError, match="store another"):
        run_node(directory, "n0", lambda node, knows_life: native)
    assert native.stopped


def test_a_node_that_ended_leaves_the_signals_as_they_were(tmp_path: Path) -> None:
    """In the main thread: a SIGTERM for whoever called would go to a shell that is closed."""
    def handlers() -> list[object]:
        return [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]

    found: list[object] = []

    def on_ready(shell: NodeShell) -> None:
        found.extend(handlers())
        signal.raise_signal(signal.SIGTERM)

    before = handlers()
    run_node(directory_with(tmp_path, 1), "n0", lambda node, knows_life: IdleNative(0, "d0"), on_ready)
    assert handlers() == before
    assert not set(before) & set(found)


def test_an_unknown_node(tmp_path: Path) -> None:
    with pytest.raises(errors.NotFoundError, match="n7"):
        run_node(directory_with(tmp_path, 1), "n7", lambda node, knows_life: IdleNative(0, "d0"))


def test_long_directories_get_short_sockets(tmp_path: Path) -> None:
    deep = tmp_path / ("x" * 120)
    deep.mkdir()
    path = Path(socket_path(deep, "n0.peer"))
    try:
        assert len(os.fsencode(path)) <= config.SOCKET_PATH_BYTES_MAX
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert socket_path(deep, "n0.peer") == str(path)
        assert socket_path(tmp_path, "n0.peer") == str(tmp_path / "n0.peer")
        with pytest.raises(errors.ConfigError, match="107"):
            listen_unix(str(deep / "n0.peer"))
    finally:
        path.parent.rmdir()


def test_a_socket_of_a_dead_process_is_replaced(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    listen_unix(path).close()
    assert connect_unix(path) is None
    with listen_unix(path):
        connection = connect_unix(path)
        assert connection is not None
        connection.close()
    assert connect_unix(str(tmp_path / "missing")) is None


@pytest.mark.fault("process: no file can be opened any more", promise="its peers are met later")
def test_a_socket_that_cannot_be_opened_is_no_connection(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with listen_unix(path):
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
        try:
            assert connect_unix(path) is None
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
