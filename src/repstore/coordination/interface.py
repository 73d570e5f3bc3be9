"""The seam to the coordination store: get, compare-and-swap, delete, list, watch.

Promises every implementation keeps (tests/coordination runs one suite over all):
  C1 A swap is atomic and durable when it returns: of two swaps that expect the same
     revision exactly one succeeds.
  C2 Revisions are drawn from one counter for the whole store and only grow, across
     deletes and re-creations too: an old revision never matches again.
  C3 A get sees every swap that returned before it began.
  C4 A swap that may or may not have happened raises OutcomeUnknownError. Sending the
     same swap again settles it: it succeeds, or it conflicts and a get tells who won.
  C5 UnavailableError means: nothing was changed.
  C6 A watch reports, oldest first, the latest state of every key changed after the
     given revision. Changes in between may be folded into one; none is forgotten.
"""
from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from repstore import errors

KEY_BYTES_MAX = 255
VALUE_BYTES_MAX = 65_536      # a volume's config is about 4 KiB; a bound, not a target

ABSENT = 0                    # the revision of a key that does not exist


@dataclass(frozen=True, slots=True)
class Entry:
    """A value and the revision of the swap that wrote it."""
    value: bytes
    revision: int


@dataclass(frozen=True, slots=True)
class Change:
    """The newest state of one key; `value` is None when the key was deleted."""
    key: str
    value: bytes | None
    revision: int


class ConfigStore(Protocol):
    """What a node asks of the coordination store. Safe to call from several threads."""

    def get(self, key: str) -> Entry | None:
        """The current value of `key`, or None."""

    def compare_and_swap(self, key: str, expected_revision: int, value: bytes) -> int | None:
        """Write `value` if the key is still at `expected_revision` (ABSENT: does not exist).

        Returns the new revision, or None when somebody else was first.
        """

    def delete(self, key: str, expected_revision: int) -> bool:
        """Remove `key` if it is still at `expected_revision`; False when it is not."""

    def list(self, prefix: str) -> dict[str, Entry]:
        """All keys that begin with `prefix`, in order."""

    def watch(self, after_revision: int) -> tuple[Change, ...]:
        """What changed after `after_revision`, oldest first. Never waits."""

    def close(self) -> None:
        """Give back files and threads; later calls are errors."""


def check_key(key: str) -> None:
    """Refuse a key that some implementation could not hold."""
    size_bytes = len(key.encode())
    if not 1 <= size_bytes <= KEY_BYTES_MAX or "\0" in key:
        raise errors.ConfigError(
            f"key {key!r}: {size_bytes} bytes, must be 1 to {KEY_BYTES_MAX} and hold no NUL")


def check_value(value: bytes) -> None:
    """Refuse a value above the limit before anything changes."""
    if len(value) > VALUE_BYTES_MAX:
        raise errors.ConfigError(f"value of {len(value)} bytes, at most {VALUE_BYTES_MAX} fit")
