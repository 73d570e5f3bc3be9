"""Single rules of replication, each in the scene that a breach of it needs."""
from __future__ import annotations

import mmap

import numpy as np
import pytest

from repstore._fast.layout import FRAME_ACK, FRAME_PING, FRAME_PONG, FRAME_REJECT, FRAME_REPLY, JOIN_FLAG
from repstore.format import BLOCK_SIZE
from repstore.replication.leadership import Leader, Phase
from repstore.sim.clock import NS_PER_S
from repstore.sim.cluster import SimulatedCluster
from repstore.sim.disk import SECTOR_BYTES
from repstore.sim.local import LocalVolume, PlainDisk
from repstore.sim.workload import FLUSH, IO, READ, WRITE, Ask, Operation, SimulatedClient
from tests.sim.bad_blocks import write
from tests.sim.rules import (
    SIZE_BLOCKS,
    apart,
    cluster_of,
    durable_engine,
    endless_writes,
    frame,
    on_the_way,
    sent_by,
    tell,
)
from tests.sim.scenarios import LIMIT_S, VOLUME

BLOCK_STATUS = 6                 # kind of a request


def test_nothing_is_acknowledged_with_fewer_copies_than_min_copies() -> None:
    """A member back from a power cut leaves even below min_copies: what waited then waits on."""
    cluster = cluster_of(1, copies=2, min_copies=2)
    client = cluster.client(VOLUME, through="n1", asks=endless_writes(), depth=8)
    alone: list[Operation] = []

    def answered(operation: Operation) -> None:
        if len(cluster.volume(VOLUME).in_sync) < 2:
            alone.append(operation)

    client.on_answered = answered
    for _ in range(3):
        cluster.run_for(0.05)
        cluster.cut_power("n2")
        cluster.run_for(0.5)
        cluster.start("n2")
        cluster.run_until(lambda: len(cluster.volume(VOLUME).in_sync) < 2, LIMIT_S)
        cluster.run_until(lambda: cluster.is_healthy(VOLUME), LIMIT_S)
    assert alone == []
    cluster.check(client)


@pytest.mark.fault("network: the primary cut off from all others",
                   promise="it answers no read when its lease is over")
def test_a_primary_that_is_cut_off_answers_no_read_when_its_lease_is_over() -> None:
    cluster = cluster_of(2, copies=3, min_copies=2)
    client = cluster.client(VOLUME, through="n1", depth=1,
                            asks=iter(Ask(WRITE, first, 8) for first in range(0, SIZE_BLOCKS, 8)))
    cluster.run_until(lambda: client.is_done, LIMIT_S)
    client.ask_more(Ask(READ, first % SIZE_BLOCKS, 4) for first in range(0, 400_000, 4))
    cluster.run_for(0.1)
    cluster.config_faults.away.add("n1")
    for other in ("n2", "n3"):
        cluster.network.cut("n1", other)
        cluster.network.cut(other, "n1")
    assert client.acknowledged > 16
    cluster.run_for(2.6)                       # a lease, and the heartbeat that it began with
    before = client.acknowledged
    assert not client.is_done
    cluster.run_for(2.0)
    assert client.acknowledged == before


@pytest.mark.fault("process: a primary that was stopped and goes on",
                   promise="it answers no read by the lease of before")
def test_a_primary_that_stood_still_answers_no_read_by_the_lease_of_before() -> None:
    """The read is the first thing it meets when it goes on."""
    cluster = cluster_of(8, copies=3, min_copies=2)
    client = cluster.client(VOLUME, through="n2", depth=1, asks=iter([Ask(WRITE, 0, 4)]))
    cluster.run_until(lambda: client.is_done, LIMIT_S)
    answered = sent_by(cluster, "n1", FRAME_REPLY)
    cluster.life("n1").stop_until(cluster.clock.now_ns + 8 * 10**9)
    client.ask_more([Ask(READ, 0, 4)])
    cluster.run_for(9.0)
    assert cluster.primary(VOLUME) != "n1"
    assert client.is_done
    assert [header["body_bytes"] for header in answered if header["body_bytes"]] == []


def test_a_grant_counts_from_when_a_member_that_stood_still_gives_it() -> None:
    cluster = cluster_of(9, copies=3, min_copies=2)
    index = cluster.volume(VOLUME).index
    stopped_ns = cluster.clock.now_ns
    cluster.life("n2").stop_until(stopped_ns + 2 * 10**9)
    cluster.run_for(1.9)
    granted = sent_by(cluster, "n2", FRAME_PONG)
    cluster.run_until(lambda: bool(granted), LIMIT_S)
    life = cluster.life("n2")
    assert life.engine.volume_state(index).last_grant_s == life.node.clock.now_s


