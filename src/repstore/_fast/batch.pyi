import numpy as np
from numpy.typing import NDArray
from typing_extensions import Buffer

BATCH_INFO_FIELDS: tuple[tuple[str, str], ...]

def scan_segment(
    segment_bytes: Buffer,
    store_id: int,
    life_id: int,
    segment: int,
    generation: int,
    out: NDArray[np.uint8] | bytearray,
) -> int: ...
