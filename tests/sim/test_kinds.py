"""Every kind of fault of the simulator strikes and breaks no promise: a line of the fault matrix for each."""
from itertools import count, islice

import msgspec
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
    ("disk", plans.READS, "errors meanwhile, and nothing is lost, of a single copy neither"),
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
# one kind that does several things: each of them must have been done to something
EACH = {"rough links": ("message dropped", "message doubled", "message swapped"),
        "config unknown": ("unknown swap done", "unknown swap not done", "unknown swap done later")}
MARKED = [pytest.param(kind, marks=pytest.mark.fault(f"{area}: simulated: {TOLD.get(kind, kind)}",
                                                     promise=promise))
          for area, kinds, promise in OUTCOMES for kind in kinds]


def test_every_kind_is_here() -> None:
    assert sorted(kind for _, kinds, _ in OUTCOMES for kind in kinds) == sorted(plans.KINDS)


@pytest.mark.slow
@pytest.mark.parametrize("kind", MARKED)
def test_this_kind_strikes_and_breaks_no_promise(kind: str) -> None:
    with_it = (plan for plan in map(plans.draw, count(1)) if any(fault.kind == kind for fault in plan.faults))
    missing = {kind, *EACH.get(kind, ())}
    for done, plan in enumerate(islice(with_it, RUNS_MOST)):
        if not missing and done >= RUNS:
            break
        outcome = run(plan)
        assert not outcome.failure, f"seed {plan.seed}: {outcome.failure}\n{outcome.detail}"
        missing -= outcome.faults.keys() | outcome.effects.keys()
    assert not missing


@pytest.mark.slow
@pytest.mark.fault("clock: simulated: drift of 2 % in opposite directions, with every other fault",
                   promise="no lease is believed too long; healed, it converges")
@pytest.mark.parametrize("seed", range(1, 13))
def test_clocks_that_drift_apart_break_no_promise(seed: int) -> None:
    """Seeds draw drifts that are smaller, and in three of ten worlds."""
    plan = plans.draw(seed)
    sign = 1 if seed % 2 else -1              # the primary's clock is fast, or all others are
    first = plan.setup.volumes[0].first_node
    drift_ppm = tuple(sign * plans.DRIFT_PPM_MOST if number == first else -sign * plans.DRIFT_PPM_MOST
                      for number in range(plan.setup.nodes))
    setup = msgspec.structs.replace(plan.setup, drift_ppm=drift_ppm, stale_reads=False)
    outcome = run(msgspec.structs.replace(plan, setup=setup))
    assert not outcome.failure, f"seed {seed}: {outcome.failure}\n{outcome.detail}"
    assert sum(outcome.faults.values())
