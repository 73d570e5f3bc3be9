"""Faults of real processes in random sequence, under recorded clients; and the judgement.

A run is a seed and a duration. Each step begins a fault or ends one; up to two are in force at
once. Kinds are dealt like cards: each has its turn early. Every few steps all are ended, and within
HEAL_BOUND_S all copies must be in sync, a flush answered and every client served again. At the end

  J1 the history of all clients, with the whole volume read at last, is consistent;
  J2 the copies, read from the stopped stores, are the same byte for byte;
  J3 no node ended by itself, no client met an error that no fault in force explains, and the
     incarnation never grew: nobody lost power, so nothing acknowledged may be missing.

What a seed does not decide is who leads at a moment and what the kernel does meanwhile: a seed
repeats the sequence of faults, not the run.
"""
from __future__ import annotations

import contextlib
import errno
import os
import random
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from repstore import config
from repstore.check.history import Verdict, check_file
from repstore.check.recorder import Recorder
from repstore.node.directory import add_volume
from tests.cluster.cutting_proxy import BEHIND, CuttingProxy
from tests.cluster.harness import MIB, ClusterHarness, Shape, wait_until
from tests.cluster.nbd_client import ConnectionLostError, NbdClient, RefusedError
from tests.cluster.recorded_clients import CONNECTIONS, Frontend, RecordedClient
from tests.nbd import wire

SHAPE = Shape(store_bytes=48 * MIB, volume_bytes=8 * MIB, hold_gil_s=7.0)
CLUSTER = "cluster"
BALLAST = "ballast"                    # a volume that fills the stores when it is written
BALLAST_BYTES = 36 * MIB
FILE_SYSTEM_SPARE_BYTES = 24 * MIB     # beside the stores: config database, logs, reports
CHUNK_BYTES = 256 * 1024
FAULTS_MAX = 2
STEPS_BETWEEN_CALMS = 8
HEAL_BOUND_S = 60.0
DWELLS_S = ((0.02, 0.3), (0.3, 2.0), (2.0, 4.0), (4.0, 7.0))   # lease and grace lie in between
KINDS = ("kill", "kill all", "pause", "pause primary", "pause primary", "link", "one way", "one way",
         "isolate", "full", "file system", "move")
PROCESS_KINDS = {"kill", "pause"}
LINK_KINDS = {"link", "one way", "isolate"}
LEAVING_KINDS = {"pause primary", "isolate"}
LEAVING_DWELL_S = (5.0, 8.0)           # of half of them: another leads meanwhile, and is written to


@dataclass(slots=True)
class Fault:
    """One in force: what ends it, and the nodes that are not to be touched meanwhile."""

    kind: str
    nodes: tuple[str, ...]
    heal: Callable[[], None]


@dataclass(slots=True)
class Outcome:
    """What a run did and found."""

    seed: int
    seconds: float
    faults: Counter[str]
    verdict: Verdict
    answered: int
    written: int
    errors: Counter[str]
    reconnects: int
    longest_pause_s: float
    slowest_heal_s: float
    epochs: int
    missing: tuple[str, ...]           # kinds that can be done on this machine, and were not

    def __str__(self) -> str:
        told = ", ".join(f"{kind} {count}" for kind, count in sorted(self.faults.items()))
        return (f"seed {self.seed}: {self.seconds:.0f} s, {self.faults.total()} faults ({told}), "
                f"{self.epochs} epochs; {self.answered} requests answered, {self.written} of them writes, "
                f"{self.reconnects} attaches, errors {dict(self.errors)}, "
                f"longest pause {self.longest_pause_s:.1f} s, "
                f"slowest healing {self.slowest_heal_s:.1f} s; "
                f"{self.verdict.reads_checked} reads of blocks judged, "
                f"{self.verdict.undecided_reads} undecided")


