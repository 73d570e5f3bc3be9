"""NodeControl: attaches, deletions, bad records, questions, and what frontends are told."""
import errno
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

import msgspec
import pytest
from msgspec.structs import replace

from repstore import config, errors
from repstore._fast.control import Engine
from repstore.config import VolumeOptions
from repstore.coordination.interface import ABSENT, VALUE_BYTES_MAX
from repstore.coordination.memory import MemoryConfigStore, no_fault
from repstore.node import inquiry, native
from repstore.node.admin import (
    create_volume,
    delete_volume,
    detach_volume,
    load_volume,
    register_node,
    update,
)
from repstore.node.control import NodeControl, NodeIdentity
from repstore.replication.situation import Identity
from repstore.replication.volume_config import CLUSTER_KEY, NodeConfig, VolumeConfig, volume_key
from repstore.store import store as stores
from tests.cluster.harness import wait_until
from tests.node.fake_cluster import FakeCluster
from tests.node.fake_engine import FakeEngine


@pytest.fixture
def cluster() -> FakeCluster:
    """Three nodes, volume v led by node 0."""
    made = FakeCluster(Random(1))
    made.create(VolumeOptions("v", 1 << 20, 3))
    made.settle(3)
    return made


def engine_of(cluster: FakeCluster, node: int) -> FakeEngine:
    engine = cluster.machines[node].engine
    assert engine is not None
    return engine


def attach(cluster: FakeCluster, node: int, request_id: int, name: str = "v") -> None:
    control = cluster.machines[node].control
    assert control is not None
    control.on_event(("attach", request_id, name), cluster.now_s)


def run_until_led(cluster: FakeCluster, index: int, within_s: float) -> None:
    begun_s = cluster.now_s
    while not list(cluster.leaders_now(index)):
        while cluster.deliver():
            pass
        for machine in cluster.machines:
            cluster.run_control(machine)
        cluster.pass_time(0.05)
        assert cluster.now_s < begun_s + within_s


def test_an_attach_is_a_session_of_its_own_and_is_lent_to_further_connections(
        cluster: FakeCluster) -> None:
    attach(cluster, 1, 100)
    attach(cluster, 1, 101)
    volume = load_volume(cluster.store, "v")
    assert volume.last_session == 1
    assert engine_of(cluster, 1).installed == {"v": (volume.index, 1)}
    assert engine_of(cluster, 1).primaries[volume.index] == (volume.primary, volume.epoch)
    cluster.settle(0.2)
    leader = next(cluster.leaders_now(volume.index))
    assert leader.sessions[volume.index] == 1      # told to the primary before its first request


def test_another_attach_takes_over(cluster: FakeCluster) -> None:
    attach(cluster, 1, 100)
    attach(cluster, 2, 200)
    cluster.settle(0.2)
    index = cluster.volume("v").index
    assert engine_of(cluster, 1).revoked == [(index, errno.ESHUTDOWN)]
    assert engine_of(cluster, 2).installed == {"v": (index, 2)}
    assert next(cluster.leaders_now(index)).sessions[index] == 2


def test_the_primary_reads_a_session_it_did_not_know(cluster: FakeCluster) -> None:
    """A request may be faster than the primary's watch."""
    volume = cluster.volume("v")
    attach(cluster, 1, 100)
    leader = next(cluster.leaders_now(volume.index))
    control = cluster.machines[leader.node].control
    assert control is not None
    control.on_event(("request_session", volume.index, 1), cluster.now_s)
    assert leader.sessions == {volume.index: 1}


@pytest.mark.parametrize(("name", "code"), [
    ("nowhere", errno.ENOENT), ("", errno.EINVAL), ("../v", errno.EINVAL), ("x" * 64, errno.EINVAL)])
def test_an_attach_that_cannot_be(cluster: FakeCluster, name: str, code: int) -> None:
    before = cluster.store.list("")
    attach(cluster, 1, 100, name)
    assert engine_of(cluster, 1).refused == {name: code}
    assert cluster.store.list("") == before


@pytest.mark.fault("coordination: outcome of an attach unknown", promise="it is made once")
def test_an_attach_with_an_unknown_outcome_is_made_once(cluster: FakeCluster) -> None:
    answers = [errors.OutcomeUnknownError("no answer")]

    def after(operation: str, key: str) -> None:
        if operation == "compare_and_swap" and answers:
            raise answers.pop()

    cluster.store.after = after
    attach(cluster, 1, 100)
    assert engine_of(cluster, 1).installed == {"v": (cluster.volume("v").index, 1)}
    assert cluster.volume("v").last_session == 1


