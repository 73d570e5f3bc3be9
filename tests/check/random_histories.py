"""Random small histories, one a block, with common crashes and flushes; about half are right."""
from __future__ import annotations

import itertools
import json
import math
from dataclasses import dataclass
from random import Random

from tests.check.brute_force import ANY, Op, Period

PERIOD_TIME = 24                  # from one crash to the next


@dataclass(frozen=True, slots=True)
class Manner:
    """What kind of histories to make."""

    crashes_max: int = 0
    kill_share: float = 0.25      # of the crashes; the others are power cuts
    equal_values: bool = False    # few different values, zeros among them
    partial_writes: bool = False
    unknown_initial: bool = False
    operations_max: int = 8


@dataclass(frozen=True, slots=True)
class Flush:
    begin: int
    end: int
    failed: bool


@dataclass(frozen=True, slots=True)
class Batch:
    """The file, and the same block by block for the brute force."""

    text: bytes
    blocks: list[list[Period]]
    initial: int


class Frame:
    """What all blocks of a batch have in common: how many crashes, of which kind, and the flushes."""

    def __init__(self, chance: Random, manner: Manner) -> None:
        self.crashes = chance.randint(0, manner.crashes_max)
        self.kills = [chance.random() < manner.kill_share for _ in range(self.crashes)]
        self.flushes = [_flushes(chance, number * PERIOD_TIME, often=manner.kill_share <= 0.25)
                        for number in range(self.crashes + 1)]

    def lines(self) -> list[dict[str, object]]:
        found: list[dict[str, object]] = []
        incarnation = 1
        for number, kill in enumerate(self.kills):
            incarnation += not kill
            found.append({"op": "crash", "begin": (number + 1) * PERIOD_TIME, "incarnation": incarnation})
        for flush in itertools.chain(*self.flushes):
            found.append({"op": "flush", "begin": flush.begin, "end": flush.end,
                          **({"error": 5} if flush.failed else {})})
        return found

    def covered(self, number: int) -> int:
        """The last beginning of a flush that may make durable what happens in this period."""
        last = -1
        for later in range(number, self.crashes + 1):
            last = max([last, *(flush.begin for flush in self.flushes[later] if not flush.failed)])
            if later < self.crashes and not self.kills[later]:
                break
        return last

    def period(self, number: int, ops: list[Op]) -> Period:
        return Period(tuple(ops), tuple(flush.begin for flush in self.flushes[number] if not flush.failed),
                      "" if number == self.crashes else "kill" if self.kills[number] else "power cut")


def make_batch(chance: Random, blocks: int, manner: Manner) -> Batch:
    frame = Frame(chance, manner)
    lines = frame.lines()
    made = [_block(chance, block, frame, manner, lines) for block in range(blocks)]
    chance.shuffle(lines)
    initial = "unknown" if manner.unknown_initial else "zero"
    head = {"history": 1, "block_size": 4096, "blocks": blocks, "initial": initial}
    end = {"op": "end", "operations": len(lines)}
    text = "".join(json.dumps(line) + "\n" for line in [head, *lines, end]).encode()
    return Batch(text, made, ANY if manner.unknown_initial else 0)


def _flushes(chance: Random, start: int, *, often: bool) -> list[Flush]:
    found = []
    for _ in range(chance.choice((0, 1, 1, 2) if often else (0, 0, 0, 1))):
        begin = start + chance.randrange(PERIOD_TIME - 1)
        found.append(Flush(begin, chance.randint(begin, start + PERIOD_TIME - 1), chance.random() < 0.2))
    return found


def _block(chance: Random, block: int, frame: Frame, manner: Manner,
           lines: list[dict[str, object]]) -> list[Period]:
    """Make operations with a moment each at which they take effect, then spoil some."""
    content = 0 if not manner.unknown_initial else chance.choice((0, 1, 77))
    spoil = chance.random() < 0.6
    fresh = iter(range(1 + block * 1000, 10**9))
    written = [0, content]
    periods = []
    partial_left = 2 if manner.partial_writes else 0
    contents = [content]              # since the last power cut; from `floor` on it may be left by the next
    floor = 0
    for number in range(frame.crashes + 1):
        start, last_period = number * PERIOD_TIME, number == frame.crashes
        moments = sorted(_moment(chance, start) for _ in range(chance.randint(
            0 if frame.crashes else 2,
            manner.operations_max if not frame.crashes else max(2, manner.operations_max // 2))))
        ops = []
        for _, begin, end in moments:
            is_read = chance.random() < 0.5
            pending = chance.random() < (0.1 if is_read else 0.2 + 0.2 * (manner.kill_share > 0.25))
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
            over = end if not pending else min(until, math.inf if last_period else start + PERIOD_TIME - 1)
            if not is_read and (not pending or chance.random() < 0.5):
                content = value
                contents.append(content)
                if (fua and not pending) or over < frame.covered(number):
                    floor = len(contents) - 1
            if is_read and pending:
                continue
            ops.append(Op(begin, until if pending else end, ANY if unknown else value, is_read, pending, fua))
        periods.append(frame.period(number, ops))
        if last_period:
            break
        loses = chance.random() < 0.2             # something that should be there
        if not frame.kills[number]:
            content = chance.choice(contents[0 if loses else floor:])
            contents, floor = [content], 0
        elif loses:
            content = chance.choice(contents)
    return periods


def _moment(chance: Random, start: int) -> tuple[int, int, int]:
    """When it has its effect, begins and ends: perhaps at the very moment of a crash."""
    moment = start + chance.randrange(PERIOD_TIME - 1)
    begin = max(start, moment - chance.randrange(6))
    end = min(start + PERIOD_TIME, moment + chance.randrange(6))
    return moment, begin, end
