"""Bad blocks, with three engines of production: served from another copy and mended in place."""
import mmap
from collections.abc import Set
from itertools import chain
from random import Random

import numpy as np
import pytest
from numpy.typing import NDArray

from repstore import config
from repstore._fast import inspection
from repstore._fast.checksum import crc32c
from repstore._fast.layout import ANY_FLAG, FETCH_DATA, FETCH_LATER, FRAME_FETCH, FRAME_FETCHED
from repstore.check.findings import Report
from repstore.check.fsck import check_device
from repstore.format import BLOCK_SIZE, LOCATION_BAD, LOCATION_LOST, PAGE_ENTRIES, page_reference_t
from repstore.sim.clock import NS_PER_S
from repstore.sim.cluster import SimulatedCluster
from repstore.sim.workload import READ, stamped, stamps_of
from repstore.store import recovery, superblock
from repstore.store import root as roots
from repstore.store.device import MemoryDevice
from tests.sim.bad_blocks import (
    EIO,
    LIMIT_S,
    UnreadableBlocks,
    extents,
    location,
    lost,
    read,
    rot,
    start,
    write,
)
from tests.sim.rules import frame, on_the_way, sealed, tell

VOLUME = "demo"
SIZE_BLOCKS = 820
BLOCK = 37
MORE_SEEDS = [pytest.param(seed, marks=pytest.mark.slow) for seed in range(4, 9)]


def filled(copies: int = 3, nodes: int = 3) -> SimulatedCluster:
    """A volume whose block i carries the stamp 1000 + i, on `copies` nodes, all caught up."""
    cluster = SimulatedCluster(1, nodes=nodes, store_bytes=8 * config.MIB)
    cluster.create_volume(VOLUME, SIZE_BLOCKS, copies=copies)
    cluster.run_until(lambda: cluster.is_healthy(VOLUME), LIMIT_S)
    cluster.life("n1").control.attach(VOLUME, cluster.clock.now_s)
    for first in range(0, SIZE_BLOCKS, 32):
        assert write(cluster, "n1", first, 1000 + first, min(32, SIZE_BLOCKS - first)) == 0
    cluster.run_for(0.1)
    return cluster


def mended(cluster: SimulatedCluster, node: str) -> int:
    return cluster.life(node).engine.stats()["mended_blocks"]


def assert_whole(cluster: SimulatedCluster, *, without: Set[int] = frozenset()) -> None:
    """Every block but these reads as what was written; these end with EIO."""
    for lba in range(SIZE_BLOCKS):
        error, stamps = read(cluster, "n1", lba)
        assert (error, stamps) == (0, [1000 + lba]) if lba not in without else error == EIO, lba


@pytest.mark.parametrize("damage", ["rot", "unreadable"])
@pytest.mark.parametrize("blocks", [1, 8])
@pytest.mark.fault("disk: a bad block on one copy",
                   promise="served right from another copy, and mended in place")
def test_a_bad_block_of_the_primary_is_served_and_mended(damage: str, blocks: int) -> None:
    cluster = filled(copies=2)
    disk = cluster.node("n1").disk
    where = location(cluster, "n1", BLOCK)
    if damage == "rot":
        rot(disk, where)
    else:
        UnreadableBlocks(disk).blocks.add(where)
    first = BLOCK - blocks // 2
    assert read(cluster, "n1", first, blocks) == (0, [1000 + first + i for i in range(blocks)])
    assert mended(cluster, "n1") == 1
    assert location(cluster, "n1", BLOCK) != where
    cluster.kill("n2")                            # nobody else has it any more
    cluster.run_until(lambda: cluster.volume(VOLUME).in_sync_nodes() == (0,), LIMIT_S)
    assert_whole(cluster)
    assert mended(cluster, "n1") == 1
    assert lost(cluster, "n1") == []


def test_what_was_mended_survives_a_restart() -> None:
    cluster = filled(copies=2)
    rot(cluster.node("n1").disk, location(cluster, "n1", BLOCK))
    assert read(cluster, "n1", BLOCK) == (0, [1000 + BLOCK])
    cluster.run_for(2)                            # long enough that it is flushed
    cluster.kill("n1")
    cluster.kill("n2")
    cluster.start("n1")
    cluster.run_for(5)
    cluster.life("n1").control.attach(VOLUME, cluster.clock.now_s)
    assert read(cluster, "n1", BLOCK) == (0, [1000 + BLOCK])


