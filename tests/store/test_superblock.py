"""Superblock copies: any two may be lost in any way, and nothing false is ever believed."""
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from repstore import config, errors
from repstore.format import BLOCK_SIZE, superblock_t
from repstore.store import geometry as layout
from repstore.store import superblock
from repstore.store.device import Bytes, MemoryDevice
from repstore.store.superblock import Superblock
from tests.fast.batches import seal
from tests.store.images import BadSpots, new_store, small_geometry, state_of

DAMAGES = st.one_of(
    st.just(bytes(BLOCK_SIZE)),
    st.binary(min_size=BLOCK_SIZE, max_size=BLOCK_SIZE),
    st.integers(0, superblock_t.itemsize * 8 - 1),       # flip one bit
    st.sampled_from(["other copy", "older state"]))


def damage(device: MemoryDevice, copy_number: int, how: bytes | int | str) -> None:
    positions = state_of(device).geometry.superblock_positions
    at = positions[copy_number] * BLOCK_SIZE
    if isinstance(how, bytes):
        device.write(at, how)
    elif isinstance(how, int):
        device.image[at + how // 8] ^= 1 << how % 8
    elif how == "other copy":
        device.write(at, superblock.encode(state_of(device), (copy_number + 1) % 4))
    else:
        older = replace(state_of(device), sequence=0, root_crc=1)
        device.write(at, superblock.encode(older, copy_number))


@given(st.sets(st.integers(0, 3), max_size=2), st.data())
@pytest.mark.fault("disk: one or two damaged superblocks",
                   promise="the store opens with the state the others agree on")
def test_any_two_copies_may_be_damaged(copies: set[int], data: st.DataObject) -> None:
    device = new_store()
    whole = state_of(device)
    damages = [(copy, data.draw(DAMAGES)) for copy in sorted(copies)]
    image = MemoryDevice(bytearray(device.image))
    for copy, how in damages:
        scratch = MemoryDevice(bytearray(device.image))
        damage(scratch, copy, how)
        at = whole.geometry.superblock_positions[copy] * BLOCK_SIZE
        image.write(at, scratch.read(at, BLOCK_SIZE))
    # two copies that are wrong in the same way agree too: on an older state, which does not win
    assert superblock.read(image, "image").superblock == whole


@given(st.sets(st.integers(0, 3), min_size=3), st.integers(0, superblock_t.itemsize * 8 - 1))
@pytest.mark.fault("disk: three damaged superblocks", promise="refused as corrupt, never guessed")
def test_three_damaged_copies_are_corruption(copies: set[int], bit: int) -> None:
    device = new_store()
    positions = state_of(device).geometry.superblock_positions
    for copy in copies:
        device.image[positions[copy] * BLOCK_SIZE + bit // 8] ^= 1 << bit % 8
    with pytest.raises((errors.CorruptionError, errors.ConfigError)):
        superblock.read(device, "image")


@pytest.mark.parametrize("left", range(4))
def test_one_copy_is_no_quorum_however_often_it_is_looked_at(left: int) -> None:
    device = new_store(small_geometry(16 * config.MIB))
    for copy, position in enumerate(state_of(device).geometry.superblock_positions):
        if copy != left:
            device.image[position * BLOCK_SIZE + 8] ^= 1
    with pytest.raises(errors.CorruptionError, match="2 superblocks of 4 that agree"):
        superblock.read(device, "image")


def test_inner_copies_are_found_without_the_ends() -> None:
    for segment_bytes in (64 * config.KIB, 128 * config.KIB, 1 * config.MIB):
        device = new_store(small_geometry(16 * config.MIB, segment_bytes))
        whole = state_of(device)
        device.write(0, bytes(BLOCK_SIZE))
        device.write(device.size_bytes - BLOCK_SIZE, bytes(BLOCK_SIZE))
        assert superblock.read(device, "image").superblock == whole


@pytest.mark.fault("disk: a superblock that is valid but of another time", promise="outvoted")
def test_one_newer_copy_is_outvoted_and_two_are_not() -> None:
    device = new_store()
    whole = state_of(device)
    newer = replace(whole, sequence=whole.sequence + 1, life_id=5)
    positions = whole.geometry.superblock_positions
    device.write(0, superblock.encode(newer, 0))
    assert superblock.read(device, "image").superblock == whole
    device.write(positions[1] * BLOCK_SIZE, superblock.encode(newer, 1))
    assert superblock.read(device, "image").superblock == newer


def test_copies_of_one_sequence_that_differ_do_not_agree() -> None:
    device = new_store()
    whole = state_of(device)
    for copy, position in enumerate(whole.geometry.superblock_positions):
        device.write(position * BLOCK_SIZE, superblock.encode(replace(whole, life_id=copy), copy))
    with pytest.raises(errors.CorruptionError, match="2 superblocks of 4 that agree"):
        superblock.read(device, "image")


class CrashingDevice(MemoryDevice):
    """Writes until `writes` are used up; a flush is where the rest of the pair may be lost."""

    def __init__(self, image: bytearray, writes: int) -> None:
        super().__init__(image)
        self.writes = writes
        self.order: list[int | str] = []

    def write(self, offset: int, data: Bytes) -> None:
        self.order.append(offset // BLOCK_SIZE)
        if self.writes > 0:
            super().write(offset, data)
        self.writes -= 1

    def flush(self) -> None:
        self.order.append("flush")


@pytest.mark.parametrize("writes", range(5))
def test_a_crash_while_writing_leaves_the_old_or_the_new_state(writes: int) -> None:
    whole = state_of(new_store())
    newer = replace(whole, sequence=2)
    device = CrashingDevice(bytearray(new_store().image), writes)
    superblock.write(device, newer)
    positions = whole.geometry.superblock_positions
    assert device.order == [positions[0], positions[1], "flush", positions[2], positions[3], "flush"]
    assert state_of(device) == (newer if writes >= 2 else whole)


FIELDS = st.integers(0, 2**64 - 1)


@given(FIELDS, FIELDS, st.binary(min_size=16, max_size=16), st.booleans(), st.integers(0, 3))
def test_what_is_written_is_read(sequence: int, life_id: int, uuid: bytes, clean: bool, copy: int) -> None:
    state = Superblock(small_geometry(), uuid, sequence, life_id, uuid[::-1], clean, copy & 1, 77, 123, 9)
    assert superblock.decode(superblock.encode(state, copy), copy) == state
    assert superblock.decode(superblock.encode(state, copy), copy ^ 1) is None


def patched(block: bytes, field: str, value: int) -> bytes:
    dtype, offset = superblock_t.fields[field][:2]  # type: ignore[index]
    data = bytearray(block)
    data[offset:offset + dtype.itemsize] = value.to_bytes(dtype.itemsize, "little")
    return seal(data)


@pytest.mark.parametrize(("field", "value"), [
    ("magic", 1), ("clean", 2), ("root_area", 2), ("root_bytes", 2**32 - 1), ("segment_blocks", 0),
    ("segment_blocks", 17), ("segment_count", 2**32 - 1), ("total_blocks", 2**64 - 1), ("total_blocks", 0),
    ("root_blocks", 2**32 - 1), ("page_slots", 2**32 - 1)])
def test_impossible_fields_under_a_right_checksum_do_not_count(field: str, value: int) -> None:
    assert superblock.decode(patched(superblock.encode(state_of(new_store()), 0), field, value), 0) is None


@pytest.mark.parametrize(("field", "value", "text"), [
    ("format_major", 2, "store of format 2.0: this repstore reads up to 1.0"),
    ("feature_incompat", 1 << 40, "unknown feature bits 0x10000000000")])
def test_a_newer_store_is_refused(field: str, value: int, text: str) -> None:
    device = new_store()
    for copy, position in enumerate(state_of(device).geometry.superblock_positions):
        block = bytes(device.read(position * BLOCK_SIZE, BLOCK_SIZE))
        device.write(position * BLOCK_SIZE, patched(block, field, value))
        assert copy < 4
    with pytest.raises(errors.FormatVersionError, match=text):
        superblock.read(device, "image")


def test_a_store_that_may_only_be_read_is_not_opened_for_writing() -> None:
    state = replace(state_of(new_store()), feature_ro_compat=4)
    with pytest.raises(errors.FormatVersionError, match="image may only be read: unknown feature bits 0x4"):
        superblock.check_writable(state, "image")


def test_what_is_not_a_store_is_said_to_be_none() -> None:
    with pytest.raises(errors.ConfigError, match=r"image is not a store: 1 whole blocks .*, at least 192"):
        superblock.read(MemoryDevice(bytearray(BLOCK_SIZE)), "image")
    with pytest.raises(errors.ConfigError, match="image is not a store: no superblock"):
        superblock.read(MemoryDevice(bytearray(config.MIB)), "image")


def test_a_truncated_store_is_named_with_both_sizes() -> None:
    image = new_store().image
    with pytest.raises(errors.CorruptionError, match="1048576 bytes, found 1044480: the file was truncated"):
        superblock.read(MemoryDevice(image[:-BLOCK_SIZE]), "image")


@given(st.sets(st.integers(0, 3), max_size=2))
@pytest.mark.fault("disk: one or two damaged superblocks",
                   promise="the store opens with the state the others agree on")
def test_an_unreadable_copy_is_a_damaged_copy(copies: set[int]) -> None:
    device = new_store()
    positions = state_of(device).geometry.superblock_positions
    spotted = BadSpots(device.image, {positions[copy] for copy in copies})
    assert superblock.read(spotted, "image").superblock == state_of(device)


# ------------------------------------------------------------ on a device that is larger than the store (S6)

def larger(extra: int = 16 * config.MIB) -> tuple[MemoryDevice, Superblock]:
    """Copies 2 and 3 stand behind the front that is searched in any case."""
    whole = new_store(small_geometry(56 * config.MIB, 128 * config.KIB))
    assert whole.size_bytes // 2 > layout.FRONT_BLOCKS * BLOCK_SIZE
    return MemoryDevice(whole.image + bytes(extra)), state_of(whole)


@pytest.mark.parametrize("extra", [BLOCK_SIZE, 16 * config.MIB])
@pytest.mark.parametrize("copies", [{0}, {0, 1}, {0, 2}, {0, 3}])
@pytest.mark.parametrize("how", ["rot", "zeros", "unreadable"])
@pytest.mark.fault("disk: one or two damaged superblocks of a store that is smaller than its device",
                   promise="the store opens with the state the others agree on")
def test_a_store_smaller_than_its_device_is_found_without_copy_0(
        copies: set[int], extra: int, how: str) -> None:
    device, whole = larger(extra)
    places = {whole.geometry.superblock_positions[copy] for copy in copies}
    for place in places:
        if how == "zeros":
            device.write(place * BLOCK_SIZE, bytes(BLOCK_SIZE))
        elif how == "rot":
            device.image[place * BLOCK_SIZE + 100] ^= 1
    found = superblock.read(BadSpots(device.image, places if how == "unreadable" else set()), "image")
    assert (found.superblock, set(found.lagging)) == (whole, copies)


def test_what_has_lost_three_copies_is_no_blank_device() -> None:
    device, whole = larger()
    for copy in (0, 1, 2):
        device.write(whole.geometry.superblock_positions[copy] * BLOCK_SIZE, bytes(BLOCK_SIZE))
    with pytest.raises(errors.CorruptionError, match="damaged beyond its copies"):
        superblock.read(device, "image")
    device.write(whole.geometry.superblock_positions[3] * BLOCK_SIZE, bytes(BLOCK_SIZE))
    with pytest.raises(errors.CorruptionError, match="damaged beyond its copies"):     # there is a root
        superblock.read(device, "image")
    device.write(BLOCK_SIZE, bytes(BLOCK_SIZE))
    with pytest.raises(errors.ConfigError, match="no superblock in it"):
        superblock.read(device, "image")
    with pytest.raises(errors.CorruptionError) as caught:
        superblock.read(BadSpots(device.image, {77}), "image")
    assert isinstance(caught.value.__cause__, OSError)


def test_copies_in_places_that_are_not_theirs_are_not_found() -> None:
    """A copy of a small store, kept in blocks of this one, say."""
    device, whole = larger()
    other = replace(whole, geometry=small_geometry(), sequence=99)
    for copy in range(4):
        device.write((300 + copy) * BLOCK_SIZE, superblock.encode(other, copy))
    device.write(0, bytes(BLOCK_SIZE))
    assert superblock.read(device, "image").superblock == whole


def test_a_truncated_store_without_copy_0_is_named_with_both_sizes() -> None:
    device, _ = larger(0)
    device.write(0, bytes(BLOCK_SIZE))
    with pytest.raises(errors.CorruptionError, match="58720256 bytes, found 50331648: the file was trunc"):
        superblock.read(MemoryDevice(device.image[:48 * config.MIB]), "image")


class Blank(MemoryDevice):
    """Ten TiB of zeros, but for the front."""

    size_bytes = 10 * config.TIB

    def __init__(self, front: bytes = b"") -> None:
        super().__init__(bytearray())
        self.front = front
        self.bytes_read = 0

    def read(self, offset: int, length: int) -> memoryview:
        self.bytes_read += length
        return memoryview(self.front[offset:offset + length].ljust(length, b"\0"))


def test_a_large_device_is_not_read_through() -> None:
    blank = Blank()
    with pytest.raises(errors.ConfigError, match="no superblock in it"):
        superblock.read(blank, "image")
    assert blank.bytes_read < 25 * config.MIB
    device, whole = larger()
    device.write(0, bytes(BLOCK_SIZE))
    blank = Blank(bytes(device.image))
    assert superblock.read(blank, "image").superblock == whole
    assert blank.bytes_read < 200 * config.MIB
