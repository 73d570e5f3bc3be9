"""The history checker: against a search of every order, on planted contradictions, on garbage."""
from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.history_speed import write_history
from repstore import config, errors
from repstore.check import history as history_check
from repstore.check.history import Verdict, check, check_file, find
from repstore.check.history_file import find_crashes, load
from repstore.check.progress import Progress
from repstore.cli import app
from tests.check.brute_force import consistent
from tests.check.random_histories import Batch, Manner, make_batch

BLOCKS = 100                  # histories a batch
MANNERS = {
    "one register": Manner(),
    "crashes": Manner(crashes_max=3),
    "kills and power cuts": Manner(crashes_max=5, kill_share=0.6),
    "equal values": Manner(equal_values=True),
    "equal values and crashes": Manner(crashes_max=2, equal_values=True),
    "unknown at first": Manner(unknown_initial=True, crashes_max=1),
    "parts of blocks": Manner(partial_writes=True, crashes_max=1),
    "all together": Manner(crashes_max=2, kill_share=0.5, equal_values=True, partial_writes=True,
                           unknown_initial=True),
}
EXACT = ("one register", "crashes", "kills and power cuts")


def verdict_on(text: bytes) -> Verdict:
    return check(load(io.BytesIO(text)))


def file_of(*lines: dict[str, Any], blocks: int = 8, initial: Any = "zero", **header: Any) -> bytes:
    head = {"history": 1, "block_size": 4096, "blocks": blocks, "initial": initial, **header}
    return "".join(json.dumps(line) + "\n" for line in [
        head, *lines, {"op": "end", "operations": len(lines)}]).encode()


def write(begin: int, end: int | None, value: int | None, block: int = 0, **more: Any) -> dict[str, Any]:
    return {"op": "write", "block": block, "begin": begin, "end": end, "values": [value], **more}


def zero(begin: int, end: int, block: int = 0, count: int = 1) -> dict[str, Any]:
    return {"op": "zero", "block": block, "count": count, "begin": begin, "end": end}


def read(begin: int, end: int, value: int | None, block: int = 0, **more: Any) -> dict[str, Any]:
    return {"op": "read", "block": block, "begin": begin, "end": end, "values": [value], **more}


def flush(begin: int, end: int | None, **more: Any) -> dict[str, Any]:
    return {"op": "flush", "begin": begin, "end": end, **more}


def crash(begin: int, incarnation: int = 2) -> dict[str, Any]:
    return {"op": "crash", "begin": begin, "incarnation": incarnation}


# ------------------------------------------------------------------------ against brute force
def compare(batch: Batch, exact: bool) -> tuple[int, int]:
    """Check every block both ways; returns how many are inconsistent, and how many were missed."""
    history = load(io.BytesIO(batch.text))
    *_, findings, bad_blocks, undecided = find(history, find_crashes(history), BLOCKS)
    flagged = set(map(int, findings["block"]))
    assert len(flagged) == bad_blocks
    truth = {block for block, periods in enumerate(batch.blocks) if not consistent(periods, batch.initial)}
    assert flagged <= truth, f"called inconsistent, but is not: {[batch.blocks[i] for i in flagged - truth]}"
    missed = truth - flagged
    assert not (exact and missed), f"called consistent, but is not: {[batch.blocks[i] for i in missed]}"
    assert not (exact and undecided)
    for block in missed:
        assert verdict_on(alone(batch, block)).undecided_reads > 0, batch.blocks[block]
    if exact and flagged:
        whole = check(history)
        assert whole.contradiction is not None
        assert verdict_on(only_told(batch.text, whole)).bad_blocks == 1, str(whole.contradiction)
    return len(truth), len(missed)


def only_told(text: bytes, verdict: Verdict) -> bytes:
    """The history of nothing but what a verdict tells."""
    assert verdict.contradiction is not None
    lines = text.splitlines()
    told = [json.loads(lines[step.line - 1]) for step in verdict.contradiction.steps]
    head = json.loads(lines[0])
    before = [line for line in map(json.loads, lines[1:-1])
              if line["op"] == "crash" and line["begin"] < told[0]["begin"]]
    head["incarnation"] = max((crash["incarnation"] for crash in before), default=1)
    return "".join(json.dumps(line) + "\n" for line in [
        head, *told, {"op": "end", "operations": len(told)}]).encode()


