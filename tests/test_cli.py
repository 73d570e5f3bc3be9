"""The command, as a program is: processes, exit codes, one line of JSON, one line of complaint."""
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import repstore
from repstore import config
from repstore.cli import app, options
from repstore.node.directory import ClusterDirectory

WAIT_S = 60.0
COMMAND = [sys.executable, "-m", "repstore.cli"]
SIZE_BYTES = 8 * config.MIB


def run(*arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    """One command to its end, which must be `code`."""
    done = subprocess.run([*COMMAND, *map(str, arguments)], capture_output=True, text=True, timeout=WAIT_S)
    assert done.returncode == code, (arguments, done.stdout, done.stderr)
    return done


def read_json(*arguments: object, code: int = 0) -> Any:
    return json.loads(run(*arguments, "--json", code=code).stdout)


def eventually(condition: Callable[[], Any], what: str) -> Any:
    """What `condition` gives as soon as that is true."""
    give_up = time.monotonic() + WAIT_S
    pause = threading.Event()
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < give_up, f"not within {WAIT_S} s: {what}"
        pause.wait(0.02)


class Up:
    """A running `repstore up`."""

    def __init__(self, directory: Path, *arguments: object) -> None:
        self.directory = directory
        self.process = subprocess.Popen(
            [*COMMAND, "up", "--data", str(directory), "--json", *map(str, arguments)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise AssertionError(f"up ended: {self.process.communicate()}")
        self.ready: dict[str, Any] = json.loads(line)

    def pid(self, name: str) -> int:
        return next(int(node["pid"]) for node in self.ready["nodes"] if node["name"] == name)

    def stop(self, number: int = signal.SIGTERM) -> str:
        """Its last words; it must end with exit code 0."""
        self.process.send_signal(number)
        _, said = self.process.communicate(timeout=WAIT_S)
        assert self.process.returncode == 0, said
        return said

    def end(self) -> None:
        """Whatever still runs of it."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()
        with contextlib.suppress(repstore.RepstoreError), repstore.Cluster(self.directory) as cluster:
            for node in cluster.status().nodes:
                if node.pid:
                    os.kill(node.pid, signal.SIGKILL)


@contextlib.contextmanager
def up(directory: Path, *arguments: object) -> Iterator[Up]:
    running = Up(directory, *arguments)
    try:
        yield running
    finally:
        running.end()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """Three nodes that serve volume demo: tests that only look, and make volumes of their own."""
    with up(tmp_path_factory.mktemp("cluster") / "data", "--size", "8MiB") as running:
        yield running


def status(directory: Path) -> dict[str, Any]:
    done = subprocess.run([*COMMAND, "status", "--data", str(directory), "--json"], capture_output=True,
                          text=True, timeout=WAIT_S, check=False)
    found: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == {"healthy": 0, "degraded": 1, "faulted": 2}[found["health"]]
    return found


def is_healthy(directory: Path) -> bool:
    return bool(status(directory)["health"] == "healthy")


# --------------------------------------------------------------------------------- a cluster

def test_up_tells_what_it_serves_in_one_line(cluster: Up) -> None:
    ready = cluster.ready
    assert (ready["volume"], ready["size_bytes"]) == ("demo", SIZE_BYTES)
    assert [node["name"] for node in ready["nodes"]] == ["n1", "n2", "n3"]
    assert ready["primary"] in ("n1", "n2", "n3")
    for node in ready["nodes"]:
        os.kill(node["pid"], 0)
        socket_path = node["nbd"].removeprefix("nbd+unix:///demo?socket=")
        assert Path(socket_path).is_socket()


def test_status_tells_copies_roles_epochs_and_pids(cluster: Up) -> None:
    eventually(lambda: is_healthy(cluster.directory), "healthy")
    found = status(cluster.directory)
    demo = next(volume for volume in found["volumes"] if volume["name"] == "demo")
    assert demo["epoch"] >= 1
    assert (demo["health"], demo["reason"]) == ("healthy", "")
    assert (demo["copies_wanted"], demo["min_copies"]) == (3, 2)
    roles = {copy["node"]: copy["role"] for copy in demo["copies"]}
    assert sorted(roles.values()) == ["primary", "replica", "replica"]
    assert roles[demo["primary"]] == "primary"
    assert all(copy["in_sync"] and copy["last_lsn"] >= copy["commit_lsn"] for copy in demo["copies"])
    assert {node["name"]: node["pid"] for node in found["nodes"]} == \
        {node["name"]: node["pid"] for node in cluster.ready["nodes"]}
    table = run("status", "--data", cluster.directory).stdout
    assert f"cluster {cluster.directory}: healthy" in table
    assert "resync" in table


def test_a_live_directory_is_refused_naming_the_process(cluster: Up) -> None:
    said = run("up", "--data", cluster.directory, "--size", "8MiB", code=1).stderr
    assert said == f"repstore: {cluster.directory}: `repstore up` runs there already " \
                   f"(pid {cluster.process.pid})\n"
    said = run("node", "start", "n2", "--data", cluster.directory, code=1).stderr
    assert f"node 'n2' runs already (pid {cluster.pid('n2')})" in said
    assert "n7" in run("node", "start", "n7", "--data", cluster.directory, code=1).stderr


def test_a_program_reads_and_writes_through_a_cluster(cluster: Up) -> None:
    where = ("--data", cluster.directory)
    made = read_json("volume", "create", "shared", "--size", "1MiB", "--copies", 3, *where)
    assert (made["name"], made["size_bytes"], made["copies_wanted"]) == ("shared", config.MIB, 3)
    with repstore.Cluster(cluster.directory) as first, repstore.Cluster(cluster.directory) as second:
        volume = first.volume("shared")
        data = os.urandom(600_000)
        volume.write(4097, data)
        volume.flush()
        assert volume.read(4097, len(data)) == data
        assert [extent.hole for extent in volume.block_status(0, config.MIB)] == [True, False, True]
        with pytest.raises(repstore.errors.BusyError, match="open here already"):
            first.volume("shared")
        with pytest.raises(repstore.errors.NotFoundError, match="'none'"):
            first.volume("none")
        with second.volume("shared") as other:                    # takes it over
            assert other.read(4097, len(data)) == data
            with pytest.raises(repstore.errors.FencedError, match="another client"):
                volume.write(0, b"late")
            assert other.read(0, 4) == bytes(4)
        volume.close()
        with first.volume("shared") as again:
            assert again.read(4097, 10) == data[:10]
    assert run("volume", "delete", "shared", *where).stdout == "volume shared is deleted\n"


def test_volumes_are_made_listed_shown_and_deleted(cluster: Up) -> None:
    data = ("--data", cluster.directory)
    read_json("volume", "create", "a.b-c", "--size", 4096, "--ack", "durable", *data)
    assert "a.b-c" in run("volume", "list", *data).stdout
    listed = {volume["name"]: volume for volume in read_json("volume", "list", *data)}
    assert next(iter(listed)) == "demo"
    assert listed["a.b-c"]["acknowledgement"] == "durable"
    shown = eventually(lambda: _served(cluster.directory, "a.b-c"), "a.b-c is served")
    assert (shown["epoch"], shown["min_copies"], len(shown["copies"])) == (1, 1, 1)
    assert "exists" in run("volume", "create", "a.b-c", "--size", 4096, *data, code=1).stderr
    assert read_json("volume", "delete", "a.b-c", *data) == {"deleted": "a.b-c", "index": shown["index"]}
    assert "no volume 'a.b-c'" in run("volume", "show", "a.b-c", *data, code=1).stderr
    assert "no volume 'a.b-c'" in run("volume", "delete", "a.b-c", *data, code=1).stderr
    node = shown["copies"][0]["node"]
    eventually(lambda: "a.b-c" not in {volume["name"] for volume in read_json(
        "store", "info", node, *data)["volumes"]}, "the copy is gone")


def _served(directory: Path, name: str) -> dict[str, Any] | None:
    shown: dict[str, Any] = read_json("volume", "show", name, "--data", directory)
    return shown if shown["health"] == "healthy" else None


@pytest.mark.slow
def test_what_no_store_can_hold_is_refused_and_nothing_dies(cluster: Up) -> None:
    data = ("--data", cluster.directory)
    said = run("volume", "create", "huge", "--size", "1TiB", *data, code=64).stderr
    assert "volume of 1099511627776 bytes: the store of node" in said
    assert "4 copies need 4 nodes" in run(
        "volume", "create", "wide", "--size", "4KiB", "--copies", 4, *data, code=64).stderr
    names = [f"many{number}" for number in range(12)]
    for name in names:                                # more than the stores' metadata has room for
        run("volume", "create", name, "--size", "8MiB", "--copies", 3, *data)
    full = eventually(lambda: [node for node in status(cluster.directory)["nodes"] if "copy of many" in
                               node["fault"]], "some store is full of metadata")
    assert all(node["pid"] for node in full)
    for name in names:
        run("volume", "delete", name, *data)
    eventually(lambda: is_healthy(cluster.directory), "healthy")


def test_stores_are_made_and_looked_at(tmp_path: Path, cluster: Up) -> None:
    made = read_json("store", "create", tmp_path / "s", "--size", "8MiB", "--segment-size", "64KiB")
    assert (made["size_bytes"], made["segment_bytes"], made["clean"], made["volumes"]) == \
        (SIZE_BYTES, 65_536, True, [])
    assert read_json("store", "info", tmp_path / "s") == made
    assert "not overwritten" in run("store", "create", tmp_path / "s", "--size", "8MiB", code=1).stderr
    assert "no store at" in run("store", "info", tmp_path / "none", code=1).stderr
    node = read_json("store", "info", "n1", "--data", cluster.directory)
    assert node["in_use_by"].startswith(str(cluster.pid("n1")))
    assert node["volumes"][0]["name"] == "demo"
    assert "room for copies" in run("store", "info", "n1", "--data", cluster.directory).stdout
    with pytest.raises(repstore.errors.ConfigError, match="is the store of node 'n1'"):
        repstore.Store.open(cluster.directory / "n1.store")


# ----------------------------------------------------------------------------- life and death

@pytest.mark.slow
def test_a_killed_primary_comes_back_by_delta(tmp_path: Path) -> None:
    with up(tmp_path / "d", "--size", "8MiB") as running, repstore.Cluster(tmp_path / "d") as client:
        volume = client.volume("demo")
        volume.write(0, bytes([1]) * config.MIB)
        primary = running.ready["primary"]
        os.kill(running.pid(primary), signal.SIGKILL)
        volume.write(0, bytes([2]) * 65_536)                      # a pause, not an error
        assert volume.read(0, 65_537) == bytes([2]) * 65_536 + bytes([1])
        found = eventually(lambda: _degraded(tmp_path / "d"), "degraded")
        assert f"not on {primary}" in found["reason"]
        assert {copy["node"]: copy["role"] for copy in found["copies"]}[primary] == "down"
        started = read_json("node", "start", primary, "--data", tmp_path / "d")
        assert started == {"name": primary, "pid": started["pid"]}
        eventually(lambda: is_healthy(tmp_path / "d"), "three copies in sync")
        # membership is read from the coordination store, progress from a report that may be older
        moved = eventually(lambda: client.status().volumes[0].resync.done_bytes, "word of the resync")
        assert 65_536 <= moved <= config.MIB                      # what was written, not the volume
        said = running.stop(signal.SIGINT)
        assert f"node {primary} (pid {running.pid(primary)}) ended, killed by SIGKILL" in said
        assert f"repstore node start {primary}" in said
        assert not any(node.pid for node in client.status().nodes)


def _degraded(directory: Path) -> dict[str, Any] | None:
    found: dict[str, Any] = status(directory)["volumes"][0]
    return found if found["health"] == "degraded" else None


@pytest.mark.slow
def test_started_again_it_serves_the_same_data_or_says_what_does_not_fit(tmp_path: Path) -> None:
    directory = tmp_path / "d"
    with up(directory, "--size", "8MiB", "--nodes", 2, "--copies", 2, "--volume", "v", "--ack", "durable",
            "--store-size", "16MiB") as running, repstore.Cluster(directory) as client:
        client.volume("v").write(5, b"kept")
        running.stop()
    found = status(directory)
    assert found["health"] == "faulted"
    assert "does not run" in found["volumes"][0]["reason"]
    for wrong, said in (
        (("--nodes", 3), "nodes 3 asked for, the cluster there has 2"),
        (("--copies", 1), "copies 1 asked for, the cluster there has 2"),
        (("--size", "4MiB"), "size 4194304 asked for, the cluster there has 8388608"),
        (("--ack", "dev"), "acknowledgement dev asked for, the cluster there has durable"),
        (("--store-size", "17MiB"), "store size 17825792 asked for, the cluster there has 16777216"),
        (("--volume", "w"), "no volume 'w' in this cluster, it has v"),
    ):
        assert said in run("up", "--data", directory, *wrong, code=64).stderr
    with up(directory, "--nbd-port", 20_809) as running, repstore.Cluster(directory) as client:
        assert running.ready["nodes"][1]["nbd_tcp"] == "nbd://127.0.0.1:20810/v"
        assert client.status().health == "healthy"
        assert client.status().volumes[0].resync.done_bytes == 0  # nobody fell behind when it stopped
        assert client.volume("v").read(5, 4) == b"kept"
        running.stop()


@pytest.mark.slow
def test_nodes_outlive_a_killed_up_and_the_next_one_waits_for_them(tmp_path: Path) -> None:
    directory = tmp_path / "d"
    with up(directory, "--size", "8MiB", "--nodes", 2) as running, repstore.Cluster(directory) as client:
        running.process.kill()
        running.process.wait()
        volume = client.volume("demo")
        volume.write(0, b"served by orphans")
        said = run("up", "--data", directory, code=1).stderr
        assert f"nodes still run there: n1 (pid {running.pid('n1')}), n2 (pid {running.pid('n2')})" in said
        run("node", "stop", "n1", "--data", directory)
        run("node", "stop", "n2", "--data", directory)
        assert "does not run" in run("node", "stop", "n2", "--data", directory, code=1).stderr
        with up(directory) as again:
            assert volume.read(0, 17) == b"served by orphans"
            again.stop()


@pytest.mark.slow
def test_a_node_that_cannot_start_does_not_keep_the_others_from_serving(tmp_path: Path) -> None:
    directory = tmp_path / "d"
    with up(directory, "--size", "8MiB") as running:
        running.stop()
    (directory / "n2.store").write_bytes(b"not a store" * 1000)
    with up(directory) as running:
        assert [node["name"] for node in running.ready["nodes"] if node["pid"] == 0] == ["n2"]
        assert status(directory)["health"] == "degraded"
        said = run("node", "start", "n2", "--data", directory, code=1).stderr
        assert "node 'n2' did not start (exit code" in said
        assert "n2.store" in said
        assert "node 'n2' did not start" in running.stop()


@pytest.mark.slow
def test_an_interrupted_beginning_is_simply_done_again(tmp_path: Path) -> None:
    directory = tmp_path / "d"
    first = subprocess.Popen([*COMMAND, "up", "--data", str(directory), "--size", "64MiB"])
    eventually((directory / "n1.store").exists, "the first store")
    first.kill()
    first.wait()
    with up(directory, "--size", "64MiB") as running:
        assert running.ready["size_bytes"] == 64 * config.MIB
        running.stop()


@pytest.mark.slow
def test_ctrl_c_ends_a_program_that_waits_for_a_primary(tmp_path: Path) -> None:
    directory = tmp_path / "d"
    with up(directory, "--size", "8MiB", "--nodes", 1) as running:
        running.stop()
    program = ("import repstore, sys\n"
               "with repstore.Cluster(sys.argv[1]) as cluster, cluster.volume('demo') as volume:\n"
               "    print('attached', flush=True)\n"
               "    volume.read(0, 1)\n")
    waiting = subprocess.Popen([sys.executable, "-c", program, str(directory)], text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert waiting.stdout is not None
    assert waiting.stdout.readline() == "attached\n"
    waiting.send_signal(signal.SIGINT)
    _, said = waiting.communicate(timeout=WAIT_S)
    assert "KeyboardInterrupt" in said


@pytest.mark.slow
def test_a_reader_that_waits_lets_others_run_and_is_told_when_its_volume_is_closed(tmp_path: Path) -> None:
    directory = tmp_path / "d"
    with up(directory, "--size", "8MiB", "--nodes", 1) as running:
        running.stop()
    with repstore.Cluster(directory) as client:
        volume = client.volume("demo")
        told: list[str] = []

        def read() -> None:
            with pytest.raises(repstore.errors.FencedError) as raised:
                volume.read(0, 1)
            told.append(str(raised.value))

        reader = threading.Thread(target=read)
        reader.start()
        eventually(lambda: volume._under_way, "the read is under way")     # the GIL is free
        volume.close()
        reader.join(WAIT_S)
        assert "read of 1 bytes at 0" in told[0]


INTERRUPTED = """
import os, runpy, signal, sys

class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == sys.argv[1]:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupt())
if sys.argv[2] == "module":
    runpy.run_module("repstore.cli", run_name="__main__")
else:
    from repstore.cli import main
    main()
"""


@pytest.mark.parametrize("begun", ["module", "script"])
@pytest.mark.parametrize("name", ["repstore.cli.app", "typer", "repstore.cli.check_copies", "rich.table"])
def test_an_interrupt_while_modules_are_imported_is_one_like_any_other(name: str, begun: str) -> None:
    done = subprocess.run([sys.executable, "-c", INTERRUPTED, name, begun], capture_output=True, text=True,
                          timeout=WAIT_S)
    assert (done.returncode, done.stdout) == (options.EXIT_INTERRUPTED, "")
    assert done.stderr == "repstore: interrupted\n"


# ---------------------------------------------------------------------------------- bad input

@pytest.mark.parametrize(("arguments", "code", "text"), [
    (["up", "--data", "{}", "--size", "4097"], 64, "4097 bytes: must be a multiple of 4096"),
    (["up", "--data", "{}"], 64, "--size is needed"),
    (["up", "--data", "{}", "--size", "8MB"], 64, "'8MB': must be a number, and perhaps KiB"),
    (["up", "--data", "{}", "--size", "1.3"], 64, "'1.3': is not a whole number"),
    (["up", "--data", "{}", "--size", "9" * 400 + ".5TiB"], 64, "volume size 1099511627775"),
    (["up", "--data", "{}", "--size", "8MiB", "--nodes", "17"], 64, "nodes 17: must be 1 to 16"),
    (["up", "--data", "{}", "--size", "8MiB", "--nodes", "0"], 64, "nodes 0: must be 1 to 16"),
    (["up", "--data", "{}", "--size", "8MiB", "--copies", "9"], 64, "copies 9: must be 1 to 8"),
    (["up", "--data", "{}", "--size", "8MiB", "--nodes", "2", "--copies", "3"], 64, "3 copies need 3 nodes"),
    (["up", "--data", "{}", "--size", "8MiB", "--store-size", "4MiB"], 64, "of 4194304 bytes can hold"),
    (["up", "--data", "{}", "--size", "8MiB", "--volume", "a/b"], 64, "volume name 'a/b'"),
    (["up", "--data", "{}", "--size", "8MiB", "--ack", "maybe"], 64, "maybe"),
    (["up", "--data", "{}", "--size", "8MiB", "--nbd-port", "70000"], 64, "NBD port 70000"),
    (["up", "--data", "{}", "--size", "900TiB"], 64, "volume size"),
    (["up"], 64, "--data"),
    (["status", "--data", "{}"], 3, "no cluster there"),
    (["node", "start", "n1", "--data", "{}"], 3, "no cluster there"),
    (["volume", "list", "--data", "{}"], 3, "no cluster there"),
    (["store", "info", "n1", "--data", "{}"], 3, "no cluster there"),
    (["store", "create", "{}/s"], 64, "needs a size"),
    (["store", "create", "{}/s", "--size", "8MiB"], 1, "no directory"),
    (["store", "create", "{}", "--size", "1MiB", "--segment-size", "3KiB"], 64, "segment size 3072"),
    (["nonsense"], 64, "nonsense"),
    (["status", "--nonsense"], 64, "--nonsense"),
])
def test_bad_input_is_refused_in_one_line_and_changes_nothing(
        tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int,
        text: str) -> None:
    place = tmp_path / "d"
    assert app.run([argument.format(place) for argument in arguments]) == code
    output = capsys.readouterr()
    assert text in output.err
    assert output.err.startswith("repstore: ")
    assert output.err.count("\n") == 1
    assert output.out == ""
    assert not place.exists()


CHECKS: list[tuple[list[str], dict[str, object]]] = [
    (["verify", "demo"], {"volume": "demo"}), (["scrub", "demo"], {"volume": "demo"}),
    (["explain", "demo", "7"], {"volume": "demo", "lba": 7})]


@pytest.mark.parametrize("json_wanted", [False, True])
@pytest.mark.parametrize(("check", "asked"), CHECKS)
def test_a_check_that_cannot_be_done_says_so_on_one_line_of_json_too(
        tmp_path: Path, capsys: pytest.CaptureFixture[str], check: list[str], asked: dict[str, object],
        json_wanted: bool) -> None:
    place = tmp_path / "c"
    arguments = ["check", *check, "--data", str(place), *["--json"] * json_wanted]
    for code, error in ((3, f"{place}: no cluster there"), (2, "no volume 'demo'")):
        assert app.run(arguments) == code
        said = capsys.readouterr()
        assert said.err == f"repstore: {error}\n"
        told = [json.loads(line) for line in said.out.splitlines()]
        assert told == [{**asked, "verdict": "unusable", "error": error}] * json_wanted
        place.mkdir(exist_ok=True)
        ClusterDirectory(place).open_config(create=True).close()       # a cluster without volumes


@pytest.mark.parametrize(("check", "asked"), CHECKS)
def test_a_check_that_is_interrupted_before_it_saw_anything_says_so(
        tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, check: list[str],
        asked: dict[str, object]) -> None:
    def interrupt(directory: ClusterDirectory) -> bool:
        raise KeyboardInterrupt

    monkeypatch.setattr(ClusterDirectory, "exists", interrupt)
    assert app.run(["check", *check, "--data", str(tmp_path), "--json"]) == 130
    said = capsys.readouterr()
    assert json.loads(said.out) == {**asked, "verdict": "interrupted"}
    assert said.err == "repstore: interrupted: there is no verdict\n"


@pytest.mark.parametrize("check", [
    ["verify"], ["scrub", "demo", "--rate", "0"], ["explain", "demo", "-1"], ["fsck"], ["history", "--what"]])
def test_a_check_that_can_never_be_right_leaves_stdout_empty(
        tmp_path: Path, capsys: pytest.CaptureFixture[str], check: list[str]) -> None:
    of_cluster = check[0] not in ("fsck", "history")
    assert app.run(["check", *check, "--json", *["--data", str(tmp_path)] * of_cluster]) == 64
    said = capsys.readouterr()
    assert (said.out, said.err.count("\n")) == ("", 1)


def test_a_full_disk_is_told_before_anything_is_made(
        tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run(["up", "--data", str(tmp_path / "d"), "--size", "8TiB"]) == 1
    assert "stores of" in capsys.readouterr().err
    assert not list((tmp_path / "d").glob("*.store*"))


@pytest.mark.parametrize("arguments", [
    [], ["up"], ["status"], ["node"], ["node", "start"], ["volume", "create"], ["store", "info"]])
def test_help_is_one_key_away(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    assert app.run([*arguments, "-h"]) == 0
    text = capsys.readouterr().out
    assert "Usage" in text
    if not arguments:
        assert "64 wrong usage" in " ".join(text.split())


@pytest.mark.parametrize(("text", "size_bytes"), [
    ("4096", 4096), ("1KiB", 1024), ("512MiB", 512 << 20), ("2GiB", 2 << 30), ("1.5gib", 3 << 29),
    ("1TiB", 1 << 40), ("7B", 7), (" 8 MiB ", 8 << 20), ("0", 0)])
def test_sizes_as_people_write_them(text: str, size_bytes: int) -> None:
    assert options.parse_size(text) == size_bytes


@given(st.integers(0, 1 << 44))
def test_a_size_is_shown_to_a_digit(size_bytes: int) -> None:
    shown = options.format_size(size_bytes)
    number, unit_bytes = shown.rstrip("BKMGTi"), options.UNITS[shown.lstrip("0123456789.").lower()]
    assert abs(float(number) * unit_bytes - size_bytes) <= 0.051 * unit_bytes
