"""Every byte that something depends on, flipped in turn: what is served, and what is mended.

    python -m tests.check.corruption [--step 1] [--first 0] [--count N] [--only CHECK] [--jobs N]

Stores of 1 MiB with one volume on them. `Area` is a block of such a store that is in
use: superblocks, roots, pages, batch headers of segments with living blocks, living blocks.

  F1 one copy alone: every block is right, but for those whose only record the byte carried; they
     are errors, and named in the list of lost blocks. Never other data. The store opens always.
  F2 three copies, closed cleanly or killed, the byte flipped in two of them: every block is right,
     at once; and when they were scrubbed, each of the two alone has everything, and fsck finds nothing in it.
  F3 the byte flipped in all of three copies: as F1.
  F4 one copy alone, the byte flipped in all blocks that are not in use at once: every block is right.

What a byte carries is known: a living block carries itself; everything else has copies, or is not needed
after a clean close. One thing is not mended by a scrub, and fsck goes on to find it: a batch header, which
nothing reads before its segment is cleaned.
"""
from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from repstore import config
from repstore._fast import inspection
from repstore.check.findings import Report
from repstore.check.fsck import check_device
from repstore.check.store_maps import segments_of
from repstore.format import (
    BATCH_MAGIC,
    BLOCK_SIZE,
    LOCATION_LOST,
    extent_t,
    page_reference_t,
)
from repstore.replication.volume_config import CLUSTER_KEY
from repstore.sim.cluster import SimulatedCluster
from repstore.sim.local import LocalVolume, PlainDisk, Request
from repstore.sim.workload import READ, stamps_of
from repstore.store import root as roots
from repstore.store import superblock
from repstore.store.device import MemoryDevice
from repstore.store.geometry import Geometry
from tests.sim.bad_blocks import EIO, LIMIT_S, read, write

VOLUME = "demo"
NAMES = ("n1", "n2", "n3")
FLIPPED = NAMES[:2]
SEGMENT_BYTES = 64 * config.KIB
SIZE_BLOCKS = 96                                 # as much as such a store takes: one map page
WRITTEN = ((0, 2), (50, 1))                      # (first block, blocks)
UNWRITTEN = ((2, 2), (51, 2), (94, 2))           # they read as zeros
SCRUB_BYTES_S = 64 * config.MIB
LIFE_ID = 77
PART = 500                       # bytes that a process takes at a time
UNUSED = "unused"
EXPECTED = ({lba: 1000 + lba for first, blocks in WRITTEN for lba in range(first, first + blocks)}
            | {lba: 0 for first, blocks in UNWRITTEN for lba in range(first, first + blocks)})
Found = dict[int, int | None]                    # stamp by block; None: EIO


@dataclass(frozen=True, slots=True)
class Area:
    """A block of a store whose first `in_use` bytes matter; what it `carries` stands nowhere else in
    this store. `kind` and `number` name the same thing in each copy, wherever it lies there."""

    block: int
    kind: str
    number: int
    carries: frozenset[int] = frozenset()
    in_use: int = BLOCK_SIZE


@dataclass(frozen=True, slots=True)
class Closed:
    """What a cluster left behind: images by node, the boots of their machines, the config."""

    images: dict[str, bytes]
    boots: dict[str, bytes]
    entries: dict[str, bytes]
    epoch: int


# ------------------------------------------------------------------------------------ the stores
@cache
def closed(copies: int, clean: bool = True) -> Closed:
    """A written volume of so many copies, everything closed cleanly; or killed, with the last of
    `WRITTEN` in the log behind the checkpoint."""
    cluster = SimulatedCluster(1, nodes=copies, store_bytes=config.MIB, segment_bytes=SEGMENT_BYTES)
    cluster.create_volume(VOLUME, SIZE_BLOCKS, copies=copies)
    cluster.run_until(lambda: cluster.is_healthy(VOLUME), LIMIT_S)
    attach(cluster, "n1")
    nodes = [cluster.node(name) for name in NAMES[:copies]]
    for first, blocks in WRITTEN:
        for node in nodes:
            cluster.life(node.name).engine.settle()
        assert write(cluster, "n1", first, 1000 + first, blocks) == 0
        cluster.run_for(1)
    epoch = cluster.volume(VOLUME).epoch
    for node in nodes:
        if clean:
            node.stop()
        else:
            node.kill()
    return Closed({node.name: bytes(node.disk.image) for node in nodes},
                  {node.name: node.boot_id for node in nodes},
                  {key: entry.value for key, entry in cluster.config.list("").items()}, epoch)


