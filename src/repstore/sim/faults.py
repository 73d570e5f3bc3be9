"""What goes wrong, one function a kind: it strikes now, and ends by itself.

    strike(scene, fault)

  F1 A fault counts once, when it first affects something: at once where it strikes what is there (a
     process, a connection, blocks of data), else when something meets it (`met`): a message that is
     cut off, late or lost, a call that is refused or late, a disk operation that is put off, work
     that waits for a process that stands still. What waits in a disk for one operation is counted by
     the disk. One that meets nothing until it is over (a node that is down already, a cut that
     nobody sent into) is not counted.
  F2 Everything a fault does is drawn from its own numbers and the streams of the seed.
"""
from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeVar

from repstore.format import BLOCK_SIZE
from repstore.sim import plan as plans
from repstore.sim.atlas import DataBlock, data_blocks
from repstore.sim.clock import NS_PER_S
from repstore.sim.meeting import Met
from repstore.sim.network import Roughness
from repstore.sim.node import NodeLife, SimulatedNode
from repstore.sim.plan import Fault
from repstore.sim.scene import Scene

START_OPERATIONS_MOST = 24    # of the disk, until a small store has its first checkpoint
SLOW_LINK_NS_MOST = 2_000_000_000
SLOW_CONFIG_NS_MOST = 2_000_000_000     # of a request, and of its answer
SLOW_DISK_FACTOR_MOST = 200
ROUGH_SHARE_MOST = 0.2
BLOCKS_STRUCK_MOST = 6        # by one rot or bad sector: damage comes in neighbourhoods
Number = TypeVar("Number", int, float)


def strike(scene: Scene, fault: Fault) -> None:
    """Have a fault happen now."""
    scene.note("{}", fault)
    STRIKES[fault.kind](scene, fault, scene.counted(fault))


def _running(scene: Scene, name: str) -> NodeLife | None:
    return scene.cluster.node(name).life


def _after(scene: Scene, fault: Fault, action: Callable[[], None]) -> None:
    scene.cluster.clock.after(fault.duration_ns, action)


def _until_ns(scene: Scene, fault: Fault) -> int:
    return scene.cluster.clock.now_ns + fault.duration_ns


# ------------------------------------------------------------------------------- processes

def _crash(scene: Scene, names: list[str], fault: Fault, how: Callable[[SimulatedNode], None],
           met: Met) -> None:
    """End these processes, and start them again one by one after the fault."""
    victims = [name for name in names if _running(scene, name) is not None]
    for name in victims:
        scene.down.add(name)
        scene.crashes += 1
        met()
        how(scene.cluster.node(name))
    for i, name in enumerate(scene.random.sample(victims, len(victims))):
        at_ns = _until_ns(scene, fault) + int(i * fault.share * NS_PER_S)
        scene.cluster.clock.at(at_ns, partial(scene.start, name))


def kill(scene: Scene, fault: Fault, met: Met) -> None:
    _crash(scene, [fault.node], fault, SimulatedNode.kill, met)


def kill_all(scene: Scene, fault: Fault, met: Met) -> None:
    _crash(scene, [node.name for node in scene.nodes], fault, SimulatedNode.kill, met)


def cut_power(scene: Scene, fault: Fault, met: Met) -> None:
    _crash(scene, [fault.node], fault, SimulatedNode.cut_power, met)


def cut_power_of_all(scene: Scene, fault: Fault, met: Met) -> None:
    _crash(scene, [node.name for node in scene.nodes], fault, SimulatedNode.cut_power, met)


def kill_at_start(scene: Scene, fault: Fault, met: Met) -> None:
    """The process is killed, and killed again while it recovers."""
    if _running(scene, fault.node) is None:
        return
    met()
    scene.down.add(fault.node)
    scene.crashes += 1
    scene.cluster.kill(fault.node)
    _after(scene, fault, lambda: scene.start(fault.node, int(fault.share * START_OPERATIONS_MOST)))


