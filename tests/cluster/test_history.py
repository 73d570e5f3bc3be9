"""The judge of the kill rounds, judged: what it must let pass, and what it must catch."""
import pytest

from tests.cluster.history import BLOCK_BYTES, ZEROS, History, Write, content, values


def acknowledged(history: History, first: int, count: int = 1) -> Write:
    write = history.begin_write(first, count)
    history.acknowledge(write)
    return write


def is_legal(history: History, block: int, value: int) -> bool:
    return history.check(block, content(value, block, 1)) == []


def test_what_was_never_written_is_zeros() -> None:
    history = History(4)
    assert history.check(0, bytes(4 * BLOCK_BYTES)) == []
    assert history.check(1, content(7, 1, 1)) == ["block 1: found write 7, legal are writes [0] (0: zeros)"]


def test_an_acknowledged_write_replaces_what_was_there() -> None:
    history = History(4)
    old, new = acknowledged(history, 0, 2), acknowledged(history, 1)
    assert is_legal(history, 0, old.value)
    assert is_legal(history, 1, new.value)
    assert not is_legal(history, 1, old.value)
    assert not is_legal(history, 1, ZEROS)


def test_of_two_concurrent_writes_either_may_stay() -> None:
    history = History(1)
    one, other = history.begin_write(0, 1), history.begin_write(0, 1)
    history.acknowledge(other)
    history.acknowledge(one)
    assert not is_legal(history, 0, ZEROS)
    assert is_legal(history, 0, one.value)
    assert is_legal(history, 0, other.value)


def test_a_lost_write_may_have_happened_but_not_after_the_next_attach() -> None:
    history = History(1)
    old = acknowledged(history, 0)
    lost = history.begin_write(0, 1)
    history.lose_connection([lost])
    history.attached_again()
    assert is_legal(history, 0, old.value)
    assert is_legal(history, 0, lost.value)
    newest = acknowledged(history, 0)
    assert not is_legal(history, 0, lost.value)
    assert is_legal(history, 0, newest.value)


def test_a_lost_write_that_was_seen_has_happened() -> None:
    history = History(1)
    old = acknowledged(history, 0)
    lost = history.begin_write(0, 1)
    history.lose_connection([lost])
    history.attached_again()
    assert is_legal(history, 0, lost.value)
    assert not is_legal(history, 0, old.value)


def test_a_read_may_bring_what_was_legal_when_it_began_or_came_meanwhile() -> None:
    for which in ("oldest", "old", "new"):
        history = History(1)
        written = {"oldest": acknowledged(history, 0), "old": acknowledged(history, 0)}
        read = history.begin_read(0, 1)
        written["new"] = acknowledged(history, 0)
        complaints = history.end_read(read, content(written[which].value, 0, 1))
        assert (complaints == []) == (which != "oldest")


def test_a_trim_is_a_write_of_zeros() -> None:
    history = History(1)
    old = acknowledged(history, 0)
    trim = history.begin_write(0, 1, zeros=True)
    assert is_legal(history, 0, old.value)
    history.acknowledge(trim)
    assert is_legal(history, 0, ZEROS)
    assert not is_legal(history, 0, old.value)


@pytest.mark.parametrize(("data", "found"), [
    (bytes(BLOCK_BYTES), ZEROS),
    (content(5, 3, 1), 5),
    (content(5, 4, 1), "write 5 of block 4"),
    (content(5, 3, 1)[:512] + content(6, 3, 1)[512:], "a mix of 2 stamps"),
    (b"\x5a" * BLOCK_BYTES, "bytes that nobody wrote"),
])
def test_a_block_says_which_write_it_is(data: bytes, found: int | str) -> None:
    assert values(data, 3) == [found]
