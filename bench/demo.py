"""The demo: a real filesystem on three copies, the primary killed under a writing client.

    python -m bench.demo [--source DIR] [--data DIR] [--seconds S] [--keep]

    files > ext4 image > nbdcopy in > a writer through node A | kill -9 the primary | failover
          > the dead node returns, resync by delta > nbdcopy out through node B
          > e2fsck -fn, SHA-256 of every file, every acknowledged write

The writer works behind the filesystem, in the same volume: a volume has one attach at a time,
so copy, writer and read-back follow each other, and a filesystem that somebody else wrote to
would not be one. What the writer adds goes through the log, the copies and the resync that
also carry the filesystem, so damage to either shows.

PASS and exit code 0 only if everything held; else FAIL, exit code 1, and the data stays.
"""
from __future__ import annotations

import argparse
import contextlib
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from bench import demo_files, demo_history
from bench.demo_cluster import Cluster, ClusterError, Health
from bench.demo_files import FileSystem, ToolError
from bench.demo_history import Mark
from bench.demo_writer import BLOCK_BYTES, JOURNAL_RECORD

VOLUME = "demo"
COPIES = 3
REGION_BYTES = 64 << 20           # the writer's, behind the filesystem
PHASE_S = 6.0                     # writing before the kill, with a node missing, and at the end
PHASE_S_MIN, PHASE_S_MAX = 0.5, 600.0
LOOK_S = 0.1                      # between two looks at the cluster
SHOW_S = 1.0                      # between two lines of progress
FAILOVER_TIMEOUT_S = 30.0
RESYNC_TIMEOUT_S = 60.0
WRITER_STOP_TIMEOUT_S = 60.0
SAFE_COPY = ("nbdcopy", "--flush")


class DemoError(Exception):
    """The run cannot go on."""


@dataclass
class Findings:
    """What was promised, and whether it held."""
    failed: list[str] = field(default_factory=list)
    begun_s: float = field(default_factory=time.monotonic)

    def say(self, text: str) -> None:
        """One line of progress."""
        print(f"{time.monotonic() - self.begun_s:6.1f} s  {text}", flush=True)

    def check(self, holds: bool, promise: str, details: list[str] | None = None) -> None:
        """Note a promise; `details` say what is wrong."""
        self.say(f"{'ok  ' if holds else 'FAIL'}  {promise}")
        if not holds:
            self.failed.append(promise)
        for detail in (details or [])[:demo_history.SHOWN]:
            self.say(f"        {detail}")


@dataclass
class WriterProcess:
    """The client, and how far it is."""
    process: subprocess.Popen[bytes]
    journal: Path
    first_block: int
    blocks: int

    def acknowledged(self) -> int:
        """Writes in the journal so far."""
        return self.journal.stat().st_size // JOURNAL_RECORD.size if self.journal.exists() else 0

    def check_alive(self) -> None:
        """DemoError: a client must not see an error, whatever happens to a node."""
        if self.process.poll() is not None:
            raise DemoError(f"the writer ended with {self.process.returncode}")

    def stop(self) -> None:
        """Let it finish what is under way."""
        self.process.terminate()
        code = self.process.wait(WRITER_STOP_TIMEOUT_S)
        if code:
            raise DemoError(f"the writer ended with {code}")


