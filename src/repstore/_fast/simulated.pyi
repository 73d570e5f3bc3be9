from typing import NamedTuple

from typing_extensions import Buffer

from repstore._fast.control import Engine

class DiskRead(NamedTuple):
    operation: int
    offset: int
    length: int

class DiskWrite(NamedTuple):
    operation: int
    offset: int
    data: bytes

class DiskFlush(NamedTuple):
    operation: int

class Send(NamedTuple):
    link: int
    token: int
    data: bytes

class Close(NamedTuple):
    link: int

class Hold(NamedTuple):
    link: int
    stopped: bool

class SimulatedBackend:
    """All that one engine asks of the world, and the one who answers it."""

    def __init__(self, engine: Engine) -> None: ...
    @property
    def flying(self) -> int: ...
    @property
    def events_waiting(self) -> int: ...
    @property
    def woken(self) -> bool: ...
    def take(self) -> list[DiskRead | DiskWrite | DiskFlush | Send | Close | Hold]: ...
    def disk_done(self, number: int, result: int, data: Buffer | None = None) -> None: ...
    def sent(self, link: int, token: int) -> None: ...
    def link_up(self, link: int, kind: int) -> None: ...
    def link_down(self, link: int) -> None: ...
    def frame(self, link: int, data: Buffer) -> bool: ...
    def begin(self, now_ns: int) -> None: ...
    def turn(self, now_ns: int) -> tuple[int, bool]: ...
