"""Hostile peers: every type of frame, sealed right, in every role of a copy.

An engine of production on a small store, four links to three nodes and a client, and a script of
frames, turns, answers of the disk, links that come and go, and verbs of the control side. Promised:
whatever is said, the engine goes on or closes the link, all invariants hold, nothing it asked the
world for stays unanswered, and the store it leaves can be opened again.
"""
from __future__ import annotations

import mmap
from collections.abc import Callable
from contextlib import suppress

import numpy as np
from crc32c import crc32c

from repstore import config, errors
from repstore._fast.layout import FRAME_HELLO, FRAME_MAGIC, WIRE_VERSION, frame_header_t, hello_meta_t
from repstore._fast.simulated import Close, DiskFlush, DiskRead, DiskWrite, Hold, Send
from repstore.format import BLOCK_SIZE, OP_COPY, OP_WRITE, descriptor_t
from repstore.sim.engine import SimulatedEngine, open_engine
from repstore.sim.local import PlainDisk
from repstore.sim.workload import IO
from repstore.store import geometry
from repstore.store.device import MemoryDevice
from repstore.store.store import format_device
from tests.fuzz.script import Script

BOOT_ID = b"boot of the fuzz"
VOLUME, SIZE_BLOCKS = 1, 64
ACCEPTED = 1
CLIENT_LINK, STRANGER_LINK, CLIENT_NODE = 3, 4, 65535
LINKS = {1: 1, 2: 2, CLIENT_LINK: CLIENT_NODE}      # link: node
PUMPS_MAX = 2000
STEPS_MAX = 64
EIO = 5
ROLES = 6


class World:
    """One engine and all that it may ask for."""

    def __init__(self) -> None:
        self.disk = PlainDisk(bytearray(_image()))
        self.engine, _ = open_engine(self.disk.image, "fuzz", number=0, boot_id=BOOT_ID, life_id=7)
        self.engine.pump = self.pump
        self.now_ns = 10**12
        self.due: list[int] = []
        self.up: set[int] = set()
        self.held: set[int] = set()
        self.calls: list[object] = []
        self.wanted: dict[int, int] = {}       # by node: behind which LSN it asked to go on
        self.engine.wait_for_checkpoint(1)

    def turn(self, step_ns: int = 100_000) -> bool:
        """Time passes, and what was asked is taken on."""
        self.now_ns += step_ns
        _, busy = self.engine.backend.turn(self.now_ns)
        self.drain()
        return busy

    def drain(self) -> None:
        """Take what the engine asked for; sends leave at once."""
        while asks := self.engine.backend.take():
            for ask in asks:
                self._answer(ask)
        self.wanted.update((event[2], event[4]) for event in self.engine.events() if event[0] == "want")

    def _answer(self, ask: DiskRead | DiskWrite | DiskFlush | Send | Close | Hold) -> None:
        match ask:
            case Send(link, token, _):
                if token:
                    self.engine.backend.sent(link, token)
            case Close(link):
                self.cut(link)
            case Hold(link, stopped):
                (self.held.add if stopped else self.held.discard)(link)
            case _:
                self.disk.begin(ask)
                self.due.append(ask.operation)

    def pump(self) -> bool:
        """One turn, one answer of the disk. False: nothing is under way."""
        busy = self.turn()
        if not self.due:
            return busy
        self.answer_disk(0)
        return True

    def answer_disk(self, which: int, error: int = 0) -> None:
        """The disk is through with one operation."""
        operation = self.due.pop(which % len(self.due))
        result, data = self.disk.finish(operation)
        self.engine.backend.disk_done(operation, *((-error, None) if error else (result, data)))
        self.drain()

    def settle(self) -> None:
        """Until nothing is under way. An engine that never comes to rest hangs."""
        for _ in range(PUMPS_MAX):
            if not self.pump():
                return
        raise AssertionError(f"not at rest after {PUMPS_MAX} turns: {self.engine.stats()}")

    def connect(self, link: int) -> None:
        """A link comes up and says who it is, unless it is the stranger's."""
        if link in self.up:
            return
        self.up.add(link)
        self.engine.backend.link_up(link, ACCEPTED)
        if link in LINKS:
            meta = np.zeros(1, hello_meta_t)
            meta["node"], meta["life_id"] = LINKS[link], 9
            self.deliver(link, sealed(np.zeros(1, frame_header_t), FRAME_HELLO, meta.tobytes(), b""))

    def cut(self, link: int) -> None:
        """A link goes down."""
        self.held.discard(link)
        if link in self.up:
            self.up.discard(link)
            self.engine.backend.link_down(link)

    def deliver(self, link: int, data: bytes) -> None:
        """A message arrives, if its link is up; what is no frame cuts it."""
        if link in self.up and link not in self.held:
            if not self.engine.backend.frame(link, data):
                self.cut(link)
            self.drain()

    def submit(self, kind: int, first: int, blocks: int, flags: int) -> None:
        """A request of a frontend of our own."""
        export = self.engine.exports.get(VOLUME)
        if export is None:
            return
        ios = np.zeros(1, IO)
        ios["kind"], ios["flags"], ios["export_id"] = kind, flags, export
        ios["offset"], ios["length"] = first * BLOCK_SIZE, blocks * BLOCK_SIZE
        memory = mmap.mmap(-1, max(1, blocks) * BLOCK_SIZE)
        self.calls.append((self.engine.start(ios.view(np.uint8), memory, 1), ios, memory))


