"""Clocks that run at different speeds: leases and grace are counted by different ones.

A primary that is cut off from everybody goes on answering reads until its lease is over, by its own
clock; the others let nobody lead before the grace is over, by theirs. Another client writes as soon as
another node leads. What both were told, under the one true time, is judged by the history checker.
"""
from __future__ import annotations

from dataclasses import dataclass

import pytest

from repstore import config
from repstore.check.history import Verdict
from repstore.format import BLOCK_SIZE
from repstore.sim.clock import NS_PER_S, PPM
from repstore.sim.cluster import SimulatedCluster
from repstore.sim.history import ClientHistory, Line
from repstore.sim.plan import DRIFT_PPM_MOST
from repstore.sim.workload import READ, WRITE, Ask, Operation, SimulatedClient, stamps_of
from tests.sim.rules import SIZE_BLOCKS, cluster_of
from tests.sim.scenarios import LIMIT_S, VOLUME

READ_EVERY_NS = 5_000_000
CALM_S = 5.0                          # everything is well, but for the clocks
AFTER_S = 3.0                         # another one leads: longer than any lease lasts
TAKEOVER_S = 2.0                      # from the end of the grace: to stand, gather, seal and swap
SECOND_STAMP = 1_000_000              # of the other client's first write: no value is written twice
LIMIT_PPM, FAR_PPM = DRIFT_PPM_MOST, 400_000
SHORT_GRACE_S = 1.0                   # less than a lease, by more than it takes to gather and be promoted
# of n1, which leads, n2 and n3
DRIFTS_PPM = {
    "the primary's clock is slow, all others are fast": (-LIMIT_PPM, LIMIT_PPM, LIMIT_PPM),
    "the primary's clock is fast, all others are slow": (LIMIT_PPM, -LIMIT_PPM, -LIMIT_PPM),
    "the primary's clock is slow, one other is fast": (-LIMIT_PPM, LIMIT_PPM, -LIMIT_PPM),
    "the primary's clock is slow, the next in line is slow, too": (-LIMIT_PPM, -LIMIT_PPM, LIMIT_PPM),
}
FAR_PPMS = (-FAR_PPM, FAR_PPM, FAR_PPM)


class TrueHistory:
    """What several clients of one volume were told, with true times."""

    def __init__(self, cluster: SimulatedCluster) -> None:
        self._cluster = cluster
        self._history = ClientHistory(SIZE_BLOCKS, BLOCK_SIZE)
        self._lines: dict[Operation, Line] = {}

    def listen(self, client: SimulatedClient) -> None:
        client.on_asked, client.on_answered = self._asked, self._answered

    def _asked(self, operation: Operation) -> None:
        values = [operation.stamp] if operation.ask.kind == WRITE else []
        line = Line(operation.line.kind, self._cluster.clock.now_ns, operation.ask.first, 1, values=values)
        self._lines[operation] = line
        self._history.lines.append(line)

    def _answered(self, operation: Operation) -> None:
        line = self._lines.pop(operation)
        line.end = self._cluster.clock.now_ns
        if operation.ask.kind == READ:
            line.values = stamps_of(operation.memory[:BLOCK_SIZE])

    def verdict(self) -> Verdict:
        return self._history.verdict()


@dataclass
class Scene:
    """What became of a primary that was cut off while its client read every READ_EVERY_NS."""
    cluster: SimulatedCluster
    verdict: Verdict
    reads_in_calm: int
    reads_cut_off: int                # answered after the cut, before another one led
    reads_left_behind: int            # answered after that
    takeover_s: float                 # from the cut, in true seconds
    is_over: bool                     # the client that was left behind was told so


def drifting(drifts_ppm: tuple[int, ...], seed: int) -> SimulatedCluster:
    cluster = cluster_of(seed, copies=3, min_copies=2)
    cluster.world.death_is_proved = False
    for number, drift_ppm in enumerate(drifts_ppm):
        cluster.world.nodes[number].clock.set_drift(drift_ppm)
    return cluster


