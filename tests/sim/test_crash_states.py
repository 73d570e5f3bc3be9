"""Crash states: the enumeration against a hand count, and the store judged on each of them.

`RecordedVolume` is a whole store of production on a recorded disk.
"""
import gc
from collections.abc import Callable, Iterable
from itertools import product
from random import Random

import pytest

from repstore import config, errors
from repstore._fast.simulated import DiskFlush, DiskWrite
from repstore.format import BLOCK_SIZE
from repstore.sim.crash_states import SUBSET_LIMIT_MAX, CrashState, crash_states
from repstore.sim.disk import DiskAsk
from repstore.sim.durability import COLLECT_LIVES, RecordedVolume, flush, trim, write, write_zeroes
from repstore.sim.engine import SimulatedEngine
from repstore.sim.local import Request
from repstore.sim.recording import (
    RECORDED_WRITES_MAX,
    FlushBegun,
    FlushDone,
    Recording,
    RecordingDevice,
    RecordingDisk,
    WriteBegun,
    WriteDone,
)
from repstore.store import superblock
from repstore.store.store import format_device

FULL_BLOCKS = 90                 # of 96 that the smallest store used here takes


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
    torn = {(state.there, dict(state.torn)[1]) for state in crash_states(recording) if 1 in dict(state.torn)}
    sectors = (0b0001, 0b0011, 0b0111, 0b1110, 0b1100, 0b1000)
    assert torn == set(product((frozenset(), frozenset({2})), sectors))
    state = next(state for state in crash_states(recording) if state.torn == ((1, 0b1000),))
    assert state.image(recording)[4096:8192].strip(b"\0") == b"\1" * 512
    assert state.image(recording)[4096 + 3 * 512] == 1


def test_many_unsure_writes_give_their_prefixes_and_the_subsets_of_the_newest() -> None:
    recording = Recording(bytes(65536), [begun(number) for number in range(1, 13)])
    found = kept(crash_states(recording, subset_limit=3), power_lost=True)
    assert {frozenset(range(1, end)) for end in range(1, 13)} <= found
    assert frozenset({*range(1, 10), 11}) in found
    assert frozenset(range(2, 13)) in found
    assert frozenset({5}) in found


def test_beyond_the_bound_the_seed_draws_subsets_and_torn_writes() -> None:
    recording = Recording(bytes(65536), [begun(number, blocks=8) for number in range(1, 13)])

    def states(samples: int, seed: int) -> list[CrashState]:
        return list(crash_states(recording, subset_limit=2, samples=samples, seed=seed))

    rules, drawn = states(0, 1), states(50, 1)
    assert set(rules) < set(drawn)
    assert len(drawn) > len(rules) + 50
    assert any(len(state.torn) > 1 for state in drawn)
    assert drawn == states(50, 1)
    assert drawn != states(50, 2)
    few = Recording(bytes(65536), [begun(1), begun(2)])
    assert set(crash_states(few, samples=0)) == set(crash_states(few, samples=50))


def test_every_state_is_one_that_the_disk_could_leave() -> None:
    """Against the rules told the other way round: what was sure is there, what never began is not."""
    random = Random(4)
    for _ in range(40):
        recording = random_recording(random)
        for state in crash_states(recording, subset_limit=3, samples=4):
            before = recording.entries[:state.position]
            begun_by_then = {entry.number for entry in before if isinstance(entry, WriteBegun)}
            sure = {entry.number for entry in before if isinstance(entry, WriteDone)}
            if state.power_lost:
                done = [entry.number for entry in before if isinstance(entry, FlushDone)]
                starts = [at for at, entry in enumerate(before)
                          if isinstance(entry, FlushBegun) and entry.number in done]
                last = max(starts, default=0)
                sure = {entry.number for entry in before[:last] if isinstance(entry, WriteDone)}
            assert sure <= state.there <= begun_by_then
            assert not state.there & dict(state.torn).keys()
            assert not sure & dict(state.torn).keys()


def random_recording(random: Random) -> Recording:
    recording, flying = Recording(bytes(65536)), []
    for _ in range(12):
        choice = random.randrange(4)
        if choice == 0 and flying:
            finish = flying.pop(random.randrange(len(flying)))
            finish[0](finish[1])
        elif choice == 1:
            flying.append((recording.flush_done, recording.flush_begun()))
        else:
            number = recording.write_begun(4096 * random.randrange(4), random.randbytes(1024))
            flying.append((recording.write_done, number))
    return recording


@pytest.mark.parametrize("bad", [
    lambda: crash_states(Recording(b""), 0),
    lambda: crash_states(Recording(b""), SUBSET_LIMIT_MAX + 1),
    lambda: crash_states(Recording(b""), samples=-1),
    lambda: Recording(bytes(512)).write_begun(1, bytes(512)),
    lambda: Recording(bytes(512)).write_begun(-1, b"x"),
    lambda: Recording(bytes(512)).write_done(1),
    lambda: Recording(bytes(512)).flush_done(1),
    lambda: [recording.write_begun(0, b"") for recording in [Recording(b"")] * (RECORDED_WRITES_MAX + 1)],
])
def test_what_no_disk_can_be_asked_is_refused(bad: Callable[[], object]) -> None:
    with pytest.raises(errors.ConfigError):
        bad()