def stop(scene: Scene, fault: Fault, met: Met) -> None:
    """The node is stopped; half of them with their machine, which boots anew."""
    life = _running(scene, fault.node)
    if life is None or life.is_stopped:
        return
    met()
    scene.down.add(fault.node)
    scene.cluster.node(fault.node).stop()
    if fault.share >= 0.5:
        scene.cluster.node(fault.node).cut_power()
    _after(scene, fault, lambda: scene.start(fault.node))


def pause(scene: Scene, fault: Fault, met: Met) -> None:
    life = _running(scene, fault.node)
    if life is not None:
        life.stop_until(_until_ns(scene, fault), met)


def hold_control(scene: Scene, fault: Fault, met: Met) -> None:
    life = _running(scene, fault.node)
    if life is not None:
        life.hold_control_until(_until_ns(scene, fault), met)


# ----------------------------------------------------------------------------------- links

def drop_links(scene: Scene, fault: Fault, met: Met) -> None:
    scene.cluster.network.drop(fault.node, fault.other, met)


def _cut(scene: Scene, fault: Fault, ways: list[tuple[str, str]], met: Met) -> None:
    network = scene.cluster.network
    for way in ways:
        network.cut(*way, met)
    _after(scene, fault, lambda: network.mend(ways))


def cut_one_way(scene: Scene, fault: Fault, met: Met) -> None:
    _cut(scene, fault, [(fault.node, fault.other)], met)


def cut_off(scene: Scene, fault: Fault, met: Met) -> None:
    others = [node.name for node in scene.nodes if node.name != fault.node]
    _cut(scene, fault, [way for other in others for way in ((fault.node, other), (other, fault.node))], met)


def slow_link(scene: Scene, fault: Fault, met: Met) -> None:
    network = scene.cluster.network
    network.slow(fault.node, fault.other, int(SLOW_LINK_NS_MOST * fault.share ** 3), met)
    _after(scene, fault, lambda: network.slow(fault.node, fault.other, 0))


def half_open(scene: Scene, fault: Fault, met: Met) -> None:
    if scene.cluster.network.open_half(fault.node, fault.other, _until_ns(scene, fault)):
        met()


def rough_links(scene: Scene, fault: Fault, met: Met) -> None:
    network = scene.cluster.network
    share = ROUGH_SHARE_MOST * fault.share ** 2
    network.roughen(Roughness(drop=share / 4, double=share, swap=share), met)
    _after(scene, fault, lambda: network.roughen(Roughness()))


# ---------------------------------------------------------------------------- config store

def _away(scene: Scene, fault: Fault, names: list[str], met: Met) -> None:
    faults = scene.cluster.config_faults
    faults.away.update(names)
    for name in names:
        faults.waiting.add(("away", name), met)

    def back() -> None:
        faults.away.difference_update(names)
        for name in names:
            faults.waiting.over(("away", name))

    _after(scene, fault, back)


def _shape(scene: Scene, fault: Fault, what: str, values: dict[str, Number], value: Number, met: Met) -> None:
    """What a node meets at the store is this while the fault lasts."""
    waiting = scene.cluster.config_faults.waiting
    values[fault.node] = value
    waiting.put((what, fault.node), met)

    def end() -> None:
        values.pop(fault.node, None)
        waiting.over((what, fault.node))

    _after(scene, fault, end)


def config_away(scene: Scene, fault: Fault, met: Met) -> None:
    _away(scene, fault, [fault.node], met)


def config_away_for_all(scene: Scene, fault: Fault, met: Met) -> None:
    _away(scene, fault, [node.name for node in scene.nodes], met)


def config_unknown(scene: Scene, fault: Fault, met: Met) -> None:
    _shape(scene, fault, "unknown", scene.cluster.config_faults.unknown_share, fault.share, met)


