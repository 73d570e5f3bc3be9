"""The smallest contradiction of a history, in words and as a picture of its intervals."""
from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from repstore import config
from repstore._fast.history_findings import FINDING_KINDS, INITIAL_CONTENT, NO_OPERATION
from repstore._fast.history_lines import KINDS, NEVER_TIME, UNKNOWN_VALUE
from repstore.check.history_file import Crashes, History, acknowledged, last_moments
from repstore.check.progress import Progress, silent

CELL = 4                     # characters from one moment of the picture to the next
READ, FLUSH, CRASH = (KINDS.index(kind) for kind in ("read", "flush", "crash"))
REGISTER = ("stale", "crossed")   # kinds that what a kill might have taken would explain


@dataclass(frozen=True, slots=True)
class Step:
    """One operation of a contradiction, as its line says it, about the one block."""

    line: int
    kind: str
    client: int
    begin: int
    end: int | None
    until: int | None                         # not acknowledged, and without effect after this time
    acknowledged: bool
    value: str


@dataclass(frozen=True, slots=True)
class Contradiction:
    """Operations on one block that no order explains, the crashes between them, and why."""

    block: int
    kind: str
    reason: str
    steps: tuple[Step, ...]                   # by their beginnings
    crashes_left_out: int                     # between them, where there are too many to tell

    def __str__(self) -> str:
        lines = [f"block {self.block}: {self.reason}", "", *picture(self.steps)]
        if self.crashes_left_out:
            lines.append(f"  ({self.crashes_left_out} more crashes lie between them)")
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class Cluster:
    """A write and operations of its value; INITIAL_CONTENT stands for what was there first."""

    write: int
    first_end: int                            # nothing of the value ended earlier
    last_begin: int                           # nothing of it began later
    witness: int                              # a read of it, or NO_OPERATION


def smallest(history: History, findings: NDArray[np.void], crashes: Crashes,
             progress: Progress = silent) -> Contradiction:
    """The one with the fewest operations; of several the one that shows first."""
    begins = history.operations["begin"]

    def size(numbered: tuple[int, NDArray[np.void]]) -> tuple[int, int]:
        number, finding = numbered
        if number > 0:
            progress("contradictions", number, len(findings))
        involved = _Telling(history, finding, crashes).involved()
        return len(involved), max(int(begins[each]) for each in involved)

    _, least = min(enumerate(findings), key=size)
    return _Telling(history, least, crashes).contradiction()


