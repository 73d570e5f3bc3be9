"""What `repstore up` does: make a cluster or take the one that is there, start its nodes, wait
until the volume is served, watch, and stop them when told to.

  U1 One supervisor a directory: it holds a lock there for as long as it lives. If it dies its
     nodes go on serving, and the next one refuses until they have stopped.
  U2 What was asked for is checked against limits, and against the cluster that is there,
     before anything is made. Making one that was interrupted is simply done again.
  U3 It does not restart what died: it says so, and `repstore node start` is the answer.
  U4 A node that cannot be started does not keep the others from serving, if they can.
"""
from __future__ import annotations

import fcntl
import os
import select
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from types import FrameType

from repstore import config, errors
from repstore.cli.options import complain
from repstore.cli.processes import await_ready, ending, refuse_running, start_node, stop_nodes
from repstore.config import Acknowledgement
from repstore.coordination import ConfigStore
from repstore.node import VolumeConfig, load_nodes, load_volumes
from repstore.node.directory import ClusterDirectory, add_volume, usual_store_bytes
from repstore.node.status import ClusterStatus, cluster_status
from repstore.store import store

NODES_USUAL = 3
VOLUME_USUAL = "demo"
LOOK_S = 0.05           # between two looks at a cluster that starts


@dataclass(frozen=True, slots=True)
class Wanted:
    """What `up` was asked for; None: whatever is there, or the usual."""
    nodes: int | None = None
    copies: int | None = None
    size_bytes: int | None = None
    store_bytes: int | None = None
    volume: str | None = None
    acknowledgement: Acknowledgement | None = None
    nbd_port: int | None = None


class Signals:
    """Signals as something to wait for: asked to stop, or a child has ended."""

    def __init__(self) -> None:
        self.stop_asked = False
        self._read, self._write = socket.socketpair()

    def __enter__(self) -> Signals:
        for end in (self._read, self._write):
            end.setblocking(False)
        signal.set_wakeup_fd(self._write.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD):
            signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        signal.set_wakeup_fd(-1)
        self._read.close()
        self._write.close()

    def wait(self, timeout_s: float | None = None) -> None:
        """Return at the next signal, or after so long."""
        if select.select([self._read], [], [], timeout_s)[0]:
            self._read.recv(4096)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.stop_asked |= number != signal.SIGCHLD


class Supervisor:
    """One run of `up`, under the lock of its directory."""

    def __init__(self, directory: ClusterDirectory, wanted: Wanted, signals: Signals) -> None:
        self._directory = directory
        self._wanted = wanted
        self._signals = signals
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self.volume = ""

    def prepare(self) -> None:
        """Make what is missing; nothing if what is there does not fit what is wanted (U2)."""
        volumes: dict[str, VolumeConfig] = {}
        if self._directory.exists():
            refuse_running(self._directory)
            with closing(self._directory.open_config()) as configs:
                volumes = load_volumes(configs)
                if volumes:
                    self.volume = _check_fits(self._directory, configs, volumes, self._wanted)
        if not volumes:
            self.volume = _make(self._directory, self._wanted)
        with closing(self._directory.open_config()) as configs:
            self._directory.renew_addresses(configs, self._wanted.nbd_port)

    def start(self) -> None:
        """Start all nodes; those that cannot be are named (U4)."""
        with closing(self._directory.open_config()) as configs:
            started = [start_node(self._directory, name) for name in load_nodes(configs)]
        for node in started:
            self._processes[node.name] = node.process
        for node in started:
            try:
                await_ready(node)
            except errors.UnavailableError as error:
                complain(str(error))

    def await_served(self) -> ClusterStatus | None:
        """The cluster's status as soon as the volume is served with all copies that can be in
        sync; None if we were told to stop before."""
        deadline_s = time.monotonic() + config.START_TIMEOUT_S
        with closing(self._directory.open_config()) as configs:
            while not self._signals.stop_asked:
                status = cluster_status(self._directory, configs)
                late = time.monotonic() > deadline_s
                if _is_served(status, self.volume, late=late):
                    return status
                if late or not any(node.pid for node in status.nodes):
                    volume = status.volume(self.volume)
                    reason = volume.reason if volume else "it was deleted"
                    raise errors.UnavailableError(f"volume {self.volume!r} is not served: {reason}")
                self._signals.wait(LOOK_S)
        return None

    def watch(self) -> None:
        """Return when told to stop; name nodes that end before (U3)."""
        while not self._signals.stop_asked:
            for name, process in list(self._processes.items()):
                code = process.poll()
                if code is not None:
                    del self._processes[name]
                    complain(f"node {name} (pid {process.pid}) ended, {ending(code)}; start it again "
                             f"with `repstore node start {name} --data {self._directory.path}`")
            self._signals.wait()

    def stop(self) -> bool:
        """Stop every node, also those that others started again. False: some had to be killed."""
        with closing(self._directory.open_config()) as configs:
            names = list(load_nodes(configs))
        killed = stop_nodes(self._directory, names)
        for name in killed:
            complain(f"node {name} did not stop within {config.STOP_TIMEOUT_S:.0f} s and was killed")
        for process in self._processes.values():
            if process.poll() is None:
                process.kill()                      # it had not come so far as to serve
            process.wait()
        return not killed


