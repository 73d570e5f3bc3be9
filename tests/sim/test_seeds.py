"""Planned runs: the seeds of `make test`, the corpus, and that a seed is the whole run.

`corpus.jsonl` has one line for each run that ever found a bug of the product: the plan, shortened
where that was possible, and what was wrong. Plans, not seeds: what a seed draws changes as the
simulator grows.
"""
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from repstore import errors
from repstore.cli.app import run as command
from repstore.format import BLOCK_SIZE
from repstore.sim import plan as plans
from repstore.sim.atlas import data_blocks
from repstore.sim.history import WRITE
from repstore.sim.minimize import kind_of, minimize, shortest
from repstore.sim.oracles import Oracle
from repstore.sim.plan import KINDS, Plan, PlannedAsk, draw
from repstore.sim.run import Outcome, run
from repstore.sim.seeds import parse_range, run_seeds
from repstore.sim.timeline import timeline
from repstore.sim.workload import Operation, SimulatedClient, stamped

CORPUS = [json.loads(line) for line in (Path(__file__).parent / "corpus.jsonl").read_text().splitlines()]
QUICK_SEEDS = range(100_000, 100_025)


@pytest.mark.parametrize("entry", CORPUS, ids=lambda entry: str(entry["plan"]["seed"]))
def test_what_once_found_a_bug_finds_none(entry: dict[str, object]) -> None:
    outcome = run(msgspec.convert(entry["plan"], Plan))
    assert outcome.failure == "", f"{entry['reason']}\n{timeline(outcome)}"


def test_seeds_break_no_promise_and_are_worth_their_time() -> None:
    """`make test` runs 2,000 of them by the command, with the same bounds."""
    summary = run_seeds(QUICK_SEEDS, jobs=1)
    assert summary.failures == {}
    assert summary.operations >= 500 * summary.seeds
    assert sum(summary.faults.values()) >= 5 * summary.seeds
    assert summary.crashes >= summary.seeds


def test_the_history_finds_what_one_read_alone_does_not_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    """A read that met a write may return what was there before or what comes, but nothing older (O8)."""
    check_read, lied = SimulatedClient._check_read, []

    def lie_once(client: SimulatedClient, operation: Operation) -> None:
        for block in sorted(operation.met):
            before = [line for line in client.history.lines if line.kind == WRITE and not line.error
                      and block in range(line.first, line.first + line.blocks)
                      and line.end < operation.line.begin]
            if not lied and not client.losses and any(line.begin > before[0].end for line in before):
                lied.append(block)
                at = (block - operation.ask.first) * BLOCK_SIZE
                stamp = before[0].values[block - before[0].first]
                operation.memory[at:at + BLOCK_SIZE] = stamped(stamp, 1)
        check_read(client, operation)

    monkeypatch.setattr(SimulatedClient, "_check_read", lie_once)
    fits = (plan for plan in map(draw, range(1, 1000)) if not plan.setup.stale_reads
            and plan.setup.volumes[0].overlaps and plan.setup.volumes[0].depth == 8
            and plan.setup.volumes[0].block_bytes == BLOCK_SIZE)
    outcome = next(outcome for outcome in map(run, fits) if lied)
    assert "(O8)" in outcome.failure


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_same_seed_gives_the_same_trace_twice(seed: int) -> None:
    first, second = run(draw(seed)), run(draw(seed))
    assert first.trace is not None
    assert second.trace is not None
    assert bytes(first.trace) == bytes(second.trace)


def test_the_trace_does_not_depend_on_the_process() -> None:
    program = "from repstore.cli.app import run; run(['sim', '--seed', '5', '--json'])"
    said = {subprocess.run([sys.executable, "-c", program], env={**os.environ, "PYTHONHASHSEED": number},
                           capture_output=True, text=True, check=True).stdout for number in ("1", "2")}
    assert len(said) == 1


def test_a_plan_survives_being_written_down() -> None:
    plan = draw(11)
    assert plans.decode(plans.encode(plan), "there") == plan


def test_seeds_draw_every_kind_of_fault() -> None:
    drawn = {fault.kind for seed in range(300) for fault in draw(seed).faults}
    assert drawn == set(KINDS)


@pytest.mark.parametrize("text", ["", "5", "5..", "..5", "9..5", "-1..5", "a..b", "1..2..3", "1...5",
                                  "0..99999999999999999999", f"0..{10**12}"])
def test_a_range_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(errors.ConfigError, match=r"seed"):
        parse_range(text)


@pytest.mark.parametrize("data", [
    b"", b"{}", b"[1]", b"\xff\xfe", plans.encode(draw(1)).replace(b'"kind": "', b'"kind": "no '),
    plans.encode(draw(1)).replace(b'"n1"', b'"n9"')])
def test_a_plan_that_is_none_is_refused(data: bytes) -> None:
    with pytest.raises(errors.ConfigError, match="there"):
        plans.decode(data, "there")


@pytest.mark.parametrize("arguments", [
    ["--seeds", "9..5"], ["--seeds", "many"], ["--seed", "-1"], ["--seed", "x"], [],
    ["--seed", "1", "--seeds", "1..2"], ["--plan", "/nowhere"], ["--seeds", "1..2", "--minimize"],
    ["--seeds", "1..2", "--jobs", "0"], ["--seeds", "1..2", "--minutes", "0"],
    ["--seeds", "1..2", "--minutes", "-1"], ["--seeds", "1..2", "--minutes", "nan"],
    ["--seed", "1", "--minutes", "1"], ["--seed", "1", "--save", "/nowhere/plan"],
    ["--seed", "1", "--trace", "/nowhere/trace"]])