@dataclass
class Demo:
    """One run: the cluster, its client, and what was found."""
    work: Path
    phase_s: float
    findings: Findings
    cluster: Cluster
    files: FileSystem
    marks: list[Mark] = field(default_factory=list)

    def run(self) -> None:
        """All of it, from the first byte copied to the last one compared."""
        victim = self.cluster.primary
        writers_node, readers_node = (name for name in sorted(self.cluster.uris) if name != victim)
        self.findings.say(f"nbdcopy: filesystem into the volume, through {victim}")
        demo_files.run_tool(*SAFE_COPY, self.files.image, self.cluster.uris[victim])
        with self.writing(writers_node) as writer:
            self.watch(writer, self.phase_s)
            self.kill(victim, writer)
            self.watch(writer, self.phase_s)
            self.bring_back(victim, writer)
            self.watch(writer, self.phase_s)
            writer.stop()
        # the nodes tell of themselves now and then: by now they have told of the resync
        self.report(writer, self.settled())
        self.read_back(readers_node, writer)

    @contextlib.contextmanager
    def writing(self, node: str) -> Iterator[WriterProcess]:
        """A writer attached through `node`; gone at the end, come what may."""
        first_block = self.files.size_bytes // BLOCK_BYTES
        blocks = REGION_BYTES // BLOCK_BYTES
        journal = self.work / "acknowledged.journal"
        process = subprocess.Popen(
            [sys.executable, "-m", "bench.demo_writer", self.cluster.uris[node], str(journal),
             "--first-block", str(first_block), "--blocks", str(blocks)], stdin=subprocess.DEVNULL)
        try:
            self.findings.say(f"a writer, process {process.pid}, attaches through {node}")
            writer = WriterProcess(process, journal, first_block, blocks)
            self.until(lambda: writer.acknowledged() > 0, writer, FAILOVER_TIMEOUT_S, "the first write")
            yield writer
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()

    def kill(self, victim: str, writer: WriterProcess) -> None:
        """The primary dies in the middle of writes; another one must lead."""
        before = self.cluster.health()
        self.marks.append(Mark(time.monotonic_ns(), f"kill -9 {victim}", "tab:red"))
        self.cluster.kill(victim)
        self.findings.say(f"kill -9: {victim}, the primary")

        def led_anew() -> bool:
            now = self.cluster.health()
            return now.epoch > before.epoch and now.primary not in ("", victim)

        self.until(led_anew, writer, FAILOVER_TIMEOUT_S, "a new primary")
        now = self.cluster.health()
        self.findings.say(f"failover: {now.primary} leads epoch {now.epoch}, "
                          f"in sync: {' '.join(now.in_sync)}")

    def bring_back(self, victim: str, writer: WriterProcess) -> None:
        """The dead node returns and is given what it missed."""
        self.marks.append(Mark(time.monotonic_ns(), f"{victim} returns", "tab:purple"))
        self.cluster.start_node(victim)
        self.findings.say(f"{victim} is started again")

        def whole() -> bool:
            now = self.cluster.health()
            return victim in now.in_sync and len(now.in_sync) == COPIES

        self.until(whole, writer, RESYNC_TIMEOUT_S, "three copies in sync")
        self.marks.append(Mark(time.monotonic_ns(), "in sync", "tab:green"))
        self.findings.say(f"{victim} is in sync again")

    def watch(self, writer: WriterProcess, seconds: float) -> None:
        """Let the writer work, and show how it goes."""
        until_s = time.monotonic() + seconds
        self.until(lambda: time.monotonic() >= until_s, writer, seconds + 1, "the time to pass")

    def until(self, holds: Callable[[], bool], writer: WriterProcess, timeout_s: float, what: str) -> None:
        """Wait for something while the writer works, with a line of progress now and then."""
        deadline_s = time.monotonic() + timeout_s
        shown_s, shown_count = time.monotonic(), writer.acknowledged()
        while not holds():
            writer.check_alive()
            if time.monotonic() > deadline_s:
                raise DemoError(f"waited {timeout_s:.0f} s for {what}")
            time.sleep(LOOK_S)
            if time.monotonic() - shown_s >= SHOW_S:
                count = writer.acknowledged()
                rate = (count - shown_count) / (time.monotonic() - shown_s)
                self.findings.say(f"      {count:9,} writes acknowledged, {rate:7,.0f} a second")
                shown_s, shown_count = time.monotonic(), count

    def report(self, writer: WriterProcess, health: Health) -> None:
        """The pause the client saw, and what the resync moved."""
        records = demo_history.read_journal(writer.journal)
        killed, returned, joined = (mark.at_ns for mark in self.marks)
        pause_s = demo_history.longest_pause_s(records, killed, returned)
        changed_bytes = demo_history.blocks_changed(records, killed, joined) * BLOCK_BYTES
        writers_bytes = demo_history.blocks_changed(records, 0, joined) * BLOCK_BYTES
        volume_bytes = self.files.size_bytes + REGION_BYTES
        self.findings.say(f"pause: the client waited {pause_s * 1000:.0f} ms at most around the kill")
        self.findings.say(f"resync: {mebibytes(health.resynced_bytes)} moved; {mebibytes(changed_bytes)} "
                          f"changed since the kill; the volume has {mebibytes(volume_bytes)}")
        plot = self.work / "demo.png"
        demo_history.draw(records, self.marks, plot)
        self.findings.check(0 < health.resynced_bytes <= writers_bytes,
                            "the resync moved what the writer had changed, and nothing else")
        self.findings.check(health.exit_code == 0, "the cluster is healthy again")

    def settled(self) -> Health:
        """The cluster's health, once the nodes have told of their last changes."""
        deadline_s = time.monotonic() + FAILOVER_TIMEOUT_S
        while (now := self.cluster.health()).exit_code and time.monotonic() < deadline_s:
            time.sleep(LOOK_S)
        return now

    def read_back(self, node: str, writer: WriterProcess) -> None:
        """Everything out again through a third node, and compared."""
        self.findings.say(f"nbdcopy: the volume out again, through {node}")
        image = self.work / "readback.ext4"
        demo_files.run_tool("nbdcopy", self.cluster.uris[node], image)
        records = demo_history.read_journal(writer.journal)
        wrong = demo_history.check_region(image, records, writer.first_block, writer.blocks)
        self.findings.check(not wrong, f"all {len(records):,} acknowledged writes are there", wrong)
        try:
            demo_files.check_filesystem(image)
            wrong = []
        except ToolError as error:
            wrong = str(error).splitlines()
        self.findings.check(not wrong, "e2fsck -fn finds nothing", wrong)
        wrong = demo_files.check_files(image, self.files.manifest, self.work)
        count = len(self.files.manifest)
        self.findings.check(not wrong, f"all {count:,} files have the SHA-256 they had", wrong)


