"""What no correct client, peer or disk does: a clear error, nothing changed, nothing lost."""
from __future__ import annotations

import contextlib
import random
import shutil
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from crc32c import crc32c

from repstore._fast import layout
from repstore.node import register_node
from repstore.store import superblock
from repstore.store.device import FileDevice
from tests.cluster.harness import MIB, VOLUME, WAIT_S, ClusterHarness, Shape, wait_until
from tests.cluster.nbd_client import NbdClient
from tests.nbd import wire

SMALL = Shape(store_bytes=32 * MIB, volume_bytes=16 * MIB)
BLOCK_BYTES = 4096
CLIENT_NODE = 0xFFFF
HALF_OPEN = 50
FRAMES = 3000

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterHarness]:
    with ClusterHarness(tmp_path_factory.mktemp("bad"), SMALL) as cluster:
        cluster.start()
        cluster.wait_in_sync()
        yield cluster
        assert not cluster.crashed()
        cluster.stop()
        assert len(set(cluster.copies_content().values())) == 1, "the copies differ"


@pytest.fixture
def client(cluster: ClusterHarness, replica: str) -> Iterator[NbdClient]:
    """Attached through a node that does not lead."""
    with cluster.connect(replica) as client:
        yield client


@pytest.fixture
def replica(cluster: ClusterHarness) -> str:
    """The first node that does not lead."""
    return next(name for name in cluster.names if name != cluster.primary())


# ------------------------------------------------------------------------------------ sockets

