"""The life of a connection, whatever comes and whenever it goes; and the native promise."""
import re
from pathlib import Path

import pytest
import repstore_nbd
from hypothesis import given
from hypothesis import strategies as st
from repstore_nbd.codec import wire_sizes

from tests.nbd._fake_engine import FakeEngine, heap_bytes
from tests.nbd.wire import (
    BLOCK_STATUS,
    DISC,
    FLUSH,
    READ,
    STRUCTURED,
    WRITE,
    Client,
    client_flags,
    go,
    meta_context,
    option,
    request,
)

OPENING = client_flags() + option(STRUCTURED) + meta_context(b"demo", b"base:allocation") + go()
TRAFFIC = (request(WRITE, 0, payload=bytes(300000)) + request(READ, 0, 300000, cookie=2)
           + request(BLOCK_STATUS, 0, 4096, cookie=3) + request(FLUSH, cookie=4)
           + request(READ, 0, 4096, cookie=5) + request(DISC))
GENERATED = Path(repstore_nbd.__file__).resolve().parents[2] / "build/cython/bindings/nbd"


def test_the_structs_are_packed() -> None:
    assert wire_sizes() == {
        "greeting": 18, "option": 16, "option_reply": 20, "info_export": 12, "info_block_size": 14,
        "export": 134, "request": 28, "simple_reply": 16, "chunk": 20, "data_chunk": 28,
        "status_chunk": 24, "error_chunk": 26}


def test_the_capsule_carries_its_name() -> None:
    assert '"repstore.frontend"' in repr(repstore_nbd.frontend)


@given(st.binary(max_size=300))
def test_garbage_from_the_first_byte(garbage: bytes) -> None:
    client = Client()
    client.talk(garbage)
    client.leave()


@given(st.lists(st.tuples(st.integers(0, 12), st.binary(max_size=60)), max_size=8))
def test_garbage_in_well_formed_options(options: list[tuple[int, bytes]]) -> None:
    client = Client()
    client.talk(client_flags() + b"".join(option(number, data) for number, data in options))
    client.leave()


@given(st.data())
def test_a_link_that_dies_at_any_moment(data: st.DataObject) -> None:
    """Cut anywhere, with anything under way: the engine still gets every request back."""
    stream = (OPENING if data.draw(st.booleans()) else client_flags() + go()) + TRAFFIC
    client = Client(inline=data.draw(st.booleans()), requests=data.draw(st.sampled_from([1, 2, 64])))
    engine, link = client.engine, client.link
    engine.feed(link, stream[:data.draw(st.integers(0, len(stream)))])
    while engine.opening_count:
        engine.open_answered()
        engine.feed(link)
    for _ in range(data.draw(st.integers(0, 8))):
        if engine.pending and data.draw(st.booleans()):
            engine.complete(data.draw(st.integers(0, len(engine.pending) - 1)))
        elif engine.links[link].unsent:
            engine.sent(link)
    client.leave()


def test_a_thousand_broken_connections_leave_no_memory_behind() -> None:
    def broken(engine: FakeEngine, length: int) -> None:
        client = Client(engine=engine)
        engine.feed(client.link, (OPENING + TRAFFIC)[:length])
        while engine.opening_count:
            engine.open_answered()
            engine.feed(client.link)
        engine.disconnect(client.link)
        engine.pump()
        del engine.links[client.link]

    engine = FakeEngine(repstore_nbd.frontend, inline=False)
    lengths = [0, 3, 40, len(OPENING), len(OPENING) + 100000, len(OPENING + TRAFFIC)]
    for length in lengths:
        broken(engine, length)
    engine.log.clear()
    before = heap_bytes()
    for _ in range(200):
        for length in lengths:
            broken(engine, length)
    engine.log.clear()
    assert engine.requests_in_use == 0
    assert engine.violations == []
    assert heap_bytes() - before < 4 << 20     # one leaked slab a round would be 20 MB


HOT = {
    "codec": ["received", "sent", "writable"],
    "connection": ["operation_take", "operation_let_go", "reference_drop"],
    "transmission": [
        "transmission_received", "has_room", "carries_bytes", "start", "refusal", "part_length", "go_on",
        "fill", "request_done", "request_give_back", "lend_data", "answer", "answer_simply", "set_simple",
        "set_chunk", "gather", "extents_to_wire"],
}


def body_of(source: str, function: str) -> str:
    """The definition of a cdef function in generated C."""
    found = re.search(rf"^static [^;\n]*__pyx_f_\w*?_{function}\([^;{{]*\) {{\n.*?^}}", source, re.M | re.S)
    assert found, function
    return found.group()


@pytest.mark.parametrize("module", HOT)
def test_no_python_in_the_hot_functions(module: str) -> None:
    source = (GENERATED / f"{module}.c").read_text()
    for function in HOT[module]:
        assert not re.findall(r"\bPy[A-Z]\w+|__Pyx_\w+", body_of(source, function)), function