@pytest.mark.fault("process: its Python stands still while a client asks it for a volume and goes elsewhere",
                   promise="the volume is not taken from where the client is then")
@pytest.mark.parametrize("goes_at", ["get", "compare_and_swap"])
def test_a_connection_that_is_gone_takes_a_volume_from_nobody(cluster: FakeCluster, goes_at: str) -> None:
    """It stood still before it read where the volume is, or behind that (X8)."""
    engine = engine_of(cluster, 1)

    def before(operation: str, key: str) -> None:
        if operation == goes_at and engine.awaited:
            engine.awaited = False
            attach(cluster, 2, 200)

    cluster.store.before = before
    attach(cluster, 1, 100)
    cluster.settle(0.2)
    index = cluster.volume("v").index
    assert engine_of(cluster, 2).installed == {"v": (index, 1)}
    assert (engine.installed, engine.refused, engine_of(cluster, 2).revoked) == ({}, {}, [])


def test_who_asks_what_a_volume_is_takes_it_from_nobody(cluster: FakeCluster) -> None:
    attach(cluster, 1, 100)
    before = cluster.store.list("")
    control = cluster.machines[2].control
    assert control is not None
    for name in ("v", "nowhere"):
        control.on_event(("describe", 200, name), cluster.now_s)
    cluster.settle(0.2)
    assert engine_of(cluster, 2).described == {"v": (1 << 20, 0), "nowhere": (0, errno.ENOENT)}
    assert engine_of(cluster, 1).revoked == []
    assert cluster.store.list("") == before


def test_an_attach_while_the_store_is_away(cluster: FakeCluster) -> None:
    def before(operation: str, key: str) -> None:
        raise errors.UnavailableError("away")

    cluster.store.before = before
    attach(cluster, 1, 100)
    assert engine_of(cluster, 1).refused == {"v": errno.EHOSTUNREACH}


def test_a_new_incarnation_refuses_the_old_client_until_it_is_detached(
        cluster: FakeCluster) -> None:
    attach(cluster, 1, 100)

    def bump(old: VolumeConfig | None) -> VolumeConfig:
        assert old is not None
        return replace(old, incarnation=old.incarnation + 1)

    update(cluster.store, volume_key("v"), VolumeConfig, bump)
    cluster.settle(0.2)
    index = cluster.volume("v").index
    assert engine_of(cluster, 1).revoked == [(index, errno.ESTALE)]
    attach(cluster, 1, 101)                        # reconnects by name, as NBD clients do
    assert engine_of(cluster, 1).refused == {"v": errno.ESTALE}
    detach_volume(cluster.store, "v")
    attach(cluster, 1, 102)
    assert engine_of(cluster, 1).installed["v"] == (index, 2)


def test_a_deleted_volume_goes_everywhere(cluster: FakeCluster) -> None:
    attach(cluster, 1, 100)
    index = cluster.volume("v").index
    cluster.kill(cluster.machines[2])
    delete_volume(cluster.store, "v")
    cluster.settle(0.3)                            # starts node 2 again, too
    assert [machine.copies for machine in cluster.machines] == [{}, {}, {}]
    assert engine_of(cluster, 1).revoked == [(index, errno.ENOENT)]
    again = create_volume(cluster.store, VolumeOptions("v", 1 << 20, 3))
    assert again.index > index                     # an index is never used twice


def test_an_empty_config_store_deletes_nothing(cluster: FakeCluster) -> None:
    """N3: the database was lost, or is another cluster's: the copies are all there is."""
    for machine in cluster.machines:
        cluster.kill(machine)
    for key in ("volumes/v", CLUSTER_KEY):
        entry = cluster.store.get(key)
        assert entry is not None
        assert cluster.store.delete(key, entry.revision)
    cluster.settle(1)
    assert all(machine.copies for machine in cluster.machines)


@pytest.mark.fault("coordination: the whole database is unreadable",
                   promise="no node ends; what is led is served, and it is read again")