class _Telling:
    """One finding of the kernel, being put into words."""

    def __init__(self, history: History, finding: NDArray[np.void], crashes: Crashes) -> None:
        self._history = history
        self._crashes = crashes
        self._power_cuts = crashes.power_cuts()
        self._block = int(finding["block"])
        self._kind = FINDING_KINDS[int(finding["kind"])]
        self._read = int(finding["read"])
        self._value = int(finding["value"])
        self._segment = int(finding["segment"])
        self._older_segment = int(finding["older_segment"])
        rows = finding["clusters"].tolist()
        self._clusters = [Cluster(*row) for row in rows if row[0] != NO_OPERATION]

    def contradiction(self) -> Contradiction:
        tell: dict[str, Callable[[], str]] = {
            "unwritten": self._unwritten, "future": self._future, "stale": self._stale,
            "crossed": self._crossed, "lost": self._lost, "disagreed": self._disagreed}
        begins = self._history.operations["begin"]
        involved = self.involved()
        crashes, left_out = self._crashes_between(involved)
        order = sorted(involved | crashes, key=lambda each: (int(begins[each]), each))
        # every sentence begins with the name of an operation
        reason = re.sub(r"(^|\. )[a-z]", lambda found: found[0].upper(), tell[self._kind]())
        if self._kind in REGISTER and any(map(self._is_kill, crashes)):
            reason += " A crash that keeps the incarnation takes nothing that had happened."
        return Contradiction(self._block, self._kind, reason, tuple(map(self._step, order)), left_out)

    def involved(self) -> set[int]:
        """The operations that make the contradiction."""
        found = {self._read}
        for place, cluster in enumerate(self._clusters):
            found.add(cluster.write)
            if self._kind == "crossed" and cluster.write != INITIAL_CONTENT:
                found.add(cluster.first_end)
            if self._kind == "crossed" or (self._kind == "lost" and place > 0):
                found.add(cluster.last_begin)
            if self._kind == "lost" and cluster is not self._clusters[-1]:
                found.add(cluster.first_end)
            if self._kind == "crossed" or (self._kind == "lost" and place > 0):
                found.add(self._witness(cluster))
        if self._kind == "lost":
            found |= {self._crash_after(self._durable_segment()), *self._what_made_durable()[1]}
        elif self._kind == "disagreed":
            found.add(self._clusters[0].first_end)
            if self._older_segment > 0:
                found.add(self._crash_after(self._older_segment - 1))
        return found - {INITIAL_CONTENT, NO_OPERATION}

    def _witness(self, cluster: Cluster) -> int:
        """A read that tells that a write happened of which nobody was told; NO_OPERATION if none has to."""
        operations = self._history.operations
        if cluster.write >= INITIAL_CONTENT or acknowledged(operations[[cluster.write]])[0]:
            return NO_OPERATION
        seen = (cluster.last_begin, cluster.first_end)         # they are told already
        return next((each for each in seen if operations["kind"][each] == READ), cluster.witness)

    def _crashes_between(self, involved: set[int]) -> tuple[set[int], int]:
        """Those to be told, and how many are not."""
        begins = self._history.operations["begin"][sorted(involved)]
        first, stop = np.searchsorted(self._crashes.times, (begins.min(), begins.max()), side="right")
        between = set(map(int, self._crashes.operations[first:stop]))
        told = between
        if len(between) > config.HISTORY_CRASHES_TOLD_MAX:
            after = np.searchsorted(self._crashes.times, begins, side="right")
            told = between & set(map(int, self._crashes.operations[after[after < stop]]))
        return told, len(between - told - involved)

    # ------------------------------------------------------------------------------ words
    def _unwritten(self) -> str:
        return f"{self._name(self._read)} brought {self._text(self._value)}, which no write there explains."

    def _future(self) -> str:
        return (f"{self._name(self._read)} brought {self._text(self._value)} and had ended before "
                f"{self._name(self._clusters[0].write)}, which wrote it, began.")

    def _stale(self) -> str:
        old, newer = self._clusters
        words = (f"{self._name(self._read)} brought {self._text(self._value)}, {self._origin(old)}. But "
                 f"{self._name(newer.write)} had replaced it: ")
        if old.write != INITIAL_CONTENT:
            words += f"it began after {self._over(old.write)}, and ended before the read began."
        else:
            words += "it ended before the read began."
        return words

    def _crossed(self) -> str:
        a, b = self._clusters
        seen = ""
        if self._read != NO_OPERATION:
            seen = (f"{self._name(self._read)} brought {self._text(self._value)}, so "
                    f"{self._name(a.write)} happened. ")
        return (f"{seen}{self._of(a)} and {self._of(b)} each come before the other. "
                f"{self._before(a, b)}; but {self._before(b, a)}.")

    def _lost(self) -> str:
        old, *forced = self._clusters
        durable = forced[-1]
        crash = self._name(self._crash_after(self._durable_segment()))
        words = [f"{self._name(self._read)} brought {self._text(self._value)}, {self._origin(old)}. It "
                 f"cannot be what {crash} left: {self._name(durable.write)} was durable "
                 f"({self._what_made_durable()[0]}), and it came later"]
        chain = [old, *forced]
        if self._segment_of(old.write) == self._segment_of(durable.write) and old.write != INITIAL_CONTENT:
            words.append(": " + ", ".join(self._before(*pair) for pair in itertools.pairwise(chain)))
        return "".join(words) + "."

    def _disagreed(self) -> str:
        first, other = self._clusters[0], f"{self._name(self._read)} brought {self._text(self._value)}"
        if self._older_segment == 0:
            return (f"{self._name(first.first_end)} brought what was there at first. {other}, which is "
                    "something else, and no write explains it.")
        crash = self._name(self._crash_after(self._older_segment - 1))
        rule = "only one content survives"
        if self._segment > self._older_segment:
            rule += ", and what survived a power cut is durable"
        return (f"after {crash}, {self._name(first.first_end)} brought what had survived it. {other}, which "
                f"is something older: {rule}.")

    def _before(self, a: Cluster, b: Cluster) -> str:
        """Why what belongs to `a` precedes what belongs to `b`."""
        if a.write == INITIAL_CONTENT:
            return f"what was there at first comes before {self._name(b.last_begin)}"
        return f"{self._over(a.first_end)} when {self._name(b.last_begin)} began"

    def _over(self, operation: int) -> str:
        """In the past tense: from when on it could have no effect any more."""
        row = self._history.operations[[operation]]
        if acknowledged(row)[0]:
            return f"{self._name(operation)} had ended"
        crash = int(self._crashes.before(row)[0])
        if crash < len(self._crashes.times) and self._crashes.times[crash] <= row["until"][0]:
            return f"{self._name(int(self._crashes.operations[crash]))} had cut off {self._name(operation)}"
        return f"the until of {self._name(operation)} had passed"

    def _of(self, cluster: Cluster) -> str:
        if cluster.write == INITIAL_CONTENT:
            return "what was there at first"
        return f"the value of {self._name(cluster.write)}"

    def _origin(self, cluster: Cluster) -> str:
        if cluster.write == INITIAL_CONTENT:
            return "what was there at first"
        return f"which {self._name(cluster.write)} wrote"

    def _name(self, operation: int) -> str:
        kind = KINDS[self._history.operations["kind"][operation]]
        return f"the {kind} of line {self._history.line(operation)}"

    def _text(self, value: int) -> str:
        return "zeros" if value == 0 else "an unknown value" if value == UNKNOWN_VALUE else f"value {value}"

    # --------------------------------------------------------------------------- durability
    def _segment_of(self, operation: int) -> int:
        if operation >= INITIAL_CONTENT:
            return self._older_segment
        return int(self._power_cuts.before(self._history.operations[[operation]])[0])

    def _durable_segment(self) -> int:
        return self._segment_of(self._clusters[-1].write)

    def _crash_after(self, segment: int) -> int:
        """The power cut that ended it."""
        return int(self._power_cuts.operations[segment])

    def _is_kill(self, crash: int) -> bool:
        return bool(self._crashes.kept[self._crashes.operations == crash][0])

    def _what_made_durable(self) -> tuple[str, list[int]]:
        """In words, and the operation that did it."""
        operations, segment = self._history.operations, self._durable_segment()
        durable = self._clusters[-1]
        witness = self._witness(durable)
        if operations["fua"][durable.write] and witness == NO_OPERATION:
            return "FUA", []
        over = last_moments(operations[[durable.write]], self._crashes)[0]
        flushes = np.flatnonzero((operations["kind"] == FLUSH) & acknowledged(operations)
                                 & (operations["begin"] > over))
        flushes = flushes[self._power_cuts.before(operations[flushes]) == segment]
        flush = int(flushes[np.argmin(operations["begin"][flushes])])
        seen = "" if witness == NO_OPERATION else f"{self._name(witness)} brought it, and "
        return f"{seen}{self._over(durable.write)} when {self._name(flush)} began", [flush]

    # ------------------------------------------------------------------------------- steps
    def _step(self, operation: int) -> Step:
        row = self._history.operations[operation]
        end, until = (None if time == NEVER_TIME else int(time) for time in (row["end"], row["until"]))
        value = ""
        if int(row["kind"]) == CRASH:
            value, end = f"incarnation {row['block']}", int(row["begin"])
            value += ", kept" * self._is_kill(operation)
        elif row["has_values"]:
            place = int(row["first_value"]) + self._block - int(row["block"])
            value = self._text(int(self._history.values[place]))
        marks = [value, "FUA" * int(row["fua"]), f"errno {row['error']}" * bool(row["error"])]
        return Step(self._history.line(operation), KINDS[row["kind"]], int(row["client"]),
                    int(row["begin"]), end, until, end is not None and not row["error"],
                    ", ".join(filter(None, marks)))


