"""Every limit, with its unit and its reason, and the frozen options a caller may choose.

1. Nothing in repstore is unbounded: a queue, window, batch, retry or wait without a limit
   named here (or beside its native code, in `_fast`) is a bug.
2. Limits that the byte format fixes come from `_fast.layout` and are only named here.
   Those that `_fast` repeats for its own arrays are compared with this file by a test.
3. Options are checked when they are made: what exists is valid. No globals, no environment.
"""
import re
from dataclasses import dataclass
from typing import Literal

from repstore import errors
from repstore._fast.layout import BLOCK_SIZE, LINEAGE_ENTRIES, MEMBERS_MAX, VOLUME_NAME_BYTES

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB
TIB = 1024 * GIB

# ------------------------------------------------------------------------------- store
STORE_BLOCKS_MAX = 2**32 - 1           # a location is 32 bits: 16 TiB of 4 KiB blocks
STORE_BYTES_MAX = STORE_BLOCKS_MAX * BLOCK_SIZE
STORE_BYTES_MIN = 768 * KIB            # eight of the smallest segments and their metadata
SEGMENT_BYTES_MIN = 64 * KIB           # crash enumeration wants a store that fills at once
SEGMENT_BYTES_MAX = 32 * MIB           # above it the cleaner's unit grows, the log gains nothing
SEGMENT_BYTES_USUAL_MIN = 1 * MIB      # chosen by itself only where the store is small
SEGMENTS_MIN = 8                       # the open ones, the cleaner's reserve, and some to fill
SEGMENTS_MAX = 2**20                   # 20 bytes each in every root: 20 MiB a checkpoint
SEGMENTS_USUAL = 256                   # segments aimed at: cleaning in steps of 0.4 %
SEGMENTS_USUAL_MIN = 16                # a small store halves its segments until it has these
ROOT_VOLUME_BLOCKS_MIN = 3             # room for volumes in a root: a few without a backlog
ROOT_VOLUME_BLOCKS_MAX = 512           # 2 MiB: all volumes, and pending records of many
ROOT_VOLUME_SHARE = 64                 # in between a 64th of the store, for each root area
PAGE_SLOTS_PER_STEP = 4                # a map leaf covers 2 MiB; old and new, for several volumes. Each
                                       # slot has two blocks: 1.6 % of a store
PAGE_SLOTS_STEP_BYTES = 2 * MIB
PAGE_SLOTS_EXTRA = 64                  # directories and change bitmaps
PAGE_SLOTS_EXTRA_SMALL = 32
PAGE_SLOTS_EXTRA_TINY = 25             # two volumes: 6 pages each, old and new
SMALL_STORE_BYTES = 16 * MIB           # below it the small extra has to do, below one step the tiny one
RECOVERY_READ_BYTES = 1 * MIB          # one read of recovery
RECOVERY_LOOKAHEAD_BYTES = 8 * MIB     # searched at least behind the last batch found, for proof
READ_PATIENCE_S = 10.0                 # an opening waits so long for blocks it cannot read: a path may be
                                       # back by then; what stays longer is a defect of the medium
READ_AGAIN_MIN_S = 0.05                # between two tries, doubling
READ_AGAIN_MAX_S = 1.0
ZERO_FILL_BYTES = 4 * MIB              # one write when a store is created

VERIFY_PAGES_EXACT = 64                # map pages whose checksums a verification compares at once
FINDINGS_MAX = 1000                    # findings of one check that are kept; all are counted
SCRUB_KEPT_S = 7 * 86_400.0            # an interrupted scrub goes on; what was read longer ago is read again
SCRUB_BYTES_S_MAX = TIB                # what a scrub may be asked to read a second: no store is as fast
INQUIRY_ERROR_MAX = 1000               # characters of an error that a node answers a question with
POSITION_BYTES_MAX = 64 * MIB          # of the file in which an interrupted check says how far it came

# ------------------------------------------------------------------------- the simulator
PLAN_BYTES_MAX = 16 * MIB              # of a plan that was saved; one of a seed has a tenth of a MiB

# ----------------------------------------------------------------------------- volumes
COPIES_MIN = 1
COPIES_MAX = MEMBERS_MAX               # 8: a frame fan-out above it has no user
VOLUME_NAME_BYTES_MAX = VOLUME_NAME_BYTES - 1     # 63: the entry ends with a zero byte
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}\Z"
NAME_RULE = f"1 to {VOLUME_NAME_BYTES_MAX} of A-Z a-z 0-9 . _ -, the first a letter or digit"
VOLUMES_MAX = 256                      # copies one store holds
VOLUME_INDEXES_MAX = 65_536            # cluster-wide numbers ever given out
VOLUME_BYTES_MIN = BLOCK_SIZE
VOLUME_BYTES_MAX = 16 * TIB             # as much as one store can have
LINEAGE_ENTRIES_MAX = LINEAGE_ENTRIES  # epochs a copy remembers the beginning of

