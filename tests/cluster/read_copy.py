"""What one copy of a volume holds, read by a process of its own from a store nobody runs.

    python -m tests.cluster.read_copy STORE VOLUME OUT

Opens the store, leads the copy alone and writes its whole content to OUT. This changes the
store (a new life, a new epoch), so give it a duplicate of the file.
"""
from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from repstore._fast.waiting import IO_FIELDS
from repstore.format import BLOCK_SIZE
from repstore.node.native import Native
from repstore.store.store import open_store

READ = 1
READ_BYTES = 256 * 1024


def read_copy(store_path: Path, volume_name: str) -> bytes:
    """All blocks of the copy of one volume."""
    native = Native(0, open_store(store_path))
    native.start()
    engine = native.engine
    states = [engine.volume_state(index) for index in engine.volume_indexes()]
    copy = next(state for state in states if state.name == volume_name)
    epoch, session = max(copy.epoch, copy.sealed_epoch) + 1, copy.session + 1
    engine.lead(copy.index, epoch, copy.incarnation, [], 1, 1, False, session)
    size_bytes = copy.size_blocks * BLOCK_SIZE
    export = engine.export_install(copy.index, volume_name, size_bytes, session)
    engine.set_primary(copy.index, 0, epoch)
    content = np.zeros(size_bytes, np.uint8)
    operations = np.zeros(-(-size_bytes // READ_BYTES), np.dtype(list(IO_FIELDS)))
    operations["kind"] = READ
    operations["export_id"] = export
    operations["offset"] = operations["buffer_offset"] = np.arange(len(operations)) * READ_BYTES
    operations["length"] = np.minimum(READ_BYTES, size_bytes - operations["offset"])
    failed = engine.start(operations.view(np.uint8), content, 8).wait()
    native.stop()
    if failed:
        raise OSError(f"{store_path}: {failed} of {len(operations)} reads failed, "
                      f"errors {sorted(set(operations['error'].tolist()))}")
    return content.tobytes()


if __name__ == "__main__":
    Path(sys.argv[3]).write_bytes(read_copy(Path(sys.argv[1]), sys.argv[2]))
