"""A process that serves a volume over NBD while one of its threads holds the GIL, on and off.

    python -m bench.held_node DIR VOLUME_BYTES SOCKET WINDOW_S

Fills its store, says `ready`, and for each line it reads runs one pair of windows: free, then
held. It answers `begin held end`, in seconds of the system's clock, as fio logs them.
"""
from __future__ import annotations

import ctypes
import sys
import time
from pathlib import Path

import repstore_nbd

from bench.local_store import LocalVolume
from repstore.node.shell import LISTEN_FRONTENDS, listen


def main() -> None:
    """Serve until standard input ends."""
    directory, volume_bytes, socket_path, window_s = sys.argv[1:]
    process = ctypes.PyDLL(None)         # a PyDLL does not let go of the GIL around a call
    store = Path(directory) / "held.store"
    with LocalVolume(store, int(volume_bytes), frontend=repstore_nbd.frontend) as volume:
        volume.fill()
        volume.native.add_listener(listen(socket_path).detach(), LISTEN_FRONTENDS)
        print("ready", flush=True)
        for _ in sys.stdin:
            begin_s = time.time()
            time.sleep(float(window_s))
            held_s = time.time()
            process.usleep(round(float(window_s) * 1e6))
            print(begin_s, held_s, time.time(), flush=True)
    store.unlink()


if __name__ == "__main__":
    main()
