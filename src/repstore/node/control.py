"""The control plane of one node: routes events to the volumes' policies, carries out
what they decide.

  N1 Everything here is synchronous and is given its time; nothing waits but the
     coordination store and the creation of a local copy.
  N2 A policy's actions are carried out in order, and the answers of the coordination
     store go back into it before anything else happens to that volume.
  N3 A local copy is deleted only if this cluster once gave out its index and has no such
     volume any more: an empty or foreign config database deletes nothing.
  N4 An attach is a swap. A node that holds the current attach lends it to its further
     connections; whoever is attached elsewhere loses its export when the swap is seen.
     To be told what a volume is attaches nothing.
  N5 No question stops a node, now or when it starts again: what cannot be understood, done or
     written down is answered with an error, whatever was raised.
  N6 A coordination store that cannot be reached or read, a kernel that opens no more files and a
     disk that fails stop no control: it is a fault that is told, and is tried again.
"""
from __future__ import annotations

import errno
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from repstore import config, errors
from repstore.coordination.interface import Change, ConfigStore, check_value
from repstore.node import admin, inquiry
from repstore.replication import membership
from repstore.replication.actions import Action, CreateCopy, ReadConfig, Swap
from repstore.replication.engine_control import EngineControl, EngineEvent, LocalCopy
from repstore.replication.events import (
    AttachRequest,
    BadBlock,
    ConfigRead,
    DescribeRequest,
    Fenced,
    LinkDown,
    LinkUp,
    LostBlock,
    MendedBlock,
    NodeDied,
    NodeStarted,
    NoSpace,
    Outcome,
    PolicyEvent,
    SwapDone,
    Tick,
    decode_event,
)
from repstore.replication.policy import VolumePolicy
from repstore.replication.situation import Identity
from repstore.replication.volume_config import (
    CLUSTER_KEY,
    NODE_PREFIX,
    VOLUME_PREFIX,
    ClusterConfig,
    NodeConfig,
    NodeId,
    VolumeConfig,
    decode,
    encode,
    volume_key,
)


@dataclass(frozen=True, slots=True)
class NodeIdentity:
    """Who this node is in this life."""
    name: str
    peer: Identity            # number, disk and boot as peers see them
    host_boot_id: str         # of the machine whose block clients it serves
    token: str                # random: marks the attaches made in this life

    @property
    def has_store(self) -> bool:
        """A node without one only serves frontends."""
        return self.peer.store_uuid != ""


@dataclass
class KnownVolume:
    """A volume's config as last seen, and what frontends were told of it."""
    volume: VolumeConfig
    revision: int
    told_primary: tuple[int, int, int] | None = None      # node, epoch, session
    session: int | None = None                            # installed in our exports


@dataclass
class Health:
    """What an operator should know of this node."""
    fenced: str = ""
    full: bool = False
    bad_blocks: int = 0
    faults: dict[str, str] = field(default_factory=dict)


def _words(error: Exception) -> str:
    """What an error says; of one that is not meant to be read, which it is, too."""
    meant = isinstance(error, (errors.RepstoreError, LookupError, ValueError, OSError))
    if meant and not isinstance(error, KeyError) and str(error):
        return str(error)
    return f"{type(error).__name__}: {error}"


def _knows_nothing(question: inquiry.Inquiry) -> dict[str, object]:
    raise LookupError("this node answers no questions")


