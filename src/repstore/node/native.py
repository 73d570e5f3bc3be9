"""An engine with its loop and its store: what runs natively in a process.

  G1 The first checkpoint of a life is durable before anything is acknowledged: `start`
     returns when it is.
  G2 `stop` leaves a cleanly closed store, unless the store has failed: then its log tells.
  G3 The cluster is told the boot id that the opened store presents (R-taint).
"""
from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

from repstore import errors
from repstore._fast.control import Engine
from repstore._fast.loop import Loop
from repstore.node.lives import life_name
from repstore.store.device import lock_holder
from repstore.store.store import OpenedStore, any_life, kernel_boot_id, open_store
from repstore.store.superblock import Superblock

LOOK_S = 0.001          # between two looks at the checkpoint count
LOCK_TIMEOUT_S = 10.0   # a killed process's I/O lands in milliseconds
CLOSE_TIMEOUT_S = 60.0  # a checkpoint writes what changed; far longer means a dead disk


def open_after_death(path: str, *, replicated: bool = False,
                     knows_life: Callable[[int], bool] = any_life) -> OpenedStore:
    """Open a store whose last process may just have been killed: the kernel lets go of the lock
    when the dead process's last I/O has landed. A living holder is refused at once."""
    deadline_s = time.monotonic() + LOCK_TIMEOUT_S
    while True:
        try:
            return open_store(path, replicated=replicated, knows_life=knows_life)
        except errors.BusyError:
            holder = lock_holder(Path(path)).split(" ")[0]
            if (holder and Path("/proc", holder, "exe").exists()) or time.monotonic() > deadline_s:
                raise
            time.sleep(LOOK_S)


class NodeEngine(Engine):
    """The engine as the control plane uses it: creating and deleting copies is durable."""

    def volume_create(self, index: int, uuid: str, name: str, size_blocks: int) -> None:
        """Add an empty copy, durably. One that is here because an earlier call gave up its wait may not be on
        disk: it is waited for again."""
        if index not in self.volume_indexes():
            _when_idle(lambda: Engine.volume_create(self, index, uuid, name, size_blocks))
        self.settle()

    def volume_delete(self, index: int) -> None:
        """Drop a copy, durably."""
        _when_idle(lambda: Engine.volume_delete(self, index))
        self.settle()

    def settle(self, clean: bool = False) -> None:
        """Wait until a checkpoint that begins now is durable."""
        wait_for(self, self.checkpoint(clean))


def _when_idle(action: Callable[[], None]) -> None:
    """Do it between two checkpoints, and say what is wrong in our own words."""
    deadline_s = time.monotonic() + CLOSE_TIMEOUT_S
    while True:
        try:
            action()
            return
        except BlockingIOError:
            if time.monotonic() > deadline_s:
                raise
            time.sleep(LOOK_S)
        except ValueError as error:
            raise errors.ConfigError(str(error)) from None
        except OSError as error:
            raise errors.NoSpaceError(str(error)) from None


def wait_for(engine: Engine, number: int) -> None:
    """Block until that many checkpoints are durable. StoreFailedError: they never will be."""
    deadline_s = time.monotonic() + CLOSE_TIMEOUT_S
    while engine.checkpoints < number:
        if engine.failed:
            raise errors.StoreFailedError(f"the store failed: {os.strerror(engine.failed)}")
        if time.monotonic() > deadline_s:
            raise errors.StoreFailedError(f"no checkpoint in {CLOSE_TIMEOUT_S:.0f} s")
        time.sleep(LOOK_S)


class Native:
    """One engine, its loop thread and, but for clients, its store."""

    def __init__(self, node_id: int, opened: OpenedStore | None, *, backend: str = "auto",
                 frontend: object | None = None) -> None:
        self._opened = opened
        boot = opened.boot_id if opened else kernel_boot_id()
        self.boot_id = boot.hex()
        self.closed_boot_id = opened.closed_boot_id.hex() if opened else ""
        self.found_life_id = life_name(opened.superblock.life_id) if opened else ""
        self.life_id = life_name(opened.life_id) if opened else ""
        self.store_uuid = opened.superblock.store_uuid.hex() if opened else ""
        descriptor = opened.descriptor if opened else -1
        self.engine = NodeEngine(node_id, boot)
        self.loop = Loop(descriptor, backend)
        if opened is not None:
            try:
                self.engine.load(opened.superblock_block, opened.root_bytes,
                                 opened.batches.tolist(), descriptor, lagging=opened.lagging)
            except ValueError as error:
                raise errors.CorruptionError(opened.name, "a store that can be loaded", error) from None
            except OSError as error:
                raise errors.UnavailableError(f"{opened.name}: {error.strerror}", errno=error.errno) from None
            if opened.recovery.incomplete:
                self.engine.mark_incomplete()
            self.engine.begin_life(opened.life_id)
        self.engine.attach_loop(self.loop)
        if frontend is not None:
            self.engine.use_frontend(frontend)
        self._thread = threading.Thread(target=self.loop.run, name="repstore-loop", daemon=True)

    @property
    def superblock(self) -> Superblock:
        """Of the store when it was opened: its geometry and its identity."""
        assert self._opened is not None, "an engine without a store"
        return self._opened.superblock

    def add_listener(self, socket_fd: int, kind: int) -> None:
        """Takes over a listening socket (1: peers, 2: frontends)."""
        self.loop.add_listener(socket_fd, kind)
        os.close(socket_fd)

    def start(self) -> None:
        """Begin; the store's new life is on disk when this returns (G1)."""
        self._thread.start()
        if self._opened is not None:
            wait_for(self.engine, 1)

    def stop(self) -> None:
        """End, with the store closed cleanly if it has not failed (G2)."""
        try:
            if self._opened is not None and self._thread.is_alive() and not self.engine.failed:
                for index in self.engine.volume_indexes():
                    self.engine.step_down(index)
                self.engine.settle(clean=True)
        finally:
            if self._thread.is_alive():
                self.loop.stop()
                self._thread.join()
            if self._opened is not None:
                self._opened.close()