@contextlib.contextmanager
def workplace() -> Iterator[tuple[Path, bool]]:
    """A directory for a run, and whether CLUSTER in it is a small file system of its own, as it
    is where we may mount one. It is gone afterwards, unless the run failed: then its files stay."""
    directory = Path(tempfile.mkdtemp(prefix="repstore-real-"))
    place = directory / CLUSTER
    place.mkdir()
    size_bytes = (SHAPE.nodes + 1) * SHAPE.store_bytes + FILE_SYSTEM_SPARE_BYTES
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "repstore-real", str(place)]
    mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    failed = False
    try:
        yield directory, mounted
    except BaseException as error:
        failed = True
        shutil.copytree(place, directory / "failed", ignore=shutil.ignore_patterns("*.sock*", "filler"))
        error.add_note(f"the files of the run are in {directory}")
        raise
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(place)], check=False)
        shutil.rmtree(place if failed else directory, ignore_errors=True)


class RealFaults:
    """One run. `tell` is given a line for each step."""

    def __init__(self, directory: Path, seed: int, *, own_file_system: bool,
                 tell: Callable[[str], None] = lambda line: None) -> None:
        self.cluster = ClusterHarness(directory / CLUSTER, SHAPE)
        add_volume(self.cluster.config, config.VolumeOptions(BALLAST, BALLAST_BYTES, copies=SHAPE.copies))
        self.cluster.node_arguments = ("--behind", BEHIND)
        self.counts: Counter[str] = Counter()
        self._seed = seed
        self._tell = tell
        self._begun_s = time.monotonic()
        self._random = random.Random(seed)
        self._kinds = [kind for kind in KINDS if own_file_system or kind != "file system"]
        self._deck: list[str] = []         # kinds that have their turn next
        self._faults: list[Fault] = []
        self._short_of_space = False       # a client may be told so
        self._slowest_heal_s = 0.0
        self._pause = threading.Event()
        self._proxy = CuttingProxy({name: self.cluster.node(name).peer_socket for name in self.cluster.names},
                                   self._name_of)
        self._history = directory / "run.history"          # not where the file system fills up
        self._recorder = Recorder(self._history, SHAPE.volume_bytes, initial="zero",
                                  incarnation=self.cluster.volume().incarnation)
        self._frontend = Frontend(self.cluster.names, seed)
        self._clients: list[RecordedClient] = []

    def __enter__(self) -> RealFaults:
        return self

    def __exit__(self, *error: object) -> None:
        """Whatever still runs ends here, paused or not."""
        for client in self._clients:
            client.finish_soon()
        self.cluster.__exit__()
        self._proxy.close()
        self._recorder.close()
        for client in self._clients:
            client.join()

    def run(self, seconds: float) -> Outcome:
        """Faults for so long, then the judgement; AssertionError if something is wrong."""
        self.cluster.start()
        self.cluster.wait_in_sync()
        self._clients = [RecordedClient(self.cluster, self._recorder, self._frontend, number,
                                        self._seed * CONNECTIONS + number, self._may_fail)
                         for number in range(CONNECTIONS)]
        for client in self._clients:
            client.start()
        begun_s = time.monotonic()
        steps = 0
        while time.monotonic() - begun_s < seconds:
            self._step()
            steps += 1
            if steps % STEPS_BETWEEN_CALMS == 0:
                self._calm()
            self._check_alive()
        self._calm()
        return self._judge(time.monotonic() - begun_s)

    # --------------------------------------------------------------------------- the sequence
    def _step(self) -> None:
        dwell_s = self._random.choice(DWELLS_S)
        if self._faults and (len(self._faults) == FAULTS_MAX or self._random.random() < 0.4):
            self._heal(self._random.choice(self._faults))
        elif self._begin_next() in LEAVING_KINDS and self._random.random() < 0.5:
            dwell_s = LEAVING_DWELL_S
        self._pause.wait(self._random.uniform(*dwell_s))

    def _begin_next(self) -> str:
        """The first kind in the deck that goes with the faults in force; empty: none does."""
        if not self._deck:
            self._deck = self._random.sample(self._kinds, len(self._kinds))
        for place, kind in enumerate(self._deck):
            begun = self._begin(kind)
            if begun is None:
                continue
            del self._deck[place]
            self.counts[kind] += 1
            self._say(f"{kind}: {', '.join(begun.nodes)}")
            if kind != "move":                             # no fault: the clients go elsewhere
                self._faults.append(begun)
            return kind
        return ""

    def _begin(self, kind: str) -> Fault | None:
        """Begin a fault; None when it does not go with those in force."""
        kinds = {fault.kind for fault in self._faults}
        touched = {name for fault in self._faults if fault.kind in PROCESS_KINDS for name in fault.nodes}
        free = self._random.sample(self.cluster.names, len(self.cluster.names))
        free = [name for name in free if name not in touched]
        if kind == "move":
            self._frontend.move(self._frontend.name)
            return Fault(kind, (self._frontend.name,), lambda: None)
        if kind in LINK_KINDS:
            return self._block(kind) if not kinds & LINK_KINDS else None
        if kind == "full":
            return self._fill_stores() if not kinds else None
        if kind == "file system":
            return self._fill_file_system() if not kinds & {"kill", kind} else None
        if kind == "kill all":
            return self._kill(self.cluster.names) if not touched else None
        if kind == "pause primary":
            free = [name for name in free if name == self.cluster.primary()]
            self._gather_at(free)
        if not free:
            return None
        return self._kill((free[0],)) if kind == "kill" else self._stop(free[0])

    def _gather_at(self, names: list[str]) -> None:
        """The clients attach through this node if it answers: its primary has clients of its own
        when it falls behind, and may answer them by itself."""
        for name in names:
            self._frontend.go(name)
            with contextlib.suppress(AssertionError):
                wait_until(lambda name=name: all(each.node == name for each in self._clients),
                           "attached", 2.0)

    def _heal(self, fault: Fault) -> None:
        self._faults.remove(fault)
        if fault.kind == "full":                       # a trim needs the others
            for other in list(self._faults):
                self._heal(other)
        fault.heal()
        self._say(f"healed {fault.kind}: {', '.join(fault.nodes)}")

    def _calm(self) -> None:
        """End all faults; everything converges within a bound."""
        while self._faults:
            self._heal(self._faults[0])
        begun_s = time.monotonic()
        served = [client.served for client in self._clients]
        self._check_alive()
        try:
            self.cluster.wait_in_sync()
            wait_until(lambda: self._failures() or all(
                client.served > before for client, before in zip(self._clients, served, strict=True)),
                "every client is served again", HEAL_BOUND_S)
            self._short_of_space = False       # till then an answer of before the trim may be on its way
            volume = self.cluster.volume()
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.cluster.describe()}") from None
        self._check_alive()
        took_s = time.monotonic() - begun_s
        assert took_s < HEAL_BOUND_S, f"healed only after {took_s:.0f} s"
        assert volume.incarnation == self._recorder.incarnation, "acknowledged writes were given up"     # J3
        self._slowest_heal_s = max(self._slowest_heal_s, took_s)
        self._say(f"calm after {took_s:.1f} s, epoch {volume.epoch}")

    # ------------------------------------------------------------------------------- faults
    def _kill(self, names: tuple[str, ...]) -> Fault:
        self.cluster.kill(*names)
        if names == self.cluster.names:
            self._recorder.crash(self._recorder.incarnation)       # J3: only processes died
        return Fault("kill", names, lambda: self._start(names))

    def _start(self, names: tuple[str, ...]) -> None:
        for fault in [each for each in self._faults if each.kind == "file system"]:
            self._heal(fault)                          # nothing can be started on a full file system
        self.cluster.start(*names)

    def _stop(self, name: str) -> Fault:
        """Of those that wake up, half have their Python held for a while: what they believed about
        who leads, they still believe, while their native half answers."""
        self.cluster.signal(signal.SIGSTOP, name)
        held = self._random.random() < 0.5

        def wake() -> None:
            if held:
                self.cluster.signal(signal.SIGUSR2, name)      # met as it wakes up
            self.cluster.signal(signal.SIGCONT, name)

        return Fault("pause", (name,), wake)

    def _block(self, kind: str) -> Fault:
        """Afterwards what was held back arrives late, or the connections are gone."""
        one, *others = self._random.sample(self.cluster.names, len(self.cluster.names))
        if kind == "isolate":
            one = self.cluster.primary()
            others = [name for name in self.cluster.names if name != one]
            self._gather_at([one])
        ways = [(one, other) for other in (others if kind == "isolate" else others[:1])]
        if kind != "one way":
            ways += [(other, one) for other in others]
        cut = self._random.random() < 0.5
        for way in ways:
            self._proxy.block(*way)
        if kind == "isolate" and self._random.random() < 0.5 and one in self.cluster.running():
            self.cluster.signal(signal.SIGUSR2, one)   # it cannot even read that another one leads

        def heal() -> None:
            for way in ways:
                if cut:
                    self._proxy.cut(*way)
            for way in ways:
                self._proxy.open(*way)

        return Fault(kind, tuple(dict.fromkeys(name for way in ways for name in way)), heal)

    def _fill_stores(self) -> Fault:
        """Write another volume until there is no room. All nodes are up while it begins."""
        self._short_of_space = True
        data = os.urandom(CHUNK_BYTES)
        refused = False
        with self.cluster.connect(self._random.choice(self.cluster.names), BALLAST) as client:
            for offset in range(0, client.size_bytes, CHUNK_BYTES):
                error = client.ask(wire.WRITE, offset, payload=data).error
                assert error in (0, errno.ENOSPC), f"a full disk is told as error {error}"
                refused = refused or error != 0
        assert refused, "the stores hold more than they should"
        return Fault("full", (), self._empty_stores)

    def _empty_stores(self) -> None:
        """Trim it: it goes through although nothing else fits. No other fault is in force."""
        deadline_s = time.monotonic() + HEAL_BOUND_S
        while True:
            name = self._random.choice(self.cluster.running())
            try:
                with NbdClient(self.cluster.nbd_path(name), BALLAST, 5.0) as client:
                    error = client.ask(wire.TRIM, 0, client.size_bytes).error
                    assert error in (0, errno.ESHUTDOWN), f"trim on a full disk: error {error}"
                    if not error:
                        break
            except (ConnectionLostError, RefusedError, TimeoutError):
                assert time.monotonic() < deadline_s, f"no trim of the full volume\n{self.cluster.describe()}"
                self._pause.wait(0.1)

    def _fill_file_system(self) -> Fault:
        """No room for logs, reports and the coordination store. The stores have theirs."""
        filler = self.cluster.directory / "filler"
        with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(config.MIB))
        with filler.open("ab", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))
        return Fault("file system", (), filler.unlink)

    # ---------------------------------------------------------------------------- judgement
    def _judge(self, seconds: float) -> Outcome:
        cluster, clients = self.cluster, self._clients
        for client in clients:
            client.finish()
        self._check_alive()
        volume = cluster.settle(self._frontend.name)
        with cluster.connect(self._frontend.name) as client:
            for offset in range(0, client.size_bytes, CHUNK_BYTES):
                operation = self._recorder.begin(CONNECTIONS, "read", offset, CHUNK_BYTES)
                completion = client.ask(wire.READ, offset, CHUNK_BYTES)
                assert completion.error == 0, f"read at {offset}: error {completion.error}"
                operation.done(completion.data)
        cluster.stop()
        self._recorder.close()
        verdict = check_file(self._history)
        assert verdict.consistent, f"{verdict.bad_blocks} blocks contradict:\n{verdict.contradiction}"  # J1
        contents = cluster.copies_content()
        first = cluster.names[0]
        assert all(each == contents[first] for each in contents.values()), "copies differ"     # J2
        return Outcome(
            self._seed, seconds, self.counts, verdict, sum(each.answered for each in clients),
            sum(each.served for each in clients if not each.reads_only),
            sum((each.errors for each in clients), Counter()),
            sum(each.reconnects for each in clients), max(each.longest_pause_s for each in clients),
            self._slowest_heal_s, volume.epoch, tuple(sorted(set(self._kinds) - self.counts.keys())))

    def _may_fail(self, error: int) -> bool:
        return error == errno.ESHUTDOWN or (error == errno.ENOSPC and self._short_of_space)

    def _failures(self) -> list[str]:
        return [failure for client in self._clients for failure in client.failures]

    def _check_alive(self) -> None:
        assert not self.cluster.crashed(), self.cluster.describe()
        assert not self._failures(), "\n".join([*self._failures()[:5], self.cluster.describe()])

    def _name_of(self, pid: int) -> str | None:
        processes = list(self.cluster.processes.items())       # another thread starts and ends them
        return next((name for name, process in processes if process.pid == pid), None)

    def _say(self, line: str) -> None:
        self._tell(f"{time.monotonic() - self._begun_s:7.2f} {line}")