@pytest.mark.fault("disk: a block that is bad on all copies",
                   promise="an error of that block alone, remembered")
def test_a_block_that_is_bad_everywhere_is_an_error_of_that_block_alone() -> None:
    cluster = filled()
    for name in ("n1", "n2", "n3"):
        rot(cluster.node(name).disk, location(cluster, name, BLOCK))
    assert read(cluster, "n1", BLOCK)[0] == EIO
    assert_whole(cluster, without={BLOCK})
    assert lost(cluster, "n1") == [(1, BLOCK)]
    assert any("lost_block" in line for line in cluster.trace.lines)
    assert write(cluster, "n1", BLOCK, 1000 + BLOCK) == 0      # written anew it is well again
    assert_whole(cluster)


def test_a_block_that_is_bad_on_all_copies_but_one_comes_from_that_one() -> None:
    cluster = filled()
    for name in ("n1", "n2"):
        rot(cluster.node(name).disk, location(cluster, name, BLOCK))
    assert read(cluster, "n1", BLOCK) == (0, [1000 + BLOCK])
    cluster.run_for(1)
    assert mended(cluster, "n1") == mended(cluster, "n2") == 1


@pytest.mark.fault("disk: a bad block of the only copy",
                   promise="an error that names the block, never zeros or other data")
def test_a_single_copy_answers_with_an_error_and_names_the_block() -> None:
    cluster = filled(copies=1, nodes=1)
    rot(cluster.node("n1").disk, location(cluster, "n1", BLOCK))
    assert_whole(cluster, without={BLOCK})
    assert any(f"('bad_block', 1, {BLOCK}, " in line for line in cluster.trace.lines)
    assert lost(cluster, "n1") == [(1, BLOCK)]


def test_a_learner_gets_a_block_that_is_bad_on_the_primary_from_a_third_copy() -> None:
    cluster = filled()
    cluster.kill("n3")
    assert write(cluster, "n1", BLOCK, 5000) == 0
    cluster.run_until(lambda: len(cluster.volume(VOLUME).in_sync) == 2, LIMIT_S)
    cluster.run_for(0.1)
    rot(cluster.node("n1").disk, location(cluster, "n1", BLOCK))
    cluster.start("n3")
    cluster.run_until(lambda: cluster.is_healthy(VOLUME), LIMIT_S)
    assert mended(cluster, "n1") == 1
    assert read(cluster, "n1", BLOCK) == (0, [5000])


@pytest.mark.fault("disk: a block that is bad on the last copy in sync",
                   promise="mended from a copy that returns, if that has it still")
def test_a_learner_keeps_a_block_that_its_primary_lost_and_gives_it_back() -> None:
    cluster = filled(copies=2)
    block = SIZE_BLOCKS - 1                       # written last: the change bitmap has it
    cluster.kill("n2")
    cluster.run_until(lambda: cluster.volume(VOLUME).in_sync_nodes() == (0,), LIMIT_S)
    rot(cluster.node("n1").disk, location(cluster, "n1", block))
    cluster.start("n2")
    cluster.run_until(lambda: cluster.is_healthy(VOLUME), LIMIT_S)
    assert lost(cluster, "n1") == [(1, block)]    # it was met, and n2 was not in sync
    cluster.run_for(2)
    assert read(cluster, "n1", block) == (0, [1000 + block])
    assert mended(cluster, "n1") == 1
    assert lost(cluster, "n1") == []
    cluster.kill("n2")                            # what it kept, it keeps when it replays its log
    cluster.start("n2")
    cluster.run_until(lambda: cluster.is_healthy(VOLUME), LIMIT_S)
    cluster.kill("n1")
    cluster.run_until(lambda: cluster.volume(VOLUME).in_sync_nodes() == (1,), LIMIT_S)
    cluster.life("n2").control.attach(VOLUME, cluster.clock.now_s)
    assert read(cluster, "n2", block) == (0, [1000 + block])