@contextlib.contextmanager
def untouched(cluster: ClusterHarness, client: NbdClient) -> Iterator[None]:
    """Whatever happens inside: who leads, who is in sync and what was written stay."""
    before = cluster.volume()
    data = random.Random(1).randbytes(MIB // 4)
    assert client.ask(wire.WRITE, MIB, payload=data).error == 0
    yield
    assert client.ask(wire.READ, MIB, len(data)).data == data
    assert client.ask(wire.WRITE, 2 * MIB, payload=data, flags=wire.FUA).error == 0
    assert client.ask(wire.READ, 2 * MIB, len(data)).data == data
    after = cluster.volume()
    assert (after.epoch, after.in_sync) == (before.epoch, before.in_sync)
    assert not cluster.crashed()


def connected(path: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(WAIT_S)
    connection.connect(path)
    return connection


def send_until_refused(path: str, data: bytes) -> None:
    """All of it, or as much as the other end takes; then wait until it has hung up, too."""
    with connected(path) as connection, contextlib.suppress(ConnectionError):
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(65536):
            pass


def frame(kind: int, meta: bytes = b"", body: bytes = b"", **fields: int) -> bytes:
    """A frame with a right checksum, whatever it says."""
    header = np.zeros(1, layout.frame_header_t)
    header["magic"], header["version"], header["type"] = layout.FRAME_MAGIC, layout.WIRE_VERSION, kind
    header["meta_bytes"], header["body_bytes"] = len(meta), len(body)
    for name, value in fields.items():
        header[name] = value
    header["crc"] = crc32c(header.tobytes() + meta)
    return header.tobytes() + meta + body


def client_hello() -> bytes:
    meta = np.zeros(1, layout.hello_meta_t)
    meta["node"] = CLIENT_NODE
    return frame(layout.FRAME_HELLO, meta.tobytes())


def wrong_crc() -> bytes:
    data = bytearray(client_hello())
    data[-1] ^= 1
    return bytes(data)


def newer_version() -> bytes:
    header = np.frombuffer(client_hello(), layout.frame_header_t, 1).copy()
    header["version"] = layout.WIRE_VERSION + 1
    return header.tobytes()


PEER_GARBAGE: dict[str, Callable[[random.Random], bytes]] = {
    "random": lambda chance: chance.randbytes(100_000),
    "zeros": lambda chance: bytes(100_000),
    "wrong checksum": lambda chance: wrong_crc(),
    "newer version": lambda chance: newer_version(),
    "huge lengths": lambda chance: struct.pack("<IIBBHII", layout.FRAME_MAGIC, 0, layout.FRAME_REQUEST, 0,
                                               layout.WIRE_VERSION, 2**32 - 1, 2**32 - 1) + bytes(100_000),
    "no hello": lambda chance: frame(layout.FRAME_REQUEST, bytes(24)),
    "hello of nobody": lambda chance: frame(
        layout.FRAME_HELLO, struct.pack("<16s16sQII", b"", b"", 0, 77, 0)),
    "hello of itself cut short": lambda chance: frame(layout.FRAME_HELLO, bytes(5)),
    "half a frame": lambda chance: client_hello()[:40],
    "a frame and a half": lambda chance: client_hello() + client_hello()[:70],
}
OPENED = wire.client_flags() + wire.go(VOLUME.encode())
NBD_GARBAGE: dict[str, Callable[[random.Random], bytes]] = {
    "random": lambda chance: chance.randbytes(100_000),
    "zeros": lambda chance: bytes(100_000),
    "unknown client flags": lambda chance: wire.client_flags(0xFFFFFFFF),
    "huge option": lambda chance: wire.client_flags() + struct.pack(
        ">QII", wire.OPTION_MAGIC, wire.GO, 2**32 - 1),
    "long name": lambda chance: wire.client_flags() + wire.go(b"x" * 4096),
    "unknown option": lambda chance: wire.client_flags() + wire.option(4711, b"abc"),
    "request magic": lambda chance: OPENED + chance.randbytes(5000),
    "request cut short": lambda chance: OPENED + wire.request(wire.WRITE, 0, 65536)[:20],
    "payload cut short": lambda chance: OPENED + wire.request(wire.WRITE, 3 * MIB, 65536) + bytes(30_000),
}
TAKES_OVER = {"request magic", "request cut short", "payload cut short"}     # by attaching, as it may


@pytest.mark.parametrize("what", PEER_GARBAGE)
@pytest.mark.fault("input: garbage from a peer", promise="the connection is closed, nothing else notices")
def test_garbage_on_a_peer_socket(cluster: ClusterHarness, client: NbdClient, what: str) -> None:
    with untouched(cluster, client):
        for name in cluster.names:
            send_until_refused(cluster.node(name).peer_socket, PEER_GARBAGE[what](random.Random(name)))


@pytest.mark.parametrize("what", NBD_GARBAGE)
@pytest.mark.fault("input: garbage from an NBD client",
                   promise="the connection is closed, nothing else notices")
def test_garbage_on_an_nbd_socket(
        cluster: ClusterHarness, client: NbdClient, replica: str, what: str) -> None:
    names = (replica,) if what in TAKES_OVER else cluster.names
    with untouched(cluster, client):
        for name in names:
            send_until_refused(cluster.nbd_path(name), NBD_GARBAGE[what](random.Random(name)))


@pytest.mark.fault("network: half-open connections", promise="they hold nothing up")
def test_half_open_connections_hold_nothing_up(cluster: ClusterHarness, client: NbdClient) -> None:
    with untouched(cluster, client), contextlib.ExitStack() as stack:
        for name in cluster.names:
            for number in range(HALF_OPEN):
                peer = stack.enter_context(connected(cluster.node(name).peer_socket))
                peer.sendall(client_hello()[:number])
                nbd = stack.enter_context(connected(cluster.nbd_path(name)))
                nbd.sendall(OPENED[:min(number, len(OPENED) - 1)])
        data = bytes([7]) * MIB
        assert client.ask(wire.WRITE, 0, payload=data).error == 0
        assert client.ask(wire.READ, 0, len(data)).data == data


@pytest.mark.fault("input: whole frames that make no sense",
                   promise="the connection is closed, nothing else notices")
def test_frames_that_are_whole_but_senseless(cluster: ClusterHarness, client: NbdClient) -> None:
    """From a client node, which may send requests and nothing else."""
    chance = random.Random(4711)
    kinds = [kind for name, kind in vars(layout).items()
             if name.startswith("FRAME_") and name not in (
                 "FRAME_MAGIC", "FRAME_HELLO", "FRAME_HEADER_BYTES", "FRAME_META_MAX", "FRAME_BODY_MAX")]
    epoch = cluster.volume().epoch
    index = cluster.volume().index
    with untouched(cluster, client):
        for name in cluster.names:
            data = [client_hello()]
            for _ in range(FRAMES):
                meta = chance.randbytes(chance.choice((0, 1, 8, 24, 32, 48, 100, 1000)))
                if len(meta) >= 24 and chance.random() < 0.7:      # nearly a request
                    meta = struct.pack("<BBHIQQ", chance.randrange(9), chance.randrange(4), 0, 0,
                                       chance.choice((0, 4096, 2**40, 2**63)),
                                       chance.choice((0, 1, 4096, 2**20, 2**32, 2**63)))
                data.append(frame(
                    chance.choice(kinds), meta, chance.randbytes(chance.choice((0, 0, 1, 512, 4096))),
                    volume=chance.choice((index, index, 1, 65535, 2**32 - 1)),
                    epoch=chance.choice((0, epoch, epoch + 1)), session=chance.choice((0, 1, 2**32 - 1)),
                    lsn=chance.choice((0, 1, 2**63)), flags=chance.randrange(256)))
            send_until_refused(cluster.node(name).peer_socket, b"".join(data))


# ------------------------------------------------------------------------------------ requests

@pytest.mark.fault("input: requests outside the limits", promise="answered with an error, nothing changes")
def test_requests_outside_the_limits_are_answered_and_change_nothing(
        cluster: ClusterHarness, client: NbdClient) -> None:
    size = client.size_bytes
    with untouched(cluster, client):
        for command, offset, length, expected in (
                (wire.READ, size, 4096, {wire.EINVAL}),
                (wire.READ, size - 4096, 8192, {wire.EINVAL}),
                (wire.READ, 2**63, 4096, {wire.EINVAL}),
                (wire.TRIM, size - 4096, 8192, {wire.ENOSPC, wire.EINVAL}),
                (wire.WRITE_ZEROES, size, 4096, {wire.ENOSPC}),
                (wire.TRIM, 2**64 - 4096, 4096, {wire.ENOSPC, wire.EINVAL}),
                (4711, 0, 0, {wire.EINVAL, wire.ENOTSUP})):
            assert client.ask(command, offset, length).error in expected, (command, offset, length)
        for offset in (size, size - 100, 2**64 - 4096):
            assert client.ask(wire.WRITE, offset, payload=bytes(4096)).error == wire.ENOSPC
        assert client.ask(wire.READ, 0, 0).error == wire.EINVAL


def test_writes_of_any_size_at_any_place(client: NbdClient) -> None:
    """Below a block they are merged with what is there; many at once, in one block, too."""
    chance = random.Random(3)
    base, room = 4 * MIB, 256 * 1024
    expected = bytearray(chance.randbytes(room))
    assert client.ask(wire.WRITE, base, payload=bytes(expected)).error == 0
    for _ in range(40):
        under_way = set()
        begin = chance.randrange(room - 20_000)
        for _ in range(chance.randint(1, 12)):                 # neighbours, never overlapping
            length = chance.choice((1, 2, 511, 512, 513, 1000, 4095))
            data = chance.randbytes(length)
            under_way.add(client.send(wire.WRITE, base + begin, payload=data))
            expected[begin:begin + length] = data
            begin = min(begin + length, room - 5000) if begin + length <= room - 5000 else room
            if begin == room:
                break
        while under_way:
            for completion in client.receive():
                assert completion.error == 0
                under_way.remove(completion.cookie)
    assert client.ask(wire.READ, base, room).data == bytes(expected)
    assert client.ask(wire.READ, base + 4097, 3).data == bytes(expected[4097:4100])


PIECE = 64 * 1024


@pytest.mark.parametrize("copies", [1, 3])
@pytest.mark.fault("space: a store that is full",
                   promise="an error that says so; trimmed blocks are room again")
def test_a_full_disk_says_so_and_recovers_when_blocks_are_trimmed(tmp_path: Path, copies: int) -> None:
    """Two volumes, each as large as half the store and more."""
    shape = Shape(nodes=copies, copies=copies, store_bytes=24 * MIB, volume_bytes=12 * MIB)
    with ClusterHarness(tmp_path, shape) as cluster:
        cluster.add_volume("second")
        cluster.start()
        cluster.wait_in_sync()
        with cluster.connect("n1") as first, cluster.connect("n1", "second") as second:
            in_first, error = write_pieces(first, range(0, first.size_bytes, PIECE), b"1")
            assert error == 0
            in_second, error = write_pieces(second, range(0, second.size_bytes, PIECE), b"2")
            assert error == wire.ENOSPC
            assert len(in_second) * PIECE > MIB
            assert first.ask(wire.FLUSH).error == 0
            check_pieces(first, in_first)
            check_pieces(second, in_second)
            for offset in range(0, first.size_bytes, 2 * PIECE):
                assert first.ask(wire.TRIM, offset, PIECE).error == 0
                in_first[offset] = bytes(PIECE)
            end = len(in_second) * PIECE
            # the other copies tell what they have free with their next heartbeat
            wait_until(lambda: second.ask(wire.WRITE, end, payload=bytes(PIECE)).error == 0, "room again")
            more, error = write_pieces(second, range(end, end + 6 * MIB, PIECE), b"3")
            assert error == 0, f"after {len(more)} of {6 * MIB // PIECE} pieces"
            in_second |= more
        cluster.stop()
        cluster.start()
        cluster.settle("n1")
        with cluster.connect("n1") as first, cluster.connect("n1", "second") as second:
            check_pieces(first, in_first)
            check_pieces(second, in_second)


def write_pieces(client: NbdClient, offsets: range, mark: bytes) -> tuple[dict[int, bytes], int]:
    """Write until something is refused; what was written, and the error."""
    written = {}
    for offset in offsets:
        data = (mark + offset.to_bytes(7, "little")) * (PIECE // 8)
        error = client.ask(wire.WRITE, offset, payload=data).error
        if error:
            return written, error
        written[offset] = data
    return written, 0


def check_pieces(client: NbdClient, written: dict[int, bytes]) -> None:
    for offset, data in written.items():
        completion = client.ask(wire.READ, offset, len(data))
        assert completion.error == 0
        assert completion.data == data, f"{len(data)} bytes at {offset}"


# ------------------------------------------------------------------------------------ processes

@pytest.mark.fault("process: a node started twice", promise="refused")
def test_a_node_cannot_be_started_twice(cluster: ClusterHarness, client: NbdClient) -> None:
    with untouched(cluster, client):
        for name in cluster.names:
            process = cluster.spawn(name)
            assert process.wait(WAIT_S) != 0
            assert "BusyError" in cluster.log_tail(name)
            assert str(cluster.files.store_path(name)) in cluster.log_tail(name)


def superblock_places(store: Path) -> list[int]:
    device = FileDevice(store, writable=False)
    try:
        return [place * BLOCK_BYTES
                for place in superblock.read(device, str(store)).superblock.geometry.superblock_positions]
    finally:
        device.close()


def flip(store: Path, offset: int) -> None:
    with store.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 0x10]))


