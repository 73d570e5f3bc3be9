"""The cluster of the demo, used as anybody would: by the `repstore` command and its JSON.

Nothing here imports the product. What was started is ended, whatever happens: the nodes by
`up`, and what it leaves by their command line, which names our own directory.
"""
from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

START_TIMEOUT_S = 90.0
STOP_TIMEOUT_S = 60.0
COMMAND_TIMEOUT_S = 30.0
STATUS_FAULTED = 2               # exit codes up to here come with a status


class ClusterError(Exception):
    """The command refused, failed or did not answer."""


@dataclass(frozen=True)
class Health:
    """What `repstore status` says of the one volume."""
    exit_code: int
    primary: str                  # empty: nobody leads just now
    epoch: int
    in_sync: tuple[str, ...]
    resynced_bytes: int


class Cluster:
    """A running `repstore up` and its nodes."""

    def __init__(self, directory: Path, volume: str, size_bytes: int, nodes: int, copies: int,
                 options: tuple[str, ...] = ()) -> None:
        self.directory = directory
        self.volume = volume
        self._log = directory.with_suffix(".log").open("wb")
        self._up = subprocess.Popen(
            command("up", "--nodes", str(nodes), "--copies", str(copies), "--size", str(size_bytes),
                    "--volume", volume, "--data", str(directory), "--json", *options),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self._log, start_new_session=True)
        try:
            ready = self._ready_line()
        except BaseException:
            with contextlib.suppress(ClusterError):
                self.stop()
            raise
        self.primary: str = ready["primary"]
        self.uris: dict[str, str] = {node["name"]: node["nbd"] for node in ready["nodes"]}
        self.pids: dict[str, int] = {node["name"]: node["pid"] for node in ready["nodes"]}

    def health(self) -> Health:
        """How the volume is now."""
        done = run("status", "--data", str(self.directory), "--json")
        if done.returncode > STATUS_FAULTED:
            raise ClusterError(f"status ended with {done.returncode}: {done.stderr.strip()}")
        status = json.loads(done.stdout)
        volume = next(volume for volume in status["volumes"] if volume["name"] == self.volume)
        copies = volume["copies"]
        return Health(done.returncode, volume["primary"] or "", volume["epoch"],
                      tuple(copy["node"] for copy in copies if copy["in_sync"]),
                      volume["resync"]["done_bytes"])

    def kill(self, name: str) -> None:
        """What a power cut does to a process."""
        os.kill(self.pids[name], signal.SIGKILL)

    def start_node(self, name: str) -> None:
        """Bring a dead node back."""
        done = run("node", "start", name, "--data", str(self.directory))
        if done.returncode:
            raise ClusterError(f"node start {name} ended with {done.returncode}: {done.stderr.strip()}")

    def stop(self) -> None:
        """End everything; ClusterError if it did not end cleanly by itself."""
        self._up.terminate()
        try:
            code: int | None = self._up.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            code = None
            self._up.kill()
            self._up.wait()
        left = self._processes()
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._log.close()
        if self._up.stdout is not None:
            self._up.stdout.close()
        if code != 0 or left:
            raise ClusterError(f"`up` ended with {code}, processes left: {left or 'none'}; "
                               f"see {self._log.name}")

    def _ready_line(self) -> dict[str, Any]:
        assert self._up.stdout is not None
        deadline_s = time.monotonic() + START_TIMEOUT_S
        line = b""
        while not line.endswith(b"\n"):
            readable, _, _ = select.select([self._up.stdout], [], [], max(0.0, deadline_s - time.monotonic()))
            if not readable:
                raise ClusterError(f"`up` was not ready within {START_TIMEOUT_S:.0f} s; see {self._log.name}")
            piece = os.read(self._up.stdout.fileno(), 65536)
            if not piece:
                words = Path(self._log.name).read_text(errors="replace").strip()
                raise ClusterError(f"`up` ended before it was ready: {words or 'without a word'}")
            line += piece
        ready: dict[str, Any] = json.loads(line)
        return ready

    def _processes(self) -> list[int]:
        """Processes of the command that serve in our directory."""
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                words = (entry / "cmdline").read_bytes().split(b"\0")
                if os.fsencode(self.directory) in words and b"repstore.cli" in words:
                    found.append(int(entry.name))
        return sorted(found)


def command(*words: str) -> list[str]:
    """The `repstore` command of this interpreter."""
    return [sys.executable, "-m", "repstore.cli", *words]


def run(*words: str) -> subprocess.CompletedProcess[str]:
    """One short command to its end."""
    try:
        return subprocess.run(command(*words), stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              timeout=COMMAND_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        raise ClusterError(f"`repstore {' '.join(words)}`: no answer in {COMMAND_TIMEOUT_S:.0f} s") from None
