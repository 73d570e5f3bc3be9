"""`check explain` and `check scrub`, asked of real node processes whose stores are damaged under them."""
import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import repstore
from repstore import errors
from repstore._fast.checksum import crc32c
from repstore.cli import check_copies
from repstore.cli.app import app
from repstore.cli.check_copies import find_volume
from repstore.cli.options import open_cluster
from repstore.format import BLOCK_SIZE
from repstore.node.inquiry import ASK_PREFIX, ask, decode_inquiry
from tests.cluster.harness import wait_until
from tests.test_cli import COMMAND, WAIT_S, Up, read_json, run

pytestmark = pytest.mark.slow

SIZE_BLOCKS = 1024
BLOCKS = 512                     # of them written


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """Three nodes with one volume, each block of it written."""
    process = Up(tmp_path_factory.mktemp("cluster") / "c", "--size", "4MiB")
    with repstore.Cluster(process.directory) as cluster, cluster.volume("demo") as volume:
        for lba in range(0, BLOCKS, 16):
            volume.write(lba * BLOCK_SIZE, b"".join(bytes([lba + i & 255]) * BLOCK_SIZE for i in range(16)))
        volume.flush()
    yield process
    process.end()


def explain(up: Up, lba: int, code: int = 0) -> dict[str, Any]:
    found = read_json("check", "explain", "demo", lba, "--data", up.directory, code=code)
    assert (found["volume"], found["lba"]) == ("demo", lba)
    return dict(found["copies"])


def rot(up: Up, node: str, lba: int) -> None:
    """One bit of a node's copy of a block, in its store file, past its process."""
    location = explain(up, lba)[node]["location"]
    with (up.directory / f"{node}.store").open("r+b") as store:
        store.seek(location * BLOCK_SIZE + 77)
        byte = store.read(1)[0]
        store.seek(location * BLOCK_SIZE + 77)
        store.write(bytes([byte ^ 1]))


def serials(up: Up) -> dict[str, int | None]:
    """Of the scrub that each node was asked about last; None: of no scrub."""
    _, configs = open_cluster(up.directory)
    with closing(configs):
        asked = {name: configs.get(ASK_PREFIX + name) for name in ("n1", "n2", "n3")}
    return {name: entry and decode_inquiry(entry.value, "ask").numbers.get("serial")
            for name, entry in asked.items()}


def has_begun(up: Up, before: dict[str, int | None]) -> bool:
    """Whether the scrub has read a part of every copy; `before`: what `serials` gave without it."""
    found = serials(up)
    # to ask about an older one would replace the command's question, which has the serial that is looked for
    if any(serial is None or serial == before[name] for name, serial in found.items()):
        return False
    _, configs = open_cluster(up.directory)
    with closing(configs), suppress(errors.NotFoundError, errors.UnavailableError):
        known, _ = find_volume(configs, "demo")
        states = [ask(configs, name, "scrub state", known.index, serial=serial or 0)
                  for name, serial in found.items()]
        return all(state["running"] and state["next_lba"] > 0 for state in states)
    return False


def test_explain_tells_record_and_state_of_every_copy(up: Up) -> None:
    copies = explain(up, 100)
    assert sorted(copies) == ["n1", "n2", "n3"]
    assert sorted(copy["role"] for copy in copies.values()) == ["primary", "replica", "replica"]
    assert len({(copy["checksum"], copy["lsn"], copy["record_epoch"]) for copy in copies.values()}) == 1
    for copy in copies.values():
        assert (copy["state"], copy["medium"], copy["record"]) == ("data", "good", "write")
        assert copy["checksum"] == copy["record_checksum"]
        assert copy["lsn"] >= 100
    assert "n2" in run("check", "explain", "demo", 100, "--data", up.directory).stdout


def test_explain_shows_the_copy_that_is_bad_and_a_scrub_mends_it(up: Up) -> None:
    rot(up, "n1", 7)
    rot(up, "n3", 300)
    assert [name for name, copy in explain(up, 7, code=1).items() if copy["medium"] != "good"] == ["n1"]
    found = read_json("check", "scrub", "demo", "--data", up.directory, "--rate", "256MiB", code=1)["copies"]
    assert {name: copy["bad_blocks"] for name, copy in found.items()} == {"n1": 1, "n2": 0, "n3": 1}
    assert all(copy["read_blocks"] == BLOCKS for copy in found.values())
    assert all(copy["lost_blocks"] == 0 for copy in found.values())
    again = read_json("check", "scrub", "demo", "--data", up.directory, "--rate", "256MiB")
    assert again["verdict"] == "clean"
    assert not any(copy["bad_blocks"] for copy in again["copies"].values())
    assert explain(up, 7)["n1"]["record"] == "move"
    explain(up, 300)


