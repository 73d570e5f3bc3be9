"""verify: equal copies are proved equal while they are written to; what differs is found exactly."""
import itertools
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from random import Random
from typing import Any

import numpy as np
import pytest

from repstore import config
from repstore._fast import inspection
from repstore._fast.checksum import crc32c
from repstore.check import verify
from repstore.check.copies import CopyInquiries, EngineDevice
from repstore.check.verify import Difference, Verdict
from repstore.cli import check_verify
from repstore.coordination.memory import MemoryConfigStore
from repstore.format import BLOCK_SIZE, PAGE_ENTRIES
from repstore.sim.cluster import SimulatedCluster
from repstore.sim.local import LocalVolume, PlainDisk, Request
from repstore.sim.workload import WRITE
from repstore.store import geometry, superblock
from repstore.store.device import MemoryDevice
from repstore.store.store import format_device
from tests.check.test_fsck import Page, Parts, rewrite_map
from tests.sim.bad_blocks import LIMIT_S, location, rot, write
from tests.sim.scenarios import healthy_cluster

NAMES = ("n1", "n2", "n3")
SIZE_BLOCKS = 820
PAUSE_MOST_NS = 100_000_000


@dataclass(frozen=True)
class Asked:
    """A question, as a node gets it."""
    what: str
    index: int
    numbers: dict[str, int]


class SimulatedCopy:
    """A copy in a simulated cluster; it takes no time to ask it."""

    def __init__(self, cluster: SimulatedCluster, name: str) -> None:
        self._cluster = cluster
        self._name = name
        engine = cluster.life(name).engine
        state = superblock.read(MemoryDevice(cluster.node(name).disk.image), name).superblock
        self._inquiries = CopyInquiries(engine, state)

    def start(self, serial: int, wanted: Sequence[int]) -> int:
        pages = {f"page{place}": page for place, page in enumerate(wanted)}
        lsn = self._ask("verify start", serial=serial, **pages)["lsn"]
        self._cluster.life(self._name).run()
        return int(lsn)

    def wait(self, serial: int) -> int:
        self._cluster.run_until(lambda: self._ask("verify state", serial=serial)["state"] == "done", LIMIT_S)
        return int(self._ask("verify state", serial=serial)["pages"])

    def nodes(self, serial: int, level: int, first: int, count: int) -> verify.Digests:
        return verify.unpacked_digests(self._ask("verify nodes", serial=serial, level=level, first=first,
                                                 count=count)["digests"])

    def values(self, serial: int, place: int) -> verify.Checksums:
        return verify.unpacked_checksums(self._ask("verify page", serial=serial, place=place)["values"])

    def worth(self, first: int, blocks: int) -> verify.Worth:
        return verify.unpacked_worth(self._ask("verify worth", first=first, blocks=blocks))

    def _ask(self, what: str, **numbers: int) -> dict[str, Any]:
        return self._inquiries(Asked(what, 1, numbers))


def filled() -> SimulatedCluster:
    cluster = SimulatedCluster(1, store_bytes=8 * config.MIB)
    cluster.create_volume("demo", SIZE_BLOCKS)
    cluster.run_until(lambda: cluster.is_healthy("demo"), LIMIT_S)
    cluster.life("n1").control.attach("demo", cluster.clock.now_s)
    for first in range(0, SIZE_BLOCKS, 32):
        assert write(cluster, "n1", first, 1000 + first, min(32, SIZE_BLOCKS - first)) == 0
    cluster.run_for(0.1)
    return cluster


def verified(cluster: SimulatedCluster) -> Verdict:
    primary = cluster.primary("demo")
    names = (primary, *(name for name in NAMES if name != primary))
    verdict = Verdict("demo", names)
    serials = itertools.count(1)
    verify.verify(verdict, {name: SimulatedCopy(cluster, name) for name in names}, lambda: next(serials))
    return verdict


def restarted_with(cluster: SimulatedCluster, name: str, blocks: Sequence[int]) -> None:
    """All nodes are killed; one copy silently gets other content in some blocks; all start again."""
    cluster.life(name).engine.settle()
    for node in NAMES:
        cluster.kill(node)
    image = cluster.node(name).disk.image
    parts = Parts(image)

    def change(page: Page) -> None:
        for lba in blocks:
            other = bytes([lba & 255]) * BLOCK_SIZE
            parts.device.write(int(page["location"][lba]) * BLOCK_SIZE, other)
            page["crc"][lba] = crc32c(other)

    rewrite_map(image, change)
    for node in NAMES:
        cluster.start(node)
    cluster.run_until(lambda: cluster.is_healthy("demo"), LIMIT_S)
    cluster.run_for(3)


