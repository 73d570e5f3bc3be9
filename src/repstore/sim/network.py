"""Connections between engines: messages arrive whole, in order, after a drawn delay.

  N1 The network calls an engine only out of the clock, never while an engine calls it.
  N2 A connection is a pair of ends, each with the link number its engine knows it by. Either
     end sees one link_up and one link_down; a number is free again after its link_down.
  N3 What was sent is delivered in order or, when the connection breaks, not at all from some
     message on. A send is answered when it is delivered, at the latest before link_down.
  N4 Between nodes that are cut off nothing moves, in one direction or both, and nothing is
     lost: it waits for `heal`, as in TCP. No new connection can be made either.
  N5 A message that is no frame breaks its connection.
  N6 Half open: one end is told that the connection is down, the other one is not for a while,
     and what it sends goes nowhere. A second connection may be up beside it by then.
  N7 A rough link drops, doubles and swaps messages, which TCP never does to a connection that
     goes on: after the first message that it dropped the connection breaks.
"""
from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Protocol

from repstore.sim.clock import VirtualClock
from repstore.sim.meeting import Met, Waiting, nobody

LINK_ACCEPTED = 1             # kinds of a link, as the engine numbers them
LINK_CONNECTED = 3
DELAY_LEAST_NS = 15_000
DELAY_MOST_NS = 400_000
BREAK_MOST_NS = 2_000_000     # until the other side learns that a connection is broken

NOTICED_MOST_NS = 3_000_000_000   # until a connection breaks that dropped a message


@dataclass
class Roughness:
    """What links do to messages: shares of all of them (N7)."""
    drop: float = 0.0
    double: float = 0.0
    swap: float = 0.0


class Peer(Protocol):
    """One life of a node, as its connections see it."""

    @property
    def name(self) -> str: ...
    @property
    def alive(self) -> bool:
        """A dead one is told nothing any more."""

    def link_up(self, link: int, kind: int) -> None: ...
    def link_down(self, link: int) -> None: ...
    def sent(self, link: int, token: int) -> None: ...
    def received(self, link: int, data: bytes) -> bool:
        """One message. False: it is no frame."""


class End:
    """One side of a connection and what it has sent."""

    def __init__(self, owner: Peer, link: int) -> None:
        self.owner = owner
        self.link = link
        self.other = self
        self.held = False                                     # its engine takes nothing just now
        self.is_up = False
        self.is_down = False
        self.waiting: deque[tuple[int, int, bytes]] = deque()   # (due, token, message)
        self.last_due_ns = 0