class ReopenedCluster(SimulatedCluster):
    """The cluster of `left`, started again with these images."""

    def __init__(self, left: Closed, images: dict[str, bytearray]) -> None:
        self._left, self._images = left, images
        super().__init__(2, nodes=len(images), store_bytes=config.MIB, segment_bytes=SEGMENT_BYTES)

    def _add_node(self, number: int, layout: Geometry) -> None:
        super()._add_node(number, layout)
        node = self.world.nodes[number]
        node.disk.replace(self._images[node.name])
        node.boot_id = self._left.boots[node.name]
        if number == 0:
            for key, value in self._left.entries.items():
                if key != CLUSTER_KEY:
                    self.config.compare_and_swap(key, 0, value)


def attach(cluster: SimulatedCluster, name: str) -> None:
    """A client comes to this node."""
    cluster.life(name).control.attach(VOLUME, cluster.clock.now_s)


# ------------------------------------------------------------------------------------- the areas
@cache
def areas(image: bytes) -> dict[tuple[str, int], Area]:
    """Every block of a store that is in use, by kind and number. What an area carries is told for
    one that was closed cleanly; of others a log payload may be the newest content of any block."""
    device = MemoryDevice(bytearray(image))
    state = superblock.read(device, "image").superblock
    layout = state.geometry
    found = [Area(block, "superblock", i) for i, block in enumerate(layout.superblock_positions)]
    assert state.root_bytes <= BLOCK_SIZE
    found += [Area(layout.root_start(i), "root", i, in_use=state.root_bytes) for i in (0, 1)]
    volume, = roots.decode(roots.read(device, state, "image"), layout).volumes
    for number, tree in enumerate(volume.trees):
        slot, = tree.directories["slot"].tolist()
        if slot:
            found += _tree_areas(device, layout, slot, number)
    found += _log(image, layout, [area.block for area in found if area.kind == "data"], state.clean)
    return {(area.kind, area.number): area for area in found}


def _tree_areas(device: MemoryDevice, layout: Geometry, slot: int, number: int) -> Iterator[Area]:
    """The map (tree 0) or a change bitmap: its directory, its only page, and the blocks that a map
    page points to."""
    name = "bitmap" if number else "map"
    directory = layout.page_blocks(slot)
    page = layout.page_blocks(int(_entries(device, directory[0], page_reference_t)["slot"][0]))
    for which, place in (("", 0), ("second ", 1)):
        yield Area(directory[place], f"{which}{name} directory", number)
        yield Area(page[place], f"{which}{name} page", number)
    locations = _entries(device, page[0], extent_t)["location"]
    for lba in np.flatnonzero(locations > LOCATION_LOST).tolist() if number == 0 else []:
        yield Area(int(locations[lba]), "data", lba, frozenset({lba}))


def _entries(device: MemoryDevice, block: int, layout: np.dtype[np.void]) -> NDArray[np.void]:
    return np.frombuffer(device.read(block * BLOCK_SIZE, BLOCK_SIZE), layout)


def _log(image: bytes, layout: Geometry, living: list[int], clean: bool) -> Iterator[Area]:
    """Batch headers of segments in which something lives; without a clean close, all that was
    written behind them."""
    segments, _ = segments_of(layout, np.array(living, np.uint32))
    starts = [layout.segment_start(number) for number in sorted(set(segments.tolist()))]
    for block in (block for start in starts for block in range(start, start + layout.segment_blocks)):
        content = image[block * BLOCK_SIZE:(block + 1) * BLOCK_SIZE]
        if int.from_bytes(content[:4], "little") == BATCH_MAGIC:
            yield Area(block, "header", block)
        elif not clean and any(content) and block not in living:
            yield Area(block, "log payload", block)


