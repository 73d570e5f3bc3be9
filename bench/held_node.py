"""A process that serves a volume over NBD while one of its threads holds the GIL, on and off.

    python -m bench.held_node STORE VOLUME_BYTES SOCKET WINDOW_S

Says `ready`, then runs a pair of windows for each line it reads: GIL free, GIL held. It answers
`begin held end`, in seconds of the system's clock, which is the one fio can log.
"""
from __future__ import annotations

import ctypes
import sys
import time

import repstore_nbd

from repstore.node.directory import usual_store_bytes
from repstore.node.native import Native
from repstore.node.shell import LISTEN_FRONTENDS, listen
from repstore.store.store import create, open_store

VOLUME = "bench"
NODE, INDEX, EPOCH, SESSION = 0, 1, 1, 1
BLOCK_BYTES = 4096


def serve(store: str, volume_bytes: int, socket_path: str) -> Native:
    """An engine that leads a volume of one copy, as a node's would, without any control thread:
    nothing but native code can answer."""
    create(store, usual_store_bytes(volume_bytes))
    native = Native(NODE, open_store(store), frontend=repstore_nbd.frontend)
    native.add_listener(listen(socket_path).detach(), LISTEN_FRONTENDS)
    native.start()
    engine = native.engine
    engine.volume_create(INDEX, "00" * 16, VOLUME, volume_bytes // BLOCK_BYTES)
    engine.lead(INDEX, EPOCH, 1, [], 1, 1, False, SESSION)
    engine.export_install(INDEX, VOLUME, volume_bytes, SESSION)
    engine.set_primary(INDEX, NODE, EPOCH)
    return native


def main() -> None:
    """Serve until standard input ends."""
    store, volume_bytes, socket_path, window_s = sys.argv[1:]
    process = ctypes.PyDLL(None)         # a PyDLL does not let go of the GIL around a call
    native = serve(store, int(volume_bytes), socket_path)
    try:
        print("ready", flush=True)
        for _ in sys.stdin:
            begin_s = time.time()
            time.sleep(float(window_s))
            held_s = time.time()
            process.usleep(round(float(window_s) * 1e6))
            print(begin_s, held_s, time.time(), flush=True)
    finally:
        native.stop()


if __name__ == "__main__":
    main()