def test_a_primary_reads_alone_only_while_a_member_that_may_have_joined_lets_it() -> None:
    """The swap is done, its outcome is unknown to the primary, and the joiner takes over."""
    cluster = cluster_of(10, copies=3, min_copies=2)
    cluster.kill("n3")
    cluster.run_until(lambda: len(cluster.volume(VOLUME).in_sync) == 2, LIMIT_S)
    client = cluster.client(VOLUME, through="n1", depth=1,
                            asks=iter(Ask(WRITE, first, 8) for first in range(0, SIZE_BLOCKS, 8)))
    cluster.run_until(lambda: client.is_done, LIMIT_S)
    client.ask_more(Ask(READ, first % SIZE_BLOCKS, 4) for first in range(0, 4_000_000, 4))
    cluster.config_faults.unknown_share["n1"] = 1.0
    cluster.start("n3")
    cluster.run_until(lambda: len(cluster.volume(VOLUME).in_sync) == 3, LIMIT_S)
    cluster.life("n1").hold_control_until(cluster.clock.now_ns + 10 * 10**9)
    for way in (("n1", "n3"), ("n3", "n1")):
        cluster.network.cut(*way)
    cluster.run_until(lambda: cluster.primary(VOLUME) == "n3", LIMIT_S)
    before = client.acknowledged
    cluster.run_for(1.0)
    assert before > 16
    assert client.acknowledged == before


@pytest.mark.parametrize("delay_us", [50, 150, 400, 900, 2000])
def test_a_write_that_is_sent_again_is_logged_once(delay_us: int) -> None:
    cluster = cluster_of(delay_us, copies=3, min_copies=2)
    asks = [Ask(WRITE, first, 1) for first in range(64)]
    client = cluster.client(VOLUME, through="n2", asks=iter(asks), depth=16)
    cluster.run_for(delay_us / 1e6)
    cluster.kill("n1")
    cluster.run_until(lambda: client.is_done, LIMIT_S)
    volume = cluster.volume(VOLUME)
    state = cluster.life(cluster.primary(VOLUME)).engine.volume_state(volume.index)
    assert state.last_lsn == len(asks) + len(volume.lineage)


def test_a_session_that_is_over_is_refused_by_the_primary_itself() -> None:
    cluster = cluster_of(4, copies=3, min_copies=2)
    old = cluster.client(VOLUME, through="n2", asks=iter([Ask(WRITE, 0, 4)]))
    cluster.run_until(lambda: old.is_done, LIMIT_S)
    cluster.config_faults.away.add("n2")       # its node does not hear of the other attach
    new = cluster.client(VOLUME, through="n3", asks=iter([Ask(WRITE, 8, 4)]))
    cluster.run_until(lambda: new.is_done, LIMIT_S)
    old.ask_more([Ask(WRITE, 16, 4)])
    cluster.run_until(lambda: old.session_over, LIMIT_S)
    assert old.acknowledged == 1


def test_an_acknowledgement_of_an_older_epoch_does_not_count() -> None:
    cluster = cluster_of(5, copies=2, min_copies=1)
    client = cluster.client(VOLUME, through="n1", asks=iter([Ask(WRITE, 0, 4)]))
    cluster.run_until(lambda: client.is_done, LIMIT_S)
    volume = cluster.volume(VOLUME)
    cluster.network.cut("n2", "n1")            # what n2 says now is lost
    client.ask_more([Ask(WRITE, 8, 4)])
    cluster.run_for(0.5)
    last_lsn = cluster.life("n1").engine.volume_state(volume.index).last_lsn
    said = {"volume": volume.index, "lsn": last_lsn, "commit": last_lsn}
    tell(cluster, "n1", "n2", frame(FRAME_ACK, epoch=volume.epoch - 1, **said))
    cluster.run_for(0.1)
    assert not client.is_done
    tell(cluster, "n1", "n2", frame(FRAME_ACK, epoch=volume.epoch, **said))
    cluster.run_for(0.1)
    assert client.is_done