def picture(steps: tuple[Step, ...]) -> list[str]:
    """A line for each operation: where, who, what, from when to when, and its interval. Moments are
    drawn at equal distances. A `?` ends the interval of what was never acknowledged: at its `until`,
    or at the crash that cut it off."""
    moments = sorted({time for step in steps for time in (step.begin, step.end, step.until)
                      if time is not None})
    column = {time: CELL * place for place, time in enumerate(moments)}
    crashes = [step.begin for step in steps if step.kind == "crash"]
    rows = [(f"line {step.line}", "" if step.kind == "crash" else f"client {step.client}",
             f"{step.kind} {step.value}".strip(), f"+{step.begin - moments[0]}",
             _end(step, moments[0])) for step in steps]
    widths = [max(map(len, texts)) for texts in zip(*rows, strict=True)]
    lines = []
    for step, row in zip(steps, rows, strict=True):
        texts = "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True))
        lines.append(f"  {texts}  {_interval(step, crashes, column)}")
    return [*lines, f"  (times are counted from {moments[0]})"]


def _end(step: Step, start: int) -> str:
    if step.until is not None:
        return f"until +{step.until - start}"
    return "?" if step.end is None else f"+{step.end - start}"


def _interval(step: Step, crashes: list[int], column: dict[int, int]) -> str:
    begin = column[step.begin]
    if step.kind == "crash":
        return " " * begin + "X"
    if step.acknowledged and step.end is not None:
        end = column[step.end]
    else:
        over = [time for time in crashes if time > step.begin]
        over += [] if step.until is None else [step.until]
        end = column[min(over)] if over else CELL * len(column)
    return " " * begin + "|" + "-" * max(0, end - begin - 1) + ("|" if step.acknowledged else "?")
