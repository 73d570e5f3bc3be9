"""The doors of the room: create a store, open it for an engine, or look at one.

  O1 `create` leaves a whole store or none: a file gets its name when it is complete
  O2 every block of a new file is written once: turning fallocated blocks into written ones
     later would cost a journal commit of the file system on the write path
  O3 `open_store` locks, finds the state that a quorum agrees on, and decides what a crash
     left, before anything is written. It writes nothing itself: the engine's first
     checkpoint puts the new life on disk, before the first acknowledgement
  O4 `info` needs no lock and writes nothing: it may be asked about a live store
  O5 what cannot be read is waited for where nothing else can stand in for it, in all for
     config.READ_PATIENCE_S, and when the engine loads its pages once more for as long, or longer
     where they come in the end (`_fast/patience.pxd`); whoever opens a device of his own says whether to wait
"""
import errno
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID, uuid4

import numpy as np
from numpy.typing import NDArray

from repstore import config, errors
from repstore._fast.checksum import crc32c
from repstore.format import BLOCK_SIZE, SEGMENT_EMPTY, SEGMENT_FREE, VOLUME_LEARNING, superblock_t
from repstore.store import geometry as layout
from repstore.store import recovery, superblock
from repstore.store import root as roots
from repstore.store.device import Device, FileDevice, lock_holder
from repstore.store.geometry import Geometry
from repstore.store.patience import Patience
from repstore.store.recovery import Recovery
from repstore.store.root import Root
from repstore.store.superblock import Superblock

UNFINISHED_SUFFIX = ".creating"
BOOT_BYTES = 12     # of a boot id: the kernel's. The rest may be drawn anew (B1)
INFO_TRIES = 3      # a live store may put its root elsewhere between two reads


@dataclass(frozen=True, slots=True, eq=False)
class OpenedStore:
    """Everything an engine needs to go on with a store. `device` holds its lock."""

    name: str
    device: Device
    geometry: Geometry
    superblock: Superblock
    superblock_block: bytes      # the block the quorum agreed on, naming the area of `root`
    lagging: tuple[int, ...]     # superblock copies that do not have it
    root: Root
    root_bytes: bytes
    boot_id: bytes               # what the store presents as its boot (B1, B2)
    closed_boot_id: bytes        # of the earlier boot in which it was closed cleanly (B3); none: empty
    life_id: int                 # of the life that begins now
    recovery: Recovery

    @property
    def batches(self) -> NDArray[np.void]:
        """Where the batches to replay lie, in order: (segment, offset_blocks)."""
        return self.recovery.batches

    @property
    def tainted(self) -> bool:
        """Whether acknowledged writes may be missing, for all the store itself tells (not B4)."""
        return self.recovery.tainted

    @property
    def descriptor(self) -> int:
        """The open file that carries lock and I/O; -1 for a store in memory."""
        return self.device.fd if isinstance(self.device, FileDevice) else -1

    def close(self) -> None:
        """Give back the device and its lock."""
        self.device.close()


@dataclass(frozen=True, slots=True)
class VolumeInfo:
    """A copy as the last checkpoint has it; the log may have gone on."""

    name: str
    uuid: str
    index: int
    size_bytes: int
    epoch: int
    last_lsn: int
    commit_lsn: int
    learning: bool


@dataclass(frozen=True, slots=True)
class StoreInfo:
    """What `repstore store info` shows."""

    path: str
    uuid: str
    format: str
    size_bytes: int
    segment_bytes: int
    segments: int
    free_segments: int
    capacity_bytes: int          # what the copies in it may fill
    live_bytes: int
    sequence: int
    superblock_copies: int
    clean: bool
    in_use_by: str
    volumes: tuple[VolumeInfo, ...]


def create(path: str | os.PathLike[str], size_bytes: int | None = None, *,
           segment_bytes: int | None = None, force: bool = False) -> StoreInfo:
    """Make a store in a new file of `size_bytes`, or on a block device (by default all of it).

    A file that has content is refused. So is a device that carries a store, unless `force`.
    """
    place = Path(path)
    if place.is_block_device():
        _create_on_device(place, size_bytes, segment_bytes, force)
    else:
        if size_bytes is None:
            raise errors.ConfigError(f"{place}: a store in a file needs a size")
        _create_file(place, config.StoreOptions(size_bytes, segment_bytes))
    return info(place)


def check_size(size_bytes: int, *, holds_bytes: int = 0) -> None:
    """Refuse a store size that `create` would refuse, or that cannot hold a volume of so much."""
    geometry = layout.choose(config.StoreOptions(size_bytes))
    if holds_bytes > geometry.capacity_bytes:
        raise errors.ConfigError(f"volume of {holds_bytes} bytes: a store of {size_bytes} bytes "
                                 f"can hold {geometry.capacity_bytes}")


