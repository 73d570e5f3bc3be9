"""A copy returns and everything comes anew: what it has and nobody else does is not lost by it."""
from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest

from repstore import config
from repstore._fast.layout import (
    FRAME_ACK,
    FRAME_APPEND,
    FRAME_COPIED,
    FRAME_COPY,
    FRAME_FETCH,
    FRAME_FLUSH,
    FRAME_LEARN,
)
from repstore.check.findings import Report
from repstore.check.fsck import check_device
from repstore.format import LOCATION_BAD, LOCATION_HOLE
from repstore.sim.cluster import SimulatedCluster
from repstore.sim.workload import TRIM, WRITE, Ask, SimulatedClient
from repstore.store.device import MemoryDevice
from tests.sim.bad_blocks import EIO, extents, location, lost, read, rot, write
from tests.sim.rules import on_the_way, only, sent_by, tell
from tests.sim.scenarios import LIMIT_S, VOLUME
from tests.sim.test_repair import map_pages

SIZE_BLOCKS = 600                # two pages of the map
BLOCK = 37
CHANGED = 100                    # n1 wrote it anew while n2 was away
VOID = 101                       # n2 has a write of it that n1 lost
VOID_HOLE = 500                  # the same, and n1 has nothing there
ROTATE_BLOCKS = 4096             # changes after which a younger bitmap is begun


def attach(cluster: SimulatedCluster, name: str = "n1") -> None:
    cluster.life(name).control.attach(VOLUME, cluster.clock.now_s)


def in_sync(cluster: SimulatedCluster) -> tuple[int, ...]:
    return cluster.volume(VOLUME).in_sync_nodes()


def leave(cluster: SimulatedCluster) -> None:
    """n2 is killed, and n1 goes on alone."""
    cluster.kill("n2")
    cluster.run_until(lambda: in_sync(cluster) == (0,), LIMIT_S)


def new_epoch(cluster: SimulatedCluster) -> None:
    """n1 leads the next one, alone."""
    epoch = cluster.volume(VOLUME).epoch
    cluster.kill("n1")
    cluster.start("n1")
    cluster.run_until(lambda: cluster.volume(VOLUME).epoch > epoch, LIMIT_S)
    attach(cluster)


def back(cluster: SimulatedCluster) -> None:
    """n2 returns, and is in sync."""
    cluster.start("n2")
    cluster.run_until(lambda: cluster.is_healthy(VOLUME), LIMIT_S)


def settle(cluster: SimulatedCluster) -> None:
    """All is committed on all copies, and a checkpoint of each holds it."""
    cluster.run_for(0.1)
    for node in cluster.world.nodes.values():
        if node.life is not None:
            cluster.life(node.name).engine.settle()
    cluster.run_for(0.1)


def filled(seed: int = 1, copies: int = 2) -> SimulatedCluster:
    """All blocks but the last hundred carry the stamp 1000 + LBA on all copies, durably."""
    cluster = SimulatedCluster(seed, nodes=copies, store_bytes=8 * config.MIB)
    cluster.create_volume(VOLUME, SIZE_BLOCKS, copies=copies, min_copies=1)
    cluster.run_until(lambda: cluster.is_healthy(VOLUME), LIMIT_S)
    attach(cluster)
    for first in range(0, SIZE_BLOCKS - 100, 20):
        assert write(cluster, "n1", first, 1000 + first, 20) == 0
    settle(cluster)
    return cluster


