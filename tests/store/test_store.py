"""Create, open and look: a whole store or none, one owner, and clear errors."""
import os
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from repstore import config, errors
from repstore._fast.checksum import crc32c
from repstore.format import BLOCK_SIZE
from repstore.store import root as roots
from repstore.store import store, superblock
from repstore.store.device import FileDevice, MemoryDevice
from repstore.store.patience import Patience
from tests.store.images import BOOT, LIFE, BadSpots, Log, Waiting, new_store, state_of
from tests.store.test_root import root, volume


def test_a_new_store_opens_empty_and_clean(tmp_path: Path) -> None:
    path = tmp_path / "n1.store"
    made = store.create(path, 4 * config.MIB)
    assert (made.size_bytes, made.clean, made.superblock_copies) == (4 * config.MIB, True, 4)
    assert made.segments == made.free_segments
    assert path.stat().st_size == 4 * config.MIB
    assert path.stat().st_blocks * 512 >= 4 * config.MIB, "the file has holes"
    opened = store.open_store(path)
    assert (len(opened.batches), opened.tainted) == (0, False)
    assert opened.boot_id == store.kernel_boot_id() == opened.superblock.boot_id
    assert opened.life_id not in (0, opened.superblock.life_id)
    assert os.path.samestat(os.fstat(opened.descriptor), path.stat())
    assert superblock.decode(opened.superblock_block, 0) == opened.superblock
    assert roots.decode(opened.root_bytes, opened.geometry).plan.tolist() == list(range(made.segments))
    assert store.info(path).in_use_by.startswith(str(os.getpid()))
    opened.close()
    assert os.listdir(tmp_path) == ["n1.store"]


def test_two_lives_have_two_ids(tmp_path: Path) -> None:
    store.create(tmp_path / "s", config.MIB)
    ids = set()
    for _ in range(2):
        opened = store.open_store(tmp_path / "s")
        ids.add(opened.life_id)
        opened.close()
    assert len(ids) == 2


def test_opening_writes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "s"
    log = Log()
    log.append(completed=0)
    path.write_bytes(log.device.image)
    opened = store.open_store(path)
    assert len(opened.batches) == 1
    opened.close()
    store.info(path)
    assert path.read_bytes() == bytes(log.device.image)


@pytest.mark.fault("process: a store opened twice", promise="refused, and the owner is named")
def test_a_store_has_one_owner(tmp_path: Path) -> None:
    store.create(tmp_path / "s", config.MIB)
    opened = store.open_store(tmp_path / "s")
    with pytest.raises(errors.BusyError, match=f"in use by process {os.getpid()}"):
        store.open_store(tmp_path / "s")
    opened.close()
    store.open_store(tmp_path / "s").close()


def test_a_failed_open_gives_the_lock_back(tmp_path: Path) -> None:
    path = tmp_path / "s"
    path.write_bytes(bytes(config.MIB))
    with pytest.raises(errors.ConfigError, match="is not a store"):
        store.open_store(path)
    device = FileDevice(path)
    device.lock()
    device.close()


