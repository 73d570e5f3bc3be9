"""Whether a store that nobody uses is whole: every byte that something depends on, and how the
parts agree. Reads only.

    superblocks > root > log (as recovery would take it) > metadata pages > pointers > records > data

  C1 the store is locked while it is read; one that is in use is refused (BusyError)
  C2 what is judged is the state after recovery: checkpoint and log, taken by the code that opens
     stores, into an engine that has no loop and so can write nothing. Here and now: after another boot,
     or on another machine, what was acknowledged and not flushed may be gone, and is no finding
  C3 a store whose superblocks or both roots are gone cannot be checked: CorruptionError
  C4 it may be stopped at any time, and go on later: a `Position` holds what was found in segments
     that were looked at; everything before the records is quick and done anew
"""
from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from repstore import config, errors
from repstore._fast.control import Engine
from repstore.check import store_maps, store_records
from repstore.check.findings import Report
from repstore.check.position import Position, fresh
from repstore.check.progress import Progress, silent
from repstore.format import BLOCK_SIZE, SUPERBLOCK_COPIES
from repstore.store import recovery, superblock
from repstore.store import root as roots
from repstore.store.device import Device, FileDevice, MemoryDevice
from repstore.store.patience import Patience
from repstore.store.recovery import Recovery
from repstore.store.root import Root
from repstore.store.store import is_same_boot, kernel_boot_id, read_checkpoint
from repstore.store.superblock import Found


def check_store(path: str | os.PathLike[str], *, data: bool = False, report: Report | None = None,
                position: Position | None = None, progress: Progress = silent) -> Report:
    """Check the store at `path`; with `data` every block of payload too.

    `report` and `position` are filled as the check goes, so that an interrupted one can tell what it
    saw, and where to go on (C4).
    Raises NotFoundError, BusyError, ConfigError (not a store), FormatVersionError, CorruptionError,
    UnavailableError (the device gives nothing).
    """
    report = Report(str(path)) if report is None else report
    device = FileDevice(Path(path), writable=False)
    try:
        device.lock()                                                            # C1
        check_device(device, report, boot_id=kernel_boot_id(), data=data, position=position,
                     progress=progress, patience=Patience(config.READ_PATIENCE_S))
    finally:
        device.close()
    return report


def check_device(device: Device, report: Report, *, boot_id: bytes, data: bool = False,
                 position: Position | None = None, progress: Progress = silent,
                 patience: Patience | None = None) -> None:
    """Check a store on any device. `boot_id` and `patience` as in `store.open_device`."""
    patience = patience or Patience()
    found, root_bytes, area = read_checkpoint(device, report.store, patience)
    _check_superblocks(device, found, report)
    _check_roots(device, found, area, report)
    root = roots.decode(root_bytes, found.superblock.geometry, f"{report.store}: root")
    decided = _recover(device, found, root, report, same_boot=is_same_boot(found.superblock, boot_id),
                       patience=patience)
    engine = _load(device, found, root_bytes, area, decided, report)
    store_maps.check_pages(device, found.superblock.geometry, root, report, progress)
    owned = store_maps.check_pointers(engine, found.superblock.geometry, report, progress)
    store_maps.check_live(engine, found.superblock.geometry, owned, report)
    store_records.check_records(device, engine, found.superblock, owned, report, data=data,
                                position=position or fresh(), progress=progress)
    report.complete = True


def _check_superblocks(device: Device, found: Found, report: Report) -> None:
    for number, position in enumerate(found.superblock.geometry.superblock_positions):
        report.checked["superblocks"] += 1
        where = f"superblock copy {number}, block {position}"
        try:
            copy = superblock.decode(device.read(position * BLOCK_SIZE, BLOCK_SIZE), number)
        except OSError as error:
            report.add("superblock", where, "a readable block", error.strerror)
            continue
        if copy is None:
            report.add("superblock", where, "a whole superblock", "a damaged one")
        elif copy != found.superblock:
            report.add("superblock", where, f"sequence {found.superblock.sequence}, as "
                       f"{found.copies} of {SUPERBLOCK_COPIES} say", f"sequence {copy.sequence}")


def _check_roots(device: Device, found: Found, area: int, report: Report) -> None:
    """One root is good, the one in `area`."""
    state = found.superblock
    report.checked["roots"] += 1
    if area != state.root_area:
        report.add("root", f"root area {state.root_area}", f"checksum {state.root_crc:#010x}", "another one")
    elif state.clean and state.sequence > 1:
        report.checked["roots"] += 1
        try:
            roots.read(device, replace(state, root_area=1 - area), report.store)
        except errors.CorruptionError as error:
            report.add("root", f"root area {1 - area}, the second copy", error.expected, error.found)


def _recover(device: Device, found: Found, root: Root, report: Report, *, same_boot: bool,
             patience: Patience) -> Recovery:
    """What opening this store would take of its log; if it were refused, what a node would."""
    state = found.superblock
    try:
        decided = recovery.recover(device, state, root, same_boot=same_boot, name=report.store,
                                   patience=patience)
    except errors.CorruptionError as error:
        report.add("log", error.where, error.expected, error.found)
        decided = recovery.recover(device, state, root, same_boot=same_boot, name=report.store,
                                   replicated=True)
    report.checked["batches"] += len(decided.batches)
    for sequence in decided.damaged:
        report.add("log", f"batch {sequence}", "payload as its header names it", "other bytes")
    return decided


def _load(device: Device, found: Found, root_bytes: bytes, area: int, decided: Recovery,
          report: Report) -> Engine:
    """The state that opening this store would come to (C2)."""
    state = found.superblock
    block = superblock.encode(replace(state, root_area=area), 0)
    engine = Engine(0, state.boot_id)
    batches = decided.batches.tolist()
    try:
        if isinstance(device, MemoryDevice):
            engine.load(block, root_bytes, batches, memory=device.image)
        else:
            assert isinstance(device, FileDevice)
            engine.load(block, root_bytes, batches, descriptor=device.fd)
    except ValueError as error:
        raise errors.CorruptionError(report.store, "a store that can be loaded", error) from None
    except OSError as error:
        raise errors.UnavailableError(f"{report.store}: {error.strerror}", errno=error.errno) from None
    return engine
