"""Trace validation: does what a simulated cluster did happen in the model, too?

A trace is a list of views, each what can be seen of the cluster from outside its control code: of
the config (epoch, primary, in-sync set), and of each node (epoch it is sealed at, LSNs in its
log, epoch it leads or 0, the set that counts there, LSNs it acknowledged). `Recorder` takes them
from a running `SimulatedCluster` whenever one changes; it alters nothing in there.

LSNs: a run has thousands, the model a dozen. So a few LSNs are chosen as *cuts*: where epochs begin,
and where logs and commits stood whenever the config changed or a node crashed. A log of the model is
as long as the number of cuts that the real one has reached.

`replay` keeps the states of the model that fit what was seen so far. From one view to the next the
model may take any steps, also those that cannot be seen (proposals, answers, flushes), as long as
everything visible is as it was or as it will be. A crash is only taken where one was recorded.
"""
from __future__ import annotations

import itertools
from bisect import bisect_right
from dataclasses import dataclass, replace

from repstore.replication.volume_config import volume_key
from repstore.sim.cluster import SimulatedCluster
from tests.model._explore import STEP_NAMES, Explorer

View = tuple[tuple[int, ...], ...]      # the config's, then each node's
CUTS_MAX = 16
EPOCHS = 15
CRASHES = 7
STATES_MAX = 60_000                     # between two views
NUMBERS = {1, 4}                        # places in a node's view: LSNs in its log, LSNs acknowledged
CRASH_STEPS = {"kill", "cut power"}


class TraceError(AssertionError):
    """The model cannot do what was seen."""


@dataclass(frozen=True, slots=True)
class Moment:
    """One view, and the crash that had just ended when it was taken: (step name, node)."""
    view: View
    crash: tuple[str, int] | None = None


class Recorder:
    """Looks at a cluster after every step of its clock. Begin it when epoch 1 is led and at rest."""

    def __init__(self, cluster: SimulatedCluster, volume: str) -> None:
        self._cluster = cluster
        self._name = volume
        self._names = [f"n{node + 1}" for node in cluster.volume(volume).placement]
        self._index = cluster.volume(volume).index
        self._lives = [(cluster.life(name).process, cluster.node(name).boot_id) for name in self._names]
        self._moments: list[Moment] = []
        self._interesting: set[int] = set()
        self._down_since: dict[int, int] = {}         # by node: the first view that it was down in
        self._revision = -1
        self._config: tuple[int, ...] = ()
        self._step = cluster.clock.step
        cluster.clock.step = self._observed_step      # type: ignore[method-assign]
        self._look()
        self._base = self._moments[0].view[1][1]

    def end(self) -> list[Moment]:
        """Stop looking; the trace, with LSNs as numbers of cuts."""
        self._cluster.clock.step = self._step         # type: ignore[method-assign]
        lineage = self._cluster.volume(self._name).lineage
        chosen = self._interesting | {entry.first_lsn - 1 for entry in lineage}
        chosen.add(self._moments[-1].view[1][1])
        cuts = sorted(lsn for lsn in chosen if lsn > self._base)
        if len(cuts) > CUTS_MAX:
            raise ValueError(f"{len(cuts)} cuts, the model has {CUTS_MAX} LSNs: record less")
        moments: list[Moment] = []
        for moment in self._moments:
            nodes = [(sealed, bisect_right(cuts, last), leads, counting, bisect_right(cuts, done))
                     for sealed, last, leads, counting, done in moment.view[1:]]
            view = (moment.view[0], *nodes)
            if moment.crash or not moments or view != moments[-1].view:
                moments.append(Moment(view, moment.crash))
        return moments

    def _observed_step(self, until_ns: int) -> bool:
        more = self._step(until_ns)
        self._look()
        return more

    def _look(self) -> None:
        config = self._look_at_config()
        nodes, crash = [], None
        for node in range(len(self._names)):
            seen, how = self._look_at(node)
            nodes.append(seen)
            crash = crash or how
        view = (config, *_with_what_was_sent(nodes))
        if self._moments and view == self._moments[-1].view and crash is None:
            return
        if crash or (self._moments and view[0] != self._moments[-1].view[0]):
            for seen in view[1:]:
                self._interesting |= {seen[1], seen[4]}
        self._moments.append(Moment(view, crash))

    def _look_at_config(self) -> tuple[int, ...]:
        """Decoded only when it changed: this is asked after every step of the clock."""
        entry = self._cluster.config.get(volume_key(self._name))
        assert entry is not None
        if entry.revision != self._revision:
            self._revision = entry.revision
            volume = self._cluster.volume(self._name)
            self._config = volume.epoch, volume.primary, sum(1 << node for node in volume.in_sync_nodes())
        return self._config

    def _look_at(self, node: int) -> tuple[tuple[int, ...], tuple[str, int] | None]:
        """A node that is down is as it was: in the model it is only slow."""
        machine = self._cluster.node(self._names[node])
        life, how = machine.life, None
        if life is None or life.process == 0:
            self._down_since.setdefault(node, len(self._moments))
            return self._moments[-1].view[1 + node], None
        if (life.process, machine.boot_id) != self._lives[node]:
            how = ("kill" if machine.boot_id == self._lives[node][1] else "cut power", node)
            self._interesting |= {self._moments[-1].view[1 + node][1]}
            self._lives[node] = (life.process, machine.boot_id)
        state = life.engine.volume_state(self._index)
        self._was_there(node, self._down_since.pop(node, len(self._moments)), state.last_lsn)
        if state.role != "primary":
            return (state.sealed_epoch, state.last_lsn, 0, 0, 0), how
        return (state.sealed_epoch, state.last_lsn, state.epoch, sum(1 << n for n in state.in_sync),
                state.commit_lsn), how

    def _was_there(self, node: int, since: int, last_lsn: int) -> None:
        """What was on its way to a node's disk when it went down is there all the time that it is down."""
        for number in range(since, len(self._moments)):
            config, *nodes = self._moments[number].view
            sealed, last, *rest = nodes[node]
            nodes[node] = (sealed, max(last, last_lsn), *rest)
            self._moments[number] = replace(self._moments[number], view=(config, *_with_what_was_sent(nodes)))


