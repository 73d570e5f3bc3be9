"""Real block clients on a volume of three copies: written through one node, read through another.

Each is skipped only where its program, or what the kernel must have for it, is missing.
"""
from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.harness import MIB, ClusterHarness, Shape, wait_until

TIMEOUT_S = 180
SIZE = 88 * MIB

pytestmark = [pytest.mark.client, pytest.mark.slow]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterHarness]:
    with ClusterHarness(tmp_path_factory.mktemp("clients"), Shape(volume_bytes=SIZE)) as cluster:
        cluster.start()
        cluster.wait_in_sync()
        yield cluster
        assert not cluster.crashed()
        cluster.stop()
        contents = cluster.copies_content()
        assert len(set(contents.values())) == 1, "the copies differ"


@pytest.fixture
def here(cluster: ClusterHarness) -> str:
    """The volume through a node that leads it not."""
    return cluster.uri(next(name for name in cluster.names if name != cluster.primary()))


@pytest.fixture
def there(cluster: ClusterHarness) -> str:
    """The volume through another node."""
    return cluster.uri(cluster.primary())


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """Data, zeros and a hole, not in whole blocks, so that every way to copy is taken."""
    path = tmp_path / "image"
    path.write_bytes(os.urandom(19 * MIB) + bytes(3 * MIB) + os.urandom(5 * MIB + 512))
    os.truncate(path, SIZE)
    return path


def need(*programs: str) -> None:
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")


def run(*command: object, directory: Path | None = None) -> str:
    need(str(command[0]))
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True,
                          timeout=TIMEOUT_S, check=False, cwd=directory)
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


def qemu_io(uri: str, *commands: str) -> None:
    told = run("qemu-io", "-f", "raw", *(word for command in commands for word in ("-c", command)), uri)
    assert "failed" not in told, told
    assert "error" not in told.lower(), told


def test_fio_verifies_what_it_wrote(here: str, there: str, tmp_path: Path) -> None:
    job = ("fio", "--name=verify", "--ioengine=nbd", "--rw=randwrite", "--bs=4k", "--iodepth=32",
           "--size=32M", "--verify=crc32c", "--randseed=1")
    run(*job, f"--uri={here}", "--verify_backlog=1024", directory=tmp_path)
    run(*job, f"--uri={here}", "--fsync=32", "--do_verify=0", directory=tmp_path)
    run(*job, f"--uri={there}", "--verify_only", directory=tmp_path)


def test_nbdcopy_in_and_out(here: str, there: str, image: Path, tmp_path: Path) -> None:
    run("nbdcopy", "--flush", image, here)
    run("nbdcopy", there, tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == image.read_bytes()


def test_qemu_img_convert_and_compare(here: str, there: str, image: Path) -> None:
    run("qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", image, here)
    run("qemu-img", "compare", "-f", "raw", "-F", "raw", image, there)
    assert json.loads(run("qemu-img", "info", "--output=json", here))["virtual-size"] == SIZE


def test_qemu_io_patterns_also_unaligned(here: str, there: str) -> None:
    qemu_io(here, "write -P 17 0 1M", "write -P 18 4097 3", "write -P 21 511 2", "read -P 17 0 511",
            "write -f -P 19 2M 4k", "write -z -u 64k 64k", "discard 128k 64k",
            "write -P 20 8M 16M", "write -P 7 40M 64k", "write -z 41943552 9k",
            "write -P 22 8191k 2k", "write -z 9M 100k", "flush")
    qemu_io(there, "read -P 7 40M 512", "read -P 0 41943552 9k", "read -P 7 41952768 54k",
            "read -P 21 511 2", "read -P 17 513 3584", "read -P 18 4097 3", "read -P 17 4100 61436",
            "read -P 0 64k 128k", "read -P 17 192k 832k", "read -P 19 2M 4k", "read -P 22 8191k 2k",
            "read -P 20 8193k 1023k", "read -P 0 9M 100k", "read -P 20 9316k 14M")


def test_nbdinfo_map(here: str, there: str) -> None:
    qemu_io(here, "discard 0 88M", "write -P 1 1M 64k", "write -z 2M 64k", "flush")
    extents = json.loads(run("nbdinfo", "--map", "--json", there))
    found = {each["offset"]: (each["length"], each["type"]) for each in extents}
    assert found[0] == (MIB, 3), "a hole that reads as zeros"
    assert found[MIB] == (65536, 0), "data"
    assert sum(length for length, _ in found.values()) == SIZE
    exports = json.loads(run("nbdinfo", "--json", there))["exports"]
    assert exports[0]["export-size"] == SIZE
    assert exports[0]["contexts"] == ["base:allocation"]


def test_a_file_system_over_fuse_and_a_loop_device(here: str, there: str, tmp_path: Path) -> None:
    need("nbdfuse", "fusermount3", "losetup", "mkfs.ext4", "e2fsck")
    if os.geteuid() != 0:
        pytest.skip("a loop device needs root")
    if not os.path.exists("/dev/fuse"):
        pytest.skip("no /dev/fuse here")
    files = {f"file{number}": os.urandom(100_000 + number) for number in range(40)}
    with fuse_file(here, tmp_path / "here") as file, loop_device(file) as device:
        run("mkfs.ext4", "-q", "-F", device)
        with mounted(device, tmp_path / "root") as root:
            for name, data in files.items():
                (root / name).write_bytes(data)
            for name in list(files)[::3]:
                (root / name).unlink()
                del files[name]
    with fuse_file(there, tmp_path / "there") as file:
        run("e2fsck", "-fn", file)
        with loop_device(file) as device, mounted(device, tmp_path / "root") as root:
            assert {path.name: path.read_bytes() for path in root.iterdir() if path.is_file()} == files


@contextlib.contextmanager
def fuse_file(uri: str, directory: Path) -> Iterator[Path]:
    """The volume as a file."""
    directory.mkdir()
    process = subprocess.Popen(["nbdfuse", str(directory), uri], stderr=subprocess.PIPE)
    try:
        wait_until(lambda: (directory / "nbd").exists() or process.poll() is not None, "nbdfuse is ready")
        if process.poll() is not None:
            assert process.stderr is not None
            pytest.skip(f"nbdfuse cannot mount here: {process.stderr.read().decode().strip()}")
        yield directory / "nbd"
    finally:
        if process.poll() is None:
            run("fusermount3", "-u", directory)
        process.wait(TIMEOUT_S)
        assert process.stderr is not None
        process.stderr.close()


@contextlib.contextmanager
def loop_device(file: Path) -> Iterator[str]:
    """The file as a block device."""
    made = subprocess.run(["losetup", "--find", "--show", str(file)], capture_output=True, text=True,
                          check=False)
    if made.returncode:
        pytest.skip(f"no loop device here: {made.stderr.strip()}")
    try:
        yield made.stdout.strip()
    finally:
        run("losetup", "--detach", made.stdout.strip())


@contextlib.contextmanager
def mounted(device: str, directory: Path) -> Iterator[Path]:
    """A file system at `directory`."""
    directory.mkdir(exist_ok=True)
    made = subprocess.run(["mount", device, str(directory)], capture_output=True, text=True, check=False)
    if made.returncode:
        pytest.skip(f"nothing can be mounted here: {made.stderr.strip()}")
    try:
        yield directory
    finally:
        run("umount", directory)
