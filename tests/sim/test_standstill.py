"""Who stands still takes nobody else along: a member, a volume, the control side."""
from __future__ import annotations

import mmap

import numpy as np
import pytest

from repstore import config
from repstore._fast.layout import (
    FRAME_APPEND,
    FRAME_COPY,
    FRAME_LEARN,
    FRAME_REPLY,
    FRAME_REQUEST,
    frame_header_t,
    request_meta_t,
)
from repstore._fast.simulated import Send
from repstore.sim.clock import NS_PER_S
from repstore.sim.cluster import SimulatedCluster
from repstore.sim.workload import IO, READ, TRIM, WRITE, Ask, SimulatedClient
from tests.fuzz import frames
from tests.sim.bad_blocks import UnreadableBlocks, location
from tests.sim.rules import apart, cluster_of, on_the_way, sent_by, together
from tests.sim.scenarios import LIMIT_S, VOLUME

OTHER = "other"


@pytest.mark.parametrize("batches", [8, 40])
@pytest.mark.fault("process: a member that is stopped, its link up",
                   promise="the buffers that it was lent come back, all volumes go on")
def test_a_member_that_stands_still_takes_no_log_buffers_with_it(batches: int) -> None:
    """n2 is stopped (SIGSTOP), and its link stays. It is ejected, and the volumes go on."""
    cluster = SimulatedCluster(11, nodes=3)
    cluster.create_volume(VOLUME, 512, copies=2, min_copies=1)
    cluster.create_volume("other", 64, copies=1)
    cluster.run_until(lambda: cluster.is_healthy(VOLUME) and cluster.is_healthy("other"), LIMIT_S)
    client = cluster.client(VOLUME, through="n1", depth=64, asks=iter([Ask(WRITE, 0, 1)]))
    other = cluster.client("other", through="n1", depth=1, asks=iter([Ask(WRITE, 0, 1)]))
    cluster.run_until(lambda: client.is_done and other.is_done, LIMIT_S)
    cluster.life("n2").stop_until(cluster.clock.now_ns + 100 * NS_PER_S)
    cluster.network.cut("n1", "n2")            # its socket is full
    for i in range(batches):
        client.ask_more([Ask(WRITE, 8 * i, 8)])
        cluster.run_for(0.002)
    cluster.run_until(lambda: len(cluster.volume(VOLUME).in_sync) == 1, LIMIT_S)
    other.ask_more([Ask(WRITE, 1, 1)])
    cluster.run_until(lambda: client.is_done and other.is_done, LIMIT_S)


@pytest.mark.fault("process: a copy that is stopped while it returns, its link up",
                   promise="the buffers that it was lent come back, all volumes go on")
def test_a_copy_that_stands_still_while_it_returns_takes_no_log_buffers_with_it() -> None:
    """The same of a learner, of which nobody waits for an answer."""
    cluster = SimulatedCluster(18, nodes=3)
    cluster.create_volume(VOLUME, 512, copies=2, min_copies=1)
    cluster.run_until(lambda: cluster.is_healthy(VOLUME), LIMIT_S)
    client = cluster.client(VOLUME, through="n1", depth=64, asks=iter([Ask(WRITE, 0, 8)]))
    cluster.run_until(lambda: client.is_done, LIMIT_S)
    cluster.kill("n2")
    cluster.run_until(lambda: len(cluster.volume(VOLUME).in_sync) == 1, LIMIT_S)
    client.ask_more(Ask(WRITE, 8 * i, 8) for i in range(40))
    cluster.run_until(lambda: client.is_done, LIMIT_S)
    learns = sent_by(cluster, "n1", FRAME_LEARN)
    cluster.start("n2")
    cluster.run_until(lambda: bool(learns), LIMIT_S)
    cluster.life("n2").stop_until(cluster.clock.now_ns + 100 * NS_PER_S)
    cluster.network.cut("n1", "n2")            # its socket is full
    for i in range(40):
        client.ask_more([Ask(WRITE, 8 * i, 8)])
        cluster.run_for(0.002)
    cluster.run_until(lambda: client.is_done, LIMIT_S)


