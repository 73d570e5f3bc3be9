"""Links that stand still without breaking, as those of a stopped process do: what was said before
arrives all at once, behind decisions that were made without it."""
from __future__ import annotations

from collections.abc import Callable

import pytest

from repstore.sim.clock import NS_PER_S
from repstore.sim.cluster import SimulatedCluster
from repstore.sim.workload import FLUSH, WRITE, Ask, SimulatedClient
from tests.sim.rules import endless_writes
from tests.sim.scenarios import LIMIT_S, VOLUME

SIZE_BLOCKS = 2700
HOT = range(2500, 2690)
LEARN_STALL_S = 3.6              # it asks after two seconds of silence, and again one later
MEMBER_STALL_S = 2.3


def stalled(cluster: SimulatedCluster, length_s: float, meanwhile: Callable[[], None]) -> None:
    """Between n1 and n2 nothing arrives for so long; then everything, with what is written since."""
    ways = [("n1", "n2"), ("n2", "n1")]
    for way in ways:
        cluster.network.cut(*way)
    cluster.run_for(length_s)
    meanwhile()
    cluster.network.mend(ways)


@pytest.mark.parametrize("seed", [1, 2])
def test_the_end_of_an_earlier_copy_is_not_that_of_the_next(seed: int) -> None:
    """The word that it was copied arrives together with two requests to be: the first ends that copy, the
    second begins another, and what the first had come to is heard then (L5)."""
    cluster = SimulatedCluster(seed, nodes=3)
    cluster.create_volume(VOLUME, SIZE_BLOCKS, copies=2, min_copies=1)
    cluster.run_until(lambda: cluster.is_healthy(VOLUME), LIMIT_S)
    client = cluster.client(VOLUME, through="n3", depth=4,
                            asks=(Ask(WRITE, block, 1) for block in range(0, SIZE_BLOCKS, 2)))
    cluster.run_until(lambda: client.is_done, LIMIT_S)
    cluster.run_for(1.5)
    cluster.kill("n2")
    client.ask_more([*(Ask(WRITE, block, 1) for block in range(0, SIZE_BLOCKS // 2, 2)), Ask(FLUSH)])
    cluster.run_until(lambda: client.is_done, LIMIT_S)
    cluster.start("n2")
    primary = cluster.life("n1").engine
    index = cluster.volume(VOLUME).index

    def is_copied() -> bool:
        state = primary.volume_state(index)
        return state.learners == (1,) and 0 < state.resync_total_blocks <= state.resync_done_blocks

    cluster.run_until(is_copied, LIMIT_S)
    stalled(cluster, LEARN_STALL_S, lambda: client.ask_more(Ask(WRITE, block, 1, True) for block in HOT))
    cluster.run_until(lambda: cluster.is_healthy(VOLUME), LIMIT_S)
    cluster.network.drop("n1", "n2")           # what was still to come never comes then
    cluster.run_until(lambda: client.is_done, LIMIT_S)
    cluster.kill("n1")
    cluster.run_until(lambda: cluster.primary(VOLUME) == "n2", LIMIT_S)
    cluster.run_for(0.5)
    cluster.check(client)


def written_to(seed: int) -> tuple[SimulatedCluster, SimulatedClient]:
    """Two copies, of which none may be missing, and a client that goes on writing."""
    cluster = SimulatedCluster(seed, nodes=3)
    cluster.create_volume(VOLUME, SIZE_BLOCKS, copies=2, min_copies=2)
    cluster.run_until(lambda: cluster.is_healthy(VOLUME), LIMIT_S)
    client = cluster.client(VOLUME, through="n3", depth=4, asks=endless_writes())
    cluster.run_for(0.5)
    return cluster, client


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_member_that_asked_before_it_heard_what_was_on_its_way_stays(seed: int) -> None:
    """When its question arrives it has answered beyond it: what it seemed to lack is committed since, and
    it is not one that has to learn."""
    cluster, client = written_to(seed)
    members = cluster.volume(VOLUME).in_sync
    stalled(cluster, MEMBER_STALL_S, lambda: None)
    answered = client.acknowledged
    cluster.run_until(lambda: client.acknowledged > answered + 100, 1)
    cluster.run_for(2)
    assert cluster.volume(VOLUME).in_sync == members


@pytest.mark.parametrize("seed", range(4))
def test_what_was_asked_on_the_link_before_is_not_what_is_lacked_on_this_one(seed: int) -> None:
    """Control is late: it answers what a member asked before that went on, and before its link broke and
    came back; then what it asked on the new one. The first is no answer to the second."""
    cluster, client = written_to(seed)
    members = cluster.volume(VOLUME).in_sync
    primary = cluster.life(cluster.primary(VOLUME))
    stalled(cluster, MEMBER_STALL_S, lambda: primary.hold_control_until(cluster.clock.now_ns + NS_PER_S))
    cluster.run_for(0.3)
    cluster.network.drop("n1", "n2")
    cluster.run_for(3)
    assert cluster.volume(VOLUME).in_sync == members
    cluster.attach(client, VOLUME, through="n1")
    cluster.check(client)