def test_a_config_store_that_cannot_be_read_stops_no_node(cluster: FakeCluster) -> None:
    """A swap is due as well, for a member is gone, and a question stands."""
    index = cluster.volume("v").index

    def before(operation: str, key: str) -> None:
        raise errors.CorruptionError("cluster.db", "a sqlite database", "file is not a database")

    control = cluster.machines[0].control
    assert control is not None
    inquiry.put(cluster.store, inquiry.ASK_PREFIX + "n0", asked())
    control.poll_config(cluster.now_s)                # the question was seen, and is not answered yet
    cluster.store.before = before
    cluster.kill(cluster.machines[2])
    for _ in range(20):
        cluster.run_control(cluster.machines[0])
        cluster.pass_time(0.1)
    assert "file is not a database" in control.health.faults["config store"]
    assert control.policies[index].here.swap is not None       # it may have been made: it goes again
    assert index in engine_of(cluster, 0).leading
    cluster.store.before = no_fault
    cluster.settle(3)
    assert control.health.faults == {}
    assert inquiry.is_answered(cluster.store, "n0", "s")


@pytest.mark.fault("coordination: an unreadable config of one volume", promise="stops no other volume")
@pytest.mark.parametrize("data", [b"\xff not json", b'{"uuid":"\xff"}', b'{"x":' * 10_000])
def test_one_unreadable_config_stops_no_other_volume(cluster: FakeCluster, data: bytes) -> None:
    other = cluster.create(VolumeOptions("w", 1 << 20, 2))
    cluster.store.compare_and_swap("volumes/bad", ABSENT, data)
    run_until_led(cluster, other.index, 3.0)
    control = cluster.machines[0].control
    assert control is not None
    assert "volumes/bad" in control.health.faults


def test_a_node_without_a_store_only_serves_frontends(cluster: FakeCluster) -> None:
    client = FakeEngine(cluster, 0)
    identity = NodeIdentity("client", Identity(0xFFFF, "", "boot"), "host", "token")
    cluster.machines.append(type(cluster.machines[0])(3))
    client.node = 3
    control = NodeControl(identity, client, cluster.store, lambda node: False, cluster.now_s)
    control.poll_config(cluster.now_s)
    control.tick(cluster.now_s)
    assert [node.id for node in control.peers_to_connect()] == [0, 1, 2]
    control.on_event(("attach", 1, "v"), cluster.now_s)
    volume = cluster.volume("v")
    assert client.installed == {"v": (volume.index, 1)}
    assert client.primaries[volume.index] == (volume.primary, volume.epoch)
    assert client.copies == {}


def test_a_pair_of_nodes_is_connected_by_the_higher_one(cluster: FakeCluster) -> None:
    control = cluster.machines[1].control
    assert control is not None
    assert control.peers_to_connect() == []
    cluster.break_link((0, 1))
    cluster.break_link((1, 2))
    cluster.run_control(cluster.machines[1])
    assert [node.id for node in control.peers_to_connect()] == [0]


def test_a_killed_primary_is_replaced_without_waiting_for_grace(cluster: FakeCluster) -> None:
    """Death is proved: the volume is served again long before T_grace."""
    volume = cluster.volume("v")
    cluster.kill(cluster.machines[volume.primary])
    run_until_led(cluster, volume.index, 1.0)
    now = cluster.volume("v")
    assert now.epoch == volume.epoch + 1
    assert volume.primary not in now.in_sync_nodes()


def test_an_event_that_no_engine_sends_is_a_bug(cluster: FakeCluster) -> None:
    control = cluster.machines[0].control
    assert control is not None
    for event in (("nonsense", 1), ("sealed", 1), ()):
        with pytest.raises(AssertionError):
            control.on_event(event, cluster.now_s)


def test_frontends_list_all_volumes_wherever_their_copies_are(cluster: FakeCluster) -> None:
    cluster.create(VolumeOptions("a", 1 << 20, 1))
    cluster.settle(1)
    assert [engine_of(cluster, node).export_names for node in range(3)] == [["v", "a"]] * 3
    delete_volume(cluster.store, "v")
    cluster.settle(0.2)
    assert engine_of(cluster, 2).export_names == ["a"]


@pytest.mark.fault("disk: writes fail while a copy is created", promise="its node goes on, and says so")
@pytest.mark.parametrize("error", [
    errors.NoSpaceError("no room in this store"), errors.StoreFailedError("the store failed: File too large"),
    BlockingIOError("a checkpoint is being written")])
def test_a_store_that_takes_no_further_copy_keeps_its_node_going(
        cluster: FakeCluster, error: Exception) -> None:
    for node in range(3):
        engine_of(cluster, node).no_copy = error
    volume = cluster.create(VolumeOptions("w", 1 << 20, 1))
    cluster.settle(0.5)
    control = cluster.machines[volume.primary].control
    assert control is not None
    assert control.health.faults == {"copy of w": str(error)}
    engine_of(cluster, volume.primary).no_copy = None
    run_until_led(cluster, volume.index, 2)
    assert control.health.faults == {}


