"""What verify exchanges is in proportion to what differs, and to the logarithm of the size."""
from collections.abc import Sequence
from pathlib import Path

import pytest

from bench.mapped_copies import BOOT_ID, mapped_image
from bench.verify_cost import Cost, Pause, draw, measure
from repstore import config
from repstore.check.findings import Report
from repstore.check.fsck import check_device
from repstore.check.verify import DIGEST_BYTES, FAN_OUT
from repstore.format import BLOCK_SIZE, PAGE_ENTRIES
from repstore.store.device import MemoryDevice

COPIES = 2
DIFFERENT_BLOCKS = (0, 1, 10, 100)
LEVELS = {16 * config.MIB: 1, config.GIB: 2}         # of the tree, below its root


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[int, tuple[list[Cost], Pause]]:
    return {size: measure(tmp_path_factory.mktemp("stores"), size, DIFFERENT_BLOCKS) for size in LEVELS}


@pytest.mark.parametrize("size", LEVELS)
def test_bytes_exchanged_are_in_proportion_to_the_pages_that_differ(
        measured: dict[int, tuple[list[Cost], Pause]], size: int) -> None:
    for cost in measured[size][0]:
        exactly = COPIES * cost.differing_pages * PAGE_ENTRIES * 4
        digests = cost.digest_bytes - exactly
        assert digests >= COPIES * DIGEST_BYTES
        assert digests <= COPIES * DIGEST_BYTES * (1 + cost.differing_pages * LEVELS[size] * FAN_OUT)
        assert cost.differing_pages <= cost.different_blocks
        assert cost.message_bytes <= 2 * cost.digest_bytes + 4000 * (1 + cost.differing_pages)


def test_equal_copies_exchange_their_roots_whatever_their_size(
        measured: dict[int, tuple[list[Cost], Pause]]) -> None:
    assert {costs[0].digest_bytes for costs, _ in measured.values()} == {COPIES * DIGEST_BYTES}


def test_a_map_that_was_made_is_one_that_fsck_takes(tmp_path: Path) -> None:
    """All but the records and the data, which are not there: no page, pointer, owner or count is wrong."""
    report = Report("image")
    check_device(MemoryDevice(mapped_image(tmp_path / "store", 16 * config.MIB)), report,
                 boot_id=BOOT_ID)
    assert report.counts == {"record": 16 * config.MIB // BLOCK_SIZE}


def test_costs_are_drawn(measured: dict[int, tuple[list[Cost], Pause]], tmp_path: Path) -> None:
    costs: Sequence[Cost] = [cost for found, _ in measured.values() for cost in found]
    draw(costs, [pause for _, pause in measured.values()], tmp_path / "cost.png")
    assert (tmp_path / "cost.png").read_bytes().startswith(b"\x89PNG")