def format_device(device: Device, geometry: Geometry, *, store_uuid: bytes, boot_id: bytes) -> None:
    """Put an empty, cleanly closed store on a device whose content is void."""
    root_bytes = roots.encode(roots.empty(geometry))
    device.write(geometry.root_start(0) * BLOCK_SIZE, root_bytes + bytes(-len(root_bytes) % BLOCK_SIZE))
    device.flush()
    superblock.write(device, Superblock(
        geometry=geometry, store_uuid=store_uuid, sequence=1, life_id=0, boot_id=boot_id, clean=True,
        root_area=0, root_bytes=len(root_bytes), root_crc=crc32c(root_bytes)))


def any_life(life_id: int) -> bool:
    """Of who remembers no life of the store."""
    return True


def open_store(path: str | os.PathLike[str], *, replicated: bool = False,
               knows_life: Callable[[int], bool] = any_life) -> OpenedStore:
    """Lock the store at `path` and decide what is in it. The caller closes what it gets.

    `replicated`: other copies can bring back what a damaged log lacks (see `recovery`, D2).
    `knows_life`: whether the life that the store had is the last one, for all its owner knows (B4).
    """
    device = FileDevice(Path(path))
    try:
        device.lock()
        life_id = int.from_bytes(os.urandom(8), "little") or 1
        return open_device(device, str(path), boot_id=kernel_boot_id(), life_id=life_id,
                           replicated=replicated, patience=Patience(config.READ_PATIENCE_S),
                           knows_life=knows_life)
    except BaseException:
        device.close()
        raise


def open_device(device: Device, name: str, *, boot_id: bytes, life_id: int,
                replicated: bool = False, patience: Patience | None = None,
                knows_life: Callable[[int], bool] = any_life) -> OpenedStore:
    """Like `open_store`, on any device; the two ids are the caller's. Waits only with `patience` (O5).

    A store presents the boot id that its superblock will carry:
      B1 in another boot than before, or where acknowledged writes may be missing, it is a new one, of this
         boot of the machine by its beginning: to the cluster that is as if the power had failed just now
      B2 as long as the machine runs it stays what it is: a process that dies loses nothing
      B3 closed cleanly in an earlier boot nothing of it is missing: it says which that was
      B4 a store with a life that its owner does not know is an older state that was put back, or another
         store: it lacks what came since, however it was closed
    """
    found, root_bytes, area = read_checkpoint(device, name, patience or Patience())
    superblock.check_writable(found.superblock, name)
    root = roots.decode(root_bytes, found.superblock.geometry, f"{name}: root")
    same_boot = is_same_boot(found.superblock, boot_id)
    decided = recovery.recover(device, found.superblock, root, same_boot=same_boot, name=name,
                               replicated=replicated, patience=patience)
    known = knows_life(found.superblock.life_id)
    closed_boot_id = found.superblock.boot_id if known and found.superblock.clean and not same_boot else b""
    if known and same_boot and not decided.tainted:
        boot_id = found.superblock.boot_id
    else:
        boot_id = boot_id[:BOOT_BYTES] + life_id.to_bytes(8, "little")[:len(boot_id) - BOOT_BYTES]
    return OpenedStore(name=name, device=device, geometry=found.superblock.geometry,
                       superblock=found.superblock, superblock_block=_with_area(found.block, area),
                       lagging=found.lagging, root=root,
                       root_bytes=root_bytes, boot_id=boot_id, closed_boot_id=closed_boot_id, life_id=life_id,
                       recovery=decided)


def read_checkpoint(device: Device, name: str, patience: Patience) -> tuple[superblock.Found, bytes, int]:
    """The superblock, the bytes of its root and the area they were found in. Of both there are copies:
    only where those that can be read do not do are the others waited for."""
    while True:
        try:
            found = superblock.read(device, name)
            root_bytes, area = roots.read_either(device, found.superblock, name)
        except errors.CorruptionError as error:
            if not isinstance(error.__cause__, OSError) or not patience.wait():
                raise
        else:
            return found, root_bytes, area


def info(path: str | os.PathLike[str]) -> StoreInfo:
    """What the store at `path` is and holds, as of its last checkpoint. Needs no lock."""
    device = FileDevice(Path(path), writable=False)
    try:
        found, root = _read_settled(device, str(path))
        return _describe(Path(path), found, root)
    finally:
        device.close()


def is_same_boot(state: Superblock, boot_id: bytes) -> bool:
    """Whether the machine of `boot_id` has run on since this state was written (B1): what was completed
    then must be there now, flushed or not."""
    return state.boot_id[:BOOT_BYTES] == boot_id[:BOOT_BYTES]


def kernel_boot_id() -> bytes:
    """The id of this boot of the machine: under another one, unflushed writes may be gone."""
    return UUID(Path("/proc/sys/kernel/random/boot_id").read_text().strip()).bytes


def _create_file(place: Path, options: config.StoreOptions) -> None:
    geometry = layout.choose(options)
    if not place.parent.is_dir():
        raise errors.NotFoundError(f"no directory {place.parent}")
    unfinished = place.with_name(place.name + UNFINISHED_SUFFIX)
    device = FileDevice(unfinished, create=True)
    try:
        device.lock()
        _check_still_ours(device)
        _refuse_content(place)
        _fill_with_zeros(device, options.size_bytes)
        format_device(device, geometry, store_uuid=uuid4().bytes, boot_id=kernel_boot_id())
        unfinished.rename(place)
        _flush_directory(place.parent)
    except errors.BusyError:
        raise       # the file is another creator's
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    finally:
        device.close()