def make_newer(store: Path) -> None:
    """As a later version with another format would have left it: all copies whole."""
    for copy_number, place in enumerate(superblock_places(store)):
        with store.open("r+b") as file:
            file.seek(place)
            block = bytearray(file.read(BLOCK_BYTES))
            fields = np.frombuffer(block, layout.superblock_t, 1).copy()
            assert fields["copy_number"] == copy_number
            fields["format_major"] += 1
            fields["crc"] = 0
            block[:len(fields.tobytes())] = fields.tobytes()
            fields["crc"] = crc32c(bytes(block))
            block[:len(fields.tobytes())] = fields.tobytes()
            file.seek(place)
            file.write(block)


def truncate(store: Path) -> None:
    with store.open("r+b") as file:
        file.truncate(store.stat().st_size - 5 * MIB)


def flip_three_superblocks(store: Path) -> None:
    for place in superblock_places(store)[:3]:
        flip(store, place + 100)


def overwrite_with_text(store: Path) -> None:
    store.write_bytes(b"this is no store\n" * 200_000)


@pytest.fixture
def stopped(tmp_path: Path) -> Iterator[tuple[ClusterHarness, bytes]]:
    """One node with one copy, stopped cleanly, and the first MiB of its volume."""
    shape = Shape(nodes=1, copies=1, store_bytes=16 * MIB, volume_bytes=8 * MIB)
    with ClusterHarness(tmp_path, shape) as cluster:
        cluster.start()
        cluster.wait_in_sync()
        data = random.Random(2).randbytes(MIB)
        with cluster.connect("n1") as client:
            assert client.ask(wire.WRITE, 0, payload=data).error == 0
        cluster.stop()
        yield cluster, data


