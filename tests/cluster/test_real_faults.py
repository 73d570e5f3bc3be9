"""Two minutes of faults of real processes; and the cutting proxy, which must do what it says.

REPSTORE_REAL_SEED and REPSTORE_REAL_SECONDS change what is run. `python -m tests.cluster.soak_real`
runs for as long as asked for.
"""
import os
import socket
from pathlib import Path

import pytest

from tests.cluster import soak_real
from tests.cluster.cutting_proxy import BEHIND, CuttingProxy

SECONDS = float(os.environ.get("REPSTORE_REAL_SECONDS", "120"))
SEED = int(os.environ.get("REPSTORE_REAL_SEED", "1"))


@pytest.mark.slow
@pytest.mark.fault("crash: kill -9 of real nodes, of all at once too, among other faults",
                   promise="what clients were told is consistent; healed, all copies are in sync and equal")
@pytest.mark.fault("process: real nodes stopped and woken up, the primary too, with its Python held",
                   promise="what clients were told is consistent; healed, all copies are in sync and equal")
@pytest.mark.fault("network: real connections held back or cut, both ways or one, or all of the primary's",
                   promise="what clients were told is consistent; healed, all copies are in sync and equal")
@pytest.mark.fault("space: stores fill up under load, and their file system where one can be mounted",
                   promise="what clients were told is consistent; a trim makes room again")
def test_no_sequence_of_faults_breaks_what_clients_were_told() -> None:
    outcome = soak_real.run(SEED, SECONDS)
    print(outcome)
    assert outcome.faults.total() >= SECONDS / 15
    assert SECONDS < 120 or outcome.missing == ()      # what the marks say was done
    assert outcome.written > 100
    assert outcome.verdict.reads_checked > outcome.verdict.undecided_reads


def test_a_blocked_direction_holds_bytes_back_and_the_other_does_not(tmp_path: Path) -> None:
    address = str(tmp_path / "b.sock")
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as dialler:
        listener.bind(address + BEHIND)
        listener.listen()
        listener.settimeout(10)
        proxy = CuttingProxy({"b": address}, lambda pid: "a" if pid == os.getpid() else None)
        try:
            dialler.connect(address)
            inside, _ = listener.accept()
            with inside:
                for end in (dialler, inside):
                    end.settimeout(10)
                proxy.block("a", "b")
                dialler.sendall(b"late")
                inside.sendall(b"at once")
                assert dialler.recv(64) == b"at once"
                inside.settimeout(0.05)
                with pytest.raises(TimeoutError):
                    inside.recv(64)
                inside.settimeout(10)
                proxy.open("a", "b")
                assert inside.recv(64) == b"late"
                proxy.cut("b", "a")
                assert dialler.recv(64) == inside.recv(64) == b""
        finally:
            proxy.close()
