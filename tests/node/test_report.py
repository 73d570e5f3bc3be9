"""The report of a node: whole, not too often, and never the reason for a failure."""
from pathlib import Path

import pytest

from repstore import config
from repstore.coordination.memory import MemoryConfigStore
from repstore.node.control import NodeControl, NodeIdentity
from repstore.node.native import Native
from repstore.node.process import this_process
from repstore.node.report import Reporter, read_report
from repstore.replication.situation import Identity


@pytest.fixture
def native() -> Native:
    return Native(0xFFFF, None)


@pytest.fixture
def control(native: Native) -> NodeControl:
    identity = NodeIdentity("n1", Identity(0, "", "boot"), "host", "token")
    return NodeControl(identity, native.engine, MemoryConfigStore(), lambda node: False, 0.0)


def test_a_report_is_written_when_there_is_news_and_not_too_often(
        tmp_path: Path, native: Native, control: NodeControl) -> None:
    path = tmp_path / "n1.status.json"
    reporter = Reporter(path, native.engine, this_process())
    reporter.publish(control, 10.0)
    first = read_report(path)
    assert first is not None
    assert (first.node, first.pid, first.fenced, first.copies) == ("n1", this_process().pid, "", ())
    path.unlink()
    reporter.publish(control, 10.0 + config.REPORT_INTERVAL_S)
    assert not path.exists()                          # nothing had changed
    control.health.fenced = "EIO"
    reporter.publish(control, 10.0 + 1.5 * config.REPORT_INTERVAL_S)
    assert not path.exists()                          # too early
    reporter.publish(control, 10.0 + 2 * config.REPORT_INTERVAL_S)
    again = read_report(path)
    assert again is not None
    assert again.fenced == "EIO"
    assert list(tmp_path.iterdir()) == [path]


def test_a_report_that_cannot_be_written_is_tried_again(
        tmp_path: Path, native: Native, control: NodeControl) -> None:
    reporter = Reporter(tmp_path / "away" / "n1.status.json", native.engine, this_process())
    reporter.publish(control, 0.0)
    (tmp_path / "away").mkdir()
    reporter.publish(control, config.REPORT_INTERVAL_S)
    assert read_report(tmp_path / "away" / "n1.status.json") is not None
