"""What simulated clusters do happens in the model; what they must not do does not."""
from collections.abc import Callable

import pytest

from repstore.sim.cluster import SimulatedCluster
from tests.model.trace import Moment, Recorder, TraceError, replay
from tests.sim.scenarios import LIMIT_S, VOLUME, healthy_cluster


def primary_dies(cluster: SimulatedCluster) -> None:
    """Failover, and the dead primary comes back as a learner."""
    cluster.kill("n1")
    cluster.run_until(lambda: cluster.primary(VOLUME) != "n1", LIMIT_S)
    cluster.run_for(0.1)
    cluster.start("n1")


def replica_dies(cluster: SimulatedCluster) -> None:
    """Eject, more writes, rejoin."""
    cluster.kill("n3")
    cluster.run_until(lambda: len(cluster.volume(VOLUME).in_sync) == 2, LIMIT_S)
    cluster.run_for(0.05)
    cluster.start("n3")


def replica_loses_power(cluster: SimulatedCluster) -> None:
    """The same with taint."""
    cluster.cut_power("n3")
    cluster.run_until(lambda: len(cluster.volume(VOLUME).in_sync) == 2, LIMIT_S)
    cluster.run_for(0.05)
    cluster.start("n3")


def recorded(seed: int, happens: Callable[[SimulatedCluster], None]) -> list[Moment]:
    """A cluster at rest, a little load, what happens, and all in sync again."""
    cluster = healthy_cluster(seed)
    cluster.run_for(2)
    recorder = Recorder(cluster, VOLUME)
    client = cluster.client(VOLUME, through="n2")
    cluster.run_for(0.05)
    happens(cluster)
    cluster.run_until(lambda: cluster.is_healthy(VOLUME), LIMIT_S)
    cluster.drain(client)
    return recorder.end()


def acknowledged_too_early(moments: list[Moment]) -> list[Moment]:
    """What the primary acknowledged after it ejected a member, acknowledged before."""
    swap = next(i for i, moment in enumerate(moments) if moment.view[0][2] == 0b011)
    later = next(moment.view[1][4] for moment in moments[swap:]
                 if moment.view[1][4] > moments[swap].view[1][4])
    config, (sealed, last, leads, counting, _), *rest = moments[swap - 1].view
    too_early = Moment((config, (sealed, max(last, later), leads, counting, later), *rest))
    return [*moments[:swap], too_early, *moments[swap:]]


def test_a_failover_and_a_rejoin_replay_in_the_model() -> None:
    moments = recorded(1, primary_dies)
    assert moments[-1].view[0] == (2, moments[-1].view[0][1], 0b111)
    assert replay(moments) > 15


def test_what_was_on_its_way_to_the_disk_at_a_kill_is_there_from_then_on() -> None:
    """Not only when the node is back: it is no member then, and takes nothing from anybody."""
    moments = recorded(2, replica_dies)
    ejected = next(moment for moment in moments if moment.view[0][2] == 0b011)
    back = next(moment for moment in moments if moment.crash == ("kill", 2))
    assert ejected.view[3][1] == back.view[3][1]
    replay(moments)


@pytest.mark.slow
@pytest.mark.parametrize("happens", [primary_dies, replica_dies, replica_loses_power])
@pytest.mark.parametrize("seed", range(2, 4))
def test_more_runs_replay_in_the_model(seed: int, happens: Callable[[SimulatedCluster], None]) -> None:
    replay(recorded(seed, happens))


def test_an_acknowledgement_before_the_outcome_of_the_eject_is_refused() -> None:
    moments = recorded(3, replica_dies)
    replay(moments)
    with pytest.raises(TraceError, match="no step of the model"):
        replay(acknowledged_too_early(moments))


def test_a_primary_of_an_epoch_that_nobody_won_is_refused() -> None:
    moments = recorded(1, primary_dies)
    won = next(i for i, moment in enumerate(moments) if moment.view[0][0] == 2)
    config = moments[won - 1].view[0]
    early = [*moments[:won], Moment((config, *moments[won].view[1:])), *moments[won:]]
    with pytest.raises(TraceError, match="no step of the model"):
        replay(early)
