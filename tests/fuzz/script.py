"""An input of a fuzz target, read as a script: numbers and bytes from front to back, then zeros.

Targets put checksums, lengths and magic numbers in themselves. So every input is a legal script,
a plain mutation of it gets behind the checks, and any prefix of it still says the same.
"""


class Script:
    """What is left of one input."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def left(self) -> int:
        """Bytes not read yet."""
        return len(self._data) - self._at

    def take(self, count: int) -> bytes:
        """The next bytes; fewer at the end."""
        taken = self._data[self._at:self._at + count]
        self._at += len(taken)
        return taken

    def number(self, size_bytes: int = 1) -> int:
        """An unsigned little-endian number; 0 behind the end."""
        return int.from_bytes(self.take(size_bytes), "little")

    def signed(self, size_bytes: int = 1) -> int:
        """A signed one."""
        return int.from_bytes(self.take(size_bytes), "little", signed=True)

    def text(self) -> bytes:
        """Bytes behind their two-byte length."""
        return self.take(self.number(2))