@pytest.mark.parametrize(("damage", "told"), [
    (truncate, "truncated"), (flip_three_superblocks, "superblocks"), (make_newer, "FormatVersionError"),
    (overwrite_with_text, "is not a store")], ids=lambda value: getattr(value, "__name__", ""))
def test_a_store_that_cannot_be_used_is_refused_and_left_alone(
        stopped: tuple[ClusterHarness, bytes], damage: Callable[[Path], None], told: str) -> None:
    cluster, data = stopped
    store = cluster.files.store_path("n1")
    whole = store.read_bytes()
    damage(store)
    damaged = store.read_bytes()
    process = cluster.spawn("n1")
    assert process.wait(WAIT_S) != 0
    assert told in cluster.log_tail("n1")
    assert str(store) in cluster.log_tail("n1")
    assert store.read_bytes() == damaged
    store.write_bytes(whole)
    cluster.start()
    with cluster.connect("n1") as client:
        assert client.ask(wire.READ, 0, MIB).data == data


@pytest.mark.parametrize("copy_number", range(4))
def test_one_damaged_superblock_is_outvoted(stopped: tuple[ClusterHarness, bytes], copy_number: int) -> None:
    cluster, data = stopped
    store = cluster.files.store_path("n1")
    flip(store, superblock_places(store)[copy_number] + 100)
    cluster.start()
    with cluster.connect("n1") as client:
        assert client.ask(wire.READ, 0, MIB).data == data