def config_late(scene: Scene, fault: Fault, met: Met) -> None:
    lag_ns = int(fault.share * 2 * NS_PER_S)
    _shape(scene, fault, "late", scene.cluster.config_faults.watch_lag_ns, lag_ns, met)


def config_slow(scene: Scene, fault: Fault, met: Met) -> None:
    most_ns = 1 + int(SLOW_CONFIG_NS_MOST * fault.share ** 2)
    _shape(scene, fault, "slow", scene.cluster.config_faults.slow_most_ns, most_ns, met)


# ---------------------------------------------------------------------- disks that say so

def _arm_write(how: str) -> Callable[[Scene, Fault, Met], None]:
    def arm(scene: Scene, fault: Fault, met: Met) -> None:
        if how in ("eio", "enospc"):
            scene.damage.fenced = True
        else:
            scene.damage.anywhere = scene.damage.metadata = True
        scene.cluster.node(fault.node).disk.faults.writes.append(how)
    return arm


def stale_write(scene: Scene, fault: Fault, met: Met) -> None:
    disk = scene.cluster.node(fault.node).disk
    _arm_write("stale")(scene, fault, met)
    _after(scene, fault, lambda: scene.note("{} stale writes fall back", disk.fall_back()))


def flush_error(scene: Scene, fault: Fault, met: Met) -> None:
    scene.damage.fenced = True
    scene.cluster.node(fault.node).disk.faults.flushes.append("fails")


def forgetful_flush(scene: Scene, fault: Fault, met: Met) -> None:
    scene.damage.fenced = scene.damage.anywhere = scene.damage.metadata = True
    scene.cluster.node(fault.node).disk.faults.flushes.append("forgets")


def stall(scene: Scene, fault: Fault, met: Met) -> None:
    scene.cluster.node(fault.node).disk.stall_until(_until_ns(scene, fault), met)


def slow_disk(scene: Scene, fault: Fault, met: Met) -> None:
    faults = scene.cluster.node(fault.node).disk.faults
    faults.slow_factor = 1 + int(SLOW_DISK_FACTOR_MOST * fault.share ** 2)
    faults.waiting.put("slow", met)
    _after(scene, fault, lambda: setattr(faults, "slow_factor", 1))


def reads_fail(scene: Scene, fault: Fault, met: Met) -> None:
    """A client may be told an error meanwhile, and nothing may be lost by it."""
    scene.damage.unread = True
    faults = scene.cluster.node(fault.node).disk.faults
    faults.reads_fail = True
    faults.waiting.put("reads fail", met)

    def end() -> None:
        faults.reads_fail = False
        faults.waiting.over("reads fail")

    _after(scene, fault, end)


def read_error(scene: Scene, fault: Fault, met: Met) -> None:
    scene.damage.anywhere = scene.damage.metadata = True
    faults, reads = scene.cluster.node(fault.node).disk.faults, 1 + int(fault.share * 3)
    faults.failing_reads += reads
    faults.reads_met.extend([met] * reads)


# -------------------------------------------------------------------------- damaged blocks

def _victims(scene: Scene, fault: Fault) -> list[DataBlock]:
    """Some neighbouring blocks of data that may be damaged there."""
    node = scene.cluster.node(fault.node)
    blocks = [block for block in data_blocks(node.disk.image) if scene.damage.may_strike(node.number, block)]
    first = int(fault.share * len(blocks))
    count = 1 + fault.duration_ns % BLOCKS_STRUCK_MOST
    return blocks[first:first + count]


def rot(scene: Scene, fault: Fault, met: Met) -> None:
    """Bits of some blocks turn over."""
    disk = scene.cluster.node(fault.node).disk
    victims = _victims(scene, fault)
    for block in victims:
        byte = scene.random.randrange(BLOCK_SIZE)
        scene.note("rot in {} of volume {}, block {} at {}", fault.node, block.volume, block.lba,
                   block.location)
        disk.rot(block.location * BLOCK_SIZE + byte, 1 << scene.random.randrange(8))
        scene.damaged(block)
        met()


