"""What a store presents as its boot: a power cut taints, the death of a process does not."""
from repstore.sim.cluster import SimulatedCluster
from tests.sim.scenarios import LIMIT_S, VOLUME, healthy_cluster


def boot_of(cluster: SimulatedCluster, name: str) -> str:
    number = cluster.node(name).number
    member = cluster.volume(VOLUME).member(number)
    assert member is not None, f"{name} is not in sync"
    return member.boot_id


def restart(cluster: SimulatedCluster, name: str) -> None:
    cluster.start(name)
    cluster.run_until(lambda: cluster.is_healthy(VOLUME), LIMIT_S)
    cluster.run_for(1)


def test_a_process_that_dies_after_a_power_cut_is_not_a_second_power_cut() -> None:
    cluster = healthy_cluster(1)
    cluster.client(VOLUME, through="n2")
    first = boot_of(cluster, "n1")
    cluster.cut_power("n1")
    restart(cluster, "n1")
    second = boot_of(cluster, "n1")
    assert second != first
    for _ in range(2):
        cluster.kill("n1")
        restart(cluster, "n1")
        assert boot_of(cluster, "n1") == second


def test_the_loss_of_all_processes_after_a_power_cut_of_each_loses_nothing() -> None:
    cluster = healthy_cluster(2)
    client = cluster.client(VOLUME, through="n2")
    for name in ("n1", "n2", "n3"):
        cluster.cut_power(name)
        restart(cluster, name)
    cluster.attach(client, VOLUME, through="n3")
    cluster.run_for(0.1)
    for name in ("n1", "n2", "n3"):
        cluster.kill(name)
    for name in ("n1", "n2", "n3"):
        cluster.start(name)
    cluster.run_until(lambda: cluster.is_healthy(VOLUME), LIMIT_S)
    assert cluster.volume(VOLUME).incarnation == 0
    cluster.attach(client, VOLUME, through="n1")
    cluster.check(client)