def test_a_learner_joins_with_a_block_that_nobody_has_and_keeps_it_as_bad() -> None:
    cluster = filled()
    cluster.kill("n3")
    assert write(cluster, "n1", BLOCK, 5000) == 0
    cluster.run_until(lambda: len(cluster.volume(VOLUME).in_sync) == 2, LIMIT_S)
    cluster.run_for(0.1)
    for name in ("n1", "n2"):
        rot(cluster.node(name).disk, location(cluster, name, BLOCK))
    cluster.start("n3")
    cluster.run_until(lambda: cluster.is_healthy(VOLUME), LIMIT_S)
    assert location(cluster, "n3", BLOCK) == LOCATION_BAD    # not what it had, never zeros
    cluster.kill("n1")
    cluster.kill("n2")
    cluster.kill("n3")
    cluster.start("n3")
    cluster.run_for(0.2)
    assert location(cluster, "n3", BLOCK) == LOCATION_BAD
    assert (extents(cluster, "n3", BLOCK + 1, 16)["location"] > LOCATION_LOST).all()


@pytest.mark.parametrize(("lasts_s", "is_bad"), [(3, False), (LIMIT_S, True)])
@pytest.mark.fault("disk: reads of the last copy in sync fail for some seconds while another one returns",
                   promise="the copy that returns joins with every block")
def test_a_learner_is_told_of_no_block_that_can_be_read_later(lasts_s: float, is_bad: bool) -> None:
    cluster = filled(copies=2)
    block = SIZE_BLOCKS - 1                       # written last: the change bitmap has it
    cluster.kill("n2")
    cluster.run_until(lambda: cluster.volume(VOLUME).in_sync_nodes() == (0,), LIMIT_S)
    assert write(cluster, "n1", block, 5000) == 0
    unreadable = UnreadableBlocks(cluster.node("n1").disk)
    unreadable.blocks.add(location(cluster, "n1", block))
    cluster.start("n2")
    cluster.clock.after(int(lasts_s * NS_PER_S), unreadable.blocks.clear)
    cluster.run_until(lambda: cluster.is_healthy(VOLUME), LIMIT_S)
    assert (location(cluster, "n2", block) == LOCATION_BAD) == is_bad


@pytest.mark.parametrize("seed", [1, 2, 3, *MORE_SEEDS])
@pytest.mark.fault("disk: a bad block on one copy",
                   promise="served right from another copy, and mended in place")
def test_rot_under_load_is_never_seen_by_a_client(seed: int) -> None:
    """Each block rots on one copy at a time, on primaries and replicas, while cleaners work too."""
    cluster = SimulatedCluster(seed, store_bytes=4 * config.MIB, segment_bytes=128 * config.KIB)
    cluster.create_volume(VOLUME, 400)
    cluster.run_until(lambda: cluster.is_healthy(VOLUME), LIMIT_S)
    client = cluster.client(VOLUME, through="n2")
    random = Random(f"rot {seed}")
    for _ in range(60):
        cluster.run_for(random.uniform(0.002, 0.02))
        name = random.choice(["n1", "n2", "n3"])
        for lba in random.sample(range(400), 4):
            where = location(cluster, name, lba)
            if where > LOCATION_LOST:
                rot(cluster.node(name).disk, where)
        cluster.run_for(0.02)
        cluster.drain(client)
        client.read_all()
        cluster.drain(client)
        client.stopped = False
        cluster.life("n2").run()
    cluster.check(client)
    assert mended(cluster, cluster.primary(VOLUME)) > 10
    assert all(lost(cluster, name) == [] for name in ("n1", "n2", "n3"))


def map_pages(cluster: SimulatedCluster, node: str, *, directories: bool = False) -> list[tuple[int, int]]:
    """The two blocks of each map page in a stopped node's store; or of each directory."""
    return pages(cluster, node, directories=directories)[0]


