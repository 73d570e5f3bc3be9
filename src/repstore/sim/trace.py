"""What happened, line by line, with virtual time: the same seed must write the same twice.

A line is `<time in ns> <where> <what>`, a `what` begins with a word that says its kind. Entries
are kept as they were handed in, and become text when somebody asks: most runs end well, and
then nobody does.
"""
from __future__ import annotations

import hashlib
import struct

from repstore._fast.checksum import crc32c
from repstore._fast.layout import FRAME_HEADER_BYTES
from repstore.sim.clock import VirtualClock

# of frame_header_t: crc, type, flags, ..., volume, epoch, session, lsn, commit
FRAME_PEEK = struct.Struct("<4xIBB10xIIIQQ")

Entry = tuple[int, str, str, tuple[object, ...]]


class Trace:
    """Everything that crosses a seam of any engine, in order."""

    def __init__(self, clock: VirtualClock) -> None:
        self.entries: list[Entry] = []
        self._clock = clock

    @property
    def now_ns(self) -> int:
        """The present time."""
        return self._clock.now_ns

    def add(self, where: str, what: str, *details: object) -> None:
        """One entry, under the present time; `what` with `details` put into its braces."""
        self.entries.append((self._clock.now_ns, where, what, details))

    @property
    def lines(self) -> list[str]:
        """All of it as text."""
        return [line_of(entry) for entry in self.entries]

    def __bytes__(self) -> bytes:
        return "\n".join(self.lines).encode()

    def digest(self) -> str:
        """A short name of the whole trace."""
        return hashlib.sha256(bytes(self)).hexdigest()


def line_of(entry: Entry) -> str:
    """One entry as text."""
    now_ns, where, what, details = entry
    return f"{now_ns} {where} {what.format(*details) if details else what}"


FRAME = "type {} flags {} volume {} lsn {} commit {} epoch {} session {} bytes {} {:08x}"


def frame_details(data: bytes) -> tuple[int, ...]:
    """What FRAME says of a frame. Its header's checksum stands for all of it: it covers the
    meta, which has the checksums of the body."""
    if len(data) < FRAME_HEADER_BYTES:
        return 0, 0, 0, 0, 0, 0, 0, len(data), crc32c(data)
    crc, kind, flags, volume, epoch, session, lsn, commit = FRAME_PEEK.unpack_from(data)
    return kind, flags, volume, lsn, commit, epoch, session, len(data), crc
