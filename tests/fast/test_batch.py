"""`_fast.batch`: a scan finds exactly what the format calls a batch, whatever else lies there."""
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from repstore._fast.batch import BATCH_INFO_FIELDS, scan_segment
from repstore.format import (
    BATCH_AREA_BYTES,
    BATCH_PAYLOAD_BLOCKS,
    BLOCK_SIZE,
    DESCRIPTOR_BYTES,
    OP_COPY,
    OP_COPY_ZERO,
    OP_MOVE,
    OP_TRIM,
    OP_WRITE,
    OP_ZERO,
    batch_header_t,
)
from tests.fast.batches import Batch, build, scan, seal

BATCH_INFO = np.dtype(list(BATCH_INFO_FIELDS))
SEGMENT_BLOCKS = 16
HERE = (11, 22, 0, 1)         # store_id, life_id, segment, generation of a Batch
BAD_PAYLOAD = 4


def native_scan(segment: bytes, here: tuple[int, int, int, int] = HERE) -> list[dict[str, int]]:
    found = np.zeros(len(segment) // BLOCK_SIZE, BATCH_INFO)
    count = scan_segment(segment, *here, found.view(np.uint8))
    assert set(found["fault"][:count].tolist()) <= {0, BAD_PAYLOAD}
    return [{name: int(info[name]) for name, _ in BATCH_INFO_FIELDS if name != "fault"}
            | {"whole": int(info["fault"] == 0)} for info in found[:count]]


def segment_of(*parts: bytes) -> bytes:
    data = b"".join(parts)
    return data + bytes(SEGMENT_BLOCKS * BLOCK_SIZE - len(data))


def write(sequence: int, offset: int, blocks: int, **more: int) -> bytes:
    payload = bytes([sequence % 251]) * (blocks * BLOCK_SIZE)
    return build(Batch(sequence, offset=offset, records=[(OP_WRITE, blocks)], payload=payload, **more))


@st.composite
def batches(draw: st.DrawFn, offset: int) -> bytes:
    records = draw(st.lists(st.tuples(
        st.sampled_from([OP_WRITE, OP_MOVE, OP_COPY, OP_ZERO, OP_TRIM, OP_COPY_ZERO]), st.integers(1, 3)),
        max_size=3))
    carried = sum(blocks for operation, blocks in records if operation in (OP_WRITE, OP_MOVE, OP_COPY))
    payload = b"".join(bytes([draw(st.integers(0, 255))]) * BLOCK_SIZE for _ in range(carried))
    numbers = st.integers(0, 2**64 - 1)
    return build(Batch(
        draw(numbers), draw(st.integers(0, 2**32 - 1)), draw(numbers), draw(numbers),
        life_id=draw(st.sampled_from([22, 22, 22, 23])), generation=draw(st.sampled_from([1, 1, 1, 2])),
        offset=draw(st.sampled_from([offset, offset, offset, 3])), records=records, payload=payload))


@st.composite
def segments(draw: st.DrawFn) -> bytes:
    """Batches back to back, some foreign, with a few bytes damaged afterwards."""
    data = bytearray()
    for _ in range(draw(st.integers(0, 6))):
        data += draw(batches(len(data) // BLOCK_SIZE))
    data = (data + bytes(SEGMENT_BLOCKS * BLOCK_SIZE))[:SEGMENT_BLOCKS * BLOCK_SIZE]
    for place in draw(st.lists(st.integers(0, len(data) - 1), max_size=3)):
        data[place] ^= draw(st.integers(1, 255))
    return bytes(data)


@given(segments())
def test_it_finds_what_the_plain_reading_of_the_format_finds(segment: bytes) -> None:
    assert native_scan(segment) == scan(segment, *HERE)


def test_batches_in_a_row_are_found_with_all_they_say() -> None:
    segment = segment_of(write(5, 0, 2, flushed=3, completed=4, previous_crc=77), write(6, 3, 1))
    first, second = native_scan(segment)
    assert (first["sequence"], first["flushed_sequence"], first["completed_sequence"]) == (5, 3, 4)
    assert (first["previous_crc"], first["payload_blocks"], first["offset_blocks"]) == (77, 2, 0)
    assert (second["sequence"], second["offset_blocks"]) == (6, 3)


@pytest.mark.parametrize("place", range(4))
def test_a_batch_of_another_store_life_segment_or_use_is_none(place: int) -> None:
    here = list(HERE)
    here[place] += 1
    assert native_scan(segment_of(write(5, 0, 1)), (here[0], here[1], here[2], here[3])) == []


def test_a_batch_at_another_offset_is_none() -> None:
    assert native_scan(segment_of(bytes(BLOCK_SIZE), write(5, 0, 1))) == []


@pytest.mark.parametrize("byte", [0, 4, 8, 16, 24, 56, 100, 130, 200, BLOCK_SIZE - 1])
def test_a_flipped_bit_in_the_header_block_hides_the_batch(byte: int) -> None:
    segment = bytearray(segment_of(write(5, 0, 1), write(6, 2, 1)))
    segment[byte] ^= 1
    assert [found["sequence"] for found in native_scan(bytes(segment))] == [6]


@pytest.mark.parametrize("byte", [0, BLOCK_SIZE - 1, BLOCK_SIZE, 2 * BLOCK_SIZE - 1])
def test_a_flipped_bit_in_the_payload_is_told(byte: int) -> None:
    segment = bytearray(segment_of(write(5, 0, 2), write(6, 3, 1)))
    segment[BLOCK_SIZE + byte] ^= 1
    assert [(found["sequence"], found["whole"]) for found in native_scan(bytes(segment))] == [(5, 0), (6, 1)]


def test_behind_a_bad_payload_every_block_is_looked_at() -> None:
    torn = write(5, 0, 3)[:BLOCK_SIZE]
    found = native_scan(segment_of(torn, bytes(BLOCK_SIZE), write(6, 2, 1)))
    assert [(batch["sequence"], batch["whole"]) for batch in found] == [(5, 0), (6, 1)]


@pytest.mark.parametrize("lie", [
    Batch(5, records=[(OP_WRITE, 1)], payload=bytes(BLOCK_SIZE), payload_blocks=0),
    Batch(5, records=[(OP_WRITE, 1)], payload=bytes(BLOCK_SIZE), payload_blocks=2),
    Batch(5, records=[(OP_WRITE, 2**32 - 1)], payload=bytes(BLOCK_SIZE)),
    Batch(5, records=[(OP_WRITE, 2**32 - 1), (OP_WRITE, 2)], payload=bytes(BLOCK_SIZE)),
    Batch(5, payload_blocks=BATCH_PAYLOAD_BLOCKS + 1),
    Batch(5, payload_blocks=2**16 - 1),
    Batch(5, descriptor_count=BATCH_AREA_BYTES // DESCRIPTOR_BYTES + 1),
    Batch(5, descriptor_count=2**16 - 1),
], ids=lambda batch: f"{batch.records}-{batch.payload_blocks}-{batch.descriptor_count}")
def test_impossible_counts_under_a_right_checksum_are_refused(lie: Batch) -> None:
    assert native_scan(segment_of(build(lie))) == []


def test_a_payload_that_would_leave_the_segment_is_refused() -> None:
    whole = bytes(14 * BLOCK_SIZE) + write(5, 14, 1)
    assert len(native_scan(whole)) == 1
    assert native_scan(bytes(15 * BLOCK_SIZE) + write(5, 15, 1)[:BLOCK_SIZE]) == []


def test_another_format_version_is_no_batch() -> None:
    header = np.frombuffer(bytearray(write(5, 0, 0)), batch_header_t, 1).copy()
    header["version"] += 1
    block = header.tobytes() + bytes(BLOCK_SIZE - header.nbytes)
    assert native_scan(segment_of(seal(block))) == []


def test_bad_buffers_are_refused() -> None:
    room = np.zeros(1000, BATCH_INFO).view(np.uint8)
    with pytest.raises(ValueError, match="segment of 4095 bytes is not a multiple of 4096"):
        scan_segment(bytes(4095), *HERE, room)
    with pytest.raises(ValueError, match="segment of 0 bytes"):
        scan_segment(b"", *HERE, room)
    with pytest.raises(ValueError, match="room for 48 bytes, 96 needed"):
        scan_segment(bytes(2 * BLOCK_SIZE), *HERE, room[:48])
