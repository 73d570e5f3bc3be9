"""What happened, line by line, with virtual time: the same seed must write the same twice."""
from __future__ import annotations

import hashlib

import numpy as np

from repstore._fast.checksum import crc32c
from repstore._fast.layout import FRAME_HEADER_BYTES, frame_header_t
from repstore.sim.clock import VirtualClock


class Trace:
    """Everything that crosses a seam of any engine, in order."""

    def __init__(self, clock: VirtualClock) -> None:
        self.lines: list[str] = []
        self._clock = clock

    def add(self, where: str, what: str) -> None:
        """One line, under the present time."""
        self.lines.append(f"{self._clock.now_ns} {where} {what}")

    def __bytes__(self) -> bytes:
        return "\n".join(self.lines).encode()

    def digest(self) -> str:
        """A short name of the whole trace."""
        return hashlib.sha256(bytes(self)).hexdigest()


def describe_bytes(data: bytes) -> str:
    """Length and checksum stand for the bytes."""
    return f"{len(data)} {crc32c(data):08x}"


def describe_frame(data: bytes) -> str:
    """Type, volume, LSN, epoch and the checksum of all of a frame."""
    if len(data) < FRAME_HEADER_BYTES:
        return f"garbage {describe_bytes(data)}"
    header = np.frombuffer(data, frame_header_t, count=1)[0]
    return (f"type {header['type']} volume {header['volume']} lsn {header['lsn']} "
            f"epoch {header['epoch']} bytes {describe_bytes(data)}")