@contextmanager
def locked(directory: ClusterDirectory) -> Iterator[None]:
    """Be the supervisor of this directory (U1)."""
    try:
        directory.path.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(directory.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise errors.ConfigError(f"{directory.path}: {error.strerror}", errno=error.errno) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
            raise errors.BusyError(
                f"{directory.path}: `repstore up` runs there already (pid {holder or 'unknown'})") from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def check_wanted(directory: ClusterDirectory, wanted: Wanted) -> None:
    """Refuse what can never be, before even the directory is made."""
    if wanted.nodes is not None:
        config.check_range("nodes", wanted.nodes, config.NODES_MIN, config.NODES_MAX)
    if wanted.nbd_port is not None:
        config.check_range("NBD port", wanted.nbd_port, 1, 65_535 - config.NODES_MAX)
    if wanted.size_bytes is not None:
        _plan(wanted)
    elif not directory.exists():
        raise errors.ConfigError(f"{directory.path}: no cluster there yet, --size is needed to make one")


def _plan(wanted: Wanted) -> tuple[int, config.VolumeOptions, int]:
    """Nodes, volume and store size of a cluster to make."""
    if wanted.size_bytes is None:
        raise errors.ConfigError("the cluster has no volume: --size is needed to make one")
    nodes = NODES_USUAL if wanted.nodes is None else wanted.nodes
    copies = min(nodes, NODES_USUAL) if wanted.copies is None else wanted.copies
    options = config.VolumeOptions(
        wanted.volume or VOLUME_USUAL, wanted.size_bytes, copies=copies,
        acknowledgement=wanted.acknowledgement or "dev")
    if copies > nodes:
        raise errors.ConfigError(f"{copies} copies need {copies} nodes, there are to be {nodes}")
    store_bytes = wanted.store_bytes or usual_store_bytes(wanted.size_bytes)
    store.check_size(store_bytes, holds_bytes=wanted.size_bytes)
    return nodes, options, store_bytes


def _make(directory: ClusterDirectory, wanted: Wanted) -> str:
    """Nodes, their stores and the volume; goes on where an earlier attempt ended."""
    nodes, options, store_bytes = _plan(wanted)
    with closing(directory.open_config(create=True)) as configs:
        missing = [name for name in (f"n{number + 1}" for number in range(nodes))
                   if name not in load_nodes(configs)]
        free_bytes = shutil.disk_usage(directory.path).free
        new_bytes = store_bytes * sum(not directory.store_path(name).exists() for name in missing)
        if new_bytes > free_bytes:
            raise errors.NoSpaceError(
                f"{directory.path}: {len(missing)} stores of {store_bytes} bytes need {new_bytes}, "
                f"{free_bytes} are free")
        for name in missing:
            directory.add_node(configs, name, store_bytes)
        add_volume(configs, options)
    return options.name


def _check_fits(directory: ClusterDirectory, configs: ConfigStore, volumes: dict[str, VolumeConfig],
                wanted: Wanted) -> str:
    """The volume that is meant, if the cluster is as wanted; ConfigError naming what is not."""
    name = wanted.volume or min(volumes.values(), key=lambda volume: volume.index).name
    if name not in volumes:
        raise errors.ConfigError(
            f"{directory.path}: no volume {name!r} in this cluster, it has {', '.join(sorted(volumes))}; "
            "`repstore volume create` makes more")
    volume, nodes = volumes[name], load_nodes(configs)
    has_store_bytes = {store.info(directory.store_path(node)).size_bytes for node in nodes
                       if wanted.store_bytes is not None and directory.store_path(node).exists()}
    for what, asked, found in (
        ("nodes", wanted.nodes, {len(nodes)}), ("copies", wanted.copies, {volume.copies}),
        ("size", wanted.size_bytes, {volume.size_bytes}),
        ("acknowledgement", wanted.acknowledgement, {volume.acknowledgement}),
        ("store size", wanted.store_bytes, has_store_bytes),
    ):
        if asked is not None and found != {asked}:
            raise errors.ConfigError(
                f"{directory.path}: {what} {asked} asked for, the cluster there has "
                f"{', '.join(map(str, sorted(found, key=str)))}; leave it out, or take another directory")
    return name


def _is_served(status: ClusterStatus, name: str, *, late: bool) -> bool:
    """A primary leads, and every copy whose node runs is in sync; if it is late, or not."""
    volume = status.volume(name)
    if volume is None or volume.health == "faulted":
        return False
    return late or all(copy.in_sync for copy in volume.copies if copy.pid)