def told(monkeypatch: pytest.MonkeyPatch, up: Up, *rounds: list[dict[str, Any]], code: int) -> dict[str, Any]:
    """What `explain` says, and ends with, where the nodes answer so; the last round goes on for ever."""
    left = [answer for answers in [*rounds, *[rounds[-1]] * 9] for answer in answers]

    def answered(*asked: object, **numbers: int) -> dict[str, Any]:
        return {"role": "replica", "epoch": 1, "learning": False} | left.pop(0)

    monkeypatch.setattr(check_copies, "ask", answered)
    done = CliRunner().invoke(app, ["check", "explain", "demo", "1", "--data", str(up.directory), "--json"])
    assert done.exit_code == code, done.output
    return dict(json.loads(done.stdout))


def data(checksum: int, lsn: int | None, at: int, until: int | None = None, **more: object) -> dict[str, Any]:
    return {"state": "data", "checksum": checksum, "medium": "good", "record": "write" if lsn else "move",
            "lsn": lsn, "commit_lsn": at, "until_lsn": at if until is None else until} | more


def hole(state: str, at: int) -> dict[str, Any]:
    return {"state": state, "checksum": 0, "commit_lsn": at, "until_lsn": at}


ZEROS = crc32c(bytes(BLOCK_SIZE))
BEHIND = [data(1, 7, 9), data(2, 20, 21), data(2, 20, 22)]


@pytest.mark.parametrize(("answers", "code"), [
    ([data(1, 7, 8), data(1, 7, 90), data(1, None, 99)], 0),       # not at one LSN, and the same
    ([hole("hole", 8), hole("zeros", 9), data(ZEROS, 7, 8)], 0),
    ([data(1, None, 8), data(2, None, 8), data(2, None, 8)], 1),   # at one LSN
    ([data(1, 7, 25), data(2, 20, 21), data(2, 20, 22)], 1),       # the first must have had record 20
    ([data(1, 7, 8), hole("lost", 9), data(1, 7, 9)], 1),
    (BEHIND, 2),
    ([data(1, None, 8, 9), data(2, None, 8, 9), data(2, None, 8, 9)], 2),
    ([data(1, 7, 25, learning=True), data(2, 20, 21), data(2, 20, 22)], 2),
    ([hole("hole", 8), data(2, 7, 9), data(2, 7, 9)], 2)])
def test_explain_compares_what_copies_have_at_one_lsn(
        up: Up, monkeypatch: pytest.MonkeyPatch, answers: list[dict[str, Any]], code: int) -> None:
    found = told(monkeypatch, up, answers, code=code)
    assert ("changed" in found.get("error", "")) == (code == 2)


def test_explain_asks_again_for_a_block_that_is_being_written(
        up: Up, monkeypatch: pytest.MonkeyPatch) -> None:
    still = data(3, 30, 31)
    assert told(monkeypatch, up, BEHIND, [still, still, still], code=0)["copies"]["n1"]["checksum"] == 3


def test_explain_calls_no_block_bad_because_it_is_being_written(up: Up) -> None:
    command = [*COMMAND, "check", "explain", "demo", "1000", "--data", str(up.directory)]
    with repstore.Cluster(up.directory) as cluster, cluster.volume("demo") as volume:
        for _ in range(3):
            asking = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            serial = 0
            while asking.poll() is None:
                volume.write(1000 * BLOCK_SIZE, serial.to_bytes(8) * 512)
                serial += 1
            shown, _ = asking.communicate()
            assert asking.returncode in (0, 2), shown
    explain(up, 1000)


def test_verify_proves_that_the_copies_are_equal(up: Up) -> None:
    found = read_json("check", "verify", "demo", "--data", up.directory)
    assert (found["verdict"], found["differences"]) == ("equal", [])
    assert (len(found["copies"]), found["exchanged_bytes"]) == (3, 24)
    assert "equal: 3 copies" in run("check", "verify", "demo", "--data", up.directory).stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_scrub_says_so_and_goes_on_where_it_was(up: Up, number: signal.Signals) -> None:
    rot(up, "n2", 0)
    command = [*COMMAND, "check", "scrub", "demo", "--data", str(up.directory), "--rate", "64KiB", "--json"]
    before = serials(up)
    scrub = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_until(lambda: has_begun(up, before), "every copy is being scrubbed")
    scrub.send_signal(number)
    shown, complaint = scrub.communicate(timeout=WAIT_S)
    assert scrub.returncode == 130
    assert "interrupted" in complaint
    assert '"verdict":"interrupted"' in shown
    assert "clean" not in shown + complaint
    resumed = read_json("check", "scrub", "demo", "--data", up.directory, "--rate", "256MiB", code=1)
    found = resumed["copies"]
    assert resumed["verdict"] == "findings"
    assert {name: copy["bad_blocks"] for name, copy in found.items()} == {"n1": 0, "n2": 1, "n3": 0}
    assert all(0 < copy["read_blocks"] < BLOCKS for copy in found.values())
    assert all(copy["next_lba"] == SIZE_BLOCKS for copy in found.values())
    assert all(copy["first"] > 0 for copy in found.values())       # what is in front of it was read by then
    stopped = json.loads(shown)["copies"]
    assert all(copy["since"] == stopped[name]["since"] for name, copy in found.items())


