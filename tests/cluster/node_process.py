"""A node of a cluster under test, as a process of its own.

    python -m tests.cluster.node_process DIR NAME [--hold-gil-s SECONDS] [--behind SUFFIX]

  1. It is the node that users run: what `repstore node run` does.
  2. SIGUSR2 makes the main thread hold the GIL for the given time, as a long call of a careless
     extension would, before any other Python runs; begin and end (CLOCK_MONOTONIC) are appended
     to DIR/NAME.holds.
  3. SIGUSR1 prints where every Python thread stands.
  4. With --behind it listens to its peers at the address of its record with a suffix: a proxy
     of the test stands at the address itself.
"""
from __future__ import annotations

import argparse
import ctypes
import faulthandler
import signal
import time
from contextlib import suppress
from pathlib import Path

from repstore.cli.processes import ServingNode
from repstore.node import shell
from repstore.node.directory import ClusterDirectory

PEER_SOCKET_SUFFIX = ".peer.sock"


def hold_gil(seconds: float, journal: Path) -> None:
    """PyDLL does not release the GIL around the call: all Python here stands still."""
    process = ctypes.PyDLL(None)
    begun_s = time.monotonic()
    process.usleep(int(seconds * 1_000_000))
    ended_s = time.monotonic()
    with suppress(OSError), journal.open("a") as file:      # some tests fill the file system
        file.write(f"{begun_s} {ended_s}\n")


def listen_behind(suffix: str) -> None:
    """Sockets for peers are moved out of the proxy's way (4)."""
    listen = shell.listen
    shell.listen = lambda address: listen(
        address + suffix if address.endswith(PEER_SOCKET_SUFFIX) else address)


def main() -> None:
    """Be the node until SIGTERM."""
    parser = argparse.ArgumentParser()
    parser.add_argument("directory", type=Path)
    parser.add_argument("name")
    parser.add_argument("--hold-gil-s", type=float, default=1.0)
    parser.add_argument("--behind", default="")
    options = parser.parse_args()
    if options.behind:
        listen_behind(options.behind)
    faulthandler.register(signal.SIGUSR1)
    journal = options.directory / f"{options.name}.holds"
    signal.signal(signal.SIGUSR2, lambda *_: hold_gil(options.hold_gil_s, journal))
    ServingNode(ClusterDirectory(options.directory), options.name, None).run()


if __name__ == "__main__":
    main()