def _with_what_was_sent(nodes: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """A primary's log is at least as long as the logs that follow it, though its disk be slower."""
    newest = {sealed: max(node[1] for node in nodes if node[0] == sealed) for sealed, *_ in nodes}
    return [(sealed, newest[sealed] if leads == sealed else last, leads, *rest)
            for sealed, last, leads, *rest in nodes]


def replay(moments: list[Moment]) -> int:
    """Follow a trace in the model. Returns how many views it had; TraceError where the model cannot."""
    lsns = max(1, *(node[1] for moment in moments for node in moment.view[1:]))
    model = Explorer(len(moments[0].view) - 1, lsns, EPOCHS, CRASHES)
    states = {model.initial()}
    if model.view(model.initial()) != moments[0].view:
        raise TraceError(f"a trace begins with epoch 1 at rest, not with {moments[0].view}")
    for number, (old, new) in enumerate(itertools.pairwise(moments), 1):
        states = _follow(model, states, old.view, new)
        if not states:
            raise TraceError(f"view {number}: no step of the model leads from {old.view} to {new.view}"
                             + (f" with {new.crash}" if new.crash else ""))
    return len(moments)


def _follow(model: Explorer, states: set[bytes], old: View, new: Moment) -> set[bytes]:
    """The states that show `new`, a shortest way from `states` and one step more."""
    seen = {(state, new.crash is None) for state in states}
    layer, found, last = seen, set[bytes](), False
    while layer and len(seen) < STATES_MAX:
        following = set()
        for state, crashed in layer:
            for number, a, _, after in model.successors(state):
                is_crash = STEP_NAMES[number] in CRASH_STEPS
                if is_crash and (crashed or (STEP_NAMES[number], a) != new.crash):
                    continue
                entry = (after, crashed or is_crash)
                if entry not in seen and _between(model.view(after), old, new.view):
                    following.add(entry)
        seen |= following
        found |= {state for state, crashed in following if crashed and model.view(state) == new.view}
        if last:
            return found
        last = bool(found)
        layer = following
    return found


def _between(view: View, old: View, new: View) -> bool:
    """Everything visible is as it was, or as it will be; a number may be on its way."""
    return all(value in (was, will) or (place in NUMBERS and node and min(was, will) < value < max(was, will))
               for node, (values, before, after) in enumerate(zip(view, old, new, strict=True))
               for place, (value, was, will) in enumerate(zip(values, before, after, strict=True)))
