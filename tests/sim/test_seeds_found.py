"""Seeds that found a fault: they stay, and pass."""
import pytest

from repstore.sim import plan as plans
from repstore.sim.run import run


@pytest.mark.parametrize("seed", [
    313,      # a member's word that came before it was resumed was forgotten, and never said again
])
def test_a_seed_that_found_a_fault_passes(seed: int) -> None:
    outcome = run(plans.draw(seed))
    assert not outcome.failure, f"{outcome.failure}\n{outcome.detail}"