# ---------------------------------------------------------------------- cluster and nodes
NODES_MAX = 16                         # nodes of a cluster, and links to peers
NODES_MIN = 1
CLOSED_BOOTS_MAX = 8                   # boots of a node that are remembered to have lost nothing
LIVES_MAX = 8                          # lives of its store that were begun, one behind the other, for nobody
SOCKET_PATH_BYTES_MAX = 107            # sun_path of Linux, without its zero byte

# ---------------------------------------------------------------- requests and their queues
REQUESTS_MAX = 4096                    # client requests under way in one engine
REQUESTS_OWN = 4                       # of these, kept for each volume it may export or lead
REQUESTS_SHARED = 2048                 # the rest, of which a volume takes no more than it leaves: one that is
                                       # alone has as many under way as an NBD connection may ask for
REQUEST_BYTES_MAX = 256 * KIB          # read or write: one batch; frontends cut larger ones
RANGE_BYTES_MAX = 4 * GIB - 1          # trim, write-zeroes, block status: 32 bits of NBD
TRIM_BLOCKS_MAX = 131_072              # 512 MiB: the longest range of one record
EXPORTS_MAX = 256
LINKS_MAX = 1024                       # connections of one loop
LINKS_RESERVED = 64                    # of these, the last that are free: for other nodes, not for frontends
LINK_QUEUE_BYTES_MAX = 128 * MIB       # a peer that takes longer to read is dropped
ASKED_BYTES_MAX = 32 * MIB             # payload that other nodes were asked for at once: an export takes of
                                       # it no more than it leaves, or one request: 64 MiB more
EVENTS_MAX = 4096                      # facts waiting for the control thread
PENDING_RECORDS_MAX = 1024             # records of a volume that are not committed yet
PENDING_BLOCKS_MAX = 4096              # their payload: 16 MiB
REPAIRS_MAX = 64                       # bad blocks being fetched at once: a read may meet as many
LOST_BLOCKS_MAX = 1024                 # lost ones remembered; of more the oldest are asked for again

# ---------------------------------------------------------------------------- histories
HISTORY_LINE_BYTES_MAX = 16 * MIB      # of a history file; the recorders write far shorter ones
HISTORY_CHUNK_BYTES = 16 * MIB         # read and parsed at a time
HISTORY_PORTION_ENTRIES = 1_000_000    # laid out or judged at a time: so often it can be stopped
HISTORY_OPERATIONS_MAX = 200_000_000   # 56 bytes each in memory
HISTORY_VALUES_MAX = 400_000_000       # 8 bytes each
HISTORY_ENTRIES_MAX = 400_000_000      # operations, once for each block that was read: 32 bytes
HISTORY_CRASHES_MAX = 65_535           # 16 bits an entry
HISTORY_FINDINGS_MAX = 1000            # blocks among which the smallest contradiction is chosen
HISTORY_CLIENT_MAX = 2**32 - 1         # numbers of clients, and blocks of one operation
HISTORY_ERROR_MAX = 2**31 - 1          # an errno
HISTORY_CRASHES_TOLD_MAX = 100         # in its picture; of more, those next after its operations
HISTORY_SECTOR_BYTES_MIN = 512         # the smallest block a history may be about

# --------------------------------------------------------------- times (s, CLOCK_BOOTTIME)
HEARTBEAT_S = 0.5                      # native ping of every link
LEASE_S = 2.0                          # a primary serves reads this long after a grant
GRACE_S = 3.0                          # without proof of death nobody is promoted earlier after
                                       # the last grant: the lease and the drift of two clocks
REPAIR_PATIENCE_S = 10.0               # a bad block waits so long for copies that are away: they are
                                       # back by then, or ejected
