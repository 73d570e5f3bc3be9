"""A copy that had committed what a tainted primary lost is copied anew: its map is of another history."""
from repstore.sim.cluster import SimulatedCluster
from repstore.sim.workload import FLUSH, WRITE, Ask


def test_a_copy_of_another_history_is_copied_anew() -> None:
    cluster = SimulatedCluster(4, nodes=3, store_bytes=2 << 20, segment_bytes=64 << 10)
    cluster.create_volume("demo", 64, copies=2, first_node=1)
    cluster.run_until(lambda: cluster.is_healthy("demo"), 10)
    client = cluster.client("demo", through="n1", asks=iter([Ask(WRITE, 0, 8), Ask(FLUSH)]), depth=1)
    cluster.run_until(lambda: client.is_done, 10)
    client.ask_more([Ask(WRITE, first, 8) for first in range(8, 64, 8)])
    cluster.run_until(lambda: client.is_done, 10)
    for name in ("n2", "n3"):                            # neither has flushed these
        cluster.cut_power(name)
    for name in ("n2", "n3"):
        cluster.start(name)
    cluster.run_until(lambda: cluster.is_healthy("demo") and cluster.volume("demo").incarnation == 1, 20)
    cluster.attach(client, "demo", through="n1")
    cluster.check(client)
    cluster.run_for(1)
    states = [cluster.life(name).engine.volume_state(1) for name in ("n2", "n3")]
    assert states[0].chain == states[1].chain
