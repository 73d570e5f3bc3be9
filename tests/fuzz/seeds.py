"""The first inputs of each target: what honest peers and stores look like, and one step beside it.

`python -m tests.fuzz.seeds` writes them into the corpus again; a fuzzer grows them.
"""
import struct
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

from repstore.format import OP_COPY, OP_EPOCH, OP_TRIM, OP_WRITE, OP_ZERO
from tests.fuzz import frames, stores
from tests.fuzz.history import HEADER
from tests.nbd import wire

CORPUS = Path(__file__).parent / "corpus"
NEAR, LSN, COMMIT, CHAIN, RECORDS = 1, 2, 4, 8, 16
APPEND, ACK, FLUSH, PING, PONG, TAIL, LEARN, COPY, REQUEST, WANT = 2, 3, 5, 6, 7, 11, 12, 13, 15, 17
FRAME_TYPES = range(20)


def seeds() -> dict[str, list[bytes]]:
    """By target."""
    return {"frames": list(_frames()), "stores": list(_stores()), "nbd": list(_nbd()),
            "transport": list(_transport()), "history": list(_history())}


def told(link: int, kind: int, *, flags: int = 0, session: int = 0, lsn: int = 0, commit: int = 0,
         extra: int = 0, epoch: int = 0, rest: bytes = b"\0\0\0\0") -> bytes:
    """The step that delivers one frame whose numbers lie near the copy's own."""
    style = NEAR | LSN | COMMIT | CHAIN | (RECORDS if kind in (APPEND, TAIL, COPY) else 0)
    return struct.pack("<BBBBbBbbB", link - 1, style, kind, flags, epoch, session, lsn, commit, extra) + rest


def record(operation: int, blocks: int = 1, lba: int = 3) -> bytes:
    """One record of a frame's meta: request and session 1, epoch 2."""
    return struct.pack("<BBbBBB", operation, blocks, lba, 1, 1, 2)


def records(*listed: bytes, payload: int = 0) -> bytes:
    """Records and their payload, of whichever bytes."""
    return bytes([len(listed)]) + b"".join(listed) + bytes(range(1, payload + 1))


SETTLE = b"\x09\x40"
STREAM = [
    records(record(OP_EPOCH, lba=0)), records(record(OP_WRITE), payload=1),
    records(record(OP_WRITE, 4), record(OP_TRIM, 2), record(OP_ZERO, 3), payload=4),
    records(record(OP_WRITE, 15, 8), payload=15), records(record(OP_WRITE, 16, 8), payload=16),
    records(record(OP_WRITE, 1, 63), payload=1), records(record(OP_WRITE, 2, 63), payload=2),
    records(record(OP_COPY, 2), payload=2), records(record(0)), records(record(OP_WRITE, 0)), records()]


def _frames() -> Iterator[bytes]:
    for role in range(frames.ROLES):
        first = bytes([role | 128])
        for kind in FRAME_TYPES:
            yield first + told(1, kind) + SETTLE
            yield first + told(1, kind, flags=255, lsn=-1, commit=1, extra=9, epoch=1) + SETTLE
    for body in STREAM:
        for kind in (APPEND, TAIL, COPY):
            begin = b"\x81" + (told(1, LEARN, flags=4) + SETTLE if kind == COPY else b"")
            pull = b"\x06\0\0\0\x01" if kind == TAIL else b""
            end = SETTLE + told(1, FLUSH, flags=2, commit=9) + SETTLE
            yield begin + pull + told(1, kind, rest=body) + end
    for kind in range(1, 7):
        meta = struct.pack("<BBHIQQ", kind, 1, 0, 0, 4096, 4096)
        for role in (3, 4):
            rest = bytes([len(meta)]) + meta + b"\x07\0\x10"
            yield bytes([role]) + told(3, REQUEST, session=1, rest=rest) + SETTLE
    for node in (1, 2):
        yield (b"\x85\x07\x02\x03\x04\x00" + SETTLE + told(node, ACK, lsn=10)
               + told(node, PONG, extra=99) + SETTLE
               + told(node, WANT) + b"\x06" + bytes([node - 1, 2, 0, 3]) + SETTLE)