class NodeControl:
    """All decisions of one node."""

    def __init__(self, identity: NodeIdentity, engine: EngineControl, store: ConfigStore,
                 is_gone: Callable[[NodeConfig], bool], now_s: float) -> None:
        self.identity = identity
        self.nodes: dict[NodeId, NodeConfig] = {}
        self.volumes: dict[int, KnownVolume] = {}
        self.policies: dict[int, VolumePolicy] = {}
        self.links: dict[NodeId, Identity] = {}
        self.health = Health()
        self.answer: Callable[[inquiry.Inquiry], dict[str, object]] = _knows_nothing
        self._asked: tuple[str, bytes] | None = None      # a question's serial, and all of it
        self._engine = engine
        self._store = store
        self._is_gone = is_gone
        self._started_s = now_s
        self._revision = 0                 # newest change seen by the watch
        self._local_indexes = set(engine.volume_indexes())
        self._once_linked: set[NodeId] = set()
        self._dead: set[NodeId] = set()
        self._proofs_s = now_s
        self._indexes_given_out = 0
        self._swept = False

    # ------------------------------------------------------------------------------ inputs
    def on_event(self, event: EngineEvent, now_s: float) -> None:
        """One event of the engine."""
        record = decode_event(event)
        match record:
            case LinkUp():
                self._on_link_up(record, now_s)
            case LinkDown():
                self.links.pop(record.node, None)
                self._tell_all(record, now_s)
                self._prove_death(record.node, now_s)
            case AttachRequest():
                self._on_attach(record, now_s)
            case DescribeRequest():
                self._on_describe(record)
            case Fenced():
                self.health.fenced = f"{record.text} ({errno.errorcode.get(record.errno, '?')})"
                self._tell_all(record, now_s)
            case NoSpace():
                self.health.full = True
            case BadBlock():
                self.health.bad_blocks += 1
            case MendedBlock() | LostBlock():
                pass                                  # counted in the engine's stats
            case _:
                if record.index in self.policies:
                    self._step(record.index, record, now_s)

    def poll_config(self, now_s: float) -> None:
        """Take in what changed in the coordination store; unreachable or unreadable: the next poll
        will (N6)."""
        try:
            changes = self._store.watch(self._revision)
        except (errors.UnavailableError, errors.CorruptionError) as error:
            self.health.faults["config store"] = str(error)
            return
        self.health.faults.pop("config store", None)
        for change in changes:
            self._on_change(change, now_s)
            self._revision = max(self._revision, change.revision)
        if any(change.key.startswith(VOLUME_PREFIX) for change in changes):
            self._engine.set_export_names(
                [known.volume.name for _, known in sorted(self.volumes.items())])
        if not self._swept:
            self._swept = True
            self._sweep_deleted()

    def tick(self, now_s: float) -> None:
        """Time went on: look after the dead, the silent and the unfinished."""
        if now_s - self._proofs_s >= config.DEATH_PROOF_S:
            self._proofs_s = now_s
            for node in sorted(self.nodes.keys() - self.links.keys() - {self.identity.peer.node}):
                self._prove_death(node, now_s)
        for index in list(self.policies):
            self._step(index, Tick(), now_s)
        if self._asked is not None:
            self._answer(*self._asked)

    def peers_to_connect(self) -> list[NodeConfig]:
        """Nodes we have no link to and are the one to connect: a pair has one direction."""
        me = self.identity.peer.node
        return [node for number, node in sorted(self.nodes.items())
                if number not in self.links and number != me and node.peer_socket and node.pid
                and (number < me or not self.identity.has_store)]

    # ------------------------------------------------------------------------------ configs
    def _on_change(self, change: Change, now_s: float) -> None:
        key = change.key
        try:
            if key.startswith(VOLUME_PREFIX):
                self._on_volume_change(change, now_s)
            elif key.startswith(NODE_PREFIX) and change.value is not None:
                self._on_node(decode(change.value, NodeConfig, key), now_s)
            elif key == inquiry.ASK_PREFIX + self.identity.name and change.value is not None:
                self._asked = inquiry.decode_serial(change.value, key), change.value
            elif key == CLUSTER_KEY and change.value is not None:
                cluster = decode(change.value, ClusterConfig, key)
                self._indexes_given_out = cluster.next_index
        except errors.CorruptionError as error:
            self.health.faults[key] = str(error)      # one bad record stops no other volume
        else:
            self.health.faults.pop(key, None)

    def _on_node(self, node: NodeConfig, now_s: float) -> None:
        """A death was proved of the process that the record named before, not of this one."""
        self.nodes[node.id] = node
        if node.id in self._dead and not self._is_gone(node):
            self._dead.discard(node.id)
            self._tell_all(NodeStarted(node.id), now_s)

    def _on_volume_change(self, change: Change, now_s: float) -> None:
        if change.value is None:
            name = change.key.removeprefix(VOLUME_PREFIX)
            for index in [index for index, known in self.volumes.items()
                          if known.volume.name == name]:
                self._on_deleted(index)
            return
        volume = decode(change.value, VolumeConfig, change.key)
        for index in [index for index, known in self.volumes.items()
                      if known.volume.name == volume.name and index != volume.index]:
            self._on_deleted(index)                   # deleted and made again between two polls
        self._on_volume(volume, change.revision, now_s)

    def _on_volume(self, volume: VolumeConfig, revision: int, now_s: float) -> None:
        """A config was read or written; older ones than we know are ignored."""
        index = volume.index
        known = self.volumes.get(index)
        if known is None:
            known = self.volumes[index] = KnownVolume(volume, revision)
        elif revision > known.revision:
            known.volume, known.revision = volume, revision
        elif index in self.policies:
            return
        me = self.identity.peer
        self._tell_frontends(known)
        if index not in self.policies and me.node in volume.placement and self.identity.has_store:
            self.policies[index] = VolumePolicy(
                me, known.volume, known.revision, now_s, tuple(self.links.values()))
            self._step(index, Tick(), now_s)
            for node in sorted(self._dead):
                self._step(index, NodeDied(node), now_s)
        elif index in self.policies:
            self._step(index, ConfigRead(known.volume, known.revision), now_s)

    def _on_deleted(self, index: int) -> None:
        known = self.volumes.pop(index)
        if known.session is not None:
            self._engine.export_revoke(index, errno.ENOENT)
        if self.policies.pop(index, None) is not None and index in self._engine.volume_indexes():
            self._engine.step_down(index)
            self._delete_copy(index)

    def _sweep_deleted(self) -> None:
        """Volumes that were deleted while we were away (N3)."""
        mine = self.nodes.get(self.identity.peer.node)
        if mine is None or mine.store_uuid != self.identity.peer.store_uuid:
            return
        if any(key.startswith(VOLUME_PREFIX) for key in self.health.faults):
            return                                    # a config that cannot be read is no proof
        for index in sorted(self._local_indexes - self.volumes.keys()):
            if index < self._indexes_given_out:
                self._delete_copy(index)

    def _delete_copy(self, index: int) -> None:
        """What cannot be deleted now, for the store failed or the copy is in use, is when we start again."""
        try:
            self._engine.volume_delete(index)
        except (BlockingIOError, errors.RepstoreError) as error:
            self.health.faults[f"copy {index}"] = str(error)
        else:
            self._local_indexes.discard(index)

    # ---------------------------------------------------------------------------- questions
    def _answer(self, serial: str, question: bytes) -> None:
        """Answer the newest question, unless it is one of an earlier life; what cannot be said
        yet, or written now, is tried again by the next tick."""
        name = self.identity.name
        try:
            if not inquiry.is_answered(self._store, name, serial):
                inquiry.put(self._store, inquiry.ANSWER_PREFIX + name, self._try_answer(serial, question))
        except (BlockingIOError, errors.UnavailableError, errors.OutcomeUnknownError, errors.CorruptionError):
            return
        self._asked = None

    def _try_answer(self, serial: str, question: bytes) -> bytes:
        """The answer as it is written down (N5). BlockingIOError: it cannot be said yet."""
        try:
            value = self.answer(inquiry.decode_inquiry(question, "ask"))
            answer = msgspec.json.encode(inquiry.Answer(serial, value=value))
            check_value(answer)
        except BlockingIOError:
            raise
        except Exception as error:
            # the words of others may be of any length, and hold what is no text
            words = _words(error)[:config.INQUIRY_ERROR_MAX].encode(errors="backslashreplace").decode()
            return msgspec.json.encode(inquiry.Answer(serial, error=words))
        return answer

    # ---------------------------------------------------------------------- the policy loop
    def _step(self, index: int, event: PolicyEvent, now_s: float) -> None:
        """One event, and whatever the coordination store answers to what it caused (N2)."""
        policy = self.policies[index]
        waiting = deque([event])
        while waiting:
            for action in policy.step(waiting.popleft(), self._local(index), now_s):
                answer = self._carry_out(index, action)
                if answer is not None:
                    waiting.append(answer)
        known = self.volumes[index]
        if policy.here.revision > known.revision:
            known.volume, known.revision = policy.here.volume, policy.here.revision
            self._tell_frontends(known)

    def _carry_out(self, index: int, action: Action) -> PolicyEvent | None:
        if isinstance(action, Swap):
            return self._swap(action)
        if isinstance(action, ReadConfig):
            return self._read(index)
        if isinstance(action, CreateCopy):
            return self._create_copy(index, action)
        action.run(self._engine, index)
        return None

    def _create_copy(self, index: int, action: CreateCopy) -> PolicyEvent | None:
        """A store without room for one more copy, or whose disk fails, goes on with those it has, and
        says so (N6); that it failed is told by the engine, too."""
        fault = f"copy of {action.name}"
        try:
            action.run(self._engine, index)
        except (BlockingIOError, errors.RepstoreError) as error:
            self.health.faults[fault] = str(error)
            return None                               # the next tick asks again
        self.health.faults.pop(fault, None)
        self._local_indexes.add(index)
        return Tick()

    def _swap(self, swap: Swap) -> SwapDone:
        try:
            revision = self._store.compare_and_swap(
                volume_key(swap.volume.name), swap.expected_revision, encode(swap.volume))
        except (errors.OutcomeUnknownError, errors.CorruptionError):
            # a damaged page may be met before the change or after it
            return SwapDone(Outcome.UNKNOWN)
        except errors.UnavailableError:
            return SwapDone(Outcome.UNAVAILABLE)
        if revision is None:
            return SwapDone(Outcome.LOST)
        return SwapDone(Outcome.WON, revision)

    def _read(self, index: int) -> ConfigRead | None:
        key = volume_key(self.volumes[index].volume.name)
        try:
            entry = self._store.get(key)
            volume = None if entry is None else decode(entry.value, VolumeConfig, key)
        except (errors.UnavailableError, errors.CorruptionError) as error:
            self.health.faults[key] = str(error)
            return None
        if entry is None or volume is None or volume.index != index:
            return None                               # deleted: the watch brings it
        return ConfigRead(volume, entry.revision)

    def _local(self, index: int) -> LocalCopy | None:
        return self._engine.volume_state(index) if index in self._local_indexes else None

    def _tell_all(self, event: PolicyEvent, now_s: float) -> None:
        for index in list(self.policies):
            self._step(index, event, now_s)

    # -------------------------------------------------------------------------------- peers
    def _on_link_up(self, event: LinkUp, now_s: float) -> None:
        self._dead.discard(event.node)
        if not event.store_uuid.strip("0"):
            return                                    # a client: it holds no copy
        self.links[event.node] = Identity(event.node, event.store_uuid, event.boot_id)
        self._once_linked.add(event.node)
        self._tell_all(event, now_s)

    def _prove_death(self, node: NodeId, now_s: float) -> None:
        """Tell the policies once when a node's process is known to be gone.

        A node we never met may just be starting, as we are: after a restart of all nodes
        its old process is gone too, and it must not be left behind for that.
        """
        known = self.nodes.get(node)
        is_new = node not in self._once_linked
        if known is None or node in self._dead or node in self.links:
            return
        if is_new and now_s - self._started_s < config.PROMOTION_GATHER_S:
            return
        if self._is_gone(known):
            self._dead.add(node)
            self._tell_all(NodeDied(node), now_s)

    # ---------------------------------------------------------------------------- frontends
    def _tell_frontends(self, known: KnownVolume) -> None:
        """Where requests go, and whether ours are still welcome (N4)."""
        volume = known.volume
        primary = volume.primary if volume.epoch > 0 else -1
        told = (primary, volume.epoch, volume.last_session)
        if told != known.told_primary:
            known.told_primary = told
            self._engine.set_primary(volume.index, primary, volume.epoch)
        if known.session is None:
            return
        attach = volume.attach
        if attach is not None and attach.incarnation != volume.incarnation:
            known.session = None
            self._engine.export_revoke(volume.index, errno.ESTALE)
        elif attach is None or attach.session != known.session:
            known.session = None
            self._engine.export_revoke(volume.index, errno.ESHUTDOWN)

    def _on_attach(self, request: AttachRequest, now_s: float) -> None:
        try:
            attached = self._attach(request.volume_name, for_connection=True)
            if attached is not None:
                self._serve(*attached, now_s)
        except errors.RepstoreError as error:
            self._engine.export_refuse(request.volume_name, error.errno)

    def _on_describe(self, request: DescribeRequest) -> None:
        try:
            volume = admin.load_volume(self._store, request.volume_name)
        except errors.RepstoreError as error:
            self._engine.export_describe(request.volume_name, 0, error.errno)
        else:
            self._engine.export_describe(request.volume_name, volume.size_bytes)

    def attach(self, name: str, now_s: float) -> int:
        """Serve a volume from here, taking over from whoever did; returns the export's id."""
        attached = self._attach(name)
        assert attached is not None
        return self._serve(*attached, now_s)

    def _serve(self, volume: VolumeConfig, revision: int, now_s: float) -> int:
        """Open the export of a volume that is attached here."""
        assert volume.attach is not None
        self._on_volume(volume, revision, now_s)
        known = self.volumes[volume.index]
        known.session = volume.attach.session
        try:
            export_id = self._engine.export_install(volume.index, volume.name, volume.size_bytes,
                                                    volume.attach.session)
        except OSError as error:
            known.session = None
            raise errors.NoSpaceError(str(error)) from error
        known.told_primary = None                     # the new export knows nothing yet
        self._tell_frontends(known)
        return export_id

    def detach(self, name: str) -> None:
        """End our own attach of a volume; another's, or none, is left as it is."""
        def change(old: VolumeConfig | None) -> VolumeConfig:
            if old is None:
                raise errors.NotFoundError(f"no volume {name!r}")
            ours = old.attach is not None and old.attach.token == self.identity.token
            return membership.detached(old) if ours else old
        admin.update(self._store, volume_key(name), VolumeConfig, change)

    def _attach(self, name: str, for_connection: bool = False) -> tuple[VolumeConfig, int] | None:
        """The config that has us attached; an unknown outcome is settled by the next read. None: it was for
        a connection, and no one waits any more; who goes elsewhere behind that makes the swap fail (X8).
        """
        me = self.identity
        config.check_name(name)
        for _ in range(config.SWAPS_MAX):
            entry = self._store.get(volume_key(name))
            if entry is None:
                raise errors.NotFoundError(f"no volume {name!r}")
            volume = decode(entry.value, VolumeConfig, name)
            if membership.session_is_lost(volume, me.name, me.host_boot_id):
                raise errors.FencedError(
                    f"volume {name!r}: acknowledged writes were lost with power (incarnation "
                    f"{volume.incarnation}); detach, check the file system, attach again")
            if volume.attach is not None and volume.attach.token == me.token:
                return volume, entry.revision
            if for_connection and not self._engine.export_awaited(name):
                return None
            proposal = membership.attached(volume, me.name, me.token, me.host_boot_id)
            try:
                revision = self._store.compare_and_swap(
                    volume_key(name), entry.revision, encode(proposal))
            except errors.OutcomeUnknownError:
                continue
            if revision is not None:
                return proposal, revision
        raise errors.UnavailableError(f"volume {name!r}: too many attach at once")
