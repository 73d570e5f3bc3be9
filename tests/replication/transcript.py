"""Runs a policy scenario written as text and writes down what the policy decided.

A transcript is one policy on one node. Lines at the margin are inputs, indented lines are
the actions that followed. `python -m tests.replication.transcript FILE...` writes the
actions anew; the diff is the review.

    volume me=1 copies=3 min=2 epoch=1 primary=1 in_sync=1,2,3    the config it starts with,
        [boot=b8 closed=b1,b0]                                     and who we are
    local last=10 commit=8 epoch=1 sealed=1 grant=0.5 learning    facts of its own copy
    at 3.5                                                        the time, in seconds
    up 2 [boot=b9] [disk=d9] | down 2 | died 2 | started 2 | tick | fenced
    sealed 2 epoch=2 last=10 commit=8 [chain=7] [learning] | pulled 2 last=12
    want 2 epoch=1 last=10 [learning=5] | caught_up 2 [start=1] | ready 2 [start=1]
    silent 2 | diverged 2
    stale 4 | session 3 | full 2 | unreadable 2
    won | lost | unknown | unavailable | landed     how its swap ended (landed: as the read shows)
    config epoch=2 primary=2 in_sync=2,3 [boot2=b9]               somebody else's swap
"""
from __future__ import annotations

import sys
from dataclasses import dataclass, fields, replace
from pathlib import Path

from msgspec.structs import replace as replaced

from repstore.replication import events, leadership, membership
from repstore.replication.actions import Action, Swap
from repstore.replication.events import Outcome, PolicyEvent
from repstore.replication.policy import VolumePolicy
from repstore.replication.situation import Identity
from repstore.replication.volume_config import Lineage, Member, VolumeConfig, check_volume

Options = dict[str, str]
SILENT_ABOUT = ("volume", "expected_revision", "uuid", "serial")


@dataclass(frozen=True)
class Copy:
    """A LocalCopy that the transcript sets."""
    index: int = 7
    lineage: tuple[tuple[int, int], ...] = ((1, 1),)
    sealed_epoch: int = 1
    last_lsn: int = 10
    commit_lsn: int = 8
    chain: int = 0
    learning: bool = False
    last_grant_s: float = 0.0


class Transcript:
    """One scenario: `run` turns input lines into output lines."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.copy: Copy | None = Copy()
        self.policy: VolumePolicy | None = None

    def run(self, text: str) -> str:
        lines = []
        for line in text.splitlines():
            if line.startswith(" "):
                continue                                   # an action of an older run
            lines.append(line)
            words = line.partition("#")[0].split()
            if words:
                lines += [f"    {action}" for action in self._input(words)]
        return "\n".join(lines) + "\n"

    def _input(self, words: list[str]) -> list[str]:
        verb, *rest = words
        names = [word for word in rest if "=" not in word]
        options = dict(word.split("=", 1) for word in rest if "=" in word)
        match verb:
            case "volume":
                volume = volume_of(options)
                self.policy = VolumePolicy(identity_of(int(options["me"]), options), volume, 1, self.now_s)
                return self._step(events.Tick())
            case "local":
                self.copy = None if names == ["none"] else self._copy(names, options)
                return []
            case "at":
                self.now_s = float(names[0])
                return self._step(events.Tick())
        return self._step(self._event(verb, names, options))

    def _copy(self, names: list[str], options: Options) -> Copy:
        keys = {"last": "last_lsn", "commit": "commit_lsn", "sealed": "sealed_epoch",
                "chain": "chain"}
        known = {keys[key]: int(value) for key, value in options.items() if key in keys}
        copy = Copy(last_grant_s=float(options.get("grant", 0.0)), learning="learning" in names)
        if "epoch" in options:
            copy = replace(copy, lineage=((int(options["epoch"]), 1),))
        return replace(copy, **known)  # type: ignore[arg-type]

    def _event(self, verb: str, names: list[str], options: Options) -> PolicyEvent:
        assert self.policy is not None
        here = self.policy.here
        if verb in ("won", "lost", "unknown", "unavailable"):
            return events.SwapDone(Outcome(verb), here.revision + 1)
        if verb == "config":
            return events.ConfigRead(changed(here.volume, options), here.revision + 1)
        if verb == "landed":
            assert here.swap is not None
            return events.ConfigRead(here.swap.volume, here.revision + 1)
        if verb in ("caught_up", "ready"):
            kind = events.LearnerCaughtUp if verb == "caught_up" else events.JoinReady
            return kind(7, int(names[0]), self._serial(options))
        return event_of(verb, names, options)

    def _serial(self, options: Options) -> int:
        """Of the newest start of a learner, or of that which `options` name."""
        assert self.policy is not None
        role = self.policy.role
        if not isinstance(role, leadership.Leader):
            return 0
        return (role.epoch << leadership.SERIAL_BITS) + int(options.get("start", role.started))

    def _step(self, event: PolicyEvent) -> list[str]:
        assert self.policy is not None
        before = self.policy.here.volume
        if isinstance(event, events.SwapDone) and event.outcome is Outcome.WON:
            assert self.policy.here.swap is not None
            before = self.policy.here.swap.volume
        actions = self.policy.step(event, self.copy, self.now_s)
        return [shown(action, before) for action in actions]


def identity_of(node: int, options: Options | None = None) -> Identity:
    """Node 2 has disk d2 and boot b2 unless said otherwise."""
    options = options or {}
    return Identity(node, options.get("disk", f"d{node}"), options.get("boot", f"b{node}"),
                    tuple(options["closed"].split(",")) if "closed" in options else ())


def volume_of(options: Options) -> VolumeConfig:
    """The config of a `volume` line."""
    nodes = tuple(int(node) for node in options["in_sync"].split(","))
    copies, epoch = int(options["copies"]), int(options["epoch"])
    volume = VolumeConfig(
        name="v", uuid="u", index=7, size_bytes=1 << 20, copies=copies,
        min_copies=int(options["min"]), acknowledgement="dev",
        placement=tuple(range(1, copies + 1)), primary=int(options["primary"]), epoch=epoch,
        in_sync=tuple(Member(node, f"d{node}", options.get(f"boot{node}", f"b{node}"))
                      for node in nodes),
        lineage=tuple(Lineage(number, 1 + 4 * (number - 1)) for number in range(1, epoch + 1)))
    check_volume(volume)
    return volume


def changed(volume: VolumeConfig, options: Options) -> VolumeConfig:
    """Somebody else's config: what the options name is different."""
    if "attach" in options:
        return membership.attached(volume, options["attach"], "token", "host")
    epoch = int(options.get("epoch", volume.epoch))
    if "in_sync" in options:
        nodes = [int(node) for node in options["in_sync"].split(",")]
        members = [volume.member(node) or Member(node, f"d{node}", f"b{node}") for node in nodes]
        volume = replaced(volume, in_sync=tuple(
            replaced(member, boot_id=options.get(f"boot{member.node}", member.boot_id))
            for member in members))
    if epoch > volume.epoch:
        volume = membership.promoted(
            volume, epoch, int(options["primary"]), volume.in_sync, 20, volume.epoch,
            tainted=False)
    check_volume(volume)
    return volume


