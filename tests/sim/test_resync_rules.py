"""Single rules of how copies follow and come back, each in the scene that a breach of it needs."""
from __future__ import annotations

from functools import partial
from itertools import islice

import numpy as np
import pytest

from repstore._fast.layout import (
    FRAME_ACK,
    FRAME_APPEND,
    FRAME_COPIED,
    FRAME_COPY,
    FRAME_FLUSH,
    FRAME_LEARN,
    FRAME_PING,
    JOIN_FLAG,
    frame_header_t,
)
from repstore.format import BLOCK_SIZE
from repstore.sim.clock import NS_PER_S
from repstore.sim.cluster import SimulatedCluster
from repstore.sim.network import Peer
from repstore.sim.workload import FLUSH, READ, WRITE, Ask, SimulatedClient
from tests.sim.bad_blocks import UnreadableBlocks
from tests.sim.rules import (
    HEADER_BYTES,
    SIZE_BLOCKS,
    cluster_of,
    endless_writes,
    frame,
    last_lsn,
    on_the_way,
    only,
    sealed,
    sent_by,
    tell,
)
from tests.sim.scenarios import LIMIT_S, VOLUME

MS = NS_PER_S // 1000
PROMPTLY_S = 1.0                 # less than it takes to notice that a member hears nothing
HALF_BLOCKS = SIZE_BLOCKS // 2
RUNS = 2                         # of 64 blocks are copied
ROTATE_BLOCKS = 4096             # changes after which a younger bitmap is begun


def in_sync(cluster: SimulatedCluster) -> int:
    return len(cluster.volume(VOLUME).in_sync)


def written_once() -> list[Ask]:
    """Every block of the volume, in pieces."""
    return [Ask(WRITE, first, 2) for first in range(0, SIZE_BLOCKS, 2)]


def written(cluster: SimulatedCluster, client: SimulatedClient, *asks: Ask) -> None:
    client.ask_more(asks)
    cluster.run_until(lambda: client.is_done, LIMIT_S)


# ------------------------------------------------------------------------------------ following

def test_a_member_whose_running_hash_is_another_one_leaves() -> None:
    """What it acknowledges by LSN alone could be another log (P6)."""
    cluster = cluster_of(1, copies=2, min_copies=1)

    def lie(sender: str, header: np.void, data: bytes) -> bytes:
        if sender == "n2" and header["type"] == FRAME_ACK:
            header = header.copy()
            header["extra"] ^= 1
            return sealed(header, data[HEADER_BYTES:])
        return data

    cluster.client(VOLUME, through="n1", asks=endless_writes(), depth=2)
    cluster.run_for(0.1)
    on_the_way(cluster, lie)
    cluster.network.drop("n1", "n2")
    cluster.run_until(lambda: in_sync(cluster) == 1, PROMPTLY_S)


def test_records_that_do_not_fit_behind_a_log_are_refused() -> None:
    """The stream says what it continues: a copy with another running hash there takes nothing (R1)."""
    cluster = cluster_of(2, copies=2, min_copies=1)

    def lie(sender: str, header: np.void, data: bytes) -> bytes:
        if sender == "n1" and header["type"] == FRAME_APPEND:
            header = header.copy()
            header["chain"] ^= 1
            return sealed(header, data[HEADER_BYTES:])
        return data

    cluster.client(VOLUME, through="n1", asks=endless_writes(), depth=2)
    cluster.run_for(0.1)
    on_the_way(cluster, lie)
    cluster.run_until(lambda: in_sync(cluster) == 1, PROMPTLY_S)


def test_a_gap_in_the_stream_is_asked_for_at_once() -> None:
    cluster = cluster_of(3, copies=2, min_copies=1)
    client = cluster.client(VOLUME, through="n1", asks=iter([Ask(WRITE, 0, 4)]))
    cluster.run_until(lambda: client.is_done, LIMIT_S)
    lost: list[int] = []

    def lose_one(sender: str, header: np.void, data: bytes) -> bytes | None:
        if sender == "n1" and header["type"] == FRAME_APPEND and not lost:
            lost.append(int(header["lsn"]))
            return None
        return data

    on_the_way(cluster, lose_one)
    client.ask_more([Ask(WRITE, 8, 4)])
    cluster.run_for(0.05)
    assert len(lost) == 1
    assert not client.is_done
    client.ask_more([Ask(WRITE, 16, 4)])
    cluster.run_until(lambda: client.is_done, PROMPTLY_S)
    assert in_sync(cluster) == 2