def _refuse_content(place: Path) -> None:
    if place.exists() and (place.is_dir() or place.stat().st_size):
        raise errors.ExistsError(f"{place} exists and has {place.stat().st_size} bytes: not overwritten")


def _check_still_ours(device: FileDevice) -> None:
    """Another creator may have finished, and renamed this very file, before we locked it."""
    if not device.path.exists() or not os.path.samestat(device.path.stat(), os.fstat(device.fd)):
        raise errors.BusyError(f"{device.path}: another process has just created this store")


def _fill_with_zeros(device: FileDevice, size_bytes: int) -> None:
    try:
        os.ftruncate(device.fd, 0)
        os.posix_fallocate(device.fd, 0, size_bytes)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT):
            raise errors.NoSpaceError(
                f"{device.path}: no room for {size_bytes} bytes ({error.strerror})") from error
        raise
    zeros = bytes(config.ZERO_FILL_BYTES)
    for offset in range(0, size_bytes, len(zeros)):
        device.write(offset, zeros[:size_bytes - offset])
    device.flush()


def _flush_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _create_on_device(place: Path, size_bytes: int | None, segment_bytes: int | None, force: bool) -> None:
    device = FileDevice(place)
    try:
        device.lock()
        options = config.StoreOptions(size_bytes or device.size_bytes, segment_bytes)
        geometry = layout.choose(options)
        if options.size_bytes > device.size_bytes:
            raise errors.ConfigError(
                f"store size {options.size_bytes} bytes: {place} has {device.size_bytes}")
        if not force and _carries_store(device, str(place)):
            raise errors.ExistsError(f"{place} carries a store already: not overwritten without force")
        _wipe_superblocks(device)
        format_device(device, geometry, store_uuid=uuid4().bytes, boot_id=kernel_boot_id())
    finally:
        device.close()


def _carries_store(device: Device, name: str) -> bool:
    try:
        superblock.read(device, name)
    except errors.ConfigError:
        return False
    except (errors.CorruptionError, errors.FormatVersionError):
        return True
    return True


def _wipe_superblocks(device: Device) -> None:
    """An older store's copies, left between our segments, must never be found again (S5, S6)."""
    places = {position for geometry in layout.possible(device.size_bytes)
              for position in geometry.superblock_positions}
    for position in sorted(places.union(superblock.remains(device))):
        device.write(position * BLOCK_SIZE, bytes(BLOCK_SIZE))
    device.flush()


def _read_settled(device: Device, name: str, tries: int = INFO_TRIES) -> tuple[superblock.Found, Root]:
    """Superblock and root that belong together, although somebody may be writing them."""
    found = superblock.read(device, name)
    try:
        data, _ = roots.read_either(device, found.superblock, name)
        return found, roots.decode(data, found.superblock.geometry, f"{name}: root")
    except errors.CorruptionError:
        if tries == 1 or superblock.read(device, name).superblock == found.superblock:
            raise
        return _read_settled(device, name, tries - 1)


def _with_area(block: bytes, area: int) -> bytes:
    """A superblock that names the area where the root was found: the engine's first checkpoint
    goes to the other one, and must not overwrite the only good root."""
    changed = bytearray(block)
    np.frombuffer(changed, superblock_t, 1)["root_area"] = area
    return bytes(changed)


def _describe(path: Path, found: superblock.Found, root: Root) -> StoreInfo:
    state = found.superblock
    free = np.isin(root.segments["state"], (SEGMENT_FREE, SEGMENT_EMPTY))
    return StoreInfo(
        path=str(path), uuid=str(UUID(bytes=state.store_uuid)),
        format=f"{state.format_major}.{state.format_minor}", size_bytes=state.geometry.size_bytes,
        segment_bytes=state.geometry.segment_bytes, segments=state.geometry.segment_count,
        free_segments=int(free.sum()), capacity_bytes=state.geometry.capacity_bytes,
        live_bytes=int(root.segments["live"].sum(dtype=np.uint64)) * BLOCK_SIZE,
        sequence=state.sequence, superblock_copies=found.copies, clean=state.clean,
        in_use_by=lock_holder(path),
        volumes=tuple(VolumeInfo(
            name=volume.name, uuid=str(UUID(bytes=volume.entry["uuid"].tobytes())),
            index=int(volume.entry["index"]),
            size_bytes=int(volume.entry["size_blocks"]) * BLOCK_SIZE,
            epoch=int(volume.entry["epoch"]), last_lsn=int(volume.entry["last_lsn"]),
            commit_lsn=int(volume.entry["commit_lsn"]),
            learning=bool(volume.entry["flags"] & VOLUME_LEARNING)) for volume in root.volumes))
