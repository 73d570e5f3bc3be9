"""Planned runs: the seeds of `make test`, the corpus, and that a seed is the whole run.

`corpus.jsonl` has one line for each run that ever found a bug: the plan, shortened where that was
possible, and what was wrong. Plans, not seeds: what a seed draws changes as the simulator grows. One
that is `open` has to fail until its bug is mended: docs/simulator.md.
"""
import contextlib
import itertools
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from repstore import config, errors
from repstore.cli.app import run as command
from repstore.format import BLOCK_SIZE
from repstore.sim import plan as plans
from repstore.sim import seeds
from repstore.sim.atlas import data_blocks
from repstore.sim.clock import NS_PER_S
from repstore.sim.history import WRITE
from repstore.sim.minimize import kind_of, minimize, shortest
from repstore.sim.oracles import Oracle
from repstore.sim.plan import KINDS, Fault, Plan, PlannedAsk, draw
from repstore.sim.run import Outcome, run
from repstore.sim.scene import Scene
from repstore.sim.seeds import WORTH_SEEDS_MIN, Summary, parse_range, run_seeds
from repstore.sim.timeline import timeline
from repstore.sim.workload import Operation, SimulatedClient, stamped

CORPUS = [json.loads(line) for line in (Path(__file__).parent / "corpus.jsonl").read_text().splitlines()]
ROOT = Path(__file__).parents[2]
QUICK_SEEDS = range(100_000, 100_025)
ROOMS = (plans.PROCESS, plans.LINKS, plans.CONFIG, plans.DISK, plans.READS, plans.DATA_HERE, plans.DATA_DISK,
         plans.CLOCK, plans.CLIENT)


def replayed(entry: dict[str, object], seed: int) -> object:
    """A case of the corpus."""
    marks = [pytest.mark.xfail(strict=True, reason=entry["reason"])] if entry.get("open") else []
    return pytest.param(entry, id=str(seed), marks=marks)


@pytest.mark.parametrize("entry", [replayed(entry, entry["plan"]["seed"]) for entry in CORPUS])
def test_what_once_found_a_bug_finds_none(entry: dict[str, object]) -> None:
    outcome = run(msgspec.convert(entry["plan"], Plan))
    assert outcome.failure == "", f"{entry['reason']}\n{timeline(outcome)}"


@pytest.mark.fault("crash: simulated: some kinds of every room together, as the seed draws them",
                   promise="every promise is kept; healed, it converges")
def test_seeds_break_no_promise_and_are_worth_their_time() -> None:
    """`make test` runs 2,000 of them by the command, with the same bounds."""
    summary = run_seeds(QUICK_SEEDS, jobs=1)
    assert summary.failures == {}
    assert (summary.seeds, summary.lacks()) == (WORTH_SEEDS_MIN, [])
    assert "repstore sim --seeds $(SEEDS) --worth" in (ROOT / "Makefile").read_text()


