"""Volumes of a store in this process: every byte is as a bytearray would have it, before and
after a close, and after a kill; and what cannot be done is refused before anything changes."""
import contextlib
import errno
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import repstore
from repstore import config, errors
from repstore._fast.control import Engine
from repstore.store import store as stores
from repstore.volume import operations as rows
from repstore.volume.volume import Ticket
from tests.cluster.harness import wait_until

MIB = config.MIB
VOLUME_BYTES = 640 * 1024
STORE_BYTES = 8 * MIB
DATA = np.random.default_rng(2).integers(0, 256, 2 * VOLUME_BYTES, dtype=np.uint8)


@pytest.fixture(params=["auto", "threads"])
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[repstore.Store]:
    with repstore.Store.create(tmp_path_factory.mktemp("store") / "s.store", STORE_BYTES) as store:
        yield store


@pytest.fixture
def volume(shared: repstore.Store) -> Iterator[repstore.Volume]:
    with fresh_volume(shared) as made:
        yield made


@contextlib.contextmanager
def fresh_volume(store: repstore.Store) -> Iterator[repstore.Volume]:
    made = store.create_volume("v", VOLUME_BYTES)
    try:
        yield made
    finally:
        made.close()
        store.delete_volume("v")


def operations(*wanted: tuple[int, int, int, int]) -> np.ndarray[tuple[int], np.dtype[np.void]]:
    """Rows of (kind, offset, length, buffer offset)."""
    array = np.zeros(len(wanted), repstore.OPERATION_DTYPE)
    for name, place in (("kind", 0), ("offset", 1), ("length", 2), ("buffer_offset", 3)):
        array[name] = [row[place] for row in wanted]
    return array


# offsets near the edges of blocks, of requests and of the volume, and anywhere
EDGES = st.sampled_from([0, 4096, 8192, 256 * 1024, 260 * 1024, 512 * 1024, VOLUME_BYTES])
NEAR = st.builds(lambda edge, step: min(max(edge + step, 0), VOLUME_BYTES), EDGES, st.integers(-2, 2))
PLACES = st.one_of(NEAR, st.integers(0, VOLUME_BYTES))
RANGES = st.tuples(PLACES, PLACES).filter(lambda ends: ends[0] != ends[1]).map(sorted)
STEPS = st.one_of(
    st.tuples(st.sampled_from(["read", "write", "trim", "zeroes"]), RANGES, st.integers(0, VOLUME_BYTES)),
    st.tuples(st.sampled_from(["flush", "reopen"]), st.just([0, 0]), st.just(0)))


