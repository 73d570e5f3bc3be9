"""A client of a cluster: a node without a store, in this process.

  C1 It speaks to the nodes as they speak to each other: what a volume is asked goes to the
     volume's primary, and goes again, exactly once in effect, to the next one after a failover.
  C2 A volume has one client at a time: opening one here ends the attach of whoever had it.
  C3 One thread follows the coordination store; it is started with the first volume. A cluster
     that was forgotten is closed when the interpreter ends.
"""
from __future__ import annotations

import atexit
import contextlib
import errno
import os
import threading
from types import TracebackType
from typing import Self

from repstore import errors
from repstore.node import NodeControl, VolumeConfig, client_shell
from repstore.node.directory import ClusterDirectory
from repstore.node.native import Native
from repstore.node.shell import CLIENT_NODE_ID, NodeShell, now_s
from repstore.node.status import ClusterStatus, cluster_status
from repstore.volume.volume import Volume


class Cluster:
    """The cluster in a directory of this machine, as a client sees it.

    `Cluster(directory)` raises NotFoundError where no cluster is; its nodes need not run. Best
    used in a `with` statement. Methods may be called by several threads.

        with repstore.Cluster("DIR") as cluster, cluster.volume("demo") as volume:
            volume.write(4096, b"hello")

    Volumes go on through failovers: a call takes as long as it takes until there is a primary
    again, and is never done twice. While none is elected it waits; Ctrl-C interrupts it.
    """

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self._directory = ClusterDirectory(os.fspath(directory))
        self._configs = self._directory.open_config()
        self._lock = threading.RLock()
        self._native: Native | None = None
        self._shell: NodeShell | None = None
        self._thread: threading.Thread | None = None
        self._volumes: dict[str, Volume] = {}
        self._open = True
        atexit.register(self.close)

    def __repr__(self) -> str:
        return f"<Cluster {str(self._directory.path)!r}{'' if self._open else ', closed'}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()

    def volume(self, name: str) -> Volume:
        """Attach a volume to this process; whoever had it gets FencedError from now on.

        Raises NotFoundError if there is none of that name, BusyError while it is open here.
        """
        with self._lock:
            self._check_open()
            if name in self._volumes:
                raise errors.BusyError(f"volume {name!r} is open here already")
            native, shell = self._client()
            export_id, volume = shell.call(lambda control: _attach(control, name))
            self._volumes[name] = opened = Volume(
                name, volume.size_bytes, native.engine, export_id, error=_error,
                revoke=lambda: native.engine.export_revoke(volume.index, errno.ESHUTDOWN),
                release=lambda: self._release(name, shell))
            return opened

    def status(self) -> ClusterStatus:
        """How the cluster is: `health`, and every volume, copy and node (see `ClusterStatus`).
        Roles and LSNs are up to a quarter of a second old."""
        with self._lock:
            self._check_open()
            return cluster_status(self._directory, self._configs)

    def close(self) -> None:
        """Give back all volumes and end the client. Closing twice is harmless."""
        with self._lock:
            if not self._open:
                return
            for volume in list(self._volumes.values()):
                volume.close()
            self._open = False
            atexit.unregister(self.close)
            if self._shell is not None and self._thread is not None:
                self._shell.request_stop()
                self._thread.join()
                self._shell.close()
            self._configs.close()

    def _client(self) -> tuple[Native, NodeShell]:
        """The engine and its control thread, started when first needed (C3)."""
        if self._native is None or self._shell is None:
            self._native = Native(CLIENT_NODE_ID, None)
            self._shell = client_shell(self._configs, self._native)
            self._shell.start()
            self._thread = threading.Thread(target=self._shell.run, name="repstore-control", daemon=True)
            self._thread.start()
        return self._native, self._shell

    def _release(self, name: str, shell: NodeShell) -> None:
        with contextlib.suppress(errors.RepstoreError):     # the next attach ends ours anyway
            shell.call(lambda control: control.detach(name))
        del self._volumes[name]

    def _check_open(self) -> None:
        if not self._open:
            raise errors.UnavailableError(f"{self._directory.path}: the cluster was closed here")


def _attach(control: NodeControl, name: str) -> tuple[int, VolumeConfig]:
    """In the control thread: the export's id and the config."""
    export_id = control.attach(name, now_s())
    return export_id, next(known.volume for known in control.volumes.values() if known.volume.name == name)


def _error(number: int, text: str) -> errors.RepstoreError:
    """A session that ended is ended by another attach, not by a store of ours."""
    if number in (errno.ESHUTDOWN, errno.ESTALE):
        return errors.FencedError(
            f"{text}: the volume was closed, or another client attached it", errno=number)
    return errors.error_from_errno(number, text)
