"""Small stores in memory, with logs written into them batch by batch."""
from collections.abc import Iterable
from dataclasses import replace

from crc32c import crc32c

from repstore import config
from repstore.format import BLOCK_SIZE, OP_WRITE, SEGMENT_CLASSES
from repstore.store import geometry as layout
from repstore.store import root as roots
from repstore.store import store, superblock
from repstore.store.device import MemoryDevice
from repstore.store.geometry import Geometry
from repstore.store.patience import Patience
from repstore.store.root import Root
from repstore.store.superblock import Superblock
from tests.fast.batches import Batch, build, header_crc

UUID_BYTES = bytes(range(16))
STORE_ID = int.from_bytes(UUID_BYTES[:8], "little")
BOOT = b"boot of the test"
OTHER_BOOT = b"boot after power"
LIFE = 4711


def small_geometry(size_bytes: int = config.MIB, segment_bytes: int = 64 * config.KIB) -> Geometry:
    return layout.choose(config.StoreOptions(size_bytes, segment_bytes))


def new_store(geometry: Geometry | None = None) -> MemoryDevice:
    """A store as `create` leaves it."""
    geometry = geometry or small_geometry()
    device = MemoryDevice(bytearray(geometry.size_bytes))
    store.format_device(device, geometry, store_uuid=UUID_BYTES, boot_id=BOOT)
    return device


class Log:
    """A store that is open and has written a log; `device` is what a kill leaves of it."""

    def __init__(self, root: Root | None = None, geometry: Geometry | None = None) -> None:
        self.geometry = geometry or small_geometry()
        self.device = new_store(self.geometry)
        self.root = root or roots.empty(self.geometry)
        self.plan = self.root.plan.tolist()
        # class: (segment, generation, next block)
        self.heads: dict[int, tuple[int, int, int]] = {}
        self.sequence = self.root.batch_sequence
        self.crc = self.root.batch_crc
        self.places: dict[int, tuple[int, int, int]] = {}     # sequence: (segment, offset, blocks)
        self.begin_life()

    def begin_life(self) -> None:
        """What the first checkpoint of a life does."""
        data = roots.encode(self.root)
        self.device.write(self.geometry.root_start(1) * BLOCK_SIZE, data + bytes(-len(data) % BLOCK_SIZE))
        found = superblock.read(self.device, "image").superblock
        superblock.write(self.device, replace(
            found, sequence=found.sequence + 1, life_id=LIFE, boot_id=BOOT, clean=False, root_area=1,
            root_bytes=len(data), root_crc=crc32c(data)))

    def append(self, blocks: int = 1, flushed: int = 0, completed: int = 0, log_class: int = 0) -> int:
        """Write the next batch; returns its sequence."""
        assert log_class < SEGMENT_CLASSES
        segment, generation, offset = self.heads.get(log_class, (0, 0, self.geometry.segment_blocks))
        if offset + 1 + blocks > self.geometry.segment_blocks:
            segment, offset = self.plan.pop(0), 0
            generation = int(self.root.segments["generation"][segment]) + 1
        self.sequence += 1
        data = build(Batch(
            self.sequence, self.crc, flushed, completed, STORE_ID, LIFE, segment, generation, offset,
            records=[(OP_WRITE, blocks)] if blocks else [],
            payload=bytes([self.sequence % 251]) * blocks * BLOCK_SIZE, segment_class=log_class))
        self.device.write((self.geometry.segment_start(segment) + offset) * BLOCK_SIZE, data)
        self.places[self.sequence] = (segment, offset, blocks)
        self.heads[log_class] = (segment, generation, offset + 1 + blocks)
        self.crc = header_crc(data)
        return self.sequence

    def address(self, sequence: int) -> int:
        """First byte of a batch on the device."""
        segment, offset, _ = self.places[sequence]
        return (self.geometry.segment_start(segment) + offset) * BLOCK_SIZE

    def lose(self, sequence: int) -> None:
        """The batch never reached the disk."""
        blocks = self.places[sequence][2]
        self.device.write(self.address(sequence), bytes((1 + blocks) * BLOCK_SIZE))

    def never_wrote(self, sequence: int, block: int) -> None:
        """This block of the batch, 0 its header, never reached the disk."""
        self.device.write(self.address(sequence) + block * BLOCK_SIZE, b"\xa5" * BLOCK_SIZE)

    def rot_payload(self, sequence: int) -> None:
        self.device.image[self.address(sequence) + BLOCK_SIZE] ^= 1

    def rot_header(self, sequence: int) -> None:
        self.device.image[self.address(sequence) + 200] ^= 1

    def open(self, boot_id: bytes = BOOT, *, replicated: bool = False,
             device: MemoryDevice | None = None, patience: Patience | None = None) -> store.OpenedStore:
        return store.open_device(device or self.device, "image", boot_id=boot_id, life_id=LIFE + 1,
                                 replicated=replicated, patience=patience)


class BadSpots(MemoryDevice):
    """Some blocks cannot be read."""

    def __init__(self, image: bytearray, blocks: set[int]) -> None:
        super().__init__(image)
        self.blocks = blocks

    def read(self, offset: int, length: int) -> memoryview:
        if not self.blocks.isdisjoint(range(offset // BLOCK_SIZE, (offset + length) // BLOCK_SIZE)):
            raise OSError(5, "bad spot")
        return super().read(offset, length)


class Waiting:
    """A clock that nothing but sleep moves, and the pauses that were made. After a second `healing` is
    readable, but for what is `lasting`."""

    def __init__(self, healing: BadSpots | None = None, lasting: Iterable[int] = ()) -> None:
        self.now_s = 100.0
        self.pauses: list[float] = []
        self.healing = healing
        self.lasting = set(lasting)

    def sleep(self, pause_s: float) -> None:
        self.pauses.append(pause_s)
        self.now_s += pause_s
        if self.healing and self.now_s >= 101:
            self.healing.blocks = self.healing.blocks & self.lasting

    def patience(self, limit_s: float = config.READ_PATIENCE_S) -> Patience:
        return Patience(limit_s, clock=lambda: self.now_s, sleep=self.sleep)


def state_of(device: MemoryDevice) -> Superblock:
    return superblock.read(device, "image").superblock