def pages(cluster: SimulatedCluster, node: str, *, directories: bool = False) -> list[list[tuple[int, int]]]:
    """The same, of its map and of each of its change bitmaps."""
    device = MemoryDevice(cluster.node(node).disk.image)
    state = superblock.read(device, node).superblock
    geometry = state.geometry
    root = roots.decode(roots.read(device, state, node), geometry)
    found: list[list[tuple[int, int]]] = []
    for tree in root.volumes[0].trees:
        found.append([])
        for directory in tree.directories:
            if not directory["slot"]:
                continue
            blocks = geometry.page_blocks(int(directory["slot"]))
            entries = np.frombuffer(device.read(blocks[0] * BLOCK_SIZE, BLOCK_SIZE), page_reference_t)
            found[-1] += [blocks] if directories else [
                geometry.page_blocks(int(entry["slot"])) for entry in entries if entry["slot"]]
    return found


def no_entry_is_lost(cluster: SimulatedCluster, node: str) -> bool:
    """Whether every map page is there and points to something; asking reads the pages."""
    try:
        return bool((extents(cluster, node, 0, SIZE_BLOCKS)["location"] > LOCATION_LOST).all())
    except BlockingIOError:
        cluster.life(node).run()
        return False


def settled(cluster: SimulatedCluster, node: str) -> None:
    """A checkpoint holds everything, and the node is gone."""
    cluster.life(node).engine.settle()
    cluster.kill(node)


def test_the_checksums_of_a_map_are_told_as_far_as_it_is_in_memory() -> None:
    cluster = filled(copies=1, nodes=1)
    settled(cluster, "n1")
    cluster.start("n1")
    cluster.run_for(5)
    engine = cluster.life("n1").engine
    found = np.zeros(SIZE_BLOCKS, np.uint64)
    for _ in range(2):                         # asking brings no page into memory
        inspection.map_checksums(engine, 1, found)
        assert (found == inspection.NOT_KNOWN).all()
    named = extents_when_here(cluster, "n1")
    inspection.map_checksums(engine, 1, found)
    assert (found == named["crc"]).all()
    with pytest.raises(ValueError, match=f"room for 3 blocks: the volume has {SIZE_BLOCKS}"):
        inspection.map_checksums(engine, 1, found[:3])


def extents_when_here(cluster: SimulatedCluster, node: str) -> NDArray[np.void]:
    """The whole map of a copy, read into memory if it is not there."""
    cluster.run_until(lambda: no_entry_is_lost(cluster, node), LIMIT_S)
    return extents(cluster, node, 0, SIZE_BLOCKS)


@pytest.mark.fault("disk: a lost page of the map", promise="rebuilt from another copy")
def test_a_lost_map_page_comes_back_from_another_copy() -> None:
    cluster = filled(copies=2)
    settled(cluster, "n2")
    for block in chain.from_iterable(map_pages(cluster, "n2")):
        rot(cluster.node("n2").disk, block)
    cluster.run_until(lambda: cluster.volume(VOLUME).in_sync_nodes() == (0,), LIMIT_S)
    cluster.start("n2")
    cluster.run_until(lambda: cluster.is_healthy(VOLUME), LIMIT_S)
    engine = cluster.life("n2").engine
    cluster.run_until(lambda: no_entry_is_lost(cluster, "n2"), LIMIT_S)
    assert engine.stats()["mended_blocks"] > 0               # some by repair, others by the resync
    engine.check_invariants()
    cluster.kill("n1")                            # the mended copy alone has everything
    cluster.run_until(lambda: cluster.primary(VOLUME) == "n2", LIMIT_S)
    cluster.life("n2").control.attach(VOLUME, cluster.clock.now_s)
    cluster.run_for(1)
    for lba in range(0, SIZE_BLOCKS, 20):
        assert read(cluster, "n2", lba, 20) == (0, [1000 + lba + i for i in range(20)])


@pytest.mark.parametrize("directories", [False, True])
@pytest.mark.parametrize("damage", ["rot", "unreadable"])
@pytest.mark.fault("disk: one of the two blocks of a metadata page, in a single copy",
                   promise="everything is served right, and the page mended")