def test_copies_that_were_treated_alike_are_equal() -> None:
    verdict = verified(filled())
    assert (verdict.verdict, verdict.differences) == ("equal", [])
    assert verdict.lsn >= SIZE_BLOCKS
    assert verdict.exchanged_bytes == 3 * verify.DIGEST_BYTES      # three roots


def test_copies_are_equal_at_one_lsn_while_they_are_written_to() -> None:
    cluster = healthy_cluster(3)
    client = cluster.client("demo", through="n2")
    acknowledged = [0]

    def watch() -> None:
        """Nobody holds commits for longer."""
        assert client.acknowledged > acknowledged[0]
        acknowledged[0] = client.acknowledged
        cluster.clock.after(PAUSE_MOST_NS, watch)

    cluster.clock.after(PAUSE_MOST_NS, watch)
    for _ in range(20):
        cluster.run_for(0.02)
        verdict = verified(cluster)
        assert (verdict.verdict, verdict.differences) == ("equal", []), verdict.lsn
    cluster.check(client)


@pytest.mark.parametrize("writes", [False, True])
def test_blocks_that_differ_are_found_exactly_and_the_right_side_named(writes: bool) -> None:
    cluster = filled()
    odd = next(name for name in NAMES if name != cluster.primary("demo"))
    restarted_with(cluster, odd, [5, 100, 101, 102])
    if writes:
        cluster.life("n1").control.attach("demo", cluster.clock.now_s)
        for lba in range(600, 800):
            assert write(cluster, "n1", lba, 9000 + lba) == 0
    verdict = verified(cluster)
    assert verdict.verdict == "different"
    primary = verdict.copies[0]
    assert primary != odd
    assert verdict.differences == [Difference(5, 1, (odd,), primary), Difference(100, 3, (odd,), primary)]
    assert verdict.differing_pages == 1
    # roots, two pages, and the checksums of one page, on three copies
    assert verdict.exchanged_bytes == 3 * (8 + 2 * 8 + PAGE_ENTRIES * 4)


def test_the_side_whose_medium_is_bad_is_not_the_right_one() -> None:
    cluster = filled()
    odd = next(name for name in NAMES if name != cluster.primary("demo"))
    restarted_with(cluster, odd, [5])
    primary = cluster.primary("demo")
    assert primary != odd
    rot(cluster.node(primary).disk, location(cluster, primary, 5))
    verdict = verified(cluster)
    assert verdict.differences[0].right not in ("", primary)


