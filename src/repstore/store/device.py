"""What a store lies on: a seam of five verbs, with a file or block device behind it, or memory.

1. Offsets and lengths are whole 4 KiB blocks: what O_DIRECT wants is asked of everybody.
2. A read gives all it was asked for or raises OSError; a device never answers zeros for
   what it could not read.
3. Only `flush` makes a write durable. A failed flush is not tried again.
4. The lock is taken on the open file that carries the I/O: after a kill it is held until
   the dead process's last write has landed, and a successor must not look before that.
"""
import errno
import fcntl
import logging
import mmap
import os
import stat
from pathlib import Path
from typing import Protocol

from repstore import errors
from repstore.format import BLOCK_SIZE

Bytes = bytes | bytearray | memoryview

LOG = logging.getLogger("repstore.store")


class Device(Protocol):
    """All that creating, opening and checking a store asks of the world."""

    @property
    def size_bytes(self) -> int:
        """Length, in whole blocks."""

    def read(self, offset: int, length: int) -> memoryview:
        """`length` bytes from `offset`, in memory aligned to a block."""

    def write(self, offset: int, data: Bytes) -> None:
        """All of `data` at `offset`; not durable yet."""

    def flush(self) -> None:
        """Everything written before is durable when this returns."""

    def close(self) -> None:
        """Give the device back, and with it its lock."""


class MemoryDevice:
    """A store in memory, for tests and the simulator. `image` is the whole of it."""

    def __init__(self, image: bytearray) -> None:
        if len(image) % BLOCK_SIZE:
            raise errors.ConfigError(f"image of {len(image)} bytes: must be a multiple of {BLOCK_SIZE}")
        self.image = image

    @property
    def size_bytes(self) -> int:
        return len(self.image)

    def read(self, offset: int, length: int) -> memoryview:
        _check_span(self.size_bytes, offset, length)
        # a copy: what was read must not change when the place is written again
        return memoryview(bytearray(memoryview(self.image)[offset:offset + length]))

    def write(self, offset: int, data: Bytes) -> None:
        _check_span(self.size_bytes, offset, len(data))
        self.image[offset:offset + len(data)] = data

    def flush(self) -> None:
        pass

    def close(self) -> None:
        pass


class FileDevice:
    """A file or block device, past the page cache where the file system allows it."""

    def __init__(self, path: Path, *, writable: bool = True, create: bool = False) -> None:
        flags = os.O_CLOEXEC | (os.O_RDWR if writable else os.O_RDONLY)
        if create:
            flags |= os.O_CREAT
        self.path = path
        _refuse_others(path)
        self.fd = _open_direct(path, flags)
        mode = os.fstat(self.fd).st_mode
        self.is_block_device = stat.S_ISBLK(mode)
        if not (self.is_block_device or stat.S_ISREG(mode)):
            os.close(self.fd)
            raise _neither(path)

    @property
    def size_bytes(self) -> int:
        # SEEK_END tells the size of a block device as well; an odd end belongs to no block
        return os.lseek(self.fd, 0, os.SEEK_END) // BLOCK_SIZE * BLOCK_SIZE

    def lock(self) -> None:
        """Take the store, or say who has it."""
        try:
            fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = lock_holder(self.path)
            by = f"process {holder}" if holder else "another process"
            raise errors.BusyError(f"{self.path} is in use by {by}") from None

    def read(self, offset: int, length: int) -> memoryview:
        _check_span(self.size_bytes, offset, length)
        room = memoryview(mmap.mmap(-1, length))
        done = 0
        while done < length:
            count = os.preadv(self.fd, [room[done:]], offset + done)
            if count == 0 or count % BLOCK_SIZE:
                raise OSError(errno.EIO, f"{count} bytes read at {offset + done}, {length - done} wanted",
                              str(self.path))
            done += count
        return room

    def write(self, offset: int, data: Bytes) -> None:
        _check_span(self.size_bytes, offset, len(data))
        aligned = memoryview(mmap.mmap(-1, len(data)))
        aligned[:] = data
        done = 0
        while done < len(data):
            count = os.pwritev(self.fd, [aligned[done:]], offset + done)
            if count == 0 or count % BLOCK_SIZE:
                raise OSError(errno.EIO, f"{count} bytes written at {offset + done}", str(self.path))
            done += count

    def flush(self) -> None:
        os.fsync(self.fd)

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def lock_holder(path: Path) -> str:
    """Number and name of the process that has locked `path`; empty if nobody or not known."""
    status = path.stat()
    inode = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    try:
        locks = Path("/proc/locks").read_text().splitlines()
    except OSError:
        return ""
    for fields in map(str.split, locks):
        if "FLOCK" in fields and inode in fields:
            number = fields[fields.index(inode) - 1]
            try:
                return f"{number} ({Path('/proc', number, 'comm').read_text().strip()})"
            except OSError:
                return number
    return ""


def _refuse_others(path: Path) -> None:
    """Before it is opened: of a pipe that would wait for whoever writes into it, and of a directory say first
    that it has no O_DIRECT."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return                                   # opening it says what is wrong
    if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
        raise _neither(path)


def _neither(path: Path) -> errors.ConfigError:
    return errors.ConfigError(f"{path} is neither a file nor a block device")


def _open_direct(path: Path, flags: int) -> int:
    try:
        return os.open(path, flags | os.O_DIRECT, 0o600)
    except FileNotFoundError:
        raise errors.NotFoundError(f"no store at {path}") from None
    except OSError as error:
        if error.errno != errno.EINVAL:
            reason = f"{path} cannot be opened: {error.strerror}"
            raise errors.ConfigError(reason, errno=error.errno) from error
    LOG.warning("%s: no O_DIRECT here, the page cache is used", path)
    return os.open(path, flags, 0o600)


def _check_span(size_bytes: int, offset: int, length: int) -> None:
    if offset % BLOCK_SIZE or length % BLOCK_SIZE or length <= 0:
        raise errors.OutOfRangeError(f"{length} bytes at {offset}: not whole blocks of {BLOCK_SIZE}")
    if not 0 <= offset <= size_bytes - length:
        raise errors.OutOfRangeError(f"{length} bytes at {offset}: the device has {size_bytes}")