def places(name: str, image: bytes, step: int) -> list[tuple[Area, int]]:
    """(area, byte) of every `step`th byte in use; in each block they begin at another one. Or those of F4."""
    if name == UNUSED:
        return [(Area(0, UNUSED, 0), byte) for byte in range(0, BLOCK_SIZE, step)]
    return [(area, byte) for area in areas(image).values()
            for byte in range(area.block % step, area.in_use, step)]


def flipped(image: bytes, area: Area, byte: int) -> bytearray:
    """The image with one bit turned over in that byte of its area of the same name, if it has one."""
    changed = bytearray(image)
    here = areas(image).get((area.kind, area.number))
    if here is not None and byte < here.in_use:
        changed[here.block * BLOCK_SIZE + byte] ^= 1 << (area.block + byte // 7) % 8
    return changed


# ------------------------------------------------------------------------------------ the checks
def check_single(left: Closed, area: Area, byte: int) -> None:
    """F1."""
    found, lost = read_alone(flipped(left.images["n1"], area, byte), left.boots["n1"])
    judge(found, area.carries)
    assert area.carries <= lost, f"not named: {sorted(area.carries - lost)}"


def check_copies(left: Closed, area: Area, byte: int) -> None:
    """F2."""
    images = {name: flipped(image, area, byte) if name in FLIPPED else bytearray(image)
              for name, image in left.images.items()}
    cluster = reopened(left, images)
    judge(read_cluster(cluster), frozenset())
    for name in FLIPPED:
        inspection.scrub_start(cluster.life(name).engine, 1, 0, SCRUB_BYTES_S)
        cluster.life(name).run()
    cluster.run_until(lambda: not any(inspection.scrub_state(cluster.life(name).engine)[0]
                                      for name in FLIPPED), LIMIT_S)
    cluster.run_for(0.1)
    for name in NAMES:
        cluster.node(name).stop()
    for name in FLIPPED:
        image = cluster.node(name).disk.image
        report = Report(name)
        check_device(MemoryDevice(image), report, boot_id=cluster.node(name).boot_id, data=True)
        assert report.complete
        assert set(report.counts) <= UNMENDED.get(area.kind, set()), report.findings
        judge(read_alone(image, left.boots[name])[0], frozenset())


def check_everywhere(left: Closed, area: Area, byte: int) -> None:
    """F3."""
    cluster = reopened(left, {name: flipped(image, area, byte) for name, image in left.images.items()})
    judge(read_cluster(cluster), area.carries)


def check_unused(left: Closed, area: Area, byte: int) -> None:
    """F4."""
    image = bytearray(left.images["n1"])
    in_use = {each.block for each in areas(left.images["n1"]).values()}
    for block in set(range(len(image) // BLOCK_SIZE)) - in_use:
        image[block * BLOCK_SIZE + byte] ^= 1 << (block + byte // 7) % 8
    found, lost = read_alone(image, left.boots["n1"])
    judge(found, frozenset())
    assert not lost, f"named as lost: {sorted(lost)}"


# what fsck still finds after a scrub: nothing reads it, and what needs it does without (F2)
UNMENDED = {"header": {"record"}}
# copies, whether they were closed cleanly, and what is checked
CHECKS: dict[str, tuple[int, bool, Callable[[Closed, Area, int], None]]] = {
    "single": (1, True, check_single), UNUSED: (1, True, check_unused), "copies": (3, True, check_copies),
    "replayed": (3, False, check_copies), "everywhere": (3, True, check_everywhere)}


def judge(found: Found, carried: frozenset[int]) -> None:
    """Errors for exactly these blocks, everything else right."""
    wrong = {lba: stamp for lba, stamp in found.items() if stamp is not None and stamp != EXPECTED[lba]}
    assert not wrong, f"other data: {wrong}"
    bad = {lba for lba, stamp in found.items() if stamp is None}
    assert bad == carried, f"errors for {sorted(bad)}, they belong to {sorted(carried)}"
    assert found.keys() == EXPECTED.keys()


def reopened(left: Closed, images: dict[str, bytearray]) -> ReopenedCluster:
    """The cluster runs again, all copies in sync."""
    cluster = ReopenedCluster(left, images)
    cluster.run_until(lambda: cluster.volume(VOLUME).epoch > left.epoch, LIMIT_S)
    cluster.run_until(lambda: cluster.is_healthy(VOLUME), LIMIT_S)
    attach(cluster, "n1")
    return cluster


def read_cluster(cluster: SimulatedCluster) -> Found:
    """Every block that is looked at, by a client of n1."""
    found: Found = {}
    for first, blocks in WRITTEN + UNWRITTEN:
        error, stamps = read(cluster, "n1", first, blocks)
        if not error:
            found.update(zip(range(first, first + blocks), stamps, strict=True))
            continue
        for lba in range(first, first + blocks):
            error, stamps = read(cluster, "n1", lba)
            assert error in (0, EIO), error
            found[lba] = None if error else stamps[0]
    return found


def read_alone(image: bytearray, boot_id: bytes) -> tuple[Found, frozenset[int]]:
    """A store opened as the only copy: every block that is looked at, and those it calls lost."""
    volume = LocalVolume(PlainDisk(image), boot_id=boot_id, life_id=LIFE_ID)
    requests = [Request(READ, lba, 1) for lba in EXPECTED]
    volume.run(requests, depth=8)
    found: Found = {}
    for request in requests:
        assert request.error in (0, EIO), request.error
        assert request.memory is not None
        found[request.first] = None if request.error else stamps_of(request.memory[:BLOCK_SIZE])[0]
    volume.settle()
    return found, frozenset(lba for _, lba in inspection.lost_blocks(volume.engine))


@dataclass
class Outcome:
    """What a run over many bytes came to."""

    done: Counter[str]               # bytes by kind of area
    failures: list[str]


def count_places(name: str, step: int) -> int:
    """How many bytes a run over all of them flips."""
    copies, clean, _ = CHECKS[name]
    return len(places(name, closed(copies, clean).images["n1"], step))


def run(name: str, step: int, first: int = 0, count: int | None = None) -> Outcome:
    """Flip every `step`th byte, from the `first` of those on."""
    copies, clean, check = CHECKS[name]
    left = closed(copies, clean)
    chosen = places(name, left.images["n1"], step)[first:None if count is None else first + count]
    outcome = Outcome(Counter(), [])
    for area, byte in chosen:
        outcome.done[area.kind] += 1
        try:
            check(left, area, byte)
        except Exception as error:
            outcome.failures.append(f"{name}: {area.kind} {area.number}, byte {byte}: "
                                    f"{type(error).__name__}: {error}")
    return outcome


def run_all(name: str, step: int, first: int, count: int | None, jobs: int) -> Outcome:
    """The same in several processes, a part at a time; says how far it is."""
    total = count_places(name, step)
    end = total if count is None else min(total, first + count)
    outcome = Outcome(Counter(), [])
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        parts = [pool.submit(run, name, step, at, min(PART, end - at)) for at in range(first, end, PART)]
        for number, part in enumerate(parts):
            print(f"{name}: {first + number * PART} of {end}", flush=True)
            outcome.done += part.result().done
            outcome.failures += part.result().failures
    return outcome


def main() -> int:
    """1 when a byte was not what it should be."""
    parser = argparse.ArgumentParser(description="flip every byte of small stores in turn")
    parser.add_argument("--only", choices=CHECKS, default=None)
    parser.add_argument("--step", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="go on from here; counted in steps")
    parser.add_argument("--count", type=int, default=None)
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    options = parser.parse_args()
    failed = False
    for name in [options.only] if options.only else CHECKS:
        begun_s = time.monotonic()
        outcome = run_all(name, options.step, options.first, options.count, options.jobs)
        for line in outcome.failures[:20]:
            print("FAILED " + line)
        told = ", ".join(f"{kind} {count}" for kind, count in sorted(outcome.done.items()))
        print(f"{name}: {outcome.done.total()} bytes ({told}), {len(outcome.failures)} failed, "
              f"{time.monotonic() - begun_s:.0f} s", flush=True)
        failed |= bool(outcome.failures)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
