"""From what was seen to what the model can replay: episodes, with few LSNs.

An episode goes from rest to rest: it begins with everybody in sync and the same log everywhere, which is
how the model begins, whatever was before; epochs count from there, and who leads then is the model's node 0.

  A1 LSNs: a run has thousands, the model a dozen. A few stand for all (*cuts*): where epochs begin, and
     where logs and acknowledgements stood when the config changed or a node crashed; and what was flushed
     when it began, if a machine loses power. A log of the model is as long as the cuts that the real one has.
  A2 A node that is down is as long as it will be when it is back: what its disk was writing is there.
     A seal that is gone then was told to nobody.
  A3 What is written when nobody leads its epoch any more had been sent, and is there, before; but for
     what a candidate pulls.
  A4 A log may be longer than it looks, as long as it will look before anything else is seen of the node:
     its disk is late. A primary's is as long as the longest of those that follow it.
  A5 What lies outside the in-sync set is as long as it likes until it is back in.
  A6 A new primary acknowledges anew what was acknowledged before it; nobody sees that.
  A7 A copy learns only when it has read of the epoch of who serves it: until then it ignores that one.
"""
from __future__ import annotations

import itertools
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass

from tests.model.search import STEPS
from tests.model.trace import Look, Recorder, Seen

# of the config (epoch, primary, in-sync set), and of each node what `seen_node_t` of _replay.pyx has
View = tuple[tuple[int, int, int], tuple[tuple[int, ...], ...]]
CUTS_MAX = 16
EPOCHS_MAX = 15


@dataclass(frozen=True, slots=True)
class Moment:
    """One view, and the crash (number of the step, node) that had just ended when it was taken."""
    view: View
    crash: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Episode:
    """What happened between two rests, as the model could see it."""
    began_ns: int
    moments: list[Moment]
    lsns: int                   # of the model
    last: int                   # of them, in all logs when it began
    flushed: tuple[int, ...]    # of them, on each node's disk
    whole: bool                 # it ends at rest, not before: the run ended, or the model's numbers did


def episodes(recorder: Recorder) -> Iterator[Episode]:
    """All in which more happened than writes and their answers."""
    current: list[Look] = []
    for look in recorder.looks:
        current.append(look)
        if look.at_rest:
            if _is_eventful(current):
                yield _episode(current, recorder.first_lsns)
            current = [look]
        elif not current[0].at_rest:
            current = []
    if _is_eventful(current):
        yield _episode(current, recorder.first_lsns)


def _is_eventful(looks: list[Look]) -> bool:
    return len({(look.config, look.crash, *((seen.sealed, seen.leads, seen.counting, seen.learners)
                                            for seen in look.nodes)) for look in looks}) > 1


def _episode(looks: list[Look], first_lsns: dict[int, int]) -> Episode:
    cuts, looks_used = _cuts(looks, first_lsns)
    # the first look is at rest, and stays as it is: what was there before it was seen is in the second
    rest = looks[0]._replace(crash=None)
    used = [rest, rest, *looks[1:looks_used]]
    nodes = [[look.nodes[node] for look in used] for node in range(len(looks[0].nodes))]
    for node, line in enumerate(nodes):
        _put_back_what_a_crash_left(line, used, node)
    for node, line in enumerate(nodes):
        _put_back_what_was_sent(line, nodes, used, node)
    most = [_most(line, used, node) for node, line in enumerate(nodes)]
    for node in range(len(nodes)):
        _lead_the_longest(node, nodes, most)
    names = sorted(range(len(nodes)), key=lambda node: node != used[0].config[1])
    moments = list(_moments(used, nodes, most, names, cuts))
    base = used[0].nodes[0].last
    return Episode(used[0].at_ns, moments, len(cuts), bisect_right(cuts, base),
                   tuple(bisect_right(cuts, used[0].nodes[node].flushed) for node in names),
                   looks_used == len(looks) and looks[-1].at_rest)


# ---------------------------------------------------------------------------------- LSNs (A1)

def _cuts(looks: list[Look], first_lsns: dict[int, int]) -> tuple[list[int], int]:
    """The LSNs that stand for all, and how many looks they are enough for."""
    rest = looks[0]
    found = {rest.nodes[0].last}
    if any(look.crash is not None and look.crash[0] == "cut power" for look in looks):
        found |= {seen.flushed for seen in rest.nodes if seen.flushed}
    for number, (before, after) in enumerate(itertools.pairwise(looks), 1):
        wanted = set(found)
        if after.crash is not None or after.config != before.config or number == len(looks) - 1:
            lsns = {lsn for look in (before, after) for seen in look.nodes for lsn in (seen.last, seen.done)}
            wanted |= {lsn for lsn in lsns if lsn >= min(found)}
            wanted |= {first_lsn - 1 for epoch, first_lsn in first_lsns.items()
                       if rest.config[0] < epoch <= after.config[0]}
        epochs = max(max(seen.sealed for seen in after.nodes), after.config[0]) - rest.config[0] + 1
        if len(wanted) > CUTS_MAX or epochs > EPOCHS_MAX:
            return sorted(found), number
        found = wanted
    return sorted(found), len(looks)


