"""Recovery: what was promised is kept, what was not may go, and rot is never taken for a crash."""
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from repstore import config, errors
from repstore.format import BLOCK_SIZE, SEGMENT_CLASSES, SEGMENT_OPEN
from repstore.store import recovery
from repstore.store import root as roots
from repstore.store.recovery import BATCH_INFO
from repstore.store.root import Root
from tests.store.images import (
    BOOT,
    OTHER_BOOT,
    BadSpots,
    Log,
    Waiting,
    new_store,
    small_geometry,
    state_of,
)

START, START_CRC = 100, 5000
BAD_PAYLOAD = 4


@dataclass
class Written:
    """One batch as the log wrote it, and what the disk has of it."""

    sequence: int
    flushed: int
    completed: int
    header: bool = True
    payload: bool = True


def crc_of(sequence: int) -> int:
    return sequence * 50


def infos(batches: list[Written]) -> recovery.Infos:
    """What a scan would list."""
    found = np.zeros(len([batch for batch in batches if batch.header]), BATCH_INFO)
    for info, batch in zip(found, [batch for batch in batches if batch.header], strict=True):
        info["sequence"], info["crc"] = batch.sequence, crc_of(batch.sequence)
        info["previous_crc"] = crc_of(batch.sequence - 1)
        info["flushed_sequence"], info["completed_sequence"] = batch.flushed, batch.completed
        info["segment"], info["offset_blocks"] = batch.sequence // 8, batch.sequence % 8
        info["fault"] = 0 if batch.payload else BAD_PAYLOAD
    return found


def decide(batches: list[Written], same_boot: bool = True) -> recovery.Recovery:
    return recovery.decide(infos(batches), START, START_CRC, same_boot=same_boot, name="image")


@st.composite
def logs(draw: st.DrawFn) -> tuple[list[Written], int, int]:
    """A log, and how far it was flushed and completed when it stopped."""
    batches: list[Written] = []
    flushed = completed = START
    for sequence in range(START + 1, START + 1 + draw(st.integers(0, 12))):
        batches.append(Written(sequence, flushed, completed))
        completed = draw(st.integers(max(completed, sequence - 4), sequence))
        flushed = draw(st.integers(flushed, completed))
    return batches, flushed, completed


def promised(batches: list[Written]) -> tuple[int, int]:
    """What the headers that are left prove to have been flushed and completed."""
    whole = [batch for batch in batches if batch.header]
    return (max([START, *(batch.flushed for batch in whole)]),
            max([START, *(batch.completed for batch in whole)]))


@given(logs(), st.data())
def test_a_kill_loses_nothing_that_was_completed(log: tuple[list[Written], int, int],
                                                 data: st.DataObject) -> None:
    batches, _, completed = log
    for batch in batches:
        if batch.sequence > completed:
            batch.header, batch.payload = data.draw(st.booleans()), data.draw(st.booleans())
    found = decide(batches)
    assert found.cut_sequence >= completed
    assert not found.tainted
    assert found.damaged == ()
    whole = START
    while whole - START < len(batches) and batches[whole - START].header and batches[whole - START].payload:
        whole += 1
    assert found.cut_sequence == whole


@given(logs(), st.data())
def test_a_power_cut_loses_nothing_that_was_flushed(log: tuple[list[Written], int, int],
                                                    data: st.DataObject) -> None:
    batches, flushed, _ = log
    for batch in batches:
        if batch.sequence > flushed:
            batch.header, batch.payload = data.draw(st.booleans()), data.draw(st.booleans())
    found = decide(batches, same_boot=False)
    assert found.cut_sequence >= flushed
    assert found.tainted
    assert found.damaged == ()
    kept = batches[:found.cut_sequence - START]
    assert all(batch.header and batch.payload for batch in kept)


