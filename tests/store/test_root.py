"""The root: what is encoded is decoded, and whatever else is refused in a clear way."""
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from repstore import config, errors
from repstore.format import (
    BLOCK_SIZE,
    CLASS_CLEANER,
    CLASS_USER,
    OP_TRIM,
    OP_WRITE,
    SEGMENT_OPEN,
    SEGMENT_SEALED,
    page_reference_t,
    pending_t,
    root_header_t,
    segment_entry_t,
    volume_entry_t,
)
from repstore.store import root as roots
from repstore.store.root import Root, Tree, Volume
from tests.store.images import new_store, small_geometry, state_of

GEOMETRY = small_geometry()
HEADER_BYTES = root_header_t.itemsize
TABLE_BYTES = GEOMETRY.segment_count * segment_entry_t.itemsize
VOLUME_AT = HEADER_BYTES + TABLE_BYTES + 4 * GEOMETRY.segment_count


def volume(index: int = 0, name: bytes = b"demo", records: tuple[tuple[int, int], ...] = (),
           directories: int = 1, bitmaps: int = 0) -> Volume:
    """A volume of 1000 blocks with pending records given as (operation, blocks)."""
    entry = np.zeros(1, volume_entry_t)[0]
    entry["name"], entry["index"], entry["size_blocks"], entry["commit_lsn"] = name, index, 1000, 50
    pending = np.zeros(len(records), pending_t)
    lsn = 50
    for record, (operation, blocks) in zip(pending, records, strict=True):
        record["lsn"], record["lba"], record["blocks"] = lsn + 1, 7, blocks
        record["operation"], record["location"] = operation, GEOMETRY.segment_base
        lsn += blocks
    entry["last_lsn"] = lsn
    crcs = np.arange(sum(blocks for operation, blocks in records if operation == OP_WRITE), dtype=np.uint32)
    references = np.zeros(directories, page_reference_t)
    references["slot"] = 2
    return Volume(entry, pending, crcs, tuple(Tree(9, references) for _ in range(1 + bitmaps)))


def root(*volumes: Volume, plan: list[int] | None = None) -> Root:
    plain = roots.empty(GEOMETRY)
    return Root(3, 4, plain.segments, plain.plan if plan is None else np.array(plan, np.uint32), volumes)


@st.composite
def any_root(draw: st.DrawFn) -> Root:
    records = st.lists(st.tuples(st.sampled_from([OP_WRITE, OP_TRIM]), st.integers(1, 9)), max_size=5)
    volumes = [volume(index, f"v{index}".encode(), tuple(draw(records)), draw(st.integers(0, 1)),
                      draw(st.integers(0, 8))) for index in range(draw(st.integers(0, 3)))]
    plan = draw(st.permutations(range(GEOMETRY.segment_count)))[:draw(st.integers(0, GEOMETRY.segment_count))]
    segments = roots.empty(GEOMETRY).segments.copy()
    for number in set(range(GEOMETRY.segment_count)) - set(plan):
        segments[number] = (draw(st.integers(0, 2**32 - 1)), draw(st.integers(0, GEOMETRY.segment_blocks)),
                            SEGMENT_SEALED, CLASS_USER, 0, 0)
    numbers = st.integers(0, 2**32 - 1)
    return Root(draw(numbers) << 20, draw(numbers), segments, np.array(plan, np.uint32), tuple(volumes))


@given(any_root())
def test_what_is_encoded_is_decoded(written: Root) -> None:
    data = roots.encode(written)
    read = roots.decode(data, GEOMETRY)
    assert (read.batch_sequence, read.batch_crc) == (written.batch_sequence, written.batch_crc)
    assert (read.segments == written.segments).all()
    assert read.plan.tolist() == written.plan.tolist()
    assert [volume.name for volume in read.volumes] == [volume.name for volume in written.volumes]
    assert roots.encode(read) == data


