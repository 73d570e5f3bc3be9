"""Limits agree with the native code, and options that exist are valid."""
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from repstore import config, errors
from repstore.volume.volume import DEPTH_MAX

FAST = Path(__file__).resolve().parents[1] / "src/repstore/_fast"


def native(file: str, name: str) -> int:
    """A constant of the data plane, as its source has it."""
    found = re.search(rf"^\s+{name} = (\d+)\b", (FAST / file).read_text(), re.MULTILINE)
    assert found, f"{name} is not in {file}"
    return int(found[1])


@pytest.mark.parametrize(("limit", "file", "name"), [
    (config.REQUESTS_MAX, "state.pxd", "REQUESTS_MAX"),
    (config.REQUESTS_OWN, "state.pxd", "REQUESTS_OWN"),
    (config.REQUESTS_SHARED, "state.pxd", "REQUESTS_SHARED"),
    (config.PENDING_RECORDS_MAX, "state.pxd", "PENDING_RECORDS"),
    (config.PENDING_BLOCKS_MAX, "state.pxd", "PENDING_CRCS"),
    (config.VOLUMES_MAX, "state.pxd", "VOLUMES_MAX"),
    (config.VOLUME_INDEXES_MAX, "state.pxd", "VOLUME_INDEX_MAX"),
    (config.EXPORTS_MAX, "state.pxd", "EXPORTS_MAX"),
    (config.NODES_MAX, "state.pxd", "NODES_MAX"),
    (config.LINKS_MAX, "state.pxd", "LINKS_MAX"),
    (config.LINKS_MAX, "transport.pxd", "LINKS_MAX"),
    (config.LINKS_RESERVED, "transport.pxd", "LINKS_RESERVED"),
    (config.EVENTS_MAX, "state.pxd", "EVENTS_MAX"),
    (config.ASKED_BYTES_MAX, "exports.pyx", "ASKED_BYTES_MAX"),
    (config.LINK_QUEUE_BYTES_MAX, "transport.pxd", "LINK_QUEUE_BYTES"),
    (config.TRIM_BLOCKS_MAX, "state.pxd", "TRIM_BLOCKS"),
    (config.REPAIRS_MAX, "bad_blocks.pxd", "REPAIRS_MAX"),
    (config.LOST_BLOCKS_MAX, "bad_blocks.pxd", "LOST_BLOCKS_MAX"),
    (config.VERIFY_PAGES_EXACT, "state.pxd", "VERIFY_PAGES"),
    (config.COPIES_MAX, "layout.pxd", "MEMBERS_MAX"),
    (config.VOLUME_NAME_BYTES_MAX + 1, "layout.pxd", "VOLUME_NAME_BYTES"),
    (config.REQUEST_BYTES_MAX, "layout.pxd", "FRAME_BODY_MAX"),
])
def test_a_limit_is_the_one_the_data_plane_has(limit: int, file: str, name: str) -> None:
    assert limit == native(file, name)


@pytest.mark.parametrize(("time_s", "file", "name"), [
    (config.HEARTBEAT_S, "primary.pyx", "PING_NS"),
    (config.LEASE_S, "primary.pyx", "LEASE_NS"),
    (config.MEMBER_SILENCE_S, "primary.pyx", "SILENT_NS"),
    (config.LENT_S, "engine.pyx", "LENT_NS"),
    (config.READ_PATIENCE_S, "patience.pxd", "READ_PATIENCE_NS"),
    (config.REPAIR_PATIENCE_S, "repair.pyx", "PATIENCE_NS"),
    (config.REPAIR_ANSWER_S, "repair.pyx", "ANSWER_NS"),
    (config.REPAIR_LATER_S, "repair.pyx", "LATER_NS"),
    (config.LOST_AGAIN_S, "repair.pyx", "LOST_AGAIN_NS"),
])
def test_a_time_is_the_one_the_data_plane_has(time_s: float, file: str, name: str) -> None:
    assert time_s * 1e9 == native(file, name)


def test_the_times_leave_room_for_each_other() -> None:
    assert config.HEARTBEAT_S * 2 < config.LEASE_S < config.GRACE_S < config.MEMBER_SILENCE_S
    assert config.MEMBER_SILENCE_S < config.REPAIR_PATIENCE_S


def test_every_volume_has_requests_of_its_own_and_one_that_is_alone_as_many_as_it_can_use() -> None:
    own = config.REQUESTS_OWN * (config.EXPORTS_MAX + config.VOLUMES_MAX)
    assert own + config.REQUESTS_SHARED == config.REQUESTS_MAX
    alone = config.REQUESTS_OWN + config.REQUESTS_SHARED // 2
    assert alone >= max(config.PENDING_RECORDS_MAX, DEPTH_MAX)


@pytest.mark.parametrize("name", ["a", "demo", "A-1.b_c", "9" * 63])
def test_a_good_name_passes(name: str) -> None:
    config.check_name(name)


@pytest.mark.parametrize("name", [
    "", "a" * 64, ".a", "-a", "a b", "a/b", "a\n", "\u00e4", "a\0", "a" * 62 + "\u00e9"])
def test_a_bad_name_is_refused_with_the_rule(name: str) -> None:
    with pytest.raises(errors.ConfigError, match="1 to 63"):
        config.check_name(name)


@pytest.mark.parametrize(("size", "segment", "text"), [
    (config.STORE_BYTES_MIN - 4096, None, "store size 782336 bytes: must be 786432 to"),
    (config.STORE_BYTES_MAX + 4096, None, "store size"),
    (config.MIB + 1, None, "store size 1048577 bytes: must be a multiple of 4096"),
    (config.GIB, 32 * config.KIB, "segment size 32768 bytes: must be 65536 to 33554432"),
    (config.GIB, 64 * config.MIB, "segment size 67108864 bytes"),
    (config.GIB, 3 * config.MIB, "segment size 3145728 bytes: must be a power of two"),
])
def test_a_bad_store_is_refused_with_value_and_limit(size: int, segment: int | None, text: str) -> None:
    with pytest.raises(errors.ConfigError, match=text):
        config.StoreOptions(size, segment)


@pytest.mark.parametrize(("change", "text"), [
    ({"size_bytes": 0}, "volume size 0 bytes: must be 4096 to"),
    ({"size_bytes": 4097}, "volume size 4097 bytes: must be a multiple of 4096"),
    ({"copies": 0}, "copies 0: must be 1 to 8"),
    ({"copies": 9}, "copies 9: must be 1 to 8"),
    ({"copies": 3, "min_copies": 4}, "min_copies 4: must be 1 to 3"),
    ({"copies": 3, "min_copies": 0}, "min_copies 0: must be 1 to 3"),
    ({"acknowledgement": "maybe"}, "acknowledgement 'maybe'"),
])
def test_a_bad_volume_is_refused_with_value_and_limit(change: dict[str, object], text: str) -> None:
    good: dict[str, object] = {"name": "demo", "size_bytes": 4096}
    with pytest.raises(errors.ConfigError, match=text):
        config.VolumeOptions(**{**good, **change})  # type: ignore[arg-type]


@given(st.integers(1, 8))
def test_one_lost_copy_halts_nothing_unless_it_is_the_only_one(copies: int) -> None:
    options = config.VolumeOptions("demo", 4096, copies=copies)
    assert options.needed_copies == max(1, copies - 1)
