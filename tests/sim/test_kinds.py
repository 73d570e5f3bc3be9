"""Every kind of fault of the simulator strikes and breaks no promise: a line of the fault matrix for each."""
from itertools import count, islice

import pytest

from repstore.sim import plan as plans
from repstore.sim.run import run

RUNS = 4                      # of each kind, and more until it has met something
RUNS_MOST = 40
CONVERGES = "nothing acknowledged is lost; healed, it converges"
NEVER_WRONG = "right data or an error, never wrong data; right where a good copy is left"
FLUSHED = "everything flushed is there, of the rest a prefix, and clients are told; healed, it converges"
POWER = ("cut power", "cut power of all")
OUTCOMES = (
    ("crash", tuple(kind for kind in plans.PROCESS if kind not in POWER), CONVERGES),
    ("crash", POWER, FLUSHED),
    ("network", plans.LINKS, CONVERGES),
    ("coordination", plans.CONFIG, CONVERGES),
    ("disk", plans.DISK, "the store is fenced or waits, nothing acknowledged is lost"),
    ("disk", plans.DATA_HERE, NEVER_WRONG), ("disk", plans.DATA_DISK, NEVER_WRONG),
    ("clock", plans.CLOCK, "no lease is believed too long; beyond what leases allow for, no write is lost"),
    ("process", plans.CLIENT, "a client goes on through another node, and each write happens once"),
)
TOLD = {"rough links": "messages doubled, swapped and dropped", "config away": "away for one node",
        "config away for all": "away for all", "config late": "watches late",
        "config slow": "slow calls", "stop": "a clean stop",
        "config unknown": "swaps of unknown outcome", "cut off": "a node cut off",
        "half open": "half-open links", "pause": "SIGSTOP", "hold control": "Python held",
        "move client": "a client moves"}
MARKED = [pytest.param(kind, marks=pytest.mark.fault(f"{area}: simulated: {TOLD.get(kind, kind)}",
                                                     promise=promise))
          for area, kinds, promise in OUTCOMES for kind in kinds]


def test_every_kind_is_here() -> None:
    assert sorted(kind for _, kinds, _ in OUTCOMES for kind in kinds) == sorted(plans.KINDS)


@pytest.mark.slow
@pytest.mark.parametrize("kind", MARKED)
def test_this_kind_strikes_and_breaks_no_promise(kind: str) -> None:
    with_it = (plan for plan in map(plans.draw, count(1)) if any(fault.kind == kind for fault in plan.faults))
    struck = 0
    for done, plan in enumerate(islice(with_it, RUNS_MOST)):
        if struck and done >= RUNS:
            break
        outcome = run(plan)
        assert not outcome.failure, f"seed {plan.seed}: {outcome.failure}\n{outcome.detail}"
        struck += outcome.faults.get(kind, 0)
    assert struck