def rotated(cluster: SimulatedCluster) -> None:
    """So much was written that no change bitmap reaches back to the beginning any more."""
    for _ in range(3):
        for _ in range(ROTATE_BLOCKS // 20 + 1):
            assert write(cluster, "n1", CHANGED, 1000 + CHANGED, 20) == 0
        settle(cluster)


def cut_lineage(cluster: SimulatedCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """More epochs went by than a lineage remembers."""
    monkeypatch.setattr(config, "LINEAGE_ENTRIES_MAX", 1)
    leave(cluster)
    new_epoch(cluster)


def no_bitmap(cluster: SimulatedCluster, _: pytest.MonkeyPatch) -> None:
    """All bitmaps of n1 begin after the beginning of the last epoch that n2 knows."""
    leave(cluster)
    new_epoch(cluster)
    back(cluster)
    rotated(cluster)
    leave(cluster)


def void(cluster: SimulatedCluster, _: pytest.MonkeyPatch | None = None) -> None:
    """n1 lost, with its power, writes that n2 has committed."""
    assert write(cluster, "n1", VOID, 7000 + VOID) == 0
    assert write(cluster, "n1", VOID_HOLE, 7000 + VOID_HOLE) == 0
    cluster.run_for(0.01)
    assert location(cluster, "n2", VOID_HOLE) > LOCATION_BAD
    cluster.life("n2").engine.settle()         # else it would not know any more that they are committed
    cluster.kill("n2")
    cluster.run_until(lambda: in_sync(cluster) == (0,), LIMIT_S)
    lose_power(cluster)


def lose_power(cluster: SimulatedCluster) -> None:
    """n1's machine does, and nothing that was not flushed had reached the medium. It leads on."""
    incarnation = cluster.volume(VOLUME).incarnation
    cluster.node("n1").disk._done.clear()
    cluster.cut_power("n1")
    cluster.start("n1")
    cluster.run_until(lambda: cluster.volume(VOLUME).incarnation > incarnation, LIMIT_S)
    attach(cluster)


def both_come_back(cluster: SimulatedCluster) -> None:
    """n2 after its process died, with what it took on its disk; n1 after a loss of power. Links are good."""
    cluster.life("n2").engine.settle()
    cluster.kill("n2")
    del cluster.network.send                   # what `on_the_way` put before it
    lose_power(cluster)
    back(cluster)


Reason = Callable[[SimulatedCluster, pytest.MonkeyPatch], None]
EVERY_REASON = pytest.mark.parametrize("reason", [cut_lineage, no_bitmap, void])


@EVERY_REASON
def test_a_block_that_its_primary_lost_comes_back_from_a_copy_that_is_copied_anew(
        reason: Reason, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = filled()
    reason(cluster, monkeypatch)
    assert write(cluster, "n1", CHANGED, 5000) == 0
    cluster.run_for(0.1)
    for block in (BLOCK, CHANGED):
        rot(cluster.node("n1").disk, location(cluster, "n1", block))
    back(cluster)
    cluster.run_for(2)
    assert read(cluster, "n1", BLOCK) == (0, [1000 + BLOCK])
    assert read(cluster, "n1", CHANGED)[0] == EIO          # what n2 has of it is another content
    assert location(cluster, "n2", CHANGED) == LOCATION_BAD
    assert lost(cluster, "n1") == [(1, CHANGED)]
    equal(cluster, "n1", "n2")
    cluster.kill("n1")
    cluster.run_until(lambda: in_sync(cluster) == (1,), LIMIT_S)
    attach(cluster, "n2")
    for lba in range(SIZE_BLOCKS - 100):
        if lba != CHANGED:
            assert read(cluster, "n2", lba) == (0, [1000 + lba]), lba
    assert read(cluster, "n2", VOID_HOLE) == (0, [0])


def equal(cluster: SimulatedCluster, *names: str) -> None:
    """Their maps name the same content and the same holes."""
    maps = [extents(cluster, name, 0, SIZE_BLOCKS) for name in names]
    for other in maps[1:]:
        assert maps[0]["crc"].tolist() == other["crc"].tolist()
        holes, other_holes = (of["location"] == LOCATION_HOLE for of in (maps[0], other))
        assert holes.tolist() == other_holes.tolist()


def without_data(cluster: SimulatedCluster) -> list[bool]:
    """Copies of data do not reach a learner until the list is cleared; copies of holes do not, where it is
    told so by True."""
    lost: list[bool] = [False]

    def lose(_: str, header: np.void, data: bytes) -> bytes | None:
        is_data = header["body_bytes"] > 0
        return None if header["type"] == FRAME_COPY and lost and (is_data or lost[0]) else data

    on_the_way(cluster, lose)
    return lost


@pytest.mark.parametrize("was_learning", [False, True])
def test_a_copy_that_shares_nothing_shares_nothing_after_half_of_it_was_copied(was_learning: bool) -> None:
    """Its log is the primary's from then on, so it seems to lack only what changed later: it would keep what
    the primary never had. That it was right up to somewhere in an earlier session does not count any more."""
    cluster = filled()
    lost_copies = without_data(cluster)
    if was_learning:
        rotated(cluster)
        leave(cluster)
        assert write(cluster, "n1", CHANGED, 5000) == 0
        cluster.start("n2")
        cluster.run_until(lambda: cluster.life("n2").engine.volume_state(1).learning, LIMIT_S)
        cluster.run_for(0.1)
        settle(cluster)
    void(cluster)
    lost_copies[:] = [True]
    learns = sent_by(cluster, "n1", FRAME_LEARN)
    cluster.start("n2")
    cluster.run_until(lambda: bool(learns), LIMIT_S)
    assert write(cluster, "n1", BLOCK, 1000 + BLOCK) == 0      # a record of the new epoch in its log
    cluster.run_for(0.1)
    cluster.kill("n2")
    check_stopped(cluster, "n2")
    lost_copies.clear()
    back(cluster)
    assert location(cluster, "n2", VOID_HOLE) == LOCATION_HOLE
    equal(cluster, "n1", "n2")


def check_stopped(cluster: SimulatedCluster, name: str) -> None:
    """The store of a node that does not run is whole, half copied or not."""
    report = Report(name)
    node = cluster.node(name)
    check_device(MemoryDevice(node.disk.image), report, boot_id=node.boot_id, data=True)
    assert (report.verdict, report.findings) == ("clean", [])


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.fault("disk: a store that has no room for what a copy had and what it gets",
                   promise="what goes makes room first, and the copy comes back")
def test_a_copy_comes_back_to_a_store_without_room_for_old_and_new(
        full: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """While it was away everything moved to the other end of the volume."""
    room = 1500                                # more than the copies under way at once
    cluster = SimulatedCluster(1, nodes=3, store_bytes=16 * config.MIB, segment_bytes=64 * config.KIB)
    blocks = cluster.life("n1").engine.stats()["capacity_blocks"] - room
    cluster.create_volume(VOLUME, 2 * room, copies=2, min_copies=1)
    cluster.create_volume("other", blocks, copies=1, first_node=1)
    cluster.run_until(lambda: cluster.is_healthy(VOLUME) and cluster.is_healthy("other"), LIMIT_S)
    client, other = (cluster.client(name, through="n3", asks=iter([])) for name in (VOLUME, "other"))
    ask(cluster, other, WRITE, 0, blocks)
    ask(cluster, client, WRITE, room, 2 * room)
    settle(cluster)
    if full:
        monkeypatch.setattr(config, "LINEAGE_ENTRIES_MAX", 1)
    leave(cluster)
    if full:
        new_epoch(cluster)
        cluster.attach(client, VOLUME, through="n3")
    ask(cluster, client, TRIM, room, 2 * room)
    ask(cluster, client, WRITE, 0, room)
    back(cluster)
    assert cluster.life("n2").engine.stats()["live_blocks"] == blocks + room
    only(cluster, "n2", client)


def ask(cluster: SimulatedCluster, client: SimulatedClient, kind: int, first: int, end: int) -> None:
    """These blocks in pieces, and all is answered."""
    client.ask_more(Ask(kind, lba, min(8, end - lba)) for lba in range(first, end, 8))
    cluster.run_until(lambda: client.is_done, LIMIT_S)


@pytest.mark.fault("disk: a store without room, old blocks of a copy that returns are bad",
                   promise="the copy comes back at once, what is copied replaces them")
def test_bad_blocks_that_are_to_be_replaced_hold_nothing_up() -> None:
    """The cleaner must have them to make room. Nobody else has what was there before, and need not."""
    room = 600
    cluster = SimulatedCluster(1, nodes=3, store_bytes=8 * config.MIB, segment_bytes=64 * config.KIB)
    blocks = cluster.life("n1").engine.stats()["capacity_blocks"] - room
    cluster.create_volume(VOLUME, room, copies=2, min_copies=1)
    cluster.create_volume("other", blocks, copies=1, first_node=1)
    cluster.run_until(lambda: cluster.is_healthy(VOLUME) and cluster.is_healthy("other"), LIMIT_S)
    client, other = (cluster.client(name, through="n3", asks=iter([])) for name in (VOLUME, "other"))
    ask(cluster, other, WRITE, 0, blocks)
    ask(cluster, client, WRITE, 0, room)
    settle(cluster)
    for where in extents(cluster, "n2", 0, room)["location"][room // 2::10]:
        rot(cluster.node("n2").disk, int(where))
    leave(cluster)
    ask(cluster, client, WRITE, 0, room)
    begun_s = cluster.clock.now_s
    cluster.start("n2")
    cluster.run_until(lambda: cluster.is_healthy(VOLUME), LIMIT_S)
    assert cluster.clock.now_s - begun_s < 5   # the cleaner's patience with one block is 10 s
    only(cluster, "n2", client)


def test_a_copy_of_a_block_without_the_records_before_it_is_not_taken() -> None:
    """Somebody whose power was cut leads on without them: they seem void and never to have been here (R6)."""
    cluster, last = filled(), SIZE_BLOCKS - 101
    rotated(cluster)
    leave(cluster)
    for lba in range(0, 40, 2):                # more than the copies under way at once
        assert write(cluster, "n1", lba, 1000 + lba) == 0
    settle(cluster)
    copied: list[bytes] = []

    def lose(_: str, header: np.void, data: bytes) -> bytes | None:
        if header["type"] == FRAME_COPIED:
            copied.append(data)
        return None if header["type"] in (FRAME_APPEND, FRAME_COPIED) else data

    on_the_way(cluster, lose)
    cluster.start("n2")
    cluster.run_until(lambda: bool(copied), LIMIT_S)
    cluster.run_for(0.05)                      # all that may be under way without an answer is
    assert write(cluster, "n1", last, 7777) == 0
    tell(cluster, "n1", "n2", copied[-1])
    cluster.run_for(0.3)
    both_come_back(cluster)
    equal(cluster, "n1", "n2")
    assert read(cluster, "n1", last) == (0, [1000 + last])


def test_a_block_that_is_fetched_without_the_records_before_it_is_not_taken() -> None:
    """The same of one whose map entry a copy has lost: it takes what stands there now, whatever that is."""
    cluster, block = filled(), 1
    rotated(cluster)
    leave(cluster)
    for lba in range(0, 40, 2):                # not that block; and more than the copies under way at once
        assert write(cluster, "n1", lba, 1000 + lba) == 0
    settle(cluster)
    for where in map_pages(cluster, "n2")[0]:
        rot(cluster.node("n2").disk, where)
    asked: list[bytes] = []

    def lose(_: str, header: np.void, data: bytes) -> bytes | None:
        if header["type"] == FRAME_FETCH and header["lsn"] == block:
            asked.append(data)
        return None if header["type"] in (FRAME_APPEND, FRAME_COPIED, FRAME_FETCH) else data

    on_the_way(cluster, lose)
    cluster.start("n2")
    cluster.run_until(lambda: bool(asked), LIMIT_S)
    cluster.run_for(0.05)
    assert write(cluster, "n1", block, 7777) == 0
    tell(cluster, "n1", "n2", asked[-1])
    cluster.run_for(0.1)
    both_come_back(cluster)
    assert read(cluster, "n1", block) == (0, [1000 + block])
    cluster.kill("n1")
    cluster.run_until(lambda: in_sync(cluster) == (1,), LIMIT_S)
    attach(cluster, "n2")
    assert read(cluster, "n2", block)[1] != [7777]


STEPS = [pytest.param(range(first, 60, 12), marks=[pytest.mark.slow] if first else [])
         for first in (0, 3, 6, 10)]


@EVERY_REASON
@pytest.mark.parametrize("crash", ["kill n2", "cut n2", "kill n1", "cut n1"])
@pytest.mark.parametrize("frames", STEPS)
@pytest.mark.fault("crash: of a copy that is copied anew, or of its primary, at any step",
                   promise="it comes back with everything, and nothing is lost that it alone had")
def test_a_crash_while_everything_comes_anew_loses_nothing(
        frames: range, crash: str, reason: Reason, monkeypatch: pytest.MonkeyPatch) -> None:
    for count in frames:
        cluster = filled()
        reason(cluster, monkeypatch)
        settle(cluster)
        assert read(cluster, "n1", BLOCK) == (0, [1000 + BLOCK])
        rot(cluster.node("n1").disk, location(cluster, "n1", BLOCK))
        crash_after(cluster, count, crash)
        cluster.start("n2")
        cluster.comes_to(lambda now=cluster: None in (now.node("n1").life, now.node("n2").life)  # type: ignore[misc]
                         or now.is_healthy(VOLUME), LIMIT_S)
        cluster.run_for(0.1)
        for name in ("n1", "n2"):
            if cluster.node(name).life is None:
                cluster.start(name)
        cluster.run_until(lambda now=cluster: now.is_healthy(VOLUME), LIMIT_S)  # type: ignore[misc]
        attach(cluster, cluster.primary(VOLUME))
        cluster.run_for(2)
        for lba in (0, BLOCK, CHANGED, VOID, SIZE_BLOCKS - 101):
            assert read(cluster, cluster.primary(VOLUME), lba) == (0, [1000 + lba]), (count, lba)
        assert location(cluster, "n2", VOID_HOLE) == LOCATION_HOLE
        equal(cluster, "n1", "n2")
        for name in ("n1", "n2"):
            cluster.life(name).engine.check_invariants()


def crash_after(cluster: SimulatedCluster, count: int, crash: str) -> None:
    """One of both crashes when they have exchanged so many frames of a resync."""
    how, name = crash.split()
    left = [count]

    def look(_: str, header: np.void, data: bytes) -> bytes:
        if header["type"] in (FRAME_LEARN, FRAME_COPY, FRAME_COPIED, FRAME_FLUSH, FRAME_ACK):
            left[0] -= 1
            if left[0] == -1:
                cluster.clock.after(0, partial(cluster.kill if how == "kill" else cluster.cut_power, name))
        return data

    on_the_way(cluster, look)


def test_a_copy_that_shares_nothing_is_copied_in_its_first_session() -> None:
    """What it has committed and the primary has not is void before the copies come: they are not older."""
    cluster = filled()
    void(cluster)
    for lba in (0, SIZE_BLOCKS - 1):           # the primary's map is in memory: holes follow at once
        assert read(cluster, "n1", lba)[0] == 0
    learns = sent_by(cluster, "n1", FRAME_LEARN)
    back(cluster)
    assert len(learns) == 1