@given(any_root(), st.data())
@settings(max_examples=200)
@pytest.mark.fault("input: any bytes for a root", promise="refused or harmless, never a crash")
def test_damaged_bytes_are_refused_or_harmless_and_never_crash(written: Root, data: st.DataObject) -> None:
    raw = bytearray(roots.encode(written))
    for place in data.draw(st.lists(st.integers(0, len(raw) - 1), min_size=1, max_size=4)):
        raw[place] = data.draw(st.integers(0, 255))
    end = data.draw(st.one_of(st.just(len(raw)), st.integers(0, len(raw))))
    try:
        again = roots.decode(raw[:end], GEOMETRY)
    except (errors.CorruptionError, errors.FormatVersionError):
        return
    assert len(again.plan) <= GEOMETRY.segment_count
    assert len(again.volumes) <= config.VOLUMES_MAX


@given(any_root())
def test_every_shorter_or_longer_root_is_refused(written: Root) -> None:
    raw = roots.encode(written)
    for wrong in (raw[:-1], raw[:HEADER_BYTES], raw[:10], b"", raw + b"\0"):
        with pytest.raises(errors.CorruptionError):
            roots.decode(wrong, GEOMETRY)


def patched(written: Root, offset: int, value: int, width: int = 4) -> bytes:
    data = bytearray(roots.encode(written))
    data[offset:offset + width] = value.to_bytes(width, "little")
    return bytes(data)


def at(dtype: np.dtype[np.void], field: str) -> int:
    return int(dtype.fields[field][1])  # type: ignore[index]


@pytest.mark.parametrize(("data", "text"), [
    (patched(root(), at(root_header_t, "magic"), 1), "magic"),
    (patched(root(), at(root_header_t, "segment_count"), 2**32 - 1), "segments"),
    (patched(root(), at(root_header_t, "plan_count"), 2**32 - 1),
     f"plan: expected at most {GEOMETRY.segment_count}"),
    (patched(root(), at(root_header_t, "volume_count"), 2**32 - 1), "volumes: expected at most 256"),
    (patched(root(), at(root_header_t, "volume_count"), 200), "volume: expected .* bytes, found 0 left"),
    (patched(root(), at(root_header_t, "root_bytes"), 64), "length"),
    (patched(root(), HEADER_BYTES + at(segment_entry_t, "state"), 4, 1), "known states"),
    (patched(root(), HEADER_BYTES + at(segment_entry_t, "segment_class"), 2, 1), "known states"),
    (patched(root(), HEADER_BYTES + at(segment_entry_t, "live"), 17), "at most 16 live blocks"),
    (patched(root(), HEADER_BYTES + at(segment_entry_t, "live"), 1), "plan: expected empty segments"),
    (patched(root(), HEADER_BYTES + at(segment_entry_t, "state"), SEGMENT_OPEN, 1), "empty segments"),
    (patched(root(), HEADER_BYTES + at(segment_entry_t, "written_blocks"), 17, 2), "at most 16 written"),
    (roots.encode(root(plan=[1, 2, 1])), "every segment once"),
    (roots.encode(root(plan=[GEOMETRY.segment_count])), f"segments below {GEOMETRY.segment_count}"),
    (roots.encode(root(volume(name=b""))), "volume name"),
    (roots.encode(root(volume(name=b"a" * 64))), "volume name"),
    (roots.encode(root(volume(name=b"a/b"))), "volume name"),
    (roots.encode(root(volume(0, b"a"), volume(0, b"b"))), "2 different of index"),
    (roots.encode(root(volume(0, b"a"), volume(1, b"a"))), "2 different of name"),
    (patched(root(volume()), VOLUME_AT + at(volume_entry_t, "size_blocks"), 0, 8), "volume size"),
    (patched(root(volume()), VOLUME_AT + at(volume_entry_t, "size_blocks"), 2**63, 8), "volume size"),
    (patched(root(volume()), VOLUME_AT + at(volume_entry_t, "index"), 65536), "volume index"),
    (patched(root(volume()), VOLUME_AT + at(volume_entry_t, "lineage_count"), 65), "lineage"),
    (patched(root(volume()), VOLUME_AT + at(volume_entry_t, "commit_lsn"), 51, 8), "commit at or before"),
    (patched(root(volume()), VOLUME_AT + at(volume_entry_t, "last_lsn"), 60, 8), "last LSN"),
    (patched(root(volume()), VOLUME_AT + at(volume_entry_t, "pending_count"), 1025), "at most 1024"),
    (patched(root(volume()), VOLUME_AT + at(volume_entry_t, "pending_crcs"), 4097), "at most 4096"),
    (patched(root(volume()), VOLUME_AT + at(volume_entry_t, "tree_count"), 0), "an extent map"),
    (patched(root(volume()), VOLUME_AT + at(volume_entry_t, "tree_count"), 10), "at most 9"),
    (roots.encode(root(volume(directories=2))), "directories: expected at most 1"),
    (roots.encode(root(volume(records=((OP_WRITE, 994),)))), "inside 1000 blocks"),
    (roots.encode(root(volume(records=((OP_TRIM, 0),)))), "inside 1000 blocks"),
])
def test_each_rule_is_told_by_name(data: bytes, text: str) -> None:
    with pytest.raises(errors.CorruptionError, match=text):
        roots.decode(data, GEOMETRY)


