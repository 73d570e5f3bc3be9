"""Golden images: small stores of every format version, kept for ever, that must stay readable.

    python -m tests.store.golden [--again]

makes those of the present version in `golden_images/MAJOR.MINOR`: run it when the version changes, and
commit what it makes. Images that are there are not made anew; `--again` is for a version that was
never released. What each block reads as is written beside them, from the requests and not from the store.

    clean    closed cleanly: overwritten, trimmed, zeroed, cleaned, checkpointed
    killed   the same, with a log behind the checkpoint
    member   a copy of several, killed: epochs, a session, change bitmaps, a record that nobody committed
"""
from __future__ import annotations

import argparse
import json
import lzma
import mmap
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

from repstore import config
from repstore.format import BLOCK_SIZE, FORMAT_MAJOR, FORMAT_MINOR
from repstore.sim.cluster import SimulatedCluster
from repstore.sim.local import LocalVolume, PlainDisk, Request
from repstore.sim.workload import TRIM, WRITE, WRITE_ZEROES, stamped
from repstore.store import geometry, superblock
from repstore.store import root as roots
from repstore.store.device import MemoryDevice
from repstore.store.store import format_device
from tests.sim.bad_blocks import LIMIT_S, start, write

PLACE = Path(__file__).parent / "golden_images"
VERSION = f"{FORMAT_MAJOR}.{FORMAT_MINOR}"
BOOT_ID = b"boot of the gold"
STORE_BYTES = 1 * config.MIB
SEGMENT_BYTES = 64 * config.KIB
BLOCKS = 90


@dataclass(frozen=True)
class Golden:
    """A store as it lay on a disk, and the stamp of each block of its volume."""
    version: str
    name: str
    image: bytes
    boot_id: bytes
    stamps: list[int]


def load() -> Iterator[Golden]:
    """All that were ever made."""
    for contents in sorted(PLACE.glob("*/contents.json")):
        for name, told in json.loads(contents.read_text()).items():
            image = lzma.decompress((contents.parent / f"{name}.xz").read_bytes())
            yield Golden(contents.parent.name, name, image, bytes.fromhex(told["boot_id"]), told["stamps"])


def of_one_copy(name: str, *, clean: bool) -> Golden:
    """`clean` or `killed`."""
    layout = geometry.choose(config.StoreOptions(STORE_BYTES, SEGMENT_BYTES))
    image = bytearray(layout.size_bytes)
    format_device(MemoryDevice(image), layout, store_uuid=bytes(range(16)), boot_id=BOOT_ID)
    volume = LocalVolume(PlainDisk(image), boot_id=BOOT_ID, life_id=7, create_blocks=BLOCKS)
    stamps = [0] * BLOCKS
    random, stamp = Random(1), 1

    def work(requests: int) -> None:
        nonlocal stamp
        for _ in range(requests):
            blocks = random.randint(1, 4)
            kind = random.choices((WRITE, TRIM, WRITE_ZEROES), (8, 1, 1))[0]
            request = Request(kind, random.randrange(BLOCKS - blocks), blocks, stamp=stamp)
            volume.run([request])
            assert request.error == 0
            for block, content in request.effects():
                stamps[block] = content
            stamp += blocks

    work(300)
    volume.engine.settle(clean=clean)
    if not clean:
        work(10)
        volume.settle()
    return Golden(VERSION, name, bytes(image), BOOT_ID, stamps)


def of_a_member() -> Golden:
    """`member`."""
    cluster = SimulatedCluster(1, nodes=2, store_bytes=STORE_BYTES, segment_bytes=SEGMENT_BYTES)
    cluster.create_volume("volume", BLOCKS, copies=2, min_copies=2)
    cluster.run_until(lambda: cluster.is_healthy("volume"), LIMIT_S)
    cluster.life("n1").control.attach("volume", cluster.clock.now_s)
    stamps = [0] * BLOCKS
    for first in range(0, 60, 20):
        assert write(cluster, "n1", first, 100 + first, 20) == 0
        stamps[first:first + 20] = range(100 + first, 120 + first)
    primary = cluster.primary("volume")
    life, node = cluster.life(primary), cluster.node(primary)
    cluster.kill("n2" if primary == "n1" else "n1")
    memory = mmap.mmap(-1, 2 * BLOCK_SIZE)
    memory[:] = stamped(900, 2)
    start(cluster, primary, WRITE, 30, memory)
    stamps[30:32] = 900, 901                   # the record is there, and whoever leads next commits it
    cluster.run_for(0.01)
    life.engine.settle()
    cluster.kill(primary)
    image = bytes(node.disk.image)
    volume = root_of(image).volumes[0]
    assert volume.entry["pending_count"] == 1
    assert len(volume.trees) > 1
    return Golden(VERSION, "member", image, node.boot_id, stamps)


def root_of(image: bytes) -> roots.Root:
    """The checkpoint in an image."""
    device = MemoryDevice(bytearray(image))
    state = superblock.read(device, "image").superblock
    return roots.decode(roots.read(device, state, "image"), state.geometry)


def make() -> Iterator[Golden]:
    """Those of the present version."""
    yield of_one_copy("clean", clean=True)
    yield of_one_copy("killed", clean=False)
    yield of_a_member()


def save(images: Iterable[Golden]) -> None:
    """Put them where `load` finds them, compressed as small as can be."""
    contents = {}
    directory = PLACE / VERSION
    directory.mkdir(parents=True, exist_ok=True)
    for golden in images:
        packed = lzma.compress(golden.image, preset=9 | lzma.PRESET_EXTREME)
        (directory / f"{golden.name}.xz").write_bytes(packed)
        contents[golden.name] = {"boot_id": golden.boot_id.hex(), "stamps": golden.stamps}
        print(f"{directory / golden.name}.xz: {len(golden.image)} bytes in {len(packed)}")
    (directory / "contents.json").write_text(json.dumps(contents) + "\n")


def main() -> int:
    """1 when the present version has its images already."""
    parser = argparse.ArgumentParser(prog="python -m tests.store.golden", description=__doc__.splitlines()[0])
    parser.add_argument("--again", action="store_true", help="of a version that was never released")
    chosen = parser.parse_args()
    if (PLACE / VERSION).exists() and not chosen.again:
        print(f"format {VERSION} has its images: they must stay as they are", file=sys.stderr)
        return 1
    save(list(make()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
