"""`repstore check explain | scrub`: what running nodes say about their copies."""
from __future__ import annotations

import secrets
import time
from contextlib import closing
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
import typer

from repstore import config, errors
from repstore._fast.checksum import crc32c
from repstore.cli.check_end import told
from repstore.cli.check_fsck import EXIT_FINDINGS, ProgressLine
from repstore.cli.options import (
    EXIT_INTERRUPTED,
    EXIT_UNUSABLE,
    Data,
    Json,
    complain,
    open_cluster,
    parse_size,
)
from repstore.cli.show import print_json, print_table
from repstore.coordination.interface import ConfigStore
from repstore.format import BLOCK_SIZE
from repstore.node import NodeConfig, VolumeConfig, load_nodes, load_volumes
from repstore.node.inquiry import ask, put

Volume = Annotated[str, typer.Argument(metavar="VOLUME", help="Name of a volume.")]
EXPLAIN_LOOKS = 5                  # at a block that is being written
CHANGED = "the copies differ, and were not at one LSN: the block changed while it was looked at"
ZEROS = crc32c(bytes(BLOCK_SIZE))  # what a hole reads as, on every copy
SCRUB_LOOK_S = 0.25
SCRUB_PREFIX = "scrub/"            # how far an interrupted scrub of a copy came


class Kept(msgspec.Struct):
    """Of an interrupted scrub of one copy, that of this store; too old, it vouches for nothing."""
    next_lba: int = 0
    bad_blocks: int = 0
    bad_pages: int = 0
    since_s: float = 0.0           # when it began, since the epoch of Unix


def explain(
    volume: Volume,
    lba: Annotated[int, typer.Argument(metavar="LBA", min=0, help="Block of 4 KiB, counted from 0.")],
    data: Data,
    json: Json = False,
) -> None:
    """Which record, segment, LSN and epoch a block has on each copy, and whether it is good there.
    Exit code 0: good on every copy, 1: not, 2: a copy could not be asked, or the block changed while
    it was looked at."""
    with told({"volume": volume, "lba": lba}, as_json=json, usage=(errors.ConfigError,)):
        _, configs = open_cluster(data)
        with closing(configs):
            known, names = find_volume(configs, volume)
            if lba >= known.size_bytes // BLOCK_SIZE:
                raise errors.ConfigError(f"block {lba}: the volume has {known.size_bytes // BLOCK_SIZE}")
            copies, like = _explain(configs, known.index, names, lba)
    changed = {"error": CHANGED} if like is None else {}
    if json:
        print_json({"volume": volume, "lba": lba, "copies": copies, **changed})
    else:
        print_table(
            f"volume {volume}, block {lba}",
            ("copy on", "role", "state", "checksum", "on the medium", "segment", "block of it", "batch",
             "record", "LSN", "epoch", "error"),
            [(name, copy.get("role"), copy.get("state"),
              f"{copy['checksum']:#010x}" if copy.get("state") == "data" else "", copy.get("medium"),
              copy.get("segment"), copy.get("offset"), copy.get("batch"), copy.get("record"), copy.get("lsn"),
              copy.get("record_epoch"), copy.get("error")) for name, copy in copies.items()])
    if any("error" in copy for copy in copies.values()):
        raise typer.Exit(EXIT_UNUSABLE)
    if like is False or any(copy["state"] in ("bad", "lost") or copy.get("medium", "good") != "good"
                            for copy in copies.values()):
        raise typer.Exit(EXIT_FINDINGS)
    if changed:
        complain(CHANGED)
        raise typer.Exit(EXIT_UNUSABLE)