@settings(max_examples=40)
@example([("write", [1, 1 + config.REQUEST_BYTES_MAX], 0)])       # one block more than a batch has
@given(st.lists(STEPS, max_size=25))
def test_a_volume_is_a_bytearray(shared: repstore.Store, steps: list[tuple[str, list[int], int]]) -> None:
    model = bytearray(VOLUME_BYTES)
    with fresh_volume(shared) as volume, contextlib.ExitStack() as opened:
        for what, (begin, end), seed in steps:
            data = DATA[seed:seed + end - begin].tobytes()
            if what == "read":
                assert volume.read(begin, end - begin) == model[begin:end]
            elif what == "write":
                volume.write(begin, data, fua=seed % 5 == 0)
                model[begin:end] = data
            elif what == "trim":
                volume.trim(begin, end - begin)
                first, last = -(-begin // 4096) * 4096, end // 4096 * 4096
                model[first:max(first, last)] = bytes(max(first, last) - first)
            elif what == "zeroes":
                volume.write_zeroes(begin, end - begin, no_hole=seed % 2 == 0)
                model[begin:end] = bytes(end - begin)
            elif what == "flush":
                volume.flush()
            else:
                volume.close()
                volume = opened.enter_context(shared.open_volume("v"))
        assert volume.read(0, VOLUME_BYTES) == model
        check_status(volume, model)


def check_status(volume: repstore.Volume, model: bytearray) -> None:
    extents = volume.block_status(0, VOLUME_BYTES)
    assert [extent.end for extent in extents[:-1]] == [extent.offset for extent in extents[1:]]
    assert (extents[0].offset, extents[-1].end) == (0, VOLUME_BYTES)
    for extent in extents:
        if extent.zero:
            assert not any(model[extent.offset:extent.end])


def test_what_is_allocated_is_told(volume: repstore.Volume) -> None:
    volume.write(4096, b"x")
    volume.write_zeroes(16_384, 8192, no_hole=True)
    found = [(extent.offset, extent.length, extent.hole, extent.zero)
             for extent in volume.block_status(0, 40_960)]
    assert found == [(0, 4096, True, True), (4096, 4096, False, False), (8192, 8192, True, True),
                     (16_384, 8192, False, True), (24_576, 16_384, True, True)]
    assert volume.block_status(4097, 1) == [repstore.Extent(4097, 1, hole=False, zero=False)]


def test_a_batch_is_done_whole_and_large_rows_are_cut(volume: repstore.Volume) -> None:
    data = repstore.aligned_buffer(VOLUME_BYTES)
    data[:] = DATA[:VOLUME_BYTES]
    batch = operations((2, 0, 300_000, 0), (2, 300_000, VOLUME_BYTES - 300_000, 300_000))
    volume.submit(batch, data).wait()
    back = repstore.aligned_buffer(VOLUME_BYTES + 10)
    ticket = volume.submit(operations((1, 7, VOLUME_BYTES - 7, 17)), back, depth=2)
    ticket.wait()
    assert ticket.done
    assert ticket.failed == 0
    assert back[17:].tobytes() == DATA[7:VOLUME_BYTES].tobytes() + bytes(0)
    with pytest.raises(errors.ConfigError, match="depth 0"):
        volume.submit(batch, data, depth=0)


def test_what_is_longer_than_a_row_can_say_takes_several(
        volume: repstore.Volume, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("repstore.volume.volume.ROW_BYTES_MAX", 300_000)
    monkeypatch.setattr("repstore.volume.volume.RANGE_STEP_BYTES", 81_920)
    volume.write(3, DATA[3:VOLUME_BYTES])
    assert volume.read(3, VOLUME_BYTES - 3) == DATA[3:VOLUME_BYTES].tobytes()
    volume.trim(0, 200_000)
    assert volume.read(0, 200_704) == bytes(196_608) + DATA[196_608:200_704].tobytes()
    assert volume.block_status(1, VOLUME_BYTES - 1) == [
        repstore.Extent(1, 196_607, hole=True, zero=True),
        repstore.Extent(196_608, VOLUME_BYTES - 196_608, hole=False, zero=False)]


@given(st.lists(st.tuples(st.sampled_from([1, 2, 3, 5]), st.integers(0, 2**40), st.integers(1, 2**21)),
                min_size=1, max_size=6))
def test_pieces_cover_their_row_in_order_and_end_at_blocks(wanted: list[tuple[int, int, int]]) -> None:
    batch = operations(*((kind, offset, length, 3 * offset) for kind, offset, length in wanted))
    pieces = rows.cut(batch)
    if pieces is None:
        assert all(offset % 4096 + length <= config.REQUEST_BYTES_MAX
                   for kind, offset, length in wanted if kind in (1, 2))
        return
    cut, owner = pieces
    for row, one in enumerate(batch):
        mine = cut[owner == row]
        assert mine["length"].sum() == one["length"]
        assert (mine["offset"] - one["offset"] == mine["buffer_offset"] - one["buffer_offset"]).all()
        assert (mine["offset"][1:] == (mine["offset"] + mine["length"])[:-1]).all()
        assert (mine["offset"][1:] % 4096 == 0).all()
        assert len(mine) == 1 or (mine["length"] <= config.REQUEST_BYTES_MAX).all()
        assert (mine["kind"] == one["kind"]).all()


def test_buffers_of_all_kinds(volume: repstore.Volume) -> None:
    for data in (b"bytes", bytearray(b"array"), memoryview(b"view."), np.frombuffer(b"numpy", np.uint8)):
        volume.write(4094, data)
        assert volume.read(4094, 5) == bytes(data)
    into = bytearray(3)
    assert volume.readinto(4095, into) == 3
    assert into == b"ump"
    wide = np.zeros(4, np.uint32)
    volume.readinto(4092, wide)
    assert wide.tobytes()[2:7] == b"numpy"
    with pytest.raises(errors.ConfigError, match="writable"):
        volume.readinto(0, b"const")
    with pytest.raises(errors.ConfigError, match="contiguous"):
        volume.write(0, np.zeros(8, np.uint8)[::2])


REFUSED: list[tuple[Callable[[repstore.Volume], object], str]] = [
    (lambda volume: volume.read(0, 0), f"read of 0 bytes at 0: volume 'v' has {VOLUME_BYTES} bytes"),
    (lambda volume: volume.read(VOLUME_BYTES, 1), f"read of 1 bytes at {VOLUME_BYTES}"),
    (lambda volume: volume.read(-1, 1), "read of 1 bytes at -1"),
    (lambda volume: volume.readinto(1, bytearray(VOLUME_BYTES)), f"read of {VOLUME_BYTES} bytes at 1"),
    (lambda volume: volume.write(VOLUME_BYTES - 1, b"xy"), "write of 2 bytes"),
    (lambda volume: volume.write(0, b""), "write of 0 bytes"),
    (lambda volume: volume.trim(0, 2**40), "trim of 1099511627776 bytes at 0"),
    (lambda volume: volume.write_zeroes(2**63, 2**63), "write_zeroes of 9223372036854775808 bytes"),
    (lambda volume: volume.block_status(5, -5), "block status of -5 bytes at 5"),
    (lambda volume: volume.submit(operations((1, 0, 9, 0), (2, VOLUME_BYTES, 1, 0)), bytearray(9)),
     f"operation 1: write of 1 bytes at {VOLUME_BYTES}"),
    (lambda volume: volume.submit(operations((3, 0, 0, 0))), "trim of 0 bytes at 0: the length"),
    (lambda volume: volume.submit(operations((4, 0, 4097, 0))), "4097 bytes at 0: must be whole blocks"),
    (lambda volume: volume.submit(operations((1, 0, 9, 1)), bytearray(9)), "the buffer has 9 bytes"),
    (lambda volume: volume.submit(operations((2, 0, 1, 2**63)), bytearray(9)), "the buffer has 9 bytes"),
    (lambda volume: volume.submit(operations((2, 0, 1, 0))), "the buffer has 0 bytes"),
]


@pytest.mark.parametrize(("action", "text"), REFUSED, ids=[text for _, text in REFUSED])
def test_ranges_that_cannot_be_are_refused(
        volume: repstore.Volume, action: Callable[[repstore.Volume], object], text: str) -> None:
    volume.write(0, b"kept")
    with pytest.raises(errors.OutOfRangeError) as raised:
        action(volume)
    assert text in str(raised.value)
    assert volume.read(0, 4) == b"kept"


@pytest.mark.parametrize("kind", [0, 6, 7, 255])
def test_a_row_of_no_kind_is_refused(volume: repstore.Volume, kind: int) -> None:
    with pytest.raises(errors.ConfigError, match=f"kind {kind}|block status"):
        volume.submit(operations((kind, 0, 1, 0)), bytearray(1))
    bad_flags = operations((2, 0, 1, 0))
    bad_flags["flags"] = 4
    with pytest.raises(errors.ConfigError, match="flags"):
        volume.submit(bad_flags, bytearray(1))


def test_arrays_that_cannot_be_used_are_refused(volume: repstore.Volume) -> None:
    batch = operations((2, 0, 1, 0), (2, 0, 1, 0))
    frozen = batch.copy()
    frozen.flags.writeable = False
    for bad in (batch[:0], batch.reshape(1, 2), np.zeros(2, np.uint64), batch[::2].repeat(4)[::2], frozen):
        with pytest.raises(errors.ConfigError, match="operations"):
            volume.submit(bad, bytearray(1))
    with pytest.raises(errors.ConfigError, match="buffer of 0 bytes"):
        repstore.aligned_buffer(0)


def test_a_full_store_says_so_and_recovers_when_trimmed(tmp_path: Path) -> None:
    with repstore.Store.create(tmp_path / "s", STORE_BYTES) as store:
        room = store.stats()["capacity_blocks"] * 4096
        first, second = store.create_volume("a", room), store.create_volume("b", room)
        first.write(0, bytes(4096))
        with pytest.raises(errors.NoSpaceError, match=r"write of .* at 0: ENOSPC"):
            second.write(0, DATA.tobytes() * (room // len(DATA)) + bytes(room % len(DATA)))
        with pytest.raises(errors.NoSpaceError):
            first.write(0, DATA.tobytes())
        second.trim(0, room)
        first.write(0, DATA.tobytes())
        assert first.read(0, len(DATA)) == DATA.tobytes()


@pytest.mark.parametrize("store_bytes", [768 * 1024, 5 * MIB, 16 * MIB, 100 * MIB])
def test_the_capacity_that_is_told_is_the_engines(tmp_path: Path, store_bytes: int) -> None:
    with repstore.Store.create(tmp_path / "s", store_bytes) as store:
        capacity_bytes = store.stats()["capacity_blocks"] * 4096
    assert stores.info(tmp_path / "s").capacity_bytes == capacity_bytes


def test_a_store_keeps_its_volumes(tmp_path: Path, backend: str) -> None:
    path = tmp_path / "s"
    data = DATA.tobytes()
    with repstore.Store.create(path, STORE_BYTES) as store:
        assert store.volumes() == {}
        store.create_volume("a", VOLUME_BYTES * 2).write(0, data)
        store.create_volume("b", 4096, acknowledgement="durable").write(1, b"b")
        store.create_volume("gone", 4096).close()
        store.delete_volume("gone")
    assert stores.info(path).clean
    for _ in range(3):                                # each open has sessions of its own
        with repstore.Store.open(path, backend=backend) as store:
            assert store.volumes() == {"a": VOLUME_BYTES * 2, "b": 4096}
            volume = store.open_volume("a")
            assert volume.read(0, len(data)) == data
            assert store.open_volume("b").read(0, 3) == b"\0b\0"
            data = data[4096:] + data[:4096]
            volume.write(0, data)


def test_names_and_sizes_that_cannot_be(shared: repstore.Store, volume: repstore.Volume) -> None:
    with pytest.raises(errors.ExistsError, match="'v' exists"):
        shared.create_volume("v", 4096)
    with pytest.raises(errors.BusyError, match="open already"):
        shared.open_volume("v")
    with pytest.raises(errors.BusyError, match="close it first"):
        shared.delete_volume("v")
    for missing in (shared.open_volume, shared.delete_volume):
        with pytest.raises(errors.NotFoundError, match="no volume 'w'"):
            missing("w")
    with pytest.raises(errors.ConfigError, match="1 to 63"):
        shared.create_volume("w/w", 4096)
    with pytest.raises(errors.ConfigError, match="4097 bytes: must be a multiple of 4096"):
        shared.create_volume("w", 4097)
    with pytest.raises(errors.ConfigError, match=f"volume of {STORE_BYTES} bytes: this store can hold"):
        shared.create_volume("w", STORE_BYTES)
    assert shared.volumes() == {"v": VOLUME_BYTES}


@pytest.fixture
def crowded(tmp_path: Path) -> Iterator[repstore.Store]:
    """A store that can have one volume open: all other exports of its engine are taken."""
    with repstore.Store.create(tmp_path / "s", STORE_BYTES) as store:
        for i in range(config.EXPORTS_MAX - 1):
            store._native.engine.export_install(1000 + i, f"other{i}", MIB, 1)
        yield store


def test_a_volume_that_was_closed_leaves_its_export_to_others(crowded: repstore.Store) -> None:
    for i in range(3):
        with crowded.create_volume(f"v{i}", MIB) as volume:
            volume.write(0, b"%d" % i)
    for i in range(3):
        with crowded.open_volume(f"v{i}") as volume:
            assert volume.read(0, 1) == b"%d" % i


def test_a_volume_that_finds_no_export_is_not_made(crowded: repstore.Store) -> None:
    with crowded.create_volume("first", MIB) as first:
        with pytest.raises(errors.NoSpaceError, match="too many volumes"):
            crowded.create_volume("second", MIB)
        assert crowded.volumes() == {"first": MIB}
        first.write(0, b"x")
    with crowded.create_volume("second", MIB), pytest.raises(errors.NoSpaceError, match="too many volumes"):
        crowded.open_volume("first")
    with crowded.open_volume("first") as first:
        assert first.read(0, 1) == b"x"


def test_the_id_of_an_export_that_is_over_reaches_no_other_volume(crowded: repstore.Store) -> None:
    engine = crowded._native.engine
    with crowded.create_volume("v", MIB):
        pass
    old = engine.export_install(2000, "old", MIB, 1)
    stale = abandoned(engine, old)
    engine.export_revoke(2000, errno.ESHUTDOWN)
    with crowded.open_volume("v") as volume:
        volume.write(0, b"kept")
        with pytest.raises(errors.RepstoreError) as refused:
            stale.write(0, b"lost")
        assert volume.read(0, 4) == b"kept"
    assert refused.value.errno == errno.ESHUTDOWN


def test_the_id_of_a_session_that_is_over_is_not_served_by_the_next(tmp_path: Path) -> None:
    """The volume is open here again, and its export has the place that it had."""
    with repstore.Store.create(tmp_path / "s", STORE_BYTES) as store:
        engine = store._native.engine
        with store.create_volume("v", MIB) as volume:
            stale = abandoned(engine, volume._export_id)
            stale.write(0, b"once")
        with store.open_volume("v") as volume:
            assert volume.read(0, 4) == b"once"
            volume.write(0, b"kept")
            for asked in (lambda: stale.write(0, b"lost"), lambda: stale.read(0, 4), stale.flush):
                with pytest.raises(errors.RepstoreError) as refused:
                    asked()
                assert refused.value.errno == errno.ESHUTDOWN
            assert volume.read(0, 4) == b"kept"
        store.delete_volume("v")
        with store.create_volume("w", MIB), pytest.raises(errors.RepstoreError) as refused:
            stale.read(0, 4)                           # w has the number that v had, and its first session
        assert refused.value.errno == errno.ESHUTDOWN


def test_a_volume_that_is_lent_again_is_served_to_all(
        shared: repstore.Store, volume: repstore.Volume) -> None:
    engine = shared._native.engine
    index = shared._index("v")
    session = engine.volume_state(index).session
    assert engine.export_install(index, "v", VOLUME_BYTES, session) == volume._export_id
    volume.write(0, b"both")
    assert abandoned(engine, volume._export_id).read(0, 4) == b"both"


def abandoned(engine: Engine, export_id: int) -> repstore.Volume:
    """A volume of this process that nobody told that its session is over."""
    return repstore.Volume("old", MIB, engine, export_id, error=errors.error_from_errno,
                           revoke=lambda: None, release=lambda: None)


def test_a_store_is_open_once_and_nothing_works_when_it_is_closed(tmp_path: Path) -> None:
    store = repstore.Store.create(tmp_path / "s", STORE_BYTES)
    with pytest.raises(errors.BusyError, match=f"in use by process {os.getpid()}"):
        repstore.Store.open(tmp_path / "s")
    with pytest.raises(errors.ExistsError):
        repstore.Store.create(tmp_path / "s", STORE_BYTES)
    volume = store.create_volume("v", 4096)
    store.close()
    store.close()
    volume.close()
    with pytest.raises(errors.FencedError, match="'v' was closed"):
        volume.flush()
    with pytest.raises(errors.StoreFailedError, match="was closed"):
        store.stats()
    assert "closed" in repr(volume)
    assert "closed" in repr(store)


def test_a_store_is_not_closed_under_a_volume_that_is_being_closed(tmp_path: Path) -> None:
    store = repstore.Store.create(tmp_path / "s", STORE_BYTES)
    volume = store.create_volume("v", VOLUME_BYTES)
    batch = operations(*[(repstore.Operation.WRITE, 0, 4096, 0)] * 3000)
    batch["flags"] = repstore.FUA
    ticket = volume.submit(batch, DATA, depth=1)
    closing = threading.Thread(target=volume.close, daemon=True)
    closing.start()
    wait_until(lambda: "closed" in repr(volume), "the close has begun")
    store.close()
    closing.join(20)
    assert not closing.is_alive()
    assert ticket.done
    assert ticket.failed == 0


def test_a_close_that_was_interrupted_is_taken_up_by_the_next(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = repstore.Store.create(tmp_path / "s", STORE_BYTES)
    volume = store.create_volume("v", VOLUME_BYTES)
    volume.submit(operations((repstore.Operation.WRITE, 0, 4096, 0)), DATA)

    def interrupted(ticket: Ticket) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Ticket, "settle", interrupted)
        with pytest.raises(KeyboardInterrupt):
            volume.close()
    volume.close()
    store.open_volume("v").close()
    store.close()


class Announced:
    """A lock that tells when somebody wants it."""

    def __init__(self, lock: Any) -> None:
        self.lock = lock
        self.wanted = threading.Event()

    def __enter__(self) -> None:
        self.wanted.set()
        self.lock.acquire()

    def __exit__(self, *error: object) -> None:
        self.lock.release()


def test_who_waits_for_a_store_that_is_being_closed_finds_it_closed(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = repstore.Store.create(tmp_path / "s", STORE_BYTES)
    store.create_volume("v", VOLUME_BYTES).close()
    lock = Announced(store._lock)
    monkeypatch.setattr(store, "_lock", lock)
    said: list[object] = []

    def open_it() -> None:
        try:
            said.append(store.open_volume("v"))
        except errors.RepstoreError as error:
            said.append(type(error))

    opening = threading.Thread(target=open_it, daemon=True)
    with lock.lock:
        opening.start()
        assert lock.wanted.wait(10)
        store.close()
    opening.join(20)
    assert said == [errors.StoreFailedError]


@pytest.mark.parametrize(("content", "error"), [
    (None, errors.NotFoundError), (b"", errors.ConfigError), (bytes(MIB), errors.ConfigError)])
def test_what_is_no_store_is_refused(
        tmp_path: Path, content: bytes | None, error: type[errors.RepstoreError]) -> None:
    if content is not None:
        (tmp_path / "s").write_bytes(content)
    with pytest.raises(error, match="s"):
        repstore.Store.open(tmp_path / "s")


def test_threads_share_a_volume(volume: repstore.Volume) -> None:
    faults: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for turn in range(50):
                data = bytes([number + 1, turn]) * 2048
                volume.write(number * 8192 + 100, data)
                assert volume.read(number * 8192 + 100, len(data)) == data
        except BaseException as error:
            faults.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []


def test_a_program_that_forgets_to_close_leaves_a_clean_store(tmp_path: Path) -> None:
    program = ("import repstore, sys; store = repstore.Store.create(sys.argv[1], 8 << 20);"
               "store.create_volume('v', 4096).write(0, b'kept')")
    subprocess.run([sys.executable, "-W", "error", "-c", program, tmp_path / "s"], check=True, timeout=60)
    assert stores.info(tmp_path / "s").clean
    with repstore.Store.open(tmp_path / "s") as store:
        assert store.open_volume("v").read(0, 4) == b"kept"


WRITER = """
import repstore, sys
store = repstore.Store.open(sys.argv[1])
volume = store.open_volume("v")
for stamp in range(1, 1_000_000):
    volume.write(stamp % 64 * 4096, stamp.to_bytes(8, "little") * 512)
    print(stamp, flush=True)
"""


@pytest.mark.parametrize("acknowledged", [1, 70, 1500])
def test_what_was_acknowledged_survives_a_kill(tmp_path: Path, acknowledged: int) -> None:
    """Block b holds the stamps b, b + 64, ...; after the kill it may hold its last acknowledged
    one, or the one that was under way, and nothing else."""
    path = tmp_path / "s"
    with repstore.Store.create(path, STORE_BYTES) as store:
        store.create_volume("v", 64 * 4096)
    for _ in range(2):                                # the second life finds what the first left
        last = killed_after(path, acknowledged)
        with repstore.Store.open(path) as store:
            found = np.frombuffer(store.open_volume("v").read(0, 64 * 4096), "<u8").reshape(64, 512)
        assert (found == found[:, :1]).all()
        for block, stamp in enumerate(found[:, 0].tolist()):
            newest = last - (last - block) % 64
            assert stamp in ({newest, newest + 64} if (last + 1) % 64 == block else {newest}) or newest <= 0


def killed_after(path: Path, acknowledged: int) -> int:
    """Run the writer and kill it in the middle; the last stamp it saw done."""
    writer = subprocess.Popen([sys.executable, "-c", WRITER, path], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    stamps = [int(writer.stdout.readline()) for _ in range(acknowledged)]
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    rest = writer.stdout.read().split("\n")[:-1]      # only whole lines were said
    writer.stdout.close()
    return int(rest[-1]) if rest else stamps[-1]


def test_help_tells_units_ranges_and_errors() -> None:
    for thing, words in (
        (repstore, ("Store", "Cluster", "Volume", "submit")),
        (repstore.Volume, ("bytes", "4096", "OutOfRangeError", "threads", "flush")),
        (repstore.Volume.submit, ("depth", "1 to 1024", "OPERATION_DTYPE", "buffer_offset", "ConfigError")),
        (repstore.Store.create, ("768 KiB to 16 TiB", "ExistsError", "NoSpaceError")),
        (repstore.Store.open_volume, ("durable", "BusyError")),
        (repstore.Cluster, ("NotFoundError", "failover")),
        (repstore.aligned_buffer, ("uint8", "without a copy")),
    ):
        text = thing.__doc__ or ""
        assert [word for word in words if word not in text] == [], thing
    for kind in (repstore.Store, repstore.Volume, repstore.Cluster, repstore.Ticket):
        members = {name: member for name, member in vars(kind).items() if not name.startswith("_")}
        assert [name for name, member in members.items() if not getattr(member, "__doc__", "x")] == []