def alone(batch: Batch, block: int) -> bytes:
    """The history of one block of a batch."""
    head, *lines, _ = map(json.loads, batch.text.splitlines())
    kept = [line for line in lines if line.get("block", block) == block]
    return "".join(json.dumps(line) + "\n" for line in [
        head, *kept, {"op": "end", "operations": len(kept)}]).encode()


def compare_many(name: str, batches: int, seed: int) -> None:
    bad = missed = 0
    for number in range(batches):
        found = compare(make_batch(Random(f"{name} {seed + number}"), BLOCKS, MANNERS[name]), name in EXACT)
        bad, missed = bad + found[0], missed + found[1]
    print(f"{name}: {batches * BLOCKS} histories, {bad} inconsistent, {missed} of them undecided")
    assert bad > batches * BLOCKS * 0.02, "too few to prove anything"
    assert missed < bad * 0.12


@pytest.mark.parametrize("name", MANNERS)
def test_the_verdict_is_that_of_a_search_of_every_order(name: str) -> None:
    compare_many(name, batches=10, seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("name", MANNERS)
def test_the_verdict_is_that_of_a_search_on_many_histories(name: str) -> None:
    compare_many(name, batches=200, seed=1_000)


# ---------------------------------------------------------------------- planted contradictions
PLANTED = {
    "a read of what was replaced": (
        "stale", [2, 3, 4], [write(0, 1, 5), write(2, 3, 6), read(4, 5, 5)]),
    "a read of what was there at first": (
        "stale", [2, 3], [write(0, 1, 5), read(2, 3, 0)]),
    "a read of what a trim replaced": (
        "stale", [2, 3, 4], [write(0, 1, 5), zero(2, 3), read(4, 5, 5)]),
    "bytes that nobody wrote: a torn block": (
        "unwritten", [3], [write(0, 1, 5), read(2, 3, 99)]),
    "a read of what is written later": (
        "future", [2, 3], [read(0, 1, 5), write(2, 3, 5)]),
    "two readers see two writes in different orders": (
        "crossed", [2, 3, 4, 5], [write(0, 9, 5), write(0, 9, 6), read(10, 11, 5), read(12, 13, 6)]),
    "a value comes back": (
        "crossed", [2, 3, 4, 5], [write(0, None, 5), read(1, 2, 5), write(3, 4, 6), read(5, 6, 5)]),
    "a lost write, on the second of two blocks": (
        "stale", [2, 3, 4], [
            {"op": "write", "block": 0, "count": 2, "begin": 0, "end": 1, "values": [4, 5]},
            {"op": "write", "block": 0, "count": 2, "begin": 2, "end": 3, "values": [6, 7]},
            {"op": "read", "block": 0, "count": 2, "begin": 4, "end": 5, "values": [6, 5]}]),
    "flushed, and gone after a crash": (
        "lost", [2, 3, 4, 5, 6], [write(0, 1, 5), write(2, 3, 6), flush(4, 5), crash(6), read(7, 8, 5)]),
    "written with FUA, and gone after a crash": (
        "lost", [2, 3, 4, 5], [write(0, 1, 5), write(2, 3, 6, fua=True), crash(6), read(7, 8, 5)]),
    "acknowledged, and gone although the incarnation is the same": (
        "stale", [2, 3, 4, 5], [write(0, 1, 5), write(2, 3, 6), crash(6, 1), read(7, 8, 5)]),
    "seen, and gone although the incarnation is the same": (
        "crossed", [2, 3, 4, 5], [write(0, None, 5), read(1, 2, 5), crash(3, 1), read(4, 5, 0)]),
    "a write of before a kill happens after it": (
        "crossed", [2, 3, 4, 5], [write(0, None, 5), crash(3, 1), read(4, 5, 0), read(6, 7, 5)]),
    "spared by a kill, flushed, and gone after a power cut": (
        "lost", [2, 3, 4, 5, 6, 7], [write(0, None, 5), crash(3, 1), read(4, 5, 5), flush(6, 7), crash(8),
                                     read(9, 10, 0)]),
    "spared by a kill, flushed, and seen only then": (
        "lost", [2, 3, 4, 5, 6, 7], [write(0, None, 5), crash(3, 1), flush(4, 5), read(6, 7, 5), crash(8),
                                     read(9, 10, 0)]),
    "acknowledged, killed, flushed, and gone after a power cut": (
        "lost", [2, 3, 4, 5, 6], [write(0, 1, 5), crash(3, 1), flush(4, 5), crash(8), read(9, 10, 0)]),
    "left by a power cut, and gone after the next": (
        "disagreed", [3, 4, 5, 6], [write(0, 1, 5), crash(2), read(3, 4, 5), crash(5, 3), read(6, 7, 0)]),
    "over, seen and flushed, and gone after a power cut": (
        # nothing but the long read tells that it happened at all
        "lost", [2, 3, 4, 5, 6], [read(0, 9, 5), write(1, None, 5, until=3), flush(4, 5), crash(10),
                                  read(11, 12, 0)]),
    "flushed, and gone after the second crash": (
        "lost", [2, 3, 4, 5, 6], [write(0, 1, 5, fua=True), write(2, 3, 6, fua=True), crash(6),
                                  crash(8, 3), read(9, 10, 5)]),
    "a durable write forced after the survivor by a third": (
        # 5 had ended when 6 was read, and 6 when the write of 7 began: so 7 came after 5
        "lost", [2, 3, 4, 5, 6, 7], [write(0, 10, 5), write(1, 2, 6), read(12, 13, 6),
                                     write(5, 20, 7, fua=True), crash(25), read(26, 27, 5)]),
    "of two durable writes the later read one, but the other was later": (
        "lost", [2, 3, 5, 6], [write(0, 1, 5, fua=True), write(5, 20, 6, fua=True), read(10, 11, 5),
                               crash(25), read(26, 27, 5)]),
    "an unanswered write survived that had no room to happen": (
        "crossed", [2, 3, 4, 5, 6], [write(0, 1, 6), write(2, None, 5, until=3), read(4, 5, 6), crash(9),
                                  read(10, 11, 5)]),
    "an unanswered write survived that had no room before the first one": (
        "crossed", [2, 3, 4, 5], [write(2, None, 5, until=3), read(4, 5, 0), crash(9), read(10, 11, 5)]),
    "two different contents after a crash": (
        "disagreed", [3, 4, 5, 6], [write(0, 9, 5), write(0, 9, 6), crash(10), read(11, 12, 5),
                                    read(13, 14, 6)]),
    "a write of before the crash happens after it": (
        "disagreed", [3, 4, 5, 6], [write(0, 1, 5), write(2, None, 6), crash(3), read(4, 5, 5),
                                    read(6, 7, 6)]),
    "a write that could not happen any more": (
        "stale", [2, 3, 5], [write(0, None, 5, until=2), write(3, 4, 6), read(5, 6, 6), read(7, 8, 5)]),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_contradiction_is_found_and_told(name: str) -> None:
    kind, lines, operations = PLANTED[name]
    verdict = verdict_on(file_of(*operations))
    assert not verdict.consistent
    found = verdict.contradiction
    assert found is not None
    told = {step.line for step in found.steps}
    assert (found.kind, told) == (kind, set(lines))
    # what is told contradicts itself: nothing else is needed
    alone_lines = [operations[line - 2] for line in sorted(told)]
    assert not verdict_on(file_of(*alone_lines)).consistent
    assert all(f"line {line}" in str(found) for line in told)


def test_of_very_many_crashes_those_next_to_the_operations_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "HISTORY_CRASHES_TOLD_MAX", 3)
    operations = [write(0, None, 5), *(crash(10 + number, 1) for number in range(20)),
                  read(40, 41, 0), crash(50, 1), read(60, 61, 5), crash(70, 1)]
    found = verdict_on(file_of(*operations)).contradiction
    assert found is not None
    assert [step.line for step in found.steps] == [2, 3, 23, 24, 25]
    assert str(found).endswith("(19 more crashes lie between them)")
    monkeypatch.setattr(config, "HISTORY_CRASHES_TOLD_MAX", 21)
    found = verdict_on(file_of(*operations)).contradiction
    assert found is not None
    assert [step.line for step in found.steps] == list(range(2, 26))
    assert "more crashes" not in str(found)


def pictured(*operations: dict[str, Any]) -> list[str]:
    """What is told of their contradiction, line by line."""
    return str(verdict_on(file_of(*operations)).contradiction).splitlines()


def test_an_until_is_named_and_drawn() -> None:
    words, _, old, new, seen, _ = pictured(write(0, None, 5, until=2), write(3, 4, 6), read(7, 8, 5))
    assert "began after the until of the write of line 2 had passed, and ended before" in words
    assert old == "  line 2  client 0  write value 5  +0  until +2  |---?"
    assert new == "  line 3  client 0  write value 6  +3  +4                |---|"
    assert seen == "  line 4  client 0  read value 5   +7  +8                        |---|"
    words, _, old, *_ = pictured(write(0, 1, 5, error=28, until=2), write(3, 4, 6), read(7, 8, 5))
    assert old == "  line 2  client 0  write value 5, errno 28  +0  until +2  |-------?"
    words, _, old, *_ = pictured(write(0, None, 5, until=0), write(3, 4, 6), read(7, 8, 5))
    assert old == "  line 2  client 0  write value 5  +0  until +0  |?"


def test_what_a_crash_cuts_off_is_drawn_to_the_crash() -> None:
    lines = write(0, None, 5, until=99), write(0, 1, 6, error=5), crash(3, 1), read(4, 5, 0), read(6, 7, 5)
    words, _, cut_off, crashed, *_ = pictured(*lines)
    assert "the crash of line 4 had cut off the write of line 2 when the read of line 5 began" in words
    assert cut_off == "  line 2  client 0  write value 5              +0  until +99  |---?"
    assert crashed == "  line 4            crash incarnation 1, kept  +3  +3             X"


def test_what_never_ends_is_drawn_to_the_end_of_the_picture() -> None:
    _, _, endless, *_ = pictured(write(0, None, 5), read(1, 2, 5), write(3, 4, 6), read(5, 6, 5))
    assert endless == "  line 2  client 0  write value 5  +0  ?   |---------------------------?"


CONSISTENT = {
    "spared by a kill, and taken by a power cut": [
        write(1, None, 5), crash(3, 1), read(4, 5, 5), crash(6), read(7, 8, 0)],
    "acknowledged, spared by a kill, and taken by a power cut": [
        write(1, 2, 5), crash(3, 1), read(4, 5, 5), crash(6), read(7, 8, 0)],
    "killed, and without power before it ran again": [write(1, 2, 5), crash(3, 1), crash(4), read(5, 6, 0)],
    "spared by two kills, and replaced by what a power cut took": [
        write(0, 1, 5), flush(2, 3), write(4, 5, 6), crash(6, 1), read(7, 8, 6), write(9, 10, 7),
        crash(11, 1), read(12, 13, 7), crash(14), read(15, 16, 6), read(17, 18, 6)],
    "seen, but not over when the flush began": [
        write(0, None, 5), read(1, 2, 5), flush(3, 4), crash(5), read(6, 7, 0)],
    "seen, but over only after the flush began": [
        write(0, None, 5, until=3), read(1, 2, 5), flush(3, 4), crash(5), read(6, 7, 0)],
    "a flush before the kill": [
        write(0, None, 5), flush(1, 2), crash(3, 1), read(4, 5, 5), crash(6), read(7, 8, 0)],
    "over and flushed, if it happened at all": [
        write(0, None, 5, until=2), flush(3, 4), crash(5), read(6, 7, 0)],
    "concurrent writes in either order": [write(0, 9, 5), write(0, 9, 6), read(10, 11, 5), read(12, 13, 5)],
    "a write that was never answered": [write(0, None, 5), read(1, 2, 0), read(3, 4, 5)],
    "a write that was answered with an error": [write(0, 1, 5, error=28), read(2, 3, 0), read(4, 5, 5)],
    "ends and beginnings at the same moment": [write(0, 5, 5), write(5, 9, 6), read(9, 10, 5)],
    "unflushed, and gone after a crash": [write(0, 1, 5, fua=True), write(2, 3, 6), flush(2, 4), crash(5),
                                          read(6, 7, 5)],
    "a flush that failed promises nothing": [write(0, 1, 5), flush(2, 3, error=5), crash(5), read(6, 7, 0)],
    "unanswered, and there after a crash": [write(0, None, 5), crash(5), read(6, 7, 5)],
    "carried through a life that nobody read in": [write(0, 1, 5, fua=True), crash(2), crash(3, 3),
                                                   read(4, 5, 5)],
    "part of a block": [write(0, 1, 5), write(2, 3, None), read(4, 5, 99), read(6, 7, 99)],
    "a part that was not read": [write(0, 1, 5), read(2, 3, None)],
    "zeros, over and over": [write(0, 1, 5), zero(2, 9), zero(3, 8), read(4, 5, 0)],
}


@pytest.mark.parametrize("name", CONSISTENT)
def test_what_may_happen_is_consistent(name: str) -> None:
    assert verdict_on(file_of(*CONSISTENT[name])).consistent


def test_an_equal_value_is_never_called_inconsistent_but_counted() -> None:
    # either write of 5 explains the second read; the third one proves nothing then
    verdict = verdict_on(file_of(write(0, 20, 5), write(1, 20, 5), read(2, 3, 5)))
    assert verdict.consistent
    assert verdict.undecided_reads == 1


def test_two_partial_writes_cannot_bring_three_contents() -> None:
    verdict = verdict_on(file_of(write(0, 1, None), read(2, 3, 7), read(4, 5, 8)))
    assert not verdict.consistent


def test_an_unknown_beginning_is_told_by_the_first_read() -> None:
    operations = [read(0, 1, 7), read(2, 3, 8)]
    assert verdict_on(file_of(operations[0], initial="unknown")).consistent
    verdict = verdict_on(file_of(*operations, initial="unknown"))
    assert verdict.contradiction is not None
    assert verdict.contradiction.kind == "disagreed"


def test_the_smallest_contradiction_is_told() -> None:
    verdict = verdict_on(file_of(
        write(0, 9, 5), write(0, 9, 6), read(10, 11, 5), read(12, 13, 6),
        write(0, 1, 5, block=3), read(2, 3, 0, block=3)))
    assert verdict.bad_blocks == 2
    assert verdict.contradiction is not None
    assert verdict.contradiction.block == 3


# ---------------------------------------------------------------------------- no usable history
GOOD = file_of(write(0, 1, 5), read(2, 3, 5), flush(4, 5))
TIMES = "times are whole numbers from 0 below 9223372036854775807\n"
NUMBERS = "it is a whole number from 0 below"
LISTS = "it lists null and whole numbers from 0 below"
LARGEST: dict[str, Any] = {
    "client": 2**32 - 1, "count": 2**32 - 1, "error": 2**31 - 1, "block": 2**63 - 2, "begin": 2**63 - 2,
    "end": 2**63 - 2, "until": 2**63 - 2, "values": [2**64 - 2]}


def header_of(text: str) -> bytes:
    """A history whose first line is this text."""
    return text.encode() + b"\n" + GOOD.split(b"\n", 1)[1]


UNUSABLE: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "line 1: no header"),
    "only a header": (GOOD.splitlines(keepends=True)[0], "line 2: is missing"),
    "cut between lines": (b"".join(GOOD.splitlines(keepends=True)[:3]), "line 3: the last line is not"),
    "cut inside a line": (GOOD[:-4], "line 5: has no line feed"),
    "a line is missing": (b"".join(GOOD.splitlines(keepends=True)[:2] + GOOD.splitlines(keepends=True)[3:]),
                          "line 4: promises 3 operations, there are 2"),
    "two histories in one file": (GOOD + GOOD, "line 6: has a field that no operation has"),
    "lines after the end": (GOOD + GOOD.splitlines(keepends=True)[1], "line 6: comes after the end"),
    "another format": (header_of('{"history":2,"fields":3}'),
                       "line 1: no header: it is of version 2 of the format, and 1 is read\n"),
    "no history at all": (b"\x7fELF\x02\x01\x01\n" * 5, "line 1: no header: it is not one JSON object\n"),
    "no text": (b"\xff\xfe{\x00\n" + GOOD, "line 1: no header: it is not one JSON object\n"),
    "a header in an array": (header_of('[["history",1],["block_size",4096],["blocks",8]]'),
                             "line 1: no header: it is not one JSON object\n"),
    "a header that is deep": (header_of("[" * 3000), "line 1: no header: it is not one JSON object\n"),
    "a header with a field twice": (header_of('{"history":1,"block_size":4096,"blocks":8,"blocks":9}'),
                                    "line 1: no header: it has twice the field 'blocks'\n"),
    "a header with a version twice": (header_of('{"history":2,"history":1,"block_size":4096,"blocks":8}'),
                                      "line 1: no header: it has twice the field 'history'\n"),
    "a header with an unknown field": (header_of('{"history":1,"block_size":4096,"blocks":8,"clients":9}'),
                                       "line 1: no header: it has the unknown field 'clients'\n"),
    "a header that lacks a field": (header_of('{"history":1,"blocks":8}'),
                                    "line 1: no header: it lacks the field 'block_size'\n"),
    "a header without a version": (header_of("{}"), "line 1: no header: it lacks the field 'history'\n"),
    "half a version": (header_of('{"history":1.0,"block_size":4096,"blocks":8}'),
                       "line 1: no header: 'history' must be a whole number\n"),
    "true blocks": (header_of('{"history":1,"block_size":4096,"blocks":true}'),
                    "line 1: no header: 'blocks' must be a whole number\n"),
    "another beginning": (file_of(initial="ones"),
                          "line 1: no header: 'initial' must be \"zero\" or \"unknown\"\n"),
    "a beginning of numbers": (file_of(initial=0),
                               "line 1: no header: 'initial' must be \"zero\" or \"unknown\"\n"),
    "a block size nobody has": (GOOD.replace(b"4096", b"4095"), "line 1: block_size 4095"),
    "no blocks": (file_of(blocks=0), "line 1: blocks 0"),
    "ends before it begins": (file_of(write(5, 4, 5)), "line 2: ends before it begins"),
    "outside the volume": (file_of(write(0, 1, 5), write(0, 1, 5, block=8)), "line 3: blocks 8 to 8"),
    "outside by its length": (file_of(zero(0, 1, block=7, count=2)),
                              "line 2: blocks 7 to 8"),
    "two values for one block": (file_of({**read(0, 1, 5), "values": [5, 6]}), "line 2: has another number"),
    "a read of nothing": (file_of({"op": "read", "block": 0, "begin": 0, "end": 1}),
                          "line 2: lacks the field 'values'"),
    "a negative time": (file_of(write(-1, 1, 5)), f"line 2: has a wrong field 'begin': {TIMES}"),
    "half a time": (file_of({**write(0, 1, 5), "begin": 0.5}), f"line 2: has a wrong field 'begin': {TIMES}"),
    "a time with a point": (file_of({**write(0, 1, 5), "end": 1.0}),
                            f"line 2: has a wrong field 'end': {TIMES}"),
    "a time with an exponent": (GOOD.replace(b'"begin": 0', b'"begin": 0e3'),
                                f"line 2: has a wrong field 'begin': {TIMES}"),
    "an until with a point": (file_of({**write(0, None, 5), "until": 1.5}),
                              f"line 2: has a wrong field 'until': {TIMES}"),
    "too large a time": (file_of({**write(0, 1, 5), "begin": 2**63 - 1}),
                         f"line 2: has a wrong field 'begin': {TIMES}"),
    "too large a count": (file_of(zero(0, 1, count=2**32)),
                          f"line 2: has a wrong field 'count': {NUMBERS} 4294967296\n"),
    "too large a client": (file_of({**zero(0, 1), "client": 2**32}),
                           f"line 2: has a wrong field 'client': {NUMBERS} 4294967296\n"),
    "too large an error": (file_of({**zero(0, 1), "error": 2**31}),
                           f"line 2: has a wrong field 'error': {NUMBERS} 2147483648\n"),
    "a block of text": (file_of({**zero(0, 1), "block": "3"}),
                        f"line 2: has a wrong field 'block': {NUMBERS} 9223372036854775807\n"),
    "too large a value": (file_of(write(0, 1, 2**64 - 1)),
                          f"line 2: has a wrong field 'values': {LISTS} 18446744073709551615\n"),
    "half a value": (file_of({**write(0, 1, 5), "values": [0.5]}),
                     f"line 2: has a wrong field 'values': {LISTS} 18446744073709551615\n"),
    "no fua": (file_of(write(0, 1, 5, fua=1)), "line 2: has a wrong field 'fua': it is true or false"),
    "an unknown operation": (file_of({**write(0, 1, 5), "op": "cas"}), "line 2: is of no known kind"),
    "an unknown field": (file_of(write(0, 1, 5, offset=3)), "line 2: has a field that no operation has"),
    "a field twice": (GOOD.replace(b'"begin": 2', b'"begin": 2, "begin": 3'),
                      "line 3: has twice the field 'begin'"),
    "acknowledged, and yet uncertain": (file_of(write(0, 1, 5, until=4)), "line 2: was acknowledged and has"),
    "acknowledged across a crash": (file_of(write(0, 5, 5), crash(3)),
                                    "line 2: began at 0 and was acknowledged at 5, across the crash at 3"),
    "an incarnation that goes back": (file_of(crash(3, 2), crash(5, 1)), "line 3: incarnation 1 after 2"),
}