# ------------------------------------------------------------- what was there before it was seen

def _put_back_what_a_crash_left(line: list[Seen], looks: list[Look], node: int) -> None:
    """A2."""
    for number in range(1, len(line)):
        if not _is_crash_of(looks[number], node):
            continue
        back, earlier = line[number], number - 1
        while earlier > 0 and not line[earlier].up:
            line[earlier] = line[earlier]._replace(last=max(line[earlier].last, back.last))
            earlier -= 1
        earlier = number - 1
        while earlier > 0 and line[earlier].sealed > back.sealed:
            line[earlier] = line[earlier]._replace(sealed=back.sealed)
            earlier -= 1


def _put_back_what_was_sent(line: list[Seen], nodes: list[list[Seen]], looks: list[Look], node: int) -> None:
    """A3."""
    def is_led(number: int) -> bool:
        return any(other[number].leads == line[number].sealed for other in nodes)

    for number in range(2, len(line)):
        before, after = line[number - 1], line[number]
        if after.last <= before.last or after.learning or before.pulling or after.pulling:
            continue
        sent = number - 1
        while sent > 0 and not is_led(sent) and not _is_crash_of(looks[sent], node):
            sent -= 1
        if sent > 0 and is_led(sent):
            for earlier in range(sent, number):
                line[earlier] = line[earlier]._replace(last=max(line[earlier].last, after.last))


def _is_crash_of(look: Look, node: int) -> bool:
    return look.crash is not None and look.crash[1] == node


def _most(line: list[Seen], looks: list[Look], node: int) -> list[int]:
    """A4: the longest that a node's log may be at each look."""
    most = [0] * len(line)
    high = 0
    for number in reversed(range(len(line))):
        seen = line[number]
        if number + 1 < len(line):
            later = line[number + 1]
            if _is_crash_of(looks[number + 1], node) or later.last < seen.last or (
                    later.sealed, later.learning) != (seen.sealed, seen.learning):
                high = 0
        high = most[number] = max(high, seen.last)
    return most


def _lead_the_longest(node: int, nodes: list[list[Seen]], most: list[list[int]]) -> None:
    """A4, of a primary."""
    line = nodes[node]
    for epoch, numbers in itertools.groupby(range(len(line)), key=lambda number: line[number].leads):
        if epoch:
            led = list(numbers)
            longest = max(most[other][number] for number in led for other in range(len(nodes))
                          if nodes[other][number].sealed == epoch)
            for number in led:
                most[node][number] = longest


# ---------------------------------------------------------------------------------------- views

def _moments(looks: list[Look], nodes: list[list[Seen]], most: list[list[int]], names: list[int],
             cuts: list[int]) -> Iterator[Moment]:
    """The views, one for each change."""
    base_epoch = looks[0].config[0]
    number_of = {node: number for number, node in enumerate(names)}
    led_from: dict[tuple[int, int], int] = {}
    last: Moment | None = None

    def epoch(real: int) -> int:
        return max(0, real - base_epoch + 1)

    def members(real: int) -> int:
        return sum(1 << number for number, node in enumerate(names) if real >> node & 1)

    def reached(lsn: int) -> int:
        return bisect_right(cuts, lsn)

    for number, look in enumerate(looks):
        views = []
        for node in names:
            seen = nodes[node][number]
            least, longest = reached(seen.last), reached(most[node][number])
            if not seen.leads and not look.config[2] >> node & 1:
                least, longest = 0, len(cuts)                                          # A5
            done_least = done_most = reached(seen.done) if seen.leads else 0
            if seen.leads > base_epoch and seen.done <= led_from.setdefault((node, seen.leads), seen.done):
                done_least = 0                                                         # A6
            begun = sum(1 << other for other in range(len(names))
                        if seen.learners >> other & 1 and nodes[other][number].sealed == seen.leads)   # A7
            views.append((epoch(seen.sealed), least, longest, epoch(seen.leads), members(seen.counting),
                          members(begun), done_least, done_most))
        config = (epoch(look.config[0]), number_of[look.config[1]], members(look.config[2]))
        crash = None if look.crash is None else (STEPS.index(look.crash[0]), number_of[look.crash[1]])
        moment = Moment((config, tuple(views)), crash)
        if last is None or crash is not None or moment.view != last.view:
            yield moment
        last = moment
