"""Devices: whole reads or an error, and one owner at a time."""
import os
import subprocess
import sys
from pathlib import Path

import pytest

from repstore import errors
from repstore.format import BLOCK_SIZE
from repstore.store.device import Device, FileDevice, MemoryDevice, lock_holder

SIZE_BYTES = 16 * BLOCK_SIZE


@pytest.fixture(params=["file", "memory"])
def device(request: pytest.FixtureRequest, tmp_path: Path) -> Device:
    if request.param == "memory":
        return MemoryDevice(bytearray(SIZE_BYTES))
    (tmp_path / "store").write_bytes(bytes(SIZE_BYTES))
    return FileDevice(tmp_path / "store")


def test_what_is_written_is_read(device: Device) -> None:
    data = os.urandom(2 * BLOCK_SIZE)
    device.write(3 * BLOCK_SIZE, data)
    device.flush()
    assert device.size_bytes == SIZE_BYTES
    assert bytes(device.read(2 * BLOCK_SIZE, 4 * BLOCK_SIZE)) == bytes(BLOCK_SIZE) + data + bytes(BLOCK_SIZE)
    before = device.read(3 * BLOCK_SIZE, BLOCK_SIZE)
    device.write(3 * BLOCK_SIZE, bytes(BLOCK_SIZE))
    assert bytes(before) == data[:BLOCK_SIZE], "what was read changed with the device"
    device.close()


@pytest.mark.parametrize(("offset", "length"), [
    (0, 0), (0, -BLOCK_SIZE), (0, 100), (100, BLOCK_SIZE), (-BLOCK_SIZE, BLOCK_SIZE),
    (SIZE_BYTES, BLOCK_SIZE), (0, SIZE_BYTES + BLOCK_SIZE)])
def test_what_is_not_on_the_device_is_refused(device: Device, offset: int, length: int) -> None:
    with pytest.raises(errors.OutOfRangeError, match=f"{length} bytes at {offset}"):
        device.read(offset, length)
    if length > 0:
        with pytest.raises(errors.OutOfRangeError, match=f"{length} bytes at {offset}"):
            device.write(offset, bytes(length))


def test_a_second_owner_is_told_who_is_the_first(tmp_path: Path) -> None:
    path = tmp_path / "store"
    path.write_bytes(bytes(SIZE_BYTES))
    assert lock_holder(path) == ""
    first = FileDevice(path)
    first.lock()
    second = FileDevice(path)
    with pytest.raises(errors.BusyError, match=f"{path} is in use by process {os.getpid()} "):
        second.lock()
    first.close()
    second.lock()
    second.close()


def test_the_lock_ends_with_the_process(tmp_path: Path) -> None:
    path = tmp_path / "store"
    path.write_bytes(bytes(SIZE_BYTES))
    program = ("import sys; from pathlib import Path; from repstore.store.device import FileDevice\n"
               "device = FileDevice(Path(sys.argv[1])); device.lock(); print('locked', flush=True)\n"
               "sys.stdin.read()")
    with subprocess.Popen([sys.executable, "-c", program, str(path)], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "locked\n"
        device = FileDevice(path)
        with pytest.raises(errors.BusyError, match=f"process {owner.pid} "):
            device.lock()
        owner.kill()
        owner.wait()
        device.lock()
        device.close()


def test_what_is_no_file_is_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(errors.NotFoundError, match="no store at"):
        FileDevice(tmp_path / "absent")
    (tmp_path / "file").touch()
    with pytest.raises(errors.ConfigError, match="cannot be opened: Not a directory"):
        FileDevice(tmp_path / "file" / "store")
    for path in (tmp_path, Path("/dev/null")):
        for writable in (False, True):
            with pytest.raises(errors.ConfigError, match="neither a file nor a block device"):
                FileDevice(path, writable=writable)
    assert caplog.messages == []                 # that a directory has no O_DIRECT is no news
    os.mkfifo(tmp_path / "pipe")
    for writable in (False, True):               # nobody waits for the other end
        with pytest.raises(errors.ConfigError, match="pipe is neither a file nor a block device"):
            FileDevice(tmp_path / "pipe", writable=writable)
    with pytest.raises(errors.ConfigError, match="image of 100 bytes: must be a multiple of 4096"):
        MemoryDevice(bytearray(100))


def test_a_ragged_end_is_no_block(tmp_path: Path) -> None:
    (tmp_path / "store").write_bytes(bytes(SIZE_BYTES + 100))
    device = FileDevice(tmp_path / "store")
    assert device.size_bytes == SIZE_BYTES
    device.close()
