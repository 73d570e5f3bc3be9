"""What a store presents as its boot: a power cut taints, a process's death does not; and what that leaves."""
import ctypes
import gc
import itertools
import mmap

import numpy as np
import pytest

from repstore import config
from repstore._fast.simulated import DiskWrite
from repstore.format import BLOCK_SIZE
from repstore.sim.cluster import SimulatedCluster
from repstore.sim.durability import RecordedVolume, write
from repstore.sim.engine import open_engine
from repstore.sim.local import VOLUME_INDEX, LocalVolume, PlainDisk, Request
from repstore.sim.node import StartCrash
from repstore.sim.workload import FLUSH, IO, WRITE, Ask
from repstore.store import geometry
from repstore.store.device import MemoryDevice
from repstore.store.store import format_device, open_device
from tests.sim.rules import cluster_of, endless_writes
from tests.sim.scenarios import LIMIT_S, VOLUME, healthy_cluster

NAMES = ("n1", "n2", "n3")
BOOT_ID = bytes(16)
SMALL_STORE_BYTES = 32 * config.MIB
SIZE_BLOCKS = 256


def boot_of(cluster: SimulatedCluster, name: str) -> str:
    number = cluster.node(name).number
    member = cluster.volume(VOLUME).member(number)
    assert member is not None, f"{name} is not in sync"
    return member.boot_id


def restart(cluster: SimulatedCluster, name: str) -> None:
    cluster.start(name)
    cluster.run_until(lambda: cluster.is_healthy(VOLUME), LIMIT_S)
    cluster.run_for(1)


def test_a_process_that_dies_after_a_power_cut_is_not_a_second_power_cut() -> None:
    cluster = healthy_cluster(1)
    cluster.client(VOLUME, through="n2")
    first = boot_of(cluster, "n1")
    cluster.cut_power("n1")
    restart(cluster, "n1")
    second = boot_of(cluster, "n1")
    assert second != first
    for _ in range(2):
        cluster.kill("n1")
        restart(cluster, "n1")
        assert boot_of(cluster, "n1") == second


def test_the_loss_of_all_processes_after_a_power_cut_of_each_loses_nothing() -> None:
    cluster = healthy_cluster(2)
    client = cluster.client(VOLUME, through="n2")
    for name in ("n1", "n2", "n3"):
        cluster.cut_power(name)
        restart(cluster, name)
    cluster.attach(client, VOLUME, through="n3")
    cluster.run_for(0.1)
    for name in ("n1", "n2", "n3"):
        cluster.kill(name)
    for name in ("n1", "n2", "n3"):
        cluster.start(name)
    cluster.run_until(lambda: cluster.is_healthy(VOLUME), LIMIT_S)
    assert cluster.volume(VOLUME).incarnation == 0
    cluster.attach(client, VOLUME, through="n1")
    cluster.check(client)


@pytest.mark.parametrize("back", [("n1", "n2"), ("n1", "n2", "n3")])
def test_machines_that_reboot_behind_a_clean_stop_have_lost_nothing(back: tuple[str, ...]) -> None:
    """Maintenance of all: enough of them lead again, one staying away, and no client's session ends."""
    cluster = healthy_cluster(1)
    client = cluster.client(VOLUME, through="n1", asks=iter([Ask(WRITE, 0, 8), Ask(WRITE, 8, 8)]))
    cluster.run_until(lambda: client.is_done, LIMIT_S)
    before = cluster.volume(VOLUME)
    for name in NAMES:
        cluster.node(name).stop()
    for name in NAMES:
        cluster.node(name).cut_power()
    for name in back:
        cluster.start(name)
    cluster.run_until(lambda: cluster.volume(VOLUME).epoch > before.epoch, LIMIT_S)
    cluster.run_for(1)
    volume = cluster.volume(VOLUME)
    assert volume.incarnation == before.incarnation
    assert len(volume.in_sync) >= len(back)
    cluster.attach(client, VOLUME, through="n1")
    cluster.check(client)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_member_that_reboots_behind_a_clean_stop_stays_while_its_primary_lives(seed: int) -> None:
    """The primary hears its question before it has read which boot it told: nobody learns anew (L6)."""
    cluster = SimulatedCluster(seed, nodes=3)
    cluster.create_volume(VOLUME, SIZE_BLOCKS, copies=2, min_copies=2)
    cluster.run_until(lambda: cluster.is_healthy(VOLUME), LIMIT_S)
    client = cluster.client(VOLUME, through="n3", depth=4, asks=endless_writes())
    cluster.run_for(0.5)
    other = "n2" if cluster.primary(VOLUME) == "n1" else "n1"
    cluster.node(other).stop()
    cluster.node(other).cut_power()
    cluster.run_for(0.3)
    cluster.start(other)
    answered = client.acknowledged
    for _ in range(300):
        cluster.run_for(0.01)
        assert len(cluster.volume(VOLUME).in_sync) == 2
    assert client.acknowledged > answered
    cluster.attach(client, VOLUME, through="n1")
    cluster.check(client)


