"""The simulated backend: it records in order, and refuses answers that cannot be."""
from functools import partial

import pytest

from repstore import config
from repstore._fast.control import Engine
from repstore._fast.simulated import DiskFlush, DiskWrite, Send, SimulatedBackend
from repstore.sim.engine import SimulatedEngine, open_engine
from repstore.store import geometry
from repstore.store.device import MemoryDevice
from repstore.store.store import format_device

BOOT_ID = b"boot of the test"
NOW_NS = 10**12
CONNECTED, ACCEPTED = 3, 1


def opened_engine(number: int = 0) -> tuple[SimulatedEngine, bytearray]:
    """An engine that has not turned yet, on a new store."""
    layout = geometry.choose(config.StoreOptions(config.MIB, 64 * config.KIB))
    image = bytearray(layout.size_bytes)
    format_device(MemoryDevice(image), layout, store_uuid=bytes([number] * 16), boot_id=BOOT_ID)
    engine, _ = open_engine(image, "image", number=number, boot_id=BOOT_ID, life_id=number + 1)
    return engine, image


def hello(number: int) -> bytes:
    """What an engine says first on a link."""
    backend = opened_engine(number)[0].backend
    backend.link_up(0, CONNECTED)
    asks = [ask for ask in backend.take() if isinstance(ask, Send)]
    assert len(asks) == 1
    return asks[0].data


def first_write(engine: SimulatedEngine) -> DiskWrite:
    """The root of the first checkpoint, asked for when the first flush is answered."""
    engine.backend.turn(NOW_NS)
    [flush] = engine.backend.take()
    assert isinstance(flush, DiskFlush)
    engine.backend.disk_done(flush.operation, 0)
    engine.backend.turn(NOW_NS)
    [write] = engine.backend.take()
    assert isinstance(write, DiskWrite)
    return write


def test_what_an_engine_asks_is_taken_once_and_in_order() -> None:
    engine, _ = opened_engine()
    engine.backend.turn(NOW_NS)
    asked = engine.backend.take()
    assert [type(ask) for ask in asked] == [DiskFlush]        # what the store was opened with
    assert engine.backend.take() == []
    assert engine.backend.flying == 1


def test_a_checkpoint_goes_on_as_its_operations_are_answered() -> None:
    engine, image = opened_engine()
    kinds = []
    while engine.checkpoints == 0:
        engine.backend.turn(NOW_NS)
        for ask in engine.backend.take():
            kinds.append(type(ask))
            result = 0
            if isinstance(ask, DiskWrite):
                image[ask.offset:ask.offset + len(ask.data)] = ask.data
                result = len(ask.data)
            engine.backend.disk_done(ask.operation, result)      # type: ignore[union-attr]
    # what the store was opened with; root; two copies of the superblock; the other two: each made
    # durable before the next; then the second copy of the root
    assert kinds == [DiskFlush, DiskWrite, DiskFlush, *[DiskWrite] * 2, DiskFlush, *[DiskWrite] * 2,
                     DiskFlush, DiskWrite]


def test_an_answer_that_cannot_be_is_refused() -> None:
    engine, _ = opened_engine()
    write = first_write(engine)
    with pytest.raises(ValueError, match="17 waits for no answer"):
        engine.backend.disk_done(17, 0)
    with pytest.raises(ValueError, match="100 bytes done"):
        engine.backend.disk_done(write.operation, 100)
    engine.backend.disk_done(write.operation, -5)
    with pytest.raises(ValueError, match="waits for no answer"):
        engine.backend.disk_done(write.operation, len(write.data))


def test_links_go_up_and_down_once() -> None:
    backend = opened_engine()[0].backend
    for call in (partial(backend.link_up, 5000, CONNECTED), partial(backend.link_up, 0, 2),
                 partial(backend.link_down, 0), partial(backend.frame, 0, bytes(64))):
        with pytest.raises(ValueError, match="link"):
            call()
    backend.link_up(0, ACCEPTED)
    with pytest.raises(ValueError, match="up already"):
        backend.link_up(0, ACCEPTED)
    backend.link_down(0)
    backend.link_up(0, ACCEPTED)


@pytest.mark.fault("network: a damaged frame", promise="the connection is broken, the frame is not used")
def test_only_whole_and_undamaged_frames_reach_the_engine() -> None:
    engine, _ = opened_engine(0)
    engine.backend.link_up(0, ACCEPTED)
    frame = hello(1)
    for place in range(len(frame)):
        damaged = bytearray(frame)
        damaged[place] ^= 0x40
        assert not engine.backend.frame(0, damaged), f"byte {place}"
    for length in range(len(frame)):
        assert not engine.backend.frame(0, frame[:length])
    assert not engine.backend.frame(0, frame + b"x")
    assert not engine.linked(1)
    assert engine.backend.frame(0, frame)
    assert engine.linked(1)


def test_an_engine_has_one_backend() -> None:
    engine = Engine(0, BOOT_ID)
    backend = SimulatedBackend(engine)
    assert backend.flying == 0
    with pytest.raises(ValueError, match="has a backend already"):
        SimulatedBackend(engine)


@pytest.mark.fault("disk: a write that fails", promise="the store is fenced, nothing is tried again")
def test_a_failed_write_fences_the_store() -> None:
    engine, _ = opened_engine()
    write = first_write(engine)
    engine.backend.disk_done(write.operation, -5)
    engine.backend.turn(NOW_NS)
    assert engine.failed == 5


def test_a_lost_backend_leaves_nothing_behind() -> None:
    """Engine and backend hold each other: both go, with what was recorded and not taken."""
    for _ in range(3):
        engine, _ = opened_engine()
        engine.backend.turn(NOW_NS)
        del engine
