"""Room 3: where the cluster's few decisions are written down.

Start at `interface.ConfigStore`. Every membership change of every volume is one
compare-and-swap here, and is durable before anything depends on it.
"""
from repstore.coordination.interface import Change, ConfigStore, Entry
from repstore.coordination.memory import MemoryConfigStore
from repstore.coordination.sqlite import SqliteConfigStore

__all__ = ["Change", "ConfigStore", "Entry", "MemoryConfigStore", "SqliteConfigStore"]
