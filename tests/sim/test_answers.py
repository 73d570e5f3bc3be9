"""What a member's answers count for (rule P6 of `_fast/primary`): one engine, and what it may hear."""
from functools import partial

import numpy as np
import pytest

from repstore._fast.checksum import crc32c
from repstore._fast.layout import FRAME_ACK, FRAME_LEARN, frame_header_t
from repstore._fast.simulated import DiskFlush, DiskRead, DiskWrite
from repstore.sim.engine import SimulatedEngine
from tests.sim.test_simulated import CONNECTED, NOW_NS, hello, opened_engine

VOLUME, MEMBER, EPOCH = 1, 1, 2


def pump(engine: SimulatedEngine, image: bytearray) -> bool:
    """One turn, and everything that it asked of the disk."""
    _, busy = engine.backend.turn(NOW_NS)
    for ask in engine.backend.take():
        if isinstance(ask, DiskWrite):
            image[ask.offset:ask.offset + len(ask.data)] = ask.data
            engine.backend.disk_done(ask.operation, len(ask.data))
        elif isinstance(ask, DiskRead):
            engine.backend.disk_done(ask.operation, ask.length, image[ask.offset:ask.offset + ask.length])
        elif isinstance(ask, DiskFlush):
            engine.backend.disk_done(ask.operation, 0)
        busy |= isinstance(ask, DiskWrite | DiskRead | DiskFlush)
    return busy


def settle(engine: SimulatedEngine, image: bytearray) -> None:
    """Until nothing moves any more."""
    while pump(engine, image):
        pass


def frame(kind: int, **fields: int) -> bytes:
    """What the other node says in epoch EPOCH."""
    header = np.zeros(1, frame_header_t)
    said = np.frombuffer(hello(MEMBER)[:frame_header_t.itemsize], frame_header_t)
    header["magic"], header["version"], header["type"] = said["magic"], said["version"], kind
    header["volume"], header["epoch"] = VOLUME, EPOCH
    for name, value in fields.items():
        header[name] = value
    header["crc"] = crc32c(header.tobytes())
    return header.tobytes()


def answer(lsn: int, chain: int) -> bytes:
    """The member says that its log ends at `lsn` with this running hash."""
    return frame(FRAME_ACK, lsn=lsn, extra=chain)


def leading(told_lsn: int) -> tuple[SimulatedEngine, bytearray]:
    """A primary whose log has one record, of its epoch, with one other member that told `told_lsn`."""
    engine, image = opened_engine()
    engine.pump = partial(pump, engine, image)
    settle(engine, image)
    engine.volume_create(VOLUME, bytes(16).hex(), "volume", 64)
    engine.backend.link_up(0, CONNECTED)
    assert engine.backend.frame(0, hello(MEMBER))
    engine.lead(VOLUME, EPOCH, 1, [(MEMBER, told_lsn)], 2, 1, False, 1)
    settle(engine, image)
    engine.events()
    state = engine.volume_state(VOLUME)
    assert (state.last_lsn, state.commit_lsn) == (1, 0)
    return engine, image


@pytest.mark.parametrize("told_lsn", [0, 1])
def test_an_answer_out_of_another_history_does_not_count(told_lsn: int) -> None:
    """As long a log as ours, of a promotion that lost: an acknowledged write would be on our copy alone."""
    engine, image = leading(told_lsn)
    assert engine.backend.frame(0, answer(1, chain=engine.volume_state(VOLUME).chain ^ 1))
    settle(engine, image)
    assert engine.volume_state(VOLUME).commit_lsn == 0
    assert [event[0] for event in engine.events()] == ["diverged"]
    engine.check_invariants()


@pytest.mark.parametrize("told_lsn", [0, 1])
def test_what_a_member_told_before_counts_when_it_proves_it(told_lsn: int) -> None:
    engine, image = leading(told_lsn)
    assert engine.backend.frame(0, answer(1, chain=engine.volume_state(VOLUME).chain))
    settle(engine, image)
    assert engine.volume_state(VOLUME).commit_lsn == 1
    engine.check_invariants()


def test_an_answer_beyond_our_log_counts_for_nothing() -> None:
    engine, image = leading(0)
    assert engine.backend.frame(0, answer(2, chain=0))
    settle(engine, image)
    assert engine.volume_state(VOLUME).commit_lsn == 0


def test_a_learner_starts_once_with_each_session() -> None:
    """A LEARN that comes twice, or late, would put the end of our log below what we have learned since."""
    engine, image = opened_engine()
    engine.pump = partial(pump, engine, image)
    settle(engine, image)
    engine.volume_create(VOLUME, bytes(16).hex(), "volume", 64)
    engine.backend.link_up(0, CONNECTED)
    assert engine.backend.frame(0, hello(MEMBER))
    engine.follow(VOLUME, EPOCH, MEMBER, False)
    settle(engine, image)
    for serial, lsn in ((7, 100), (7, 100), (6, 50)):
        assert engine.backend.frame(0, frame(FRAME_LEARN, lsn=lsn, chain=lsn, extra=serial))
        engine.check_invariants()
    settle(engine, image)
    engine.check_invariants()
    state = engine.volume_state(VOLUME)
    assert (state.last_lsn, state.commit_lsn, state.learning) == (100, 100, True)
    assert engine.backend.frame(0, frame(FRAME_LEARN, lsn=120, chain=3, extra=8))
    settle(engine, image)
    assert engine.volume_state(VOLUME).last_lsn == 120
