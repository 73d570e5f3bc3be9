from typing import Final

import numpy as np

FINDING_DTYPE: Final[np.dtype[np.void]]
FINDING_KINDS: Final[tuple[str, ...]]
NO_OPERATION: Final[int]
INITIAL_CONTENT: Final[int]
