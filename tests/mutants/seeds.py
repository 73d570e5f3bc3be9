"""Random seeds until one fails: `python -m tests.mutants.seeds FIRST COUNT LIMIT_S`, JSON to stdout."""
from __future__ import annotations

import json
import sys
import time

from repstore.sim.plan import draw
from repstore.sim.run import run


def first_failure(first: int, count: int, limit_s: float) -> dict[str, object]:
    """The first seed of `count` that fails: how many were tried, what was broken, in how many seconds."""
    begun_s = time.monotonic()
    tried, failure = 0, ""
    while tried < count and not failure and time.monotonic() - begun_s < limit_s:
        failure = run(draw(first + tried)).failure
        tried += 1
    return {"tried": tried, "seed": first + tried - 1, "failure": failure,
            "seconds": round(time.monotonic() - begun_s, 2)}


if __name__ == "__main__":
    print(json.dumps(first_failure(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))))
