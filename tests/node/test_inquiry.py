"""Questions to a node: two who ask at a time both get their answers."""
import msgspec

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
