"""Random walks of whole clusters: whatever fails, in whatever order, the promises hold.

Each seed is one walk over three nodes, one volume, and a config store that is at times
away: processes are killed, machines lose power, links break, messages wait. After every
step S1-S3 of `fake_cluster` are checked. In the end everything heals, and the volume must
come back: one leader, all copies in sync and equal, writes acknowledged.
"""
from random import Random

import pytest

from repstore.config import VolumeOptions
from tests.node.fake_cluster import FakeCluster, Machine, failing


class Walk:
    """One seed."""

    def __init__(self, seed: int, steps: int) -> None:
        self.random = Random(seed)
        self.steps = steps
        self.cluster = FakeCluster(self.random)
        self.value = 0
        minimum = self.random.choice([1, 2, 2, 3])
        self.index = self.cluster.create(VolumeOptions("v", 1 << 20, 3, minimum)).index
        for machine in self.cluster.machines:
            self.cluster.start(machine)
        if self.random.random() < 0.5:
            self.cluster.settle(2)

    def run(self) -> None:
        store = self.cluster.store
        rate = self.random.choice([0.0, 0.02, 0.2])
        harmless = store.before, store.after
        # faults only reach the nodes' threads of control, never the bystanders' checks
        faulty = failing(self.random, rate)
        calm = self.random.choice([0.0, 0.9, 0.98])
        for _ in range(self.steps):
            if self.random.random() >= calm:
                self._fail()
            else:
                self._serve()
            for machine in self.cluster.machines:
                if self.random.random() < 0.4:
                    store.before, store.after = faulty  # type: ignore[assignment]
                    self.cluster.run_control(machine)
                    store.before, store.after = harmless
                    self.cluster.check()
        self._heal()

    def _serve(self) -> None:
        """Something ordinary."""
        for _ in range(self.random.randint(0, 12)):
            self.cluster.deliver()
            self.cluster.check()
        self.cluster.connect()
        for engine in list(self.cluster.leaders_now(self.index)):
            if self.random.random() < 0.5:
                self.value += 1
                engine.write(self.index, self.value)
            elif self.random.random() < 0.3:
                engine.flush(self.index)
        self.cluster.check()
        self.cluster.pass_time(self.random.choice([0.0, 0.05, 0.1]))

    def _fail(self) -> None:
        machine: Machine = self.random.choice(self.cluster.machines)
        kind = self.random.random()
        if machine.engine is None:
            self.cluster.start(machine)
        elif kind < 0.2:
            self.cluster.kill(machine)
        elif kind < 0.35:
            self.cluster.lose_power(machine)
        elif kind < 0.4:
            for each in self.cluster.machines:
                self.cluster.lose_power(each)
        elif kind < 0.6 and self.cluster.links:
            pair = self.random.choice(sorted(self.cluster.links))
            self.cluster.break_link(pair)
            if self.random.random() < 0.5:
                self.cluster.cut.add(pair)
        elif kind < 0.8 and self.cluster.cut:
            self.cluster.cut.discard(self.random.choice(sorted(self.cluster.cut)))
        else:
            self.cluster.pass_time(self.random.choice([0.3, 1.0, 4.0]))
            self._serve()

    def _heal(self) -> None:
        cluster = self.cluster
        cluster.settle(40)
        leaders = list(cluster.leaders_now(self.index))
        volume = cluster.volume("v")
        assert [engine.node for engine in leaders] == [volume.primary]
        assert len(volume.in_sync) == 3, volume
        acknowledged = len(cluster.acknowledged.get(self.index, []))
        leaders[0].write(self.index, self.value + 1)
        cluster.settle(1)
        assert len(cluster.acknowledged[self.index]) > acknowledged
        copies = [machine.copies[self.index].records for machine in cluster.machines]
        assert copies[0] == copies[1] == copies[2]


@pytest.mark.parametrize("seed", range(40))
def test_walk(seed: int) -> None:
    Walk(seed, 120).run()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1000, 1600))
def test_long_walk(seed: int) -> None:
    Walk(seed, 300).run()
