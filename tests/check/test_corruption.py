"""Flipped bytes: nobody is ever served other data, and copies mend each other. See `corruption`."""
import pytest

from tests.check.corruption import CHECKS, run

COARSE = 2003        # two or three of each block: seconds
FINE = 16            # what `make test` promises; every byte: `make soak-flip`


@pytest.mark.parametrize("name", CHECKS)
def test_some_flipped_bytes_are_served_right_or_named(name: str) -> None:
    assert run(name, COARSE).failures == []


@pytest.mark.slow
@pytest.mark.parametrize("name", CHECKS)
def test_every_16th_flipped_byte_is_served_right_or_named(name: str) -> None:
    assert run(name, FINE).failures == []
