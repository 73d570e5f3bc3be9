"""Where an interrupted scrub goes on, and where not."""
import msgspec
import pytest

from repstore import config
from repstore.cli import check_copies
from repstore.cli.check_copies import Kept
from repstore.coordination.memory import MemoryConfigStore
from repstore.node import load_nodes
from tests.sim.scenarios import healthy_cluster

NOW_S = 1_800_000_000.0


@pytest.mark.parametrize(("age_s", "goes_on"), [
    (1.0, True), (config.SCRUB_KEPT_S - 1, True), (config.SCRUB_KEPT_S + 1, False),
    (-1.0, False)])             # of the future: a clock was set back, and nobody knows how old it is
def test_a_scrub_goes_on_where_it_was_for_a_week(
        monkeypatch: pytest.MonkeyPatch, age_s: float, goes_on: bool) -> None:
    monkeypatch.setattr(check_copies.time, "time", lambda: NOW_S)
    configs = MemoryConfigStore()
    left = Kept(77, bad_blocks=2, bad_pages=1, since_s=NOW_S - age_s)
    check_copies._keep(configs, {"scrub/v/s": left})
    assert check_copies._kept(configs, "scrub/v/s") == (left if goes_on else Kept(since_s=NOW_S))
    assert check_copies._kept(configs, "scrub/v/other") == Kept(since_s=NOW_S)


def test_what_was_read_of_a_store_says_nothing_of_another_one_in_its_place() -> None:
    cluster = healthy_cluster(3)
    volume, nodes = cluster.volume("demo"), load_nodes(cluster.config).values()
    assert len({check_copies._key(volume, node) for node in nodes}) == len(nodes)
    for node in nodes:
        replaced = msgspec.structs.replace(node, store_uuid="5" * 32)
        assert check_copies._key(volume, replaced) != check_copies._key(volume, node)