def test_a_block_that_is_written_anew_while_it_is_read_is_not_bad(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its old place has other bytes by the time it is read, as it may where a segment is used again."""
    cluster = filled()
    primary = cluster.primary("demo")
    place = location(cluster, primary, 5)
    read = EngineDevice.read

    def overtaken(device: EngineDevice, offset: int, length: int) -> memoryview:
        if offset == place * BLOCK_SIZE and location(cluster, primary, 5) == place:
            assert write(cluster, "n1", 5, 4711) == 0
            rot(cluster.node(primary).disk, place)
        return read(device, offset, length)

    monkeypatch.setattr(EngineDevice, "read", overtaken)
    assert SimulatedCopy(cluster, primary).worth(5, 1).good.tolist() == [True]
    assert location(cluster, primary, 5) != place


def leaves_at(volume: LocalVolume, serial: int) -> verify.Digests:
    """What a verification that was started came to."""
    for _ in range(100):
        volume.pump()
        if inspection.verify_state(volume.engine)[0] == "done":
            break
    leaves = np.zeros(inspection.verify_state(volume.engine)[4], np.uint64)
    inspection.verify_leaves(volume.engine, serial, leaves.view(np.uint8))
    return leaves


@pytest.mark.parametrize("seed", range(8))
def test_a_page_is_taken_before_its_first_change_after_the_lsn(seed: int) -> None:
    """For half of the seeds the write waits for its page, and so commits before the walk comes to it."""
    layout = geometry.choose(config.StoreOptions(8 * config.MIB))
    image = bytearray(layout.size_bytes)
    format_device(MemoryDevice(image), layout, store_uuid=bytes(16), boot_id=bytes(16))
    volume = LocalVolume(PlainDisk(image), boot_id=bytes(16), life_id=1, create_blocks=600)
    volume.run([Request(WRITE, first, 20, stamp=1 + first) for first in range(0, 600, 20)])
    inspection.verify_start(volume.engine, 1, 7)
    before = leaves_at(volume, 7)
    volume.engine.settle(clean=True)
    volume = LocalVolume(PlainDisk(image), boot_id=bytes(16), life_id=2, random=Random(seed))
    inspection.verify_start(volume.engine, 1, 8)
    volume.submit(Request(WRITE, 3, 1, stamp=4711))
    assert leaves_at(volume, 8).tolist() == before.tolist()
    volume.settle()
    inspection.verify_start(volume.engine, 1, 9)
    assert (leaves_at(volume, 9) != before).tolist() == [True, False]


def test_a_copy_that_passed_the_lsn_before_it_was_asked_says_so() -> None:
    cluster = filled()
    engine = cluster.life("n2").engine
    with pytest.raises(LookupError, match="does not lead"):
        inspection.verify_start(engine, 1, 7)
    with pytest.raises(ValueError, match="65 pages"):
        inspection.verify_start(cluster.life("n1").engine, 1, 7, [0] * 65)
    with pytest.raises(ValueError, match="1 pages"):
        inspection.verify_start(cluster.life("n1").engine, 1, 7, [9])
    with pytest.raises(LookupError, match="not done"):
        inspection.verify_leaves(engine, 7, np.zeros(2, np.uint64).view(np.uint8))


class Planted:
    """A copy of which only the digests are known; each of them stands for all blocks of its page."""

    wanted: Sequence[int] = ()           # what the primary was asked for, on all copies

    def __init__(self, leaves: verify.Digests) -> None:
        self.leaves = leaves

    def start(self, serial: int, wanted: Sequence[int]) -> int:
        Planted.wanted = list(wanted)
        return 1

    def wait(self, serial: int) -> int:
        return len(self.leaves)

    def nodes(self, serial: int, level: int, first: int, count: int) -> verify.Digests:
        return verify.tree(self.leaves)[level][first:first + count]

    def values(self, serial: int, place: int) -> verify.Checksums:
        return np.full(PAGE_ENTRIES, self.leaves[self.wanted[place]] & np.uint64(0xFFFFFFFF), np.uint32)

    def worth(self, first: int, blocks: int) -> verify.Worth:
        return verify.Worth(np.ones(blocks, bool), np.zeros(blocks, np.uint64), np.zeros(blocks, np.uint64))


@pytest.mark.parametrize("pages", [1, 2, 255, 256, 257, 70_000])
@pytest.mark.parametrize("unlike", [0, 1, 3])
def test_the_descent_finds_every_page_and_asks_for_little_else(pages: int, unlike: int) -> None:
    random = np.random.default_rng(pages + unlike)
    one = random.integers(0, 2**63, pages, dtype=np.uint64)
    other = one.copy()
    places = np.unique(random.integers(0, pages, unlike))
    other[places] ^= np.uint64(1)
    verdict = Verdict("v", ("a", "b"))
    verify.verify(verdict, {"a": Planted(one), "b": Planted(other)}, lambda: 1)
    assert verdict.differing_pages == len(places)
    levels = 1 if pages == 1 else 2 if pages <= 256 else 3 if pages <= 256**2 else 4
    most = 2 * 8 * (1 + len(places) * (levels - 1) * verify.FAN_OUT) + 2 * len(places) * PAGE_ENTRIES * 4
    assert verdict.exchanged_bytes <= most


class Judged(Planted):
    """A copy of one page of which other blocks are good than on the other ones."""

    def __init__(self, good: Sequence[int]) -> None:
        super().__init__(np.array([len(good)], np.uint64))
        self._good = good

    def worth(self, first: int, blocks: int) -> verify.Worth:
        good = np.isin(np.arange(first, first + blocks), self._good)
        return verify.Worth(good, np.ones(blocks, np.uint64), np.ones(blocks, np.uint64))


def test_the_right_side_is_told_of_every_block_by_itself() -> None:
    verdict = Verdict("v", ("a", "b"))
    verify.verify(verdict, {"a": Judged(range(3)), "b": Judged(range(3, 5))}, lambda: 1)
    assert verdict.differences == [Difference(0, 3, ("b",), "a"), Difference(3, 2, ("b",), "b"),
                                   Difference(5, PAGE_ENTRIES - 5, ("b",), "")]


class StopAt:
    """Ctrl-C when so many pages that differ were looked at."""

    def __init__(self, pages: int) -> None:
        self._pages = pages

    def __call__(self, what: str, done: int, of: int) -> None:
        if what == "pages that differ" and done >= self._pages:
            raise KeyboardInterrupt


def many_differ() -> tuple[dict[str, Planted], Verdict]:
    """Two copies that differ in 300 pages of 5,000, and what a verification of all of it says."""
    random = np.random.default_rng(7)
    one = random.integers(0, 2**63, 5000, dtype=np.uint64)
    other = one.copy()
    other[random.choice(5000, 300, replace=False)] ^= np.uint64(1)
    copies = {"a": Planted(one), "b": Planted(other)}
    whole = Verdict("v", ("a", "b"))
    verify.verify(whole, copies, lambda: 1)
    assert (whole.verdict, len(whole.differences)) == ("different", 300)
    return copies, whole


def test_a_verification_that_is_stopped_again_and_again_finds_the_same() -> None:
    copies, whole = many_differ()
    verdict = Verdict("v", ("a", "b"))
    stops = 0
    while not verdict.complete:
        verdict = Verdict("v", ("a", "b"), looked=verdict.looked)
        with suppress(KeyboardInterrupt):
            verify.verify(verdict, copies, lambda: 1, StopAt(verify.EXACT_PAGES))
        stops += not verdict.complete
        assert verdict.verdict == ("different" if verdict.complete else "interrupted")
    assert stops == 300 // verify.EXACT_PAGES
    assert verdict.differences == whole.differences


def test_what_was_mended_since_a_verification_was_stopped_is_no_difference_any_more() -> None:
    copies, _ = many_differ()
    stopped = Verdict("v", ("a", "b"))
    with pytest.raises(KeyboardInterrupt):
        verify.verify(stopped, copies, lambda: 1, StopAt(verify.EXACT_PAGES))
    copies["b"].leaves[:] = copies["a"].leaves
    resumed = Verdict("v", ("a", "b"), looked=stopped.looked)
    verify.verify(resumed, copies, lambda: 1)
    assert (resumed.verdict, resumed.differences) == ("equal", [])


@pytest.mark.parametrize("node", ["a", "b"])
def test_a_page_that_changed_since_a_verification_was_stopped_is_looked_at_again(node: str) -> None:
    """One that was equal then is different now, and one that was different differs otherwise."""
    copies, whole = many_differ()
    stopped = Verdict("v", ("a", "b"))
    with pytest.raises(KeyboardInterrupt):
        verify.verify(stopped, copies, lambda: 1, StopAt(verify.EXACT_PAGES))
    bad = [found.first // PAGE_ENTRIES for found in whole.differences]
    passed = next(page for page in range(bad[0], 5000) if page not in bad)
    copies["b"].leaves[:] = copies["a"].leaves
    for page in (passed, bad[1]):
        copies[node].leaves[page] ^= np.uint64(2)
    resumed = Verdict("v", ("a", "b"), looked=stopped.looked)
    verify.verify(resumed, copies, lambda: 1)
    assert resumed.verdict == "different"
    assert sorted(resumed.looked) == sorted([passed, bad[1]])
    assert sorted(Planted.wanted) == sorted([passed, bad[1]])           # both were looked at, nothing else


def test_what_an_interrupted_verification_found_is_kept_if_it_is_not_too_much() -> None:
    configs, volume = MemoryConfigStore(), healthy_cluster(3).volume("demo")
    assert check_verify._kept(configs, volume, ("n1", "n2")) == {}
    looked = {77: verify.Looked((2**64 - 1, 5), (Difference(5, 2, ("n2",), "n1"),))}
    check_verify._keep(configs, volume, check_verify.Kept(("n1", "n2"), looked))
    assert check_verify._kept(configs, volume, ("n1", "n2")) == looked
    assert check_verify._kept(configs, volume, ("n2", "n1")) == {}       # another leads now
    too_much = dict.fromkeys(range(10_000), looked[77])
    check_verify._keep(configs, volume, check_verify.Kept(("n1", "n2"), too_much))
    assert check_verify._kept(configs, volume, ("n1", "n2")) == {}