def test_a_member_that_stands_still_takes_not_all_transfers_with_it() -> None:
    """n2 is back and is sent what it lacks, and stands still then. Another volume's copy on n3 comes back."""
    cluster = SimulatedCluster(19, nodes=3)
    cluster.create_volume(VOLUME, 512, copies=2, min_copies=1)
    cluster.create_volume("other", 64, copies=3, min_copies=1)
    cluster.run_until(lambda: cluster.is_healthy(VOLUME) and cluster.is_healthy("other"), LIMIT_S)
    client = cluster.client(VOLUME, through="n1", depth=256, overlaps=True, asks=iter([Ask(WRITE, 0, 8)]))
    other = cluster.client("other", through="n1", depth=8, asks=iter([Ask(WRITE, i, 1) for i in range(64)]))
    cluster.run_until(lambda: client.is_done and other.is_done, LIMIT_S)
    apart(cluster, "n1", "n2")
    cluster.run_for(0.05)
    client.ask_more(Ask(WRITE, i, 1) for i in range(200))
    cluster.run_for(0.5)
    stopped: list[int] = []

    def stop(sender: str, header: np.void, data: bytes) -> bytes:
        if sender == "n1" and header["type"] == FRAME_APPEND and header["volume"] == 1 and not stopped:
            stopped.append(1)
            cluster.network.cut("n1", "n2")    # its socket is full
            cluster.life("n2").stop_until(cluster.clock.now_ns + 300 * NS_PER_S)
        return data

    on_the_way(cluster, stop)
    together(cluster, "n1", "n2")
    cluster.run_until(lambda: bool(stopped), LIMIT_S)
    cluster.run_until(lambda: client.is_done, LIMIT_S)
    assert cluster.primary(VOLUME) == "n1"
    cluster.kill("n3")
    cluster.run_until(lambda: 2 not in cluster.volume("other").in_sync_nodes(), LIMIT_S)
    other.ask_more(Ask(WRITE, i, 1) for i in range(64))
    cluster.run_until(lambda: other.is_done, LIMIT_S)
    cluster.start("n3")
    cluster.run_until(lambda: 2 in cluster.volume("other").in_sync_nodes(), LIMIT_S)


def test_a_member_that_answers_again_is_not_ejected_later() -> None:
    """It was silent when it could not be spared. Since then it has acknowledged everything."""
    cluster = cluster_of(16, copies=3, min_copies=2)
    client = cluster.client(VOLUME, through="n1", asks=iter([Ask(WRITE, 0, 8)]))
    cluster.run_until(lambda: client.is_done, LIMIT_S)
    cluster.kill("n3")
    cluster.run_until(lambda: len(cluster.volume(VOLUME).in_sync) == 2, LIMIT_S)
    cluster.node("n2").disk.stall_until(cluster.clock.now_ns + 7 * NS_PER_S)
    client.ask_more([Ask(WRITE, 0, 8)])
    cluster.run_until(lambda: client.is_done, LIMIT_S)
    cluster.run_for(2)
    client.ask_more([Ask(WRITE, 8, 8)])
    cluster.run_until(lambda: client.is_done, 0.1)
    cluster.start("n3")
    cluster.run_until(lambda: 2 in cluster.volume(VOLUME).in_sync_nodes(), LIMIT_S)
    for _ in range(20):
        cluster.run_for(0.01)
        assert 1 in cluster.volume(VOLUME).in_sync_nodes()


@pytest.mark.fault("process: Python that stands still while thousands of errors are told",
                   promise="what somebody waits for is not lost")