@pytest.mark.fault("disk: a flipped bit anywhere in the file", promise="an error or mended, never wrong data")
def test_a_flipped_bit_anywhere_is_an_error_or_repaired_never_wrong_data(
        stopped: tuple[ClusterHarness, bytes]) -> None:
    """One bit flipped in every 64th block, from eight different first ones: the node does not start, or
    answers each read with the right bytes or with an error."""
    cluster, data = stopped
    store = cluster.files.store_path("n1")
    whole, record = store.parent / "whole", cluster.node("n1")
    shutil.copyfile(store, whole)
    places = superblock_places(store)
    for start in range(0, 64, 9):
        shutil.copyfile(whole, store)
        for block in range(start, store.stat().st_size // BLOCK_BYTES, 64):
            if block * BLOCK_BYTES not in places:
                flip(store, block * BLOCK_BYTES + 77 * block % BLOCK_BYTES)
        register_node(cluster.config, record)          # or it were an older state that was put back
        process = cluster.spawn("n1")
        wait_until(lambda process=process: process.poll() is not None
                   or cluster.node("n1").pid == process.pid, "it runs, or has ended")
        if process.poll() is not None:
            assert process.returncode > 0, "it crashed"
            assert "CorruptionError" in cluster.log_tail("n1")
            continue
        cluster.processes["n1"] = process
        with cluster.connect("n1") as client:
            for offset in range(0, MIB, BLOCK_BYTES):
                completion = client.ask(wire.READ, offset, BLOCK_BYTES)
                assert completion.error in (0, wire.EIO)
                assert completion.error or completion.data == data[offset:offset + BLOCK_BYTES]
        cluster.kill("n1")
