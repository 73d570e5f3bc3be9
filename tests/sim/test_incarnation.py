"""D2: whoever loses acknowledged writes is told at once, not when its node looks at the config."""
import pytest

from repstore.sim.cluster import SimulatedCluster
from repstore.sim.workload import WRITE, Ask


@pytest.mark.fault("crash: power of all copies, acknowledged writes lost",
                   promise="the client's session is refused, never silently continued")
def test_a_session_whose_writes_were_lost_is_refused_by_the_new_primary_itself() -> None:
    cluster = SimulatedCluster(1, nodes=2, store_bytes=2 << 20, segment_bytes=64 << 10)
    cluster.create_volume("demo", 64, copies=1, first_node=1)
    cluster.run_until(lambda: cluster.is_healthy("demo"), 10)
    client = cluster.client("demo", through="n1", asks=iter([Ask(WRITE, i * 4, 4) for i in range(16)]))
    cluster.run_until(lambda: client.is_done, 10)
    cluster.config_faults.away.add("n1")                 # its node hears nothing of it
    cluster.cut_power("n2")
    cluster.start("n2")
    cluster.run_until(lambda: cluster.volume("demo").incarnation == 1, 10)
    client.ask_more([Ask(WRITE, 0, 4)])
    cluster.run_until(lambda: client.session_over, 10)
    assert client.acknowledged == 16