def scrub(
    volume: Volume,
    data: Data,
    rate: Annotated[int, typer.Option(parser=parse_size, metavar="SIZE", help="At most so much a second, "
                                      "on each node.")] = 16 * config.MIB,
    fresh: Annotated[bool, typer.Option("--fresh", help="From the first block on, not from where an "
                                        "interrupted scrub stopped.")] = False,
    json: Json = False,
) -> None:
    """Read every block of every copy of a volume; bad ones are mended from other copies, and pages of
    metadata from their second block.
    Exit code 0: none was bad, 1: some were, 2: a copy could not be scrubbed to its end."""
    config.check_range("rate", rate, 1, config.SCRUB_BYTES_S_MAX, "bytes a second")
    with told({"volume": volume}, as_json=json, usage=(errors.ConfigError,)):
        _, configs = open_cluster(data)
        with closing(configs):
            copies = _scrub(configs, volume, rate, fresh=fresh, as_json=json)
    if any("error" in copy for copy in copies.values()):
        verdict, code = "incomplete", EXIT_UNUSABLE
    elif any(copy["bad_blocks"] or copy["bad_pages"] or copy["lost_blocks"] for copy in copies.values()):
        verdict, code = "findings", EXIT_FINDINGS
    else:
        verdict, code = "clean", 0
    _show_scrub(volume, copies, verdict, as_json=json)
    if code:
        raise typer.Exit(code)


def find_volume(configs: ConfigStore, name: str) -> tuple[VolumeConfig, list[str]]:
    """A volume and the names of the nodes it lies on."""
    known = load_volumes(configs).get(name)
    if known is None:
        raise errors.NotFoundError(f"no volume {name!r}")
    nodes = {node.id: node.name for node in load_nodes(configs).values()}
    return known, [nodes[number] for number in sorted(known.placement)]


def _explain(configs: ConfigStore, index: int, names: list[str],
             lba: int) -> tuple[dict[str, dict[str, Any]], bool | None]:
    """What each copy says of a block, and whether they are alike: asked again while that cannot be told."""
    for _ in range(EXPLAIN_LOOKS):
        copies = {name: _try(configs, name, "explain", index, lba=lba) for name in names}
        like = _alike(list(copies.values()))
        if like is not None or any("error" in copy for copy in copies.values()):
            break
    return copies, like


def _alike(copies: list[dict[str, Any]]) -> bool | None:
    """Whether the copies that have a content have the same; None: they differ, and were not asked at one
    LSN."""
    copies = [copy for copy in copies if copy.get("state") in ("data", "hole", "zeros")]
    if len({copy["checksum"] if copy["state"] == "data" else ZEROS for copy in copies}) <= 1:
        return True
    if len({copy[lsn] for copy in copies for lsn in ("commit_lsn", "until_lsn")}) == 1:
        return False
    # where all have come past the newest of the records, each must have had that one
    records = [copy.get("lsn") if copy.get("record") == "write" else None for copy in copies]
    past = min(copy["commit_lsn"] for copy in copies)
    known = all(lsn is not None and lsn <= past for lsn in records)
    return False if known and not any(copy["learning"] for copy in copies) else None


def _scrub(configs: ConfigStore, volume: str, rate_bytes_s: int, *, fresh: bool,
           as_json: bool) -> dict[str, dict[str, Any]]:
    """What each copy says in the end; what an interruption had found is shown and kept."""
    known, names = find_volume(configs, volume)
    keys = {node.name: _key(known, node) for node in load_nodes(configs).values()}
    before = {name: Kept(since_s=time.time()) if fresh else _kept(configs, keys[name]) for name in names}
    serial = secrets.randbits(62) + 1
    try:
        copies = _scrub_all(configs, known.index, before, rate_bytes_s, serial)
        _keep(configs, {keys[name]: Kept() for name, copy in copies.items() if "error" not in copy})
    except KeyboardInterrupt:
        copies = {name: _stop(configs, name, known.index, kept, serial) for name, kept in before.items()}
        _keep(configs, {keys[name]: Kept(copy["next_lba"], copy["bad_blocks"], copy["bad_pages"],
                                         before[name].since_s)
                        for name, copy in copies.items() if "error" not in copy})
        _show_scrub(volume, copies, "interrupted", as_json=as_json)
        complain("interrupted: the same command goes on from there")
        raise typer.Exit(EXIT_INTERRUPTED) from None
    return copies