def test_seeds_in_which_too_little_happens_fail(
        monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(seeds, "run_seed", lambda seed: Outcome(seed, operations=499, faults={"kill": 5},
                                                                crashes=1))
    arguments = ["sim", "--seeds", "1..25", "--jobs", "1"]
    assert command(arguments) == 0
    assert command([*arguments, "--worth"]) == 1
    assert "499.00 operations a seed, at least 500 are wanted" in capsys.readouterr().err
    assert command(["sim", "--seeds", "1..24", "--jobs", "1", "--worth"]) == 0      # too few to tell
    monkeypatch.setitem(seeds.WORTH, "operations", 499)
    assert command([*arguments, "--worth"]) == 0


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


def test_a_seed_draws_a_subset_of_the_kinds_and_any_two_rooms_meet() -> None:
    """Runs that leave most kinds out reach what runs with all of them never do."""
    subsets = [{fault.kind for fault in draw(seed).faults} for seed in range(300)]
    for kind in KINDS:
        assert sum(kind in subset for subset in subsets) < len(subsets) / 2, kind
    assert len(set(map(frozenset, subsets))) > len(subsets) * 0.9
    for one, other in itertools.combinations(ROOMS, 2):
        assert any(subset & set(one) and subset & set(other) for subset in subsets), (one, other)
    for room in ROOMS:
        assert any(not subset & set(room) for subset in subsets), room


@pytest.mark.parametrize("text", ["", "5", "5..", "..5", "9..5", "-1..5", "a..b", "1..2..3", "1...5",
                                  "0..99999999999999999999", f"0..{10**12}", "\u0661..\u0663", "1..\uff12"])
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
    ["--seeds", "1..2", "--jobs", "0"], ["--seed", "1", "--jobs", "0"], ["--seed", "1", "--jobs", "65"],
    *(["--seeds", "1..2", "--minutes", minutes] for minutes in ("0", "-1", "nan")),
    ["--seed", "1", "--minutes", "1"], ["--seed", "1", "--worth"], ["--seed", "1", "--save", "/nowhere/plan"],
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


SECTORS = next(plan for plan in map(draw, range(100)) if plan.setup.volumes[0].block_bytes == 512)
BAD_DISK = next(plan for plan in map(draw, range(100)) if plan.setup.bad_disk == 0)
IMPOSSIBLE = [
    ("seed", -1, "seed -1: must be 0 to"), ("length_ns", 0, "length_ns 0: must be 1 to"),
    ("length_ns", 10**18, "length_ns 1000000000000000000: must be"),
    ("setup.nodes", 0, "nodes 0: must be"), ("setup.nodes", 17, "nodes 17: must be"),
    ("setup.store_kib", 8, "store_kib 8: must be"),
    ("setup.store_kib", 2**30, "store_kib 1073741824: must be"),
    ("setup.segment_kib", 63, "segment size"), ("setup.segment_kib", 96, "segment size 98304"),
    ("setup.quantum_ns", 0, "quantum_ns 0: must be 1 to"),
    ("setup.quantum_ns", -5, "quantum_ns -5: must be 1"),
    ("setup.control_delay_most_ns", -1, "control_delay_most_ns -1: must be 0 to"),
    ("setup.bad_disk", -2, "bad_disk -2: must be -1 to"), ("setup.bad_disk", 9, "bad_disk 9: must be -1 to"),
    ("setup.drift_ppm", [], "number of drift_ppm 0: must be"),
    ("setup.drift_ppm.0", -1_000_000, "drift_ppm -1000000: must be"),
    ("setup.volumes", [], "number of volumes 0: must be 1 to"),
    ("setup.volumes.0.name", "", "volume name ''"), ("setup.volumes.0.size_blocks", 0, "size_blocks"),
    ("setup.volumes.0.size_blocks", 10**7, "size_blocks of all volumes 10000"),
    ("setup.volumes.0.copies", 0, "copies 0: must be 1 to"),
    ("setup.volumes.0.copies", 5, "copies 5: must be"),
    ("setup.volumes.0.min_copies", 0, "min_copies 0: must be"),
    ("setup.volumes.0.min_copies", 4, "min_copies 4: must be"),
    ("setup.volumes.0.first_node", 4, "first_node 4: must be 0 to"),
    ("setup.volumes.0.through", "n9", "through 'n9': must be n1 to n"),
    ("setup.volumes.0.depth", 0, "depth 0: must be 1 to"),
    ("setup.volumes.0.block_bytes", 0, "block_bytes 0: must be 512 or 4096"),
    ("faults.0.at_ns", -1, "at_ns of a fault -1: must be 0 to"),
    ("faults.0.kind", "rust", "fault kind 'rust': must be one of kill,"),
    ("faults.0.node", "n5", "node of a fault 'n5'"), ("faults.0.other", "", "other node of a fault ''"),
    ("faults.0.duration_ns", -1, "duration_ns of a fault -1: must be"),
    ("faults.0.duration_ns", 10**12, "duration_ns of a fault 1000000000000: must be"),
    ("faults.0.share", -0.5, "share -0.5 of a fault: must be"), ("faults.0.share", 1, "share 1.0 of a fault"),
    ("faults.0.share", float("nan"), "is not a plan"),
    ("faults.0.share", float("inf"), "is not a plan"),
    ("asks.0.0", -1, "at_ns of an ask -1: must be 0"), ("asks.0.0", 10**14, "at_ns of an ask 1000"),
    ("asks.0.1", 5, "volume of an ask 5: must be"),
    ("lenght_ns", 5, "unknown field `lenght_ns`"), ("setup.node", 3, "unknown field `node` - at `$.setup`"),
    ("setup.volumes.0.block_size", 512, "unknown field `block_size` - at `$.setup.volumes[0]`"),
    ("faults.0.sahre", 0.5, "unknown field `sahre` - at `$.faults[0]`"),
    ("asks.0", [0, 0, 2, 0, 1, False, 7], "is not a plan: Expected `array` of at most length 6"),
    ("asks.0.2", 9, "ask kind 9: must be one of 1 (read), 2 (w"),
    ("asks.0", [0, 0, 2, 0, 0, False], "blocks of an ask 0: must be 1 to"),
    ("asks.0", [0, 0, 2, 0, 65, False], "blocks of an ask 65: must be 1 to 64"),
    ("asks.0", [0, 0, 2, -1, 1, False], "blocks -1+1 of an ask: must be 0 to"),
    ("asks.0", [0, 0, 3, 1, 7, False], "blocks 1+7 of an ask of kind 3: must be multiples of 8"),
]


@pytest.mark.parametrize(("place", "value", "said"), IMPOSSIBLE, ids=lambda value: str(value)[:40])
def test_a_value_that_cannot_be_run_is_named_with_its_limit(
        place: str, value: object, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch) -> None:
    assert plan_with(SECTORS, [], None, tmp_path) == SECTORS
    with pytest.raises(errors.ConfigError, match="there"):
        plan_with(SECTORS, place.split("."), value, tmp_path)
    monkeypatch.setattr("repstore.sim.run.run", lambda plan: pytest.fail("it is run"))
    assert command(["sim", "--plan", str(tmp_path / "plan")]) == 64
    assert said in capsys.readouterr().err


def run_of_a_file(path: Path) -> tuple[int, str]:
    """Exit code and complaints of `sim --plan`, with no more memory or time than any plan needs."""
    # the shadow of a sanitizer is terabytes of addresses
    limit = -1 if os.environ.get("REPSTORE_SANITIZED") else 2 << 30
    program = (f"import resource; resource.setrlimit(resource.RLIMIT_AS, ({limit}, {limit})); "
               "import sys; from repstore.cli.app import run; sys.exit(run(sys.argv[1:]))")
    done = subprocess.run([sys.executable, "-c", program, "sim", "--plan", str(path)],
                          capture_output=True, text=True, timeout=60)
    return done.returncode, done.stderr


@pytest.mark.parametrize(("kind", "reason"), [
    ("directory", "is a directory: a plan must be a regular file"),
    ("pipe", "is a pipe: a plan must be a regular file"),
    ("zeros", "is a character device: a plan must be a regular file"),
    ("hole", f"is larger than {config.PLAN_BYTES_MAX} bytes: a plan must be smaller")])
def test_a_plan_without_a_near_end_is_refused_at_once(kind: str, reason: str, tmp_path: Path) -> None:
    path = Path("/dev/zero") if kind == "zeros" else tmp_path / "it"
    if kind == "hole":
        path.touch()
        os.truncate(path, 1 << 40)
    elif kind != "zeros":
        {"directory": os.mkdir, "pipe": os.mkfifo}[kind](path)
    assert run_of_a_file(path) == (64, f"repstore: {path}: {reason}\n")


def test_the_plan_of_every_seed_is_far_smaller_than_the_limit() -> None:
    assert max(len(plans.encode(draw(seed))) for seed in range(50)) < config.PLAN_BYTES_MAX / 50


@pytest.mark.parametrize(("save", "trace"), [
    ("new", "new"), ("new", "./new"), ("new", "to new"), ("old", "to old"), ("old", "hard link")])
def test_plan_and_trace_are_not_written_to_one_file(
        save: str, trace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    Path("old").touch()
    Path("hard link").hardlink_to("old")
    for name in ("old", "new"):
        Path(f"to {name}").symlink_to(name)
    assert command(["sim", "--seed", "1", "--save", save, "--trace", trace]) == 64
    assert f"--save {save}, --trace {Path(trace)}: must be two files" in capsys.readouterr().err


def plan_with(plan: Plan, place: list[str], value: object, directory: Path) -> Plan:
    """A plan that says something else in one place, written down and read again."""
    content = json.loads(plans.encode(plan))
    at = content
    for part in place[:-1]:
        at = at[int(part) if part.isdigit() else part]
    for part in place[-1:]:
        at[int(part) if part.isdigit() else part] = value
    (directory / "plan").write_text(json.dumps(content))
    return plans.decode((directory / "plan").read_bytes(), "there")


def test_a_plan_that_would_accuse_a_cluster_of_what_no_cluster_can_do_is_refused(tmp_path: Path) -> None:
    volumes = json.loads(plans.encode(SECTORS))["setup"]["volumes"]
    with pytest.raises(errors.ConfigError, match="each must have its own"):
        plan_with(SECTORS, ["setup", "volumes"], [{**volumes[0], "size_blocks": 8}] * 2, tmp_path)
    with pytest.raises(errors.ConfigError, match="min_copies 1: must be 2 to"):
        plan_with(BAD_DISK, ["setup", "volumes", "0", "min_copies"], 1, tmp_path)
    faults = [{**json.loads(plans.encode(BAD_DISK))["faults"][0], "kind": "lost write", "node": "n2"}]
    with pytest.raises(errors.ConfigError, match="'lost write' of n2: must strike bad_disk, 0"):
        plan_with(BAD_DISK, ["faults"], faults, tmp_path)


def test_whatever_a_seed_draws_and_once_found_a_bug_can_be_run() -> None:
    for plan in [*map(draw, range(200)), *(msgspec.convert(entry["plan"], Plan) for entry in CORPUS)]:
        plans.check(plan, "there")


def test_the_shortest_list_has_what_it_takes_and_no_more() -> None:
    tried = []

    def fails(parts: object) -> bool:
        tried.append(parts)
        return {3, 77} <= set(parts)                   # type: ignore[call-overload]

    assert list(shortest(range(100), fails)) == [3, 77]
    assert len(tried) < 80


INTERRUPTED = """
import os, sys
from repstore.cli.app import run
from repstore.sim import minimize
from repstore.sim.oracles import Oracle
from repstore.sim.workload import SimulatedClient

number, after_runs = int(sys.argv[1]), int(sys.argv[2])
check, check_read, run_once, looks, runs = Oracle.check, SimulatedClient._check_read, minimize.run, [0], [0]

def interrupt_in_the_middle(self):
    looks[0] += 1
    if runs[0] == after_runs and looks[0] > 5:
        os.kill(os.getpid(), number)
    check(self)

def count(plan):
    runs[0] += 1
    return run_once(plan)

def expect_too_much(self, operation):
    if after_runs and self.expectation.may.get(3, {0}) != {0}:
        self.expectation.may[3] = {4711}
    check_read(self, operation)

Oracle.check, minimize.run, SimulatedClient._check_read = interrupt_in_the_middle, count, expect_too_much
sys.exit(run(["sim", *sys.argv[3:]]))
"""


def interrupted_run(number: signal.Signals, after_runs: int, *arguments: str) -> tuple[int, str, str]:
    """Code, output and complaints of a single run that gets a signal in the middle: of the run, or of the
    shortening after so many of its runs."""
    done = subprocess.run([sys.executable, "-c", INTERRUPTED, str(int(number)), str(after_runs), *arguments],
                          capture_output=True, text=True, timeout=300)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_interrupted_says_so(number: signal.Signals, tmp_path: Path) -> None:
    saved, trace = tmp_path / "plan", tmp_path / "trace"
    arguments = ["--seed", "1", "--save", str(saved), "--trace", str(trace), "--minimize"]
    code, out, err = interrupted_run(number, 0, *arguments)
    assert (code, out) == (130, "")
    assert "seed 1: interrupted, nothing was broken so far" in err
    assert plans.decode(saved.read_bytes(), "saved") == draw(1)
    assert not trace.exists()
    code, out, _ = interrupted_run(number, 0, "--seed", "1", "--json")
    said = json.loads(out)
    assert (code, said["seed"], said["failure"], said["interrupted"]) == (130, 1, "", True)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_shortening_that_is_interrupted_keeps_how_far_it_came(
        number: signal.Signals, tmp_path: Path) -> None:
    saved, trace = tmp_path / "plan", tmp_path / "trace"
    arguments = ["--seed", "1", "--save", str(saved), "--trace", str(trace), "--minimize", "--json"]
    code, out, err = interrupted_run(number, 7, *arguments)
    said = json.loads(out)
    assert (code, said["interrupted"], kind_of(said["failure"])) == (1, True, "W1")
    assert f"interrupted, it is known to fail: {said['failure']}" in err
    shorter = plans.decode(saved.read_bytes(), "saved")
    assert len(shorter.asks) == said["planned_operations"] < len(draw(1).asks)
    assert trace.read_text()


@pytest.mark.parametrize("option", ["--save", "--trace"])
@pytest.mark.parametrize("failure", ["", "it is broken (W1)"])
def test_the_verdict_is_told_though_a_file_cannot_be_written(
        option: str, failure: str, monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str]) -> None:
    outcome = run(msgspec.structs.replace(draw(1), faults=(), asks=()))
    monkeypatch.setattr("repstore.sim.run.run", lambda plan: replace(outcome, failure=failure))
    assert command(["sim", "--seed", "1", option, "/dev/full"]) == (1 if failure else 64)
    said = capsys.readouterr()
    assert f"seed 1: {'FAILED' if failure else 'ok'}" in said.out
    assert "repstore: /dev/full: could not be written: No space left on device\n" in said.err


def test_only_files_of_ours_are_written_over(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    diary, saved, trace = tmp_path / "diary", tmp_path / "plan", tmp_path / "trace"
    diary.write_text("{Dear diary")
    outcome = run(msgspec.structs.replace(draw(1), faults=(), asks=()))
    with monkeypatch.context() as patch:
        patch.setattr("repstore.sim.run.run", lambda plan: outcome)
        for option in ("--save", "--trace"):
            assert command(["sim", "--seed", "1", option, str(diary)]) == 64
            assert "is there already, and is no" in capsys.readouterr().err
        for _ in range(2):
            assert command(["sim", "--seed", "1", "--save", str(saved), "--trace", str(trace)]) == 0
        assert command(["sim", "--seed", "1", "--save", str(trace)]) == 64
        assert command(["sim", "--seed", "1", "--trace", str(saved)]) == 64
    assert diary.read_text() == "{Dear diary"
    assert plans.decode(saved.read_bytes(), "saved") == draw(1)


def test_a_worker_that_dies_is_told_and_what_was_done_is_not_lost(
        monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    add = Summary.add

    def add_and_kill_one(self: Summary, outcome: Outcome) -> None:
        add(self, outcome)
        if self.seeds == 1:
            worker = multiprocessing.active_children()[0]
            assert worker.pid is not None
            os.kill(worker.pid, signal.SIGKILL)

    monkeypatch.setattr(Summary, "add", add_and_kill_one)
    assert command(["sim", "--seeds", "1..9999", "--jobs", "2", "--json"]) == 2
    said = capsys.readouterr()
    found = json.loads(said.out)
    assert (found["worker_died"], found["interrupted"], found["failures"]) == (True, False, [])
    assert found["seeds"] >= 1
    assert found["seeds"] + found["not_run"] == 9999
    assert "a worker died" in said.err
    assert multiprocessing.active_children() == []


def test_what_the_workers_had_done_when_it_was_interrupted_is_counted() -> None:
    def interrupt(summary: Summary) -> None:
        if summary.seeds == 1:
            raise KeyboardInterrupt

    summary = run_seeds(range(1, 10_000), 2, interrupt)
    assert summary.interrupted
    # the rest of the first chunk, at least
    assert seeds.CHUNK_SEEDS <= summary.seeds < 10 * seeds.CHUNK_SEEDS
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_seeds_that_were_not_begun_in_time_are_counted(
        jobs: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["sim", "--seeds", "1..9999", "--jobs", jobs, "--minutes", "0.01"]
    assert command([*arguments, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["seeds"] + found["not_run"] == 9999
    assert found["not_run"] > 9000
    assert command(arguments) == 0
    assert "of 9999 seeds were not run: the time was over" in capsys.readouterr().out


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


def test_everything_is_looked_at_whenever_a_config_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    check, looks = Oracle.check, []

    def look(self: Oracle) -> None:
        config = self._scene.cluster.volume(self._scene.plan.setup.volumes[0].name)
        looks.append((config.epoch, config.in_sync_nodes()))
        check(self)

    monkeypatch.setattr(Oracle, "check", look)
    monkeypatch.setattr("repstore.sim.run.CHECK_NS", 10**15)
    assert run(killed_once(draw(3))).failure == ""
    # without those at changes there are three: in the beginning, of the fault, at the end
    assert [epoch for epoch, _ in looks].count(2) >= 2
    assert len(looks) > 3


def killed_once(plan: Plan) -> Plan:
    """The same, but that its first primary is killed, and nothing else goes wrong."""
    first = f"n{plan.setup.volumes[0].first_node + 1}"
    return msgspec.structs.replace(plan, faults=(Fault(NS_PER_S, "kill", first, first, NS_PER_S, 0.5),))


def test_two_leaders_of_an_epoch_are_seen_however_short_they_lead(monkeypatch: pytest.MonkeyPatch) -> None:
    class Contradicting(dict[int, str]):
        def setdefault(self, epoch: int, process: str) -> str:         # type: ignore[override]
            return "another"

    begin = Oracle.__init__

    def without_looks(self: Oracle, scene: Scene) -> None:
        begin(self, scene)
        for promises in self._promises:
            promises.leaders = Contradicting()

    monkeypatch.setattr(Oracle, "__init__", without_looks)
    monkeypatch.setattr(Oracle, "check", lambda self: None)
    assert kind_of(failing(killed_once(draw(8))).failure) == "O4"


@pytest.mark.parametrize("mended", [False, True])
def test_the_oracle_sees_a_store_that_is_not_whole(monkeypatch: pytest.MonkeyPatch, mended: bool) -> None:
    """Also where something was damaged, and everything is to be good again."""
    compare_copies = Oracle.compare_copies

    def rot_and_compare(self: Oracle) -> None:
        if mended:
            self._scene.damage.blocks.add((1, 0))
            self._scene.damage.must_recover = True
        disk = self._scene.nodes[0].disk
        for block in data_blocks(disk.image):          # some are replaced by what the log says
            disk.image[block.location * BLOCK_SIZE + 9] ^= 1
        compare_copies(self)

    monkeypatch.setattr(Oracle, "compare_copies", rot_and_compare)
    assert kind_of(failing(msgspec.structs.replace(draw(8), faults=())).failure) == "O7"