def run(data: bytes) -> None:
    """One input."""
    script = Script(data)
    world = World()
    reopen, role = divmod(script.number(), 128)
    role %= ROLES
    for link in (*LINKS, STRANGER_LINK):
        world.connect(link)
    take_role(world, role)
    for _ in range(STEPS_MAX):
        if not script.left:
            break
        _step(world, script)
    for link in sorted(world.up):
        world.cut(link)
    world.drain()
    world.settle()
    world.engine.check_invariants()
    if reopen and not world.engine.failed:
        open_engine(world.disk.image, "fuzz", number=0, boot_id=BOOT_ID, life_id=8)[0].check_invariants()


def take_role(world: World, role: int) -> None:
    """What this copy is when the frames come: nothing, member, stranger, or primary of so many."""
    engine, size = world.engine, SIZE_BLOCKS * BLOCK_SIZE
    if role in (1, 2):
        engine.follow(VOLUME, 2, 1, role == 1)
    elif role >= 3:
        members = [[], [(1, 0)], [(1, 0), (2, 0)]][role - 3]
        engine.lead(VOLUME, 2, 1, members, 1 + len(members), 1, role == 4, 1)
    if role:
        engine.export_install(VOLUME, "volume", size, 1)
        engine.set_primary(VOLUME, 1 if role < 3 else 0, 2)
    world.turn()
    world.settle() if role < 4 else world.turn()
    engine.check_invariants()


def _step(world: World, script: Script) -> None:
    kind = script.number() % 10
    if kind < 4:
        world.deliver(kind + 1, frame(world.engine, script))
    elif kind == 4:
        world.turn(1 << script.number() % 36)
    elif kind == 5:
        which = script.number()
        if world.due:
            world.answer_disk(which & 127, EIO if which == 255 else 0)
    elif kind == 6:
        verb(world, script)
    elif kind == 7:
        world.submit(script.number() % 7, script.number() % 80, script.number() % 65, script.number() % 4)
    elif kind == 8:
        link = script.number() % (STRANGER_LINK + 1)
        world.cut(link) if link in world.up else world.connect(link)
        world.drain()
    else:
        for _ in range(script.number()):
            if not world.pump():
                break
    world.engine.check_invariants()


