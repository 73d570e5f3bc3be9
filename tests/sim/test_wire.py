"""Blocks that are damaged between two nodes reach no log: the checksum was taken at the client."""
from __future__ import annotations

import pytest

from repstore.sim.cluster import SimulatedCluster
from repstore.sim.network import Peer
from tests.sim.scenarios import LIMIT_S, VOLUME, go_on, healthy_cluster

EVERY = 7                        # messages with blocks in them; one of so many is damaged
MESSAGE_BYTES = 4096


def damage(cluster: SimulatedCluster, sender: str) -> list[int]:
    """From now on some messages of this node have a bit of their last block turned over; how many grows."""
    send, seen, damaged = cluster.network.send, [0], []

    def rotten(owner: Peer, link: int, token: int, data: bytes) -> None:
        if owner.name == sender and len(data) > MESSAGE_BYTES:
            seen[0] += 1
            if seen[0] % EVERY == 0:
                data = data[:-100] + bytes([data[-100] ^ 1]) + data[-99:]
                damaged.append(seen[0])
        send(owner, link, token, data)

    cluster.network.send = rotten              # type: ignore[method-assign]
    return damaged


@pytest.mark.parametrize("sender", ["n1", "n2"])       # the primary; the node with the client
def test_damaged_blocks_are_asked_for_again(sender: str) -> None:
    cluster = healthy_cluster(11)
    damaged = damage(cluster, sender)
    client = cluster.client(VOLUME, through="n2")
    cluster.run_until(lambda: len(damaged) >= 3, LIMIT_S)
    del cluster.network.send                   # type: ignore[method-assign]
    go_on(cluster, client)
    cluster.run_until(lambda: cluster.is_healthy(VOLUME), LIMIT_S)
    cluster.drain(client)
    cluster.run_for(1)
    cluster.kill("n1")                         # the others' copies are read now
    cluster.check(client)
    # nothing had to be repaired: what was damaged never came into a log
    assert [cluster.life(name).engine.stats()["bad_blocks"] for name in ("n2", "n3")] == [0, 0]
