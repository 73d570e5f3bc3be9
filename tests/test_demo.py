"""The demo finds what it looks for: a run that passes, and every kind of damage noticed."""
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bench import demo, demo_files, demo_history
from bench.demo_writer import BLOCK_BYTES, JOURNAL_RECORD, content

ROOT = Path(__file__).resolve().parents[1]
FIRST_BLOCK, BLOCKS = 4, 8
# sequence, block: block 5 was written twice, block 11 never
WRITES = [(1, 4), (2, 5), (3, 6), (4, 5), (5, 10)]
RUN_TIMEOUT_S = 300


@pytest.fixture
def journal(tmp_path: Path) -> demo_history.Records:
    path = tmp_path / "journal"
    path.write_bytes(b"".join(JOURNAL_RECORD.pack(sequence, block, sequence * 10**9, sequence * 10**9 + 5)
                              for sequence, block in WRITES) + b"half a record")
    return demo_history.read_journal(path)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    data = bytearray((FIRST_BLOCK + BLOCKS) * BLOCK_BYTES)
    for sequence, block in WRITES:
        put(data, block, content(sequence, block))
    path = tmp_path / "image"
    path.write_bytes(data)
    return path


def put(data: bytearray, block: int, bytes_: bytes) -> None:
    data[block * BLOCK_BYTES:block * BLOCK_BYTES + len(bytes_)] = bytes_


def test_what_was_acknowledged_and_is_there_is_no_finding(image: Path, journal: demo_history.Records) -> None:
    assert len(journal) == len(WRITES)
    assert demo_history.check_region(image, journal, FIRST_BLOCK, BLOCKS) == []


@pytest.mark.parametrize(("block", "damage", "found"), [
    (6, bytes(BLOCK_BYTES), "write 3 was acknowledged last, found zeros"),
    (5, content(2, 5), "write 4 was acknowledged last, found write 2 of block 5"),
    (10, content(3, 6), "write 5 was acknowledged last, found write 3 of block 6"),
    (5, content(2, 5)[:512], "write 4 was acknowledged last, found a mix of 2 stamps"),
    (11, content(6, 11), "no write was acknowledged last, found write 6 of block 11"),
    (4, b"\xa5" * BLOCK_BYTES, "write 1 was acknowledged last, found foreign bytes"),
    (4, struct.pack("<Q", 1), "write 1 was acknowledged last, found a mix of 2 stamps"),
], ids=["lost", "stale", "misplaced", "torn", "from nowhere", "foreign", "one word"])
def test_a_write_that_is_not_there_is_found(image: Path, journal: demo_history.Records,
                                            block: int, damage: bytes, found: str) -> None:
    data = bytearray(image.read_bytes())
    put(data, block, damage)
    image.write_bytes(data)
    assert demo_history.check_region(image, journal, FIRST_BLOCK, BLOCKS) == [f"block {block}: {found}"]


def test_an_image_that_is_too_short_is_found(image: Path, journal: demo_history.Records) -> None:
    image.write_bytes(image.read_bytes()[:-1])
    assert demo_history.check_region(image, journal, FIRST_BLOCK, BLOCKS)


def test_the_pause_is_the_longest_gap_around_the_kill() -> None:
    records = np.zeros(5, demo_history.RECORD)
    records["acknowledged_ns"] = np.array([0, 3, 4, 6, 11]) * 10**9
    assert demo_history.longest_pause_s(records, 5 * 10**9, 7 * 10**9) == 5
    assert demo_history.longest_pause_s(records, 35 * 10**8, 45 * 10**8) == 2
    assert demo_history.longest_pause_s(records, 20 * 10**9, 30 * 10**9) == float("inf")


def test_a_missing_tool_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_files, "TOOL_PATH", "/nowhere")
    with pytest.raises(demo_files.ToolError, match=r"nbdcopy.*apt-get install e2fsprogs libnbd-bin"):
        demo_files.check_tools()


@pytest.mark.parametrize(("words", "complaint"), [
    (["--source", "nowhere"], "--source nowhere: is not a directory"),
    (["--data", "."], "--data .: must be an empty directory"),
    (["--seconds", "0.1"], "--seconds 0.1: must be 0.5 to 600"),
])
def test_what_cannot_be_is_refused_before_anything_is_made(
        words: list[str], complaint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "something").touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        demo.main(words)
    assert ended.value.code == 2
    assert complaint in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["something"]


def need_tools() -> None:
    try:
        demo_files.check_tools()
    except demo_files.ToolError as error:
        pytest.skip(str(error))


def small_tree(path: Path) -> Path:
    (path / "deep/deeper").mkdir(parents=True)
    (path / "one.txt").write_text("one\n" * 5000)
    (path / "deep/empty").touch()
    (path / "deep/deeper/two words").write_bytes(bytes(range(256)) * 64)
    (path / "deep/link").symlink_to("deeper/two words")
    return path


@pytest.mark.client
def test_a_changed_file_is_found_in_an_image(tmp_path: Path) -> None:
    need_tools()
    packed = demo_files.pack(small_tree(tmp_path / "tree"), tmp_path)
    assert len(packed.manifest) == 4
    demo_files.check_filesystem(packed.image)
    assert demo_files.check_files(packed.image, packed.manifest, tmp_path) == []
    changed = {**packed.manifest, "one.txt": "0" * 64, "gone": "1" * 64}
    findings = demo_files.check_files(packed.image, changed, tmp_path)
    assert [finding.partition(":")[0] for finding in findings] == ["gone", "one.txt"]


@pytest.mark.client
@pytest.mark.slow
def test_a_small_run_passes_and_leaves_its_plot_and_no_process(tmp_path: Path) -> None:
    need_tools()
    data = tmp_path / "demo"
    done = subprocess.run(
        [sys.executable, "-m", "bench.demo", "--source", str(small_tree(tmp_path / "tree")),
         "--data", str(data), "--seconds", "1"],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=RUN_TIMEOUT_S,
        check=False)
    assert done.returncode == 0, done.stdout
    assert done.stdout.splitlines()[-1] == "PASS"
    assert (data / "demo.png").read_bytes().startswith(b"\x89PNG")
    assert not list(data.glob("**/*.store"))
    commands = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
    assert not [command for command in commands if bytes(data) in command]