def test_who_is_sealed_refuses_the_primary_of_an_older_epoch() -> None:
    cluster = cluster_of(6, copies=3, min_copies=2)
    volume = cluster.volume(VOLUME)
    answers: set[tuple[int, int]] = set()

    def listen(sender: str, header: np.void, data: bytes) -> bytes:
        if sender == "n3":
            answers.add((int(header["type"]), int(header["lsn"])))
        return data

    on_the_way(cluster, listen)
    refused, granted = (FRAME_REJECT, 0), (FRAME_PONG, 4711)
    for epoch, answer, other in ((volume.epoch - 1, refused, granted), (volume.epoch, granted, refused)):
        answers.clear()
        tell(cluster, "n3", "n1", frame(FRAME_PING, epoch=epoch, volume=volume.index, lsn=4711))
        cluster.run_for(0.0001)
        assert answer in answers
        assert other not in answers


@pytest.mark.parametrize("seed", range(7, 13))
def test_who_joins_has_flushed_everything(seed: int) -> None:
    """With some seeds a checkpoint has flushed it all before it is asked."""
    cluster = cluster_of(seed, copies=2, min_copies=1)
    client = cluster.client(VOLUME, through="n1", asks=iter([Ask(WRITE, 0, 8)]))
    cluster.run_until(lambda: client.is_done, LIMIT_S)
    cluster.kill("n2")
    cluster.run_until(lambda: len(cluster.volume(VOLUME).in_sync) == 1, LIMIT_S)
    client.ask_more([*(Ask(WRITE, first, 8) for first in range(0, 128, 8)), Ask(FLUSH)])
    cluster.run_until(lambda: client.is_done, LIMIT_S)
    said: list[bytes] = []                     # what is durable on n2 when it says so

    def listen(sender: str, header: np.void, data: bytes) -> bytes:
        if sender == "n2" and header["type"] == FRAME_ACK and header["flags"] & JOIN_FLAG:
            said.append(bytes(cluster.node("n2").disk._durable))
        return data

    on_the_way(cluster, listen)
    cluster.start("n2")
    cluster.run_until(lambda: cluster.is_healthy(VOLUME), LIMIT_S)
    left = LocalVolume(PlainDisk(bytearray(said[0])), boot_id=b"boot after power", life_id=4711)
    assert all(stamp in client.expectation.of(block) for block, stamp in enumerate(left.read_all()))


def test_two_that_join_at_a_time_count_both_when_one_of_them_has_joined() -> None:
    cluster = cluster_of(11, copies=3, min_copies=1)
    for name in ("n2", "n3"):
        cluster.kill(name)
    cluster.run_until(lambda: len(cluster.volume(VOLUME).in_sync) == 1, LIMIT_S)
    for name in ("n2", "n3"):
        cluster.start(name)
    life = cluster.life("n1")

    def learners(phase: Phase) -> int:
        leader = life.control.policies[cluster.volume(VOLUME).index].role
        assert isinstance(leader, Leader)
        return sum(learner.phase is phase for learner in leader.learners.values())

    for phase in (Phase.COPYING, Phase.JOINING):       # what follows each reaches Python at once
        cluster.run_until(lambda phase=phase: learners(phase) == 2, LIMIT_S)
        life.hold_control_until(cluster.clock.now_ns + 10**9)
    cluster.run_until(lambda: cluster.is_healthy(VOLUME), LIMIT_S)
    assert not cluster.comes_to(lambda: not cluster.is_healthy(VOLUME), 0.5)     # none learns anew


@pytest.mark.parametrize("seed", range(3))
def test_a_seal_is_durable_when_another_leads(seed: int) -> None:
    cluster = cluster_of(seed, copies=3, min_copies=2)
    volume = cluster.volume(VOLUME)
    cluster.kill("n1")
    cluster.run_until(lambda: cluster.volume(VOLUME).epoch > volume.epoch, LIMIT_S)
    for name in ("n2", "n3"):
        state = durable_engine(cluster, name).volume_state(volume.index)
        assert state.sealed_epoch >= cluster.volume(VOLUME).epoch


def test_a_flush_is_answered_when_all_copies_have_flushed() -> None:
    cluster = cluster_of(8, copies=3, min_copies=2)
    client = cluster.client(VOLUME, through="n1", asks=iter([Ask(WRITE, 0, 8)]))
    cluster.run_until(lambda: client.is_done, LIMIT_S)
    index = cluster.volume(VOLUME).index
    written_lsn = cluster.life("n1").engine.volume_state(index).commit_lsn
    client.ask_more([Ask(FLUSH)])
    cluster.run_until(lambda: client.is_done, LIMIT_S)
    for name in ("n1", "n2", "n3"):
        assert durable_engine(cluster, name).volume_state(index).last_lsn >= written_lsn


