"""The fault hooks of the memory store: unavailable changes nothing, unknown may have."""
import pytest

from repstore import errors
from repstore.coordination.interface import ABSENT
from repstore.coordination.memory import MemoryConfigStore


@pytest.mark.fault("coordination: not reachable", promise="nothing was changed, and it is said")
def test_unavailable_changes_nothing() -> None:
    def fail(operation: str, key: str) -> None:
        raise errors.UnavailableError(f"{operation} {key}")

    store = MemoryConfigStore(before=fail)
    with pytest.raises(errors.UnavailableError):
        store.compare_and_swap("k", ABSENT, b"v")
    store.before = lambda operation, key: None
    assert store.get("k") is None


@pytest.mark.fault("coordination: outcome of a swap unknown", promise="the same swap settles it")
def test_unknown_is_settled_by_the_same_swap() -> None:
    """C4: sent again, it conflicts, and the get shows that it was ours."""
    def fail(operation: str, key: str) -> None:
        raise errors.OutcomeUnknownError(f"{operation} {key}")

    store = MemoryConfigStore(after=fail)
    with pytest.raises(errors.OutcomeUnknownError):
        store.compare_and_swap("k", ABSENT, b"v")
    store.after = lambda operation, key: None
    assert store.compare_and_swap("k", ABSENT, b"v") is None
    entry = store.get("k")
    assert entry is not None
    assert entry.value == b"v"
