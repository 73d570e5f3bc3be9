"""The process around a NodeControl: sockets, signals, select. No decision is made here.

  H1 The engine runs in its own native thread; this thread may be held up for seconds
     without a failover. It wakes for engine events and every CONFIG_POLL_S.
  H2 The process is published (pid, start time, boot) after the store's lock is ours and
     before the first peer is met; a clean stop unpublishes it, and nothing but it.
  H3 A node without a store (a client) is the same shell: it listens to nobody and
     connects to every node.
  H4 Other threads reach the control only through `call`: it is run between two turns.
  H5 A life of the store is entered before it begins on the disk, and confirmed when it has (`lives`)
"""
from __future__ import annotations

import contextlib
import hashlib
import os
import select
import signal
import socket
import stat
import threading
import time
import uuid as uuids
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

from msgspec.structs import replace

from repstore import config, errors
from repstore.coordination.interface import ConfigStore
from repstore.coordination.sqlite import SqliteConfigStore
from repstore.node import admin, lives
from repstore.node.control import NodeControl, NodeIdentity
from repstore.node.process import ProcessIdentity, is_gone, process_of, this_process
from repstore.replication.engine_control import EngineControl
from repstore.replication.situation import Identity
from repstore.replication.volume_config import NodeConfig, NodeId, node_key

DATABASE_NAME = "cluster.db"
CLIENT_NODE_ID = 0xFFFF       # no node of the cluster has this number

LISTEN_PEERS = 1              # kinds of a listener, as the native loop numbers them
LISTEN_FRONTENDS = 2


class NativeNode(Protocol):
    """An opened engine with its loop; whoever makes one also plugs its frontends in."""

    @property
    def engine(self) -> EngineControl: ...
    @property
    def store_uuid(self) -> str:
        """Hex; empty without a store."""
    @property
    def boot_id(self) -> str:
        """What the store presents as its boot: the kernel's, or a new random id if recovery
        found that acknowledged batches are missing."""

    @property
    def closed_boot_id(self) -> str:
        """Of the earlier boot in which the store was closed cleanly; empty if it was not."""

    @property
    def found_life_id(self) -> str:
        """Of the life that the store had before."""

    @property
    def life_id(self) -> str:
        """Of the life of the store that begins now."""

    def add_listener(self, socket_fd: int, kind: int) -> None:
        """Takes over a listening socket."""

    def start(self) -> None:
        """Begins the native loop thread."""

    def stop(self) -> None:
        """Ends it and closes the store cleanly."""


OpenNative = Callable[[NodeConfig, Callable[[int], bool]], NativeNode]     # `knows_life` of `open_store`
Answer = TypeVar("Answer")


def no_report(control: NodeControl, now_s: float) -> None:
    """The report of a node that nobody asks."""


