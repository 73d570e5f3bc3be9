"""One store, opened in this process: the same engine that a node runs, without peers.

  L1 A store is open once: its lock is held, and another process is refused.
  L2 Each open of a volume takes a new epoch and a new session: request numbers begin again, and
     what an earlier life sent can never be mistaken for what this one sends.
  L3 A store that holds a node's copies is refused: its volumes are the cluster's to change.
  L4 The native loop keeps running until the store is closed; a store that was forgotten is
     closed when the interpreter ends.
"""
from __future__ import annotations

import atexit
import contextlib
import errno
import os
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from repstore import config, errors
from repstore._fast.layout import BLOCK_SIZE
from repstore.node import load_nodes
from repstore.node.directory import ClusterDirectory
from repstore.node.native import Native, open_after_death
from repstore.store import store as stores
from repstore.volume.volume import Volume

LOCAL_NODE = 0


class Store:
    """A store in this process: a file or block device with volumes of one copy each.

    Use `Store.create(path, size_bytes)` or `Store.open(path)`, best in a `with` statement: a
    store that was closed opens at once, one whose process died is recovered first. Methods may
    be called by several threads. They raise StoreFailedError when the disk fails.

        with repstore.Store.create("data.store", 1 << 30) as store:
            volume = store.create_volume("demo", 256 << 20)
            volume.write(0, b"hello")
            volume.flush()
    """

    def __init__(self, path: str | os.PathLike[str], *, backend: str = "auto") -> None:
        """Open the store at `path`; the same as `Store.open`."""
        self.path = Path(path)
        _refuse_node_store(self.path)
        opened = open_after_death(str(self.path))
        try:
            self._native = Native(LOCAL_NODE, opened, backend=backend)
        except BaseException:
            opened.close()
            raise
        self._lock = threading.RLock()
        self._volumes: dict[int, Volume] = {}          # open ones, by index
        self._open = True
        atexit.register(self.close)                                              # L4
        try:
            self._native.start()
        except BaseException:
            self.close()
            raise

    @classmethod
    def create(cls, path: str | os.PathLike[str], size_bytes: int | None = None, *,
               segment_bytes: int | None = None, force: bool = False) -> Self:
        """Make a store in a new file of `size_bytes`, or on a block device, and open it.

        `size_bytes` is 768 KiB to 16 TiB, whole blocks of 4096; of a block device it may be left
        out. `segment_bytes`, the unit of cleaning, is a power of two from 64 KiB to 32 MiB,
        chosen by the size if left out. Raises ExistsError for a file with content and for a
        device that carries a store already (unless `force`), NoSpaceError when it does not fit.
        """
        stores.create(path, size_bytes, segment_bytes=segment_bytes, force=force)
        return cls(path)

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, backend: str = "auto") -> Self:
        """Open the store at `path`, recovering it first if its last process died.

        `backend`: "uring", "threads", or "auto": io_uring where the kernel allows it. Raises
        NotFoundError, BusyError (naming the process that has it), ConfigError for a file that
        is no store or a node's, FormatVersionError, CorruptionError, UnavailableError where the
        disk gives nothing at all for 10 s.
        """
        return cls(path, backend=backend)

    def __repr__(self) -> str:
        return f"<Store {str(self.path)!r}{'' if self._open else ', closed'}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()

    def volumes(self) -> dict[str, int]:
        """Sizes of the volumes in bytes, by name."""
        with self._opened():
            states = [self._native.engine.volume_state(index)
                      for index in self._native.engine.volume_indexes()]
        return {state.name: state.size_blocks * BLOCK_SIZE for state in states}

    def create_volume(self, name: str, size_bytes: int, *,
                      acknowledgement: config.Acknowledgement = "dev") -> Volume:
        """Make an empty volume, durably, and open it; it takes space as it is written.

        `name`: 1 to 63 of A-Z a-z 0-9 . _ -; `size_bytes`: whole blocks of 4096, at most what
        the store can hold. Raises ConfigError, ExistsError, NoSpaceError.
        """
        options = config.VolumeOptions(name, size_bytes, acknowledgement=acknowledgement)
        with self._opened():
            if name in self.volumes():
                raise errors.ExistsError(f"{self.path}: volume {name!r} exists")
            engine = self._native.engine
            taken = engine.volume_indexes()
            index = taken[-1] + 1 if taken else 0
            engine.volume_create(index, str(uuid.uuid4()), name, options.size_bytes // BLOCK_SIZE)
            try:
                return self._lead(index, acknowledgement)
            except errors.NoSpaceError:
                engine.volume_delete(index)
                raise

    def open_volume(self, name: str, *, acknowledgement: config.Acknowledgement = "dev") -> Volume:
        """Open a volume. With acknowledgement "durable" every write is flushed before it is
        done. Raises NotFoundError, and BusyError while it is open already."""
        with self._opened():
            index = self._index(name)
            if index in self._volumes:
                raise errors.BusyError(f"{self.path}: volume {name!r} is open already")
            return self._lead(index, acknowledgement)

    def delete_volume(self, name: str) -> None:
        """Remove a volume and give back its space, durably. Raises NotFoundError, and BusyError
        while it is open."""
        with self._opened():
            index = self._index(name)
            if index in self._volumes:
                raise errors.BusyError(f"{self.path}: volume {name!r} is open: close it first")
            self._native.engine.volume_delete(index)

    def stats(self) -> dict[str, int]:
        """Counters since the store was opened, and its space; blocks are of 4096 bytes.

        Among them: capacity_blocks (what volumes may fill), live_blocks (what they do),
        user_blocks (payload written by callers), moved_blocks (by the cleaner), flushes.
        """
        with self._opened():
            return self._native.engine.stats()

    def close(self) -> None:
        """Close all volumes and the store, cleanly: the next open has nothing to recover.
        Closing twice is harmless."""
        with self._lock:
            if not self._open:
                return
            for volume in list(self._volumes.values()):
                volume.close()
            self._open = False
            atexit.unregister(self.close)
            self._native.stop()

    def _lead(self, index: int, acknowledgement: config.Acknowledgement) -> Volume:
        """L2."""
        engine = self._native.engine
        state = engine.volume_state(index)
        epoch, session = max(state.epoch, state.sealed_epoch) + 1, state.session + 1
        size_bytes = state.size_blocks * BLOCK_SIZE
        try:
            export_id = engine.export_install(index, state.name, size_bytes, session)
        except OSError as error:
            raise errors.NoSpaceError(f"{self.path}: {error.strerror}") from None
        engine.lead(index, epoch, state.incarnation, [], 1, 1, acknowledgement == "durable", session)
        engine.set_primary(index, LOCAL_NODE, epoch)
        volume = Volume(state.name, size_bytes, engine, export_id, error=errors.error_from_errno,
                        revoke=_nothing, release=lambda: self._release(index))
        self._volumes[index] = volume
        return volume

    def _release(self, index: int) -> None:
        self._native.engine.step_down(index)
        self._native.engine.export_revoke(index, errno.ESHUTDOWN)      # its place may go to another volume
        del self._volumes[index]

    def _index(self, name: str) -> int:
        engine = self._native.engine
        for index in engine.volume_indexes():
            if engine.volume_state(index).name == name:
                return index
        raise errors.NotFoundError(f"{self.path}: no volume {name!r}")

    @contextlib.contextmanager
    def _opened(self) -> Iterator[None]:
        """Holds the lock, with the store open: a close may have had it until now."""
        with self._lock:
            if not self._open:
                raise errors.StoreFailedError(f"{self.path}: the store was closed")
            yield


def _nothing() -> None:
    """A local volume has nobody whose answers are waited for."""


def _refuse_node_store(path: Path) -> None:
    """L3."""
    directory = ClusterDirectory(path.parent)
    if not path.exists() or not directory.exists():
        return
    configs = directory.open_config()
    try:
        names = [node.name for node in load_nodes(configs).values()
                 if os.path.exists(node.store_path) and os.path.samefile(node.store_path, path)]
    finally:
        configs.close()
    if names:
        raise errors.ConfigError(
            f"{path}: is the store of node {names[0]!r} of the cluster in {directory.path}: "
            "use repstore.Cluster")
