"""kill -9 of any node at any moment under load: nothing acknowledged is lost.

REPSTORE_KILL_SEED and REPSTORE_KILL_ROUNDS change what is run; the seed is printed by a failed
round. `python -m tests.cluster.soak` runs as many rounds as asked for.
"""
import os
from collections.abc import Iterator

import pytest

from tests.cluster.rounds import CASES, KillRounds

ROUNDS = int(os.environ.get("REPSTORE_KILL_ROUNDS", "10"))
SEED = int(os.environ.get("REPSTORE_KILL_SEED", "1"))

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def rounds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KillRounds]:
    with KillRounds(tmp_path_factory.mktemp("kill"), SEED) as rounds:
        yield rounds


@pytest.mark.parametrize("number", range(ROUNDS), ids=lambda number: f"{number}-{CASES[number % len(CASES)]}")
@pytest.mark.fault("crash: kill -9 of real nodes under load", promise="nothing acknowledged is lost")
def test_nothing_acknowledged_is_lost(rounds: KillRounds, number: int) -> None:
    if rounds.failed:
        pytest.fail("the cluster is that of an earlier round, which failed")
    result = rounds.run(number)
    print(f"seed {SEED}, round {number}: {result}")
    assert result.fill >= 0.7
    rounds.cleaned_segments += result.cleaned_segments


def test_all_that_clients_were_told_is_consistent(rounds: KillRounds) -> None:
    if rounds.failed:
        pytest.fail("a round failed")
    verdict = rounds.verdict()
    print(verdict)
    assert verdict.consistent, verdict.contradiction
    assert verdict.reads_checked > ROUNDS * rounds.history.blocks
    assert verdict.undecided_reads < verdict.reads_checked / 1000


def test_the_cleaner_was_running(rounds: KillRounds) -> None:
    assert rounds.cleaned_segments > 0
