"""The other side of each comparison: fio, qemu-nbd, and a writer of our own in C.

  R1 Files are written through once before anything is timed, with data that cannot be
     compressed, and read or written with O_DIRECT from then on.
  R2 A file that is read is read once from end to end right before its row, on both sides: a
     virtual disk is several times faster where its host has the data cached.
  R3 Every process started here is ended here.
"""
from __future__ import annotations

import contextlib
import json
import mmap
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.ratios import BenchError

CHUNK_BYTES = 1 << 20
START_TIMEOUT_S = 20.0
RUN_TIMEOUT_S = 120.0
SOURCE = Path(__file__).with_name("inplace.c")
PACKAGES = {"fio": "fio", "qemu-nbd": "qemu-utils", "gcc": "gcc"}


def need(program: str) -> str:
    """Where a program is; BenchError says how to get it."""
    path = shutil.which(program)
    if path is None:
        raise BenchError(f"{program} is not installed (Debian: apt-get install {PACKAGES[program]})")
    return path


@dataclass(frozen=True, slots=True)
class Fio:
    """One fio job on a file or an NBD export; the same job whoever serves it."""
    target: Path | str           # a file, or nbd+unix:///EXPORT?socket=PATH
    rw: str                      # fio's word: randread, randwrite, write
    work: Path
    options: tuple[str, ...] = ()
    block: str = "4k"
    depth: int = 32

    def __call__(self, seconds: float) -> float:
        """IOPS of a run."""
        job = self.run("--time_based", f"--runtime={round(seconds * 1000)}ms")
        return float(job["read"]["iops"]) + float(job["write"]["iops"])

    def run(self, *options: str) -> dict[str, dict[str, float]]:
        """One job to its end; fio's own account of it."""
        output = self.work / "fio.json"
        target = (["--ioengine=nbd", f"--uri={self.target}"] if isinstance(self.target, str) else
                  ["--ioengine=io_uring", "--direct=1", f"--filename={self.target}"])
        try:
            done = subprocess.run(
                [need("fio"), "--name=bench", *target, f"--rw={self.rw}", f"--bs={self.block}",
                 f"--iodepth={self.depth}", "--norandommap", "--randrepeat=0", "--output-format=json",
                 f"--output={output}", *self.options, *options],
                cwd=self.work, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
                timeout=RUN_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            raise BenchError(f"fio {self.rw} on {self.target}: not done in {RUN_TIMEOUT_S:.0f} s") from None
        if done.returncode != 0:
            raise BenchError(f"fio {self.rw} on {self.target} ended with {done.returncode}: "
                             f"{(done.stderr + done.stdout).strip()[-500:]}")
        text = output.read_text()
        job: dict[str, dict[str, float]] = json.loads(text[text.index("{"):])["jobs"][0]
        return job


@dataclass(frozen=True, slots=True)
class InPlace:
    """The writer of inplace.c, compiled where the run works."""
    program: Path
    target: Path
    depth: int
    writes_per_flush: int
    manner: str = "stream"

    def __call__(self, seconds: float) -> float:
        """Writes a second, with their flushes."""
        done = subprocess.run(
            [self.program, self.target, str(self.target.stat().st_size), str(seconds),
             str(self.depth), str(self.writes_per_flush), self.manner],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=RUN_TIMEOUT_S)
        if done.returncode != 0:
            raise BenchError(f"the in-place writer ended with {done.returncode}: {done.stderr.strip()}")
        writes, _, nanoseconds = map(int, done.stdout.split())
        return writes / nanoseconds * 1e9


def compile_in_place(work: Path) -> Path:
    """The program of inplace.c."""
    program = work / "inplace"
    done = subprocess.run([need("gcc"), "-O2", "-o", program, SOURCE, "-luring"],
                          capture_output=True, text=True, check=False, timeout=RUN_TIMEOUT_S)
    if done.returncode != 0:
        raise BenchError(f"inplace.c does not compile (is liburing-dev there?): {done.stderr.strip()[-500:]}")
    return program


def raw_file(path: Path, size_bytes: int) -> Path:
    """A file whose every block was written (R1)."""
    chunk = mmap.mmap(-1, CHUNK_BYTES)
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_DIRECT | os.O_CLOEXEC)
    try:
        os.posix_fallocate(descriptor, 0, size_bytes)
        for offset in range(0, size_bytes, CHUNK_BYTES):
            chunk[:] = os.urandom(CHUNK_BYTES)
            os.pwrite(descriptor, memoryview(chunk)[:size_bytes - offset], offset)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return path


def warm(path: Path) -> None:
    """Read a file from end to end past our own cache (R2)."""
    chunk = mmap.mmap(-1, CHUNK_BYTES)
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECT | os.O_CLOEXEC)
    try:
        for offset in range(0, os.fstat(descriptor).st_size, CHUNK_BYTES):
            os.preadv(descriptor, [chunk], offset)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def qemu_nbd(image: Path, socket_path: Path) -> Iterator[tuple[str, int]]:
    """A raw image served by qemu-nbd with O_DIRECT; its URI and its process id."""
    process = subprocess.Popen(
        [need("qemu-nbd"), f"--socket={socket_path}", "--format=raw", "--cache=none", "--aio=native",
         "--persistent", "--shared=4", "--export-name=raw", str(image)],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _await_socket(socket_path, process)
        yield f"nbd+unix:///raw?socket={socket_path}", process.pid
    finally:
        process.terminate()
        process.wait()


def _await_socket(path: Path, process: subprocess.Popen[bytes]) -> None:
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline_s and process.poll() is None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe, contextlib.suppress(OSError):
            probe.connect(str(path))
            return
        time.sleep(0.01)
    raise BenchError(f"qemu-nbd does not serve {path}")
