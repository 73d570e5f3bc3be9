"""`repstore check verify`."""
from __future__ import annotations

import dataclasses
import secrets
import time
from collections.abc import Sequence
from contextlib import closing
from typing import Annotated, Any

import msgspec
import typer

from repstore import config, errors
from repstore.check import verify as comparing
from repstore.cli.check_copies import Volume, find_volume
from repstore.cli.check_end import told
from repstore.cli.check_fsck import EXIT_FINDINGS, ProgressLine
from repstore.cli.options import EXIT_INTERRUPTED, EXIT_UNUSABLE, Data, Json, complain, open_cluster
from repstore.cli.show import print_json, print_table
from repstore.coordination.interface import VALUE_BYTES_MAX, ConfigStore
from repstore.node import VolumeConfig, load_nodes
from repstore.node.inquiry import ask, put

LOOK_S = 0.02
VERIFY_PREFIX = "verify/"          # what an interrupted verification of a volume found


class Kept(msgspec.Struct):
    """Of an interrupted verification of these copies: see W5 of `check.verify`."""
    copies: tuple[str, ...] = ()
    looked: dict[int, comparing.Looked] = {}


class NodeCopy:
    """A copy on a running node; see `check.verify.CopySource`."""

    def __init__(self, configs: ConfigStore, node: str, index: int, progress: ProgressLine) -> None:
        self._configs = configs
        self._node = node
        self._index = index
        self._progress = progress

    def start(self, serial: int, wanted: Sequence[int]) -> int:
        """At the primary: begin on all copies; the LSN."""
        pages = {f"page{place}": page for place, page in enumerate(wanted)}
        return int(self._ask("verify start", serial=serial, **pages)["lsn"])

    def wait(self, serial: int) -> int:
        """Until this copy has it; its number of pages."""
        deadline_s = time.monotonic() + config.VERIFY_TIMEOUT_S
        while time.monotonic() < deadline_s:
            found = self._ask("verify state", serial=serial)
            if found["state"] == "done":
                return int(found["pages"])
            if found["state"] == "failed":
                break
            self._progress(f"map of {self._node}", int(found["done"]), int(found["pages"]))
            time.sleep(LOOK_S)
        raise errors.UnavailableError(f"node {self._node!r} did not come to LSN: try again")

    def nodes(self, serial: int, level: int, first: int, count: int) -> comparing.Digests:
        """Digests of nodes of a level of the tree."""
        found = self._ask("verify nodes", serial=serial, level=level, first=first, count=count)
        return comparing.unpacked_digests(found["digests"])

    def values(self, serial: int, place: int) -> comparing.Checksums:
        """Checksums of a wanted page."""
        return comparing.unpacked_checksums(self._ask("verify page", serial=serial, place=place)["values"])

    def worth(self, first: int, blocks: int) -> comparing.Worth:
        """How good, and how new, blocks are here."""
        return comparing.unpacked_worth(self._ask("verify worth", first=first, blocks=blocks))

    def _ask(self, what: str, **numbers: int) -> dict[str, Any]:
        return ask(self._configs, self._node, what, self._index, **numbers)


def verify(
    volume: Volume,
    data: Data,
    fresh: Annotated[bool, typer.Option("--fresh", help="From the first page on, not from where an "
                                        "interrupted verification stopped.")] = False,
    json: Json = False,
) -> None:
    """Are the in-sync copies of a volume equal at one LSN? Writes go on meanwhile.
    Exit code 0: all are equal, 1: different, 2: some or all could not be compared."""
    with told({"volume": volume}, as_json=json, usage=(errors.ConfigError,)):
        _, configs = open_cluster(data)
        with closing(configs):
            verdict, left_out = _verify(configs, volume, fresh=fresh, as_json=json)
    _show(verdict, left_out, as_json=json)
    if left_out:
        complain(f"not in sync, and so not compared: {', '.join(left_out)}")
    if verdict.differences:
        raise typer.Exit(EXIT_FINDINGS)
    if left_out:
        raise typer.Exit(EXIT_UNUSABLE)


def _verify(configs: ConfigStore, volume: str, *, fresh: bool,
            as_json: bool) -> tuple[comparing.Verdict, list[str]]:
    """The verdict, and the nodes whose copies were not compared; what an interruption had found is shown and
    kept."""
    known, _ = find_volume(configs, volume)
    names = {node.id: node.name for node in load_nodes(configs).values()}
    copies = tuple(names[number] for number in (
        known.primary, *(number for number in known.in_sync_nodes() if number != known.primary)))
    verdict = comparing.Verdict(volume, copies)
    if not fresh:
        verdict.looked = _kept(configs, known, copies)
    progress = ProgressLine()
    sources = {name: NodeCopy(configs, name, known.index, progress) for name in copies}
    try:
        comparing.verify(verdict, sources, lambda: secrets.randbits(62) + 1, progress)
        _keep(configs, known, Kept())
    except KeyboardInterrupt:
        _keep(configs, known, Kept(copies, verdict.looked))
        _show(verdict, [], as_json=as_json)
        complain("interrupted: the same command goes on from there")
        raise typer.Exit(EXIT_INTERRUPTED) from None
    return verdict, sorted(names[number] for number in known.placement if names[number] not in copies)


def _kept(configs: ConfigStore, volume: VolumeConfig, copies: tuple[str, ...]) -> dict[int, comparing.Looked]:
    entry = configs.get(_key(volume))
    kept = Kept() if entry is None else msgspec.json.decode(entry.value, type=Kept)
    return kept.looked if kept.copies == copies else {}


def _keep(configs: ConfigStore, volume: VolumeConfig, kept: Kept) -> None:
    value = msgspec.json.encode(kept)
    if len(value) > VALUE_BYTES_MAX:
        value = msgspec.json.encode(Kept())            # so many differ that it begins anew
    put(configs, _key(volume), value)


def _key(volume: VolumeConfig) -> str:
    return f"{VERIFY_PREFIX}{volume.uuid}"


def _show(verdict: comparing.Verdict, left_out: list[str], *, as_json: bool) -> None:
    if as_json:
        found = dataclasses.asdict(verdict)
        del found["looked"]
        print_json({**found, "differences": [dataclasses.asdict(each) for each in verdict.differences],
                    "verdict": verdict.verdict, "not_compared": left_out})
        return
    if verdict.differences:
        print_table(f"differences of volume {verdict.volume}",
                    ("first block", "blocks", "unlike the primary", "right"),
                    [(difference.first, difference.blocks, " ".join(difference.differ),
                      difference.right or "none: restore these blocks")
                     for difference in verdict.differences])
    print(f"volume {verdict.volume}: {verdict.verdict}: {len(verdict.copies)} copies "
          f"({', '.join(verdict.copies)}) at LSN {verdict.lsn}, {verdict.pages} map pages, "
          f"{verdict.exchanged_bytes} bytes exchanged")