def test_news_that_matter_are_not_lost_behind_news_that_do_not() -> None:
    """Python of n1 is held for two seconds (its GIL): nobody reads its events. A client goes on writing to a
    full volume meanwhile, and n2 comes back."""
    cluster = SimulatedCluster(10, nodes=3, store_bytes=2 << 20, segment_bytes=64 << 10)
    cluster.create_volume(VOLUME, 64, copies=2, min_copies=1)
    cluster.create_volume("other", 280, copies=1)
    cluster.run_until(lambda: cluster.is_healthy(VOLUME) and cluster.is_healthy("other"), LIMIT_S)
    client = cluster.client("other", through="n1", depth=64, asks=iter([]))
    client.may_fail = lambda span: True
    client._take_error = lambda operation, error: None      # type: ignore[method-assign]
    client.ask_more(Ask(WRITE, i, 1) for i in range(280))
    cluster.run_until(lambda: client.is_done, LIMIT_S)
    first = cluster.client(VOLUME, through="n1", asks=iter([Ask(WRITE, i, 1) for i in range(9)]))
    cluster.run_until(lambda: first.is_done, LIMIT_S)
    cluster.kill("n2")
    cluster.run_until(lambda: len(cluster.volume(VOLUME).in_sync) == 1, LIMIT_S)
    life = cluster.life("n1")
    life.hold_control_until(cluster.clock.now_ns + 2 * NS_PER_S)
    collect = life._collect_events
    life._collect_events = lambda: None        # type: ignore[method-assign]
    first._take_error = lambda operation, error: None       # type: ignore[method-assign]
    for _ in range(50):
        first.ask_more(Ask(WRITE, 10 + i % 50, 1) for i in range(100))
        cluster.run_for(0.01)
    assert life.engine.stats()["events_lost"] > 0
    cluster.start("n2")
    cluster.run_for(0.5)
    life._collect_events = collect             # type: ignore[method-assign]
    cluster.run_until(lambda: cluster.is_healthy(VOLUME), LIMIT_S)


def standing(count: int, through: str) -> tuple[SimulatedCluster, list[SimulatedClient], SimulatedClient]:
    """So many volumes that n1 leads lack copies, their clients have all under way they may; one is whole."""
    cluster = SimulatedCluster(14, nodes=3, store_bytes=64 << 20, segment_bytes=1 << 20)
    names = [f"stands{i}" for i in range(count)]
    for name in names:
        cluster.create_volume(name, 64, copies=2, min_copies=2)
    cluster.create_volume(OTHER, 64, copies=1)
    cluster.run_until(lambda: all(cluster.is_healthy(name) for name in [*names, OTHER]), LIMIT_S)
    assert {cluster.primary(name) for name in [*names, OTHER]} == {"n1"}
    other = cluster.client(OTHER, through=through, depth=64, asks=iter([]))
    waiting = [cluster.client(name, through=through, depth=5000, overlaps=True, asks=iter([]))
               for name in names]
    cluster.kill("n2")
    for k, client in enumerate(waiting):
        client.ask_more(Ask(WRITE, i % 64, 1) for i in range(4200 if count == 1 else (1100 >> k) + 16))
        cluster.run_for(0.1)
    cluster.run_for(1)
    return cluster, waiting, other


@pytest.mark.parametrize("through", ["n1", "n3"])
@pytest.mark.parametrize("count", [1, 13])
@pytest.mark.fault("process: volumes that wait for copies, with all under way that they may",
                   promise="the other volumes of the node go on")
def test_a_volume_that_stands_still_leaves_requests_to_the_others(count: int, through: str) -> None:
    """At its primary, and at the node of its clients. Of 13 each takes half of what is left: nothing."""
    cluster, waiting, other = standing(count, through)
    other.ask_more(Ask(WRITE, i % 64, 1) for i in range(640))
    for client in waiting:                     # who asks after it does not hold it up either
        client.ask_more([Ask(WRITE, 0, 1)])
    cluster.run_until(lambda: other.is_done, 1)
    assert all(client.flying for client in waiting)
    cluster.start("n2")
    cluster.run_until(lambda: all(client.is_done for client in waiting), LIMIT_S)
    for client in [*waiting, other]:
        cluster.check(client)


@pytest.mark.fault("process: a copy is killed of a volume on a small store that writes on without it",
                   promise="the records of other volumes have room")
