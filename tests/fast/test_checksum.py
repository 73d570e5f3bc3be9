"""Every CRC32C implementation of this CPU against the PyPI one."""
import crc32c as oracle
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from repstore._fast import checksum

BLOCK = 4096
every_implementation = pytest.mark.parametrize("implementation", checksum.implementations())


def noise(size_bytes: int, seed: int = 7) -> bytes:
    return np.random.default_rng(seed).bytes(size_bytes)


def test_best_implementation_is_in_use_and_tables_always_work() -> None:
    assert checksum.implementation() == checksum.implementations()[0]
    assert checksum.implementations()[-1] == "table"


@every_implementation
def test_known_answers(implementation: str) -> None:
    assert checksum.crc32c(b"", implementation=implementation) == 0
    assert checksum.crc32c(b"123456789", implementation=implementation) == 0xE3069283
    assert checksum.crc32c(bytes(32), implementation=implementation) == 0x8A9136AA
    assert checksum.crc32c(b"\xff" * 32, implementation=implementation) == 0x62A8AB43


@every_implementation
@given(data=st.binary(max_size=200), value=st.integers(0, 2**32 - 1))
def test_any_bytes_from_any_value(implementation: str, data: bytes, value: int) -> None:
    assert checksum.crc32c(data, value, implementation=implementation) == oracle.crc32c(data, value)


# around a register fold (256), the short lanes (504), the long ones (4080) and the block
@every_implementation
@pytest.mark.parametrize("around", [8, 256, 504, 512, 1008, 4080, 4096, 8160, 65536])
def test_every_length_and_alignment_around_a_lane_edge(implementation: str, around: int) -> None:
    data = noise(around + 64)
    for length in range(around - 8, around + 9):
        for start in (0, 1, 3, 7):
            view = memoryview(data)[start:start + length]
            assert checksum.crc32c(view, implementation=implementation) == oracle.crc32c(view)


@every_implementation
@given(cut=st.integers(0, 10_000))
def test_a_cut_changes_nothing(implementation: str, cut: int) -> None:
    data = noise(10_000)
    head = checksum.crc32c(data[:cut], implementation=implementation)
    assert checksum.crc32c(data[cut:], head, implementation=implementation) == oracle.crc32c(data)


@every_implementation
@pytest.mark.parametrize("count", range(8))
def test_blocks(implementation: str, count: int) -> None:
    data = noise(count * BLOCK)
    out = np.zeros(count, dtype=np.uint32)
    sums = checksum.crc32c_blocks(data, out, implementation=implementation)
    assert sums is out
    assert sums.tolist() == [oracle.crc32c(data[i:i + BLOCK]) for i in range(0, len(data), BLOCK)]


@every_implementation
@pytest.mark.parametrize("start", [0, 1, 5])
def test_copy_block_copies_exactly_one_block(implementation: str, start: int) -> None:
    source = noise(BLOCK)
    target = bytearray(b"\xee" * (BLOCK + 16))
    window = memoryview(target)[start:start + BLOCK]
    assert checksum.crc32c_copy_block(window, source, implementation=implementation) == oracle.crc32c(source)
    assert bytes(window) == source
    assert set(target[:start] + target[start + BLOCK:]) == {0xEE}


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match="4097 bytes are not whole blocks of 4096"):
        checksum.crc32c_blocks(bytes(4097))
    with pytest.raises(ValueError, match="out has 4 bytes, 2 sums need 8"):
        checksum.crc32c_blocks(bytes(2 * BLOCK), np.zeros(1, dtype=np.uint32))
    with pytest.raises(ValueError, match="a block has 4096 bytes, not 5 and 4096"):
        checksum.crc32c_copy_block(bytearray(BLOCK), b"short")
    with pytest.raises(ValueError, match="no CRC32C implementation 'abacus'"):
        checksum.crc32c(b"", implementation="abacus")
    with pytest.raises(OverflowError):
        checksum.crc32c(b"", 2**32)
    with pytest.raises(ValueError, match="not C-contiguous"):
        checksum.crc32c(np.zeros((4, 4), dtype=np.uint8)[:, 1])
    with pytest.raises(BufferError):
        checksum.crc32c_copy_block(bytes(BLOCK), bytes(BLOCK))
