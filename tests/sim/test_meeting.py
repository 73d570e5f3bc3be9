"""A fault of the simulator counts once, when something meets it, and not before."""
from __future__ import annotations

import msgspec
import pytest

from repstore.format import BLOCK_SIZE
from repstore.sim.clock import NS_PER_S, VirtualClock
from repstore.sim.faults import STRIKES, strike
from repstore.sim.meeting import Spans, Waiting
from repstore.sim.plan import MS, Fault, Plan, PlannedAsk, Setup, VolumePlan
from repstore.sim.run import run
from repstore.sim.scene import Scene
from repstore.sim.workload import FLUSH, READ, WRITE
from tests.sim.scenarios import healthy_cluster

LENGTH_S = 8
VOLUME = VolumePlan("v1", size_blocks=64, copies=3, min_copies=2, acknowledgement="dev", first_node=0,
                    through="n1", depth=4)
SETUP = Setup(nodes=3, store_kib=1024, segment_kib=64, quantum_ns=1, control_delay_most_ns=3 * MS,
              death_is_proved=True, atlas=True, bad_disk=1, stale_reads=False, drift_ppm=(0, 0, 0),
              volumes=(VOLUME,))
# what lies in wait for something that comes by
CLOCKED = ("cut one way", "cut off", "slow link", "rough links", "pause", "hold control", "stall",
           "slow disk", "config away", "config away for all", "config unknown", "config late", "config slow")
ARMED = ("write error", "full disk", "flush error", "forgetful flush", "lost write", "torn write",
         "misdirected write", "stale write", "read error", "reads fail")
AT_ONCE = ("kill", "kill all", "stop", "kill at start", "cut power", "cut power of all", "drop links",
           "half open", "rot", "bad sector", "rot metadata", "old superblock", "clock step", "move client")
AT_FIRST = ("rot", "bad sector", "rot metadata", "old superblock", "move client")     # share says where
RUNNING_ONLY = ("kill", "kill all", "stop", "kill at start", "cut power", "cut power of all", "pause",
                "hold control", "drop links", "half open", "clock step", "move client")


def busy(operations: int) -> Plan:
    """A run without faults whose client asks all the time."""
    kinds = (WRITE, WRITE, READ, FLUSH)
    asks = tuple(PlannedAsk(i * LENGTH_S * NS_PER_S // operations, 0, kinds[i % 4], i % 56,
                            0 if kinds[i % 4] == FLUSH else 8, False) for i in range(operations))
    return Plan(7, LENGTH_S * NS_PER_S, SETUP, (), asks)


def fault_of(kind: str, duration_s: float, node: str = "n2", share: float = 0.7) -> Fault:
    return Fault(0, kind, node, "n1", int(duration_s * NS_PER_S), share)


def counted(scene: Scene, kind: str) -> int:
    return scene.struck[kind] + sum(node.disk.counts[kind] for node in scene.nodes)


def test_every_kind_is_here() -> None:
    assert {*CLOCKED, *ARMED, *AT_ONCE} == STRIKES.keys()


@pytest.mark.parametrize("kind", CLOCKED)
def test_what_is_over_before_anything_meets_it_is_not_counted(kind: str) -> None:
    scene = Scene(busy(400))
    scene.cluster.run_for(0.1)
    strike(scene, fault_of(kind, 0))
    scene.cluster.run_for(3)
    assert counted(scene, kind) == 0
    scene.cluster.close()


@pytest.mark.parametrize("kind", [*CLOCKED, *ARMED])
def test_what_many_meet_is_counted_once(kind: str) -> None:
    """At n2, a member; n3 dies and returns meanwhile, so that there are swaps to be told."""
    scene = Scene(busy(400))
    scene.cluster.run_for(0.5)
    node = "n1" if kind == "config unknown" else "n2"
    # a stale write falls back before its place is written again
    strike(scene, fault_of(kind, 0.3 if kind == "stale write" else 3, node,
                           share=0.99 if kind == "config unknown" else 0.7))
    assert counted(scene, kind) == 0, "nothing has met it yet"
    scene.down.add("n3")
    scene.cluster.kill("n3")
    scene.cluster.run_for(0.5)
    if kind in ("read error", "reads fail"):
        scene.attach(scene.clients[0], 0, "n2")
        for name in ("n1", "n3"):                     # so that n2 leads, and reads
            if scene.cluster.node(name).life is not None:
                scene.cluster.kill(name)
            scene.down.add(name)
    scene.cluster.run_for(0.5)
    scene.start("n3")
    scene.start("n1")
    scene.cluster.run_for(4)
    assert counted(scene, kind) == 1
    scene.cluster.close()