@pytest.mark.parametrize("field", LARGEST)
def test_the_largest_number_of_a_field_is_taken(field: str) -> None:
    line: dict[str, Any] = {"op": "write", "block": 0, "begin": 0, "values": [5], field: LARGEST[field]}
    try:
        verdict_on(file_of(line))
    except errors.ConfigError as error:
        # what it says may be impossible, as a block that the volume has not
        assert "wrong field" not in str(error)                         # noqa: PT017


@pytest.mark.parametrize("name", UNUSABLE)
def test_what_is_no_history_is_refused_with_its_line(name: str, tmp_path: Path,
                                                    capsys: pytest.CaptureFixture[str]) -> None:
    text, complaint = UNUSABLE[name]
    with pytest.raises(errors.ConfigError) as raised:
        verdict_on(text)
    # a line feed stands where nothing more may be said
    assert f"{raised.value}\n".startswith(f"not a usable history: {complaint}")
    path = tmp_path / "history"
    path.write_bytes(text)
    assert app.run(["check", "history", str(path)]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.count("\n") == 1
    assert complaint in shown.err


def test_a_file_that_is_missing_is_no_history(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run(["check", "history", str(tmp_path / "missing")]) == 2
    assert "missing: No such file or directory" in capsys.readouterr().err


def test_a_line_without_end_is_refused_before_memory_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "HISTORY_CHUNK_BYTES", 64)
    monkeypatch.setattr(config, "HISTORY_LINE_BYTES_MAX", 200)
    head = GOOD.splitlines(keepends=True)[0]
    with pytest.raises(errors.ConfigError, match="line 2: is longer than 200 bytes"):
        verdict_on(head + b"[" * 1000)


def test_more_than_fits_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "HISTORY_ENTRIES_MAX", 1)
    with pytest.raises(errors.ConfigError, match="more than 1 operations on single blocks"):
        verdict_on(GOOD)


