"""Node processes: how they are started, waited for and stopped; and being one.

  P1 A node is a process of its own, in a session of its own: Ctrl-C at the command that
     started it, or that command's death, does not reach it.
  P2 It says "ready" through a pipe once it serves; a pipe that ends without it means that the
     process ended, and the reason is the last line of its log.
  P3 All nodes that are to stop are told so at the same moment: a node that outlives the others
     even shortly would put them out of the in-sync set, and they would have to learn.
  P4 A signal goes only to a process that is proved to be the node: pids are used again.
"""
from __future__ import annotations

import faulthandler
import logging
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import repstore_nbd

from repstore import config, errors
from repstore.check.copies import CopyInquiries
from repstore.node import NodeConfig, NodeShell, load_nodes, run_node
from repstore.node.directory import LOOPBACK, ClusterDirectory
from repstore.node.native import Native, open_after_death
from repstore.node.process import is_running, send_signal, this_process
from repstore.node.report import Reporter

READY = b"ready"
LOOK_S = 0.01           # between two looks at a process that was told to stop
LOG = logging.getLogger("repstore")


@dataclass(frozen=True, slots=True)
class StartedNode:
    """A process that was started and may not serve yet."""
    name: str
    process: subprocess.Popen[bytes]
    ready_fd: int
    log: Path


def start_node(directory: ClusterDirectory, name: str) -> StartedNode:
    """Start the process of a node; `await_ready` tells how that went."""
    ready_fd, told_fd = os.pipe()
    log = directory.log_path(name)
    command = [sys.executable, "-m", "repstore.cli", "node", "run", name,
               "--data", str(directory.path), "--ready-fd", str(told_fd)]
    try:
        with log.open("ab") as output:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                pass_fds=(told_fd,), start_new_session=True)                      # P1
    except BaseException:
        os.close(ready_fd)
        raise
    finally:
        os.close(told_fd)
    return StartedNode(name, process, ready_fd, log)


def await_ready(node: StartedNode) -> None:
    """Return when the node serves; UnavailableError with its last words if it does not (P2)."""
    try:
        readable, _, _ = select.select([node.ready_fd], [], [], config.START_TIMEOUT_S)
        if readable and os.read(node.ready_fd, len(READY)) == READY:
            return
    finally:
        os.close(node.ready_fd)
    if not readable:
        raise errors.UnavailableError(
            f"node {node.name!r} (pid {node.process.pid}) does not serve after "
            f"{config.START_TIMEOUT_S:.0f} s; see {node.log}")
    code = node.process.wait()
    raise errors.UnavailableError(
        f"node {node.name!r} did not start ({ending(code)}): {_last_line(node.log)}")


def ending(code: int) -> str:
    """How a process ended, in words."""
    if code >= 0:
        return f"exit code {code}"
    return f"killed by {signal.Signals(-code).name}"


def stop_nodes(directory: ClusterDirectory, names: Iterable[str]) -> list[str]:
    """Have these nodes close their stores and end. Returns those that had to be killed."""
    with closing(directory.open_config()) as configs:
        nodes = [node for name, node in load_nodes(configs).items() if name in set(names)]
    waiting = [node for node in nodes if send_signal(node, signal.SIGTERM)]        # P3
    deadline_s = time.monotonic() + config.STOP_TIMEOUT_S
    while waiting and time.monotonic() < deadline_s:
        time.sleep(LOOK_S)
        waiting = [node for node in waiting if is_running(node)]
    return [node.name for node in waiting if send_signal(node, signal.SIGKILL)]


def refuse_running(directory: ClusterDirectory) -> None:
    """BusyError naming the nodes that run in this directory, if any do."""
    with closing(directory.open_config()) as configs:
        running = [node for node in load_nodes(configs).values() if is_running(node)]
    if running:
        nodes = ", ".join(f"{node.name} (pid {node.pid})" for node in running)
        raise errors.BusyError(
            f"{directory.path}: nodes still run there: {nodes}; "
            f"`repstore node stop NAME --data {directory.path}` ends one")


def nbd_uri(address: str, volume: str) -> str:
    """Where a block client finds a volume."""
    if address.startswith(LOOPBACK):
        return f"nbd://{address}/{quote(volume)}"
    return f"nbd+unix:///{quote(volume)}?socket={quote(address)}"


class ServingNode:
    """This process as a node: its engine with the NBD frontend, its report, its readiness."""

    def __init__(self, directory: ClusterDirectory, name: str, ready_fd: int | None) -> None:
        self._directory = directory
        self._name = name
        self._ready_fd = ready_fd
        self._native: Native | None = None

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT."""
        faulthandler.enable()
        logging.basicConfig(
            level=logging.INFO, stream=sys.stderr,
            format=f"%(asctime)s {self._name} {os.getpid()} %(levelname)s %(message)s")
        run_node(self._directory.path, self._name, self._open, self._on_ready)
        LOG.info("stopped")

    def _open(self, node: NodeConfig, knows_life: Callable[[int], bool]) -> Native:
        opened = open_after_death(node.store_path, replicated=True, knows_life=knows_life)
        LOG.info("store %s: %s", node.store_path, opened.recovery.reason)
        self._native = Native(node.id, opened, frontend=repstore_nbd.frontend)
        return self._native

    def _on_ready(self, shell: NodeShell) -> None:
        assert self._native is not None
        assert shell.control is not None
        shell.control.answer = CopyInquiries(self._native.engine, self._native.superblock)
        reporter = Reporter(self._directory.report_path(self._name), self._native.engine, this_process())
        shell.report = reporter.publish
        LOG.info("serving, I/O over %s", self._native.loop.backend)
        if self._ready_fd is not None:
            os.write(self._ready_fd, READY)
            os.close(self._ready_fd)


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()
    return lines[-1] if lines else f"{log} is empty"
