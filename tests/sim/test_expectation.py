"""What a block may read as, when writes to it met each other, and when a loss was followed by an error."""
from repstore.sim.expectation import ZEROS, Expectation

BLOCK = 7


def two_writes_met(first: int = 10, second: int = 20) -> Expectation:
    """Both under way at once, both answered: either may be the last."""
    expectation = Expectation()
    for stamp in (first, second):
        expectation.now()
        expectation.begin(BLOCK, stamp)
    for stamp in (second, first):
        expectation.now()
        expectation.contest(BLOCK, stamp)
    return expectation


def test_either_of_two_that_met_may_be_read() -> None:
    assert two_writes_met().of(BLOCK) >= {10, 20}


def test_the_one_that_was_read_is_the_last() -> None:
    expectation = two_writes_met()
    expectation.settle(BLOCK, 10)
    assert expectation.of(BLOCK) == {10}


def test_the_other_one_was_there_before_and_a_loss_may_bring_it_back() -> None:
    expectation = two_writes_met()
    expectation.settle(BLOCK, 10)
    expectation.lose()
    assert expectation.of(BLOCK) >= {10, 20}


def test_a_flush_leaves_the_one_that_was_read_alone() -> None:
    expectation = two_writes_met()
    expectation.now()
    expectation.settle(BLOCK, 10)
    expectation.durable(BLOCK, expectation.now())
    expectation.lose()
    assert expectation.of(BLOCK) == {10}
    assert expectation.is_sure(BLOCK)


def test_a_flush_after_a_loss_keeps_nothing_of_a_block_that_could_not_be_read() -> None:
    expectation = Expectation()
    expectation.begin(BLOCK, 10)
    expectation.now()
    expectation.acknowledge(BLOCK, 10)
    expectation.lose()
    expectation.unseen(BLOCK)
    expectation.flushed(expectation.now())
    expectation.lose()
    assert expectation.of(BLOCK) == {ZEROS, 10}
    assert not expectation.is_sure(BLOCK)
