"""A machine that boots anew behind a clean close has lost nothing, whatever becomes of its first starts."""
from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from repstore import errors
from repstore.sim.cluster import SimulatedCluster
from repstore.sim.config_store import UNKNOWN_FATES
from repstore.sim.node import StartCrash
from repstore.sim.workload import FLUSH, WRITE, Ask
from repstore.store import superblock
from repstore.store.device import MemoryDevice
from tests.sim.scenarios import LIMIT_S, VOLUME

NAME = "n1"


def written() -> SimulatedCluster:
    """What n1 has the only copy of was written and flushed, and n1 stopped cleanly."""
    cluster = SimulatedCluster(1, nodes=2)
    cluster.create_volume(VOLUME, 64, copies=1, min_copies=1)
    cluster.run_until(lambda: cluster.is_healthy(VOLUME), LIMIT_S)
    assert cluster.primary(VOLUME) == NAME
    client = cluster.client(VOLUME, through=NAME, asks=iter([Ask(WRITE, 0, 8), Ask(FLUSH)]))
    cluster.run_until(lambda: client.is_done, LIMIT_S)
    cluster.node(NAME).stop()
    return cluster


def reboot(cluster: SimulatedCluster) -> None:
    cluster.node(NAME).cut_power()


def incarnation_at_last(cluster: SimulatedCluster) -> int:
    """Of the volume when it is served again. One more: a loss was told."""
    epoch = cluster.volume(VOLUME).epoch
    cluster.start(NAME)
    cluster.run_until(lambda: cluster.volume(VOLUME).epoch > epoch and cluster.is_healthy(VOLUME), LIMIT_S)
    return cluster.volume(VOLUME).incarnation


@contextmanager
def untold(cluster: SimulatedCluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """It starts, its life is entered and confirmed; of what it says then nothing gets through."""
    faults, asked = cluster.config_faults, itertools.count(1)
    with monkeypatch.context() as patched:
        patched.setattr(faults.random, "choice", lambda fates: "not done")
        patched.setattr(faults.random, "random", lambda: 1.0 if next(asked) <= 2 else 0.0)
        faults.unknown_share[NAME] = 0.5
        cluster.start(NAME)
        cluster.run_for(0.1)
        yield
    faults.clear()


def fails_to_start(cluster: SimulatedCluster) -> None:
    with pytest.raises((errors.UnavailableError, errors.OutcomeUnknownError)):
        cluster.node(NAME).start()


@pytest.mark.fault("coordination: away while a node starts behind a clean reboot", promise="no loss is told")
@pytest.mark.parametrize("again", [lambda cluster: None, reboot], ids=["same_boot", "another_boot"])
def test_a_start_that_is_given_up_forgets_no_clean_close(again: Callable[[SimulatedCluster], None]) -> None:
    cluster = written()
    before = cluster.volume(VOLUME).incarnation
    reboot(cluster)
    cluster.config_faults.away.add(NAME)
    for _ in range(2):
        fails_to_start(cluster)
        again(cluster)
    cluster.config_faults.clear()
    assert incarnation_at_last(cluster) == before


@pytest.mark.fault("coordination: the outcome of a swap is unknown while a node starts",
                   promise="no loss is told")
@pytest.mark.parametrize("fate", UNKNOWN_FATES)
@pytest.mark.parametrize("swap", [1, 2], ids=["entering_the_life", "confirming_it"])
def test_a_start_whose_entry_has_an_unknown_outcome_forgets_no_clean_close(
        fate: str, swap: int, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = written()
    before = cluster.volume(VOLUME).incarnation
    reboot(cluster)
    faults = cluster.config_faults
    monkeypatch.setattr(faults.random, "choice", lambda fates: fate)
    asked = itertools.count(1)
    monkeypatch.setattr(faults.random, "random", lambda: 0.0 if next(asked) == swap else 1.0)
    faults.unknown_share[NAME] = 0.5
    fails_to_start(cluster)
    faults.clear()
    assert incarnation_at_last(cluster) == before


@pytest.mark.fault("crash: of a process, anywhere in its start behind a clean reboot",
                   promise="no loss is told")
@pytest.mark.parametrize("then", ["start", "power_cut", "start_and_power_cut"])
def test_a_start_that_dies_forgets_no_clean_close(then: str) -> None:
    """Behind each operation of its disk in turn. With the power one is told as soon as a life has begun on
    the disk that nobody closed, though it served nobody."""
    for operations in itertools.count():
        cluster = written()
        before = cluster.volume(VOLUME).incarnation
        reboot(cluster)
        try:
            cluster.node(NAME).start(crash_after=operations)
        except StartCrash:
            pass
        else:
            break
        if then == "start_and_power_cut":
            with pytest.raises(StartCrash):
                cluster.node(NAME).start(crash_after=0)
        if then != "start":
            reboot(cluster)
        is_closed = superblock.read(MemoryDevice(cluster.node(NAME).disk.image), NAME).superblock.clean
        assert incarnation_at_last(cluster) == before + (then != "start" and not is_closed)
    assert operations > 5


@pytest.mark.fault("crash: of a node before it could tell of a clean reboot",
                   promise="the next one tells it")
@pytest.mark.parametrize("boots", [1, 3])
def test_a_process_that_dies_before_it_told_leaves_it_to_the_next(
        boots: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of several boots one after the other, each closed cleanly."""
    cluster = written()
    before = cluster.volume(VOLUME)
    for _ in range(boots):
        reboot(cluster)
        with untold(cluster, monkeypatch):
            cluster.node(NAME).kill()
        with untold(cluster, monkeypatch):
            cluster.node(NAME).stop()
    assert cluster.volume(VOLUME) == before
    assert incarnation_at_last(cluster) == before.incarnation


def test_a_store_that_goes_to_another_machine_and_back_has_lost_nothing() -> None:
    """Closed cleanly each time, and the first machine has run on."""
    cluster = written()
    node = cluster.node(NAME)
    before = cluster.volume(VOLUME).incarnation
    first = node.boot_id
    for boot_id in (b"another machine.", first):
        node.boot_id = boot_id
        assert incarnation_at_last(cluster) == before
        node.stop()


@pytest.mark.fault("crash: power lost behind a clean reboot that was not told yet",
                   promise="the loss is told")
def test_a_power_cut_in_between_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = written()
    before = cluster.volume(VOLUME)
    reboot(cluster)
    with untold(cluster, monkeypatch):
        reboot(cluster)
    assert cluster.volume(VOLUME) == before
    assert incarnation_at_last(cluster) == before.incarnation + 1
