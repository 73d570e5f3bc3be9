from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

KINDS: Final[tuple[str, ...]]
FIELDS: Final[tuple[str, ...]]
REASONS: Final[tuple[str, ...]]
WRONG_FIELD: Final[int]
NUMBER_LIMITS: Final[Mapping[str, int]]
REQUIRED: Final[Mapping[str, tuple[str, ...]]]
ALLOWED: Final[Mapping[str, tuple[str, ...]]]
UNKNOWN_VALUE: Final[int]
NEVER_TIME: Final[int]
TIME_MAX: Final[int]
OPERATION_DTYPE: Final[np.dtype[np.void]]

def parse(text: NDArray[np.uint8] | bytes | bytearray | memoryview, operations: NDArray[np.void],
          values: NDArray[np.uint64], first_value: int) -> tuple[int, int, int, int]: ...
