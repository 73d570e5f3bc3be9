"""A request is in the log once: not twice, and not taken for logged when none or a part of it is (S4, X3)."""
from __future__ import annotations

import mmap

import numpy as np
import pytest

from repstore._fast.layout import FRAME_REQUEST
from repstore._fast.simulated import DiskFlush, DiskRead
from repstore.format import BLOCK_SIZE
from repstore.sim.clock import NS_PER_S
from repstore.sim.cluster import SimulatedCluster
from repstore.sim.disk import DiskAsk
from repstore.sim.workload import IO, READ, TRIM, WRITE, WRITE_ZEROES, Ask, Operation
from tests.sim.bad_blocks import UnreadableBlocks, location, read, touched, write
from tests.sim.rules import SIZE_BLOCKS, apart, cluster_of, last_lsn, on_the_way, together
from tests.sim.scenarios import LIMIT_S, VOLUME

SECTORS = 8                      # of a block
SECTOR_BYTES = BLOCK_SIZE // SECTORS
WINDOW = 4096                    # request numbers that a copy remembers
RANGE_BLOCKS = 131072            # that one record of zeroes takes
BATCH_RECORDS = 80               # the rest of what fits into a batch's header


@pytest.mark.fault("crash: of the primary, after records of the one before were dropped",
                   promise="what is sent again is logged again")
@pytest.mark.parametrize("reads", [0, 100])
def test_a_request_whose_record_was_dropped_is_not_taken_for_logged(reads: int) -> None:
    """n1 alone has its record, loses the volume to n2, learns from it (the record is void), and leads again.
    The client reaches n1 alone all the time, and sends it again."""
    cluster = cluster_of(1, copies=2, min_copies=1)
    client = cluster.client(VOLUME, through="n3", asks=iter([Ask(WRITE, 0, 8)] + reads * [Ask(READ, 0, 8)]))
    cluster.run_until(lambda: client.is_done, LIMIT_S)
    begin_lsn = last_lsn(cluster, "n1")
    apart(cluster, "n1", "n2")
    apart(cluster, "n3", "n2")
    client.ask_more([Ask(WRITE, 0, 4)])
    cluster.run_until(lambda: last_lsn(cluster, "n1") == begin_lsn + 4, LIMIT_S)
    cluster.run_until(lambda: cluster.primary(VOLUME) == "n2", LIMIT_S)
    together(cluster, "n1", "n2")
    cluster.run_until(lambda: cluster.is_healthy(VOLUME), LIMIT_S)
    assert not client.is_done
    cluster.kill("n2")
    cluster.run_until(lambda: cluster.primary(VOLUME) == "n1", LIMIT_S)
    cluster.run_until(lambda: client.is_done, LIMIT_S)
    cluster.check(client)


@pytest.mark.parametrize("primary_dies", [False, True])
@pytest.mark.fault("disk: tries for seconds to read what a part of a block is put into",
                   promise="thousands of writes that overtake it wait before it is forgotten")
def test_a_write_that_thousands_overtook_is_not_taken_for_logged(primary_dies: bool) -> None:
    """A part of a block. Its disk tries for seconds to read the rest, and gives up, or its node dies."""
    cluster = cluster_of(2, copies=2, min_copies=1)
    first = iter([Ask(WRITE, lba * SECTORS, 8 * SECTORS) for lba in range(0, SIZE_BLOCKS, 8)])
    client = cluster.client(VOLUME, through="n3", block_bytes=SECTOR_BYTES, depth=32, asks=first)
    cluster.run_until(lambda: client.is_done, LIMIT_S)
    cluster.run_for(0.1)
    UnreadableBlocks(cluster.node("n1").disk).blocks.add(location(cluster, "n1", 5))
    reads_slowly(cluster, 5, 3)
    client.ask_more([Ask(WRITE, 5 * SECTORS + 3, 2)])
    cluster.run_for(0.02)
    before = client.acknowledged
    client.ask_more(Ask(WRITE, (64 + i % 32) * SECTORS, SECTORS) for i in range(WINDOW + 100))
    cluster.comes_to(lambda: client.acknowledged == before + WINDOW + 100, 2.9)
    assert client.flying
    if primary_dies:
        cluster.kill("n1")
    cluster.run_until(lambda: client.is_done, LIMIT_S)
    cluster.check(client)


def reads_slowly(cluster: SimulatedCluster, block: int, duration_s: int) -> None:
    """The disk of n1 takes so long to read this block."""
    disk, where = cluster.node("n1").disk, location(cluster, "n1", block)
    begin = disk.begin

    def try_hard(ask: DiskAsk) -> int:
        meets = isinstance(ask, DiskRead) and where in touched(ask.offset, ask.length)
        return begin(ask) + duration_s * NS_PER_S * meets

    disk.begin = try_hard                      # type: ignore[method-assign]


