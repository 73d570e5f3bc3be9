"""A hostile NBD client: handshake, options and requests, in any pieces, before the fake engine.

Promised: no broken promise of the frontend's, no request and no export left in use when it hangs
up, and an answer of bounded size. First byte: bit 0 answers at once, bit 1 few request slots, bit 2
through the handshake first, bit 3 with structured replies, bit 4 read-only, bit 5 failing.
"""
from repstore_nbd import frontend

from tests.fuzz.script import Script
from tests.nbd import wire
from tests.nbd._fake_engine import FakeEngine

SIZE_BYTES = 65536
REQUEST_BYTES_MAX = 16384      # lengths beyond it are refused or read by raw bytes only: speed
RAW, REQUEST, OPTION, ANSWER, LINKS = 0, 1, 2, 3, 2


def run(data: bytes) -> None:
    """One input."""
    script = Script(data)
    style = script.number()
    slots = 2 if style & 2 else 16
    engine = FakeEngine(frontend, size_bytes=SIZE_BYTES, requests=slots, inline=bool(style & 1))
    engine.read_only = bool(style & 16)
    if style & 32:
        engine.error_of = lambda kind, offset, length: 5 if offset & 4096 else 0
    client = wire.Client(engine)
    engine.connect()
    if style & 4:
        client.go(structured=bool(style & 8))
    while script.left and not client.closed:
        _step(client, script)
    client.leave()
    if engine.links[1].alive:
        engine.disconnect(1)
    engine.pump()
    assert not engine.violations, engine.violations
    assert len(engine.disk) == SIZE_BYTES


def _step(client: wire.Client, script: Script) -> None:
    kind = script.number() % 4
    if kind == RAW:
        client.engine.feed(client.link, script.text())
    elif kind == REQUEST:
        command, flags, cookie = script.number(), script.number(), script.number()
        offset, length = script.number(3) * 64, script.number(2) % REQUEST_BYTES_MAX
        payload = bytes([cookie]) * length if command == wire.WRITE else b""
        client.engine.feed(client.link, wire.request(command, offset, length, payload, cookie, flags))
    elif kind == OPTION:
        client.engine.feed(client.link, wire.option(script.number(), script.text()))
    elif client.engine.pending:
        client.engine.complete(script.number() % len(client.engine.pending))
    else:
        client.engine.pump()
