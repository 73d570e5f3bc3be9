"""What the writer was told, and what is there: the journal read, checked and drawn."""
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bench.demo_writer import BLOCK_BYTES, JOURNAL_RECORD, STAMP, STAMP_MAGIC

RECORD = np.dtype([("sequence", "<u8"), ("block", "<u8"), ("sent_ns", "<u8"), ("acknowledged_ns", "<u8")])
assert RECORD.itemsize == JOURNAL_RECORD.size
BIN_S = 0.1
CHECK_BLOCKS = 4096               # read back 16 MiB at a time
SHOWN = 5                         # of what is wrong, so many are named

Records = npt.NDArray[np.void]


@dataclass(frozen=True)
class Mark:
    """A moment of the run that the plot names."""
    at_ns: int
    text: str
    colour: str


def read_journal(path: Path) -> Records:
    """All whole records so far; the writer may still be appending."""
    if not path.exists():
        return np.empty(0, RECORD)
    data = path.read_bytes()
    return np.frombuffer(data[:len(data) - len(data) % RECORD.itemsize], RECORD)


def longest_pause_s(records: Records, from_ns: int, until_ns: int) -> float:
    """The longest time without an acknowledgement that touches the given span."""
    times = np.sort(records["acknowledged_ns"]).astype(np.int64)
    gaps = np.diff(times)
    touching = (times[1:] >= from_ns) & (times[:-1] <= until_ns)
    return float(gaps[touching].max()) / 1e9 if touching.any() else float("inf")


def blocks_changed(records: Records, from_ns: int, until_ns: int) -> int:
    """Different blocks acknowledged in a span of time."""
    inside = (records["acknowledged_ns"] >= from_ns) & (records["acknowledged_ns"] <= until_ns)
    return len(np.unique(records["block"][inside]))


def last_acknowledged(records: Records, first_block: int, blocks: int) -> npt.NDArray[np.uint64]:
    """For every block of the region the sequence number of its last write; 0: never written."""
    newest = np.zeros(blocks, np.uint64)
    np.maximum.at(newest, records["block"].astype(np.int64) - first_block, records["sequence"])
    return newest


def check_region(image: Path, records: Records, first_block: int, blocks: int) -> list[str]:
    """Compare the region with the journal, byte for byte. Returns what is wrong, empty if all is
    there: never written means zeros."""
    wanted = last_acknowledged(records, first_block, blocks)
    wrong: list[str] = []
    with image.open("rb") as file:
        file.seek(first_block * BLOCK_BYTES)
        for start in range(0, blocks, CHECK_BLOCKS):
            count = min(CHECK_BLOCKS, blocks - start)
            data = file.read(count * BLOCK_BYTES)
            if len(data) != count * BLOCK_BYTES:
                return [f"{image}: ends before block {first_block + start + count}"]
            found = np.frombuffer(data, "<u8").reshape(count, BLOCK_BYTES // STAMP.size, 4)
            expected = expected_stamps(wanted[start:start + count], first_block + start)
            for i in np.flatnonzero((found != expected[:, None, :]).any(axis=(1, 2))):
                last = wanted[start + i]
                wrong.append(f"block {first_block + start + i}: {f'write {last}' if last else 'no write'} "
                             f"was acknowledged last, found {describe(found[i])}")
    return wrong


def expected_stamps(sequences: npt.NDArray[np.uint64], first_block: int) -> npt.NDArray[np.uint64]:
    """The stamp that fills each block, as four numbers."""
    magic = np.uint64(STAMP_MAGIC)
    numbers = np.arange(first_block, first_block + len(sequences), dtype=np.uint64)
    stamps = np.stack([np.full_like(numbers, magic), sequences, numbers, magic + sequences + numbers], axis=1)
    stamps[sequences == 0] = 0
    return stamps


def describe(found: npt.NDArray[np.uint64]) -> str:
    """A block that is not what it should be, in words."""
    if not found.any():
        return "zeros"
    if (found != found[0]).any():
        return f"a mix of {len(np.unique(found, axis=0))} stamps"
    magic, sequence, block, total = (int(number) for number in found[0])
    if magic == STAMP_MAGIC and total == magic + sequence + block:
        return f"write {sequence} of block {block}"
    return "foreign bytes"


def draw(records: Records, marks: list[Mark], path: Path) -> None:
    """IOPS and latency over the run, with the marks, as a PNG."""
    import matplotlib
    matplotlib.use("Agg")
    from matplotlib import pyplot

    begun_ns = int(records["acknowledged_ns"].min())
    finished_s = (records["acknowledged_ns"] - begun_ns) / 1e9
    latency_ms = (records["acknowledged_ns"] - records["sent_ns"]) / 1e6
    bins = np.arange(0, finished_s.max(), BIN_S)          # the last, unfinished bin is left out
    counts, _ = np.histogram(finished_s, bins)
    place = np.digitize(finished_s, bins)
    filled = np.unique(place[place < len(bins)])

    figure, (upper, lower) = pyplot.subplots(2, 1, sharex=True, figsize=(11, 7), layout="constrained")
    upper.step(bins[:-1], counts / BIN_S, where="post", color="tab:blue")
    upper.set_ylabel("acknowledged writes per second")
    upper.set_ylim(bottom=0)
    upper.set_title("4 KiB random writes to a volume of three copies while its primary is killed")
    for share, colour in ((50, "tab:green"), (99, "tab:orange"), (100, "tab:red")):
        values = [np.percentile(latency_ms[place == i], share) for i in filled]
        name = "longest" if share == 100 else f"p{share}"
        lower.plot(filled * BIN_S - BIN_S / 2, values, ".-", color=colour, label=name, linewidth=0.8)
    lower.set_yscale("log")
    lower.set_ylabel("latency, ms")
    lower.set_xlabel("seconds since the first acknowledged write")
    for mark in marks:
        at_s = (mark.at_ns - begun_ns) / 1e9
        for axis in (upper, lower):
            axis.axvline(at_s, color=mark.colour, linestyle="--", linewidth=1)
        upper.annotate(mark.text, (at_s, 0.97), xycoords=("data", "axes fraction"), rotation=90,
                       va="top", ha="right", color=mark.colour, fontsize=9,
                       bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1})
    lower.legend(loc="upper right", ncols=3)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