class SimulatedNetwork:
    """All connections of a simulation."""

    def __init__(self, clock: VirtualClock, random: Random) -> None:
        self._clock = clock
        self._random = random
        self._ends: dict[tuple[Peer, int], End] = {}
        self._cut: set[tuple[str, str]] = set()               # (from, to)
        self._slow: dict[tuple[str, str], int] = {}           # more nanoseconds, (from, to)
        self.rough = Roughness()
        self.struck: dict[str, int] = {}                      # messages by what became of them
        self._waiting = Waiting()                             # faults that met no message yet

    # ------------------------------------------------------------------- what engines ask
    def send(self, owner: Peer, link: int, token: int, data: bytes) -> None:
        """A message for whoever is behind this link; over a broken one it is swallowed."""
        end = self._ends.get((owner, link))
        if end is None:
            if token:
                self._clock.after(DELAY_LEAST_NS, partial(self._answer_lost, owner, link, token))
            return
        way = owner.name, end.other.owner.name
        due_ns = max(end.last_due_ns, self._clock.now_ns + self._delay() + self._slow.get(way, 0))
        if self._slow.get(way, 0) and due_ns > end.last_due_ns:
            self._waiting.meet(("slow", *way))
        end.last_due_ns = due_ns
        end.waiting.append((due_ns, token, data))
        if self.rough.drop or self.rough.double or self.rough.swap:
            self._roughen(end)
        self._clock.at(due_ns, partial(self._deliver, end))

    def close(self, owner: Peer, link: int) -> None:
        """Drop a link; what was sent before may still arrive."""
        end = self._ends.get((owner, link))
        if end is not None:
            self._clock.at(end.last_due_ns, partial(self._break, end))

    def hold(self, owner: Peer, link: int, stopped: bool) -> None:
        """Stop delivering to this engine, or go on."""
        end = self._ends.get((owner, link))
        if end is not None:
            end.held = stopped
            self._clock.after(0, partial(self._deliver, end.other))

    # --------------------------------------------------------------- what the cluster asks
    def connect(self, near: Peer, far: Peer) -> bool:
        """A new connection, unless one is there or the nodes are cut off."""
        if self.connected(near, far):
            return False
        ways = ((near.name, far.name), (far.name, near.name))
        if any(way in self._cut for way in ways):
            for way in ways:
                self._waiting.meet(("cut", *way))
            return False
        one = End(near, self._free_link(near))
        other = End(far, self._free_link(far))
        one.other, other.other = other, one
        for end, kind in ((one, LINK_CONNECTED), (other, LINK_ACCEPTED)):
            self._ends[end.owner, end.link] = end
            self._clock.after(self._delay(), partial(self._up, end, kind))
        return True

    def connected(self, near: Peer, far: Peer) -> bool:
        """Whether a connection of these two is there, or on its way up or down."""
        return any(end.owner is near and end.other.owner is far for end in self._ends.values())

    def crash(self, owner: Peer) -> None:
        """A process is gone: its connections break, each a little later for the other side."""
        for end in [end for end in self._ends.values() if end.owner is owner]:
            self._clock.after(self._random.randint(0, BREAK_MOST_NS), partial(self._break, end))

    def drop(self, one: str, other: str, met: Met = nobody) -> None:
        """Break the connections between two nodes, by name."""
        ends = [end for end in self._ends.values() if end.owner.name == one and end.other.owner.name == other]
        for end in ends:
            self._clock.after(self._random.randint(0, BREAK_MOST_NS), partial(self._break, end, met))

    def cut(self, sender: str, receiver: str, met: Met = nobody) -> None:
        """Nothing moves from `sender` to `receiver` any more."""
        self._cut.add((sender, receiver))
        self._waiting.add(("cut", sender, receiver), met)

    def slow(self, sender: str, receiver: str, more_ns: int, met: Met = nobody) -> None:
        """Messages from `sender` to `receiver` take that much longer."""
        self._slow[sender, receiver] = more_ns
        self._waiting.put(("slow", sender, receiver), met)

    def roughen(self, rough: Roughness, met: Met = nobody) -> None:
        """All links are as rough as this from now on."""
        self.rough = rough
        self._waiting.put("rough", met)

    def open_half(self, near: str, far: str, until_ns: int) -> bool:
        """`near` is told that its connection with `far` is down; `far` not before `until_ns` (N6)."""
        ends = [end for end in self._ends.values()
                if end.owner.name == near and end.other.owner.name == far and end.is_up]
        for end in ends:
            self._down(end)
            self._clock.at(until_ns, partial(self._down, end.other))
        return bool(ends)

    def mend(self, ways: Iterable[tuple[str, str]]) -> None:
        """These ways are free again."""
        for way in ways:
            self._cut.discard(way)
            self._waiting.over(("cut", *way))
        self._deliver_all()

    def heal(self) -> None:
        """All nodes reach each other again, as fast as ever."""
        self._cut.clear()
        self._slow.clear()
        self.rough = Roughness()
        self._deliver_all()

    def _deliver_all(self) -> None:
        for end in list(self._ends.values()):
            self._clock.after(self._delay(), partial(self._deliver, end))

    # ------------------------------------------------------------------- out of the clock
    def _up(self, end: End, kind: int) -> None:
        if end.owner.alive and not end.is_down:
            end.is_up = True
            end.owner.link_up(end.link, kind)
            self._clock.after(0, partial(self._deliver, end.other))

    def _deliver(self, end: End) -> None:
        """Hand over what is due, as far as the way is free."""
        to = end.other
        while (end.waiting and end.waiting[0][0] <= self._clock.now_ns and to.is_up
               and not (to.held or to.is_down or end.is_down)):
            way = end.owner.name, to.owner.name
            if way in self._cut:
                self._waiting.meet(("cut", *way))
                return
            _, token, data = end.waiting.popleft()
            if token and end.owner.alive:
                end.owner.sent(end.link, token)
            if data and to.owner.alive and not to.owner.received(to.link, data):
                self._break(to)
                return

    def _roughen(self, end: End) -> None:
        """What becomes of the message that was just sent (N7)."""
        fate = self._random.random()
        rough, waiting = self.rough, end.waiting
        if fate < rough.drop:
            what = "dropped"
            due_ns, token, _ = waiting[-1]
            waiting[-1] = (due_ns, token, b"")
            self._clock.after(self._random.randint(0, NOTICED_MOST_NS), partial(self._break, end))
        elif fate < rough.drop + rough.double:
            what = "doubled"
            due_ns, _, data = waiting[-1]
            waiting.append((due_ns, 0, data))
        elif fate < rough.drop + rough.double + rough.swap and len(waiting) > 1:
            what = "swapped"
            (first_ns, *_), (second_ns, *_) = earlier, later = waiting[-2], waiting[-1]
            waiting[-2], waiting[-1] = (first_ns, *later[1:]), (second_ns, *earlier[1:])
        else:
            return
        self.struck[what] = self.struck.get(what, 0) + 1
        self._waiting.meet("rough")

    def _break(self, end: End, met: Met = nobody) -> None:
        """Both sides learn it, one now and the other a little later."""
        if not end.is_down:
            met()
            self._down(end)
            self._clock.after(self._delay(), partial(self._down, end.other))

    def _down(self, end: End) -> None:
        if end.is_down:
            return
        end.is_down = True
        while end.owner.alive and end.waiting:
            _, token, _ = end.waiting.popleft()
            if token:
                end.owner.sent(end.link, token)
        del self._ends[end.owner, end.link]
        if end.owner.alive and end.is_up:
            end.owner.link_down(end.link)

    def _answer_lost(self, owner: Peer, link: int, token: int) -> None:
        if owner.alive:
            owner.sent(link, token)

    def _free_link(self, owner: Peer) -> int:
        used = {link for peer, link in self._ends if peer is owner}
        return next(link for link in range(len(used) + 1) if link not in used)

    def _delay(self) -> int:
        return DELAY_LEAST_NS + int((DELAY_MOST_NS - DELAY_LEAST_NS) * self._random.random())
