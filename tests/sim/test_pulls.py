"""A candidate that fetches another's tail while somebody else comes to lead that epoch (R5)."""
from __future__ import annotations

import numpy as np
import pytest

from repstore._fast.layout import (
    FRAME_ACK,
    FRAME_APPEND,
    FRAME_COMMIT,
    FRAME_PULL,
    FRAME_TAIL,
    FRAME_WANT,
    LAST_FLAG,
)
from repstore.sim.clock import NS_PER_S
from repstore.sim.cluster import SimulatedCluster
from repstore.sim.workload import WRITE, Ask, SimulatedClient
from tests.sim.rules import HEADER_BYTES, cluster_of, last_lsn, on_the_way, sealed, sent_by, tell
from tests.sim.scenarios import LIMIT_S, VOLUME

OLD, NEW = range(8, 32, 8), range(64, 80, 8)     # blocks of what n1 alone has, and of what n2 acknowledges
N2 = 1
PROMPTLY_S = 2.0                 # less than it takes to notice that a member is silent


def sealed_epoch(cluster: SimulatedCluster, name: str) -> int:
    return cluster.life(name).engine.volume_state(1).sealed_epoch


def hold_control(cluster: SimulatedCluster, name: str, seconds: int) -> None:
    cluster.life(name).hold_control_until(cluster.clock.now_ns + seconds * NS_PER_S)


def ask(cluster: SimulatedCluster, name: str, verb: str, *arguments: int) -> None:
    """A verb of Python's, of the one volume."""
    getattr(cluster.life(name).engine, verb)(1, *arguments)
    cluster.life(name).run()


def led_by_n1(seed: int) -> tuple[SimulatedCluster, SimulatedClient]:
    """Three copies at rest, and their client."""
    cluster = cluster_of(seed, copies=3, min_copies=1)
    client = cluster.client(VOLUME, through="n1", asks=iter([Ask(WRITE, 0, 8)]), depth=8)
    cluster.run_until(lambda: client.is_done, LIMIT_S)
    cluster.run_for(0.1)
    return cluster, client


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


@pytest.mark.parametrize("order", [(FRAME_TAIL, FRAME_COMMIT, FRAME_APPEND),
                                   (FRAME_COMMIT, FRAME_TAIL, FRAME_APPEND)])
def test_what_a_member_pulled_does_not_count_as_the_new_primarys(order: tuple[int, ...]) -> None:
    """n3 pulls OLD from n1, before or after it hears n2, and writes it while n2 sends NEW at these LSNs."""
    cluster, client = led_by_n1(1)
    late: dict[int, list[tuple[str, bytes]]] = {kind: [] for kind in order}

    def hold(sender: str, header: np.void, data: bytes) -> bytes | None:
        if header["epoch"] == 3 and header["type"] in late:
            late[int(header["type"])].append((sender, data))
            return None
        if header["type"] == FRAME_PULL:
            hold_control(cluster, "n3", 3)     # else it would seal anew, its log has grown (P6 of promotion)
        return data

    on_the_way(cluster, hold)
    tails = sent_by(cluster, "n1", FRAME_TAIL)
    two_stand_for_one_epoch(cluster, client)
    cluster.network.mend([("n1", "n3")])
    cluster.run_until(lambda: bool(tails) and bool(tails[-1]["flags"] & LAST_FLAG), LIMIT_S)
    cluster.node("n3").disk.faults.slow_factor = 1000
    for kind in order:
        for sender, data in late[kind]:
            tell(cluster, "n3", sender, data)
        cluster.run_for(0.002)
    late.clear()
    cluster.run_until(lambda: client.is_done, PROMPTLY_S)
    cluster.kill("n2")                         # if n3 counted, it must have what was acknowledged
    cluster.network.heal()
    cluster.config_faults.clear()
    cluster.node("n3").disk.faults.clear()
    cluster.run_for(5)
    cluster.start("n2")
    cluster.run_until(lambda: cluster.is_healthy(VOLUME), LIMIT_S)
    cluster.attach(client, VOLUME, through="n2")
    cluster.check(client)


def test_nothing_is_pulled_at_an_epoch_that_somebody_leads() -> None:
    """Python asks for it as long as it has not heard."""
    cluster, _ = led_by_n1(2)
    asked = sent_by(cluster, "n3", FRAME_PULL)
    for epoch, asks in ((1, 0), (2, 1)):
        ask(cluster, "n3", "seal", epoch)
        ask(cluster, "n3", "pull", N2)
        cluster.run_for(0.001)
        assert len(asked) == asks


