"""The fuzz targets by name: each takes the bytes of one input and raises if a promise is broken."""
from collections.abc import Callable

from tests.fuzz import frames, history, nbd, stores, transport

TARGETS: dict[str, Callable[[bytes], None]] = {
    "frames": frames.run, "history": history.run, "nbd": nbd.run, "stores": stores.run,
    "transport": transport.run}