@dataclass
class RealNode:
    """Node 0, alone, on a store in a file; its one volume is to have its copy here."""
    engine: native.NodeEngine
    configs: MemoryConfigStore
    control: NodeControl
    index: int

    def leads(self) -> bool:
        for event in self.engine.events():
            self.control.on_event(event, 1.0)
        self.control.tick(1.0)
        return self.control.volumes[self.index].volume.epoch == 1


@pytest.fixture
def impatient(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RealNode]:
    """A node that made the copy, gave up before it was durable, and is patient again."""
    stores.create(tmp_path / "s", 8 * config.MIB)
    running = native.Native(0, stores.open_store(tmp_path / "s"))
    running.start()
    identity = NodeIdentity("n0", Identity(0, running.store_uuid, running.boot_id), "host", "life")
    configs = MemoryConfigStore()
    register_node(configs, NodeConfig("n0", 0, "/nowhere", running.store_uuid, boot_id=running.boot_id))
    volume = create_volume(configs, VolumeOptions("w", config.MIB, 1))
    control = NodeControl(identity, running.engine, configs, lambda node: False, 0.0)

    def not_in_time(engine: Engine, number: int) -> None:
        raise errors.StoreFailedError("no checkpoint in 60 s")

    with monkeypatch.context() as patch:
        patch.setattr(native, "wait_for", not_in_time)
        control.poll_config(0.0)
    assert control.health.faults == {"copy of w": "no checkpoint in 60 s"}
    yield RealNode(running.engine, configs, control, volume.index)
    running.stop()


@pytest.mark.fault("disk: slow, what makes a new copy durable takes longer than its node waits",
                   promise="the copy is used as soon as it is durable")
def test_a_copy_that_was_not_durable_in_time_is_used_when_it_is(impatient: RealNode) -> None:
    native.wait_for(impatient.engine, 2)
    impatient.control.tick(0.5)
    assert impatient.control.health.faults == {}
    assert impatient.engine.checkpoints > 2            # the copy was not taken for durable unseen
    wait_until(impatient.leads, "it leads its volume")


def test_a_copy_that_was_not_durable_in_time_is_deleted_with_its_volume(impatient: RealNode) -> None:
    delete_volume(impatient.configs, "w")
    impatient.control.poll_config(1.0)
    assert impatient.engine.volume_indexes() == []


def test_a_death_that_was_proved_says_nothing_of_the_process_that_follows(cluster: FakeCluster) -> None:
    """Node 0 comes back, and node 2 has no link to it: as primary it would have its grace period."""
    index = cluster.volume("v").index
    cluster.kill(cluster.machines[0])
    watcher = cluster.machines[2]
    cluster.run_control(watcher)
    assert watcher.control is not None
    dead = watcher.control.policies[index].here.dead
    assert dead == {0}
    cluster.start(cluster.machines[0])
    cluster.run_control(watcher)
    assert dead == set()


# ---------------------------------------------------------------------------------- questions

def answer_to(cluster: FakeCluster, question: bytes) -> inquiry.Answer | None:
    """What node 0 says to what stands as a question to it."""
    inquiry.put(cluster.store, inquiry.ASK_PREFIX + "n0", question)
    cluster.run_control(cluster.machines[0])
    entry = cluster.store.get(inquiry.ANSWER_PREFIX + "n0")
    return None if entry is None else msgspec.json.decode(entry.value, type=inquiry.Answer)


def asked(**fields: object) -> bytes:
    return json.dumps({"serial": "s", "what": "explain", "index": 1, "numbers": {}} | fields).encode()


def knows(cluster: FakeCluster, answer: Callable[[inquiry.Inquiry], dict[str, object]]) -> None:
    control = cluster.machines[0].control
    assert control is not None
    control.answer = answer


def raising(error: BaseException) -> Callable[[inquiry.Inquiry], dict[str, object]]:
    def answer(question: inquiry.Inquiry) -> dict[str, object]:
        raise error

    return answer


@pytest.mark.fault("input: a question that a node cannot understand",
                   promise="answered with an error, the node goes on")
