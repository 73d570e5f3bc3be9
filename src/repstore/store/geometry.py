"""Where everything lies in a store of `total_blocks` 4 KiB blocks. All positions in blocks.

    0                        superblock copy 0
    1                        root area A (root_blocks), then root area B
    page_base                page slots: slot s at page_base + s
    page_base + page_slots   again: every page has a second block
    segment_base - 1         superblock copy 1
    segment_base             segments 0 .. half - 1
                             superblock copy 2
                             segments half .. segment_count - 1, then an unused remainder
    total_blocks - 1         superblock copy 3

  G1 the four superblock copies are spread: damage comes in neighbourhoods
  G2 slot 0 is never used, so that it can mean "no page"
  G3 a geometry read from disk is bounded by `check` before anything is computed from it
"""
from bisect import bisect_left
from contextlib import suppress
from dataclasses import dataclass

from repstore import config, errors
from repstore.format import BATCH_BLOCKS, BLOCK_SIZE, root_header_t, segment_entry_t

SEGMENT_BLOCKS_MIN = config.SEGMENT_BYTES_MIN // BLOCK_SIZE
SEGMENT_BLOCKS_MAX = config.SEGMENT_BYTES_MAX // BLOCK_SIZE
SEGMENTS_RESERVE_MIN = 2      # only the cleaner may take them: these, or
SEGMENTS_RESERVE_PERCENT = 1  # so many of all
STEP_BLOCKS = config.PAGE_SLOTS_STEP_BYTES // BLOCK_SIZE
SEGMENTS_OPEN = 3             # being written, or being cleaned
FILL_PERCENT = 92             # of the payload room: above, cleaning costs more than it gives
# what one segment takes in a root: its entry, and its place in the plan
ROOT_BYTES_PER_SEGMENT = segment_entry_t.itemsize + 4
FRONT_BLOCKS = 24 * config.MIB // BLOCK_SIZE     # behind it no root begins, whatever the geometry