def deposed(cluster: SimulatedCluster) -> None:
    """n2 leads, and n1, which led, is in sync again."""
    apart(cluster, "n1", "n2")
    cluster.run_until(lambda: cluster.primary(VOLUME) == "n2", LIMIT_S)
    together(cluster, "n1", "n2")
    cluster.run_until(lambda: cluster.is_healthy(VOLUME), LIMIT_S)


@pytest.mark.fault("disk: tries to read what a part of a block is put into until another node leads",
                   promise="thousands of writes that overtake it wait before it is forgotten")
def test_a_write_that_its_old_primary_still_reads_for_is_not_taken_for_logged() -> None:
    """The client sits where the old primary is: its export has the write back when the disk has answered."""
    cluster = cluster_of(2, copies=2, min_copies=1)
    first = iter([Ask(WRITE, lba * SECTORS, 8 * SECTORS) for lba in range(0, SIZE_BLOCKS, 8)])
    client = cluster.client(VOLUME, through="n1", block_bytes=SECTOR_BYTES, depth=32, asks=first)
    cluster.run_until(lambda: client.is_done, LIMIT_S)
    cluster.run_for(0.1)
    reads_slowly(cluster, 5, 60)
    client.ask_more([Ask(WRITE, 5 * SECTORS + 3, 2)])
    cluster.run_for(0.02)
    deposed(cluster)
    before = client.acknowledged
    client.ask_more(Ask(WRITE, (64 + i % 32) * SECTORS, SECTORS) for i in range(WINDOW + 100))
    cluster.comes_to(lambda: client.acknowledged == before + WINDOW + 100, 20)
    assert client.acknowledged > before + WINDOW - 100
    assert client.flying
    cluster.run_until(lambda: client.is_done, 60)
    cluster.check(client)


def test_an_answer_is_not_taken_for_one_to_an_older_session() -> None:
    """The disk of n1 still reads for the first request of a session that is over. The first one of the next
    goes to another node, and has the same number."""
    cluster = cluster_of(5, copies=2, min_copies=1)
    first = iter([Ask(WRITE, lba, 8) for lba in range(0, SIZE_BLOCKS, 8)])
    client = cluster.client(VOLUME, through="n3", asks=first)
    cluster.run_until(lambda: client.is_done, LIMIT_S)
    cluster.run_for(0.1)
    cluster.attach(client, VOLUME, through="n1")
    reads_slowly(cluster, 5, 300)
    client.ask_more([Ask(READ, 5, 1)])
    cluster.run_for(0.02)
    cluster.attach(client, VOLUME, through="n3")
    deposed(cluster)
    cluster.attach(client, VOLUME, through="n1")
    before = client.acknowledged
    client.ask_more(Ask(WRITE, 64 + i, 1) for i in range(8))
    cluster.run_until(lambda: client.acknowledged == before + 8, 1)
    cluster.check(client)


@pytest.mark.fault("network: damages the same request again and again, while thousands behind it arrive",
                   promise="they do not overtake it: it is not forgotten")
def test_a_request_that_is_sent_back_is_not_overtaken() -> None:
    """A copy remembers so many numbers: of a write that more had overtaken it would say that it is logged."""
    cluster = cluster_of(4, copies=2, min_copies=1)
    client = cluster.client(VOLUME, through="n3", depth=1000, overlaps=True, asks=iter([Ask(WRITE, 0, 8)]))
    cluster.run_until(lambda: client.is_done, LIMIT_S)
    cluster.run_for(0.1)
    good_ns = cluster.clock.now_ns + 2 * NS_PER_S
    damaged: list[int] = []

    def look(sender: str, header: np.void, data: bytes) -> bytes:
        if header["type"] == FRAME_REQUEST and header["lsn"] == 2 and cluster.clock.now_ns < good_ns:
            damaged.append(cluster.clock.now_ns)
            return data[:-1] + bytes([data[-1] ^ 1])
        return data

    on_the_way(cluster, look)
    client.ask_more([Ask(WRITE, 5, 1)])
    cluster.run_until(lambda: bool(damaged), 0.1)
    client.ask_more(Ask(WRITE, 64 + i % 32, 1) for i in range(WINDOW + 2000))
    cluster.run_until(lambda: client.is_done, LIMIT_S)
    assert len(damaged) > 10
    cluster.check(client)


def test_what_an_older_session_left_is_not_sent_under_the_new_one() -> None:
    """n1 has a write of its client in its log, n2 does not. The client goes on through n3, and comes back.
    Then n2 leads: what the first session left must not reach it as if the new one had asked for it."""
    cluster = cluster_of(3, copies=2, min_copies=1)
    client = cluster.client(VOLUME, through="n1", asks=iter([]))
    cluster.run_for(0.1)
    begin_lsn = last_lsn(cluster, "n1")
    apart(cluster, "n1", "n2")
    client.ask_more([Ask(WRITE, 64, 4)])
    cluster.run_until(lambda: last_lsn(cluster, "n1") == begin_lsn + 4, LIMIT_S)
    cluster.attach(client, VOLUME, through="n3")
    cluster.run_for(0.2)
    cluster.attach(client, VOLUME, through="n1")
    cluster.run_for(0.2)
    client.ask_more([Ask(WRITE, 0, 4)])
    cluster.run_until(lambda: cluster.primary(VOLUME) == "n2", LIMIT_S)
    together(cluster, "n1", "n2")
    cluster.run_until(lambda: client.is_done, LIMIT_S)
    cluster.check(client)