def verb(world: World, script: Script) -> None:
    """A decision of the control side, legal or not: a wrong one is refused."""
    engine, node, epoch, lsn = world.engine, 1 + script.number() % 2, 1 + script.number() % 8, script.number()
    verbs: list[Callable[[], object]] = [
        lambda: engine.seal(VOLUME, epoch), lambda: engine.pull(VOLUME, node),
        lambda: engine.follow(VOLUME, epoch, node, bool(lsn & 1)),
        lambda: engine.learner_start(VOLUME, node, epoch, lsn, bool(lsn & 1)),
        lambda: engine.join_begin(VOLUME, node), lambda: engine.join_abort(VOLUME, node),
        lambda: engine.resume_member(VOLUME, node, world.wanted.get(node, lsn)),
        lambda: engine.set_members(VOLUME, [node]), lambda: engine.set_members(VOLUME, []),
        lambda: engine.set_session(VOLUME, 1 + lsn % 4),
        lambda: engine.step_down(VOLUME), lambda: engine.set_primary(VOLUME, node, epoch),
        lambda: engine.checkpoint(),
        lambda: engine.lead(VOLUME, epoch, 1, [(node, lsn)], 2, 1, bool(lsn & 1), 1)]
    with suppress(ValueError, OSError, KeyError, errors.RepstoreError):
        verbs[script.number() % len(verbs)]()
    world.drain()


def frame(engine: SimulatedEngine, script: Script) -> bytes:
    """A frame. `style` says which of its numbers are told as distances from the copy's own."""
    state = engine.volume_state(VOLUME)
    style, kind = script.number(), script.number()
    header = np.zeros(1, frame_header_t)
    header["flags"] = script.number()
    near = bool(style & 1)
    header["volume"] = VOLUME if near else script.number(2)
    header["epoch"] = (state.sealed_epoch + script.signed()) % 2**32 if near else script.number(4)
    header["session"] = script.number() if near else script.number(4)
    header["lsn"] = (state.last_lsn + 1 + script.signed()) % 2**64 if style & 2 else script.number(8)
    header["commit"] = (state.commit_lsn + script.signed()) % 2**64 if style & 4 else script.number(8)
    header["chain"] = state.chain if style & 8 else script.number(8)
    header["extra"] = script.number() if near else script.number(8)
    meta, body = _records(script, int(header["lsn"][0])) if style & 16 else _raw(script)
    data = bytearray(sealed(header, kind, meta, body))
    if style & 32:
        data[script.number(2) % len(data)] ^= script.number()
    return bytes(data)


def sealed(header: np.ndarray, kind: int, meta: bytes, body: bytes) -> bytes:
    """A frame with its magic, version, lengths and checksum right."""
    header["type"], header["magic"], header["version"] = kind, FRAME_MAGIC, WIRE_VERSION
    header["meta_bytes"], header["body_bytes"] = len(meta), len(body)
    header["crc"] = crc32c(meta, crc32c(header.tobytes()))
    return header.tobytes() + meta + body


def _raw(script: Script) -> tuple[bytes, bytes]:
    meta = script.take(script.number())
    return meta, bytes([script.number()]) * (script.number(2) % 20000)


def _records(script: Script, lsn: int) -> tuple[bytes, bytes]:
    """Records one behind the other, and a payload with right checksums."""
    records = np.zeros(script.number() % 8, descriptor_t)
    payload = 0
    for record in records:
        record["volume"], record["lsn"] = VOLUME, lsn % 2**64
        record["operation"], record["blocks"] = script.number() % 16, script.number()
        record["lba"], record["request"] = script.signed() % 2**64, script.number()
        record["session"], record["epoch"] = script.number(), script.number()
        lsn += int(record["blocks"])
        if record["operation"] in (OP_WRITE, OP_COPY):
            payload += int(record["blocks"])
    blocks = [bytes([script.number()]) * BLOCK_SIZE for _ in range(min(payload, 64))]
    checksums = b"".join(crc32c(block).to_bytes(4, "little") for block in blocks)
    return records.tobytes() + checksums, b"".join(blocks)


_images: list[bytes] = []


def _image() -> bytes:
    """A store of 1 MiB with one empty volume in it; made once."""
    if not _images:
        layout = geometry.choose(config.StoreOptions(config.MIB, 64 * config.KIB))
        image = bytearray(layout.size_bytes)
        format_device(MemoryDevice(image), layout, store_uuid=bytes(16), boot_id=BOOT_ID)
        _images.append(bytes(image))
        world = World()
        world.engine.volume_create(VOLUME, bytes(range(16)).hex(), "volume", SIZE_BLOCKS)
        _images[0] = bytes(world.disk.image)
    return _images[0]
