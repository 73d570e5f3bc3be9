"""repstore: replicated block storage.

    Store      one store in this process: a file or block device with volumes in it
    Cluster    a client of the nodes that `repstore up` runs; its volumes live through failovers
    Volume     read, write, trim, write_zeroes, flush, block_status; submit for many at once
    errors     every exception; all are RepstoreError

`Operation`, `OPERATION_DTYPE`, `FUA`, `NO_HOLE`, `Ticket` and `aligned_buffer` belong to
`Volume.submit`; `Extent` to `Volume.block_status`. Begin with `help(repstore.Store)`.
"""
from repstore import errors
from repstore.errors import RepstoreError
from repstore.volume import (
    FUA,
    NO_HOLE,
    OPERATION_DTYPE,
    Cluster,
    Extent,
    Operation,
    Store,
    Ticket,
    Volume,
    aligned_buffer,
)

__all__ = [
    "FUA", "NO_HOLE", "OPERATION_DTYPE", "Cluster", "Extent", "Operation", "RepstoreError",
    "Store", "Ticket", "Volume", "aligned_buffer", "errors",
]
