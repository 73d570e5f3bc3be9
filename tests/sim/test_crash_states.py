"""Crash states: the enumeration against a hand count, and the store judged on each of them.

`RecordedVolume` is a whole store of production on a recorded disk; `judge` opens one image.
"""
from collections.abc import Callable, Iterable
from random import Random

import pytest

from repstore import config
from repstore._fast.simulated import DiskFlush, DiskWrite
from repstore.sim.crash_states import CrashState, crash_states
from repstore.sim.disk import DiskAsk
from repstore.sim.durability import RecordedVolume, flush, trim, write, write_zeroes
from repstore.sim.local import Request
from repstore.sim.recording import (
    FlushBegun,
    FlushDone,
    Recording,
    RecordingDisk,
    WriteBegun,
    WriteDone,
)

FULL_BLOCKS = 90                 # of 110 that the smallest store used here takes


def begun(number: int, blocks: int = 1) -> WriteBegun:
    return WriteBegun(number, number * 4096, bytes([number]) * (512 * blocks))


def kept(states: Iterable[CrashState], *, power_lost: bool) -> set[frozenset[int]]:
    return {state.there for state in states if state.power_lost == power_lost and not state.torn}


# ------------------------------------------------------------------------- the enumeration

def test_a_kill_keeps_what_was_answered_and_any_subset_of_the_rest() -> None:
    recording = Recording(bytes(65536), [begun(1), begun(2), WriteDone(2), begun(3)])
    assert kept(crash_states(recording), power_lost=False) == {
        frozenset(there) for there in ((), (1,), (2,), (1, 2), (2, 3), (1, 2, 3))}


def test_a_power_cut_keeps_what_was_flushed_and_any_subset_of_the_rest() -> None:
    recording = Recording(bytes(65536), [
        begun(1), WriteDone(1), begun(2), FlushBegun(9), WriteDone(2), FlushDone(9), begun(3), WriteDone(3)])
    found = kept(crash_states(recording), power_lost=True)
    assert {frozenset(there) for there in ((), (2,), (1,), (1, 2), (1, 3), (1, 2, 3))} == found


def test_a_state_is_given_with_the_latest_point_that_can_leave_it() -> None:
    recording = Recording(bytes(65536), [begun(1), WriteDone(1), FlushBegun(9), FlushDone(9)])
    positions = {state.there: state.position for state in crash_states(recording) if state.power_lost}
    assert positions == {frozenset(): 3, frozenset({1}): 4}


def test_one_write_is_cut_at_every_sector_with_the_others_all_there_or_none() -> None:
    recording = Recording(bytes(65536), [begun(1, blocks=4), begun(2)])
    torn = {(state.there, state.torn_bytes) for state in crash_states(recording) if state.torn == 1}
    assert torn == {(there, cut) for there in (frozenset(), frozenset({2})) for cut in (512, 1024, 1536)}
    state = next(state for state in crash_states(recording) if state.torn == 1 and state.torn_bytes == 512)
    assert state.image(recording)[4096:8192].rstrip(b"\0") == b"\1" * 512


def test_many_unsure_writes_give_their_prefixes_and_the_subsets_of_the_newest() -> None:
    recording = Recording(bytes(65536), [begun(number) for number in range(1, 13)])
    found = kept(crash_states(recording, subset_limit=3), power_lost=True)
    assert {frozenset(range(1, end)) for end in range(1, 13)} <= found
    assert frozenset({*range(1, 10), 11}) in found
    assert frozenset(range(2, 13)) in found
    assert frozenset({5}) in found


# ------------------------------------------------------------------------- the store, judged

def judged(volume: RecordedVolume, every: int = 1) -> list[str]:
    """What is wrong with the states of a recording, every n-th of them."""
    states = list(crash_states(volume.recording))[::every]
    return [fault for fault in map(volume.judge, states) if fault]


def short_workload(seed: int) -> RecordedVolume:
    """Overwrites, a trim, zeros, a flush, FUA, a checkpoint; several under way at once."""
    volume = RecordedVolume(size_blocks=64, seed=seed)
    volume.run([write(0, 8), write(20, 8)])
    volume.begin_recording()
    volume.run([write(0, 2), write(1, 2), flush(), write(0), trim(1, 1), write_zeroes(20, 2),
                write(21, fua=True), write(5)], depth=3)
    volume.checkpoint()
    volume.run([write(0), write(3), flush(), write(4)], depth=2)
    return volume


