"""Questions to a node: two who ask at a time both get their answers; what stands there may be anything."""
import msgspec
import pytest

from repstore.coordination.memory import MemoryConfigStore
from repstore.node import inquiry

NODE = "n1"


def test_a_question_that_another_replaced_is_asked_again_when_that_is_answered() -> None:
    store = MemoryConfigStore()
    others = inquiry.Inquiry("another's", "scrub state", 1)
    asked: list[str] = []

    def after(operation: str, key: str) -> None:
        """Another asks just behind the first question; the node answers what it sees then."""
        if operation != "compare_and_swap" or key != inquiry.ASK_PREFIX + NODE:
            return
        store.after = lambda operation, key: None
        if not asked:
            inquiry.put(store, key, msgspec.json.encode(others))
        entry = store.get(key)
        assert entry is not None
        question = inquiry.decode_inquiry(entry.value, key)
        asked.append(question.what)
        answer = inquiry.Answer(question.serial, value={"to": question.what})
        inquiry.put(store, inquiry.ANSWER_PREFIX + NODE, msgspec.json.encode(answer))
        store.after = after

    store.after = after
    assert inquiry.ask(store, NODE, "explain", 1) == {"to": "explain"}
    assert asked == ["scrub state", "explain"]


@pytest.mark.parametrize("standing", [b"no answer", b'{"serial":"\xff"}', b'{"x":' * 10_000])
def test_whoever_asks_waits_past_an_answer_that_nobody_can_read(standing: bytes) -> None:
    store = MemoryConfigStore()
    inquiry.put(store, inquiry.ANSWER_PREFIX + NODE, standing)
    looked = 0

    def before(operation: str, key: str) -> None:
        """The node answers when the asker has looked once."""
        nonlocal looked
        looked += (operation, key) == ("get", inquiry.ANSWER_PREFIX + NODE)
        if looked == 2:
            looked += 1
            entry = store.get(inquiry.ASK_PREFIX + NODE)
            assert entry is not None
            answer = inquiry.Answer(inquiry.decode_serial(entry.value, "ask"), value={"fine": 1})
            inquiry.put(store, inquiry.ANSWER_PREFIX + NODE, msgspec.json.encode(answer))

    store.before = before
    assert inquiry.ask(store, NODE, "explain", 1) == {"fine": 1}