def test_a_volume_that_stands_still_leaves_room_for_the_records_of_others() -> None:
    """What is uncommitted must fit into the root of a checkpoint: of a small store, the records of one volume
    could fill it."""
    cluster = cluster_of(20, copies=2, min_copies=2)
    cluster.create_volume(OTHER, 16, copies=1)
    cluster.run_until(lambda: cluster.is_healthy(OTHER), LIMIT_S)
    other = cluster.client(OTHER, through="n1", depth=4, asks=iter([]))
    waiting = cluster.client(VOLUME, through="n1", depth=1000, overlaps=True, asks=iter([]))
    cluster.kill("n2")
    waiting.ask_more(Ask(TRIM, i % 64, 1) for i in range(1000))
    cluster.run_for(0.5)
    other.ask_more(Ask(WRITE, i % 16, 1) for i in range(64))
    cluster.run_until(lambda: other.is_done, 1)
    cluster.start("n2")
    cluster.run_until(lambda: waiting.is_done, LIMIT_S)
    for client in (waiting, other):
        cluster.check(client)


@pytest.mark.fault("process: a copy is killed that alone has many blocks which are bad elsewhere",
                   promise="bad blocks of other volumes are mended meanwhile")
def test_a_volume_whose_copies_are_away_leaves_repairs_to_the_others() -> None:
    """Its bad blocks, many of them, wait for the copy that has them. Another volume has a bad one too."""
    cluster = SimulatedCluster(21, nodes=3)
    cluster.create_volume(VOLUME, 512, copies=2, min_copies=2)
    cluster.create_volume(OTHER, 64, copies=3, min_copies=1)
    cluster.run_until(lambda: cluster.is_healthy(VOLUME) and cluster.is_healthy(OTHER), LIMIT_S)
    other = cluster.client(OTHER, through="n1", asks=iter([Ask(WRITE, 0, 8)]))
    waiting = cluster.client(VOLUME, through="n1", depth=256,
                             asks=iter([Ask(WRITE, 8 * i, 8) for i in range(16)]))
    cluster.run_until(lambda: waiting.is_done and other.is_done, LIMIT_S)
    cluster.run_for(0.1)
    disk = UnreadableBlocks(cluster.node("n1").disk)
    disk.blocks.update(location(cluster, "n1", lba) for lba in range(128))
    disk.blocks.add(location(cluster, "n1", 0, volume=2))
    cluster.kill("n2")
    cluster.run_for(0.1)
    waiting.ask_more(Ask(READ, i, 1) for i in range(128))
    cluster.run_for(0.5)
    other.ask_more([Ask(READ, 0, 1)])
    cluster.run_until(lambda: other.is_done, 1)
    assert waiting.flying
    cluster.start("n2")
    cluster.run_until(lambda: waiting.is_done, LIMIT_S)
    for client in (waiting, other):
        cluster.check(client)


@pytest.mark.fault("process: a copy of many volumes is stopped while it returns, its link up",
                   promise="what it is sent takes no other copy's place")
def test_a_copy_that_stands_still_while_it_returns_takes_not_all_transfers_with_it() -> None:
    """n2 is back, is sent what four idle volumes have, and stands still. Then n3 comes back."""
    cluster = SimulatedCluster(22, nodes=3)
    names = [f"idle{i}" for i in range(4)]
    for name in names:
        cluster.create_volume(name, 512, copies=2, min_copies=1)
    cluster.create_volume(OTHER, 64, copies=3, min_copies=1)
    cluster.run_until(lambda: all(cluster.is_healthy(name) for name in [*names, OTHER]), LIMIT_S)
    clients = [cluster.client(name, through="n1", depth=8, asks=iter([Ask(WRITE, 0, 1)])) for name in names]
    other = cluster.client(OTHER, through="n1", depth=8, asks=iter([Ask(WRITE, 0, 1)]))
    cluster.run_until(lambda: all(client.is_done for client in [*clients, other]), LIMIT_S)
    for name in ("n2", "n3"):
        cluster.kill(name)
    cluster.run_until(lambda: all(len(cluster.volume(name).in_sync) == 1 for name in [*names, OTHER]),
                      LIMIT_S)
    for client in [*clients, other]:
        client.ask_more(Ask(WRITE, i, 1) for i in range(0, client.size_blocks, 2))
    cluster.run_until(lambda: all(client.is_done for client in [*clients, other]), LIMIT_S)
    begun: set[int] = set()

    def stop(sender: str, header: np.void, data: bytes) -> bytes:
        if sender == "n1" and header["type"] == FRAME_COPY:
            begun.add(int(header["volume"]))
            if len(begun) == 4:
                cluster.network.cut("n1", "n2")    # its socket is full
        return data

    on_the_way(cluster, stop)
    cluster.start("n2")
    cluster.run_until(lambda: len(begun) == 4, LIMIT_S)
    cluster.life("n2").stop_until(cluster.clock.now_ns + 300 * NS_PER_S)
    cluster.run_for(0.5)
    cluster.start("n3")
    cluster.run_until(lambda: 2 in cluster.volume(OTHER).in_sync_nodes(), LIMIT_S)


