"""One planned run, from a healthy cluster to the verdict.

    outcome = run(draw(seed))
    outcome.failure            what was broken, empty: nothing

  R1 The cluster becomes healthy, then faults strike and clients ask at the times of the plan,
     then everything is healed.
  R2 From then on it must converge: every operation is answered within CONVERGE_S of virtual time,
     and every copy is in sync again within as much more. Where a store does not open any more and nothing may
     replace it, a copy may never come back, and with too few copies nothing is answered: right
     data, or none.
  R3 Then everything is read, through the clients and from the disks. With an atlas nothing of it may
     be an error: to the clients at once, on the disks when every copy has been scrubbed.
"""
from __future__ import annotations

import traceback
from collections import Counter
from dataclasses import dataclass, field
from functools import partial

from repstore import config
from repstore._fast import inspection
from repstore.sim.clock import NS_PER_S
from repstore.sim.faults import strike
from repstore.sim.oracles import Oracle
from repstore.sim.plan import Fault, Plan
from repstore.sim.scene import Scene
from repstore.sim.trace import Trace
from repstore.sim.workload import FLUSH, Ask

CONVERGE_S = 60.0
REST_S = 20.0
CHECK_NS = 50_000_000         # between two looks of the oracle at everything
SCRUB_BYTES_S = 64 * config.MIB
SETTLE_S = 3.0                # a lease, so that no stale read is about


@dataclass
class Outcome:
    """What came of one run."""
    seed: int
    failure: str = ""                   # the first thing that was broken
    detail: str = ""                    # where in our code it was noticed
    simulated_s: float = 0.0
    operations: int = 0
    errors: int = 0                     # answers that were errors, each of them due
    crashes: int = 0
    faults: dict[str, int] = field(default_factory=dict)     # by kind, those that met something
    effects: dict[str, int] = field(default_factory=dict)    # how often, of what one fault does several times
    trace: Trace | None = None


def run(plan: Plan) -> Outcome:
    """Carry out a plan. A failure is a result; only an interrupt comes through."""
    outcome = Outcome(plan.seed)
    scene: Scene | None = None
    try:
        scene = Scene(plan)
        outcome.trace = scene.cluster.trace
        oracle = Oracle(scene)
        play(scene, oracle)
        oracle.check_histories()
    except Exception as error:
        broken = isinstance(error, AssertionError)
        outcome.failure = str(error) if broken else f"{type(error).__name__}: {error}"
        outcome.detail = traceback.format_exc()
    finally:
        if scene is not None:
            scene.cluster.close()
    if scene is not None:
        _count(outcome, scene)
    return outcome


def play(scene: Scene, oracle: Oracle) -> None:
    """Have happen what is planned, then heal everything, and the oracle look at it. AssertionError: a promise
    is broken."""
    plan, cluster = scene.plan, scene.cluster
    clock = cluster.clock

    def watch() -> None:
        oracle.check()
        clock.after(CHECK_NS, watch)

    watch()
    cluster.on_volume_config = lambda: clock.soon(oracle.check)
    for fault in plan.faults:
        clock.at(scene.began_ns + fault.at_ns, partial(_strike, scene, oracle, fault))
    cluster.run_for(plan.length_ns / NS_PER_S)
    scene.heal()
    if scene.condemned:
        if cluster.comes_to(lambda: _all_done(scene), CONVERGE_S):
            _read_everything(scene)
        return
    cluster.run_until(lambda: _all_done(scene) or scene.is_given_up(), CONVERGE_S,
                      lambda: f"{_unanswered(scene)} (liveness)")
    cluster.run_until(lambda: scene.all_healthy() or scene.is_given_up(), CONVERGE_S,
                      lambda: f"{_unhealthy(scene)} (liveness)")
    if scene.is_given_up():
        return
    scene.damage.unread = False                # what failed for a while can be read again
    if plan.setup.atlas:
        scene.damage.must_recover = True
    _read_everything(scene)
    cluster.run_until(lambda: _all_done(scene), CONVERGE_S, lambda: f"{_unanswered(scene)} (liveness)")
    if plan.setup.atlas and scene.damage.any:
        _scrub_everything(scene)
    cluster.run_until(oracle.copies_rest, REST_S, lambda: "copies do not come to rest (liveness)")
    oracle.check()
    oracle.compare_copies()


def _all_done(scene: Scene) -> bool:
    return all(client.is_done for client in scene.clients)


def _strike(scene: Scene, oracle: Oracle, fault: Fault) -> None:
    if scene.is_healed:
        return
    if fault.kind.startswith("cut power"):
        scene.damage.power_was_cut = True
    strike(scene, fault)
    oracle.check()


def _read_everything(scene: Scene) -> None:
    """Flush, let leases pass, and read every block through the clients."""
    cluster = scene.cluster
    cluster.run_for(SETTLE_S)
    for client in scene.clients:
        client.stale_reads = False
        client.ask_more([Ask(FLUSH), *client.all_blocks()])
    cluster.comes_to(lambda: _all_done(scene), CONVERGE_S)


def _scrub_everything(scene: Scene) -> None:
    """Have every copy of every volume read, and what is bad in it mended. What was read is then what the
    next process finds: without a checkpoint it has older blocks too, until it hears of newer ones' commit."""
    for number in range(len(scene.plan.setup.volumes)):
        for life in [node.life for node in scene.nodes if node.life is not None]:
            index = scene.clients[number].index
            if index in life.engine.volume_indexes():
                inspection.scrub_start(life.engine, index, 0, SCRUB_BYTES_S)
                life.run()
        scene.cluster.run_until(lambda: not _is_mending(scene), CONVERGE_S,
                                lambda: "a scrub does not end (liveness)")
    for node in scene.nodes:
        if node.life is not None and not node.life.engine.failed:
            node.life.engine.settle()


def _is_mending(scene: Scene) -> bool:
    """Whether a scrub runs, or a block that one met is being repaired."""
    return any(inspection.scrub_state(node.life.engine)[0] or node.life.engine.stats()["repairs"]
               for node in scene.nodes if node.life is not None)


def _unanswered(scene: Scene) -> str:
    return "; ".join(f"{volume.name}: {client.flying} operations are not answered through {client.through}"
                     for volume, client in scene.configs() if not client.is_done)


def _unhealthy(scene: Scene) -> str:
    configs = [scene.cluster.volume(volume.name) for volume in scene.plan.setup.volumes]
    return "; ".join(f"{config.name}: in sync {config.in_sync_nodes()} of {config.copies} copies"
                     for config in configs if len(config.in_sync) < config.copies)


def _count(outcome: Outcome, scene: Scene) -> None:
    cluster = scene.cluster
    outcome.simulated_s = scene.seconds()
    outcome.operations = sum(client.acknowledged + client.errors for client in scene.clients)
    outcome.errors = sum(client.errors for client in scene.clients)
    outcome.crashes = scene.crashes
    counts: Counter[str] = Counter(scene.struck)
    for node in scene.nodes:
        counts += node.disk.counts
    outcome.faults = dict(sorted(counts.items()))
    outcome.effects = {
        **{f"message {what}": count for what, count in sorted(cluster.network.struck.items())},
        **{f"unknown swap {what}": count for what, count in sorted(cluster.config_faults.struck.items())}}
    drifting = sum(drift_ppm != 0 for drift_ppm in scene.plan.setup.drift_ppm)
    if drifting:
        outcome.effects["clock that drifts"] = drifting
    if scene.replaced_disks:
        outcome.effects["replaced disk"] = scene.replaced_disks