@pytest.mark.parametrize("content", [b"precious", bytes(config.MIB)])
def test_a_file_with_content_is_not_overwritten(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "s"
    path.write_bytes(content)
    with pytest.raises(errors.ExistsError, match=f"exists and has {len(content)} bytes"):
        store.create(path, config.MIB, force=True)
    assert path.read_bytes() == content
    assert os.listdir(tmp_path) == ["s"]


def test_an_empty_file_and_a_left_over_beginning_are_taken(tmp_path: Path) -> None:
    (tmp_path / "s").touch()
    (tmp_path / "s.creating").write_bytes(b"from a create that was killed")
    store.create(tmp_path / "s", config.MIB)
    assert os.listdir(tmp_path) == ["s"]


def test_a_file_that_another_creator_has_in_hand_is_busy(tmp_path: Path) -> None:
    unfinished = tmp_path / "s.creating"
    unfinished.write_bytes(b"half")
    other = FileDevice(unfinished)
    other.lock()
    with pytest.raises(errors.BusyError, match="creating is in use by process"):
        store.create(tmp_path / "s", config.MIB)
    assert unfinished.read_bytes() == b"half"
    other.close()


def test_a_store_that_was_finished_while_we_waited_for_it_is_not_truncated(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real_lock = FileDevice.lock

    def lock_late(self: FileDevice) -> None:
        self.path.rename(tmp_path / "s")      # what the other creator does last
        (tmp_path / "s").write_bytes(b"finished")
        real_lock(self)

    monkeypatch.setattr(FileDevice, "lock", lock_late)
    with pytest.raises(errors.BusyError, match="has just created this store"):
        store.create(tmp_path / "s", config.MIB)
    assert (tmp_path / "s").read_bytes() == b"finished"


@pytest.mark.fault("space: no room for a new store", promise="an error, and nothing is left behind")
def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(fd: int, offset: int, length: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", no_room)
    with pytest.raises(errors.NoSpaceError, match="no room for 1048576 bytes"):
        store.create(tmp_path / "s", config.MIB)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(("size_bytes", "text"), [
    (None, "needs a size"), (config.MIB + 512, "1049088 bytes: must be a multiple of 4096"),
    (4096, "4096 bytes: must be 786432 to")])
def test_a_bad_size_is_refused_before_anything_is_made(
        tmp_path: Path, size_bytes: int | None, text: str) -> None:
    with pytest.raises(errors.ConfigError, match=text):
        store.create(tmp_path / "s", size_bytes)
    assert os.listdir(tmp_path) == []


def test_a_missing_directory_or_store_is_named(tmp_path: Path) -> None:
    with pytest.raises(errors.NotFoundError, match=r"no directory .*absent"):
        store.create(tmp_path / "absent" / "s", config.MIB)
    with pytest.raises(errors.NotFoundError, match=r"no store at .*absent"):
        store.open_store(tmp_path / "absent")
    with pytest.raises(errors.NotFoundError, match=r"no store at .*absent"):
        store.info(tmp_path / "absent")


@pytest.mark.fault("input: a truncated store", promise="refused, with both sizes")
def test_a_truncated_store_is_refused_with_both_sizes(tmp_path: Path) -> None:
    path = tmp_path / "s"
    store.create(path, 2 * config.MIB)
    os.truncate(path, config.MIB)
    with pytest.raises(errors.CorruptionError, match="2097152 bytes, found 1048576: the file was truncated"):
        store.open_store(path)


def test_every_single_bad_block_of_metadata_is_survived_or_told(tmp_path: Path) -> None:
    image = new_store().image
    geometry = state_of(new_store()).geometry
    for block in (*geometry.superblock_positions, geometry.root_start(1), geometry.page_base):
        damaged = MemoryDevice(bytearray(image))
        damaged.image[block * BLOCK_SIZE + 16] ^= 1
        opened = store.open_device(damaged, "image", boot_id=BOOT, life_id=LIFE)
        assert opened.descriptor == -1
    damaged = MemoryDevice(bytearray(image))
    damaged.image[geometry.root_start(0) * BLOCK_SIZE + 16] ^= 1
    with pytest.raises(errors.CorruptionError, match="root area 0"):
        store.open_device(damaged, "image", boot_id=BOOT, life_id=LIFE)


@pytest.mark.parametrize("what", ["superblocks", "roots", "all"])
@pytest.mark.fault("disk: reads fail for a moment while the store is opened",
                   promise="tried again: nothing is missing")
def test_superblocks_and_roots_are_waited_for_where_no_copy_does(what: str) -> None:
    image = new_store().image
    geometry = state_of(new_store()).geometry
    spots = {"superblocks": set(geometry.superblock_positions), "all": set(range(geometry.total_blocks)),
             "roots": {geometry.root_start(area) for area in (0, 1)}}[what]
    device = BadSpots(image, spots)
    waiting = Waiting(device)
    opened = store.open_device(device, "image", boot_id=BOOT, life_id=LIFE, patience=waiting.patience())
    assert (opened.superblock, sum(waiting.pauses) >= 1) == (state_of(new_store()), True)
    with pytest.raises(errors.CorruptionError):
        store.open_device(BadSpots(image, spots), "image", boot_id=BOOT, life_id=LIFE,
                          patience=Waiting().patience())
    one_of_each = {geometry.superblock_positions[0], geometry.root_start(1)}
    store.open_device(BadSpots(image, one_of_each), "image", boot_id=BOOT, life_id=LIFE,
                      patience=Patience(1.0, sleep=lambda pause_s: pytest.fail("waits")))


class Moving(MemoryDevice):
    """Somebody writes a checkpoint right after our first look at the superblocks."""

    def __init__(self, before: bytes, after: bytes, reads: int) -> None:
        super().__init__(bytearray(before))
        self.after = after
        self.reads = reads

    def read(self, offset: int, length: int) -> memoryview:
        self.reads -= 1
        if self.reads == 0:
            self.image[:] = self.after
        return super().read(offset, length)


def test_info_looks_again_when_the_store_moved_on() -> None:
    before = new_store()
    after = new_store()
    state = state_of(after)
    after.image[state.geometry.root_start(0) * BLOCK_SIZE + 16] ^= 1      # taken by a later root
    newer = replace(roots.empty(state.geometry), batch_sequence=9)
    data = roots.encode(newer)
    after.write(state.geometry.root_start(1) * BLOCK_SIZE, data + bytes(-len(data) % BLOCK_SIZE))
    superblock.write(after, replace(state, sequence=2, root_area=1, root_bytes=len(data),
                                    root_crc=crc32c(data)))
    looks = 6       # two copies at the ends, then all four
    found, _ = store._read_settled(Moving(bytes(before.image), bytes(after.image), looks + 1), "image")
    assert found.superblock.sequence == 2


def test_info_says_what_the_checkpoint_holds(tmp_path: Path) -> None:
    log = Log(root(volume(3, b"demo")))
    path = tmp_path / "s"
    path.write_bytes(log.device.image)
    found = store.info(path)
    assert not found.clean
    assert found.in_use_by == ""
    (held,) = found.volumes
    assert (held.name, held.index, held.size_bytes, held.commit_lsn) == ("demo", 3, 4_096_000, 50)


@pytest.fixture
def loop_device(tmp_path: Path) -> Iterator[Path]:
    backing = tmp_path / "disk"
    backing.write_bytes(bytes(4 * config.MIB))
    try:
        made = subprocess.run(["losetup", "--find", "--show", str(backing)], capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("no losetup")
    if made.returncode:
        pytest.skip(f"no loop device: {made.stderr.strip()}")
    yield Path(made.stdout.strip())
    subprocess.run(["losetup", "--detach", made.stdout.strip()], check=True)


def test_a_block_device_is_taken_whole_and_only_once(loop_device: Path) -> None:
    made = store.create(loop_device)
    assert made.size_bytes == 4 * config.MIB
    with pytest.raises(errors.ExistsError, match="carries a store already"):
        store.create(loop_device)
    again = store.create(loop_device, segment_bytes=64 * config.KIB, force=True)
    assert again.uuid != made.uuid
    store.open_store(loop_device).close()
    with pytest.raises(errors.ConfigError, match=r"store size 8388608 bytes: .* has 4194304"):
        store.create(loop_device, 8 * config.MIB, force=True)


def test_an_older_store_on_a_device_cannot_come_back() -> None:
    old = new_store()
    superblock.write(old, replace(state_of(old), sequence=99))
    store._wipe_superblocks(old)
    assert not store._carries_store(old, "image")


@pytest.mark.parametrize("extra", [BLOCK_SIZE, 16 * config.MIB])
@pytest.mark.fault("input: a device that is larger than the store on it, its first superblock gone",
                   promise="not formatted without force, and with it the old store cannot come back")
def test_a_store_that_is_smaller_than_its_device_is_seen_and_cannot_come_back(extra: int) -> None:
    old = new_store()
    superblock.write(old, replace(state_of(old), sequence=99))
    device = MemoryDevice(old.image + bytes(extra))
    device.write(0, bytes(BLOCK_SIZE))
    assert store._carries_store(device, "image")
    store._wipe_superblocks(device)
    assert not store._carries_store(device, "image")
    assert superblock.remains(device) == []
