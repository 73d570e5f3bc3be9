"""How long the opening of a store waits for blocks that cannot be read.

  W1 a read error may be of the moment: a path that fails over, a controller that is reset, a cable.
     What can be read again within the patience was never damaged
  W2 one opening has one patience, however many blocks it lacks: it runs from the first of them on.
     What the engine reads when it loads has one of its own, which begins anew with what came back
     (`_fast/patience.pxd`)
  W3 only what a decision hangs on is waited for: a bad block that nobody needs costs no time
"""
import time
from collections.abc import Callable, Sequence

from repstore import config
from repstore.format import BLOCK_SIZE
from repstore.store.device import Device


class Patience:
    """The patience of one opening, in seconds: 0 never waits. `clock` and `sleep` are the caller's to set."""

    def __init__(self, limit_s: float = 0.0, *, clock: Callable[[], float] = time.monotonic,
                 sleep: Callable[[float], None] = time.sleep) -> None:
        self._limit_s = limit_s
        self._clock = clock
        self._sleep = sleep
        self._until_s: float | None = None
        self._pause_s = config.READ_AGAIN_MIN_S

    def wait(self) -> bool:
        """A pause before the next try, longer each time. False, at once, when the patience is over."""
        if self._limit_s <= 0:
            return False
        now_s = self._clock()
        if self._until_s is None:
            self._until_s = now_s + self._limit_s
        if now_s >= self._until_s:
            return False
        self._sleep(min(self._pause_s, self._until_s - now_s))
        self._pause_s = min(2 * self._pause_s, config.READ_AGAIN_MAX_S)
        return True

    def until_any_readable(self, device: Device, blocks: Sequence[int]) -> bool:
        """Wait until one of these blocks of the device can be read; False if none can within the patience."""
        while self.wait():
            if any(_can_be_read(device, block) for block in blocks):
                return True
        return False


def _can_be_read(device: Device, block: int) -> bool:
    try:
        device.read(block * BLOCK_SIZE, BLOCK_SIZE)
    except OSError:
        return False
    return True