@pytest.mark.fault("crash: an older state of a store is put back", promise="the loss is told")
@pytest.mark.parametrize("then", ["power_cut", "power_cut_and_a_start_dies", "same_boot", "later_boot"])
def test_an_older_state_of_a_store_that_is_put_back_was_not_closed_last(then: str) -> None:
    """It says that it was closed cleanly in the boot that the config knows, or in this one, and so it was:
    before it was opened again, and written. A new incarnation tells what is missing in it (V6, B4)."""
    cluster = SimulatedCluster(1, nodes=3)
    cluster.create_volume(VOLUME, SIZE_BLOCKS, copies=1, min_copies=1)
    cluster.run_until(lambda: cluster.is_healthy(VOLUME), LIMIT_S)
    client = cluster.client(VOLUME, through="n3", asks=iter([Ask(WRITE, 0, 8), Ask(FLUSH)]))
    cluster.run_until(lambda: client.is_done, LIMIT_S)
    name = cluster.primary(VOLUME)
    node = cluster.node(name)
    node.stop()
    kept = bytes(node.disk.image)
    if then == "later_boot":
        node.cut_power()
    cluster.start(name)
    cluster.run_until(lambda: cluster.is_healthy(VOLUME), LIMIT_S)
    client.ask_more([Ask(WRITE, 8, 8), Ask(FLUSH)])
    cluster.run_until(lambda: client.is_done, LIMIT_S)
    before = cluster.volume(VOLUME)
    node.stop()
    if then.startswith("power_cut"):
        node.cut_power()
    node.disk.image[:] = kept
    if then == "power_cut_and_a_start_dies":
        with pytest.raises(StartCrash):
            node.start(crash_after=0)
    cluster.start(name)
    cluster.run_until(lambda: cluster.volume(VOLUME).epoch > before.epoch, LIMIT_S)
    assert cluster.volume(VOLUME).incarnation == before.incarnation + 1


@pytest.mark.parametrize("clean", [True, False])
def test_only_a_store_that_was_closed_cleanly_says_in_which_boot(clean: bool) -> None:
    """And only of another boot than this one; a tainted one says by which name it went."""
    layout = geometry.choose(config.StoreOptions(SMALL_STORE_BYTES))
    image = bytearray(layout.size_bytes)
    format_device(MemoryDevice(image), layout, store_uuid=bytes(range(16)), boot_id=BOOT_ID)
    presented = BOOT_ID
    for boot, same in ((1, False), (1, True), (2, False)):
        opened = open_device(MemoryDevice(image), "store", boot_id=bytes([boot] * 16), life_id=boot)
        assert opened.closed_boot_id == (presented if not same and (clean or presented == BOOT_ID) else b"")
        volume = LocalVolume(PlainDisk(image), boot_id=bytes([boot] * 16), life_id=boot)
        volume.engine.settle(clean=clean)
        presented = opened.boot_id


