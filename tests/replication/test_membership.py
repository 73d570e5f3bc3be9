"""The pure rules: what a config may become, and how far two logs are the same."""
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from repstore import errors
from repstore.replication import membership
from repstore.replication.volume_config import (
    Lineage,
    Member,
    VolumeConfig,
    check_volume,
    decode,
    encode,
)
from tests.replication.transcript import volume_of

VOLUME = volume_of({"copies": "3", "min": "2", "epoch": "2", "primary": "1", "in_sync": "1,2,3"})


def test_nobody_is_ejected_below_min_copies() -> None:
    one_less = membership.ejected(VOLUME, (2, 3))
    assert one_less is not None
    assert one_less.in_sync_nodes() == (1, 3)
    assert membership.ejected(one_less, (3,)) is None
    back = membership.ejected(one_less, (3,), unfit={3})
    assert back is not None
    assert back.in_sync_nodes() == (1,)
    assert membership.ejected(VOLUME, (1,)) is None            # the primary never
    assert membership.ejected(VOLUME, (9,)) is None


def test_nobody_joins_twice_or_from_outside() -> None:
    assert membership.joined(VOLUME, Member(2, "d2", "b2")) is None
    assert membership.joined(VOLUME, Member(9, "d9", "b9")) is None


def test_taint_is_another_boot_and_begins_with_the_first_epoch() -> None:
    assert not membership.is_tainted(VOLUME, 2, "b2")
    assert membership.is_tainted(VOLUME, 2, "b3")
    fresh = replace(VOLUME, epoch=0, lineage=())
    assert not membership.is_tainted(fresh, 2, "b3")


def test_a_copy_that_committed_what_a_tainted_primary_lost_has_no_common_point() -> None:
    volume = replace(VOLUME, lineage=(Lineage(1, 1), Lineage(3, 11, lossy=True)), epoch=3)
    assert membership.common_lsn(volume, 20, 1, 10) == 10
    assert membership.common_lsn(volume, 20, 1, 12) is None
    assert membership.common_lsn(volume, 20, 3, 12) == 12


def test_lineage_is_bounded() -> None:
    volume = VOLUME
    for epoch in range(3, 200):
        volume = membership.promoted(volume, epoch, 1, volume.in_sync, epoch, epoch - 1,
                                     tainted=False)
    check_volume(volume)
    assert len(volume.lineage) == 64
    assert membership.common_lsn(volume, 300, 100, 120) is None      # older than the lineage
    assert membership.common_lsn(volume, 300, 150, 500) == 151


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6), st.booleans()), max_size=12),
       st.data())
def test_common_lsn_never_claims_too_much(
        steps: list[tuple[int, int, bool]], data: st.DataObject) -> None:
    """Against logs written out in full: leaders appended, died, and others went on from a
    prefix of what they had. The copy that asks is any log that ever was."""
    volume = replace(VOLUME, epoch=0, lineage=())
    logs: list[list[int]] = [[]]                     # the epoch of every record
    mine: list[int] = []
    for epoch, (kept, appended, from_other) in enumerate(steps, start=1):
        base = data.draw(st.sampled_from(logs)) if from_other else mine
        mine = base[:max(0, len(base) - kept)]
        volume = membership.promoted(volume, epoch, 1, VOLUME.in_sync, len(mine),
                                     mine[-1] if mine else 0, tainted=False)
        mine = mine + [epoch] * appended
        logs += [mine[:len(mine) - drop] for drop in range(appended + 1)]
    check_volume(replace(volume, primary=1))
    copy = data.draw(st.sampled_from(logs))
    common = membership.common_lsn(volume, len(mine), copy[-1] if copy else 0, len(copy))
    assert common is None or copy[:common] == mine[:common]
    if copy == mine[:len(copy)] and common is not None and not any(
            entry.dead for entry in volume.lineage):
        assert common == len(copy)                   # and with a plain history, all there is


@pytest.mark.parametrize(("changes", "rule"), [
    ({"copies": 0}, "V1"), ({"copies": 9}, "V1"), ({"min_copies": 4}, "V1"),
    ({"min_copies": 0}, "V1"), ({"placement": (1, 2)}, "V1"), ({"placement": (1, 2, 2)}, "V1"),
    ({"in_sync": (Member(7, "d", "b"),)}, "V2"), ({"in_sync": VOLUME.in_sync * 2}, "V2"),
    ({"primary": 4}, "V3"), ({"lineage": ()}, "V4"), ({"epoch": 3}, "V4"),
    ({"lineage": (Lineage(2, 1), Lineage(2, 1))}, "V4"),
    ({"lineage": (Lineage(1, 9), Lineage(2, 1))}, "V4"),
    ({"attach": membership.attached(VOLUME, "c", "t", "b").attach}, "V5"),
])
def test_broken_rules_are_named(changes: dict[str, object], rule: str) -> None:
    with pytest.raises(errors.ConfigError, match=rule):
        encode(replace(VOLUME, **changes))
    data = msgspec.json.encode(replace(VOLUME, **changes))
    with pytest.raises(errors.CorruptionError, match=rule):
        decode(data, VolumeConfig, "volumes/v")


@given(st.binary(max_size=200))
def test_garbage_is_corruption(data: bytes) -> None:
    with pytest.raises(errors.CorruptionError):
        decode(data, VolumeConfig, "volumes/v")


@given(st.data())
def test_a_damaged_record_is_refused_or_valid(data: st.DataObject) -> None:
    """One byte anywhere is changed: either the record is refused, or it obeys every rule."""
    raw = bytearray(encode(membership.attached(VOLUME, "c", "t", "b")))
    raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        volume = decode(bytes(raw), VolumeConfig, "volumes/v")
    except errors.CorruptionError:
        return
    check_volume(volume)
