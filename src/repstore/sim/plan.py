"""Everything that a seed decides, as a list that can be read, shortened and run again.

    plan = draw(seed)            the same on every machine
    run(plan)                    see `run`

A seed first draws a world and a subset of the faults (swarm testing: runs that leave most faults
out reach states which runs with all of them never do), then the faults and the operations, each
with its time. Nothing else is planned: what a disk or a link does in detail is drawn from
streams of the same seed as it happens, so leaving out one entry changes no other.
"""
from __future__ import annotations

from collections.abc import Sequence
from random import Random

import msgspec

from repstore import config, errors
from repstore.format import BLOCK_SIZE
from repstore.sim.clock import NS_PER_S
from repstore.sim.workload import (
    BLOCKS_MOST,
    FLUSH,
    KIND_NAMES,
    LARGE_BLOCKS_MOST,
    READ,
    TRIM,
    WRITE,
    WRITE_ZEROES,
)
from repstore.store import geometry

SEED_MAX = 2**63 - 1
NO_NODE = -1
MS = 1_000_000
LONGEST_FAULT_S = 8.0
SHORTEST_FAULT_S = 0.005

# what strikes, by room: a seed draws some kinds of each room it draws
PROCESS = ("kill", "kill all", "stop", "kill at start", "cut power", "cut power of all", "pause",
           "hold control")
LINKS = ("drop links", "cut one way", "cut off", "slow link", "half open", "rough links")
CONFIG = ("config away", "config away for all", "config unknown", "config late", "config slow")
DISK = ("write error", "full disk", "flush error", "stall", "slow disk")
READS = ("reads fail",)          # not for as long as a store is patient: nothing is lost
DATA_HERE = ("rot", "bad sector")                       # of blocks of data, told apart by volume and block
DATA_DISK = ("rot metadata", "lost write", "misdirected write", "torn write", "stale write",
             "old superblock", "read error", "forgetful flush")     # a disk that nobody can trust
CLOCK = ("clock step",)
CLIENT = ("move client",)
KINDS = (*PROCESS, *LINKS, *CONFIG, *DISK, *READS, *DATA_HERE, *DATA_DISK, *CLOCK, *CLIENT)
CRASHES = frozenset({"kill", "kill all", "kill at start", "cut power", "cut power of all"})

GEOMETRIES = ((1024, 64), (1024, 64), (2048, 64), (2048, 128), (4096, 128))      # KiB of store and segment
DRIFT_PPM_MOST = 20_000
STEP_S_MOST = 0.25            # the grace period leaves that, with the drift of two clocks
FAR_STEP_S_MOST = 20.0
FAILING_READS_SHARE = 0.3     # of seeds
OVERLAPS_SHARE = 0.4          # of volumes whose client has operations under way that share blocks
LARGE_SHARE = 0.03            # of operations
SECTORS_SHARE = 0.25          # of volumes whose client works in sectors
SECTOR_BYTES = 512
COMPANION_SHARE = 0.7         # of faults of the coordination store that come with a crash
COMPANION_BEFORE_NS = 40 * MS
COMPANION_AFTER_NS = 500 * MS

# of a plan that was written by hand; a seed draws far less
LENGTH_NS_MOST = 3600 * NS_PER_S
LATE_NS_MOST = 1 * NS_PER_S   # of an operation after everything was healed: it is waited for
QUANTUM_NS_MOST = 10 * MS
CONTROL_DELAY_NS_MOST = 1 * NS_PER_S
STORE_KIB_MOST = 64 * 1024    # each is all in memory
VOLUMES_MOST = 2              # whose pages fit the smallest store
DEPTH_MOST = 64


