"""Which process a node is, and the proof that it is gone.

A broken connection proves nothing: the process may be stopped, and wake up as primary.
Proof is one of two facts of the kernel we share with it (same host boot):
  1. same pid namespace, and no running process has that pid and start time;
  2. the lock of its store can be taken: the open file that carries its I/O is closed.
"""
from __future__ import annotations

import fcntl
import os
from dataclasses import dataclass
from pathlib import Path

from repstore import errors
from repstore.replication.volume_config import NodeConfig


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """One process, unmistakably: pids are used again, start times within a boot are not."""
    host_boot_id: str
    pid: int
    pid_started: int
    pid_namespace: str


def this_process() -> ProcessIdentity:
    """The process we are."""
    pid = os.getpid()
    return ProcessIdentity(host_boot_id(), pid, _started(pid) or 0, _pid_namespace())


def process_of(node: NodeConfig) -> ProcessIdentity:
    """The process that published itself as this node."""
    return ProcessIdentity(node.host_boot_id, node.pid, node.pid_started, node.pid_namespace)


def host_boot_id() -> str:
    """The kernel's id of this boot: another one means that power may have been lost."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def is_running(node: NodeConfig) -> bool:
    """Whether this node runs now, on this machine. Less strict than `not is_gone`: what was
    left by an earlier boot of this machine does not run, although nothing proves it."""
    return node.pid != 0 and node.host_boot_id == host_boot_id() and not is_gone(node)


def is_gone(node: NodeConfig) -> bool:
    """Whether the process that was this node is proved not to run any more. What cannot be looked
    at, for we may open no more files say, proves nothing."""
    if node.pid == 0:
        return True                       # it said so itself, after a clean close
    try:
        if node.host_boot_id != host_boot_id():
            return False                  # another machine, or another life of this one
        if node.pid_namespace == _pid_namespace():
            return _started(node.pid) != node.pid_started
        return _lock_is_free(node.store_path)
    except OSError:
        return False


def send_signal(node: NodeConfig, number: int) -> bool:
    """Signal the process that is this node; False if it does not run any more."""
    if not is_running(node):
        return False
    if node.pid_namespace != _pid_namespace():
        raise errors.BusyError(f"node {node.name!r} (pid {node.pid}) runs in another pid namespace: "
                               "it can only be stopped from there")
    try:
        os.kill(node.pid, number)
    except ProcessLookupError:
        return False
    except PermissionError:
        raise errors.BusyError(f"node {node.name!r} (pid {node.pid}) is another user's") from None
    return True


def _started(pid: int) -> int | None:
    """Start time of a running process in clock ticks since boot; None if it does not run."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text.rpartition(")")[2].split()      # the name before it may hold anything
    state, thread_count, started = fields[0], int(fields[17]), int(fields[19])
    if state in "ZX" and thread_count <= 1:
        return None                       # killed, only not waited for by its parent yet
    return started


def _pid_namespace() -> str:
    return os.readlink("/proc/self/ns/pid")


def _lock_is_free(store_path: str) -> bool:
    """OSError: it is held, or cannot be looked at."""
    descriptor = os.open(store_path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    finally:
        os.close(descriptor)
    return True