def test_a_record_that_comes_again_is_acknowledged_again() -> None:
    """Its primary forgot what was said before the session resumed, so it sends anew."""
    cluster = cluster_of(24, copies=2, min_copies=2)
    client = cluster.client(VOLUME, through="n1", asks=iter([]))
    records: list[bytes] = []

    def keep(sender: str, header: np.void, data: bytes) -> bytes:
        if sender == "n1" and header["type"] == FRAME_APPEND and header["body_bytes"]:
            records.append(data)
        return data

    on_the_way(cluster, keep)
    written(cluster, client, Ask(WRITE, 0, 4))
    cluster.run_for(0.1)                       # what there is to say is said
    acknowledged = sent_by(cluster, "n2", FRAME_ACK)
    cluster.run_for(0.1)
    assert not acknowledged
    tell(cluster, "n2", "n1", records[-1])
    cluster.run_for(0.01)
    assert [int(header["lsn"]) for header in acknowledged] == [last_lsn(cluster, "n2")]


@pytest.mark.parametrize("others", [0, 1])
def test_a_record_that_the_primarys_disk_does_not_give_back_is_no_loss_of_all_copies(others: int) -> None:
    """A member lacks it, so nobody was told of it. It learns it from another; if there is none it leads."""
    cluster = cluster_of(8, copies=2 + others, min_copies=2 + others)
    client = cluster.client(VOLUME, through="n1", asks=iter([Ask(WRITE, 0, 8)]))
    cluster.run_until(lambda: client.is_done, LIMIT_S)
    begin_lsn = last_lsn(cluster, "n1")
    cluster.network.cut("n1", "n2")
    client.ask_more([Ask(WRITE, 2, 4)])
    cluster.run_until(lambda: last_lsn(cluster, "n1") == begin_lsn + 4, LIMIT_S)
    disk = cluster.node("n1").disk
    UnreadableBlocks(disk).blocks = set(range(len(disk.image) // BLOCK_SIZE))
    cluster.network.mend([("n1", "n2")])
    cluster.network.drop("n1", "n2")
    cluster.run_until(lambda: client.is_done and cluster.is_healthy(VOLUME), LIMIT_S)
    assert cluster.primary(VOLUME) == ("n1" if others else "n2")
    cluster.check(client)


def test_a_member_out_of_reach_counts_until_the_config_says_otherwise() -> None:
    cluster = cluster_of(7, copies=2, min_copies=1)
    client = cluster.client(VOLUME, through="n1", asks=iter([Ask(WRITE, 0, 4)]))
    cluster.run_until(lambda: client.is_done, LIMIT_S)
    cluster.config_faults.away.add("n1")
    cluster.network.cut("n1", "n2")
    cluster.network.drop("n1", "n2")
    cluster.run_for(0.1)
    client.ask_more([Ask(WRITE, 0, 4)])
    cluster.run_for(10)
    assert not client.is_done


@pytest.mark.parametrize("seed", range(3))
def test_a_new_primary_reads_what_the_dead_one_acknowledged(seed: int) -> None:
    """It has the record and does not know yet that it was committed."""
    cluster = cluster_of(seed, copies=3, min_copies=2)
    client = cluster.client(VOLUME, through="n2", asks=iter(written_once()))
    cluster.run_until(lambda: client.is_done, LIMIT_S)
    written(cluster, client, Ask(WRITE, 0, 8))
    cluster.kill("n1")
    written(cluster, client, Ask(READ, 0, 8))
    assert cluster.primary(VOLUME) != "n1"


# --------------------------------------------------------------------------------- coming back

def test_what_a_learner_said_in_an_earlier_session_is_no_answer_to_the_join() -> None:
    """It flushed then, and has not now (R-session)."""
    cluster = cluster_of(4, copies=2, min_copies=1)
    client = cluster.client(VOLUME, through="n1", asks=iter([Ask(WRITE, 0, 8)]))
    cluster.run_until(lambda: client.is_done, LIMIT_S)
    cluster.kill("n2")
    cluster.run_until(lambda: in_sync(cluster) == 1, LIMIT_S)
    written(cluster, client, *(Ask(WRITE, first, 8) for first in range(0, SIZE_BLOCKS, 8)), Ask(FLUSH))
    volume = cluster.volume(VOLUME)
    asked: list[int] = []

    def stall(sender: str, header: np.void, data: bytes) -> bytes:
        if sender == "n1" and header["type"] == FRAME_FLUSH and header["flags"] & JOIN_FLAG and not asked:
            cluster.node("n2").disk.stall_until(cluster.clock.now_ns + NS_PER_S)
            asked.append(int(header["lsn"]))
        return data

    on_the_way(cluster, stall)
    cluster.start("n2")
    cluster.run_until(lambda: bool(asked), LIMIT_S)
    tell(cluster, "n1", "n2", frame(FRAME_ACK, flags=JOIN_FLAG, epoch=volume.epoch, volume=volume.index,
                                    lsn=asked[0], commit=asked[0], chain=1))
    cluster.run_for(0.5)
    assert in_sync(cluster) == 1
    cluster.run_until(lambda: cluster.is_healthy(VOLUME), LIMIT_S)


def test_a_copy_that_misses_the_begin_of_its_session_asks_again() -> None:
    """Nobody writes, so heartbeats are all it hears from then on; they begin nothing."""
    cluster = cluster_of(12, copies=2, min_copies=1)
    cluster.run_for(0.1)                       # so n2 lacks no record: heartbeats say nothing new
    cluster.kill("n2")
    cluster.run_until(lambda: in_sync(cluster) == 1, LIMIT_S)
    lost_until_ns = [0]

    def lose_all(sender: str, header: np.void, data: bytes) -> bytes | None:
        if header["type"] == FRAME_LEARN and not lost_until_ns[0]:
            lost_until_ns[0] = cluster.clock.now_ns + 100 * MS
        of_session = sender == "n1" and header["type"] != FRAME_PING
        return None if of_session and cluster.clock.now_ns < lost_until_ns[0] else data

    on_the_way(cluster, lose_all)
    cluster.start("n2")
    cluster.run_until(lambda: cluster.is_healthy(VOLUME), LIMIT_S)
    assert lost_until_ns[0]


def test_a_copy_that_returns_with_all_there_is_hears_that_its_session_begins() -> None:
    """Nothing was ever committed, so there is no commit to tell; and nobody writes."""
    cluster = SimulatedCluster(6, nodes=2, store_bytes=2 << 20, segment_bytes=64 << 10)
    lost: list[int] = []

    def lose_the_first(sender: str, header: np.void, data: bytes) -> bytes | None:
        if sender == "n2" and header["type"] == FRAME_ACK and 1 not in lost:
            lost.append(int(header["lsn"]))
            return None
        return data

    on_the_way(cluster, lose_the_first)
    cluster.create_volume(VOLUME, SIZE_BLOCKS, copies=2, min_copies=2)
    cluster.run_until(lambda: 1 in lost, LIMIT_S)
    cluster.kill("n2")
    cluster.start("n2")
    client = cluster.client(VOLUME, through="n1", asks=iter([Ask(READ, 0, 4)]))
    cluster.run_until(lambda: client.is_done, LIMIT_S)


def test_a_joiner_flushes_all_that_it_was_asked_about() -> None:
    """The request overtakes the records. Neither does the joiner answer before they are there, nor does the
    primary take such an answer."""
    cluster = cluster_of(13, copies=2, min_copies=1)
    client = cluster.client(VOLUME, through="n3", asks=iter(written_once()), depth=8)
    cluster.run_until(lambda: client.is_done, LIMIT_S)
    cluster.kill("n2")
    cluster.run_until(lambda: in_sync(cluster) == 1, LIMIT_S)
    written(cluster, client, *written_once())
    begun: list[np.void] = []
    copied: list[bytes] = []
    late: list[bytes] = []
    asked: list[int] = []
    answered: list[int] = []

    def hold_records(sender: str, header: np.void, data: bytes) -> bytes | None:
        if header["type"] == FRAME_LEARN and not begun:
            begun.append(header)
        if header["type"] == FRAME_COPIED and header["lsn"] == RUNS and not copied:
            copied.append(data)                # all copies are there; now come records
            client.ask_more(written_once())
            cluster.clock.after(50 * MS, partial(tell, cluster, "n1", "n2", data))
            return None
        if header["type"] == FRAME_FLUSH and header["flags"] & JOIN_FLAG:
            asked.append(int(header["lsn"]))
        if header["type"] == FRAME_ACK and header["flags"] & JOIN_FLAG:
            answered.append(int(header["lsn"]))
        if copied and not answered and sender == "n1" and header["type"] == FRAME_APPEND:
            late.append(data)
            return None
        return data

    on_the_way(cluster, hold_records)
    cluster.start("n2")
    cluster.run_until(lambda: bool(asked), LIMIT_S)
    cluster.run_for(0.1)
    assert answered == []
    early = int(begun[0]["lsn"])
    tell(cluster, "n1", "n2", frame(FRAME_ACK, flags=JOIN_FLAG, epoch=begun[0]["epoch"], volume=1, lsn=early,
                                    commit=early, chain=begun[0]["extra"]))
    cluster.run_for(0.1)
    assert in_sync(cluster) == 1
    for data in late:
        tell(cluster, "n2", "n1", data)
    cluster.run_until(lambda: cluster.is_healthy(VOLUME), LIMIT_S)
    assert answered[0] >= asked[0] > early
    only(cluster, "n2", client)


@pytest.mark.parametrize("seed", range(3))
def test_a_write_that_is_pending_when_a_copy_comes_back_reaches_it(seed: int) -> None:
    """It is neither in what is copied nor in the stream, if the stream begins behind it (R-caught-up)."""
    cluster = cluster_of(seed, copies=3, min_copies=1, nodes=4)
    client = cluster.client(VOLUME, through="n4", asks=endless_writes(), depth=6)
    cluster.network.slow("n3", "n1", 20 * MS)
    for _ in range(3):
        cluster.run_for(0.1)
        cluster.kill("n2")
        cluster.run_for(0.3)
        cluster.start("n2")
        cluster.run_until(lambda: cluster.is_healthy(VOLUME), LIMIT_S)
    only(cluster, "n2", client)


@pytest.mark.parametrize("seed", range(4))
def test_a_block_that_changes_while_it_is_copied_is_the_newer_one(seed: int) -> None:
    """The newer record is sent first, the copy as of an older commit behind it, and the record commits
    while the copy waits for the copy's disk. Nobody writes the block again."""
    cluster = cluster_of(seed, copies=2, min_copies=1)
    client = cluster.client(VOLUME, through="n3", asks=iter(written_once()), depth=SIZE_BLOCKS)
    cluster.run_until(lambda: client.is_done, LIMIT_S)
    cluster.kill("n2")
    cluster.run_until(lambda: in_sync(cluster) == 1, LIMIT_S)
    written(cluster, client, *written_once())

    def write_behind(sender: str, header: np.void, data: bytes) -> bytes:
        if sender == "n1" and header["type"] == FRAME_LEARN:
            cluster.node("n1").disk.faults.slow_factor = 20
            cluster.node("n2").disk.faults.slow_factor = 100
            client.ask_more(written_once())
        return data

    on_the_way(cluster, write_behind)
    cluster.start("n2")
    cluster.run_until(lambda: cluster.is_healthy(VOLUME), LIMIT_S)
    only(cluster, "n2", client)


def test_the_join_waits_for_the_last_copy() -> None:
    """The primary's disk is slow: what it reads for the copy last comes long after it was asked for."""
    cluster = cluster_of(5, copies=2, min_copies=1)
    client = cluster.client(VOLUME, through="n3", asks=iter(written_once()))
    cluster.run_until(lambda: client.is_done, LIMIT_S)
    cluster.kill("n2")
    cluster.run_until(lambda: in_sync(cluster) == 1, LIMIT_S)
    written(cluster, client, *written_once())
    cluster.node("n1").disk.faults.slow_factor = 400
    cluster.start("n2")
    cluster.run_until(lambda: cluster.is_healthy(VOLUME), LIMIT_S)
    cluster.kill("n1")
    cluster.run_until(lambda: cluster.primary(VOLUME) == "n2", LIMIT_S)
    cluster.check(client)


def returning(seed: int) -> tuple[SimulatedCluster, SimulatedClient]:
    """n2 was away while every second piece of the volume was written anew, and starts again."""
    cluster = cluster_of(seed, copies=2, min_copies=1)
    client = cluster.client(VOLUME, through="n3", asks=iter(written_once()))
    cluster.run_until(lambda: client.is_done, LIMIT_S)
    written(cluster, client, Ask(FLUSH))
    cluster.kill("n2")
    cluster.run_until(lambda: in_sync(cluster) == 1, LIMIT_S)
    written(cluster, client, *written_once()[::2])
    cluster.start("n2")
    return cluster, client


@pytest.mark.parametrize("lost", [1, RUNS])
def test_a_copy_that_is_lost_on_its_way_comes_again(lost: int) -> None:
    """What is said of the other one, twice, is no word about it (R6)."""
    cluster, client = returning(8)
    copies = 0

    def lose_one(sender: str, header: np.void, data: bytes) -> bytes | None:
        nonlocal copies
        if header["type"] == FRAME_COPIED:
            cluster.clock.after(0, partial(tell, cluster, "n1", "n2", data))
        if header["type"] == FRAME_COPY and header["body_bytes"]:
            copies += 1
            return None if copies == lost else data
        return data

    on_the_way(cluster, lose_one)
    cluster.run_until(lambda: cluster.is_healthy(VOLUME), LIMIT_S)
    assert copies == RUNS + RUNS
    only(cluster, "n2", client)


def test_a_copy_that_newer_records_overtook_is_not_taken() -> None:
    """It is older than what is committed there (R6)."""
    cluster, client = returning(9)
    send = cluster.network.send
    held: list[bytes] = []

    def hold_the_last(owner: Peer, link: int, token: int, data: bytes) -> None:
        header = np.frombuffer(data[:HEADER_BYTES], frame_header_t)[0]
        if header["type"] == FRAME_COPY and header["lsn"] == RUNS and not held:
            held.append(data)
            data = b""
        send(owner, link, token, data)

    cluster.network.send = hold_the_last       # type: ignore[method-assign]
    cluster.run_until(lambda: bool(held), LIMIT_S)
    written(cluster, client, *written_once(), *written_once())
    tell(cluster, "n2", "n1", held[0])
    cluster.run_until(lambda: cluster.is_healthy(VOLUME), LIMIT_S)
    only(cluster, "n2", client)


def test_a_copy_whose_end_lies_before_the_youngest_bitmap_gets_all_that_it_lacks() -> None:
    """A bitmap that was begun while the copy was away does not know of what changed before."""
    cluster = cluster_of(6, copies=2, min_copies=1)
    client = cluster.client(VOLUME, through="n3", asks=iter(written_once()), depth=8)
    cluster.run_until(lambda: client.is_done, LIMIT_S)
    written(cluster, client, Ask(FLUSH))
    cluster.kill("n2")
    cluster.run_until(lambda: in_sync(cluster) == 1, LIMIT_S)
    state = cluster.life("n1").engine.volume_state(cluster.volume(VOLUME).index)
    here = islice(endless_writes(HALF_BLOCKS), (ROTATE_BLOCKS - 100 - state.commit_lsn) // 4)
    there = [Ask(WRITE, HALF_BLOCKS, 4) for _ in range(200)]
    written(cluster, client, *here, *there)
    cluster.start("n2")
    cluster.run_until(lambda: cluster.is_healthy(VOLUME), LIMIT_S)
    only(cluster, "n2", client)
