"""A candidate that fetches another's tail while somebody else comes to lead that epoch (R5)."""
from __future__ import annotations

import numpy as np
import pytest

from repstore._fast.layout import FRAME_PULL, FRAME_TAIL, LAST_FLAG
from repstore.sim.clock import NS_PER_S
from repstore.sim.cluster import SimulatedCluster
from repstore.sim.workload import WRITE, Ask, SimulatedClient
from tests.sim.rules import cluster_of, on_the_way, sent_by
from tests.sim.scenarios import LIMIT_S, VOLUME

OLD, NEW = range(8, 32, 8), range(64, 80, 8)     # blocks of what n1 alone has, and of what n2 acknowledges
SLOW_FACTOR = 1000


def last_lsn(cluster: SimulatedCluster, name: str) -> int:
    """Where what a copy has written ends."""
    return cluster.life(name).engine.volume_state(1).last_lsn


def sealed_epoch(cluster: SimulatedCluster, name: str) -> int:
    return cluster.life(name).engine.volume_state(1).sealed_epoch


def hold_control(cluster: SimulatedCluster, name: str, seconds: int) -> None:
    cluster.life(name).hold_control_until(cluster.clock.now_ns + seconds * NS_PER_S)


def two_stand_for_one_epoch(cluster: SimulatedCluster, client: SimulatedClient) -> None:
    """n1 has OLD, and nobody else: it reaches nobody. The client goes on through n2 and asks for NEW. n2 and
    n3 stand; n2 wins, which n3 does not hear, after n3 told it where its log ends."""
    for way in (("n1", "n2"), ("n2", "n1"), ("n1", "n3"), ("n3", "n2")):
        cluster.network.cut(*way)
    hold_control(cluster, "n1", 10)
    begin_lsn = last_lsn(cluster, "n1")
    client.ask_more([Ask(WRITE, 0, 1)])        # as long as the record that an epoch begins with
    cluster.run_until(lambda: last_lsn(cluster, "n1") == begin_lsn + 1, LIMIT_S)
    client.ask_more(Ask(WRITE, first, 8) for first in OLD)
    cluster.run_until(lambda: last_lsn(cluster, "n1") == begin_lsn + 1 + 8 * len(OLD), LIMIT_S)
    cluster.attach(client, VOLUME, through="n2")
    client.ask_more(Ask(WRITE, first, 8) for first in NEW)
    cluster.run_until(lambda: sealed_epoch(cluster, "n3") == 3, LIMIT_S)      # n2 has asked it, for epoch 2
    cluster.config_faults.away.add("n3")
    cluster.network.mend([("n3", "n2")])
    cluster.run_until(lambda: cluster.primary(VOLUME) == "n2", LIMIT_S)
    assert cluster.volume(VOLUME).epoch == 3


@pytest.mark.xfail(strict=True, reason="what n3 pulled counts as n2's")
def test_what_a_member_pulled_from_another_copy_does_not_count_as_the_new_primarys() -> None:
    """n3 has pulled OLD from n1, and writes it while n2 sends NEW at the same LSNs."""
    cluster = cluster_of(1, copies=3, min_copies=1)
    client = cluster.client(VOLUME, through="n1", asks=iter([Ask(WRITE, 0, 8)]), depth=8)
    cluster.run_until(lambda: client.is_done, LIMIT_S)
    cluster.run_for(0.1)
    two_stand_for_one_epoch(cluster, client)
    cluster.network.cut("n2", "n3")
    cluster.node("n3").disk.faults.slow_factor = SLOW_FACTOR
    tails = sent_by(cluster, "n1", FRAME_TAIL)

    def slow_python(sender: str, header: np.void, data: bytes) -> bytes:
        if sender == "n3" and header["type"] == FRAME_PULL:
            hold_control(cluster, "n3", 3)
        return data

    on_the_way(cluster, slow_python)
    cluster.network.mend([("n1", "n3")])
    cluster.run_until(lambda: bool(tails) and bool(tails[-1]["flags"] & LAST_FLAG), LIMIT_S)
    cluster.run_for(0.001)
    cluster.network.mend([("n2", "n3")])
    cluster.run_until(lambda: client.is_done, LIMIT_S)
    cluster.kill("n2")                         # if n3 counted, it must have what was acknowledged
    cluster.network.heal()
    cluster.config_faults.clear()
    cluster.node("n3").disk.faults.clear()
    cluster.run_for(5)
    cluster.start("n2")
    cluster.run_until(lambda: cluster.is_healthy(VOLUME), LIMIT_S)
    cluster.attach(client, VOLUME, through="n2")
    cluster.check(client)
