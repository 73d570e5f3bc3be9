"""Random small histories, one a block, with common crashes and flushes; about half are right."""
from __future__ import annotations

import itertools
import json
import math
from dataclasses import dataclass
from random import Random

from tests.check.brute_force import ANY, Op, Segment

SEGMENT_TIME = 24                 # from one crash to the next


@dataclass(frozen=True, slots=True)
class Manner:
    """What kind of histories to make."""

    crashes_max: int = 0
    equal_values: bool = False    # few different values, zeros among them
    partial_writes: bool = False
    unknown_initial: bool = False
    operations_max: int = 8


@dataclass(frozen=True, slots=True)
class Batch:
    """The file, and the same block by block for the brute force."""

    text: bytes
    blocks: list[list[Segment]]
    initial: int


def make_batch(chance: Random, blocks: int, manner: Manner) -> Batch:
    crashes = chance.randint(0, manner.crashes_max)
    kept = [chance.random() < 0.25 for _ in range(crashes)]
    flushes = [_flushes(chance, number * SEGMENT_TIME) for number in range(crashes + 1)]
    lines: list[dict[str, object]] = []
    incarnation = 1
    for number in range(crashes):
        incarnation += not kept[number]
        lines.append({"op": "crash", "begin": (number + 1) * SEGMENT_TIME, "incarnation": incarnation})
    for begin, end, error in itertools.chain(*flushes):
        lines.append({"op": "flush", "begin": begin, "end": end, **({"error": 5} if error else {})})
    made = []
    for block in range(blocks):
        segments = _block(chance, block, crashes, manner, lines, flushes, kept)
        made.append(segments)
    chance.shuffle(lines)
    initial = "unknown" if manner.unknown_initial else "zero"
    head = {"history": 1, "block_size": 4096, "blocks": blocks, "initial": initial}
    end = {"op": "end", "operations": len(lines)}
    text = "".join(json.dumps(line) + "\n" for line in [head, *lines, end]).encode()
    return Batch(text, made, ANY if manner.unknown_initial else 0)


def _flushes(chance: Random, start: int) -> list[tuple[int, int, bool]]:
    found = []
    for _ in range(chance.choice((0, 1, 1, 2))):
        begin = start + chance.randrange(SEGMENT_TIME - 1)
        found.append((begin, chance.randint(begin, start + SEGMENT_TIME - 1), chance.random() < 0.2))
    return found


def _block(chance: Random, block: int, crashes: int, manner: Manner, lines: list[dict[str, object]],
           flushes: list[list[tuple[int, int, bool]]], kept: list[bool]) -> list[Segment]:
    """Make operations with a moment each at which they take effect, then spoil some."""
    content = 0 if not manner.unknown_initial else chance.choice((0, 1, 77))
    spoil = chance.random() < 0.6
    fresh = iter(range(1 + block * 1000, 10**9))
    written = [0, content]
    segments = []
    partial_left = 2 if manner.partial_writes else 0
    for number in range(crashes + 1):
        start = number * SEGMENT_TIME
        covered = max((begin for begin, _, error in flushes[number] if not error), default=-1)
        moments = sorted(_moment(chance, start) for _ in range(chance.randint(0 if crashes else 2,
                         manner.operations_max if not crashes else max(2, manner.operations_max // 2))))
        ops, contents = [], [content]
        floor = 0
        for _, begin, end in moments:
            is_read = chance.random() < 0.5
            pending = chance.random() < (0.1 if is_read else 0.2)
            line: dict[str, object] = {"op": "read" if is_read else "write", "block": block, "begin": begin}
            if is_read:
                value = content
                if spoil and chance.random() < 0.5:
                    value = chance.choice(written)
            else:
                value = chance.choice((0, 0, 1, 2)) if manner.equal_values else next(fresh)
                written.append(value)
            unknown = partial_left > 0 and not is_read and chance.random() < 0.3
            partial_left -= unknown
            line["values"] = [None] if unknown else [value]
            if not is_read and value == 0 and not unknown:
                line = {"op": "zero", "block": block, "begin": begin}
            until = math.inf
            fua = not is_read and chance.random() < 0.15
            if fua:
                line["fua"] = True
            if not pending:
                line["end"] = end
            elif chance.random() < 0.3:
                line.update(end=end, error=5)
            if pending and not is_read and chance.random() < 0.5:
                line["until"] = until = end
            lines.append(line)
            happens = not pending or chance.random() < 0.5
            if not is_read and happens:
                content = value
                contents.append(content)
            durable = not pending and not is_read and (
                fua or end < covered or (number < crashes and kept[number]))
            if durable:
                floor = len(contents) - 1
            if is_read and pending:
                continue
            last = min(until, (number + 1) * SEGMENT_TIME if number < crashes else math.inf)
            ops.append(Op(begin, last if pending else end, ANY if unknown else value, is_read, pending,
                          durable))
        segments.append(tuple(ops))
        content = chance.choice(contents[0 if chance.random() < 0.2 else floor:])
    return segments


def _moment(chance: Random, start: int) -> tuple[int, int, int]:
    length = SEGMENT_TIME - 1
    moment = start + chance.randrange(length)
    begin = max(start, moment - chance.randrange(6))
    end = min(start + length, moment + chance.randrange(6))
    return moment, begin, end

