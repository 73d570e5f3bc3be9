"""What simulated clusters do happens in the model; what they must not do does not."""
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pytest

from repstore.sim.cluster import SimulatedCluster
from repstore.sim.plan import NO_NODE, draw
from tests.model.episodes import Episode, Moment, episodes
from tests.model.replay import TraceError, main, recorded, replay, replayed
from tests.model.search import STEPS
from tests.model.trace import Recorder
from tests.sim.scenarios import LIMIT_S, VOLUME, healthy_cluster

SEALED, LEAST, MOST, LEADS, COUNTING, LEARNERS, DONE_LEAST, DONE_MOST = range(8)     # of a node's view


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


def seen(seed: int, happens: Callable[[SimulatedCluster], None]) -> Episode:
    """A cluster at rest, a little load, what happens, and all in sync again."""
    cluster = healthy_cluster(seed)
    cluster.run_for(2)
    recorder = Recorder(cluster, VOLUME)
    client = cluster.client(VOLUME, through="n2")
    cluster.run_for(0.05)
    happens(cluster)
    cluster.run_until(lambda: cluster.is_healthy(VOLUME), LIMIT_S)
    cluster.drain(client)
    cluster.run_until(lambda: recorder.looks[-1].at_rest, LIMIT_S)
    recorder.end()
    episode, = episodes(recorder)
    assert episode.whole
    return episode


def tampered(episode: Episode, number: int, node: int, **values: int) -> Episode:
    """As if this node had looked otherwise at moment `number`, and until it changed anyhow."""
    (config, nodes), crash = episode.moments[number].view, episode.moments[number].crash
    changed = list(nodes[node])
    for name, value in values.items():
        changed[globals()[name.upper()]] = value
    moment = Moment((config, (*nodes[:node], tuple(changed), *nodes[node + 1:])), crash)
    return replace(episode, moments=[*episode.moments[:number], moment, *episode.moments[number + 1:]])


def first(episode: Episode, condition: Callable[[Moment], bool]) -> int:
    """Number of the first moment that is so."""
    return next(number for number, moment in enumerate(episode.moments) if condition(moment))


# ------------------------------------------------------------------------------------- it happens

@pytest.mark.parametrize("happens", [primary_dies, replica_dies, replica_loses_power])
def test_what_happens_to_a_cluster_happens_in_the_model(happens: Callable[[SimulatedCluster], None]) -> None:
    episode = seen(2, happens)
    assert len(episode.moments) > 8
    assert (episode.moments[-1].view[0][0] == 2) == (happens is primary_dies)
    replay(episode)


def test_what_was_on_its_way_to_the_disk_at_a_kill_is_there_from_then_on() -> None:
    """Not only when the node is back: it is no member then, and takes nothing from anybody."""
    episode = seen(2, replica_dies)
    ejected = first(episode, lambda moment: moment.view[0][2] == 0b011)
    before = {moment.view[1][2][LEAST:LEADS] for moment in episode.moments[:ejected]}
    assert max(least for least, _ in before) == max(most for _, most in before), "as long as when it is back"
    replay(episode)


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [range(1, 76), range(76, 151)], ids=str)
def test_what_random_seeds_do_happens_in_the_model(seeds: range) -> None:
    """Every one whose disks do not lose what they acknowledged."""
    tally: Counter[str] = Counter()
    assert [line for seed in seeds for line in replayed(seed, tally)] == []
    assert tally["episodes"] > len(seeds), tally
    assert tally["crashes"] > 2 * len(seeds), tally
    assert tally["epochs"] > len(seeds), tally


@pytest.mark.parametrize("seeds", ["5..1", "x..2", "7"])
def test_seeds_that_are_no_range_are_refused(seeds: str, monkeypatch: pytest.MonkeyPatch,
                                             capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["replay", "--seeds", seeds])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert seeds in capsys.readouterr().err


# ------------------------------------------------------------------------------------- it does not

def test_an_acknowledgement_before_the_outcome_of_the_eject_is_refused() -> None:
    """What the primary acknowledged after it ejected a member, acknowledged before."""
    episode = seen(3, replica_dies)
    replay(episode)
    ejected = first(episode, lambda moment: moment.view[0][2] == 0b011)
    done = episode.moments[ejected].view[1][0][DONE_MOST]
    later = next(moment.view[1][0][DONE_MOST] for moment in episode.moments[ejected:]
                 if moment.view[1][0][DONE_MOST] > done)
    with pytest.raises(TraceError, match="no step of the model"):
        replay(tampered(episode, ejected - 1, 0, most=later, done_least=later, done_most=later))


def test_a_primary_of_an_epoch_that_nobody_won_is_refused() -> None:
    episode = seen(1, primary_dies)
    won = first(episode, lambda moment: moment.view[0][0] == 2)
    leader = episode.moments[won].view[0][1]
    counting = episode.moments[won].view[1][leader][COUNTING]
    with pytest.raises(TraceError, match="no step of the model"):
        replay(tampered(episode, won - 1, leader, leads=2, counting=counting))


def test_a_member_that_counts_before_its_join_is_refused() -> None:
    episode = seen(2, replica_dies)
    joined = 1 + max(number for number, moment in enumerate(episode.moments) if moment.view[0][2] == 0b011)
    with pytest.raises(TraceError, match="no step of the model"):
        replay(tampered(episode, joined - 1, 0, counting=0b110))


@pytest.mark.parametrize("flushed", [1, 2])
def test_a_copy_that_comes_back_shorter_than_what_it_flushed_is_refused(flushed: int) -> None:
    """A machine that lost power keeps what was on its disk, and nothing else is sure."""
    leader, copy = (1, 2, 2, 1, 0b110, 0, 2, 2), (1, 2, 2, 0, 0, 0, 0, 0)
    rest = Moment(((1, 0, 0b111), (leader, copy, copy)))
    back = replace(rest, crash=(STEPS.index("cut power"), 2))
    episode = Episode(0, [rest, back], lsns=2, last=2, flushed=(2, 2, flushed), whole=True)
    replay(episode)
    shorter = tampered(episode, 1, 2, least=1, most=1)
    if flushed == 1:
        replay(shorter)
        return
    with pytest.raises(TraceError, match="no step of the model"):
        replay(shorter)


@pytest.mark.slow
def test_seals_that_go_back_are_refused_wherever_they_happen() -> None:
    """In what random seeds do: a node that refused an epoch takes it again."""
    refused = 0
    for seed in range(1, 26):
        plan = draw(seed)
        if plan.setup.bad_disk != NO_NODE:
            continue
        for recorder in recorded(plan):
            for episode in episodes(recorder):
                last = len(episode.moments) - 1
                for node, view in enumerate(episode.moments[last].view[1]):
                    if view[SEALED] > episode.moments[0].view[1][node][SEALED] and not view[LEADS]:
                        with pytest.raises(TraceError, match="no step of the model"):
                            replay(tampered(episode, last, node, sealed=view[SEALED] - 1))
                        refused += 1
    assert refused > 10