def mebibytes(size_bytes: int) -> str:
    return f"{size_bytes / 2**20:,.1f} MiB"


def run(source: Path, work: Path, phase_s: float, findings: Findings) -> None:
    """Set up, run, take down."""
    demo_files.check_tools()
    findings.say(f"packing {source} into an ext4 image")
    files = demo_files.pack(source, work)
    size_bytes = files.size_bytes + REGION_BYTES
    findings.say(f"{len(files.manifest):,} files, image {mebibytes(files.size_bytes)}; "
                 f"starting {COPIES} nodes for a volume of {mebibytes(size_bytes)}")
    cluster = Cluster(work / "cluster", VOLUME, size_bytes, nodes=COPIES, copies=COPIES)
    findings.say(f"nodes: {' '.join(f'{name} ({pid})' for name, pid in cluster.pids.items())}, "
                 f"primary {cluster.primary}")
    try:
        Demo(work, phase_s, findings, cluster, files).run()
    except BaseException:
        with contextlib.suppress(ClusterError):
            cluster.stop()
        raise
    cluster.stop()
    findings.say("the cluster has stopped cleanly")


def tidy(work: Path) -> None:
    """A good run leaves its plot and its journal, not gigabytes."""
    shutil.rmtree(work / "cluster")
    for name in ("filesystem.ext4", "readback.ext4"):
        (work / name).unlink()


def parse(words: list[str] | None) -> argparse.Namespace:
    """What was asked for, refused before anything is made if it cannot be."""
    parser = argparse.ArgumentParser(prog="python -m bench.demo", description="A cluster loses its primary.")
    parser.add_argument("--source", type=Path, default=Path(sysconfig.get_path("stdlib")),
                        help="directory with the files to store (the standard library)")
    parser.add_argument("--data", type=Path,
                        help="where to work; must be empty (a new temporary directory)")
    parser.add_argument("--seconds", type=float, default=PHASE_S,
                        help=f"of each of three phases ({PHASE_S:.0f})")
    parser.add_argument("--keep", action="store_true", help="keep stores and images of a good run too")
    options = parser.parse_args(words)
    if not options.source.is_dir():
        parser.error(f"--source {options.source}: is not a directory")
    if options.data is not None and options.data.exists() and \
            (not options.data.is_dir() or any(options.data.iterdir())):
        parser.error(f"--data {options.data}: must be an empty directory, or not be there")
    if not PHASE_S_MIN <= options.seconds <= PHASE_S_MAX:
        parser.error(f"--seconds {options.seconds}: must be {PHASE_S_MIN} to {PHASE_S_MAX:.0f}")
    return options


def prepare(data: Path | None) -> Path:
    """A directory of ours."""
    if data is None:
        return Path(tempfile.mkdtemp(prefix="repstore-demo-"))
    data.mkdir(parents=True, exist_ok=True)
    return data.resolve()


def main(words: list[str] | None = None) -> int:
    """Exit code 0: PASS, 1: FAIL."""
    options = parse(words)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit("demo: told to stop"))
    findings = Findings()
    work = None
    try:
        work = prepare(options.data)
        run(options.source, work, options.seconds, findings)
    except (ClusterError, DemoError, ToolError, OSError, subprocess.SubprocessError) as error:
        findings.check(False, str(error))
    plot = None if work is None else work / "demo.png"
    if plot is not None and plot.exists():
        print(f"plot: {plot}")
    if findings.failed:
        print(f"data: {work}" if work else "data: nothing was written")
        print(f"FAIL: {findings.failed[0]}")
        return 1
    if work is not None and not options.keep:
        tidy(work)
    print("PASS")
    return 0


if __name__ == "__main__":
    sys.exit(main())