@pytest.mark.fault("process: a primary answers nothing, every export of a node asks it for much",
                   promise="less is under way than a link may queue")
def test_what_all_exports_ask_for_fits_into_the_queue_of_a_link() -> None:
    """Some ask for all they may, each of the others for one thing. A link that has more is cut for ever."""
    world = frames.World()
    world.connect(1)
    memory = mmap.mmap(-1, config.REQUEST_BYTES_MAX)
    asked_bytes = 0
    send = world._answer

    def listen(ask: object) -> None:
        nonlocal asked_bytes
        if isinstance(ask, Send):
            header = np.frombuffer(ask.data[:frame_header_t.itemsize], frame_header_t)[0]
            asked_bytes += len(ask.data) * (header["type"] == FRAME_REQUEST)
        send(ask)                              # type: ignore[arg-type]

    world._answer = listen                     # type: ignore[method-assign]
    calls = []
    for i in range(config.EXPORTS_MAX):
        ios = np.zeros(max(1, 64 >> i), IO)
        ios["kind"], ios["length"] = WRITE, len(memory)
        ios["export_id"] = world.engine.export_install(10 + i, f"v{i}", len(memory), 1)
        world.engine.set_primary(10 + i, 1, 1)
        calls.append((world.engine.start(ios.view(np.uint8), memory, len(ios)), ios))
        world.turn()
    assert asked_bytes > config.ASKED_BYTES_MAX + config.EXPORTS_MAX // 2 * config.REQUEST_BYTES_MAX
    assert asked_bytes < config.LINK_QUEUE_BYTES_MAX


@pytest.mark.fault("process: a client without a node is stopped, its link up",
                   promise="the requests whose answers it does not take come back")
def test_a_client_that_stands_still_takes_no_requests_with_it() -> None:
    """It reads, and is stopped; several of them would take all that the volume may have under way."""
    world = frames.World()
    for link in frames.LINKS:
        world.connect(link)
    frames.take_role(world, 3)                 # primary, the only copy
    lent: list[Send] = []
    send = world._answer

    def keep(ask: object) -> None:
        if isinstance(ask, Send) and ask.link == frames.CLIENT_LINK and ask.token:
            lent.append(ask)                   # its socket is full
        else:
            send(ask)                          # type: ignore[arg-type]

    world._answer = keep                       # type: ignore[method-assign]
    header, meta = np.zeros(1, frame_header_t), np.zeros(1, request_meta_t)
    header["volume"], header["session"], header["lsn"] = frames.VOLUME, 1, 1
    meta["kind"], meta["length"] = READ, 4096
    world.deliver(frames.CLIENT_LINK, frames.sealed(header, FRAME_REQUEST, meta.tobytes(), b""))
    world.settle()
    assert [np.frombuffer(ask.data[:frame_header_t.itemsize], frame_header_t)[0]["type"] for ask in lent] == [
        FRAME_REPLY]
    for _ in range(60):
        world.turn(NS_PER_S // 10)
    assert world.up == set(frames.LINKS) - {frames.CLIENT_LINK}