@dataclass(frozen=True, slots=True)
class Geometry:
    """Sizes as the superblock has them; everything else follows."""

    total_blocks: int
    segment_blocks: int
    segment_count: int
    root_blocks: int
    page_slots: int

    @property
    def page_base(self) -> int:
        return 1 + 2 * self.root_blocks

    @property
    def segment_base(self) -> int:
        return self.page_base + 2 * self.page_slots + 1

    @property
    def half(self) -> int:
        """Segments in front of superblock copy 2."""
        return self.segment_count // 2

    @property
    def superblock_positions(self) -> tuple[int, int, int, int]:
        return (0, self.segment_base - 1, self.segment_base + self.half * self.segment_blocks,
                self.total_blocks - 1)

    @property
    def size_bytes(self) -> int:
        return self.total_blocks * BLOCK_SIZE

    @property
    def segment_bytes(self) -> int:
        return self.segment_blocks * BLOCK_SIZE

    @property
    def root_bytes_max(self) -> int:
        return self.root_blocks * BLOCK_SIZE

    @property
    def capacity_bytes(self) -> int:
        """What all copies together may fill; set_geometry of _fast/loading has the same formula."""
        reserve = max(SEGMENTS_RESERVE_MIN, self.segment_count * SEGMENTS_RESERVE_PERCENT // 100)
        payload_blocks = self.segment_blocks - -(-self.segment_blocks // BATCH_BLOCKS)
        usable = self.segment_count - reserve - SEGMENTS_OPEN
        return usable * payload_blocks * FILL_PERCENT // 100 * BLOCK_SIZE

    def page_blocks(self, slot: int) -> tuple[int, int]:
        """The two blocks of a page."""
        return self.page_base + slot, self.page_base + self.page_slots + slot

    def root_start(self, area: int) -> int:
        """First block of root area 0 or 1."""
        return 1 + area * self.root_blocks

    def segment_start(self, number: int) -> int:
        """First block of a segment; superblock copy 2 stands between the halves."""
        return self.segment_base + number * self.segment_blocks + (1 if number >= self.half else 0)

    def check(self) -> None:
        """Raise ConfigError naming the value and the limit if this cannot be a store."""
        config.check_range("store size", self.size_bytes, config.STORE_BYTES_MIN, config.STORE_BYTES_MAX,
                           "bytes")
        config.check_range("segment size", self.segment_blocks, SEGMENT_BLOCKS_MIN, SEGMENT_BLOCKS_MAX,
                           "blocks")
        if self.segment_blocks & (self.segment_blocks - 1):
            raise errors.ConfigError(f"segment size {self.segment_blocks} blocks: must be a power of two")
        config.check_range("segments", self.segment_count, config.SEGMENTS_MIN, config.SEGMENTS_MAX)
        config.check_range("root area", self.root_blocks, 1, self.total_blocks, "blocks")
        config.check_range("page slots", self.page_slots, 4, self.total_blocks)
        # copies 2 and 3 are the last two that must fit behind the segments
        end = self.segment_base + self.segment_count * self.segment_blocks + 2
        if end > self.total_blocks:
            raise errors.ConfigError(f"layout of {end} blocks: the store has {self.total_blocks}")


def choose(options: config.StoreOptions) -> Geometry:
    """The geometry for a size, and a segment size if one is asked for. Always the same one."""
    total_blocks = options.size_bytes // BLOCK_SIZE
    segment_bytes = options.segment_bytes or usual_segment_bytes(options.size_bytes)
    segment_blocks = segment_bytes // BLOCK_SIZE
    root_blocks = _root_blocks(total_blocks, total_blocks // segment_blocks)
    page_slots = _page_slots(options.size_bytes)
    segment_base = _segment_base(total_blocks, segment_blocks)
    segment_count = max(0, total_blocks - 2 - segment_base) // segment_blocks
    if segment_count < config.SEGMENTS_MIN:
        raise errors.ConfigError(
            f"store of {options.size_bytes} bytes has room for {segment_count} segments of "
            f"{segment_bytes} bytes: at least {config.SEGMENTS_MIN} are needed")
    geometry = Geometry(total_blocks, segment_blocks, segment_count, root_blocks, page_slots)
    geometry.check()
    return geometry


def usual_segment_bytes(size_bytes: int) -> int:
    """A 256th of the store, between 1 and 32 MiB; less where that leaves only a few."""
    power_of_two = 1 << max(0, (size_bytes // config.SEGMENTS_USUAL).bit_length() - 1)
    segment_bytes = min(max(power_of_two, config.SEGMENT_BYTES_USUAL_MIN), config.SEGMENT_BYTES_MAX)
    while (segment_bytes > config.SEGMENT_BYTES_MIN
           and size_bytes // segment_bytes < config.SEGMENTS_USUAL_MIN):
        segment_bytes //= 2
    return segment_bytes


def possible(size_bytes: int) -> list[Geometry]:
    """Every geometry that `choose` can give a store of this size, whatever was asked for."""
    found = []
    segment_bytes = config.SEGMENT_BYTES_MIN
    while segment_bytes <= config.SEGMENT_BYTES_MAX:
        # a size may have too few, or too many, of such segments
        with suppress(errors.ConfigError):
            found.append(choose(config.StoreOptions(size_bytes, segment_bytes)))
        segment_bytes *= 2
    return found


def spans(segment_count: int, device_blocks: int) -> list[tuple[int, int]]:
    """Where on a device superblock copies 1, 2 and 3 can be of a store with so many segments whose size is
    not known: (first, end) in blocks. Of each segment size a few hundred blocks, and a segment for copy 3."""
    found: list[tuple[int, int]] = []
    segment_blocks = SEGMENT_BLOCKS_MIN
    while segment_blocks <= SEGMENT_BLOCKS_MAX:
        # at each step of the page slots a size may have a segment less than one a little smaller
        least = max(0, _size_with(segment_count, segment_blocks) - 2 * STEP_BLOCKS)
        most = _size_with(segment_count + 1, segment_blocks) + STEP_BLOCKS
        first = _segment_base(least, segment_blocks) - 1
        end = _segment_base(most, segment_blocks)
        middle = segment_count // 2 * segment_blocks + 1
        found += [(first, end), (first + middle, end + middle), (least, most)]
        segment_blocks *= 2
    return [(first, min(end, device_blocks)) for first, end in found if first < device_blocks]


def _size_with(segment_count: int, segment_blocks: int) -> int:
    """The least size of whole steps that has room for so many segments, in blocks."""
    needed = segment_count * segment_blocks
    sizes = range(0, 2 * needed + FRONT_BLOCKS * STEP_BLOCKS, STEP_BLOCKS)
    return sizes[bisect_left(sizes, needed, key=lambda size: size - 2 - _segment_base(size, segment_blocks))]


def _segment_base(total_blocks: int, segment_blocks: int) -> int:
    root_blocks = _root_blocks(total_blocks, total_blocks // segment_blocks)
    page_slots = _page_slots(total_blocks * BLOCK_SIZE)
    return Geometry(total_blocks, segment_blocks, 0, root_blocks, page_slots).segment_base


def _root_blocks(total_blocks: int, segments_at_most: int) -> int:
    table_bytes = root_header_t.itemsize + segments_at_most * ROOT_BYTES_PER_SEGMENT
    volume_blocks = min(max(total_blocks // config.ROOT_VOLUME_SHARE, config.ROOT_VOLUME_BLOCKS_MIN),
                        config.ROOT_VOLUME_BLOCKS_MAX)
    return -(-table_bytes // BLOCK_SIZE) + volume_blocks


def _page_slots(size_bytes: int) -> int:
    steps = size_bytes // config.PAGE_SLOTS_STEP_BYTES
    extra = config.PAGE_SLOTS_EXTRA_TINY if steps == 0 else config.PAGE_SLOTS_EXTRA
    if steps and size_bytes < config.SMALL_STORE_BYTES:
        extra = config.PAGE_SLOTS_EXTRA_SMALL
    return config.PAGE_SLOTS_PER_STEP * steps + extra