def test_a_directory_outside_the_page_area_is_refused() -> None:
    bad = volume()
    bad.trees[0].directories["slot"] = GEOMETRY.page_slots
    with pytest.raises(errors.CorruptionError, match="page slots below"):
        roots.decode(roots.encode(root(bad)), GEOMETRY)


def test_a_pending_location_outside_the_segments_is_refused() -> None:
    bad = volume(records=((OP_WRITE, 2),))
    bad.pending["location"] = 1
    with pytest.raises(errors.CorruptionError, match="a location in the segments"):
        roots.decode(roots.encode(root(bad)), GEOMETRY)


def test_two_open_segments_of_one_class_are_refused() -> None:
    plain = root(plan=[2])
    segments = plain.segments.copy()
    segments["state"][:2] = SEGMENT_OPEN
    segments["segment_class"][1] = CLASS_CLEANER
    written = Root(3, 4, segments, plain.plan)
    assert roots.decode(roots.encode(written), GEOMETRY).open_segments() == {0: 0, 1: 0}
    segments["segment_class"][1] = CLASS_USER
    with pytest.raises(errors.CorruptionError, match="one open segment a class"):
        roots.decode(roots.encode(written), GEOMETRY)


def test_what_is_left_over_is_refused() -> None:
    raw = roots.encode(root()) + bytes(4)
    length_at = at(root_header_t, "root_bytes")
    longer = raw[:length_at] + len(raw).to_bytes(4, "little") + raw[length_at + 4:]
    with pytest.raises(errors.CorruptionError, match="bytes left: expected 0, found 4"):
        roots.decode(longer, GEOMETRY)


def test_a_gap_in_the_pending_records_is_refused() -> None:
    bad = volume(records=((OP_TRIM, 2), (OP_TRIM, 3)))
    bad.pending["lsn"][1] += 1
    with pytest.raises(errors.CorruptionError, match="pending record: expected LSN 53"):
        roots.decode(roots.encode(root(bad)), GEOMETRY)


def test_a_newer_root_is_refused_as_newer() -> None:
    with pytest.raises(errors.FormatVersionError, match="version 2"):
        roots.decode(patched(root(), at(root_header_t, "version"), 2), GEOMETRY)


def test_a_flipped_bit_in_the_root_area_is_told_with_both_checksums() -> None:
    device = new_store()
    state = state_of(device)
    device.image[state.geometry.root_start(0) * BLOCK_SIZE + 100] ^= 1
    told = f"root area 0: expected checksum {state.root_crc:#010x}"
    with pytest.raises(errors.CorruptionError, match=told):
        roots.read(device, state, "image")
