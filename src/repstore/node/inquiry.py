"""Questions to a running node, through the coordination store: one at a time for each node.

    ask/NODE       what somebody wants to know now
    answer/NODE    what the node said to the newest question it saw

  I1 A question has a serial of its own; an answer carries it. A new question replaces one that
     was not answered yet, and a node that restarts answers none twice.
  I2 Answers are small (VALUE_BYTES_MAX) and quick: what takes long is begun by one question and
     looked at by others.
  I3 Whoever finds that another's question stands where theirs stood waits until it is answered,
     and asks again: two who ask at a time take turns.
  I4 What stands there may be anybody's, of any version: of a question a node needs no more than its
     serial to answer that it does not understand it, and an answer that nobody can read is none.
"""
from __future__ import annotations

import time
import uuid as uuids
from typing import Annotated, Any

import msgspec

from repstore import config, errors
from repstore.coordination.interface import ABSENT, ConfigStore, Entry

ASK_PREFIX = "ask/"
ANSWER_PREFIX = "answer/"
LOOK_S = 0.01
# what msgspec raises for bytes that are not the JSON it looks for
UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

Serial = Annotated[str, msgspec.Meta(max_length=64)]      # comes back in the answer, which must fit


class Question(msgspec.Struct, frozen=True):
    """What every version of a question has."""
    serial: Serial


class Inquiry(msgspec.Struct, frozen=True):
    """One question about the copy of volume `index`."""
    serial: Serial
    what: str
    index: int
    numbers: dict[str, int] = {}


class Answer(msgspec.Struct, frozen=True):
    """What a node said; `error` is empty when it could."""
    serial: str
    error: str = ""
    value: dict[str, Any] = {}


def decode_serial(data: bytes, where: str) -> str:
    """The serial of the question in `data`, whatever it asks; CorruptionError if it has none."""
    try:
        return msgspec.json.decode(data, type=Question).serial
    except UNREADABLE as error:
        raise errors.CorruptionError(where, "a question", error) from None


def decode_inquiry(data: bytes, where: str) -> Inquiry:
    """The question in `data`; CorruptionError if it is none of this version."""
    try:
        return msgspec.json.decode(data, type=Inquiry)
    except UNREADABLE as error:
        raise errors.CorruptionError(where, "a question", error) from None


def put(store: ConfigStore, key: str, value: bytes) -> None:
    """Write whatever stood there before."""
    for _ in range(config.SWAPS_MAX):
        entry = store.get(key)
        if store.compare_and_swap(key, ABSENT if entry is None else entry.revision, value) is not None:
            return
    raise errors.UnavailableError(f"{key}: lost {config.SWAPS_MAX} compare-and-swaps in a row")


def is_answered(store: ConfigStore, node: str, serial: str) -> bool:
    """Whether the node answered this question already (I1)."""
    answer = _answer_in(store.get(ANSWER_PREFIX + node))
    return answer is not None and answer.serial == serial


def ask(store: ConfigStore, node: str, what: str, index: int, **numbers: int) -> dict[str, Any]:
    """Ask a node and wait for its answer. UnavailableError: it gave none in INQUIRY_TIMEOUT_S;
    NotFoundError with its words: it could not."""
    inquiry = Inquiry(uuids.uuid4().hex, what, index, numbers)
    key, question = ASK_PREFIX + node, msgspec.json.encode(inquiry)
    put(store, key, question)
    deadline_s = time.monotonic() + config.INQUIRY_TIMEOUT_S
    while time.monotonic() < deadline_s:
        standing = store.get(key)
        answer = _answer_in(store.get(ANSWER_PREFIX + node))
        if answer is not None:
            if answer.serial == inquiry.serial:
                if answer.error:
                    raise errors.NotFoundError(f"node {node!r}: {answer.error}")
                return answer.value
            if standing is not None and answer.serial == decode_serial(standing.value, key):
                put(store, key, question)      # I3
        time.sleep(LOOK_S)
    raise errors.UnavailableError(f"node {node!r} gave no answer in {config.INQUIRY_TIMEOUT_S} s")


def _answer_in(entry: Entry | None) -> Answer | None:
    """The answer that stands there, if there is one that can be read (I4)."""
    if entry is None:
        return None
    try:
        return msgspec.json.decode(entry.value, type=Answer)
    except UNREADABLE:
        return None