def event_of(verb: str, names: list[str], options: Options) -> PolicyEvent:
    """An event of the engine or the node."""
    node = int(names[0]) if names else 0
    last, epoch = int(options.get("last", 0)), int(options.get("epoch", 0))
    commit, chain = int(options.get("commit", 0)), int(options.get("chain", 0))
    match verb:
        case "up":
            peer = identity_of(node, options)
            return events.LinkUp(node, peer.boot_id, peer.store_uuid)
        case "sealed":
            return events.Sealed(7, node, epoch, last, commit, chain, "learning" in names)
        case "want":
            base = options.get("learning")
            return events.Want(7, node, epoch, last, chain, base is not None, int(base or 0))
        case "pulled":
            return events.Pulled(7, node, last)
        case "full":
            return events.ResyncFull(7, node, "no bitmap reaches back")
        case "fenced":
            return events.Fenced(5, "write failed")
    simple: dict[str, PolicyEvent] = {
        "down": events.LinkDown(node), "died": events.NodeDied(node),
        "started": events.NodeStarted(node), "tick": events.Tick(),
        "silent": events.MemberSilent(7, node), "diverged": events.Diverged(7, node),
        "unreadable": events.Unreadable(7, node),
        "stale": events.Stale(7, node), "session": events.RequestSession(7, node)}
    return simple[verb]


def shown(action: Action, before: VolumeConfig) -> str:
    """An action as a line; of a swap only what it changes."""
    name = type(action).__name__
    if isinstance(action, Swap):
        return f"{name} at r{action.expected_revision}: {difference(before, action.volume)}"
    values = [f"{field.name}={value_text(getattr(action, field.name))}"
              for field in fields(action)  # type: ignore[arg-type]
              if field.name not in SILENT_ABOUT]
    return " ".join([name, *values])


def value_text(value: object) -> str:
    if isinstance(value, tuple):
        return "[" + " ".join(value_text(part) for part in value) + "]"
    return str(value)


def difference(old: VolumeConfig, new: VolumeConfig) -> str:
    parts = []
    for name in ("epoch", "incarnation", "primary"):
        if getattr(old, name) != getattr(new, name):
            parts.append(f"{name}={getattr(new, name)}")
    if old.in_sync != new.in_sync:
        members = ",".join(f"{member.node}@{member.boot_id}" for member in new.in_sync)
        parts.append(f"in_sync={members}")
    if old.lineage != new.lineage:
        parts.append(f"first_lsn={new.lineage[-1].first_lsn}")
    return " ".join(parts)


if __name__ == "__main__":
    for name in sys.argv[1:]:
        path = Path(name)
        path.write_text(Transcript().run(path.read_text()))
