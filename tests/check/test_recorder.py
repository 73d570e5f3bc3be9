"""Recorders: what passes is written down as it was, by threads, by NBD byte streams, in parts."""
from __future__ import annotations

import io
import json
import threading
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from repstore_nbd import frontend

import repstore
from repstore import config, errors
from repstore.check.history import check, check_file
from repstore.check.history_file import load
from repstore.check.nbd_observer import NbdObserver, UnrecordableError
from repstore.check.recorder import Kind, Operation, Recorder, block_value
from tests.nbd import wire
from tests.nbd._fake_engine import FakeEngine

SIZE = 64 * 4096
BLOCK = 4096


class MemoryVolume:
    """A volume that is one bytearray; `spoil` may change what it does."""

    def __init__(self, size_bytes: int = SIZE) -> None:
        self.size_bytes = size_bytes
        self.content = bytearray(size_bytes)
        self.lost: set[int] = set()              # offsets at which writes are answered and forgotten
        self.failing: Exception | None = None
        self._lock = threading.Lock()

    def read(self, offset: int, length: int) -> bytes:
        with self._lock:
            return bytes(self.content[offset:offset + length])

    def write(self, offset: int, data: Any, *, fua: bool = False) -> None:
        if self.failing:
            raise self.failing
        with self._lock:
            if offset not in self.lost:
                self.content[offset:offset + len(data)] = data

    def trim(self, offset: int, length: int, *, fua: bool = False) -> None:
        begin, end = -(-offset // BLOCK) * BLOCK, (offset + length) // BLOCK * BLOCK
        if begin < end:
            self.write(begin, bytes(end - begin))

    def write_zeroes(self, offset: int, length: int, *, fua: bool = False) -> None:
        self.write(offset, bytes(length))

    def flush(self) -> None:
        pass


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "history"


def test_a_block_has_one_value_by_its_content() -> None:
    assert block_value(bytes(BLOCK)) == 0
    assert block_value(bytes(BLOCK - 1) + b"\1") != block_value(b"\1" + bytes(BLOCK - 1)) != 0
    torn = b"\1" * 512 + b"\2" * (BLOCK - 512)
    assert len({block_value(data) for data in (b"\1" * BLOCK, b"\2" * BLOCK, torn)}) == 3


def test_every_call_is_written_down(path: Path) -> None:
    one = block_value(b"a" * BLOCK)
    with Recorder(path, SIZE, initial="zero", clock=lambda: 0) as recorder:
        volume = recorder.wrap(MemoryVolume(), client=3)
        volume.write(BLOCK, b"a" * 2 * BLOCK, fua=True)
        assert volume.read(BLOCK, BLOCK) == b"a" * BLOCK
        volume.trim(BLOCK + 1, 2 * BLOCK - 1)                # block 2 alone is whole
        volume.write_zeroes(100, 2 * BLOCK)                  # block 1 is whole, 0 and 2 are not
        volume.flush()
    common = {"client": 3}
    assert lines_of(path) == [
        {"history": 1, "block_size": BLOCK, "blocks": 64, "initial": "zero", "incarnation": 1},
        {"op": "write", **common, "block": 1, "count": 2, "begin": 0, "end": 1, "fua": True,
         "values": [one, one]},
        {"op": "read", **common, "block": 1, "count": 1, "begin": 2, "end": 3, "values": [one]},
        {"op": "zero", **common, "block": 2, "count": 1, "begin": 4, "end": 5},
        {"op": "zero", **common, "block": 1, "count": 1, "begin": 6, "end": 7},
        *({"op": "write", **common, "block": block, "count": 1, "begin": 6, "end": 7, "values": [None]}
          for block in (0, 2)),
        {"op": "flush", **common, "begin": 8, "end": 9},
        {"op": "end", "operations": 7},
    ]
    assert check_file(path).consistent


def test_parts_of_blocks_are_unknown_and_the_short_last_block_is_whole(path: Path) -> None:
    with Recorder(path, 2 * BLOCK + 512) as recorder:
        volume = recorder.wrap(MemoryVolume(2 * BLOCK + 512))
        volume.write(BLOCK - 1, b"x" * (BLOCK + 513))
        volume.read(5, 10)
    write, read = lines_of(path)[1:3]
    assert (write["block"], write["count"], write["values"][0]) == (0, 3, None)
    assert None not in write["values"][1:]
    assert read["values"] == [None]


def test_what_failed_or_was_never_answered_is_uncertain(path: Path) -> None:
    with Recorder(path, SIZE, initial="zero") as recorder:
        memory = MemoryVolume()
        memory.failing = errors.NoSpaceError("full")
        with pytest.raises(errors.NoSpaceError):
            recorder.wrap(memory).write(0, b"a" * BLOCK)
        recorder.begin(1, "write", BLOCK, BLOCK, data=b"b" * BLOCK).lost()
        recorder.begin(1, "write", 2 * BLOCK, BLOCK, data=b"c" * BLOCK).over()
        recorder.begin(1, "write", 3 * BLOCK, BLOCK, data=b"d" * BLOCK)
        recorder.begin(1, "write", SIZE, BLOCK, data=b"e" * BLOCK).failed(22)      # about no block
    failed, lost, over, unanswered = lines_of(path)[1:-1]
    assert failed["error"] == errors.NoSpaceError.default_errno
    assert "end" not in lost
    assert "until" not in lost
    assert over["until"] > over["begin"]
    assert "end" not in unanswered
    assert check_file(path).consistent


def test_a_crash_ends_what_is_under_way(path: Path) -> None:
    with Recorder(path, SIZE, initial="zero") as recorder:
        memory = MemoryVolume()
        volume = recorder.wrap(memory)
        volume.write(0, b"a" * BLOCK)
        volume.flush()
        late = recorder.begin(0, "write", 0, BLOCK, data=b"b" * BLOCK)
        recorder.crash(recorder.incarnation + 1)
        late.done()                                          # too late: nobody believes it
        memory.content[:BLOCK] = bytes(BLOCK)
        volume.read(0, BLOCK)
    kinds = [line["op"] for line in lines_of(path)[1:]]
    assert kinds == ["write", "flush", "write", "crash", "read", "end"]
    verdict = check_file(path)
    assert verdict.contradiction is not None
    assert verdict.contradiction.kind == "lost"


def test_long_operations_take_several_lines(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("repstore.check.recorder.BLOCKS_PER_LINE", 10)
    with Recorder(path, SIZE, initial="zero") as recorder:
        volume = recorder.wrap(MemoryVolume())
        volume.write(0, bytes(range(64)) * BLOCK)
        volume.read(0, SIZE)
    assert [line["count"] for line in lines_of(path)[1:-1]] == [10] * 6 + [4] + [10] * 6 + [4]
    verdict = check_file(path)
    assert (verdict.consistent, verdict.reads_checked) == (True, 64)


@pytest.mark.parametrize(("size_bytes", "block_size"), [(0, 4096), (SIZE, 100), (SIZE, 3000), (SIZE, 8192)])
def test_impossible_sizes_are_refused(path: Path, size_bytes: int, block_size: int) -> None:
    with pytest.raises(errors.ConfigError):
        Recorder(path, size_bytes, block_size=block_size)
    assert not path.exists()


@pytest.mark.parametrize(("options", "said"), [
    ({"size_bytes": 4096.0}, "volume size 4096.0: must be a whole number from 1 to"),
    ({"size_bytes": "a"}, "volume size 'a': must be a whole number"),
    ({"block_size": 4096.0}, "block size 4096.0: must be a whole number from 512 to 4096"),
    ({"initial": "ones"}, "initial 'ones': must be one of 'zero', 'unknown'"),
    ({"initial": None}, "initial None: must be one of"),
    ({"incarnation": -1}, "incarnation -1: must be 0 to 9223372036854775806"),
    ({"incarnation": 2**63 - 1}, "incarnation 9223372036854775807: must be 0 to"),
    ({"incarnation": "1"}, "incarnation '1': must be a whole number"),
    ({"clock": lambda: 1.5}, "time of the clock 1.5: must be a whole number"),
    ({"clock": lambda: -1}, "time of the clock -1: must be 0 to"),
    ({"clock": lambda: 2**63 - 1}, "time of the clock 9223372036854775807: must be 0 to"),
])
def test_what_no_header_can_say_is_refused_before_there_is_a_file(
        path: Path, options: dict[str, Any], said: str) -> None:
    with pytest.raises(errors.ConfigError) as raised:
        Recorder(path, **{"size_bytes": SIZE, **options})
    assert said in str(raised.value)
    assert not path.exists()


LIMIT_SAID = "must be 0 to 4294967295"
REFUSED: dict[str, tuple[Callable[[Recorder], object], str]] = {
    "client -1": (lambda recorder: recorder.begin(-1, "flush"), f"client -1: {LIMIT_SAID}"),
    "client 2^32": (lambda recorder: recorder.begin(2**32, "flush"), f"client 4294967296: {LIMIT_SAID}"),
    "client a": (lambda recorder: recorder.begin("a", "flush"), "client 'a': must be a whole number"),  # type: ignore[arg-type]
    "client 1.5": (lambda recorder: recorder.wrap(MemoryVolume(), 1.5), "client 1.5: must be a whole"),  # type: ignore[arg-type]
    "wrap -1": (lambda recorder: recorder.wrap(MemoryVolume(), -1), f"client -1: {LIMIT_SAID}"),
    "kind": (lambda recorder: recorder.begin(0, "erase"), "operation 'erase': must be one of"),  # type: ignore[arg-type]
    "offset": (lambda recorder: recorder.begin(0, "read", 0.5, BLOCK), "offset 0.5: must be a whole"),  # type: ignore[arg-type]
    "length": (lambda recorder: recorder.begin(0, "read", 0, "1"), "length '1': must be a whole"),  # type: ignore[arg-type]
    "data of a write": (lambda recorder: recorder.begin(0, "write", 0, BLOCK, data=b"a"),
                        "write of 4096 bytes at 0: its data has 1 bytes, must be 4096"),
    "data of a zero": (lambda recorder: recorder.begin(0, "zero", 0, BLOCK, data=bytes(BLOCK)),
                       "data of a zero"),
    "falling": (lambda recorder: recorder.crash(6), "incarnation 6: must be 7 to 9223372036854775806"),
    "crash": (lambda recorder: recorder.crash(7.5), "incarnation 7.5: must be a whole number"),  # type: ignore[arg-type]
    "crash 2^63": (lambda recorder: recorder.crash(2**63), "incarnation 9223372036854775808: must be"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_no_history_can_say_is_refused_and_the_recording_goes_on(path: Path, name: str) -> None:
    tell, said = REFUSED[name]
    with Recorder(path, SIZE, incarnation=7) as recorder:
        recorder.begin(2**32 - 1, "write", 0, BLOCK)              # what is under way stays so
        with pytest.raises(errors.ConfigError) as raised:
            tell(recorder)
        recorder.crash(2**63 - 2)
    assert said in str(raised.value)
    assert [line["op"] for line in lines_of(path)[1:]] == ["write", "crash", "end"]
    assert check_file(path).consistent


ENDS: dict[str, tuple[Kind, Callable[[Operation], object], str]] = {
    "failed 0": ("write", lambda operation: operation.failed(0), "errno 0: must be 1 to 2147483647"),
    "failed -5": ("write", lambda operation: operation.failed(-5), "errno -5: must be 1 to"),
    "failed 2^31": ("flush", lambda operation: operation.failed(2**31), "errno 2147483648: must be 1 to"),
    "failed None": ("read", lambda operation: operation.failed(None), "errno None: must be a whole number"),  # type: ignore[arg-type]
    "no data": ("read", lambda operation: operation.done(), "read of 8192 bytes at 4096: it was answered"),
    "short": ("read", lambda operation: operation.done(b"a" * 4096), "its data has 4096 bytes, must be 8192"),
    "long": ("read", lambda operation: operation.done(b"a" * 8193), "its data has 8193 bytes, must be 8192"),
    "flush": ("flush", lambda operation: operation.done(b""), "data of a flush"),
    "few values": ("write", lambda operation: setattr(operation, "values", [1]), "1 values: must be 2"),
    "value 2^64 - 1": ("read", lambda operation: setattr(operation, "values", [1, 2**64 - 1]),
                       "value 18446744073709551615: must be 0 to 18446744073709551614"),
    "value a": ("write", lambda operation: setattr(operation, "values", ["a", 1]), "value 'a': must be a"),
}


@pytest.mark.parametrize("name", ENDS)
def test_an_end_that_no_history_can_say_ends_nothing(path: Path, name: str) -> None:
    kind, end, said = ENDS[name]
    with Recorder(path, SIZE) as recorder:
        operation = recorder.begin(0, kind, BLOCK, 2 * BLOCK)
        with pytest.raises(errors.ConfigError) as raised:
            end(operation)
        operation.failed(2**31 - 1)
    assert said in str(raised.value)
    assert [line.get("error") for line in lines_of(path)[1:]] == [2**31 - 1, None]
    assert check_file(path).consistent


def test_a_clock_that_begins_to_tell_what_is_no_time_is_noticed_at_once(path: Path) -> None:
    times: list[Any] = [0, 1, 1.5, 2**63 - 1, 5]
    with Recorder(path, SIZE, clock=lambda: times.pop(0) if len(times) > 1 else times[0]) as recorder:
        operation = recorder.begin(0, "write", 0, BLOCK)
        for said in ("1.5: must be a whole number", "9223372036854775807: must be 0 to"):
            with pytest.raises(errors.ConfigError, match=said):
                operation.done()
        operation.done()
    assert [(line["begin"], line["end"]) for line in lines_of(path)[1:-1]] == [(1, 5)]


@pytest.mark.parametrize("brought", [0, BLOCK, 2 * BLOCK - 1, 2 * BLOCK + 1])
def test_a_volume_that_reads_another_number_of_bytes_is_noticed_at_once(path: Path, brought: int) -> None:
    memory = MemoryVolume()
    memory.read = lambda offset, length: bytes(brought)  # type: ignore[method-assign]
    with (Recorder(path, SIZE, initial="zero") as recorder,
          pytest.raises(errors.ConfigError, match=rf"its data has {brought} bytes, must be 8192")):
        recorder.wrap(memory).read(0, 2 * BLOCK)
    assert "end" not in lines_of(path)[1]                # nobody takes it for answered
    assert check_file(path).consistent


def test_no_more_crashes_than_a_history_can_have(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "HISTORY_CRASHES_MAX", 2)
    with Recorder(path, SIZE) as recorder:
        recorder.crash(1)
        recorder.crash(2)
        with pytest.raises(errors.ConfigError, match="crashes 3: must be 0 to 2"):
            recorder.crash(3)
    assert check_file(path).crashes == 2


def test_an_error_that_is_no_errno_is_an_error_all_the_same(path: Path) -> None:
    memory = MemoryVolume()
    memory.failing = OSError(2**31, "no such number")
    with Recorder(path, SIZE) as recorder, pytest.raises(OSError, match="no such number"):
        recorder.wrap(memory).write(0, b"a" * BLOCK)
    assert lines_of(path)[1]["error"] == errors.RepstoreError.default_errno


def test_a_file_that_is_there_is_kept(path: Path) -> None:
    path.write_text("precious")
    with pytest.raises(errors.ConfigError, match="File exists"):
        Recorder(path, SIZE)
    assert path.read_text() == "precious"


def run_clients(volume_of: Callable[[int], Any], clients: int, operations: int) -> None:
    """Threads that read, write, trim and flush a few blocks that all of them share."""
    def run(number: int) -> None:
        chance, volume = Random(number), volume_of(number)
        for step in range(operations):
            block, count = chance.randrange(8), chance.randint(1, 3)
            kind = chance.random()
            if kind < 0.45:
                content = f"{number} {step} ".encode().ljust(512, b"x") * 8
                volume.write(block * BLOCK, content * count, fua=kind < 0.05)
            elif kind < 0.9:
                volume.read(block * BLOCK, count * BLOCK)
            elif kind < 0.97:
                volume.trim(block * BLOCK, count * BLOCK)
            else:
                volume.flush()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_threads_on_a_store_are_consistent(tmp_path: Path, path: Path) -> None:
    with (repstore.Store.create(tmp_path / "store", 16 * config.MIB) as store,
          store.create_volume("v", config.MIB) as volume,
          Recorder(path, volume.size_bytes, initial="zero") as recorder):
        run_clients(lambda number: recorder.wrap(volume, number), clients=4, operations=100)
    verdict = check_file(path)
    assert verdict.consistent, verdict.contradiction
    assert verdict.reads_checked > 100
    assert verdict.undecided_reads < verdict.reads_checked / 4


def test_a_volume_that_forgets_a_write_is_found_out(path: Path) -> None:
    memory = MemoryVolume()
    memory.lost = {3 * BLOCK}
    with Recorder(path, SIZE, initial="zero") as recorder:
        run_clients(lambda number: recorder.wrap(memory, number), clients=2, operations=100)
    assert not check_file(path).consistent


# ----------------------------------------------------------------------------------------- NBD
class Recorded:
    """A client and the real NBD server with an observer between them."""

    def __init__(self, path: Path, step: int = 1 << 20, *, block_size: int = BLOCK) -> None:
        self.path = path
        self.engine = FakeEngine(frontend)
        self.link = self.engine.connect()
        self.recorder: Recorder | None = None
        self._step = step
        self._block_size = block_size
        self._talked = False
        self.observer = NbdObserver(5, self._open)

    def _open(self, export: str, size_bytes: int) -> Recorder:
        self.export = export
        self.recorder = Recorder(self.path, size_bytes, initial="zero", block_size=self._block_size)
        return self.recorder

    def talk(self, data: bytes) -> bytes:
        if not self._talked:
            self.engine.pump()
            self._pass_on(self.engine.output(self.link), self.observer.from_server)
            self._talked = True
        self._pass_on(data, self.observer.from_client)
        self.engine.feed(self.link, data)
        self.engine.pump()
        answer = self.engine.output(self.link)
        self._pass_on(answer, self.observer.from_server)
        return answer

    def ask(self, *requests: bytes) -> None:
        self.talk(b"".join(requests))

    def finish(self) -> list[dict[str, Any]]:
        self.observer.closed()
        assert self.recorder is not None
        self.recorder.close()
        return lines_of(self.path)[1:-1]

    def _pass_on(self, data: bytes, observe: Callable[[bytes], None]) -> None:
        for at in range(0, len(data), self._step):
            observe(data[at:at + self._step])


HANDSHAKES = {
    "simple replies": wire.client_flags() + wire.go(),
    "structured replies": (wire.client_flags() + wire.option(wire.STRUCTURED)
                           + wire.meta_context(b"demo", b"base:allocation") + wire.go()),
    "export name": wire.client_flags() + wire.option(wire.EXPORT_NAME, b"demo"),
    "export name with zeroes": wire.client_flags(1) + wire.option(wire.EXPORT_NAME, b"demo"),
    "list, info, go": (wire.client_flags() + wire.option(wire.LIST) + wire.go(number=wire.INFO) + wire.go()),
}


@pytest.mark.parametrize("step", [1, 7, 1 << 20])
@pytest.mark.parametrize("handshake", HANDSHAKES)
def test_a_connection_is_recorded_however_its_bytes_come(path: Path, handshake: str, step: int) -> None:
    one, two = b"a" * BLOCK, b"b" * BLOCK
    recorded = Recorded(path, step)
    recorded.talk(HANDSHAKES[handshake])
    recorded.ask(wire.request(wire.WRITE, BLOCK, payload=one + two, cookie=1, flags=wire.FUA))
    recorded.ask(wire.request(wire.READ, BLOCK, 2 * BLOCK, cookie=2), wire.request(wire.FLUSH, cookie=3))
    recorded.ask(wire.request(wire.TRIM, BLOCK, BLOCK, cookie=4))
    recorded.ask(wire.request(wire.READ, 0, 3 * BLOCK, cookie=5))
    recorded.ask(wire.request(wire.WRITE_ZEROES, 100, 2 * BLOCK, cookie=6))
    recorded.ask(wire.request(wire.READ, 1 << 40, BLOCK, cookie=7))
    recorded.ask(wire.request(wire.DISC, cookie=8))
    lines = recorded.finish()
    assert recorded.export == "demo"
    told = [(line["op"], line.get("block"), line.get("count"), line.get("values")) for line in lines]
    a, b = block_value(one), block_value(two)
    assert told == [
        ("write", 1, 2, [a, b]), ("read", 1, 2, [a, b]), ("flush", None, None, None), ("zero", 1, 1, None),
        ("read", 0, 3, [0, 0, b]), ("zero", 1, 1, None), ("write", 0, 1, [None]), ("write", 2, 1, [None])]
    assert lines[0]["fua"] is True
    assert all(line["client"] == 5 and line["end"] > line["begin"] for line in lines)
    assert check(load(io.BytesIO(path.read_bytes()))).consistent


def test_sectors_are_told_apart_when_asked_to(path: Path) -> None:
    recorded = Recorded(path, block_size=512)
    recorded.talk(HANDSHAKES["simple replies"])
    recorded.ask(wire.request(wire.WRITE, 512, payload=b"x" * 512))
    recorded.ask(wire.request(wire.READ, 0, 1024))
    write, read = recorded.finish()
    assert (write["block"], write["count"]) == (1, 1)
    assert read["values"] == [0, write["values"][0]]


def test_a_request_under_way_when_the_connection_ends_is_lost(path: Path) -> None:
    recorded = Recorded(path)
    recorded.talk(HANDSHAKES["simple replies"])
    recorded.observer.from_client(wire.request(wire.WRITE, 0, payload=b"a" * BLOCK, cookie=1))
    recorded.observer.from_client(wire.request(wire.WRITE, BLOCK, payload=b"a" * BLOCK, cookie=2)[:-1])
    whole, half = recorded.finish()
    assert whole["values"] == [block_value(b"a" * BLOCK)]
    assert half["values"] == [None]
    assert "end" not in whole
    assert "end" not in half


def test_a_read_that_brings_an_error_is_no_read(path: Path) -> None:
    recorded = Recorded(path)
    recorded.talk(HANDSHAKES["structured replies"])
    recorded.engine.error_of = lambda *_: 5
    recorded.ask(wire.request(wire.READ, 0, BLOCK),
                 wire.request(wire.WRITE, 0, payload=b"a" * BLOCK, cookie=2))
    lines = recorded.finish()
    assert {line["op"]: line["error"] for line in lines} == {"read": 5, "write": 5}


@pytest.mark.parametrize("data", [
    b"\0" * 16, wire.request(wire.READ, 0, BLOCK, cookie=1) * 2, wire.option(wire.LIST),
    wire.request(wire.WRITE, 0, 2**31), wire.request(wire.READ, 0, 2**31)])
def test_what_cannot_be_recorded_is_refused(path: Path, data: bytes) -> None:
    recorded = Recorded(path)
    recorded.talk(HANDSHAKES["simple replies"])
    with pytest.raises(UnrecordableError):
        recorded.observer.from_client(data)
    recorded.finish()


@pytest.mark.parametrize("data", [
    b"\0" * 16, wire.struct.pack(">IIQ", wire.SIMPLE_MAGIC, 0, 99),
    wire.struct.pack(">IHHQI", wire.CHUNK_MAGIC, 1, 1, 99, 8) + bytes(8)])
def test_a_server_that_breaks_the_protocol_is_refused(path: Path, data: bytes) -> None:
    recorded = Recorded(path)
    recorded.talk(HANDSHAKES["simple replies"])
    with pytest.raises(UnrecordableError):
        recorded.observer.from_server(data)
    recorded.finish()


@pytest.mark.parametrize("body", [b"", bytes(6)])
def test_an_error_without_a_number_is_refused(path: Path, body: bytes) -> None:
    recorded = Recorded(path)
    recorded.talk(HANDSHAKES["structured replies"])
    recorded.observer.from_client(wire.request(wire.WRITE, 0, payload=b"a" * BLOCK, cookie=1))
    with pytest.raises(UnrecordableError, match="does not say which"):
        recorded.observer.from_server(
            wire.struct.pack(">IHHQI", wire.CHUNK_MAGIC, 1, 0x8001, 1, len(body)) + body)
    assert "end" not in recorded.finish()[0]


@pytest.mark.parametrize("option", [5, 11])
def test_a_connection_that_goes_dark_is_refused(path: Path, option: int) -> None:
    observer = NbdObserver(0, lambda *_: pytest.fail("nothing was opened"))
    observer.from_server(wire.GREETING)
    observer.from_client(wire.client_flags() + wire.option(option))
    with pytest.raises(UnrecordableError, match=r"TLS|extended headers"):
        observer.from_server(wire.struct.pack(">QIII", wire.OPTION_REPLY_MAGIC, option, wire.ACK, 0))


@given(st.lists(st.tuples(st.booleans(), st.binary(min_size=1, max_size=60)), max_size=10), st.booleans())
def test_any_bytes_are_observed_or_refused(tmp_path_factory: pytest.TempPathFactory,
                                           pieces: list[tuple[bool, bytes]], greeted: bool) -> None:
    path = tmp_path_factory.mktemp("garbage") / "history"
    recorded = Recorded(path)
    if greeted:
        recorded.talk(HANDSHAKES["structured replies"])
    try:
        for from_client, data in pieces:
            (recorded.observer.from_client if from_client else recorded.observer.from_server)(data)
    except UnrecordableError:
        pass
    recorded.observer.closed()
    if recorded.recorder is not None:
        recorded.recorder.close()
        assert check_file(path).operations >= 0
