"""What a copy says it did durably, it did: that it is sealed, and that it joined."""
from __future__ import annotations

import numpy as np

from repstore._fast.layout import FRAME_COPY, FRAME_FLUSH, FRAME_LEARN, FRAME_SEALED, JOIN_FLAG
from repstore._fast.simulated import DiskWrite
from repstore.sim.clock import NS_PER_S
from repstore.sim.cluster import SimulatedCluster
from repstore.sim.disk import DiskAsk
from repstore.sim.workload import WRITE, Ask, SimulatedClient
from tests.sim.rules import apart, cluster_of, durable_engine, on_the_way, sent_by, tell, together
from tests.sim.scenarios import LIMIT_S, VOLUME


def n2_away(seed: int) -> tuple[SimulatedCluster, SimulatedClient]:
    """It is down and out of sync, and lacks something."""
    cluster = cluster_of(seed, copies=2, min_copies=1)
    client = cluster.client(VOLUME, through="n3", asks=iter([Ask(WRITE, 0, 8)]))
    cluster.run_until(lambda: client.is_done, LIMIT_S)
    cluster.kill("n2")
    cluster.run_until(lambda: len(cluster.volume(VOLUME).in_sync) == 1, LIMIT_S)
    client.ask_more([Ask(WRITE, 0, 8)])
    cluster.run_until(lambda: client.is_done, LIMIT_S)
    return cluster, client


def test_a_seal_is_told_when_it_is_durable_and_not_when_an_older_one_is() -> None:
    """n1 asks n2 to seal at 5, and at 6 while 5 is being written; the write of 6 takes longer (R3)."""
    cluster = cluster_of(4, copies=2, min_copies=1)
    cluster.run_for(3)
    for node in cluster.world.nodes.values():
        if node.life is not None:
            node.life.hold_control_until(cluster.clock.now_ns + 5 * NS_PER_S)
    told = sent_by(cluster, "n2", FRAME_SEALED)
    disk = cluster.node("n2").disk
    begin = disk.begin
    writes: list[int] = []

    def later_is_slower(ask: DiskAsk) -> int:
        if isinstance(ask, DiskWrite):
            writes.append(ask.operation)
            return begin(ask) + NS_PER_S * (len(writes) - 1) + NS_PER_S // 100
        return begin(ask)

    disk.begin = later_is_slower               # type: ignore[method-assign]
    engine = cluster.life("n1").engine
    for epoch in (5, 6):
        engine.seal_peer(1, epoch, 1)
        cluster.life("n1").run()
        cluster.run_for(0.002)
    cluster.run_until(lambda: bool(told), LIMIT_S)
    said = int(told[-1]["epoch"])
    assert durable_engine(cluster, "n2").volume_state(1).sealed_epoch >= said


def test_a_joiner_that_begins_anew_says_flushed_of_what_it_was_sent_then() -> None:
    """Its first session ends while its disk still writes that it joined; in the second one it is sent what
    was written meanwhile. The end of that first write says nothing of what the second session asked for."""
    cluster, client = n2_away(5)
    asked = sent_by(cluster, "n1", FRAME_FLUSH)
    cluster.start("n2")
    cluster.run_until(lambda: bool(asked) and bool(asked[-1]["flags"] & JOIN_FLAG), LIMIT_S)
    disk = cluster.node("n2").disk
    begin = disk.begin
    writes: list[int] = []

    def later_is_slower(ask: DiskAsk) -> int:
        if isinstance(ask, DiskWrite):
            writes.append(ask.operation)
            return begin(ask) + NS_PER_S * (3 if len(writes) == 1 else 30)
        return begin(ask)

    disk.begin = later_is_slower               # type: ignore[method-assign]
    cluster.run_until(lambda: bool(writes), LIMIT_S)
    apart(cluster, "n1", "n2")
    cluster.run_for(0.01)
    client.ask_more([Ask(WRITE, 64, 4)])
    cluster.run_until(lambda: client.is_done, 1)
    together(cluster, "n1", "n2")
    if not cluster.comes_to(lambda: cluster.is_healthy(VOLUME), 10):
        return                                 # its second flush is waited for
    disk._part = lambda write: None            # type: ignore[method-assign]  # nothing under way is there
    cluster.kill("n2")
    cluster.kill("n1")
    cluster.start("n2")
    cluster.run_until(lambda: cluster.primary(VOLUME) == "n2", LIMIT_S)
    cluster.check(client)


def test_an_older_sessions_request_to_flush_does_not_complete_a_new_one() -> None:
    """It comes late, while copies of the new session are still on their way; then that one ends too."""
    cluster, client = n2_away(8)
    late: list[bytes] = []
    learns: list[int] = []

    def look(sender: str, header: np.void, data: bytes) -> bytes | None:
        if header["type"] == FRAME_FLUSH and header["flags"] & JOIN_FLAG and not late:
            late.append(data)
            apart(cluster, "n1", "n2")
            return None
        if header["type"] == FRAME_LEARN:
            learns.append(int(header["lsn"]))
        return None if header["type"] == FRAME_COPY and len(learns) == 2 else data

    on_the_way(cluster, look)
    cluster.start("n2")
    cluster.run_until(lambda: bool(late), LIMIT_S)
    cluster.run_for(0.01)
    client.ask_more(64 * [Ask(WRITE, 0, 64)])  # after so many blocks a younger change bitmap is begun
    cluster.run_until(lambda: client.is_done, LIMIT_S)
    together(cluster, "n1", "n2")
    cluster.run_until(lambda: len(learns) == 2, LIMIT_S)
    cluster.run_for(0.01)
    tell(cluster, "n2", "n1", late[0])
    cluster.run_for(0.05)
    cluster.network.drop("n1", "n2")
    cluster.run_until(lambda: cluster.is_healthy(VOLUME), LIMIT_S)
    cluster.kill("n1")
    cluster.run_until(lambda: cluster.primary(VOLUME) == "n2", LIMIT_S)
    cluster.check(client)