def test_a_scrub_that_another_one_ended_is_not_clean(up: Up) -> None:
    command = [*COMMAND, "check", "scrub", "demo", "--data", str(up.directory), "--rate", "64KiB", "--json"]
    before = serials(up)
    scrub = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_until(lambda: has_begun(up, before), "every copy is being scrubbed")
    read_json("check", "scrub", "demo", "--data", up.directory, "--rate", "256MiB", "--fresh")
    shown, _ = scrub.communicate(timeout=WAIT_S)
    assert scrub.returncode == 2
    assert '"verdict":"incomplete"' in shown
    assert "another scrub began" in shown


def test_a_volume_is_not_equal_while_a_copy_is_away(up: Up) -> None:
    run("node", "stop", "n3", "--data", up.directory)
    try:
        wait_until(lambda: "n3" in read_json("check", "verify", "demo", "--data", up.directory,
                                             code=2).get("not_compared", []), "n3 is not in sync any more")
        assert "not compared: n3" in run("check", "verify", "demo", "--data", up.directory, code=2).stderr
    finally:
        run("node", "start", "n3", "--data", up.directory)
        verify = [*COMMAND, "check", "verify", "demo", "--data", str(up.directory)]
        wait_until(lambda: subprocess.run(verify, capture_output=True).returncode == 0, "n3 is back")


def test_what_cannot_be_asked_is_told(up: Up, tmp_path: Path) -> None:
    for check in (("explain", "absent", 1), ("verify", "absent"), ("scrub", "absent")):
        found = read_json("check", *check, "--data", up.directory, code=2)
        assert (found["verdict"], found["error"]) == ("unusable", "no volume 'absent'")
    assert "block 1024" in run("check", "explain", "demo", 1024, "--data", up.directory, code=64).stderr
    run("check", "explain", "demo", 1, "--data", tmp_path, code=3)
    run("check", "scrub", "demo", "--data", up.directory, "--rate", "fast", code=64)


@pytest.mark.parametrize(("rate", "limit"), [
    ("16777216TiB", "rate 18446744073709551616 bytes a second: must be 1 to 1099511627776"),
    ("0", "rate 0 bytes a second: must be 1 to")])
def test_a_rate_that_no_scrub_can_have_is_refused(up: Up, rate: str, limit: str) -> None:
    assert limit in run("check", "scrub", "demo", "--data", up.directory, "--rate", rate, code=64).stderr
    assert read_json("status", "--data", up.directory)["health"] == "healthy"


HUGE = 2**64
HOSTILE: list[tuple[str, dict[str, int]]] = [
    ("explain", {}), ("explain", {"lba": -1}), ("explain", {"lba": HUGE}), ("explain", {"lba": HUGE - 1}),
    ("scrub start", {}), ("scrub start", {"first": 0, "rate_bytes_s": 1}),
    ("scrub start", {"first": 0, "rate_bytes_s": HUGE, "serial": 1}),
    ("scrub start", {"first": 0, "rate_bytes_s": 0, "serial": 1}),
    ("scrub start", {"first": -1, "rate_bytes_s": 1, "serial": 1}), ("scrub state", {"serial": HUGE}),
    ("scrub stop", {}), ("verify start", {"serial": -1}), ("verify start", {"serial": 1, "page": HUGE}),
    ("verify start", {"serial": 1} | {f"page {i}": 0 for i in range(65)}), ("verify state", {}),
    ("verify nodes", {"serial": HUGE, "level": 0, "first": 0, "count": 1}),
    ("verify page", {"serial": 1, "place": -1}),
    ("verify worth", {"first": HUGE, "blocks": 1}), ("verify worth", {"first": 0, "blocks": HUGE}),
    ("verify worth", {"first": -HUGE, "blocks": 512}), ("every", {})]


@pytest.mark.fault("input: a question with numbers that cannot be",
                   promise="answered with an error, the node goes on")
def test_no_question_stops_a_node(up: Up) -> None:
    before = {node["name"]: node["pid"] for node in read_json("status", "--data", up.directory)["nodes"]}
    _, configs = open_cluster(up.directory)
    with closing(configs):
        known, names = find_volume(configs, "demo")
        for name in names:
            for what, numbers in HOSTILE:
                with pytest.raises(errors.NotFoundError, match=f"node '{name}': "):
                    ask(configs, name, what, known.index, **numbers)
            for index in (-1, 2**16, HUGE):
                with pytest.raises(errors.NotFoundError, match=f"node '{name}': "):
                    ask(configs, name, "explain", index, lba=0)
    found = read_json("status", "--data", up.directory)
    assert found["health"] == "healthy"
    assert {node["name"]: node["pid"] for node in found["nodes"]} == before


def test_a_copy_whose_node_does_not_run_is_no_clean_scrub(up: Up) -> None:
    run("node", "stop", "n3", "--data", up.directory)
    try:
        found = read_json("check", "scrub", "demo", "--data", up.directory, code=2)["copies"]
        assert "no answer" in found["n3"]["error"]
        assert "error" not in found["n1"]
    finally:
        run("node", "start", "n3", "--data", up.directory)

