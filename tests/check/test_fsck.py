"""fsck: clean where nothing is wrong, and one finding of the right kind for each thing that is."""
import fcntl
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pytest

from repstore import config, errors
from repstore._fast.checksum import crc32c
from repstore.check.findings import KINDS, Report
from repstore.check.fsck import check_device, check_store
from repstore.check.position import fresh, load, save
from repstore.cli.app import run
from repstore.format import BLOCK_SIZE, LOCATION_LOST, extent_t, page_reference_t
from repstore.sim.disk import SimulatedDisk
from repstore.sim.local import LocalVolume, PlainDisk, Request
from repstore.sim.workload import TRIM, WRITE
from repstore.store import geometry, superblock
from repstore.store import root as roots
from repstore.store.device import MemoryDevice
from repstore.store.geometry import Geometry
from repstore.store.root import Root
from repstore.store.store import format_device
from tests.sim.scenarios import NAMES, failover_and_rejoin
from tests.store.images import BOOT, OTHER_BOOT, BadSpots, Log

BOOT_ID = b"boot of the test"
BLOCKS = 150


def worked_in(*, clean: bool = True, seed: int = 1, lives: int = 1) -> bytearray:
    """The image of a store that was written, overwritten, trimmed, cleaned and checkpointed, by processes
    that were killed in the middle of writes, but for the last."""
    layout = geometry.choose(config.StoreOptions(2 * config.MIB, 64 * config.KIB))
    image = bytearray(layout.size_bytes)
    format_device(MemoryDevice(image), layout, store_uuid=bytes(range(16)), boot_id=BOOT_ID)
    volume = LocalVolume(PlainDisk(image), boot_id=BOOT_ID, life_id=7, create_blocks=BLOCKS)
    random = Random(seed)
    stamp = 1
    for number in range(500):
        if number and number % (500 // lives) == 0:
            for first in range(3):
                volume.submit(Request(WRITE, first, 4, stamp=20_000))
            for _ in range(random.randrange(4)):
                volume.pump()
            volume = LocalVolume(PlainDisk(image), boot_id=BOOT_ID, life_id=8 + number, random=Random(number))
        blocks = random.randint(1, 4)
        kind = TRIM if random.random() < 0.1 else WRITE
        volume.run([Request(kind, random.randrange(BLOCKS - blocks), blocks, stamp=stamp)])
        stamp += blocks
    volume.engine.settle(clean=clean)
    if not clean:
        volume.run([Request(WRITE, i, 1, stamp=10_000 + i) for i in range(20)])
        volume.settle()
    return image


def judged(image: bytearray, *, data: bool = True, boot_id: bytes = BOOT_ID) -> Report:
    before = bytes(image)
    report = Report("image")
    check_device(MemoryDevice(image), report, boot_id=boot_id, data=data)
    assert bytes(image) == before                     # a check never writes
    assert report.complete
    return report


def names_of_volumes(report: Report) -> set[str]:
    """What its findings call volumes: one is called one thing, whatever is wrong with it."""
    return {finding.where.split(",")[0].removeprefix("volume ") for finding in report.findings
            if finding.where.startswith("volume ")}


class Parts:
    """Where things lie in an image."""

    def __init__(self, image: bytearray) -> None:
        self.device = MemoryDevice(image)
        self.state = superblock.read(self.device, "image").superblock
        self.geometry: Geometry = self.state.geometry
        self.root: Root = roots.decode(roots.read(self.device, self.state, "image"), self.geometry)

    def directory(self) -> int:
        """Block of the map's directory."""
        return self.geometry.page_base + int(self.root.volumes[0].trees[0].directories["slot"][0])

    def page(self) -> int:
        """Block of the map's first page."""
        entries = np.frombuffer(self.device.read(self.directory() * BLOCK_SIZE, BLOCK_SIZE), page_reference_t)
        return self.geometry.page_base + int(entries["slot"][0])

    def entries(self) -> np.ndarray[tuple[int], np.dtype[np.void]]:
        """The map's first page."""
        return np.frombuffer(self.device.read(self.page() * BLOCK_SIZE, BLOCK_SIZE), extent_t)

    def living(self) -> int:
        """A block of data that the map points to."""
        locations = self.entries()["location"]
        return int(locations[locations > LOCATION_LOST][0])


def flip(image: bytearray, block: int, byte: int = 1000) -> None:
    image[block * BLOCK_SIZE + byte] ^= 4


Page = np.ndarray[tuple[int], np.dtype[np.void]]


def write_page(parts: Parts, block: int, page: bytes) -> None:
    for copy in (block, block + parts.geometry.page_slots):
        parts.device.write(copy * BLOCK_SIZE, page)


def rewrite_map(image: bytearray, change: Callable[[Page], None]) -> None:
    """Change the map's first page, and every checksum above it: wrong, but not damaged."""
    parts = Parts(image)
    page = np.frombuffer(bytearray(parts.device.read(parts.page() * BLOCK_SIZE, BLOCK_SIZE)), extent_t)
    change(page)
    write_page(parts, parts.page(), page.tobytes())
    directory = np.frombuffer(bytearray(parts.device.read(parts.directory() * BLOCK_SIZE, BLOCK_SIZE)),
                              page_reference_t)
    directory["crc"][0] = crc32c(page.tobytes())
    write_page(parts, parts.directory(), directory.tobytes())
    references = parts.root.volumes[0].trees[0].directories.copy()
    old = references.tobytes()
    references["crc"][0] = crc32c(directory.tobytes())
    data = roots.read(parts.device, parts.state, "image").replace(old, references.tobytes())
    for area in (0, 1):
        start = parts.geometry.root_start(area) * BLOCK_SIZE
        parts.device.write(start, data + bytes(-len(data) % BLOCK_SIZE))
    superblock.write(parts.device, replace(parts.state, root_crc=crc32c(data)))


@pytest.mark.parametrize("clean", [True, False])
@pytest.mark.parametrize("lives", [1, 25])
@pytest.mark.parametrize("seed", range(4))
def test_a_store_that_nothing_happened_to_is_clean(clean: bool, lives: int, seed: int) -> None:
    report = judged(worked_in(clean=clean, seed=seed, lives=lives))
    assert (report.verdict, report.findings) == ("clean", [])
    assert report.checked["blocks of data"] == report.checked["blocks"] > 100


@pytest.mark.parametrize("seed", range(8))
def test_a_store_that_lost_power_behind_a_clean_close_is_clean(seed: int) -> None:
    """Its second root, too, is flushed when it is closed."""
    layout = geometry.choose(config.StoreOptions(config.MIB, 64 * config.KIB))
    image = bytearray(layout.size_bytes)
    format_device(MemoryDevice(image), layout, store_uuid=bytes(range(16)), boot_id=BOOT_ID)
    disk = SimulatedDisk(image, Random(seed))
    volume = LocalVolume(disk, boot_id=BOOT_ID, life_id=7, create_blocks=BLOCKS // 2)
    volume.run([Request(WRITE, 0, 8, True, 1)])
    volume.engine.settle(clean=True)
    disk.cut_power()
    assert judged(image, boot_id=OTHER_BOOT).findings == []


@pytest.mark.parametrize(("kind", "where"), [
    ("superblock", lambda parts: parts.geometry.superblock_positions[2]),
    ("root", lambda parts: parts.geometry.root_start(parts.state.root_area)),
    ("root", lambda parts: parts.geometry.root_start(1 - parts.state.root_area)),
    ("page", lambda parts: parts.directory()),
    ("page", lambda parts: parts.page()),
    ("page", lambda parts: parts.page() + parts.geometry.page_slots),
    ("data", lambda parts: parts.living()),
])
def test_one_flipped_bit_is_one_finding_of_its_kind(kind: str, where: Callable[[Parts], int]) -> None:
    image = worked_in()
    parts = Parts(bytearray(image))
    flip(image, where(parts), 100)
    report = judged(image)
    assert report.verdict == "findings"
    assert report.counts == {kind: 1}
    if kind in ("page", "data"):
        assert names_of_volumes(report) == {parts.root.volumes[0].name}


def test_a_damaged_batch_header_leaves_its_blocks_without_a_record() -> None:
    image = worked_in()
    parts = Parts(image)
    found = [block for block in range(parts.geometry.segment_base, parts.geometry.total_blocks)
             if bytes(image[block * BLOCK_SIZE:block * BLOCK_SIZE + 4]) == b"RPBT"]
    hit = 0
    for block in found[::3]:
        flip(image, block, 140)
        report = judged(image)
        flip(image, block, 140)
        assert set(report.counts) <= {"record"}
        assert names_of_volumes(report) <= {parts.root.volumes[0].name}
        hit += report.counts["record"] > 0
    assert hit > 2
    assert judged(image).verdict == "clean"


def test_without_data_payload_is_not_read() -> None:
    image = worked_in()
    flip(image, Parts(image).living())
    assert judged(image, data=False).verdict == "clean"
    assert judged(image, data=True).counts == {"data": 1}


def test_a_hole_in_the_log_below_a_flush_is_a_finding() -> None:
    image = worked_in(clean=False)
    for position in range(len(image) // BLOCK_SIZE):
        if bytes(image[position * BLOCK_SIZE:position * BLOCK_SIZE + 4]) != b"RPBT":
            continue
        flip(image, position, 140)
        report = judged(image)
        flip(image, position, 140)
        if report.counts["log"]:
            return
    raise AssertionError("no batch of the log was missed")


def test_an_end_of_the_log_that_cannot_be_read_is_a_finding() -> None:
    log = Log(geometry=geometry.choose(config.StoreOptions(config.MIB, 64 * config.KIB)))
    for _ in range(4):
        log.append(blocks=0)
    report = Report("image")
    check_device(BadSpots(log.device.image, {log.address(4) // BLOCK_SIZE}), report, boot_id=BOOT)
    assert (report.complete, report.counts, report.checked["batches"]) == (True, {"log": 1}, 3)
    assert "may stand there (D7)" in str(report.findings[0])


@pytest.mark.parametrize("payload", [True, False])
def test_acknowledged_batches_that_went_with_the_power_are_no_finding(payload: bool) -> None:
    log = Log()
    for number in range(5):
        log.append(blocks=0 if number == 4 else 1, flushed=2, completed=number)
    if payload:
        log.rot_payload(4)
    else:
        log.lose(4)
    for boot_id, batches in ((OTHER_BOOT, 3), (BOOT, 5 if payload else 3)):
        report = judged(log.device.image, boot_id=boot_id)
        assert report.counts == ({} if boot_id == OTHER_BOOT else {"log": 1})
        assert report.checked["batches"] == batches


def test_the_command_asks_the_kernel_for_its_boot(tmp_path: Path, capsys: pytest.CaptureFixture[str],
                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    log = Log()
    for number in range(5):
        log.append(blocks=0, flushed=2, completed=number)
    log.lose(4)
    path = tmp_path / "store"
    path.write_bytes(log.device.image)
    assert run(["check", "fsck", str(path)]) == 0
    monkeypatch.setattr("repstore.check.fsck.kernel_boot_id", lambda: BOOT)
    assert run(["check", "fsck", str(path)]) == 1
    assert "batch 5 proves that it was written" in capsys.readouterr().out


def in_segment(parts: Parts) -> int:
    return int(np.flatnonzero(parts.entries()["location"] > LOCATION_LOST)[0])


@pytest.mark.parametrize(("kind", "change"), [
    ("pointer", lambda parts, page: page["location"].__setitem__(
        in_segment(parts), parts.geometry.segment_start(0))),
    ("owner", lambda parts, page: page.__setitem__(in_segment(parts) + 1, page[in_segment(parts)])),
    ("record", lambda parts, page: page["crc"].__setitem__(in_segment(parts), 77)),
    ("live", lambda parts, page: page["location"].__setitem__(in_segment(parts), 0)),
    ("lost", lambda parts, page: page["location"].__setitem__(in_segment(parts), 2)),
])
def test_a_map_that_is_whole_but_wrong_is_found_out(
        kind: str, change: Callable[[Parts, Page], None]) -> None:
    image = worked_in()
    parts = Parts(bytearray(image))
    rewrite_map(image, lambda page: change(parts, page))
    report = judged(image)
    assert report.counts[kind] >= 1
    assert names_of_volumes(report) <= {parts.root.volumes[0].name}


@pytest.mark.parametrize("place", [
    lambda geometry: 4, lambda geometry: 5, lambda geometry: geometry.superblock_positions[2],
    lambda geometry: geometry.segment_start(geometry.segment_count), lambda geometry: 2**32 - 1])
def test_a_map_page_that_points_outside_of_the_segments_is_named_by_the_entry(
        place: Callable[[Geometry], int]) -> None:
    image = worked_in()
    parts = Parts(bytearray(image))
    lba = in_segment(parts)
    rewrite_map(image, lambda page: page["location"].__setitem__(lba, place(parts.geometry)))
    report = judged(image)
    assert report.counts == {"pointer": 1, "lost": BLOCKS}       # the engine takes nothing of such a page
    assert [finding.where for finding in report.findings if finding.kind == "pointer"] == [
        f"volume {parts.root.volumes[0].name}, block {lba}"]


@pytest.mark.parametrize("seed", [1, 2])
def test_stores_that_went_through_a_failover_are_whole(seed: int) -> None:
    cluster = failover_and_rejoin(seed)
    cluster.run_for(1)                           # no checkpoint is under way
    for name in NAMES:
        cluster.kill(name)
    for name in NAMES:
        report = judged(cluster.node(name).disk.image, boot_id=cluster.node(name).boot_id)
        assert (report.verdict, report.findings) == ("clean", []), name


def test_every_flipped_byte_of_metadata_is_found() -> None:
    """Every 64th byte of superblocks, roots and pages that are in use."""
    image = worked_in()
    parts = Parts(image)
    blocks = [*parts.geometry.superblock_positions, parts.directory(), parts.page()]
    blocks += [parts.geometry.root_start(area) for area in (0, 1)]
    for block in blocks:
        for byte in range(7, 2048 if block in (parts.directory(), parts.page()) else 136, 64):
            flip(image, block, byte)
            assert judged(image, data=False).verdict == "findings", (block, byte)
            flip(image, block, byte)


def test_the_command_says_it_by_its_exit_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "store"
    image = worked_in()
    path.write_bytes(image)
    assert run(["check", "fsck", str(path), "--data"]) == 0
    assert "clean; looked at 4 superblocks" in capsys.readouterr().out
    flip(image, Parts(image).living())
    path.write_bytes(image)
    assert run(["check", "fsck", str(path), "--data", "--json"]) == 1
    assert '"verdict":"findings"' in capsys.readouterr().out
    assert run(["check", "fsck"]) == 64


def test_what_cannot_be_checked_is_never_called_clean(tmp_path: Path,
                                                      capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "store"
    assert run(["check", "fsck", str(path)]) == 2
    path.write_bytes(bytes(config.MIB))
    assert run(["check", "fsck", str(path)]) == 2
    path.write_bytes(worked_in())
    with path.open("rb") as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)
        assert run(["check", "fsck", str(path)]) == 2
        with pytest.raises(errors.BusyError, match="in use"):
            check_store(path)
    assert "clean" not in capsys.readouterr().out


def test_an_interrupted_check_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str],
                                      monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "store"
    path.write_bytes(worked_in())

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("repstore.check.store_records.check_records", interrupt)
    assert run(["check", "fsck", str(path)]) == 130
    shown = capsys.readouterr().out
    assert "interrupted" in shown
    assert "clean" not in shown


class StopAfter:
    """Ctrl-C when so many segments were begun."""

    def __init__(self, segments: int) -> None:
        self._left = segments

    def __call__(self, what: str, done: int, of: int) -> None:
        self._left -= what == "segments"
        if self._left < 0:
            raise KeyboardInterrupt


@pytest.mark.parametrize("data", [False, True])
def test_a_check_that_is_stopped_again_and_again_finds_the_same(tmp_path: Path, data: bool) -> None:
    image = worked_in()
    places = Parts(image).entries()["location"]
    living = sorted(places[places > LOCATION_LOST].tolist())
    for block in living[::9]:
        flip(image, block)
    for block in range(len(image) // BLOCK_SIZE):
        if bytes(image[block * BLOCK_SIZE:block * BLOCK_SIZE + 4]) == b"RPBT" and block % 3 == 0:
            flip(image, block, 140)
    whole = judged(bytearray(image), data=data)
    assert set(whole.counts) == ({"data", "record"} if data else {"record"})
    kept = tmp_path / "position"
    stops = 0
    while True:
        report, at = Report("image"), load(kept)
        try:
            check_device(MemoryDevice(image), report, boot_id=BOOT_ID, data=data, position=at,
                         progress=StopAfter(at.segment + 1))
            break
        except KeyboardInterrupt:
            stops += 1
            assert report.verdict == "interrupted"
            save(kept, at)
    assert stops > 3
    assert (report.verdict, report.counts, report.checked["blocks of data"]) == (
        "findings", whole.counts, whole.checked["blocks of data"])
    assert sorted(map(str, report.findings)) == sorted(map(str, whole.findings))


def test_a_position_in_another_state_of_the_store_does_not_count(tmp_path: Path) -> None:
    image = worked_in()
    at = fresh()
    with pytest.raises(KeyboardInterrupt):
        check_device(MemoryDevice(image), Report("image"), boot_id=BOOT_ID, position=at,
                     progress=StopAfter(8))
    assert at.segment > 0
    rewrite_map(image, lambda page: page["crc"].__setitem__(in_segment(Parts(image)), 77))
    report = Report("image")
    check_device(MemoryDevice(image), report, boot_id=BOOT_ID, position=at)
    assert report.counts == judged(image, data=False).counts
    assert report.verdict == "findings"


def test_the_command_keeps_its_position_and_goes_on_from_there(
        tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    path, kept = tmp_path / "store", tmp_path / "position"
    image = worked_in()
    places = Parts(image).entries()["location"]
    flip(image, int(places[places > LOCATION_LOST].min()))          # in the first segment in use
    path.write_bytes(image)
    command = ["check", "fsck", str(path), "--data", "--resume", str(kept)]
    with monkeypatch.context() as patched:
        patched.setattr("repstore.cli.check_fsck.ProgressLine", lambda: StopAfter(12))
        assert run(command) == 130
    shown = capsys.readouterr()
    assert ("interrupted" in shown.out, "goes on from there" in shown.err, "clean" in shown.out) == (
        True, True, False)
    assert run([*command, "--json"]) == 1
    assert '"counts":{"data":1}' in capsys.readouterr().out
    assert not kept.exists()
    for others in (b"what", b"{}", b'{"name":"a package"}', b'{"of":"\xff"}', b'{"x":' * 10_000):
        kept.write_bytes(others)
        assert run(command) == 2
        assert "interrupted check" in capsys.readouterr().err
        assert kept.read_bytes() == others         # another's: neither taken nor deleted
    assert run([*command[:-1], str(tmp_path / "nowhere" / "position")]) == 2      # before it reads anything
    assert "no file can be made there" in capsys.readouterr().err


def test_what_is_neither_file_nor_device_is_refused_in_one_line(
        tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store, pipe = tmp_path / "store", tmp_path / "pipe"
    store.write_bytes(worked_in())
    os.mkfifo(pipe)
    assert run(["check", "fsck", str(pipe)]) == 2
    assert capsys.readouterr().err == f"repstore: {pipe} is neither a file nor a block device\n"
    done = subprocess.run([sys.executable, "-m", "repstore.cli", "check", "fsck", str(tmp_path)],
                          capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == f"repstore: {tmp_path} is neither a file nor a block device\n"
    assert run(["check", "fsck", str(store), "--resume", str(pipe)]) == 2
    assert capsys.readouterr().err == (
        f"repstore: {pipe}: is a pipe: what an interrupted check left must be a regular file\n")


def test_the_document_has_every_kind_of_finding() -> None:
    text = (Path(__file__).resolve().parents[2] / "docs/checks.md").read_text()
    assert set(KINDS) == {line.split("`")[1] for line in text.splitlines() if line.startswith("| `")}


def test_a_position_behind_the_last_segment_does_not_count() -> None:
    image = worked_in()
    at = fresh()
    report = Report("image")
    check_device(MemoryDevice(image), report, boot_id=BOOT_ID, position=at)
    at.segment, whole = 1_000_000, dict(report.checked)
    again = Report("image")
    check_device(MemoryDevice(image), again, boot_id=BOOT_ID, position=at)
    assert dict(again.checked) == whole


@pytest.mark.parametrize("json", [False, True])
def test_a_store_that_cannot_be_checked_is_told_in_json_too(
        tmp_path: Path, capsys: pytest.CaptureFixture[str], json: bool) -> None:
    path = tmp_path / "store"
    path.write_bytes(bytes(BLOCK_SIZE))
    assert run(["check", "fsck", str(path), *["--json"] * json]) == 2
    shown = capsys.readouterr()
    assert shown.out.count('"verdict":"unusable"') == shown.out.count("\n") == json
    assert str(path) in shown.err
