from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

FLAG_HAPPENED: Final[int]
FLAG_DURABLE: Final[int]
FLAG_USED: Final[int]

def blocks_read(operations: NDArray[np.void], flags: NDArray[np.uint8], values: NDArray[np.uint64],
                room: int) -> NDArray[np.uint64]: ...
def check_blocks(operations: NDArray[np.void], flags: NDArray[np.uint8], segments: NDArray[np.uint16],
                 ends: NDArray[np.int64], values: NDArray[np.uint64], blocks: NDArray[np.uint64],
                 initial_known: bool, entries_max: int, findings_max: int, portion_entries: int,
                 progress: Callable[[str, int, int], None]) -> tuple[NDArray[np.void] | None, int, int]: ...