@pytest.mark.fault("crash: of the primary, and who leads then has what was logged as copies",
                   promise="a write that was seen is not repeated over a newer one")
def test_what_a_copy_learned_is_not_written_again() -> None:
    """A durable write waits for n1's disk to flush, committed; it is read, and overwritten. n2 comes back,
    has both as copies, and leads: the first one is sent again."""
    cluster = cluster_of(6, copies=2, min_copies=1)
    client = cluster.client(VOLUME, through="n3", asks=iter([Ask(WRITE, 0, 8)]), overlaps=True)
    cluster.run_until(lambda: client.is_done, LIMIT_S)
    cluster.kill("n2")
    cluster.run_until(lambda: len(cluster.volume(VOLUME).in_sync) == 1, LIMIT_S)
    answers: list[Operation] = []
    client.on_answered = answers.append
    disk = cluster.node("n1").disk
    begin = disk.begin
    disk.begin = lambda ask: begin(ask) + 30 * NS_PER_S * isinstance(ask, DiskFlush)   # type: ignore[method-assign]
    client.ask_more([Ask(WRITE, 0, 1, fua=True)])
    cluster.run_for(0.1)
    for more in (Ask(READ, 0, 1), Ask(WRITE, 0, 1), Ask(READ, 0, 1)):
        before = len(answers)
        client.ask_more([more])
        cluster.run_until(lambda before=before: len(answers) > before, LIMIT_S)
    assert answers[2].line.values == answers[1].line.values != answers[0].line.values
    cluster.start("n2")
    cluster.run_until(lambda: cluster.is_healthy(VOLUME), LIMIT_S)
    assert client.flying == 1
    cluster.kill("n1")
    cluster.run_until(lambda: client.is_done, LIMIT_S)
    client.ask_more([Ask(READ, 0, 1)])
    cluster.run_until(lambda: client.is_done, LIMIT_S)
    assert answers[-1].line.values == answers[1].line.values


@pytest.mark.fault("crash: of all copies between two batches that hold the records of one request",
                   promise="a part of a long range is not taken for all of it")
@pytest.mark.slow
def test_half_of_a_long_range_is_not_taken_for_all_of_it() -> None:
    """Zeroes are written to more than one record takes. n2 has the first of two records on its disk when all
    nodes with a copy are killed, and n1 does not come back."""
    cluster = SimulatedCluster(7, nodes=3, store_bytes=768 << 20, segment_bytes=8 << 20)
    cluster.create_volume(VOLUME, RANGE_BLOCKS + 8, copies=2, min_copies=1)
    cluster.run_until(lambda: cluster.is_healthy(VOLUME), LIMIT_S)
    cluster.life("n3").control.attach(VOLUME, cluster.clock.now_s)
    assert write(cluster, "n3", RANGE_BLOCKS + 3, 4711) == 0
    cluster.run_for(1.5)
    life = cluster.life("n3")
    disk = cluster.node("n2").disk
    disk.stall_until(cluster.clock.now_ns + 30 * NS_PER_S)
    calls = []

    def ask(*asks: tuple[int, int, int]) -> None:
        ios = np.zeros(len(asks), IO)
        for io, (kind, first, blocks) in zip(ios, asks, strict=True):
            io["kind"], io["offset"], io["length"] = kind, first * BLOCK_SIZE, blocks * BLOCK_SIZE
            io["export_id"] = life.engine.exports[1]
        memory = mmap.mmap(-1, BLOCK_SIZE)
        calls.append((life.engine.start(ios.view(np.uint8).data, memory, 1024), ios, memory))
        life.run()

    for i in range(2):                         # the two batches that may be under way
        ask((TRIM, i, 1))
        cluster.run_for(0.01)
    ask(*[(TRIM, 10 + i, 1) for i in range(BATCH_RECORDS - 1)], (WRITE_ZEROES, 0, RANGE_BLOCKS + 8))
    cluster.run_for(0.5)
    disk.stalled_until_ns = 0
    disk._part = lambda write: write           # type: ignore[method-assign]  # all that is under way is written
    cluster.kill("n2")
    cluster.kill("n1")
    cluster.start("n2")
    cluster.run_until(lambda: all(call.done for call, _, _ in calls), LIMIT_S)
    assert not calls[-1][1]["error"].any()
    assert read(cluster, "n3", RANGE_BLOCKS + 3) == (0, [0])