# ----------------------------------------------------------------- a crash after the crash

def test_a_kill_leaves_what_a_power_cut_may_still_take() -> None:
    recording = Recording(bytes(65536))
    for number in (1, 2, 3):
        assert recording.write_begun(number * 4096, bytes([number]) * 512) == number
        recording.write_done(number)
        if number == 1:
            recording.flush_done(recording.flush_begun())
            recording._number = 1
    killed = next(state for state in crash_states(recording)
                  if not state.power_lost and state.there == {1, 2, 3})
    life = killed.next_life(recording)
    assert life.found() == killed.image(recording)
    second = {state.power_lost: set() for state in crash_states(life)}
    for state in crash_states(life):
        image = state.image(life)
        second[state.power_lost].add(tuple(image[number * 4096] for number in (1, 2, 3)))
    assert second == {False: {(1, 2, 3)}, True: {(1, 0, 0), (1, 2, 0), (1, 0, 3), (1, 2, 3)}}


def test_of_two_writes_to_one_place_the_later_one_wins_in_the_next_life_too() -> None:
    """The later one is durable, the earlier one is not: it must not come up again."""
    recording = Recording(bytes(4096))
    early, late = recording.write_begun(0, b"a" * 512), recording.write_begun(0, b"b" * 512)
    recording.write_done(late)
    recording.flush_done(recording.flush_begun())
    recording.write_done(early)
    state = next(state for state in crash_states(recording) if not state.power_lost)
    assert state.there == {early, late}
    life = state.next_life(recording)
    assert {bytes(again.image(life)[:512]) for again in crash_states(life)} == {b"b" * 512}


def test_what_a_power_cut_left_is_durable() -> None:
    recording = Recording(bytes(4096))
    recording.write_done(recording.write_begun(0, b"a" * 512))
    state = next(state for state in crash_states(recording) if state.power_lost and state.there)
    life = state.next_life(recording)
    assert {bytes(again.image(life)) for again in crash_states(life)} == {bytes(state.image(recording))}


# ------------------------------------------------------------------------- the store, judged

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


@pytest.mark.fault("crash: kill -9 or power cut at any write",
                   promise="a prefix with everything answered (kill), everything flushed (power cut)")
def test_every_crash_of_a_short_workload_leaves_a_legal_state() -> None:
    assert short_workload(seed=3).check(every=3).faults == ()


@pytest.mark.fault("crash: kill -9 or power cut at any write",
                   promise="a prefix with everything answered (kill), everything flushed (power cut)")
def test_crashes_with_the_cleaner_at_work_leave_legal_states() -> None:
    assert full_store(seed=1).check(every=25).faults == ()


def two_lives() -> RecordedVolume:
    """A process ends and another one opens the store, recorded."""
    volume = RecordedVolume(size_blocks=64, seed=5)
    volume.run([write(0, 8)])
    volume.begin_recording()
    volume.run([write(0, 2), write(4, 2)], depth=2)
    volume.kill_and_open()
    volume.run([write(1, 2)])
    return volume


def test_crashes_while_a_store_is_opened_leave_legal_states() -> None:
    assert two_lives().check().faults == ()


@pytest.mark.fault("crash: a second crash while a store is opened", promise="the same promises hold")
def test_a_second_crash_during_recovery_leaves_a_legal_state() -> None:
    report = short_workload(seed=6).check(every=40, second_crashes=12)
    assert report.faults == ()
    assert report.second_states > 10 * report.states


@pytest.mark.slow
@pytest.mark.fault("crash: a second crash while a store is opened", promise="the same promises hold")
def test_a_crash_while_what_a_crash_left_is_opened_leaves_a_store() -> None:
    """Superblocks that a crash left half written are made whole before anything newer is."""
    volume = RecordedVolume(size_blocks=64)
    volume.begin_recording()
    volume.run([write(0)])
    volume.checkpoint()
    report = volume.check(every=3, second_crashes=8, subset_limit=3)
    assert report.faults == ()
    assert report.second_states > 200


@pytest.mark.parametrize("seed", [1, 2])
def test_a_flush_promises_nothing_of_the_writes_that_end_while_it_runs(seed: int) -> None:
    """Every write waits for a flush of its own, with others logged behind it."""
    volume = RecordedVolume(size_blocks=64, seed=seed)
    volume.begin_recording()
    volume.run([write(block, fua=True) for block in range(8)], depth=4)
    assert volume.check().faults == ()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10, 14))
def test_every_crash_of_more_workloads_leaves_a_legal_state(seed: int) -> None:
    assert short_workload(seed).check().faults == ()


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_every_crash_with_the_cleaner_at_work_leaves_a_legal_state(seed: int) -> None:
    assert full_store(seed).check().faults == ()


@pytest.mark.slow
@pytest.mark.parametrize(("make", "every", "second_crashes"), [
    (short_workload, 15, 20), (full_store, 40, 10)])