def test_a_metadata_page_is_read_from_its_second_block_and_mended(directories: bool, damage: str) -> None:
    """Three times in a row, the first block and the second in turn: the bad one was written anew."""
    cluster = filled(copies=1, nodes=1)
    for second in (0, 1, 0):
        settled(cluster, "n1")
        disk = cluster.node("n1").disk
        pages = [blocks[second] for blocks in map_pages(cluster, "n1", directories=directories)]
        if damage == "rot":
            for block in pages:
                rot(disk, block)
        else:
            UnreadableBlocks(disk).blocks.update(pages)
        cluster.start("n1")
        cluster.run_for(5)
        cluster.life("n1").control.attach(VOLUME, cluster.clock.now_s)
        assert_whole(cluster)
        for first in range(0, SIZE_BLOCKS, PAGE_ENTRIES):     # what nobody reads is mended when it changes
            assert write(cluster, "n1", first, 1000 + first) == 0
        assert lost(cluster, "n1") == []
    settled(cluster, "n1")
    report = Report("n1")
    node = cluster.node("n1")
    check_device(MemoryDevice(node.disk.image), report, boot_id=node.boot_id, data=True)
    assert report.findings == []


def test_a_lost_map_page_of_a_single_copy_is_an_error_of_its_blocks() -> None:
    cluster = filled(copies=1, nodes=1)
    settled(cluster, "n1")
    for block in map_pages(cluster, "n1")[0]:
        rot(cluster.node("n1").disk, block)
    cluster.start("n1")
    cluster.run_for(5)
    cluster.life("n1").control.attach(VOLUME, cluster.clock.now_s)
    assert_whole(cluster, without=set(range(PAGE_ENTRIES)))
    assert write(cluster, "n1", 5, 1005) == 0
    assert_whole(cluster, without=set(range(PAGE_ENTRIES)) - {5})
    cluster.life("n1").engine.check_invariants()


@pytest.mark.fault("disk: a lost page of a change bitmap", promise="everything counts as changed")
def test_a_lost_change_bitmap_says_that_everything_changed() -> None:
    cluster = filled(copies=2)
    cluster.kill("n2")
    cluster.run_until(lambda: cluster.volume(VOLUME).in_sync_nodes() == (0,), LIMIT_S)
    for lba in range(0, SIZE_BLOCKS, 20):
        assert write(cluster, "n1", lba, 5000 + lba) == 0
    settled(cluster, "n1")
    _, *bitmaps = pages(cluster, "n1")
    assert any(bitmaps)
    for block in chain.from_iterable(chain.from_iterable(bitmaps)):
        rot(cluster.node("n1").disk, block)
    cluster.start("n1")
    cluster.start("n2")
    cluster.run_until(lambda: cluster.is_healthy(VOLUME), LIMIT_S)
    cluster.kill("n1")
    cluster.run_until(lambda: cluster.primary(VOLUME) == "n2", LIMIT_S)
    cluster.life("n2").control.attach(VOLUME, cluster.clock.now_s)
    cluster.run_for(1)
    for lba in range(0, SIZE_BLOCKS, 20):
        assert read(cluster, "n2", lba, 2) == (0, [5000 + lba, 1001 + lba])


@pytest.mark.fault("disk: a damaged root", promise="read from its second copy, and mended")
def test_a_damaged_root_is_read_from_its_second_copy_and_mended() -> None:
    """Twice in a row: the bad copy was written anew."""
    cluster = filled(copies=1, nodes=1)
    for _ in range(2):
        settled(cluster, "n1")
        state = superblock.read(MemoryDevice(cluster.node("n1").disk.image), "n1").superblock
        rot(cluster.node("n1").disk, state.geometry.root_start(state.root_area))
        cluster.start("n1")
        cluster.run_for(5)
        cluster.life("n1").control.attach(VOLUME, cluster.clock.now_s)
        assert_whole(cluster)


def test_a_damaged_directory_takes_its_pages_and_they_come_back() -> None:
    cluster = filled(copies=2)
    settled(cluster, "n2")
    device = MemoryDevice(cluster.node("n2").disk.image)
    state = superblock.read(device, "n2").superblock
    root = roots.decode(roots.read(device, state, "n2"), state.geometry)
    for tree in root.volumes[0].trees:
        for slot in tree.directories["slot"]:
            for block in state.geometry.page_blocks(int(slot)):
                rot(cluster.node("n2").disk, block)
    cluster.run_until(lambda: cluster.volume(VOLUME).in_sync_nodes() == (0,), LIMIT_S)
    cluster.start("n2")
    cluster.run_until(lambda: cluster.is_healthy(VOLUME), LIMIT_S)
    cluster.run_until(lambda: no_entry_is_lost(cluster, "n2"), LIMIT_S)
    cluster.life("n2").engine.check_invariants()


