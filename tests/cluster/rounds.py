"""Rounds of "kill -9 under load, restart, compare with the acknowledged history".

One round: a client writes through one node; at a random moment nodes are killed as the case
says; the client goes on; the dead return while it writes; all copies become in sync. Then the
volume, read through another node, holds a legal value in every block, and the three copies,
read from the stopped stores, are the same byte for byte. The next round goes on from there.
All rounds are one history, which `verdict` has the checker judge at the end: no round is a
crash in its sense, since nothing acknowledged may be missing and clients go on.
"""
from __future__ import annotations

import random
import time
from dataclasses import dataclass
from pathlib import Path

from repstore.check.history import Verdict, check_file
from repstore.check.recorder import Recorder
from tests.cluster.harness import MIB, ClusterHarness, Shape
from tests.cluster.history import BLOCK_BYTES, History, content
from tests.cluster.writer import Writer
from tests.nbd import wire

CASES = ("replica", "primary", "all", "frontend", "during rejoin", "two", "primary and frontend")
SHAPE = Shape()
READ_BYTES = MIB // 4
PREFILL_DEPTH = 8


@dataclass(frozen=True, slots=True)
class Result:
    """What one round did."""

    case: str
    killed: tuple[str, ...]
    acknowledged: int
    reconnects: int
    longest_pause_s: float
    cleaned_segments: int      # by all nodes, since each was last started
    fill: float                # of the fullest store
    seconds: float

    def __str__(self) -> str:
        return (f"{self.case:21} killed {','.join(self.killed):9} {self.acknowledged:6} writes acknowledged, "
                f"longest pause {self.longest_pause_s:5.2f} s, {self.cleaned_segments:3} segments cleaned, "
                f"{self.seconds:5.1f} s")


class KillRounds:
    """A cluster and its history, round after round."""

    def __init__(self, directory: Path, seed: int, shape: Shape = SHAPE) -> None:
        self.cluster = ClusterHarness(directory, shape)
        self._recorder = Recorder(directory / "history", shape.volume_bytes, initial="zero")
        self.history = History(shape.volume_bytes // BLOCK_BYTES, self._recorder)
        self.failed = False
        self.cleaned_segments = 0              # so far, for whoever runs the rounds
        self._seed = seed

    def __enter__(self) -> KillRounds:
        self.cluster.start()
        self.cluster.wait_in_sync()
        self._prefill()
        return self

    def __exit__(self, *error: object) -> None:
        self.cluster.__exit__(*error)
        self._recorder.close()

    def verdict(self) -> Verdict:
        """What the checker says of all rounds; there can be none after it."""
        self.failed = True
        self._recorder.close()
        return check_file(self.cluster.directory / "history")

    def run(self, number: int) -> Result:
        """Round `number`; its case and its moments follow from the seed."""
        begun_s = time.monotonic()
        self.failed = True                     # until the end is reached
        chance = random.Random(self._seed * 1_000_003 + number)
        case = CASES[number % len(CASES)]
        if not self.cluster.running():
            self.cluster.start()
        self.cluster.settle(chance.choice(self.cluster.names))
        frontend = self._frontend(case, chance)
        before = self.history.acknowledged
        writer = Writer(self.cluster, self.history, frontend, chance.randrange(2**32))
        writer.start()
        killed = self._kill_and_return(case, writer, chance)
        writer.finish()
        self.cluster.settle(writer.node)
        self._check_volume(chance.choice([name for name in self.cluster.names if name != writer.node]))
        stats = [self.cluster.report(name).stats for name in self.cluster.names]
        self.cluster.stop()
        self._check_copies()
        self.failed = False
        return Result(case, killed, self.history.acknowledged - before, writer.reconnects,
                      writer.longest_pause_s, sum(each["cleaned_segments"] for each in stats),
                      max(each["live_blocks"] / each["capacity_blocks"] for each in stats),
                      time.monotonic() - begun_s)

    def _frontend(self, case: str, chance: random.Random) -> str:
        primary = self.cluster.primary()
        if case == "primary and frontend":
            return primary
        return chance.choice([name for name in self.cluster.names if name != primary])

    def _kill_and_return(self, case: str, writer: Writer, chance: random.Random) -> tuple[str, ...]:
        cluster = self.cluster
        writer.wait_for(chance.randint(1, 3000))
        victims = self._victims(case, writer.node, chance)
        cluster.kill(*victims)
        if len(victims) == 1:                  # two are left: enough to go on
            writer.wait_for(chance.randint(1, 3000))
        cluster.start(*victims)
        if case == "during rejoin":
            second = chance.choice([name for name in cluster.names if name not in victims])
            writer.wait_for(chance.randint(1, 500))
            cluster.kill(second)
            cluster.start(second)
            victims = (*victims, second)
        writer.wait_for(chance.randint(500, 2000))
        cluster.wait_in_sync()
        writer.wait_for(100)
        return victims

    def _victims(self, case: str, frontend: str, chance: random.Random) -> tuple[str, ...]:
        names, primary = self.cluster.names, self.cluster.primary()
        if case == "all":
            return names
        if case == "two":
            return tuple(chance.sample(names, 2))
        if case in ("frontend", "primary and frontend"):
            return (frontend,)
        if case == "primary":
            return (primary,)
        return (chance.choice([name for name in names if name not in (primary, frontend)]),)

    def _prefill(self) -> None:
        """Every block is written once, so that the stores are as full as the shape says."""
        count = READ_BYTES // BLOCK_BYTES
        with self.cluster.connect(self.cluster.names[0]) as client:
            self.history.attached_again()
            under_way = {}
            for first in range(0, self.history.blocks, count):
                write = self.history.begin_write(first, count)
                under_way[client.send(wire.WRITE, first * BLOCK_BYTES,
                                      payload=content(write.value, first, count))] = write
                while len(under_way) == PREFILL_DEPTH or (under_way and first + count == self.history.blocks):
                    for completion in client.receive():
                        assert completion.error == 0
                        self.history.acknowledge(under_way.pop(completion.cookie))

    def _check_volume(self, name: str) -> None:
        wrong: list[str] = []
        with self.cluster.connect(name) as client:
            for offset in range(0, client.size_bytes, READ_BYTES):
                completion = client.ask(wire.READ, offset, READ_BYTES)
                assert completion.error == 0, f"read of {READ_BYTES} at {offset}: error {completion.error}"
                wrong += self.history.check(offset // BLOCK_BYTES, completion.data)
        assert not wrong, self._report(f"read through {name}", wrong)

    def _check_copies(self) -> None:
        for name, data in self.cluster.copies_content().items():
            wrong = self.history.check(0, data)
            assert not wrong, self._report(f"copy of {name}", wrong)

    def _report(self, where: str, wrong: list[str]) -> str:
        return "\n".join([f"{where}: {len(wrong)} blocks", *wrong[:10], self.cluster.describe()])