@pytest.mark.parametrize("kind", RUNNING_ONLY)
def test_what_strikes_a_node_that_is_down_is_not_counted(kind: str) -> None:
    scene = Scene(busy(100))
    for node in scene.nodes:
        scene.down.add(node.name)
        node.kill()
    scene.cluster.run_for(0.1)
    strike(scene, fault_of(kind, 0.5))
    scene.cluster.run_for(0.2)
    assert counted(scene, kind) == 0
    scene.cluster.close()


@pytest.mark.parametrize("kind", AT_ONCE)
def test_what_strikes_what_is_there_is_counted(kind: str) -> None:
    scene = Scene(busy(400))
    scene.cluster.run_for(0.5)
    strike(scene, fault_of(kind, 0.2, share=0.0 if kind in AT_FIRST else 0.7))
    scene.cluster.run_for(0.1)
    assert counted(scene, kind) == 1
    scene.cluster.close()


def test_rot_where_nothing_was_ever_written_is_not_counted() -> None:
    scene = Scene(busy(1))
    disk = scene.cluster.node("n2").disk
    blocks = len(disk.image) // BLOCK_SIZE
    empty = next(block for block in range(blocks)
                 if not any(disk.image[block * BLOCK_SIZE:(block + 1) * BLOCK_SIZE]))
    strike(scene, fault_of("rot metadata", 1, share=(empty + 0.5) / blocks))
    assert counted(scene, "rot metadata") == 0
    scene.cluster.close()


def test_a_cut_that_ends_before_another_of_the_same_way_ends_both() -> None:
    """The network has one way, and it is free again: neither meets anything afterwards."""
    met: list[str] = []
    cluster = healthy_cluster(3)
    network = cluster.network
    network.cut("n1", "n2", lambda: met.append("one"))
    network.cut("n1", "n2", lambda: met.append("other"))
    network.mend([("n1", "n2")])
    cluster.run_for(2)
    assert met == []
    network.cut("n1", "n2", lambda: met.append("third"))
    cluster.run_for(2)
    assert met == ["third"]


def test_one_that_takes_anothers_place_is_met_instead() -> None:
    met: list[str] = []
    waiting = Waiting()
    waiting.put("slow", lambda: met.append("one"))
    waiting.put("slow", lambda: met.append("other"))
    waiting.meet("slow")
    waiting.meet("slow")
    assert met == ["other"]


def test_spans_are_met_while_they_last() -> None:
    met: list[int] = []
    clock, spans = VirtualClock(), Spans()
    for length in (10, 30):
        spans.add(clock.now_ns + length, lambda length=length: met.append(length))
    spans.meet(clock.now_ns + 20)
    spans.meet(clock.now_ns + 25)
    assert met == [30]


def test_messages_and_swaps_are_effects_of_a_fault_and_not_faults() -> None:
    rough = fault_of("rough links", 4, share=0.99)
    outcome = run(msgspec.structs.replace(busy(400), faults=(rough,)))
    assert outcome.failure == ""
    assert outcome.faults == {"rough links": 1}
    assert outcome.effects.keys() <= {f"message {what}" for what in ("dropped", "doubled", "swapped")}
    assert sum(outcome.effects.values()) > 5


def test_a_kind_that_nothing_meets_is_no_fault_of_a_run() -> None:
    faults = tuple(fault_of(kind, 0) for kind in CLOCKED)
    outcome = run(msgspec.structs.replace(busy(100), faults=faults))
    assert (outcome.failure, outcome.faults) == ("", {})
