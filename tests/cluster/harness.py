"""A cluster of node processes on this machine, for tests to kill and start as they like.

  1. Every process started here ends here: leaving the `with` block kills what still runs.
  2. `kill` is SIGKILL and waits until the process is gone; what it had in the kernel's hands
     (page cache, submitted writes) stays, as after a crash of the program.
  3. The truth about membership is read from the coordination store, never from log files.
"""
from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from repstore import config
from repstore.node import admin
from repstore.node.directory import ClusterDirectory, add_volume
from repstore.node.report import NodeReport, read_report
from repstore.replication.volume_config import NodeConfig, VolumeConfig
from tests.cluster.nbd_client import NbdClient
from tests.nbd import wire

ROOT = Path(__file__).resolve().parents[2]
VOLUME = "demo"
MIB = 1 << 20
POLL_S = 0.01
WAIT_S = 90.0              # shared machines stall; a thing that takes longer does not come


@dataclass(frozen=True, slots=True)
class Shape:
    """How large a cluster is. By default a volume that fills 70 % of its stores."""

    nodes: int = 3
    copies: int = 3
    store_bytes: int = 128 * MIB
    volume_bytes: int = 88 * MIB
    min_copies: int | None = None
    acknowledgement: config.Acknowledgement = "dev"
    hold_gil_s: float = 1.0


def wait_until(condition: Callable[[], object], what: str, timeout_s: float = WAIT_S) -> None:
    """Look again and again until `condition` holds; AssertionError when it does not in time."""
    pause = threading.Event()
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, f"not within {timeout_s:.0f} s: {what}"
        pause.wait(POLL_S)


