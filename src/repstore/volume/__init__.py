"""What a program sees: volumes, in a store of its own process or in a cluster.

    volume       Volume: read, write, trim, write_zeroes, flush, block_status, submit; Ticket
    operations   one row an operation: the array that `Volume.submit` takes
    local_store  Store: one store, opened in this process, and its volumes
    cluster      Cluster: a client of the nodes of a cluster, without a store
"""
from repstore.volume.cluster import Cluster
from repstore.volume.local_store import Store
from repstore.volume.operations import FUA, NO_HOLE, OPERATION_DTYPE, Operation
from repstore.volume.volume import Extent, Ticket, Volume, aligned_buffer

__all__ = [
    "FUA", "NO_HOLE", "OPERATION_DTYPE", "Cluster", "Extent", "Operation", "Store", "Ticket",
    "Volume", "aligned_buffer",
]
