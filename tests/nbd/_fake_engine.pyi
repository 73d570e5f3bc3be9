"""An engine of memory for the frontend to talk to."""
from collections.abc import Callable

class Link:
    state: int
    unread: bytearray
    output: bytearray
    unsent: list[tuple[int, int, bytes, int]]
    alive: bool
    closed: bool
    resumed: bool

class FakeEngine:
    disk: bytearray
    states: bytearray
    links: dict[int, Link]
    violations: list[str]
    log: list[tuple[int, int, int, int]]
    pending: list[tuple[int, bytes]]
    free_requests: list[int]
    lent: set[int]
    names: list[bytes]
    export_users: int
    error_of: Callable[[int, int, int], int] | None
    inline_completion: bool
    inline_sent: bool
    inline_open: bool
    starved: bool
    read_only: bool
    open_error: int

    def __init__(self, capsule: object, size_bytes: int = ..., requests: int = ...,
                 inline: bool = ...) -> None: ...
    def connect(self) -> int: ...
    def feed(self, link: int, data: bytes = ...) -> None: ...
    def complete(self, index: int = ...) -> None: ...
    def sent(self, link: int) -> None: ...
    def open_answered(self) -> None: ...
    def pump(self, choose: Callable[[int], int] | None = ...) -> None: ...
    def disconnect(self, link: int) -> None: ...
    def output(self, link: int) -> bytes: ...
    @property
    def opening_count(self) -> int: ...
    @property
    def requests_in_use(self) -> int: ...

def heap_bytes() -> int: ...