class VolumePlan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One volume and its client."""
    name: str
    size_blocks: int
    copies: int
    min_copies: int
    acknowledgement: config.Acknowledgement
    first_node: int
    through: str              # node that its client begins with
    depth: int
    overlaps: bool = False    # operations under way may share blocks
    block_bytes: int = BLOCK_SIZE     # of what the client calls a block: a sector may be less

    @property
    def client_blocks(self) -> int:
        """The volume's size as the client counts."""
        return self.size_blocks * BLOCK_SIZE // self.block_bytes

    def blocks_of(self, span: range) -> range:
        """The volume's blocks in which the client's lie."""
        return range(span.start * self.block_bytes // BLOCK_SIZE,
                     -(-span.stop * self.block_bytes // BLOCK_SIZE))


class Setup(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The world of one run."""
    nodes: int
    store_kib: int
    segment_kib: int
    quantum_ns: int
    control_delay_most_ns: int
    death_is_proved: bool     # nodes can see that another's process is gone
    atlas: bool               # damage never strikes all copies of a block
    bad_disk: int             # node whose disk may lose and misplace data, or NO_NODE
    stale_reads: bool         # clocks step further than leases allow for
    drift_ppm: tuple[int, ...]
    volumes: tuple[VolumePlan, ...]


class Fault(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One thing that goes wrong; what it does not need is there all the same."""
    at_ns: int                # after the cluster was healthy
    kind: str
    node: str
    other: str
    duration_ns: int
    share: float              # from 0 to 1: how much, or where

    def __str__(self) -> str:
        return (f"{self.kind} ({self.node}, {self.other}, {self.duration_ns / NS_PER_S:.3f} s, "
                f"{self.share:.3f})")


class PlannedAsk(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One operation of a client."""
    at_ns: int
    volume: int               # number in the plan
    kind: int
    first: int
    blocks: int
    fua: bool


class Plan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One run."""
    seed: int
    length_ns: int            # from then on everything is healed
    setup: Setup
    faults: tuple[Fault, ...]
    asks: tuple[PlannedAsk, ...]


def encode(plan: Plan) -> bytes:
    """JSON of a plan."""
    return msgspec.json.format(msgspec.json.encode(plan), indent=1)


def decode(data: bytes, where: str) -> Plan:
    """The plan in `data`, or ConfigError."""
    try:
        plan = msgspec.json.decode(data, type=Plan)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise errors.ConfigError(f"{where} is not a plan: {error}") from None
    check(plan, where)
    return plan


def check(plan: Plan, where: str) -> None:
    """Refuse what cannot be run, and what would be called a failure though nothing is broken."""
    try:
        config.check_range("seed", plan.seed, 0, SEED_MAX)
        config.check_range("length_ns", plan.length_ns, 1, LENGTH_NS_MOST)
        _check_setup(plan.setup)
        for volume in plan.setup.volumes:
            _check_volume(volume, plan.setup)
        for fault in plan.faults:
            _check_fault(fault, plan)
        for ask in plan.asks:
            _check_ask(ask, plan)
    except errors.ConfigError as error:
        raise errors.ConfigError(f"{where}: {error}") from None


def _check_setup(setup: Setup) -> None:
    config.check_range("nodes", setup.nodes, config.NODES_MIN, config.NODES_MAX)
    config.check_range("store_kib", setup.store_kib, config.STORE_BYTES_MIN // config.KIB, STORE_KIB_MOST)
    config.check_range("quantum_ns", setup.quantum_ns, 1, QUANTUM_NS_MOST)
    config.check_range("control_delay_most_ns", setup.control_delay_most_ns, 0, CONTROL_DELAY_NS_MOST)
    config.check_range("bad_disk", setup.bad_disk, NO_NODE, setup.nodes - 1)
    config.check_range("number of drift_ppm", len(setup.drift_ppm), setup.nodes, setup.nodes)
    for drift_ppm in setup.drift_ppm:
        config.check_range("drift_ppm", drift_ppm, -DRIFT_PPM_MOST, DRIFT_PPM_MOST)
    config.check_range("number of volumes", len(setup.volumes), 1, VOLUMES_MOST)
    if len({volume.name for volume in setup.volumes}) < len(setup.volumes):
        raise errors.ConfigError(f"volume name {setup.volumes[0].name!r}: each must have its own")
    options = config.StoreOptions(setup.store_kib * config.KIB, setup.segment_kib * config.KIB)
    room_blocks = geometry.choose(options).capacity_bytes // BLOCK_SIZE
    size_blocks = sum(volume.size_blocks for volume in setup.volumes)
    config.check_range("size_blocks of all volumes", size_blocks, 1, room_blocks)


def _check_volume(volume: VolumePlan, setup: Setup) -> None:
    config.check_name(volume.name)
    config.check_range("size_blocks", volume.size_blocks, 1, config.STORE_BLOCKS_MAX)
    config.check_range("copies", volume.copies, config.COPIES_MIN, min(setup.nodes, config.COPIES_MAX))
    # one that may lose what it acknowledged must not be all there is
    least = 1 if setup.bad_disk == NO_NODE else 2
    config.check_range("min_copies", volume.min_copies, least, volume.copies)
    config.check_range("first_node", volume.first_node, 0, setup.nodes - 1)
    config.check_range("depth", volume.depth, 1, DEPTH_MOST)
    _check_node("through", volume.through, setup)
    if volume.block_bytes not in (SECTOR_BYTES, BLOCK_SIZE):
        raise errors.ConfigError(f"block_bytes {volume.block_bytes}: must be {SECTOR_BYTES} or {BLOCK_SIZE}")


def _check_node(what: str, name: str, setup: Setup) -> None:
    if name not in _names(setup):
        raise errors.ConfigError(f"{what} {name!r}: must be n1 to n{setup.nodes}")


def _check_fault(fault: Fault, plan: Plan) -> None:
    setup = plan.setup
    if fault.kind not in KINDS:
        raise errors.ConfigError(f"fault kind {fault.kind!r}: must be one of {', '.join(KINDS)}")
    _check_node("node of a fault", fault.node, setup)
    _check_node("other node of a fault", fault.other, setup)
    config.check_range("at_ns of a fault", fault.at_ns, 0, plan.length_ns)
    config.check_range("duration_ns of a fault", fault.duration_ns, 0, int(LONGEST_FAULT_S * NS_PER_S))
    if not 0 <= fault.share < 1:                   # not true of NaN, either
        raise errors.ConfigError(f"share {fault.share} of a fault: must be 0 to less than 1")
    if fault.kind in DATA_DISK and fault.node != f"n{setup.bad_disk + 1}":
        raise errors.ConfigError(f"{fault.kind!r} of {fault.node}: must strike bad_disk, {setup.bad_disk}")


def _check_ask(ask: PlannedAsk, plan: Plan) -> None:
    config.check_range("volume of an ask", ask.volume, 0, len(plan.setup.volumes) - 1)
    volume = plan.setup.volumes[ask.volume]
    if ask.kind not in KIND_NAMES:
        known = ", ".join(f"{kind} ({name})" for kind, name in KIND_NAMES.items())
        raise errors.ConfigError(f"ask kind {ask.kind}: must be one of {known}")
    config.check_range("at_ns of an ask", ask.at_ns, 0, plan.length_ns + LATE_NS_MOST)
    config.check_range("blocks of an ask", ask.blocks, 0 if ask.kind == FLUSH else 1, LARGE_BLOCKS_MOST)
    if not 0 <= ask.first <= volume.client_blocks - ask.blocks:
        raise errors.ConfigError(f"blocks {ask.first}+{ask.blocks} of an ask: must be "
                                 f"0 to {volume.client_blocks - 1}")
    step = BLOCK_SIZE // volume.block_bytes
    if ask.kind in (TRIM, WRITE_ZEROES) and (ask.first % step or ask.blocks % step):
        raise errors.ConfigError(f"blocks {ask.first}+{ask.blocks} of an ask of kind {ask.kind}: "
                                 f"must be multiples of {step}")


def _names(setup: Setup) -> list[str]:
    return [f"n{number + 1}" for number in range(setup.nodes)]


# ----------------------------------------------------------------------------- drawing one

def draw(seed: int) -> Plan:
    """The plan of a seed."""
    if not 0 <= seed <= SEED_MAX:
        raise errors.ConfigError(f"seed {seed}: must be 0 to {SEED_MAX}")
    random = Random(f"plan {seed}")
    setup = _draw_setup(random)
    kinds = _draw_kinds(random, setup)
    length_ns = int(random.choice([2.0, 4.0, 8.0, 16.0]) * NS_PER_S)
    faults = _draw_faults(random, setup, kinds, length_ns)
    if any(fault.kind in DATA_DISK for fault in faults) and setup.bad_disk == NO_NODE:
        raise AssertionError("damage without a disk for it")
    asks = _draw_asks(random, setup, faults, length_ns)
    faults += _draw_failing_reads(Random(f"reads {seed}"), setup, length_ns)
    faults = tuple(sorted(faults, key=lambda fault: (fault.at_ns, fault.kind)))
    return Plan(seed, length_ns, setup, faults, asks)


def _draw_setup(random: Random) -> Setup:
    nodes = random.choice([2, 3, 3, 3, 3, 4])
    store_kib, segment_kib = random.choice(GEOMETRIES)
    chosen = geometry.choose(config.StoreOptions(store_kib * config.KIB, segment_kib * config.KIB))
    room_blocks = chosen.capacity_bytes // BLOCK_SIZE * 7 // 10
    count = random.choice([1, 1, 1, 2])
    volumes = tuple(_draw_volume(random, number, nodes, room_blocks // count) for number in range(count))
    least = min(volume.min_copies for volume in volumes)
    atlas = random.random() < 0.7
    # who loses what was acknowledged, and does not know it, must never be all there is
    bad_disk = random.randrange(nodes) if least >= 2 and random.random() < 0.5 else NO_NODE
    drifts = tuple(random.randint(-DRIFT_PPM_MOST, DRIFT_PPM_MOST) for _ in range(nodes))
    return Setup(
        nodes=nodes, store_kib=store_kib, segment_kib=segment_kib,
        quantum_ns=random.choice([1, 1000, 50_000, 200_000]),
        control_delay_most_ns=random.choice([100_000, 3_000_000, 50_000_000]),
        death_is_proved=random.random() < 0.6, atlas=atlas, bad_disk=bad_disk,
        stale_reads=random.random() < 0.1,
        drift_ppm=drifts if random.random() < 0.3 else (0,) * nodes, volumes=volumes)


def _draw_volume(random: Random, number: int, nodes: int, room_blocks: int) -> VolumePlan:
    copies = random.choice([1, 2, 3, 3, 3, 3] if nodes >= 3 else [1, 2, 2])
    min_copies = max(1, copies - 1) if random.random() < 0.8 else random.randint(1, copies)
    return VolumePlan(
        name=f"v{number + 1}", size_blocks=random.randint(max(16, room_blocks // 3), room_blocks),
        copies=copies, min_copies=min_copies, acknowledgement="durable" if random.random() < 0.15 else "dev",
        first_node=random.randrange(nodes), through=f"n{random.randint(1, nodes)}",
        depth=random.choice([1, 4, 4, 8]), overlaps=random.random() < OVERLAPS_SHARE,
        block_bytes=SECTOR_BYTES if random.random() < SECTORS_SHARE else BLOCK_SIZE)


def _draw_kinds(random: Random, setup: Setup) -> list[str]:
    """A subset of the faults; each room is left out by some seeds."""
    kinds = _some(random, PROCESS, 0.95)
    for room, share in ((LINKS, 0.5), (CONFIG, 0.4), (DISK, 0.4), (CLOCK, 0.2), (CLIENT, 0.3)):
        kinds += _some(random, room, share)
    if setup.bad_disk != NO_NODE:
        kinds += _some(random, (*DATA_DISK, *DATA_HERE), 0.9)
    elif not setup.atlas or all(volume.min_copies > 1 for volume in setup.volumes):
        kinds += _some(random, DATA_HERE, 0.5)
    return kinds or ["kill"]


def _some(random: Random, room: Sequence[str], share: float) -> list[str]:
    if random.random() >= share:
        return []
    return random.sample(room, random.randint(1, len(room)))


def _draw_faults(random: Random, setup: Setup, kinds: list[str], length_ns: int) -> tuple[Fault, ...]:
    faults = [_draw_fault(random, setup, kinds, length_ns) for _ in range(random.randint(5, 12))]
    crashes = [kind for kind in kinds if kind in CRASHES]
    if crashes and not any(fault.kind in CRASHES for fault in faults):
        faults[0] = msgspec.structs.replace(faults[0], kind=random.choice(crashes))
    for fault in [fault for fault in faults if fault.kind in CONFIG]:
        if random.random() < COMPANION_SHARE:
            faults.append(_draw_companion(random, setup, fault, crashes or ["kill"], length_ns))
    return tuple(sorted(faults, key=lambda fault: (fault.at_ns, fault.kind)))


def _draw_failing_reads(random: Random, setup: Setup, length_ns: int) -> tuple[Fault, ...]:
    """Beside everything else, and of each disk once: two behind each other may outlast the patience."""
    if random.random() >= FAILING_READS_SHARE:
        return ()
    names = _names(setup)
    return tuple(msgspec.structs.replace(_draw_fault(random, setup, list(READS), length_ns), node=name)
                 for name in random.sample(names, random.randint(1, len(names))))


def _draw_fault(random: Random, setup: Setup, kinds: list[str], length_ns: int) -> Fault:
    kind = random.choice(kinds)
    names = _names(setup)
    node, other = random.sample(names, 2)
    if kind in DATA_DISK or (kind in DATA_HERE and setup.bad_disk != NO_NODE):
        node = names[setup.bad_disk]
    # as many short ones as long ones
    duration_s = SHORTEST_FAULT_S * (LONGEST_FAULT_S / SHORTEST_FAULT_S) ** random.random()
    return Fault(random.randrange(length_ns), kind, node, other, int(duration_s * NS_PER_S), random.random())


def _draw_companion(random: Random, setup: Setup, fault: Fault, crashes: list[str],
                    length_ns: int) -> Fault:
    """A crash that makes somebody ask the coordination store while `fault` is on, which alone meets few."""
    crash = _draw_fault(random, setup, crashes, length_ns)
    at_ns = fault.at_ns + random.randint(-COMPANION_BEFORE_NS, min(fault.duration_ns, COMPANION_AFTER_NS))
    return msgspec.structs.replace(crash, node=fault.other, other=fault.node,
                                   at_ns=min(max(0, at_ns), length_ns - 1))


def _draw_asks(random: Random, setup: Setup, faults: Sequence[Fault],
               length_ns: int) -> tuple[PlannedAsk, ...]:
    """Operations in bursts; most of them around a fault, so that it strikes work under way."""
    shares = {WRITE: random.randint(30, 80), READ: random.randint(5, 40), TRIM: random.randint(0, 10),
              WRITE_ZEROES: random.randint(0, 10), FLUSH: random.randint(0, 10)}
    kinds, weights = list(shares), list(shares.values())
    fua_share = random.choice([0.0, 0.05, 0.5])
    hot_share = random.random()                    # of operations on an eighth of the blocks
    asks: list[PlannedAsk] = []
    count = random.randint(450, 750)
    while len(asks) < count:
        if faults and random.random() < 0.8:
            begin_ns = random.choice(faults).at_ns + random.randint(-60 * MS, 20 * MS)
        else:
            begin_ns = random.randrange(length_ns)
        begin_ns = min(max(0, begin_ns), length_ns)
        step_ns = random.choice([0, 0, 1 * MS, 10 * MS])
        number = random.randrange(len(setup.volumes))
        size_blocks, block_bytes = setup.volumes[number].client_blocks, setup.volumes[number].block_bytes
        for i in range(random.choice([4, 16, 64])):
            kind = random.choices(kinds, weights)[0]
            most = LARGE_BLOCKS_MOST if random.random() < LARGE_SHARE else BLOCKS_MOST
            blocks = 0 if kind == FLUSH else random.randint(1, min(most, size_blocks))
            reach = max(blocks, BLOCKS_MOST, size_blocks // 8) if random.random() < hot_share else size_blocks
            first = 0 if kind == FLUSH else random.randint(0, reach - blocks)
            if kind in (TRIM, WRITE_ZEROES):       # whole blocks of the volume
                step = BLOCK_SIZE // block_bytes
                first, blocks = first // step * step, -(-blocks // step) * step
            fua = kind not in (READ, FLUSH) and random.random() < fua_share
            asks.append(PlannedAsk(begin_ns + i * step_ns, number, kind, first, blocks, fua))
    return tuple(sorted(asks, key=lambda ask: ask.at_ns))