class NodeShell:
    """A running node, or a client without a store."""

    def __init__(self, store: ConfigStore, native: NativeNode, name: str,
                 node: NodeConfig | None = None) -> None:
        self.control: NodeControl | None = None
        self.report: Callable[[NodeControl, float], None] = no_report
        self._store = store
        self._native = native
        self._name = name
        self._node = node
        self._attempts: dict[NodeId, tuple[float, float]] = {}    # next attempt, pause after
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._stopping = False
        self._ended = False
        self._calls: deque[tuple[Future[Any], Callable[[NodeControl], Any]]] = deque()

    def start(self) -> None:
        """Listen, publish, begin; returns when the control loop may be run."""
        process = this_process()
        closed_boot_ids: tuple[str, ...] = ()
        if self._node is not None:
            for kind, path in [(LISTEN_PEERS, self._node.peer_socket),
                               *((LISTEN_FRONTENDS, path) for path in self._node.nbd_sockets)]:
                self._native.add_listener(listen(path).detach(), kind)
            self._node = lives.begin_life(self._store, _published(self._node, self._native, process),
                                          self._native.found_life_id, self._native.closed_boot_id)   # H2, H5
            closed_boot_ids = self._node.closed_boot_ids
        number = CLIENT_NODE_ID if self._node is None else self._node.id
        identity = NodeIdentity(
            self._name, Identity(number, self._native.store_uuid, self._native.boot_id, closed_boot_ids),
            process.host_boot_id, uuids.uuid4().hex)
        self._native.start()
        if self._node is not None:
            lives.life_has_begun(self._store, self._node)
        self.control = NodeControl(identity, self._native.engine, self._store, is_gone, now_s())

    def run(self) -> None:
        """The control loop; returns after `request_stop`."""
        assert self.control is not None
        engine = self._native.engine
        poll = select.poll()
        poll.register(engine.event_fd, select.POLLIN)
        poll.register(self._wake_read, select.POLLIN)
        next_tick_s = 0.0
        try:
            while not self._stopping:
                poll.poll(max(0.0, next_tick_s - now_s()) * 1000)
                self._answer_calls(self.control)
                for event in engine.events():
                    self.control.on_event(event, now_s())
                if now_s() >= next_tick_s:
                    self.control.poll_config(now_s())
                    self.control.tick(now_s())
                    self._connect_peers(now_s())
                    self.report(self.control, now_s())
                    next_tick_s = now_s() + config.CONFIG_POLL_S
        finally:
            self._ended = True
            self._refuse_calls()

    def call(self, action: Callable[[NodeControl], Answer]) -> Answer:
        """Have the control thread do something and wait for the answer (H4)."""
        future: Future[Answer] = Future()
        self._calls.append((future, action))
        self._wake()
        if self._ended:
            self._refuse_calls()
        return future.result()

    def request_stop(self) -> None:
        """End `run`; may be called from any thread or signal handler."""
        self._stopping = True
        self._wake()

    def _wake(self) -> None:
        if not self._ended:                           # afterwards the pipe is closed, too
            with contextlib.suppress(BlockingIOError):
                os.write(self._wake_write, b"x")

    def _answer_calls(self, control: NodeControl) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake_read, 4096)
        while self._calls:
            future, action = self._calls.popleft()
            try:
                future.set_result(action(control))
            except Exception as error:
                future.set_exception(error)

    def _refuse_calls(self) -> None:
        with contextlib.suppress(IndexError):         # two threads may empty it at once
            while True:
                future, _ = self._calls.popleft()
                future.set_exception(errors.UnavailableError(f"{self._name} has stopped"))

    def close(self) -> None:
        """Close the store cleanly and say that this process is no node any more."""
        self._native.stop()
        if self._node is not None:
            with contextlib.suppress(errors.RepstoreError):      # only a hint to the others
                admin.update(self._store, node_key(self._node.name), NodeConfig, self._unpublished)
        os.close(self._wake_read)
        os.close(self._wake_write)

    def _unpublished(self, record: NodeConfig | None) -> NodeConfig:
        """The record without our process. The store's lock is given back already, and who has it now may
        have published itself: that record stays (H2). NotFoundError: the node was removed."""
        if record is None:
            raise errors.NotFoundError(f"no node {self._name!r}")
        if self._node is None or process_of(record) != process_of(self._node):
            return record
        return replace(record, pid=0, pid_started=0)

    def _connect_peers(self, at_s: float) -> None:
        """One bounded attempt at each missing peer whose pause is over."""
        assert self.control is not None
        missing = self.control.peers_to_connect()
        for number in self._attempts.keys() - {node.id for node in missing}:
            del self._attempts[number]
        for node in missing:
            next_s, pause_s = self._attempts.get(node.id, (0.0, config.CONNECT_RETRY_MIN_S))
            if at_s < next_s:
                continue
            self._attempts[node.id] = (
                at_s + pause_s, min(2 * pause_s, config.CONNECT_RETRY_MAX_S))
            connection = connect_unix(node.peer_socket)
            if connection is not None:
                # its hello comes as link_up; without one it is tried again after a while
                self._attempts[node.id] = (
                    at_s + config.CONNECT_RETRY_MAX_S, config.CONNECT_RETRY_MIN_S)
                with contextlib.suppress(OSError):       # no more files for the loop's own descriptor
                    self._native.engine.connect_peer(node.id, connection.detach())


