"""Rows of served volumes: node processes of the `repstore` command, driven by fio over NBD.

  N1 One copy: the same fio job on our export and on that of qemu-nbd, each on a unix socket,
     each behind a volume of one size that was written from end to end.
  N2 Three copies: a batch call of `Cluster`, through the primary's socket, against fio writing in
     place to one file: no copies, no network, no server, no checksums.
  N3 A served volume fills its stores to 70 %, and part of it was overwritten, before it counts.
  N4 Runs are short, with a rest before each, in which the cleaner works ahead: a burst. The
     sustained row shows what is left when it has to keep pace: ours runs `SUSTAINED` times as long.
"""
from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import repstore
from bench.demo_cluster import Cluster
from bench.filled import AGED, Load
from bench.ratios import Pace, Result, Row, Side, compare
from bench.rivals import Fio, qemu_nbd, raw_file, warm
from repstore import Operation

VOLUME = "bench"
COPIES = 3

# with fio's word for the job, and its options
ONE_COPY_ROWS = {
    Row("nbd_read_qd32", "IOPS", 1.2, "qemu-nbd, same fio job"): ("randread", ()),
    Row("nbd_write_qd32", "IOPS", 1.2, "qemu-nbd, same fio job"): ("randwrite", ()),
    Row("nbd_write_qd32_fsync32", "IOPS", 1.2, "qemu-nbd, same fio job"): ("randwrite", ("--fsync=32",)),
}
SUSTAINED = 6
# with the volume's acknowledgement, what the one raw writer has to do as well, and how much
# longer than that one we write
COPIES_ROWS = {
    Row("copies3_write_qd32_dev", "IOPS", 0.5, "fio io_uring in place, one copy"): ("dev", (), 1),
    Row("copies3_write_qd32_durable", "IOPS", 0.5, "fio io_uring in place, one copy, fdatasync=1"):
        ("durable", ("--fdatasync=1",), 1),
    Row("copies3_write_qd32_dev_sustained", "IOPS", None, "fio io_uring in place, one copy"):
        ("dev", (), SUSTAINED),
}


def one_copy_rows(work: Path, pace: Pace, names: frozenset[str]) -> Iterator[Result]:
    """One node against qemu-nbd (N1)."""
    raw = raw_file(work / "qemu.raw", pace.volume_bytes)
    with closing(Served(work / "one", pace.volume_bytes, 1, "dev")) as served, \
            qemu_nbd(raw, work / "qemu.sock") as (rival_uri, rival_pid):
        for row, (rw, options) in ONE_COPY_ROWS.items():
            if row.name not in names:
                continue
            if rw == "randread":
                for path in (raw, *served.stores):
                    warm(path)
            ours = Fio(served.uri, rw, work, options)
            yield compare(row, pace, ours, replace(ours, target=rival_uri), (*served.pids, rival_pid))
    raw.unlink()


def copies_rows(work: Path, pace: Pace, names: frozenset[str]) -> Iterator[Result]:
    """Three nodes against one file (N2)."""
    raw = raw_file(work / "copies.raw", pace.copies_volume_bytes)
    for row, (acknowledgement, options, longer) in COPIES_ROWS.items():
        if row.name not in names:
            continue
        size_bytes = pace.copies_volume_bytes
        with closing(Served(work / row.name, size_bytes, COPIES, acknowledgement)) as served, \
                closing(repstore.Cluster(work / row.name)) as cluster:
            load = Load(cluster.volume(VOLUME))
            yield compare(row, pace, writer(load, longer), Fio(raw, "randwrite", work, options), served.pids)
    raw.unlink()


def writer(load: Load, longer: int) -> Side:
    """Random writes for so many times as long as we are told (N4)."""
    return lambda seconds: load.iops(Operation.WRITE, seconds * longer)


def fill(uri: str, work: Path, size_bytes: int) -> None:
    """Write every block, then half as many in random order (N3)."""
    Fio(uri, "write", work, block="128k", depth=8).run()
    Fio(uri, "randwrite", work).run(f"--io_size={round(size_bytes * AGED)}")


class Served:
    """A running cluster with one volume, filled (N3). Closing it removes its stores."""

    def __init__(self, directory: Path, size_bytes: int, copies: int, acknowledgement: str) -> None:
        self._cluster = Cluster(directory, VOLUME, size_bytes, copies, copies, ("--ack", acknowledgement))
        self.uri = self._cluster.uris[self._cluster.primary]
        self.pids = tuple(self._cluster.pids.values())
        self.stores = tuple(directory.glob("*.store"))
        try:
            fill(self.uri, directory, size_bytes)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Stop the nodes."""
        self._cluster.stop()
        for path in self.stores:
            path.unlink()
