"""Flipped bytes: nobody is ever served other data, and copies mend each other. See `corruption`."""
import pytest

from tests.check.corruption import CHECKS, UNUSED, count_places, run

PLACES = {"superblock", "root", "map directory", "map page", "header", "data"}
COARSE = 3001        # one or two of each block: seconds
FINE = {"single": 16, UNUSED: 16, "copies": 16, "everywhere": 16, "replayed": 64}
# every byte: `make soak-flip`
PARTS = 4            # of minutes each, under a sanitizer too


@pytest.mark.parametrize("name", CHECKS)
def test_some_flipped_bytes_are_served_right_or_named(name: str) -> None:
    outcome = run(name, COARSE)
    assert outcome.failures == []
    assert outcome.done.keys() >= ({UNUSED} if name == UNUSED else PLACES)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("name", FINE)
def test_every_16th_flipped_byte_is_served_right_or_named(name: str, part: int) -> None:
    total = count_places(name, FINE[name])
    first, end = total * part // PARTS, total * (part + 1) // PARTS
    outcome = run(name, FINE[name], first, end - first)
    assert outcome.failures == []
    assert outcome.done.total() == end - first > 0