def full_store(seed: int) -> RecordedVolume:
    """A store at four fifths, overwritten at random while the cleaner makes room."""
    random = Random(seed)
    volume = RecordedVolume(size_blocks=FULL_BLOCKS, seed=seed)
    volume.run(write(first, min(8, FULL_BLOCKS - first)) for first in range(0, FULL_BLOCKS, 8))
    volume.run(write(random.randrange(FULL_BLOCKS - 2), 2) for _ in range(60))
    cleaned = volume.local.engine.stats()["cleaned_segments"]
    volume.begin_recording()
    volume.run([mixed(random) for _ in range(14)], depth=3)
    volume.checkpoint()
    volume.run([write(random.randrange(FULL_BLOCKS - 2), 2) for _ in range(6)], depth=3)
    assert volume.local.engine.stats()["cleaned_segments"] > cleaned
    return volume


def mixed(random: Random) -> Request:
    first = random.randrange(FULL_BLOCKS - 4)
    return random.choices([write(first, random.randint(1, 4)), flush(), trim(first, 2),
                           write_zeroes(first, 3)], [7, 1, 1, 1])[0]


def test_every_crash_of_a_short_workload_leaves_a_legal_state() -> None:
    assert judged(short_workload(seed=3)) == []


def test_crashes_with_the_cleaner_at_work_leave_legal_states() -> None:
    assert judged(full_store(seed=1), every=25) == []


def test_crashes_while_a_store_is_opened_leave_legal_states() -> None:
    volume = RecordedVolume(size_blocks=64, seed=5)
    volume.run([write(0, 8)])
    volume.begin_recording()
    volume.run([write(0, 2), write(4, 2)], depth=2)
    volume.kill_and_open()
    volume.run([write(1, 2)])
    assert judged(volume) == []


@pytest.mark.parametrize("seed", [1, 2])
def test_a_flush_promises_nothing_of_the_writes_that_end_while_it_runs(seed: int) -> None:
    """Every write waits for a flush of its own, with others logged behind it."""
    volume = RecordedVolume(size_blocks=64, seed=seed)
    volume.begin_recording()
    volume.run([write(block, fua=True) for block in range(8)], depth=4)
    assert judged(volume) == []


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10, 14))
def test_every_crash_of_more_workloads_leaves_a_legal_state(seed: int) -> None:
    assert judged(short_workload(seed)) == []


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_every_crash_with_the_cleaner_at_work_leaves_a_legal_state(seed: int) -> None:
    assert judged(full_store(seed)) == []


# ------------------------------------------------------------- faults on purpose must be seen

class HastyDisk(RecordingDisk):
    """Answers writes, and only notes later that they are done: what was acknowledged was not."""

    def finish(self, operation: int) -> tuple[int, memoryview | None]:
        entries = [] if self.recording is None else self.recording.entries
        before = len(entries)
        answer = super().finish(operation)
        entries[before:] = [entry for entry in entries[before:] if not isinstance(entry, WriteDone)]
        return answer


class LyingDisk(RecordingDisk):
    """Answers flushes and makes nothing durable."""

    def begin(self, ask: DiskAsk) -> None:
        if isinstance(ask, DiskWrite):
            super().begin(ask)
        else:
            self._flying[ask.operation] = ask      # not recorded

    def finish(self, operation: int) -> tuple[int, memoryview | None]:
        if isinstance(self._flying[operation], DiskFlush):
            del self._flying[operation]
            return 0, None
        return super().finish(operation)


@pytest.mark.parametrize(("disk", "rule"), [(HastyDisk, "J2"), (LyingDisk, "J1")])
def test_a_promise_given_too_early_is_seen(monkeypatch: pytest.MonkeyPatch,
                                           disk: Callable[[bytearray], RecordingDisk], rule: str) -> None:
    monkeypatch.setattr("repstore.sim.durability.RecordingDisk", disk)
    volume = RecordedVolume(size_blocks=64, store_bytes=config.MIB)
    volume.begin_recording()
    volume.run([write(0), flush(), write(1), flush()])
    assert any(rule in fault for fault in judged(volume))


def test_a_block_that_was_never_written_like_that_is_seen() -> None:
    volume = RecordedVolume(size_blocks=64)
    volume.begin_recording()
    volume.run([write(0), flush()])
    volume._effects[0] = (0, 4711)
    assert any("J3" in fault for fault in judged(volume))
