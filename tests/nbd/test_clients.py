"""Real block clients, each against the fake engine over a unix socket."""
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from repstore_nbd import frontend

from tests.nbd._fake_engine import FakeEngine
from tests.nbd.server import Server

SIZE = 32 << 20
TIMEOUT_S = 60

pytestmark = pytest.mark.client


@pytest.fixture(params=["inline", "deferred"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    """An export behind a socket; afterwards nothing may be left in the engine."""
    engine = FakeEngine(frontend, SIZE, requests=48, inline=request.param == "inline")
    with Server(engine, tmp_path / "nbd.sock") as running:
        yield running
    assert engine.violations == []
    assert engine.requests_in_use == 0
    assert engine.export_users == 0


def run(*command: object) -> str:
    program = str(command[0])
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True,
                          timeout=TIMEOUT_S, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def image(path: Path) -> bytes:
    """Data, zeros and a hole, so that every way to copy is taken."""
    data = os.urandom(9 << 20) + bytes(3 << 20) + os.urandom((5 << 20) + 512)
    path.write_bytes(data)
    os.truncate(path, SIZE)
    return data + bytes(SIZE - len(data))


def test_nbdinfo(server: Server) -> None:
    told = json.loads(run("nbdinfo", "--json", server.uri))
    export = told["exports"][0]
    assert told["protocol"] == "newstyle-fixed"
    assert told["structured"] is True
    assert (export["export-size"], export["block_size_minimum"]) == (SIZE, 1)
    assert (export["block_size_preferred"], export["block_size_maximum"]) == (4096, 32 << 20)
    assert export["contexts"] == ["base:allocation"]
    assert all(export[name] for name in (
        "can_flush", "can_fua", "can_trim", "can_zero", "can_df", "can_multi_conn"))
    assert not export["can_fast_zero"]
    assert "demo" in run("nbdinfo", "--list", f"nbd+unix://?socket={server.path}")


def test_nbdinfo_map(server: Server) -> None:
    run("qemu-io", "-f", "raw", "-c", "write -P 1 1M 64k", server.uri)
    extents = json.loads(run("nbdinfo", "--map", "--json", server.uri))
    assert [(each["offset"], each["length"], each["type"]) for each in extents] == [
        (0, 1 << 20, 3), (1 << 20, 65536, 0), ((1 << 20) + 65536, SIZE - (1 << 20) - 65536, 3)]


def test_nbdcopy_in_and_out(server: Server, tmp_path: Path) -> None:
    data = image(tmp_path / "in")
    run("nbdcopy", "--flush", tmp_path / "in", server.uri)
    assert bytes(server.engine.disk) == data
    run("nbdcopy", server.uri, tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == data


def test_qemu_img_convert_and_compare(server: Server, tmp_path: Path) -> None:
    image(tmp_path / "in")
    run("qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", tmp_path / "in", server.uri)
    run("qemu-img", "compare", "-f", "raw", "-F", "raw", tmp_path / "in", server.uri)
    assert json.loads(run("qemu-img", "info", "--output=json", server.uri))["virtual-size"] == SIZE


def test_qemu_io_patterns(server: Server) -> None:
    commands = [
        "write -P 17 0 1M", "write -P 18 4097 3", "read -P 17 0 4097", "read -P 18 4097 3",
        "read -P 17 4100 100k", "write -f -P 19 2M 4k", "write -z -u 64k 64k", "read -P 0 64k 64k",
        "discard 128k 64k", "read -P 0 128k 64k", "write -P 20 8M 16M", "read -P 20 8M 16M", "flush"]
    words = [word for command in commands for word in ("-c", command)]
    told = run("qemu-io", "-f", "raw", *words, server.uri)
    assert "failed" not in told
    assert "error" not in told


def test_fio_verifies_what_it_wrote(server: Server) -> None:
    run("fio", "--name=verify", "--ioengine=nbd", f"--uri={server.uri}", "--rw=randwrite", "--bs=4k",
        "--iodepth=32", "--size=4M", "--verify=crc32c", "--fsync=32", "--randseed=1")