def bad_sector(scene: Scene, fault: Fault, met: Met) -> None:
    """Some blocks cannot be read any more, until they are written."""
    disk = scene.cluster.node(fault.node).disk
    victims = _victims(scene, fault)
    for block in victims:
        scene.note("bad sector in {} of volume {}, block {} at {}", fault.node, block.volume, block.lba,
                   block.location)
        disk.faults.unreadable.add(block.location)
        scene.damaged(block)
        met()


def rot_metadata(scene: Scene, fault: Fault, met: Met) -> None:
    """A bit of a superblock, a root, a page or a log header turns over."""
    disk = scene.cluster.node(fault.node).disk
    block = int(fault.share * (len(disk.image) // BLOCK_SIZE))
    scene.damage.anywhere = scene.damage.metadata = True
    if any(disk.image[block * BLOCK_SIZE:(block + 1) * BLOCK_SIZE]):
        met()                                         # else nothing was ever written there
    disk.rot(block * BLOCK_SIZE + scene.random.randrange(BLOCK_SIZE), 1 << scene.random.randrange(8))


def old_superblock(scene: Scene, fault: Fault, met: Met) -> None:
    """One copy, or two, are what they were before they were written last; both are valid."""
    disk = scene.cluster.node(fault.node).disk
    copies = sorted(disk.superseded.items())
    first = int(fault.share * len(copies))
    victims = [(block, data) for block, data in copies[first:first + 2] if data]
    for block, data in victims:
        scene.note("superblock at {} of {} is old", block, fault.node)
        disk.put_back(block * BLOCK_SIZE, data)
        met()
    scene.damage.anywhere = scene.damage.metadata = True


# ------------------------------------------------------------------------ clocks, clients

def clock_step(scene: Scene, fault: Fault, met: Met) -> None:
    """A little way, as leases allow for; or far, and then reads may be stale."""
    most_s = plans.FAR_STEP_S_MOST if scene.plan.setup.stale_reads else plans.STEP_S_MOST
    if not scene.plan.setup.stale_reads and scene.has_stepped:
        return                                        # the margin is for one
    scene.has_stepped = True
    scene.cluster.node(fault.node).clock.step(int((2 * fault.share - 1) * most_s * NS_PER_S))
    if _running(scene, fault.node) is not None:
        met()


def move_client(scene: Scene, fault: Fault, met: Met) -> None:
    number = int(fault.share * len(scene.clients))
    client = scene.clients[number]
    if _running(scene, fault.node) is None or client.is_attaching or (
            client.is_attached and client.through == fault.node):
        return
    scene.attach(client, number, fault.node, met)


STRIKES: dict[str, Callable[[Scene, Fault, Met], None]] = {
    "kill": kill, "kill all": kill_all, "stop": stop, "kill at start": kill_at_start, "cut power": cut_power,
    "cut power of all": cut_power_of_all, "pause": pause, "hold control": hold_control,
    "drop links": drop_links, "cut one way": cut_one_way, "cut off": cut_off, "slow link": slow_link,
    "half open": half_open, "rough links": rough_links,
    "config away": config_away, "config away for all": config_away_for_all,
    "config unknown": config_unknown, "config late": config_late,
    "config slow": config_slow,
    "write error": _arm_write("eio"), "full disk": _arm_write("enospc"), "flush error": flush_error,
    "stall": stall, "slow disk": slow_disk, "reads fail": reads_fail,
    "rot": rot, "bad sector": bad_sector,
    "rot metadata": rot_metadata, "lost write": _arm_write("lost"), "torn write": _arm_write("torn"),
    "misdirected write": _arm_write("misdirected"), "stale write": stale_write,
    "old superblock": old_superblock, "forgetful flush": forgetful_flush, "read error": read_error,
    "clock step": clock_step, "move client": move_client,
}
assert STRIKES.keys() == set(plans.KINDS)