@pytest.mark.parametrize("question", [
    b'{"serial":"s"}', asked(index="one"), asked(index=1.5), asked(index=None), asked(what=["explain"]),
    asked(numbers=[1]), asked(numbers={"lba": "x"}), asked(numbers={"lba": 1e300}), asked(what=None),
    asked(what="w" * 60_000), asked(what="\0" * 10_000), asked().replace(b"explain", b"\xff"),
    asked(index=0).replace(b"0", b"9" * 60_000)])
def test_a_question_that_is_not_understood_is_answered_with_an_error(
        cluster: FakeCluster, question: bytes) -> None:
    knows(cluster, lambda known: raising(LookupError(f"{known.what!r} means nothing"))(known))
    answer = answer_to(cluster, question)
    assert answer is not None
    assert answer.serial == "s"
    assert answer.error
    knows(cluster, lambda known: {"fine": 1})
    assert answer_to(cluster, asked(serial="next")) == inquiry.Answer("next", value={"fine": 1})


@pytest.mark.fault("input: a question that a node cannot understand",
                   promise="answered with an error, the node goes on")
@pytest.mark.parametrize("question", [
    b"", b"no question", b"[]", b"{}", b'{"serial":1}', b'{"serial":"\xff"}', b'{"x":' * 10_000,
    b'{"serial":"s","x":' + b"[" * 60_000, asked(serial="s" * 65)])
def test_what_is_no_question_is_no_more_than_a_fault(cluster: FakeCluster, question: bytes) -> None:
    assert answer_to(cluster, question) is None
    control = cluster.machines[0].control
    assert control is not None
    assert inquiry.ASK_PREFIX + "n0" in control.health.faults
    knows(cluster, lambda known: {"fine": 1})
    assert answer_to(cluster, asked()) == inquiry.Answer("s", value={"fine": 1})
    assert control.health.faults == {}


@pytest.mark.parametrize(("error", "said"), [
    (OverflowError("too large"), "OverflowError: too large"), (TypeError(), "TypeError: "),
    (MemoryError(), "MemoryError: "), (KeyError("lba"), "KeyError: 'lba'"), (ZeroDivisionError("x"), "x"),
    (RecursionError("deep"), "deep"), (AssertionError("a bug"), "AssertionError: a bug"),
    (ValueError("\ud800" * 60_000), r"\ud800"), (errors.NotFoundError("no such block"), "no such block")])
def test_whatever_is_raised_over_a_question_is_its_answer(
        cluster: FakeCluster, error: Exception, said: str) -> None:
    knows(cluster, raising(error))
    answer = answer_to(cluster, asked())
    assert answer is not None
    assert said in answer.error


@pytest.mark.parametrize("value", [{"a": object()}, {"a": "\ud800"}, {"a": "a" * VALUE_BYTES_MAX}])
def test_an_answer_that_cannot_be_written_down_is_an_error(
        cluster: FakeCluster, value: dict[str, object]) -> None:
    knows(cluster, lambda known: value)
    answer = answer_to(cluster, asked())
    assert answer is not None
    assert answer.error


def test_a_question_that_cannot_be_answered_yet_is_looked_at_again(cluster: FakeCluster) -> None:
    knows(cluster, raising(BlockingIOError("a page is being read")))
    assert answer_to(cluster, asked()) is None
    knows(cluster, lambda known: {"fine": 1})
    cluster.run_control(cluster.machines[0])
    assert inquiry.is_answered(cluster.store, "n0", "s")


def test_a_question_that_was_answered_with_an_error_is_none_for_the_next_life(cluster: FakeCluster) -> None:
    knows(cluster, raising(OverflowError("too large")))
    answer_to(cluster, asked())
    cluster.kill(cluster.machines[0])
    cluster.start(cluster.machines[0])
    knows(cluster, lambda known: {"fine": 1})
    cluster.run_control(cluster.machines[0])
    entry = cluster.store.get(inquiry.ANSWER_PREFIX + "n0")
    assert entry is not None
    assert b"too large" in entry.value


@pytest.mark.parametrize("standing", [b"no answer", b'{"serial":"\xff"}', b'{"serial":1}', b'{"x":' * 10_000])
def test_an_answer_that_nobody_can_read_is_replaced(cluster: FakeCluster, standing: bytes) -> None:
    knows(cluster, lambda known: {"fine": 1})
    inquiry.put(cluster.store, inquiry.ANSWER_PREFIX + "n0", standing)
    assert answer_to(cluster, asked()) == inquiry.Answer("s", value={"fine": 1})