@pytest.mark.parametrize("chunk_bytes", [17, 64, 100])
def test_a_file_is_the_same_in_chunks_of_any_size(chunk_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = make_batch(Random(7), 20, MANNERS["all together"])
    whole = verdict_on(batch.text)
    monkeypatch.setattr(config, "HISTORY_CHUNK_BYTES", chunk_bytes)
    assert verdict_on(batch.text) == whole


def usable_or_not(text: bytes) -> None:
    """Garbage is refused; what is no garbage has a verdict; nothing else happens."""
    try:
        verdict = verdict_on(text)
    except errors.ConfigError as error:
        assert "not a usable history: " in str(error)                  # noqa: PT017
    else:
        assert verdict.consistent == (verdict.contradiction is None)
        assert verdict.consistent or str(verdict.contradiction)


DAMAGE = st.tuples(st.sampled_from(["flip", "cut", "drop", "twice", "swap", "digit"]),
                   st.integers(0, 2**30), st.integers(0, 255))


@given(st.binary(max_size=300))
@pytest.mark.fault("input: any bytes for a history", promise="a history, or refused")
def test_any_bytes_are_a_history_or_refused(data: bytes) -> None:
    usable_or_not(data)
    usable_or_not(GOOD.splitlines(keepends=True)[0] + data)


@settings(max_examples=300)
@given(st.integers(0, 40), st.lists(DAMAGE, min_size=1, max_size=4))
def test_a_damaged_history_is_a_history_or_refused(seed: int, damage: list[tuple[str, int, int]]) -> None:
    data = bytearray(make_batch(Random(seed), 3, MANNERS["all together"]).text)
    for kind, place, byte in damage:
        lines = data.splitlines(keepends=True)
        at = place % max(1, len(lines))
        if kind == "flip" and data:
            data[place % len(data)] ^= byte
        elif kind == "cut":
            del data[place % (len(data) + 1):]
        elif kind == "drop":
            data = bytearray(b"".join(lines[:at] + lines[at + 1:]))
        elif kind == "twice":
            data = bytearray(b"".join(lines[:at + 1] + lines[at:]))
        elif kind == "swap":
            data = bytearray(b"".join(lines[at:] + lines[:at]))
        else:
            digits = [found.start() for found in re.finditer(rb"[0-9]", data)]
            if digits:
                data[digits[place % len(digits)]] = b"0123456789"[byte % 10]
    usable_or_not(bytes(data))


# ------------------------------------------------------------------------------------- command
def test_the_command_says_so_with_its_exit_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, bad = tmp_path / "good", tmp_path / "bad"
    good.write_bytes(GOOD)
    bad.write_bytes(file_of(write(0, 1, 5), read(2, 3, 0)))
    assert app.run(["check", "history", str(good)]) == 0
    assert capsys.readouterr().out.startswith("consistent: 3 operations, 0 crashes, 1 reads of 1 blocks")
    assert app.run(["check", "history", str(bad)]) == 1
    shown = capsys.readouterr().out
    assert shown.startswith("NOT CONSISTENT")
    assert "line 2  client 0  write value 5  +0  +1  |---|" in shown
    assert app.run(["check", "history", "--json", str(bad)]) == 1
    told = json.loads(capsys.readouterr().out)
    assert (told["consistent"], told["bad_blocks"]) == (False, 1)
    assert [step["line"] for step in told["contradiction"]["steps"]] == [2, 3]


def test_an_interrupted_check_says_so_and_gives_no_verdict(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(_: Path, __: Progress) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(history_check, "check_file", interrupted)
    assert app.run(["check", "history", str(tmp_path)]) == 130
    assert capsys.readouterr() == ("", "repstore: interrupted: there is no verdict\n")
    assert app.run(["check", "history", str(tmp_path), "--json"]) == 130
    assert json.loads(capsys.readouterr().out)["verdict"] == "interrupted"


def test_what_cannot_be_written_is_no_verdict(tmp_path: Path) -> None:
    """Exit code 1 would say that the history contradicts itself."""
    good = tmp_path / "good"
    good.write_bytes(GOOD)
    command = [sys.executable, "-m", "repstore.cli", "check", "history", str(good)]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (
        74, "repstore: the output cannot be written: No space left on device\n")
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


def test_a_larger_history_is_checked(tmp_path: Path) -> None:
    path = tmp_path / "history"
    write_history(path, operations=20_000, blocks=64, clients=16)
    verdict = check_file(path)
    assert verdict.consistent
    assert (verdict.operations, verdict.undecided_reads) == (20_000, 0)
    lines = path.read_text().splitlines()
    reads = [number for number, line in enumerate(lines) if '"read"' in line]
    spoiled = json.loads(lines[reads[-1]])
    stale = next(json.loads(line)["values"] for line in lines[1:]
                 if '"write"' in line and json.loads(line)["block"] == spoiled["block"])
    lines[reads[-1]] = json.dumps({**spoiled, "values": stale})
    path.write_text("\n".join(lines) + "\n")
    verdict = check_file(path)
    assert verdict.bad_blocks == 1
    assert verdict.contradiction is not None
    assert reads[-1] + 1 in {step.line for step in verdict.contradiction.steps}


def test_nothing_is_checked_where_nothing_was_read() -> None:
    assert verdict_on(file_of(write(0, 1, 5))) == history_check.Verdict(True, 1, 0, 0, 0, 0, 0, None)
