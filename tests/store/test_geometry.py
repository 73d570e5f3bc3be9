"""Geometry: nothing overlaps, nothing sticks out, and the smallest stores are possible."""
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from repstore import config, errors
from repstore.format import BLOCK_SIZE
from repstore.store import geometry as layout
from repstore.store.geometry import Geometry
from repstore.store.root import empty, encode

SIZES = st.one_of(
    st.integers(config.STORE_BYTES_MIN // BLOCK_SIZE, 8192),
    st.integers(config.STORE_BYTES_MIN // BLOCK_SIZE, config.STORE_BLOCKS_MAX),
).map(lambda blocks: blocks * BLOCK_SIZE)


def areas(geometry: Geometry) -> list[tuple[int, int]]:
    """Every area as (first block, blocks), in the order of the positions."""
    found = [(position, 1) for position in geometry.superblock_positions]
    found += [(geometry.root_start(area), geometry.root_blocks) for area in (0, 1)]
    found += [(block, geometry.page_slots) for block in geometry.page_blocks(0)]
    if geometry.segment_count <= 4096:
        numbers: list[int] = list(range(geometry.segment_count))
    else:
        numbers = [0, geometry.half - 1, geometry.half, geometry.segment_count - 1]
    found += [(geometry.segment_start(number), geometry.segment_blocks) for number in numbers]
    return sorted(found)


@given(SIZES)
def test_nothing_overlaps_and_nothing_sticks_out(size_bytes: int) -> None:
    geometry = layout.choose(config.StoreOptions(size_bytes))
    end = 0
    for start, blocks in areas(geometry):
        assert start >= end
        end = start + blocks
    assert end == geometry.total_blocks == size_bytes // BLOCK_SIZE
    geometry.check()


@given(SIZES)
def test_the_table_of_segments_fits_the_root(size_bytes: int) -> None:
    geometry = layout.choose(config.StoreOptions(size_bytes))
    if geometry.segment_count <= 4096:
        assert len(encode(empty(geometry))) + 2048 <= geometry.root_bytes_max


@given(SIZES)
def test_what_was_chosen_can_be_found_again(size_bytes: int) -> None:
    assert layout.choose(config.StoreOptions(size_bytes)) in layout.possible(size_bytes)


STEP = config.PAGE_SLOTS_STEP_BYTES // BLOCK_SIZE
NEAR_STEPS = st.tuples(st.integers(1, 3000), st.integers(-3, 3)).map(
    lambda near: max((near[0] * STEP + near[1]) * BLOCK_SIZE, config.STORE_BYTES_MIN))


@given(st.one_of(SIZES, NEAR_STEPS), st.integers(0, 9), st.integers(0, 2**20))
@settings(max_examples=1000)
def test_where_a_store_of_unknown_size_has_its_superblocks_is_told_by_its_segments(
        size_bytes: int, power: int, extra: int) -> None:
    try:
        geometry = layout.choose(config.StoreOptions(size_bytes, config.SEGMENT_BYTES_MIN << power))
    except errors.ConfigError:
        return
    spans = layout.spans(geometry.segment_count, geometry.total_blocks + extra)
    for position in geometry.superblock_positions[1:]:
        assert any(first <= position < end for first, end in spans)
    assert sum(end - first for first, end in spans) * BLOCK_SIZE < 160 * config.MIB
    assert geometry.root_start(1) < layout.FRONT_BLOCKS


@pytest.mark.parametrize(("size_bytes", "segment_bytes"), [
    (1 * config.MIB, 64 * config.KIB), (8 * config.MIB, 512 * config.KIB),
    (64 * config.MIB, 1 * config.MIB), (2 * config.GIB, 8 * config.MIB),
    (8 * config.GIB, 32 * config.MIB), (config.STORE_BYTES_MAX, 32 * config.MIB)])
def test_segments_grow_with_the_store(size_bytes: int, segment_bytes: int) -> None:
    assert layout.choose(config.StoreOptions(size_bytes)).segment_bytes == segment_bytes


def test_the_smallest_store_has_enough_segments() -> None:
    geometry = layout.choose(config.StoreOptions(config.STORE_BYTES_MIN))
    assert geometry.segment_count >= config.SEGMENTS_MIN


def test_too_large_segments_are_refused() -> None:
    with pytest.raises(errors.ConfigError, match="room for 3 segments of 262144 bytes: at least 8"):
        layout.choose(config.StoreOptions(config.MIB, 256 * config.KIB))


def test_too_many_segments_are_refused() -> None:
    with pytest.raises(errors.ConfigError, match=r"segments .* must be 8 to 1048576"):
        layout.choose(config.StoreOptions(config.TIB, 64 * config.KIB))


def test_positions_are_the_documented_ones() -> None:
    geometry = Geometry(total_blocks=1000, segment_blocks=16, segment_count=9, root_blocks=5, page_slots=40)
    assert (geometry.root_start(0), geometry.root_start(1), geometry.page_base) == (1, 6, 11)
    assert geometry.page_blocks(3) == (14, 54)
    assert geometry.superblock_positions == (0, 91, 92 + 4 * 16, 999)
    assert [geometry.segment_start(number) for number in (0, 3, 4, 8)] == [92, 140, 157, 221]


@pytest.mark.parametrize(("change", "text"), [
    ({"total_blocks": 100}, "store size"), ({"segment_blocks": 24}, "power of two"),
    ({"segment_blocks": 8}, "segment size 8 blocks: must be 16 to 8192"),
    ({"segment_blocks": 0}, "segment size"), ({"segment_count": 7}, "segments 7: must be 8"),
    ({"segment_count": 2**32 - 1}, "segments"), ({"root_blocks": 0}, "root area 0"),
    ({"root_blocks": 2**32 - 1}, "root area"), ({"page_slots": 3}, "page slots"),
    ({"root_blocks": 900}, "layout of .* blocks: the store has 1000")])
def test_a_geometry_from_disk_is_bounded(change: dict[str, int], text: str) -> None:
    good = {"total_blocks": 1000, "segment_blocks": 16, "segment_count": 9, "root_blocks": 5,
            "page_slots": 40}
    with pytest.raises(errors.ConfigError, match=text):
        Geometry(**{**good, **change}).check()