def _try(configs: ConfigStore, node: str, what: str, index: int, **numbers: int) -> dict[str, Any]:
    try:
        return ask(configs, node, what, index, **numbers)
    except (errors.UnavailableError, errors.NotFoundError) as error:
        return {"error": str(error)}


def _scrub_all(configs: ConfigStore, index: int, before: dict[str, Kept], rate_bytes_s: int,
               serial: int) -> dict[str, dict[str, Any]]:
    """Scrub all copies at once from where they stopped; returns when each is through, or cannot be
    asked any more."""
    copies = {name: _try(configs, name, "scrub start", index, rate_bytes_s=rate_bytes_s, first=kept.next_lba,
                         serial=serial)
              for name, kept in before.items()}
    progress = ProgressLine()
    while any(copy.get("running") for copy in copies.values()):
        time.sleep(SCRUB_LOOK_S)
        for name, copy in copies.items():
            if copy.get("running"):
                copies[name] = _try(configs, name, "scrub state", index, serial=serial)
        able = [copy for copy in copies.values() if "error" not in copy]
        progress("scrub", sum(copy["next_lba"] for copy in able), sum(copy["size_blocks"] for copy in able))
    for name, copy in copies.items():
        if "error" not in copy and copy["next_lba"] < copy["size_blocks"]:
            copies[name] = {**copy, "error": f"ended at block {copy['next_lba']} of {copy['size_blocks']}"}
        elif "error" not in copy:
            _add(copy, before[name])
    return copies


def _stop(configs: ConfigStore, name: str, index: int, before: Kept, serial: int) -> dict[str, Any]:
    copy = _try(configs, name, "scrub stop", index, serial=serial)
    if "error" not in copy:
        _add(copy, before)
    return copy


def _add(copy: dict[str, Any], before: Kept) -> None:
    """Count what was found before an interruption, too, and say which blocks were read when."""
    copy["bad_blocks"] += before.bad_blocks
    copy["bad_pages"] += before.bad_pages
    copy["first"] = before.next_lba
    copy["since"] = datetime.fromtimestamp(before.since_s, UTC).isoformat(timespec="seconds")


def _key(volume: VolumeConfig, node: NodeConfig) -> str:
    return f"{SCRUB_PREFIX}{volume.uuid}/{node.store_uuid}"


def _kept(configs: ConfigStore, key: str) -> Kept:
    """Where to go on; the first block, now, if nothing was left to go on from, or too long ago."""
    entry = configs.get(key)
    kept = Kept() if entry is None else msgspec.json.decode(entry.value, type=Kept)
    now_s = time.time()
    return kept if 0 < now_s - kept.since_s < config.SCRUB_KEPT_S else Kept(since_s=now_s)


def _keep(configs: ConfigStore, kept: dict[str, Kept]) -> None:
    for key, one in kept.items():
        put(configs, key, msgspec.json.encode(one))


def _show_scrub(volume: str, copies: dict[str, dict[str, Any]], verdict: str, *, as_json: bool) -> None:
    if as_json:
        print_json({"volume": volume, "verdict": verdict, "copies": copies})
        return
    print_table(
        f"scrub of volume {volume}: {verdict}",
        ("copy on", "since", "from block", "through", "blocks read", "bad", "bad pages", "lost", "first lost",
         "error"),
        [(name, copy.get("since"), copy.get("first"), _through(copy), copy.get("read_blocks"),
          copy.get("bad_blocks"), copy.get("bad_pages"), copy.get("lost_blocks"),
          " ".join(map(str, copy.get("first_lost", []))), copy.get("error"))
         for name, copy in copies.items()])


def _through(copy: dict[str, Any]) -> str:
    return f"{100 * copy['next_lba'] // max(1, copy['size_blocks'])} %" if "next_lba" in copy else ""