@given(logs(), st.data(), st.booleans())
@settings(max_examples=300)
def test_rot_is_what_a_plain_walk_says_it_is(log: tuple[list[Written], int, int], data: st.DataObject,
                                             same_boot: bool) -> None:
    batches = log[0]
    for batch in batches:
        batch.header, batch.payload = data.draw(st.integers(0, 5)) > 0, data.draw(st.integers(0, 5)) > 0
    damaged: list[int] = []
    expected: object = len(batches)
    lost = False
    for position, batch in enumerate(batches):
        flushed, completed = promised(batches[position + 1:])
        proven = flushed >= batch.sequence or (completed >= batch.sequence and same_boot)
        if batch.header and batch.payload:
            continue
        if proven and batch.header:
            damaged.append(batch.sequence)
            continue
        lost = completed >= batch.sequence and not proven
        expected = "corruption" if proven else position
        break
    if expected == "corruption":
        with pytest.raises(errors.CorruptionError, match="image"):
            decide(batches, same_boot)
        return
    found = decide(batches, same_boot)
    assert len(found.batches) == expected
    assert found.damaged == tuple(damaged)
    assert found.tainted == (lost or not same_boot)


@given(logs(), st.integers(0, 99))
def test_the_order_of_the_scan_does_not_matter(log: tuple[list[Written], int, int], seed: int) -> None:
    found = infos(log[0])
    mixed = found[np.random.default_rng(seed).permutation(len(found))]
    decided = recovery.decide(mixed, START, START_CRC, same_boot=True, name="image")
    assert decided.batches.tolist() == [(batch.sequence // 8, batch.sequence % 8) for batch in log[0]]


def test_what_the_checkpoint_holds_is_not_replayed() -> None:
    batches = [Written(sequence, START, START) for sequence in range(START - 3, START + 3)]
    assert decide(batches).cut_sequence == START + 2
    assert len(decide(batches).batches) == 2


@pytest.mark.parametrize("position", [0, 1])
def test_a_batch_that_does_not_name_its_predecessor_is_corruption(position: int) -> None:
    found = infos([Written(START + 1, START, START), Written(START + 2, START, START)])
    found["previous_crc"][position] ^= 1
    with pytest.raises(errors.CorruptionError, match=f"batch {START + 1 + position} that names"):
        recovery.decide(found, START, START_CRC, same_boot=True, name="image")


def test_the_error_names_where_and_what_proves_it() -> None:
    batches = [Written(101, 100, 100), Written(102, 100, 100, header=False), Written(103, 102, 102)]
    with pytest.raises(errors.CorruptionError, match=r"image: segment 12, block 5, after batch 101: "
                                                     r"expected batch 102, .* batch 103 proves"):
        decide(batches)


# ------------------------------------------------------------- with a real log in a real image

def test_a_log_over_many_segments_is_found_in_order() -> None:
    log = Log()
    for _ in range(20):
        log.append(blocks=3)
    found = log.open()
    assert found.batches.tolist() == [log.places[sequence][:2] for sequence in range(1, 21)]
    assert (found.recovery.cut_sequence, found.tainted) == (20, False)
    assert found.recovery.reason == "log ends at batch 20"


def test_two_classes_are_written_side_by_side() -> None:
    log = Log()
    for number in range(24):
        log.append(blocks=4, log_class=1 if number in (3, 20) else 0)
    assert len({segment for segment, _, _ in log.places.values()}) > 5
    assert log.open().recovery.cut_sequence == 24


def open_at_checkpoint(written_blocks: int = 0) -> Log:
    """A checkpoint made while segment 0 was open, in its third use; the log went on in it."""
    plain = roots.empty(small_geometry())
    segments = plain.segments.copy()
    segments["generation"] = 3
    segments["state"][0] = SEGMENT_OPEN
    segments["written_blocks"][0] = written_blocks
    log = Log(Root(40, 77, segments, plain.plan[1:]))
    log.heads[0] = (0, 3, 5)
    return log


@pytest.mark.parametrize("written_blocks", [0, 5])
def test_a_segment_that_was_open_at_the_checkpoint_is_read_too(written_blocks: int) -> None:
    log = open_at_checkpoint(written_blocks)
    for _ in range(8):
        log.append(blocks=3)
    assert {segment for segment, _, _ in log.places.values()} == {0, 1, 2}
    assert log.open().recovery.cut_sequence == 48


def test_a_lost_tail_is_cut_and_nobody_is_told() -> None:
    log = Log()
    for _ in range(5):
        log.append(completed=3)
    log.lose(5)
    log.rot_payload(4)
    found = log.open()
    assert (found.recovery.cut_sequence, found.tainted) == (3, False)
    assert "torn tail: cut at batch 4" in found.recovery.reason


@pytest.mark.fault("disk: bit rot below a flush", promise="refused, or kept as blocks known to be bad")
def test_rot_below_a_flush_is_refused_or_kept_as_bad_blocks() -> None:
    log = Log()
    for number in range(8):
        log.append(flushed=max(0, number - 1), completed=number)
    log.rot_payload(3)
    assert log.open().recovery.damaged == (3,)
    assert log.open().recovery.cut_sequence == 8
    log.rot_header(4)
    with pytest.raises(errors.CorruptionError, match="segment 0, block 4, after batch 3: expected batch 4"):
        log.open()


def test_a_gap_below_a_flush_is_cut_where_other_copies_can_bring_it_back() -> None:
    log = Log()
    for number in range(8):
        log.append(flushed=max(0, number - 1), completed=number)
    log.rot_header(4)
    found = log.open(replicated=True).recovery
    assert (found.cut_sequence, found.tainted, found.incomplete) == (3, True, True)
    assert "learned anew" in found.reason


@pytest.mark.fault("crash: acknowledged writes lost with the power",
                   promise="the copy is tainted: it does not lead while a clean one exists")
def test_acknowledged_batches_lost_with_the_power_taint() -> None:
    log = Log()
    for number in range(6):
        log.append(flushed=2, completed=number)
    log.lose(4)
    with pytest.raises(errors.CorruptionError, match="expected batch 4"):
        log.open(BOOT)
    found = log.open(OTHER_BOOT)
    assert (found.recovery.cut_sequence, found.tainted) == (3, True)
    assert "gone with the power" in found.recovery.reason


def test_after_a_boot_even_a_whole_log_is_tainted() -> None:
    log = Log()
    log.append()
    found = log.open(OTHER_BOOT)
    assert (found.recovery.cut_sequence, found.tainted) == (1, True)
    assert "the end is not certain" in found.recovery.reason


def test_a_torn_tail_over_several_segments_does_not_hide_the_proof_behind_it() -> None:
    log = Log(geometry=small_geometry(4 * config.MIB))
    for _ in range(12):
        log.append(blocks=15)                # one a segment
    log.append(blocks=15, flushed=12, completed=12)
    for sequence in range(4, 13):
        log.lose(sequence)
    with pytest.raises(errors.CorruptionError, match=r"expected batch 4, .* batch 13 proves"):
        log.open()


# ------------------------------------------------------------------------ what cannot be read (D7)

def bad(log: Log, *blocks: int) -> BadSpots:
    return BadSpots(log.device.image, set(blocks))


def header_of(log: Log, sequence: int) -> int:
    return log.address(sequence) // BLOCK_SIZE


@pytest.mark.fault("disk: a latent sector error in the log",
                   promise="damage, never taken for the end of the log")
def test_an_unreadable_block_is_damage_and_not_the_end_of_the_log() -> None:
    log = Log()
    for _ in range(4):
        log.append(blocks=1, completed=4, flushed=4)
    assert log.open(device=bad(log, header_of(log, 2) + 1)).recovery.damaged == (2,)


def two_classes() -> Log:
    """The cleaner entered its first segment before the clients theirs, and wrote to it after them."""
    log = Log(geometry=small_geometry(2 * config.MIB))
    log.heads[1] = (log.plan.pop(0), 1, 0)
    for number in range(9):
        log.append(blocks=4, log_class=1 if number in (2, 6) else 0)
    return log


def one_class() -> Log:
    log = Log()
    for _ in range(5):
        log.append(blocks=3)
    return log


def known_at_checkpoint() -> Log:
    """It says how far the segment was written: what stands there is of no interest."""
    return open_at_checkpoint(written_blocks=5)


def gone_on_with() -> Log:
    """The same with a log."""
    log = known_at_checkpoint()
    for _ in range(5):
        log.append(blocks=3)
    return log


def reopened_at_checkpoint() -> Log:
    """Batches that the checkpoint holds stand in front of those it does not."""
    log = open_at_checkpoint()
    log.sequence, log.crc, log.heads[0] = 38, 5, (0, 3, 0)
    for _ in range(2):
        log.append(blocks=1)
    log.root = replace(log.root, batch_sequence=40, batch_crc=log.crc)
    log.begin_life()
    for _ in range(5):
        log.append(blocks=3)
    return log


@pytest.mark.parametrize("make", [
    Log, one_class, two_classes, open_at_checkpoint, known_at_checkpoint, gone_on_with,
    reopened_at_checkpoint])
@pytest.mark.parametrize("same_boot", [True, False])
@pytest.mark.fault("disk: a latent sector error in the log",
                   promise="damage, never taken for the end of the log")
def test_wherever_a_block_cannot_be_read_no_batch_is_taken_for_absent(
        make: Callable[[], Log], same_boot: bool) -> None:
    """Each block of all segments in turn, of a log that nobody says was flushed. It is refused where a batch
    begins, or the next one may; else every batch counts, and only a bad payload is damage."""
    log = make()
    geometry, boot_id = log.geometry, BOOT if same_boot else OTHER_BOOT
    batches = {header_of(log, s): s for s in log.places if s > log.root.batch_sequence}
    payload = {block: s for at, s in batches.items() for block in range(at + 1, at + 1 + log.places[s][2])}
    may_begin = {geometry.segment_start(number) for number in log.plan[:SEGMENT_CLASSES]}
    may_begin |= {geometry.segment_start(segment) + end for segment, _, end in log.heads.values()}
    if make is open_at_checkpoint:        # what is in the segment is not known: the end is where nothing is
        may_begin = may_begin - {geometry.segment_start(0) + 5} | {geometry.segment_start(0)}
    for number in range(geometry.segment_count):
        start = geometry.segment_start(number)
        for block in range(start, start + geometry.segment_blocks):
            device = bad(log, block)
            if block in batches or block in may_begin:
                place = f"block {block - start} of segment {number}, which cannot be read"
                with pytest.raises(errors.CorruptionError, match=place):
                    log.open(boot_id, device=device)
                found = log.open(boot_id, device=device, replicated=True).recovery
                cut = batches.get(block, log.sequence + 1) - 1
                assert (found.cut_sequence, found.tainted, found.incomplete) == (cut, True, True)
                assert place in found.reason
                continue
            found = log.open(boot_id, device=device).recovery
            assert (found.cut_sequence, found.tainted) == (log.sequence, not same_boot), block
            assert found.damaged == ((payload[block],) if block in payload else ())


@pytest.mark.fault("disk: a log that cannot be read at all while the store is opened",
                   promise="refused or incomplete, never an empty log")
def test_a_log_that_cannot_be_read_at_all_is_not_an_empty_one() -> None:
    log = one_class()
    for _ in range(4):
        log.append(completed=log.sequence, flushed=log.sequence)
    device = bad(log, *range(log.geometry.segment_base, log.geometry.total_blocks - 1))
    with pytest.raises(errors.CorruptionError, match=r"at the checkpoint, after batch 0: expected batch 1, "
                                                     r"or the end of the log, found block 0 of segment 0"):
        log.open(device=device)
    found = log.open(device=device, replicated=True).recovery
    assert (found.cut_sequence, found.tainted, found.incomplete) == (0, True, True)


def test_a_gap_that_cannot_be_read_is_not_blamed_on_the_power() -> None:
    log = Log()
    for number in range(6):
        log.append(flushed=2, completed=number)
    with pytest.raises(errors.CorruptionError, match="batch 4, or the end of the log"):
        log.open(OTHER_BOOT, device=bad(log, header_of(log, 4)))


def test_a_missing_batch_that_is_proven_names_the_block_it_may_stand_in() -> None:
    log = Log()
    for number in range(6):
        log.append(flushed=number, completed=number)
    with pytest.raises(errors.CorruptionError, match=r"batch 6 proves .*\(D1, D2\), and block 6 of"):
        log.open(device=bad(log, header_of(log, 4)))


@pytest.mark.fault("disk: reads fail for a moment while the store is opened",
                   promise="tried again: nothing is missing")
def test_what_can_be_read_again_was_never_damaged() -> None:
    log = one_class()
    device = bad(log, *range(log.geometry.segment_base, log.geometry.total_blocks - 1))
    waiting = Waiting(device)
    opened = log.open(device=device, patience=waiting.patience())
    assert (opened.recovery.cut_sequence, opened.tainted, opened.recovery.damaged) == (5, False, ())
    assert 1 <= sum(waiting.pauses) < config.READ_PATIENCE_S


def test_what_stays_unreadable_ends_the_patience_and_only_what_matters_is_waited_for() -> None:
    log = one_class()
    waiting = Waiting()
    with pytest.raises(errors.CorruptionError, match="after batch 1: expected batch 2"):
        log.open(device=bad(log, header_of(log, 2)), patience=waiting.patience())
    assert sum(waiting.pauses) == pytest.approx(config.READ_PATIENCE_S)
    assert waiting.pauses[0] < waiting.pauses[1] < waiting.pauses[5] == config.READ_AGAIN_MAX_S
    log.append(flushed=5)
    waiting = Waiting()
    opened = log.open(device=bad(log, header_of(log, 2) + 1, log.geometry.segment_start(9) + 1),
                      patience=waiting.patience())
    assert (opened.recovery.damaged, waiting.pauses) == ((2,), [])


# ------------------------------------------------------- payload that cannot be read wholly (D7)

either_boot = pytest.mark.parametrize("boot_id", [BOOT, OTHER_BOOT], ids=["killed", "power_cut"])


def two_batches() -> Log:
    """The second one was under way when the log ended."""
    log = Log()
    log.append(blocks=3)
    log.append(blocks=3, completed=1, flushed=1)
    return log


@either_boot
@pytest.mark.parametrize("replicated", [True, False])
@pytest.mark.fault("crash: a torn batch at the end of the log, and a block of it cannot be read",
                   promise="cut like any other: what was flushed before stays")
def test_a_torn_batch_is_torn_though_a_block_of_it_cannot_be_read(boot_id: bytes, replicated: bool) -> None:
    log = two_batches()
    log.never_wrote(2, 3)
    waiting = Waiting()
    found = log.open(boot_id, device=bad(log, header_of(log, 2) + 1), replicated=replicated,
                     patience=waiting.patience()).recovery
    assert (found.cut_sequence, found.damaged, found.incomplete) == (1, (), False)
    assert "torn tail: cut at batch 2" in found.reason
    assert waiting.pauses == []           # whatever stands there, the batch is not whole


@either_boot
@pytest.mark.parametrize("torn", [True, False])
def test_a_block_on_which_it_hangs_whether_a_batch_is_torn_is_waited_for(boot_id: bytes, torn: bool) -> None:
    log = two_batches()
    if torn:
        log.never_wrote(2, 2)
    device = bad(log, header_of(log, 2) + 2)
    waiting = Waiting(device)
    found = log.open(boot_id, device=device, patience=waiting.patience()).recovery
    assert (found.cut_sequence, found.damaged) == (1 if torn else 2, ())
    assert 1 <= sum(waiting.pauses) < config.READ_PATIENCE_S


@either_boot
def test_a_batch_of_which_all_that_can_be_read_is_right_is_kept(boot_id: bytes) -> None:
    log = two_batches()
    waiting = Waiting()
    found = log.open(boot_id, device=bad(log, header_of(log, 2) + 2), patience=waiting.patience()).recovery
    assert (found.cut_sequence, found.damaged) == (2, (2,))
    assert sum(waiting.pauses) == pytest.approx(config.READ_PATIENCE_S)


def test_zeros_are_not_taken_for_what_could_not_be_read() -> None:
    """A batch of zeros, of which one block cannot be read and never reached the disk."""
    log = Log(replace(roots.empty(small_geometry()), batch_sequence=250))
    log.append(blocks=3)
    log.never_wrote(251, 2)
    device = bad(log, header_of(log, 251) + 2)
    assert log.open(device=device).recovery.damaged == (251,)
    found = log.open(device=device, patience=Waiting(device).patience()).recovery
    assert (found.cut_sequence, found.damaged) == (250, ())


def test_an_acknowledged_batch_that_is_torn_is_gone_with_the_power_though_it_cannot_be_read_wholly() -> None:
    log = two_batches()
    log.append(completed=2, flushed=1)
    log.never_wrote(2, 3)
    device = bad(log, header_of(log, 2) + 1)
    assert log.open(BOOT, device=device).recovery.damaged == (2,)
    found = log.open(OTHER_BOOT, device=device).recovery
    assert (found.cut_sequence, found.tainted, found.damaged) == (1, True, ())
    assert "gone with the power" in found.reason


def test_what_was_flushed_is_kept_however_little_of_it_is_right() -> None:
    log = two_batches()
    log.append(completed=2, flushed=2)
    log.never_wrote(2, 3)
    waiting = Waiting()
    found = log.open(OTHER_BOOT, device=bad(log, header_of(log, 2) + 1), patience=waiting.patience()).recovery
    assert (found.cut_sequence, found.damaged, waiting.pauses) == (3, (2,), [])


@either_boot
def test_the_proof_that_a_rotten_batch_was_flushed_is_waited_for(boot_id: bytes) -> None:
    log = two_batches()
    log.append(blocks=0, completed=2, flushed=2)
    log.rot_payload(2)
    device = bad(log, header_of(log, 3))
    found = log.open(boot_id, device=device, patience=Waiting(device).patience()).recovery
    assert (found.cut_sequence, found.damaged) == (3, (2,))


def test_a_block_that_stays_unreadable_hides_none_that_can_be_read_again() -> None:
    """The batch behind it is there, and was waited for beside it."""
    log = one_class()
    lasting = header_of(log, 2) + 1
    device = bad(log, lasting, header_of(log, 4))
    waiting = Waiting(device, lasting={lasting})
    found = log.open(device=device, patience=waiting.patience()).recovery
    assert (found.cut_sequence, found.damaged) == (5, (2,))
    assert sum(waiting.pauses) == pytest.approx(config.READ_PATIENCE_S)


@st.composite
def crashes(draw: st.DrawFn) -> tuple[Log, set[int], int, bool]:
    """A log whose power was cut, or its process killed; blocks that cannot be read; what was flushed;
    and whether the machine runs on."""
    log, same_boot = Log(), draw(st.booleans())
    flushed = completed = 0
    for sequence in range(1, draw(st.integers(1, 6)) + 1):
        log.append(blocks=draw(st.integers(0, 3)), flushed=flushed, completed=completed,
                   log_class=draw(st.integers(0, 1)))
        completed = draw(st.integers(max(completed, sequence - 3), sequence))
        flushed = draw(st.integers(flushed, completed))
    kept = completed if same_boot else flushed
    for sequence in range(kept + 1, log.sequence + 1):
        for block in range(1 + log.places[sequence][2]):
            if draw(st.booleans()):
                log.never_wrote(sequence, block)
    first, count = log.geometry.segment_base, 3 * log.geometry.segment_blocks
    unreadable = draw(st.sets(st.integers(first, first + count - 1), max_size=8))
    return log, unreadable, flushed, same_boot


@given(crashes())
@settings(max_examples=200)
def test_errors_of_a_moment_change_nothing_and_others_lose_nothing_that_was_flushed(
        crash: tuple[Log, set[int], int, bool]) -> None:
    log, unreadable, flushed, same_boot = crash
    boot_id = BOOT if same_boot else OTHER_BOOT
    expected = log.open(boot_id).recovery
    device = bad(log, *unreadable)
    found = log.open(boot_id, device=device, patience=Waiting(device).patience()).recovery
    assert (found.cut_sequence, found.tainted) == (expected.cut_sequence, expected.tainted)
    assert not found.incomplete
    assert all(sequence <= expected.cut_sequence for sequence in found.damaged)
    found = log.open(boot_id, device=bad(log, *unreadable), replicated=True).recovery
    assert found.cut_sequence >= flushed or found.incomplete


def test_a_store_closed_cleanly_is_not_searched() -> None:
    device = new_store()
    state = state_of(device)
    root = roots.decode(roots.read(device, state, "image"), state.geometry)
    device.read = None  # type: ignore[method-assign, assignment]
    found = recovery.recover(device, state, root, same_boot=False, name="image")
    assert (len(found.batches), found.tainted, found.reason) == (0, False, "closed cleanly")