def test_a_command_that_can_never_be_right_exits_with_64(
        arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["sim", *arguments]) == 64
    assert capsys.readouterr().err.startswith("repstore: ")


def test_the_command_counts_what_it_ran(capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["sim", "--seeds", "1..3", "--jobs", "2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["seeds"], found["failures"], found["interrupted"]) == (3, [], False)
    assert found["operations"] > 1000


def test_blocks_outside_a_volume_are_refused() -> None:
    plan = draw(1)
    broken = msgspec.structs.replace(plan, asks=(PlannedAsk(0, 0, 1, 10**6, 8, False),))
    with pytest.raises(errors.ConfigError, match="blocks 1000000"):
        plans.decode(plans.encode(broken), "there")


def test_the_shortest_list_has_what_it_takes_and_no_more() -> None:
    tried = []

    def fails(parts: object) -> bool:
        tried.append(parts)
        return {3, 77} <= set(parts)                   # type: ignore[call-overload]

    assert list(shortest(range(100), fails)) == [3, 77]
    assert len(tried) < 80


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_who_is_ended_says_what_was_found_and_leaves_no_process(number: signal.Signals) -> None:
    program = "import sys; from repstore.cli.app import run; sys.exit(run(sys.argv[1:]))"
    arguments = ["sim", "--seeds", "1..9999", "--json"]
    with subprocess.Popen([sys.executable, "-c", program, *arguments], stdout=subprocess.PIPE, text=True,
                          start_new_session=True) as sim:
        while len(processes_of(sim.pid)) < 4:              # itself, the resource tracker, two workers
            assert sim.poll() is None
        sim.send_signal(number)
        said = json.loads(sim.communicate(timeout=120)[0])
    assert (sim.returncode, said["interrupted"]) == (130, True)
    give_up_s = time.monotonic() + 30
    while processes_of(sim.pid):                           # their pipes are closed already
        assert time.monotonic() < give_up_s


def processes_of(session: int) -> list[int]:
    """Who runs in this session (field 6 of /proc/PID/stat)."""
    found = []
    for place in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = place.read_text().rpartition(")")[2].split()
            if int(fields[3]) == session and fields[0] != "Z":
                found.append(int(place.parent.name))
    return found


# ------------------------------------------------------------- faults on purpose must be seen

def failing(plan: Plan) -> Outcome:
    outcome = run(plan)
    assert outcome.failure
    return outcome


def test_a_client_that_expects_something_else_is_heard_and_the_plan_gets_shorter(
        monkeypatch: pytest.MonkeyPatch) -> None:
    check_read = SimulatedClient._check_read

    def expect_too_much(self: SimulatedClient, operation: object) -> None:
        if self.expectation.may.get(3, {0}) != {0}:
            self.expectation.may[3] = {4711}
        check_read(self, operation)                    # type: ignore[arg-type]

    monkeypatch.setattr(SimulatedClient, "_check_read", expect_too_much)
    plan = draw(1)
    outcome = failing(plan)
    assert kind_of(outcome.failure) == "W1"
    shorter, again = minimize(plan, outcome.failure)
    assert (len(shorter.faults), len(shorter.asks)) <= (0, 2)
    assert kind_of(again.failure) == "W1"
    text = timeline(again)
    assert "FAILED" in text
    assert "client asks" in text


@pytest.mark.parametrize("rule", ["O2", "O3", "O3 of maps", "O4"])
def test_the_oracle_sees_a_cluster_that_contradicts_itself(
        monkeypatch: pytest.MonkeyPatch, rule: str) -> None:
    check = Oracle.check
    looks = [0]

    def contradict(self: Oracle) -> None:
        looks[0] += 1
        if looks[0] >= 20:
            for promises in self._promises:
                if rule == "O2":
                    promises.acknowledged_lsn += 10**6
                elif rule == "O3":
                    promises.committed = {lsn: replace(committed, chain=committed.chain ^ 1)
                                          for lsn, committed in promises.committed.items()}
                elif rule == "O3 of maps":
                    promises.committed = {lsn: replace(committed, checksums=committed.checksums ^ 1)
                                          for lsn, committed in promises.committed.items()}
                else:
                    promises.leaders = dict.fromkeys(promises.leaders, "nobody")
        check(self)

    monkeypatch.setattr(Oracle, "check", contradict)
    assert kind_of(failing(msgspec.structs.replace(draw(8), faults=())).failure) == rule[:2]


def test_the_oracle_sees_a_store_that_is_not_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    compare_copies = Oracle.compare_copies

    def rot_and_compare(self: Oracle) -> None:
        disk = self._scene.nodes[0].disk
        for block in data_blocks(disk.image):          # some are replaced by what the log says
            disk.image[block.location * BLOCK_SIZE + 9] ^= 1
        compare_copies(self)

    monkeypatch.setattr(Oracle, "compare_copies", rot_and_compare)
    assert kind_of(failing(msgspec.structs.replace(draw(8), faults=())).failure) == "O7"