def test_who_is_sealed_tells_the_primary_of_before_nothing_of_what_it_pulls() -> None:
    cluster, client = led_by_n1(3)
    cluster.network.cut("n1", "n3")
    for name in ("n1", "n2", "n3"):
        hold_control(cluster, name, 4)
    begin_lsn = last_lsn(cluster, "n2")
    client.ask_more([Ask(WRITE, 0, 8)])
    cluster.run_until(lambda: last_lsn(cluster, "n2") == begin_lsn + 8, LIMIT_S)
    for name in ("n2", "n3"):
        ask(cluster, name, "seal", 2)
    cluster.run_for(0.01)
    said = sent_by(cluster, "n3", FRAME_ACK)
    ask(cluster, "n3", "pull", N2)
    cluster.run_for(0.1)
    assert last_lsn(cluster, "n3") == begin_lsn + 8
    assert said == []
    assert not client.is_done


def test_a_candidate_leads_without_a_tail_that_does_not_fit_its_log() -> None:
    """Both are clean, so neither acknowledged what differs."""
    cluster, client = led_by_n1(4)
    cluster.network.cut("n1", "n2")
    begin_lsn = last_lsn(cluster, "n3")
    client.ask_more([Ask(WRITE, 0, 8)])
    cluster.run_until(lambda: last_lsn(cluster, "n3") == begin_lsn + 8, LIMIT_S)

    def lie(sender: str, header: np.void, data: bytes) -> bytes:
        if header["type"] == FRAME_TAIL:
            header = header.copy()
            header["chain"] ^= 1
            return sealed(header, data[HEADER_BYTES:])
        return data

    on_the_way(cluster, lie)
    hold_control(cluster, "n3", 10)            # n2 alone stands
    cluster.kill("n1")
    cluster.run_until(lambda: cluster.volume(VOLUME).in_sync_nodes() == (N2,), 5)


def test_what_a_pull_lacked_is_asked_of_the_primary_that_comes() -> None:
    """n3 misses records of a tail, is sealed once more, and misses the first ones of the new primary."""
    cluster, client = led_by_n1(5)
    cluster.network.cut("n1", "n3")
    begin_lsn = last_lsn(cluster, "n3")
    client.ask_more([Ask(WRITE, 0, 8)])
    cluster.run_until(lambda: last_lsn(cluster, "n2") == begin_lsn + 8, LIMIT_S)
    spoilt: list[int] = []

    def spoil(sender: str, header: np.void, data: bytes) -> bytes:
        if sender == "n2" and header["body_bytes"] and header["type"] not in spoilt:
            spoilt.append(int(header["type"]))
            return data[:-1] + bytes([data[-1] ^ 1])
        return data

    hold_control(cluster, "n2", 1)
    hold_control(cluster, "n3", 4)
    cluster.kill("n1")
    on_the_way(cluster, spoil)
    for name in ("n2", "n3"):
        ask(cluster, name, "seal", 2)
    cluster.run_for(0.01)
    ask(cluster, "n3", "pull", N2)
    cluster.run_until(lambda: FRAME_APPEND in spoilt, LIMIT_S)
    assert spoilt == [FRAME_TAIL, FRAME_APPEND]
    cluster.run_until(lambda: last_lsn(cluster, "n3") == last_lsn(cluster, "n2"), PROMPTLY_S)
    cluster.start("n1")
    cluster.run_until(lambda: cluster.is_healthy(VOLUME), LIMIT_S)
    cluster.attach(client, VOLUME, through="n2")
    cluster.check(client)


def test_who_is_sealed_while_it_follows_and_told_to_follow_asks_to_be_served() -> None:
    """n2's control code is late: it stood for an epoch that n1 leads, and n1 has ejected it since."""
    cluster, _ = led_by_n1(6)
    epoch = cluster.volume(VOLUME).epoch
    hold_control(cluster, "n2", 5)
    cluster.life("n1").engine.set_members(1, [2])
    wants = sent_by(cluster, "n2", FRAME_WANT)
    ask(cluster, "n2", "seal", epoch + 1)
    ask(cluster, "n2", "follow", epoch, 0, False)
    cluster.run_for(0.5)
    assert wants