def _stores() -> Iterator[bytes]:
    for base in (0, 1):
        areas = stores.bases()[base].areas
        for number, area in enumerate(areas):
            places = sorted({*range(0, min(area.length, 200), 8), area.length - 8, 4096 + 5})
            for place in (place for place in places[::3] if place < area.length):
                for style, value in ((15, b"\xff" * 8), (14, b"\x01"), (3, b"\x02\x00")):
                    yield bytes([base, style, number]) + struct.pack("<H", place) + value
    yield b"\0"
    yield b"\1"


def _nbd() -> Iterator[bytes]:
    def option(number: int, data: bytes) -> bytes:
        return bytes([2, number]) + struct.pack("<H", len(data)) + data

    def raw(data: bytes) -> bytes:
        return b"\0" + struct.pack("<H", len(data)) + data

    yield b"\1" + raw(wire.client_flags()) + raw(wire.go()) + raw(wire.request(wire.DISC))
    yield b"\0" + raw(wire.client_flags(0)) + raw(wire.option(wire.EXPORT_NAME, b"demo"))
    for number in range(12):
        for data in (b"", wire.text(b"demo") + b"\0\0", wire.text(b"demo") + b"\0\1\0\3",
                     wire.text(b"demo") + b"\0\0\0\1" + wire.text(b"base:"), b"\xff" * 9):
            going = option(wire.GO, wire.text(b"") + b"\0\0")
            yield b"\1" + raw(wire.client_flags()) + option(number, data) + going
    for style in (5, 13, 4, 14, 29, 45):
        for command in range(9):
            for flags, offset, length in ((0, 0, 4096), (255, 64, 100), (1, 1023, 9000), (0, 2**24 - 1, 1)):
                step = struct.pack("<BBBBI", 1, command, flags, 9, offset)[:7] + struct.pack("<H", length)
                yield bytes([style]) + step + step + b"\3\1"


def _transport() -> Iterator[bytes]:
    for style in range(8):
        yield bytes([style]) + b"\1\0\3abc\4\0" * 3 + b"\1\0\0\0\0"
        yield bytes([style]) + b"\2\x40" + bytes(80)


def _history() -> Iterator[bytes]:
    lines = [
        b'{"op":"write","client":1,"block":3,"begin":1,"end":4,"values":[7]}\n',
        b'{"op":"read","block":3,"count":2,"begin":5,"end":6,"values":[7,null]}\n',
        b'{"op":"zero","block":3,"begin":2,"until":9,"error":5}\n', b'{"op":"flush","begin":7,"end":8}\n',
        b'{"op":"crash","begin":9,"incarnation":2}\n',
        b'{"op":"read","block":3,"begin":10,"end":11,"values":[0]}\n',
        b'{"op":"write","block":1,"begin":1,"fua":true,"values":[18446744073709551614]}\n',
        b'{"op":"read","block":9223372036854775807,"count":4294967295,"begin":0,"end":0,"values":[]}\n']
    for count in range(len(lines) + 1):
        yield b"\3" + b"".join(lines[:count])
    for line in lines:
        yield b"\3" + line
        yield b"\1" + line + b'{"op":"end","operations":1}\n'
    yield b"\0" + HEADER
    yield b"\2" + HEADER.replace(b"64", b"99999999999999999999") + lines[0]


def write() -> None:
    """Put all of them into the corpus."""
    for target, inputs in seeds().items():
        folder = CORPUS / target
        folder.mkdir(parents=True, exist_ok=True)
        for data in inputs:
            (folder / sha256(data).hexdigest()[:12]).write_bytes(data)


if __name__ == "__main__":
    write()
