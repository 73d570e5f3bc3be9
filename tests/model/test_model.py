"""The protocol keeps its promises within bounds, and every rule of it is needed for that."""
import pytest

from tests.model.search import PROMISES, RULES, Bounds, search

# the smallest bounds at which a rule is missed, and the promises that then break first
MISSED = {
    "R-eject": (Bounds(3, 1, 2, 0), "S2"),
    "R-caught-up": (Bounds(3, 1, 2, 0), "S2"),
    "R-flushed": (Bounds(3, 1, 2, 0), "S1"),
    "R-both-sets": (Bounds(3, 1, 2, 0), "S2"),
    "R-boot": (Bounds(3, 1, 2, 1), "S2"),
    "R-seal": (Bounds(3, 1, 2, 0), "S4"),
    "R-taint": (Bounds(3, 1, 2, 1), "S2"),
    "R-session": (Bounds(3, 1, 3, 0), "S2"),
    "R-client": (Bounds(3, 1, 3, 1), "S2"),
    "R-epoch": (Bounds(3, 1, 2, 1), "S3"),
    "R-proof": (Bounds(3, 1, 2, 0), "S2"),
    "R-told": (Bounds(3, 1, 2, 0), "S2"),
    "R-void": (Bounds(3, 1, 2, 1), "S5"),
}
SLOW = {"R-session", "R-void"}


def test_every_rule_is_asked() -> None:
    assert tuple(MISSED) == RULES


def test_two_epochs_without_a_crash_keep_every_promise() -> None:
    found = search(Bounds(3, 1, 2, 0))
    assert found.complete, found
    assert not found.broken, found
    assert found.states > 90_000


@pytest.mark.slow
@pytest.mark.parametrize("bounds", [Bounds(3, 1, 2, 1), Bounds(3, 2, 2, 0), Bounds(3, 1, 3, 0)], ids=str)
def test_every_promise_is_kept(bounds: Bounds) -> None:
    found = search(bounds)
    assert found.complete, found
    assert not found.broken, found


@pytest.mark.parametrize("rule", [pytest.param(rule, marks=[pytest.mark.slow] if rule in SLOW else [])
                                  for rule in MISSED])
def test_without_a_rule_a_promise_breaks(rule: str) -> None:
    bounds, promise = MISSED[rule]
    found = search(bounds, (rule,))
    assert found.broken.startswith(promise), found
    assert len(found.steps) == found.depth


def test_a_search_that_runs_out_of_memory_says_so() -> None:
    found = search(Bounds(3, 1, 2, 1), memory_bytes=8 << 20)
    assert not found.complete
    assert "INCOMPLETE" in str(found)


def test_bounds_beyond_what_a_state_can_hold_are_refused() -> None:
    with pytest.raises(ValueError, match="beyond 4 nodes"):
        search(Bounds(nodes=5))


def test_names_are_those_of_the_rules() -> None:
    with open("tests/model/rules.pxd", encoding="utf-8") as file:
        text = file.read()
    lines = (line.strip() for line in text.split("cdef enum:")[1].splitlines())
    numbered = [line for line in lines if line.startswith("R_")]
    assert tuple(name.replace("R_", "R-").replace("_", "-").lower() for name in numbered) == \
        tuple(rule.lower() for rule in RULES)
    assert sorted(PROMISES) == [1, 2, 3, 4, 5, 6]
