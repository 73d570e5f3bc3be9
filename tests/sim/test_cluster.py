"""Three engines of production on one seed: crash, failover, rejoin; and the same trace twice."""
import os
import subprocess
import sys

import pytest

from repstore.sim.cluster import SimulatedCluster
from tests.sim.scenarios import LIMIT_S, VOLUME, failover_and_rejoin, go_on, healthy_cluster, storm


@pytest.mark.parametrize("seed", range(1, 21))
@pytest.mark.fault("crash: the primary under load",
                   promise="another copy takes over, nothing acknowledged is lost")
def test_acknowledged_data_survives_the_crash_of_the_primary(seed: int) -> None:
    cluster = failover_and_rejoin(seed)
    assert len(cluster.volume(VOLUME).in_sync) == 3
    # by delta: nobody had to be given every block
    assert not any("resync_full" in line for line in cluster.trace.lines)


def test_the_same_seed_gives_the_same_trace_twice() -> None:
    first, second = failover_and_rejoin(7), failover_and_rejoin(7)
    assert len(first.trace.lines) > 1000
    assert bytes(first.trace) == bytes(second.trace)


def test_the_trace_depends_on_the_seed() -> None:
    assert bytes(failover_and_rejoin(1).trace) != bytes(failover_and_rejoin(2).trace)


def test_the_trace_does_not_depend_on_the_hash_seed_of_the_process() -> None:
    program = ("from tests.sim.scenarios import failover_and_rejoin\n"
               "print(failover_and_rejoin(2).trace.digest())")
    digests = {subprocess.run([sys.executable, "-c", program], env={**os.environ, "PYTHONHASHSEED": seed},
                              capture_output=True, text=True, check=True).stdout for seed in ("1", "2")}
    assert len(digests) == 1


@pytest.mark.parametrize("seed", range(1, 5))
def test_a_storm_of_faults_loses_nothing(seed: int) -> None:
    storm(seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5, 65))
def test_more_storms_lose_nothing(seed: int) -> None:
    storm(seed)


@pytest.mark.parametrize("seed", range(1, 4))
def test_a_client_on_a_node_without_a_copy_sees_a_pause(seed: int) -> None:
    cluster = healthy_cluster(seed, nodes=4)
    client = cluster.client(VOLUME, through="n4")
    cluster.run_for(0.05)
    for _ in range(2):
        primary = cluster.primary(VOLUME)
        cluster.kill(primary)
        go_on(cluster, client)
        cluster.start(primary)
        cluster.run_until(lambda: cluster.is_healthy(VOLUME), LIMIT_S)
    cluster.check(client)


def test_the_client_notices_a_block_that_is_not_what_it_may_be() -> None:
    cluster = healthy_cluster(1)
    client = cluster.client(VOLUME, through="n1")
    cluster.run_for(0.02)
    cluster.drain(client)
    client.expectation.settle(3, 123456789)
    with pytest.raises(AssertionError, match="block 3 reads as"):
        cluster.check(client)


def test_a_node_that_runs_cannot_be_started() -> None:
    cluster = SimulatedCluster(1)
    with pytest.raises(AssertionError, match="n1 runs"):
        cluster.start("n1")
    cluster.kill("n1")
    with pytest.raises(AssertionError, match="does not run"):
        cluster.kill("n1")