REPAIR_ANSWER_S = 1.0                  # a copy that gave no answer for a bad block is asked again
REPAIR_LATER_S = 0.02                  # one that said "not now" is
LOST_AGAIN_S = 1.0                     # a lost block that is read again is asked for again
MEMBER_SILENCE_S = 5.0                 # a member that acknowledges nothing is to be ejected
LENT_S = 5.0                           # a peer that takes nothing of what it is sent is hung up on
ASK_AGAIN_S = 0.5                      # a seal or pull that got no answer is sent again
PULL_TIMEOUT_S = 10.0                  # a member's tail is at most 16 MiB
PROMOTION_GATHER_S = 1.0               # wait for members that may still answer
CANDIDATE_STAGGER_S = 0.3              # each in line stands up that much after the one before
SWAP_AGAIN_S = 0.25                    # a swap that lost or got no answer is tried again
LEARN_AGAIN_S = 1.0                    # a learner that was dropped and does not ask is served again
SWAPS_MAX = 16                         # lost swaps in a row until a command gives up
DEATH_PROOF_S = 0.1                    # look whether the processes of silent nodes are gone
CONFIG_POLL_S = 0.05                   # look at the coordination store without a hint
REPORT_INTERVAL_S = 0.25               # a node tells its state at most so often
CONFIG_BUSY_S = 5.0                    # one swap may wait this long for the database
CONNECT_RETRY_MIN_S = 0.05             # a peer that refused is tried again, doubling
CONNECT_RETRY_MAX_S = 1.0
ATTACH_TIMEOUT_S = 30.0                # an export that finds no primary is refused after it
STOP_TIMEOUT_S = 30.0                  # a node that does not stop cleanly is killed after it
INQUIRY_TIMEOUT_S = 5.0                # a node that gives no answer to a question by then gives none
VERIFY_TIMEOUT_S = 60.0                # a copy takes its map at an LSN: 2 MiB of memory for a GiB
START_TIMEOUT_S = 60.0                 # a cluster that serves nothing by then failed to start

Acknowledgement = Literal["dev", "durable"]


def check_name(name: str, what: str = "volume") -> None:
    """Refuse a name that is not one of a volume or node."""
    if not re.search(NAME_PATTERN, name):
        raise errors.ConfigError(f"{what} name {name!r} ({len(name.encode())} bytes): must be {NAME_RULE}")


def check_range(what: str, value: int, least: int, most: int, unit: str = "") -> None:
    """Refuse a number outside its limits, naming both."""
    if not least <= value <= most:
        unit = unit and " " + unit
        raise errors.ConfigError(f"{what} {value}{unit}: must be {least} to {most}{unit}")


def check_block_multiple(what: str, size_bytes: int) -> None:
    """Refuse a size that is not whole 4 KiB blocks."""
    if size_bytes % BLOCK_SIZE:
        raise errors.ConfigError(f"{what} {size_bytes} bytes: must be a multiple of {BLOCK_SIZE}")


@dataclass(frozen=True, slots=True)
class StoreOptions:
    """What `create` is asked for. Without `segment_bytes` it is chosen by the size."""

    size_bytes: int
    segment_bytes: int | None = None

    def __post_init__(self) -> None:
        check_range("store size", self.size_bytes, STORE_BYTES_MIN, STORE_BYTES_MAX, "bytes")
        check_block_multiple("store size", self.size_bytes)
        segment_bytes = self.segment_bytes
        if segment_bytes is None:
            return
        check_range("segment size", segment_bytes, SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX, "bytes")
        if segment_bytes & (segment_bytes - 1):
            raise errors.ConfigError(f"segment size {segment_bytes} bytes: must be a power of two")


@dataclass(frozen=True, slots=True)
class VolumeOptions:
    """What a new volume is asked to be.

    `min_copies`: below so many in-sync copies nothing is acknowledged. By default one copy
    may be missing (`copies - 1`, at least 1), so that one lost node never halts a volume.
    """

    name: str
    size_bytes: int
    copies: int = 1
    min_copies: int | None = None
    acknowledgement: Acknowledgement = "dev"

    def __post_init__(self) -> None:
        check_name(self.name)
        check_range("volume size", self.size_bytes, VOLUME_BYTES_MIN, VOLUME_BYTES_MAX, "bytes")
        check_block_multiple("volume size", self.size_bytes)
        check_range("copies", self.copies, COPIES_MIN, COPIES_MAX)
        if self.min_copies is not None:
            check_range("min_copies", self.min_copies, 1, self.copies)
        if self.acknowledgement not in ("dev", "durable"):
            raise errors.ConfigError(
                f"acknowledgement {self.acknowledgement!r}: must be 'dev' or 'durable'")

    @property
    def needed_copies(self) -> int:
        """`min_copies`, with its default filled in."""
        return max(1, self.copies - 1) if self.min_copies is None else self.min_copies