def test_a_life_writes_nothing_to_its_log_before_its_name_is_durable() -> None:
    """Recovery would look for the batches of the life before it."""
    dead = RecordedVolume(size_blocks=64)
    dead.run([write(0, 8)])
    engine, _ = open_engine(dead.disk.image, "store", number=0, boot_id=bytes(16), life_id=77)
    state = engine.volume_state(VOLUME_INDEX)
    engine.lead(VOLUME_INDEX, state.epoch + 1, 1, [], 1, 1, False, state.session + 1)
    engine.export_install(VOLUME_INDEX, state.name, 64 * BLOCK_SIZE, state.session + 1)
    engine.set_primary(VOLUME_INDEX, 0, state.epoch + 1)
    ios, disk = np.zeros(1, IO), PlainDisk(dead.disk.image)
    ios["kind"], ios["length"], ios["export_id"] = WRITE, BLOCK_SIZE, engine.exports[VOLUME_INDEX]
    call = engine.start(ios.view(np.uint8), mmap.mmap(-1, BLOCK_SIZE), 1)
    segments = dead.geometry.segment_start(0) * BLOCK_SIZE
    superblocks = {block * BLOCK_SIZE for block in dead.geometry.superblock_positions}
    now_ns, logged = 1, 0
    while not call.done:
        now_ns += 1000
        engine.backend.turn(now_ns)
        for ask in engine.backend.take():
            if isinstance(ask, DiskWrite) and ask.offset >= segments and ask.offset not in superblocks:
                assert engine.checkpoints > 0
                logged += 1
            disk.begin(ask)
            engine.backend.disk_done(ask.operation, *disk.finish(ask.operation))
    assert logged > 0
    call.end()


class HeapUse(ctypes.Structure):
    """struct mallinfo2 of glibc."""
    _fields_ = [(name, ctypes.c_size_t) for name in (
        "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks",
        "keepcost")]


@pytest.mark.parametrize("role", ["primary", "replica"])
def test_a_change_bitmap_that_is_begun_while_a_checkpoint_is_written_is_not_in_it(role: str) -> None:
    """The root was laid out without it: its place belongs to the next volume. Whenever it comes."""
    for pumps in itertools.count():
        layout = geometry.choose(config.StoreOptions(SMALL_STORE_BYTES))
        image = bytearray(layout.size_bytes)
        format_device(MemoryDevice(image), layout, store_uuid=bytes(range(16)), boot_id=BOOT_ID)
        volume = LocalVolume(PlainDisk(image), boot_id=BOOT_ID, life_id=1, create_blocks=512)
        engine = volume.engine
        for index in (2, 3):
            engine.volume_create(index, bytes([index] * 16).hex(), f"volume{index}", 512)
        volume.run([Request(WRITE, 0, 8, True, 1)])
        volume.settle()
        wanted = engine.checkpoint()
        for _ in range(pumps):
            volume.pump()
        if engine.checkpoints >= wanted:
            break
        if role == "replica":
            engine.follow(2, 1, 1, True)
        else:
            engine.lead(2, 1, 1, [(1, 0)], 2, 1, False, 1)
        engine.wait_for_checkpoint(wanted)
        opened = open_device(MemoryDevice(image), "store", boot_id=BOOT_ID, life_id=2)
        assert [each.name for each in opened.root.volumes] == ["volume", "volume2", "volume3"]
    assert pumps > 5


def heap_bytes() -> int:
    """What is in use of the memory that C code asked for."""
    gc.collect()
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallinfo2"):
        pytest.skip("this C library has no mallinfo2")
    libc.mallinfo2.restype = HeapUse
    use = libc.mallinfo2()
    return int(use.uordblks + use.hblkhd)


def test_an_engine_that_ends_in_the_middle_of_its_work_gives_its_memory_back() -> None:
    """Requests, blocks on their way to a copy that comes back: each holds a buffer."""
    used_bytes = []
    for _ in range(4):
        cluster = cluster_of(1, copies=3, min_copies=1)
        cluster.client(VOLUME, through="n1", asks=endless_writes(), depth=8)
        cluster.run_for(0.1)
        for node in cluster.world.nodes.values():
            cluster.kill(node.name)
        cluster.close()
        del cluster, node
        used_bytes.append(heap_bytes())
    assert used_bytes[-1] - used_bytes[1] < 100_000        # in each of two, eight writes of 16 KiB