def merging(cluster: SimulatedCluster, stall_s: float) -> SimulatedClient:
    """n1 leads, and reads the rest of a block of which its client writes a sector; its disk is slow."""
    client = cluster.client(VOLUME, through="n1", asks=iter([Ask(WRITE, 0, 64)]), block_bytes=SECTOR_BYTES)
    cluster.run_until(lambda: client.is_done, LIMIT_S)
    cluster.node("n1").disk.stall_until(cluster.clock.now_ns + int(stall_s * NS_PER_S))
    client.ask_more([Ask(WRITE, 18, 1)])
    cluster.run_for(0.02)
    return client


def test_a_part_of_a_block_is_not_written_for_an_attach_that_is_over() -> None:
    """It was under way when another one took over, and had not entered the log."""
    cluster = cluster_of(1, copies=2, min_copies=1)
    client = merging(cluster, stall_s=0.2)
    cluster.attach(client, VOLUME, through="n2")
    client.ask_more([Ask(READ, 16, 8)])
    cluster.run_until(lambda: client.is_done, LIMIT_S)
    client.ask_more([Ask(READ, 16, 8)])
    cluster.run_for(0.5)
    assert client.is_done
    cluster.check(client)


def test_a_part_of_a_block_is_written_by_who_leads_when_the_rest_is_known() -> None:
    """n1 leads no more when its disk answers: the next primary may have written that block."""
    cluster = cluster_of(1, copies=2, min_copies=1)
    client = merging(cluster, stall_s=12)
    for way in (("n1", "n2"), ("n2", "n1")):
        cluster.network.cut(*way)
    cluster.run_until(lambda: cluster.primary(VOLUME) == "n2", LIMIT_S)
    cluster.network.heal()
    cluster.run_until(lambda: client.is_done and cluster.is_healthy(VOLUME), LIMIT_S)
    cluster.life("n1").engine.check_invariants()
    cluster.check(client)


@pytest.mark.parametrize("ask", [Ask(FLUSH), Ask(WRITE, 0, 8)], ids=["flush", "write"])
def test_nothing_is_acknowledged_with_fewer_copies_than_there_must_be(ask: Ask) -> None:
    """n2 lost power, and what it had not flushed. Until it has learned anew there is one copy."""
    cluster = cluster_of(17, copies=2, min_copies=2)
    first = iter([Ask(WRITE, lba, 8) for lba in range(0, SIZE_BLOCKS, 8)])
    client = cluster.client(VOLUME, through="n1", asks=first)
    cluster.run_until(lambda: client.is_done, LIMIT_S)
    cluster.cut_power("n2")
    cluster.start("n2")
    cluster.node("n2").disk.faults.slow_factor = 1000
    cluster.run_until(lambda: len(cluster.volume(VOLUME).in_sync) == 1, LIMIT_S)
    cluster.run_for(0.01)
    client.ask_more([ask])
    cluster.run_for(0.1)
    assert len(cluster.volume(VOLUME).in_sync) == 1
    assert not client.is_done


def test_a_primary_that_was_replaced_says_of_no_block_that_it_is_a_hole() -> None:
    """n1 reaches neither n2 nor the coordination store; its lease is over, n2 leads and has data there. It
    reads nothing any more, and must say nothing of what is where either."""
    cluster = cluster_of(15, copies=2, min_copies=1)
    cluster.life("n1").control.attach(VOLUME, cluster.clock.now_s)
    cluster.run_for(0.2)
    cluster.config_faults.away.add("n1")
    for other in ("n2", "n3"):
        apart(cluster, "n1", other)
    cluster.run_until(lambda: cluster.primary(VOLUME) == "n2", LIMIT_S)
    cluster.life("n2").control.attach(VOLUME, cluster.clock.now_s)
    assert write(cluster, "n2", 5, 4711) == 0
    life = cluster.life("n1")
    ios = np.zeros(1, IO)
    ios["kind"], ios["offset"], ios["length"] = BLOCK_STATUS, 5 * BLOCK_SIZE, BLOCK_SIZE
    ios["export_id"] = life.engine.exports[1]
    memory = mmap.mmap(-1, BLOCK_SIZE)
    call = life.engine.start(ios.view(np.uint8).data, memory, 1)
    life.run()
    assert not call.done or ios["error"][0] or not memory[4], f"says {memory[:8]!r}: a hole"
