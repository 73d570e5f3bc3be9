"""What happens to simulated clusters in these tests: a scripted failover, and a storm by seed."""
from random import Random

from repstore import config
from repstore.sim.cluster import SimulatedCluster
from repstore.sim.workload import SimulatedClient

VOLUME = "demo"
NAMES = ["n1", "n2", "n3"]
STORE_BYTES = 8 * config.MIB
SIZE_BLOCKS = 820                # 70 % of what such a store takes
STORM_ROUNDS = 4
PROGRESS = 20                    # answers that a client must get after every round
LIMIT_S = 40.0                   # of virtual time, for anything to happen


def healthy_cluster(seed: int, nodes: int = 3) -> SimulatedCluster:
    """Three copies of one volume, all in sync."""
    cluster = SimulatedCluster(seed, nodes=nodes, store_bytes=STORE_BYTES)
    cluster.create_volume(VOLUME, SIZE_BLOCKS)
    cluster.run_until(lambda: cluster.is_healthy(VOLUME), LIMIT_S)
    return cluster


def go_on(cluster: SimulatedCluster, client: SimulatedClient) -> None:
    """The client gets answers again."""
    before = client.acknowledged
    cluster.run_until(lambda: client.acknowledged >= before + PROGRESS, LIMIT_S)


def failover_and_rejoin(seed: int) -> SimulatedCluster:
    """The primary is killed under load, another one takes over, and the dead one comes back."""
    cluster = healthy_cluster(seed)
    client = cluster.client(VOLUME, through="n2")
    cluster.run_for(0.2)
    cluster.kill("n1")
    cluster.run_until(lambda: cluster.primary(VOLUME) != "n1", LIMIT_S)
    go_on(cluster, client)
    cluster.start("n1")
    cluster.run_until(lambda: cluster.is_healthy(VOLUME), LIMIT_S)
    cluster.run_for(0.1)
    cluster.check(client)
    return cluster


def storm(seed: int) -> SimulatedCluster:
    """Rounds of faults drawn from the seed; after each one the client goes on and all copies
    are in sync again, at the end every block is what it may be."""
    cluster = healthy_cluster(seed)
    random = Random(f"storm {seed}")
    client = cluster.client(VOLUME, through=random.choice(NAMES))
    for _ in range(STORM_ROUNDS):
        cluster.run_for(random.uniform(0.01, 0.2))
        down = strike(cluster, random)
        keep_attached(cluster, client, random)
        cluster.run_for(random.choice([0, 0.05, 0.5, 2]))
        for name in random.sample(down, len(down)):
            cluster.start(name)
            cluster.run_for(random.choice([0, 0.03]))
        keep_attached(cluster, client, random)
        go_on(cluster, client)
        cluster.run_until(lambda: cluster.is_healthy(VOLUME), LIMIT_S)
    cluster.check(client)
    return cluster


def strike(cluster: SimulatedCluster, random: Random) -> list[str]:
    """One fault. Returns the nodes that are down now."""
    kind = random.choice(["kill", "kill", "kill two", "kill all", "cut power", "drop", "cut"])
    victims = random.sample(NAMES, {"kill two": 2, "kill all": 3, "drop": 2, "cut": 2}.get(kind, 1))
    cluster.trace.add("storm", f"{kind} {victims}")
    if kind == "drop":
        cluster.network.drop(*victims)
        return []
    if kind == "cut":
        cluster.network.cut(*victims)
        if random.random() < 0.5:
            cluster.network.cut(*reversed(victims))
        cluster.run_for(random.choice([0.05, 1, 4, 8]))
        cluster.network.heal()
        return []
    for name in victims:
        if kind == "cut power":
            cluster.cut_power(name)
        else:
            cluster.kill(name)
            cluster.run_for(random.choice([0, random.uniform(0, 0.02)]))
    return victims


def keep_attached(cluster: SimulatedCluster, client: SimulatedClient, random: Random) -> None:
    """A client whose node died goes on through another one, if any runs."""
    running = [name for name in NAMES if cluster.node(name).life]
    if running and not client.is_attached:
        cluster.attach(client, VOLUME, through=random.choice(running))