def test_second_crashes_during_many_recoveries_leave_legal_states(
        make: Callable[[int], RecordedVolume], every: int, second_crashes: int) -> None:
    assert make(21).check(every=every, second_crashes=second_crashes, seed=21).faults == ()


def test_a_check_of_many_states_keeps_few_of_the_processes_it_opened() -> None:
    """Each has a store's image and an engine; left to the collector thousands of them pile up."""
    def alive() -> int:
        return sum(isinstance(thing, SimulatedEngine) for thing in gc.get_objects())

    volume = short_workload(seed=3)
    gc.collect()
    before = alive()
    gc.disable()
    try:
        report = volume.check(every=10)
        assert report.states > COLLECT_LIVES
        assert alive() - before <= COLLECT_LIVES
    finally:
        gc.enable()


# ------------------------------------------------------------- while superblocks are written

@pytest.mark.fault("crash: while superblocks are written", promise="the old state or the new one")
def test_a_crash_while_the_superblocks_are_written_leaves_the_old_state_or_the_new_one() -> None:
    volume = RecordedVolume(size_blocks=64)
    recording = Recording(bytes(volume.disk.image))
    device = RecordingDevice(recording)
    old = superblock.read(device, "store").superblock
    new = superblock.Superblock(**{field: getattr(old, field) for field in old.__slots__}
                                | {"sequence": old.sequence + 1})
    superblock.write(device, new)
    found = set()
    for state in crash_states(recording, SUBSET_LIMIT_MAX):
        life = RecordingDevice(state.next_life(recording))
        found.add(superblock.read(life, "store").superblock.sequence)
    assert found == {old.sequence, new.sequence}


def test_a_crash_while_a_store_is_formatted_leaves_a_store_or_none() -> None:
    volume = RecordedVolume(size_blocks=64)
    recording = Recording(bytes(volume.geometry.size_bytes))
    format_device(RecordingDevice(recording), volume.geometry, store_uuid=bytes(16), boot_id=bytes(16))
    found = set()
    for state in crash_states(recording, SUBSET_LIMIT_MAX):
        device = RecordingDevice(state.next_life(recording))
        try:
            found.add(superblock.read(device, "store").superblock.sequence)
        except (errors.ConfigError, errors.CorruptionError):
            found.add(0)
    assert found == {0, 1}


@pytest.mark.slow
@pytest.mark.fault("crash: while superblocks are written", promise="the old state or the new one")
def test_every_crash_while_a_checkpoint_writes_its_superblocks_leaves_a_legal_state() -> None:
    volume = RecordedVolume(size_blocks=64)
    volume.begin_recording()
    volume.run([write(0, 2), write(4)])
    volume.checkpoint()
    volume.run([write(9)])
    places = {position * BLOCK_SIZE for position in volume.geometry.superblock_positions}
    written = [entry.offset for entry in volume.recording.writes().values()]
    assert places <= set(written)
    report = volume.check(subset_limit=SUBSET_LIMIT_MAX)
    assert report.faults == ()


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


@pytest.mark.parametrize(("disk", "rule"), [(HastyDisk, "D2"), (LyingDisk, "D1")])
def test_a_promise_given_too_early_is_seen(disk: type[RecordingDisk], rule: str) -> None:
    volume = RecordedVolume(size_blocks=64, store_bytes=config.MIB)
    volume.disk = volume.local._disk = disk(volume.disk.image)
    volume.begin_recording()
    volume.run([write(0), flush(), write(1), flush()])
    assert any(f"({rule})" in fault for fault in volume.check(every=7).faults)


def test_a_block_that_was_never_written_like_that_is_seen() -> None:
    volume = RecordedVolume(size_blocks=64)
    ledger = volume.begin_recording()
    volume.run([write(0), flush()])
    ledger.states[1] = (4711,) * 64
    assert any("(D3)" in fault for fault in volume.check().faults)


def test_a_recovery_that_destroys_what_it_found_is_seen_by_a_second_crash(
        monkeypatch: pytest.MonkeyPatch) -> None:
    """A careless store: it wipes the other superblocks first, and puts them back."""
    volume = RecordedVolume(size_blocks=64)
    volume.begin_recording()
    volume.run([write(0), flush()])
    reopen = volume.reopen

    def careless(recording: Recording, boot: int) -> object:
        device = RecordingDevice(recording)
        offsets = [position * BLOCK_SIZE for position in volume.geometry.superblock_positions]
        blocks = [bytes(device.read(offset, BLOCK_SIZE)) for offset in offsets]
        for offset in offsets:
            device.write(offset, bytes(BLOCK_SIZE))
        for offset, block in zip(offsets, blocks, strict=True):
            device.write(offset, block)
        return reopen(recording, boot)

    monkeypatch.setattr(volume, "reopen", careless)
    assert volume.check(every=10).faults == ()
    report = volume.check(every=10, second_crashes=20, subset_limit=4)
    assert any("while it was reopened" in fault for fault in report.faults)