def reader(cluster: SimulatedCluster, told: TrueHistory) -> SimulatedClient:
    """A client of n1 that has written a block, and reads it for as long as the scene lasts."""
    client = cluster.client(VOLUME, through="n1", depth=1, asks=iter([Ask(WRITE, 0, 1)]))
    told.listen(client)
    cluster.run_until(lambda: client.is_done, LIMIT_S)
    times = range(cluster.clock.now_ns, cluster.clock.now_ns + 20 * NS_PER_S, READ_EVERY_NS)
    client.ask_more(Ask(READ, 0, 1, due_ns=due_ns) for due_ns in times)
    for due_ns in times:
        cluster.clock.at(due_ns, client.wake)
    return client


def left_behind(drifts_ppm: tuple[int, ...], seed: int) -> Scene:
    cluster = drifting(drifts_ppm, seed)
    told = TrueHistory(cluster)
    old = reader(cluster, told)
    epoch = cluster.volume(VOLUME).epoch
    cluster.run_for(CALM_S)
    in_calm = old.acknowledged
    assert cluster.volume(VOLUME).epoch == epoch, "nobody had a reason to take over"
    cut_ns = cluster.clock.now_ns
    cluster.config_faults.away.add("n1")
    for other in ("n2", "n3"):
        cluster.network.cut("n1", other)
        cluster.network.cut(other, "n1")
    cluster.run_until(lambda: cluster.primary(VOLUME) != "n1", LIMIT_S)
    takeover_s = (cluster.clock.now_ns - cut_ns) / NS_PER_S
    cut_off = old.acknowledged
    new = cluster.client(VOLUME, through=cluster.primary(VOLUME), asks=iter([Ask(WRITE, 0, 1)]))
    new._next_stamp = SECOND_STAMP
    told.listen(new)
    cluster.run_until(lambda: new.is_done, LIMIT_S)
    cluster.run_for(AFTER_S)
    left = old.acknowledged
    cluster.network.heal()
    cluster.config_faults.clear()
    cluster.run_until(lambda: cluster.is_healthy(VOLUME) and not old.flying, LIMIT_S)
    return Scene(cluster, told.verdict(), in_calm, cut_off - in_calm, left - cut_off, takeover_s,
                 old.session_over)


@pytest.mark.fault("clock: drift of 2 % in opposite directions, the primary cut off from all others",
                   promise="leases hold without a fault; no stale read, another one leads in time, healed, "
                           "it converges")
@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("name", DRIFTS_PPM)
def test_clocks_at_the_limit_of_drift_let_nobody_read_what_is_old(name: str, seed: int) -> None:
    scene = left_behind(DRIFTS_PPM[name], seed)
    assert scene.verdict.consistent, str(scene.verdict.contradiction)
    # every read of the calm was answered, the lease lasted on, and ended before another one led
    assert scene.reads_in_calm >= CALM_S * NS_PER_S / READ_EVERY_NS
    assert scene.reads_cut_off > 0.5 * config.LEASE_S * NS_PER_S / READ_EVERY_NS
    assert scene.reads_left_behind == 0
    assert scene.takeover_s < config.GRACE_S * PPM / (PPM - LIMIT_PPM) + TAKEOVER_S
    assert scene.is_over
    writer = scene.cluster.client(VOLUME, through="n1", asks=iter([Ask(WRITE, 0, 8), Ask(READ, 0, 8)]))
    scene.cluster.run_until(lambda: writer.is_done, LIMIT_S)
    assert writer.errors == 0


@pytest.mark.parametrize("seed", range(2))
def test_clocks_beyond_what_leases_allow_for_give_a_stale_read(seed: int) -> None:
    """So the scene above would see one: a lease lasts 3.3 true seconds here, a grace 2.1."""
    scene = left_behind(FAR_PPMS, seed)
    assert scene.reads_left_behind > 0
    assert scene.verdict.contradiction is not None
    assert scene.verdict.contradiction.kind == "stale"


def test_a_grace_that_is_too_short_gives_a_stale_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the limit of drift it is the grace, and nothing else, that keeps everybody from it."""
    monkeypatch.setattr(config, "GRACE_S", SHORT_GRACE_S)
    scene = left_behind(DRIFTS_PPM["the primary's clock is slow, all others are fast"], seed=0)
    assert scene.reads_left_behind > 0
    assert not scene.verdict.consistent
