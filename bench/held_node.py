"""A node of its own cluster, one of whose threads holds the GIL on and off.

    python -m bench.held_node DIR VOLUME_BYTES WINDOW_S

Says `ready URI` when it serves, then runs a pair of windows for each line it reads: GIL free,
GIL held. It answers `begin held end`, in seconds of the system's clock, which is the one that
fio can log. It ends with its input.
"""
from __future__ import annotations

import ctypes
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing

import repstore_nbd

from repstore import config
from repstore.node import NodeConfig, NodeShell, run_node
from repstore.node.directory import ClusterDirectory, add_volume, usual_store_bytes
from repstore.node.native import Native
from repstore.store.store import open_store

NODE, VOLUME = "n1", "bench"


def make(directory: ClusterDirectory, volume_bytes: int) -> NodeConfig:
    """A cluster of one node, with one volume of one copy."""
    directory.path.mkdir()
    with closing(directory.open_config(create=True)) as configs:
        node = directory.add_node(configs, NODE, usual_store_bytes(volume_bytes))
        add_volume(configs, config.VolumeOptions(VOLUME, volume_bytes))
    return node


def open_native(node: NodeConfig, knows_life: Callable[[int], bool]) -> Native:
    """The node's engine, with the NBD frontend."""
    return Native(node.id, open_store(node.store_path, knows_life=knows_life), frontend=repstore_nbd.frontend)


def run_windows(shell: NodeShell, window_s: float) -> None:
    """A PyDLL does not let go of the GIL around a call: all Python here stands still."""
    process = ctypes.PyDLL(None)
    for _ in sys.stdin:
        begin_s = time.time()
        time.sleep(window_s)
        held_s = time.time()
        process.usleep(round(window_s * 1e6))
        print(begin_s, held_s, time.time(), flush=True)
    shell.request_stop()


def main() -> None:
    """Serve until standard input ends."""
    directory = ClusterDirectory(sys.argv[1])
    node = make(directory, int(sys.argv[2]))

    def on_ready(shell: NodeShell) -> None:
        print(f"ready nbd+unix:///{VOLUME}?socket={node.nbd_sockets[0]}", flush=True)
        threading.Thread(target=run_windows, args=(shell, float(sys.argv[3])), daemon=True).start()

    run_node(directory.path, NODE, open_native, on_ready)


if __name__ == "__main__":
    main()
