"""A write larger than a segment: the smallest stores have segments of 64 KiB, a request may have 256."""
import random
from pathlib import Path

import pytest

import repstore

MIB = 1 << 20
REQUEST_BYTES = 256 * 1024


@pytest.mark.parametrize("store_mib", [1, 2, 4, 8])
def test_writes_of_any_length_overwrite_nothing_else(tmp_path: Path, store_mib: int) -> None:
    draw = random.Random(store_mib)
    size_bytes = store_mib * MIB // 4
    expected = bytearray(size_bytes)
    path = tmp_path / "small.store"
    with repstore.Store.create(path, store_mib * MIB) as store:
        volume = store.create_volume("demo", size_bytes)
        for _ in range(60):
            length = min(draw.choice([4096, 60 * 1024, 65536, 100_000, REQUEST_BYTES]), size_bytes)
            offset = draw.randrange(size_bytes - length + 1)
            data = draw.randbytes(length)
            volume.write(offset, data)
            expected[offset:offset + length] = data
            assert volume.read(0, size_bytes) == bytes(expected)
    with repstore.Store.open(path) as store:
        assert store.open_volume("demo").read(0, size_bytes) == bytes(expected)