class ClusterHarness:
    """Node processes n1, n2, ... with one volume."""

    def __init__(self, directory: Path, shape: Shape = Shape()) -> None:
        self.directory = directory
        self.files = ClusterDirectory(directory)
        self.shape = shape
        self.names = tuple(f"n{number + 1}" for number in range(shape.nodes))
        self.node_arguments: tuple[str, ...] = ()        # more of them for every node process
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.lives: dict[str, int] = dict.fromkeys(self.names, 0)     # starts and kills
        directory.mkdir(parents=True, exist_ok=True)
        self.config = self.files.open_config(create=True)
        for name in self.names:
            self.files.add_node(self.config, name, shape.store_bytes)
        self.add_volume(VOLUME)

    def __enter__(self) -> ClusterHarness:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill(*self.running())
        self.config.close()

    def add_volume(self, name: str) -> None:
        """One more volume of the size that all have."""
        add_volume(self.config, config.VolumeOptions(
            name, self.shape.volume_bytes, copies=self.shape.copies,
            min_copies=self.shape.min_copies, acknowledgement=self.shape.acknowledgement))

    # ------------------------------------------------------------------------------- nodes
    def start(self, *names: str) -> None:
        """Start node processes, by default all, and wait until each accepts connections."""
        names = names or self.names
        for name in names:
            assert name not in self.running(), f"{name} runs"
            self.lives[name] += 1
            self.processes[name] = self.spawn(name)
        for name in names:
            wait_until(lambda name=name: self._is_up(name), f"{name} is up")

    def spawn(self, name: str) -> subprocess.Popen[bytes]:
        """A process that wants to be this node; it is the caller's to end."""
        with self.files.log_path(name).open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "tests.cluster.node_process", str(self.directory), name,
                 "--hold-gil-s", str(self.shape.hold_gil_s), *self.node_arguments],
                cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def stop(self, *names: str) -> None:
        """Ask nodes to end, and see that each closed its store cleanly."""
        names = names or self.running()
        for name in names:
            self.processes[name].terminate()
        for name in names:
            code = self.processes.pop(name).wait(WAIT_S)
            assert code == 0, f"{name} ended with {code}:\n{self.log_tail(name)}"

    def kill(self, *names: str) -> None:
        """SIGKILL, all at once."""
        for name in names:
            self.lives[name] += 1        # first: a client may see it go before we do
        for name in names:
            self.processes[name].kill()
        for name in names:
            self.processes.pop(name).wait()

    def signal(self, number: signal.Signals, *names: str) -> None:
        """Send a signal to nodes; by default to all that run."""
        for name in names or self.running():
            self.processes[name].send_signal(number)

    def running(self) -> tuple[str, ...]:
        """Nodes that were started and not ended by us."""
        return tuple(self.processes)

    def crashed(self) -> list[str]:
        """Nodes that ended by themselves: always a bug."""
        return [name for name, process in self.processes.items() if process.poll() is not None]

    # ------------------------------------------------------------------------------- facts
    def volume(self) -> VolumeConfig:
        """The volume's config as the coordination store has it."""
        return admin.load_volume(self.config, VOLUME)

    def primary(self) -> str:
        """Name of the node that leads the volume."""
        return self.names[self.volume().primary]

    def wait_in_sync(self, copies: int | None = None) -> VolumeConfig:
        """Until so many copies (by default all) are members of the in-sync set."""
        wanted = self.shape.copies if copies is None else copies

        def in_sync() -> bool:
            assert not self.crashed(), self.describe()
            volume = self.volume()
            return volume.epoch > 0 and len(volume.in_sync) == wanted

        try:
            wait_until(in_sync, f"{wanted} copies in sync")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.describe()}") from None
        return self.volume()

    def settle(self, name: str) -> VolumeConfig:
        """Until all copies are in sync and prove it: a dead node that nobody has missed yet is
        a member too, but a flush that ends within one config was answered by every member.
        The flush goes through the node `name`, which takes over the attach."""
        with self.connect(name) as client:
            while True:
                before = self.wait_in_sync()
                completion = client.ask(wire.FLUSH)
                assert completion.error == 0, f"flush: error {completion.error}\n{self.describe()}"
                if self.volume() == before:
                    return before

    def nbd_path(self, name: str) -> str:
        """The NBD socket of a node."""
        return self.node(name).nbd_sockets[0]

    def uri(self, name: str) -> str:
        """The volume, as block clients name it, through one node."""
        return f"nbd+unix:///{VOLUME}?socket={self.nbd_path(name)}"

    def connect(self, name: str, volume: str = VOLUME) -> NbdClient:
        """A client attached to a volume through one node."""
        return NbdClient(self.nbd_path(name), volume)

    def node(self, name: str) -> NodeConfig:
        """A node's record in the coordination store."""
        return admin.load_nodes(self.config)[name]

    def report(self, name: str) -> NodeReport:
        """The newest report of the process that runs as this node."""
        pid = self.processes[name].pid
        found: list[NodeReport] = []

        def is_there() -> bool:
            report = read_report(self.files.report_path(name))
            if report is not None and report.pid == pid:
                found.append(report)
            return bool(found)

        wait_until(is_there, f"a report of {name}, pid {pid}")
        return found[0]

    def log_tail(self, name: str) -> str:
        """The last lines the node printed."""
        path = self.files.log_path(name)
        return "\n".join(path.read_text(errors="replace").splitlines()[-15:]) if path.exists() else ""

    def describe(self) -> str:
        """The cluster in words, for a failed test."""
        volume = self.volume()
        lines = [f"epoch {volume.epoch}, incarnation {volume.incarnation}, primary node {volume.primary}, "
                 f"in sync {volume.in_sync_nodes()}; running {self.running()}, "
                 f"ended by themselves {self.crashed()}"]
        lines += [f"--- {name}:\n{self.log_tail(name)}" for name in self.names if self.log_tail(name)]
        return "\n".join(lines)

    def copies_content(self, names: Iterable[str] | None = None) -> dict[str, bytes]:
        """What each node's copy holds, read from duplicates of the stores. Nodes must not run."""
        content = {}
        for name in self.names if names is None else names:
            assert name not in self.running()
            duplicate, out = self.directory / "duplicate.store", self.directory / "content"
            shutil.copyfile(self.files.store_path(name), duplicate)
            done = subprocess.run(
                [sys.executable, "-m", "tests.cluster.read_copy", str(duplicate), VOLUME, str(out)],
                cwd=ROOT, capture_output=True, text=True, timeout=WAIT_S, check=False)
            assert done.returncode == 0, f"copy of {name}: {done.stdout}{done.stderr}"
            content[name] = out.read_bytes()
            duplicate.unlink()
            out.unlink()
        return content

    def _is_up(self, name: str) -> bool:
        code = self.processes[name].poll()
        assert code is None, f"{name} ended with {code} instead of starting:\n{self.log_tail(name)}"
        return self.node(name).pid == self.processes[name].pid
