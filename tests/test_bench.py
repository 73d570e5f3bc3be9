"""How the bench turns runs into a line: medians of pairs, and what is below its floor."""
from itertools import count

import pytest

from bench import __main__ as bench
from bench.ratios import Pace, Result, Row, compare

ROW = Row("name", "IOPS", 1.0, "theirs")
PACE = Pace(rounds=5, run_s=0.25, volume_bytes=1, copies_volume_bytes=1)


def test_what_counts_is_the_median_of_the_rounds_ratios() -> None:
    """One round on a slow disk moves both sides of its ratio, and no other round."""
    found = Result(ROW, ours=(100.0, 10.0, 300.0), theirs=(100.0, 5.0, 100.0))
    assert found.ratios == [1.0, 2.0, 3.0]
    assert found.ratio == 2.0
    assert found.line() == "RATIO name 2.00 100 100 IOPS spread 1.00-3.00 of 3 floor 1.0"


@pytest.mark.parametrize(("ours", "below"), [(0.99, True), (1.0, False), (1.5, False)])
def test_a_row_below_its_floor_says_so(ours: float, below: bool) -> None:
    found = Result(ROW, ours=(ours,), theirs=(1.0,))
    assert found.below_floor is below
    assert found.line().endswith("BELOW FLOOR") is below
    assert found.as_json()["below_floor"] is below


def test_a_row_without_a_floor_is_never_below_it() -> None:
    found = Result(Row("name", "us", None, "theirs"), ours=(1.0,), theirs=(100.0,))
    assert not found.below_floor
    assert "floor" not in found.line()


def test_rounds_are_pairs_and_who_begins_alternates() -> None:
    ran: list[tuple[str, float]] = []
    numbers = count(1)

    def side(name: str) -> object:
        return lambda seconds: ran.append((name, seconds)) or float(next(numbers))

    found = compare(ROW, PACE, side("ours"), side("theirs"))  # type: ignore[arg-type]
    assert [name for name, _ in ran] == ["ours", "theirs", "theirs", "ours", "ours",
                                         "theirs", "theirs", "ours", "ours", "theirs"]
    assert {seconds for _, seconds in ran} == {0.25}
    assert (found.ours, found.theirs) == ((1, 4, 5, 8, 9), (2, 3, 6, 7, 10))


@pytest.mark.parametrize("words", [["--rounds", "0"], ["--data", "/nowhere/at/all"], ["--only", "speed"],
                                   ["--json", "/nowhere/at/all/x"]])
def test_options_that_can_never_be_right_are_refused(words: list[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        bench.parse(words)
    assert refused.value.code == 2