def run_node(directory: str | Path, name: str, open_native: OpenNative,
             on_ready: Callable[[NodeShell], None] = lambda shell: None) -> None:
    """Be node `name` of the cluster in `directory` until SIGTERM or SIGINT."""
    directory = Path(directory)
    store = SqliteConfigStore(directory / DATABASE_NAME)
    try:
        node = admin.load_nodes(store).get(name)
        if node is None:
            raise errors.NotFoundError(f"{directory}: no node {name!r}")
        # takes the store's lock (BusyError if it runs), and asks what is registered only then
        native = open_native(node, partial(lives.knows_life, store, name))
        shell = NodeShell(store, native, name, node)
        with _stopped_by_signals(shell):
            try:
                shell.start()
                on_ready(shell)
                shell.run()
            finally:
                shell.close()
    finally:
        store.close()


@contextlib.contextmanager
def _stopped_by_signals(shell: NodeShell) -> Iterator[None]:
    """SIGTERM and SIGINT ask it to stop, even once it is closing; afterwards they mean what they did.

    Only the main thread may say what a signal does: elsewhere this is nothing.
    """
    previous = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            previous[number] = signal.signal(number, lambda *_: shell.request_stop())
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def client_shell(store: ConfigStore, native: NativeNode) -> NodeShell:
    """A client of the cluster with this coordination store: no disk, only frontends (H3)."""
    return NodeShell(store, native, f"client-{os.getpid()}-{uuids.uuid4().hex[:8]}")


def now_s() -> float:
    """Seconds since boot, sleep included: grace and leases count the same clock."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def socket_path(directory: str | Path, file_name: str) -> str:
    """Where a socket of this cluster lives: in DIR, or in a short private directory when
    the kernel's limit for the path does not allow that."""
    path = str(Path(directory).resolve() / file_name)
    if len(os.fsencode(path)) <= config.SOCKET_PATH_BYTES_MAX:
        return path
    digest = hashlib.sha256(os.fsencode(str(Path(directory).resolve()))).hexdigest()[:16]
    short = Path("/tmp") / f"repstore-{os.getuid()}-{digest}"
    short.mkdir(mode=0o700, exist_ok=True)
    status = short.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise errors.ConfigError(f"{short}: must be a directory that only we may enter")
    return str(short / file_name)


def listen(address: str) -> socket.socket:
    """A listening socket at a path, or at HOST:PORT for TCP."""
    if address.startswith("/"):
        return listen_unix(address)
    host, _, port = address.rpartition(":")
    try:
        listener = socket.create_server((host, int(port)), backlog=128)
    except OSError as error:
        raise errors.BusyError(f"{address}: cannot listen ({error.strerror})") from error
    listener.setblocking(False)
    return listener


def listen_unix(path: str) -> socket.socket:
    """A listening socket at `path`. One left by a dead process is replaced: the store's
    lock is ours, so nobody else may be listening there."""
    size_bytes = len(os.fsencode(path))
    if size_bytes > config.SOCKET_PATH_BYTES_MAX:
        raise errors.ConfigError(
            f"socket path {path!r}: {size_bytes} bytes, at most {config.SOCKET_PATH_BYTES_MAX}")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(path)
    listener.listen(128)
    listener.setblocking(False)
    return listener


def connect_unix(path: str) -> socket.socket | None:
    """A connection to `path`, or None. Never waits: a full backlog counts as refused, as does
    that we may open no more files."""
    with contextlib.ExitStack() as opened:
        try:
            connection = opened.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            connection.setblocking(False)
            connection.connect(path)
        except OSError:
            return None
        opened.pop_all()
    return connection


def _published(node: NodeConfig, native: NativeNode, process: ProcessIdentity) -> NodeConfig:
    if node.store_uuid and node.store_uuid != native.store_uuid:
        raise errors.ConfigError(
            f"{node.store_path}: store {native.store_uuid}, node {node.name!r} is "
            f"registered with store {node.store_uuid}; register it anew to replace the disk")
    return replace(
        node, store_uuid=native.store_uuid, boot_id=native.boot_id, life_id=native.life_id,
        host_boot_id=process.host_boot_id, pid=process.pid, pid_started=process.pid_started,
        pid_namespace=process.pid_namespace)


__all__ = [
    "CLIENT_NODE_ID", "DATABASE_NAME", "LISTEN_FRONTENDS", "LISTEN_PEERS", "NativeNode",
    "NodeShell", "client_shell", "connect_unix", "listen", "listen_unix", "now_s",
    "run_node", "socket_path",
]
