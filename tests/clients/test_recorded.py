"""Real block clients through the recording proxy, on a volume of three copies."""
from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from repstore.check.history import Verdict, check_file
from tests.clients.test_clients import qemu_io, run
from tests.cluster.harness import MIB, VOLUME, ClusterHarness, Shape

pytestmark = [pytest.mark.client, pytest.mark.slow]
SIZE = 88 * MIB
WAIT_S = 60.0


class Recording:
    """The proxy in front of one node."""

    def __init__(self, directory: Path, cluster: ClusterHarness) -> None:
        self._history = directory / "history"
        path = directory / "in"
        self.uri = f"nbd+unix:///{VOLUME}?socket={path}"
        self._process = subprocess.Popen(
            [sys.executable, "-m", "repstore.cli", "check", "record", str(self._history), "--json", "--fresh",
             "--block-size", "512", "--server", cluster.uri(cluster.names[0]), "--listen", str(path)],
            stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        assert self._process.stdout.readline()

    def verdict(self) -> Verdict:
        """Once the recording has ended."""
        self.end()
        return check_file(self._history)

    def end(self) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        self._process.communicate(timeout=WAIT_S)


@pytest.fixture
def recording(tmp_path: Path) -> Iterator[Recording]:
    with ClusterHarness(tmp_path / "cluster", Shape(volume_bytes=SIZE)) as cluster:
        cluster.start()
        cluster.wait_in_sync()
        recording = Recording(tmp_path, cluster)
        yield recording
        recording.end()
        assert not cluster.crashed()
        cluster.stop()


def test_fio_qemu_and_nbdcopy_are_recorded_and_consistent(recording: Recording, tmp_path: Path) -> None:
    run("fio", "--name=verify", "--ioengine=nbd", "--rw=randrw", "--bs=4k", "--iodepth=32", "--size=8M",
        "--verify=crc32c", "--verify_backlog=256", "--fsync=32", f"--uri={recording.uri}", directory=tmp_path)
    qemu_io(recording.uri, "write -P 17 0 1M", "write -P 18 4097 3", "write -P 19 8704 512",
            "read -P 19 8704 512", "discard 128k 64k", "read -P 0 128k 64k", "write -z 1M 100k", "flush",
            "read 4096 8192")
    image = tmp_path / "image"
    image.write_bytes(os.urandom(5 * MIB) + bytes(MIB) + os.urandom(MIB + 512))
    os.truncate(image, SIZE)
    run("nbdcopy", "--connections=4", "--flush", image, recording.uri)
    run("nbdcopy", "--connections=4", recording.uri, tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == image.read_bytes()
    verdict = recording.verdict()
    assert verdict.consistent, verdict.contradiction
    assert verdict.reads_checked > 7 * MIB // 512
    assert verdict.undecided_reads < verdict.reads_checked / 100