def damage_log(cluster: SimulatedCluster, node: str) -> None:
    """A header in the middle of a stopped node's log."""
    device = MemoryDevice(cluster.node(node).disk.image)
    state = superblock.read(device, node).superblock
    root = roots.decode(roots.read(device, state, node), state.geometry)
    batches = recovery.recover(device, state, root, same_boot=True, name=node).batches
    victim = batches[len(batches) // 2]
    rot(cluster.node(node).disk,
        state.geometry.segment_start(int(victim["segment"])) + int(victim["offset_blocks"]))


@pytest.mark.fault("disk: a damaged log of one copy",
                   promise="what it lost is brought back by the other copies")
def test_a_copy_whose_log_is_damaged_learns_anew_what_it_lost() -> None:
    cluster = filled(copies=2)
    cluster.run_for(3)                            # flushed, and acknowledged
    assert write(cluster, "n1", 0, 1000) == 0     # a later batch proves it
    cluster.run_for(0.1)
    cluster.kill("n2")
    cluster.run_until(lambda: cluster.volume(VOLUME).in_sync_nodes() == (0,), LIMIT_S)
    damage_log(cluster, "n2")
    cluster.start("n2")
    assert any("n2 starts" in line and "learned anew" in line for line in cluster.trace.lines)
    cluster.run_until(lambda: cluster.is_healthy(VOLUME), LIMIT_S)
    assert no_entry_is_lost(cluster, "n2") or no_entry_is_lost(cluster, "n2")
    cluster.kill("n1")
    cluster.run_until(lambda: cluster.primary(VOLUME) == "n2", LIMIT_S)
    cluster.life("n2").control.attach(VOLUME, cluster.clock.now_s)
    cluster.run_for(1)
    for lba in range(0, SIZE_BLOCKS, 20):
        assert read(cluster, "n2", lba, 20) == (0, [1000 + lba + i for i in range(20)])


def test_a_copy_whose_log_is_damaged_leads_nobody() -> None:
    """It was told to be durable, and no other copy can say what it was."""
    cluster = filled(copies=1)
    cluster.run_for(3)
    assert write(cluster, "n1", 0, 1000) == 0
    cluster.kill("n1")
    damage_log(cluster, "n1")
    epoch = cluster.volume(VOLUME).epoch
    cluster.start("n1")
    cluster.run_for(10)
    assert cluster.volume(VOLUME).epoch == epoch
    assert cluster.life("n1").engine.volume_state(1).learning


def test_content_with_another_checksum_is_not_taken() -> None:
    """A copy that is wrong about a block, though what it sends is whole (H1)."""
    cluster = filled(copies=3)
    rot(cluster.node("n1").disk, location(cluster, "n1", BLOCK))
    lie = stamped(666, 1)

    def wrong(sender: str, header: np.void, data: bytes) -> bytes:
        if sender == "n2" and header["type"] == FRAME_FETCHED and len(data) > BLOCK_SIZE:
            header = header.copy()
            header["extra"] = crc32c(lie)
            return sealed(header, lie)
        return data

    on_the_way(cluster, wrong)
    assert read(cluster, "n1", BLOCK) == (0, [1000 + BLOCK])


def test_a_copy_that_has_committed_less_gives_no_block() -> None:
    """What it has may be what was there before (H1)."""
    cluster = filled(copies=2)
    commit_lsn = cluster.life("n2").engine.volume_state(1).commit_lsn
    volume = cluster.volume(VOLUME)
    answers: list[int] = []

    def listen(sender: str, header: np.void, data: bytes) -> bytes:
        if sender == "n2" and header["type"] == FRAME_FETCHED:
            answers.append(int(header["session"]))
        return data

    on_the_way(cluster, listen)
    for beyond in (0, 1):
        tell(cluster, "n2", "n1", frame(FRAME_FETCH, flags=ANY_FLAG, volume=volume.index, epoch=volume.epoch,
                                        lsn=BLOCK, commit=commit_lsn + beyond, chain=1 + beyond))
        cluster.run_for(0.01)
    assert answers == [FETCH_DATA, FETCH_LATER]


def test_a_block_that_is_written_while_it_is_repaired_keeps_what_was_written() -> None:
    """The answer of the other copy comes after the write."""
    cluster = filled(copies=3)
    rot(cluster.node("n1").disk, location(cluster, "n1", BLOCK))
    memory = mmap.mmap(-1, BLOCK_SIZE)
    reading = start(cluster, "n1", READ, BLOCK, memory)
    cluster.run_until(lambda: cluster.life("n1").engine.stats()["bad_blocks"] == 1, LIMIT_S)
    assert write(cluster, "n1", BLOCK, 7777) == 0
    cluster.run_until(lambda: reading.done, LIMIT_S)
    assert stamps_of(memory[:])[0] in (1000 + BLOCK, 7777)
    cluster.run_for(1)
    assert read(cluster, "n1", BLOCK) == (0, [7777])


def test_a_write_on_its_way_when_the_answer_comes_is_not_undone() -> None:
    """The move may be logged behind a write that commits before the move counts."""
    cluster = filled(copies=3)
    random = Random(5)
    for stamp in range(7000, 7150):
        rot(cluster.node("n1").disk, location(cluster, "n1", BLOCK))
        memory = mmap.mmap(-1, BLOCK_SIZE)
        reading = start(cluster, "n1", READ, BLOCK, memory)
        cluster.run_for(random.uniform(0, 0.0015))
        assert write(cluster, "n1", BLOCK, stamp) == 0
        cluster.run_until(lambda call=reading: call.done, LIMIT_S)  # type: ignore[misc]
        reading.end()
        cluster.run_for(0.02)
        assert read(cluster, "n1", BLOCK) == (0, [stamp])


@pytest.mark.parametrize("damage", ["payload", "unreadable"])
def test_the_cleaner_of_a_replica_mends_what_it_meets(damage: str) -> None:
    cluster = SimulatedCluster(3, store_bytes=2 * config.MIB, segment_bytes=64 * config.KIB)
    cluster.create_volume(VOLUME, 200)
    cluster.run_until(lambda: cluster.is_healthy(VOLUME), LIMIT_S)
    cluster.life("n1").control.attach(VOLUME, cluster.clock.now_s)
    assert all(write(cluster, "n1", lba, 1000 + lba) == 0 for lba in range(200))
    unreadable = UnreadableBlocks(cluster.node("n2").disk)
    for lba in range(0, 200, 10):
        if damage == "payload":
            rot(cluster.node("n2").disk, location(cluster, "n2", lba))
        else:
            unreadable.blocks.add(location(cluster, "n2", lba))
    random = Random(3)
    for stamp in range(5000, 6500):
        assert write(cluster, "n1", random.choice([lba for lba in range(200) if lba % 10]), stamp) == 0
    assert mended(cluster, "n2") > 5
    assert lost(cluster, "n2") == []


def test_a_scrub_finds_and_mends_what_nobody_has_read_yet() -> None:
    cluster = filled(copies=2)
    for name, blocks in (("n1", (3, 64, 700)), ("n2", (5, 819))):
        for lba in blocks:
            rot(cluster.node(name).disk, location(cluster, name, lba))
    began_s = cluster.clock.now_s
    for name in ("n1", "n2"):
        inspection.scrub_start(cluster.life(name).engine, 1, 0, 4 * config.MIB)
        cluster.life(name).run()
    cluster.run_until(lambda: not any(inspection.scrub_state(cluster.life(name).engine)[0]
                                      for name in ("n1", "n2")), LIMIT_S)
    assert cluster.clock.now_s - began_s >= 0.9 * SIZE_BLOCKS * BLOCK_SIZE / (4 * config.MIB)    # the rate
    assert inspection.scrub_state(cluster.life("n1").engine) == (False, 1, SIZE_BLOCKS, SIZE_BLOCKS, 3, 0)
    assert inspection.scrub_state(cluster.life("n2").engine) == (False, 1, SIZE_BLOCKS, SIZE_BLOCKS, 2, 0)
    cluster.run_for(0.5)
    assert (mended(cluster, "n1"), mended(cluster, "n2")) == (3, 2)


def test_a_scrub_passes_runs_of_which_every_block_is_lost() -> None:
    cluster = filled(copies=1, nodes=1)
    settled(cluster, "n1")
    for block in map_pages(cluster, "n1")[0]:
        rot(cluster.node("n1").disk, block)
    cluster.start("n1")
    cluster.run_for(5)
    engine = cluster.life("n1").engine
    inspection.scrub_start(engine, 1, 0, 64 * config.MIB)
    cluster.life("n1").run()
    cluster.run_until(lambda: not inspection.scrub_state(engine)[0], LIMIT_S)
    assert inspection.scrub_state(engine) == (False, 1, SIZE_BLOCKS, SIZE_BLOCKS, PAGE_ENTRIES, 0)
    assert len(lost(cluster, "n1")) == PAGE_ENTRIES


def test_a_scrub_can_be_stopped_and_resumed_where_it_was() -> None:
    cluster = filled(copies=1, nodes=1)
    engine = cluster.life("n1").engine
    inspection.scrub_start(engine, 1, 0, config.MIB)
    cluster.life("n1").run()
    cluster.run_for(1)
    inspection.scrub_stop(engine)
    _, _, position, first_part, *_ = inspection.scrub_state(engine)
    assert 0 < position < SIZE_BLOCKS
    inspection.scrub_start(engine, 1, position, 64 * config.MIB)
    cluster.life("n1").run()
    cluster.run_until(lambda: not inspection.scrub_state(engine)[0], LIMIT_S)
    assert inspection.scrub_state(engine)[2:] == (SIZE_BLOCKS, SIZE_BLOCKS - position, 0, 0)
    assert first_part >= position


@pytest.mark.parametrize("copies", [1, 2])
@pytest.mark.parametrize("directories", [False, True], ids=["pages", "directories"])
@pytest.mark.parametrize("second", [False, True], ids=["first", "second"])
@pytest.mark.fault("disk: one of the two blocks of a page of metadata is bad",
                   promise="a scrub finds it, and the page is written anew")
def test_a_scrub_finds_a_bad_block_of_a_page_that_stands_twice(
        second: bool, directories: bool, copies: int) -> None:
    cluster = filled(copies, nodes=copies)
    engine, disk = cluster.life("n1").engine, cluster.node("n1").disk
    engine.settle()
    damaged = [blocks[second] for tree in pages(cluster, "n1", directories=directories) for blocks in tree]
    for block in damaged:
        rot(disk, block)
    scrubbed(cluster, "n1")
    assert inspection.scrub_state(engine) == (False, 1, SIZE_BLOCKS, SIZE_BLOCKS, 0, len(damaged))
    cluster.run_for(0.5)                       # the checkpoint that it asked for
    cluster.kill("n1")
    report = Report("n1")
    check_device(MemoryDevice(disk.image), report, boot_id=cluster.node("n1").boot_id, data=True)
    assert (report.verdict, report.findings) == ("clean", [])
    cluster.start("n1")
    cluster.run_until(lambda: cluster.is_healthy(VOLUME), LIMIT_S)
    engine = cluster.life("n1").engine
    scrubbed(cluster, "n1")
    assert inspection.scrub_state(engine)[-2:] == (0, 0)


def test_a_page_that_a_checkpoint_writes_meanwhile_is_not_called_bad() -> None:
    cluster = filled(copies=1, nodes=1)
    engine, random = cluster.life("n1").engine, Random(5)
    for stamp in range(7000, 7300):
        if not inspection.scrub_state(engine)[0]:
            inspection.scrub_start(engine, 1, 0, config.GIB)
        assert write(cluster, "n1", random.randrange(SIZE_BLOCKS), stamp) == 0
        if not stamp % 3:
            engine.checkpoint()
        assert inspection.scrub_state(engine)[-2:] == (0, 0)


def scrubbed(cluster: SimulatedCluster, node: str) -> None:
    """A scrub of a node's copy from end to end."""
    engine = cluster.life(node).engine
    inspection.scrub_start(engine, 1, 0, 64 * config.MIB)
    cluster.life(node).run()
    cluster.run_until(lambda: not inspection.scrub_state(engine)[0], LIMIT_S)
