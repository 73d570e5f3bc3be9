"""Proof of death: only what the kernel says, never a guess."""
import fcntl
import os
import resource
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
from msgspec.structs import replace

from repstore.node.process import is_gone, this_process
from repstore.replication.volume_config import NodeConfig


def me(store_path: str = "/nowhere") -> NodeConfig:
    return NodeConfig(name="n", id=0, store_path=store_path, store_uuid="d",
                      **asdict(this_process()))


def test_we_are_alive() -> None:
    assert not is_gone(me())


def test_a_pid_used_again_is_another_process() -> None:
    assert is_gone(replace(me(), pid_started=me().pid_started - 1))


def test_a_killed_child_is_gone_even_before_it_is_waited_for() -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; print(flush=True); time.sleep(60)"],
                             stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()
    started = int(Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[19])
    record = replace(me(), pid=child.pid, pid_started=started)
    assert not is_gone(record)
    child.kill()
    child.stdout.read()                       # its end of the pipe closes when it dies
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert is_gone(record)
    child.wait()
    child.stdout.close()
    assert is_gone(record)


def test_a_clean_stop_is_told() -> None:
    assert is_gone(replace(me(), pid=0))


def test_another_machine_proves_nothing() -> None:
    assert not is_gone(replace(me(), host_boot_id="another", pid_started=1))


def test_another_pid_namespace_is_judged_by_the_lock_of_the_store(tmp_path: Path) -> None:
    path = tmp_path / "store"
    path.write_bytes(b"")
    record = replace(me(str(path)), pid_namespace="pid:[1]", pid_started=1)
    with path.open("rb") as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)
        assert not is_gone(record)
    assert is_gone(record)
    path.unlink()
    assert not is_gone(record)


@pytest.mark.fault("process: no file can be opened any more", promise="nobody is called dead for it")
@pytest.mark.parametrize("pid_namespace", [this_process().pid_namespace, "pid:[1]"])
def test_what_cannot_be_looked_at_proves_nothing(tmp_path: Path, pid_namespace: str) -> None:
    path = tmp_path / "store"
    path.write_bytes(b"")
    record = replace(me(str(path)), pid_namespace=pid_namespace, pid_started=1)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert is_gone(record)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
    try:
        assert not is_gone(record)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
