"""The byte format, told once: every constant and packed struct of disk and wire.

All integers are little-endian. `layout.pyx` asserts the sizes at import and hands
the structs to Python as numpy dtypes; `repstore.format` re-exports them;
`docs/format.md` is tested against them. Change a struct here and nowhere else.
"""
from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t


cdef enum:
    BLOCK_SIZE = 4096                # unit of mapping, checksum and alignment
    BLOCK_SHIFT = 12
    SUPERBLOCK_COPIES = 4
    SUPERBLOCK_WRITE_QUORUM = 3
    SUPERBLOCK_READ_QUORUM = 2
    FORMAT_MAJOR = 1
    FORMAT_MINOR = 0
    WIRE_VERSION = 1

    SUPERBLOCK_MAGIC = 0x42535052    # "RPSB"
    ROOT_MAGIC = 0x54525052          # "RPRT"
    BATCH_MAGIC = 0x54425052         # "RPBT"
    FRAME_MAGIC = 0x52465052         # "RPFR"

    BATCH_HEADER_BYTES = 128
    DESCRIPTOR_BYTES = 48
    BATCH_PAYLOAD_BLOCKS = 64        # 256 KiB: the measured sweet spot of one write
    BATCH_BLOCKS = 65                # header block + payload
    # header area left for descriptors (48 B each) and payload checksums (4 B each)
    BATCH_AREA_BYTES = 3968

    PAGE_ENTRIES = 512               # extent entries in a map leaf: 2 MiB of volume
    PAGE_BITS = 32768                # bits in a bitmap page: 128 MiB of volume
    DIRECTORY_ENTRIES = 256          # page references in a directory page

    # locations ("pblk", in blocks of the store) that are not data: the superblock
    # and root live below the first segment, so 0 to 3 can never be data
    LOCATION_HOLE = 0
    LOCATION_ZERO = 1                # allocated, reads as zeros (write-zeroes)
    LOCATION_BAD = 2                 # content lost: an error; the checksum is that of what was there
    LOCATION_LOST = 3                # the map entry itself was lost: an error, checksum not known

    VOLUME_NAME_BYTES = 64
    LINEAGE_ENTRIES = 64
    MEMBERS_MAX = 8
    GENERATIONS_MAX = 8              # change bitmaps a volume may have; CHANGES_KEPT are kept
    SESSION_WINDOW = 4096            # request numbers remembered for re-sends
    SESSION_WINDOW_WORDS = 64

    FRAME_HEADER_BYTES = 64
    FRAME_META_MAX = 8192
    FRAME_BODY_MAX = 262144


cdef enum operation_t:
    OP_NONE = 0
    OP_WRITE = 1          # payload blocks follow in the batch
    OP_ZERO = 2           # write-zeroes: allocated, no payload
    OP_TRIM = 3           # hole
    OP_MOVE = 4           # cleaner: same data, new place; counts only if still at `source`
    OP_COPY = 5           # resync: committed block of the primary, goes straight to the map
    OP_COPY_ZERO = 6
    OP_COPY_HOLE = 7
    OP_COMMIT = 8         # everything of this volume up to `lsn` is committed
    OP_SEAL = 9           # this store refuses epochs below `epoch`
    OP_EPOCH = 10         # `epoch` begins after `lsn`
    OP_TRUNCATE = 11      # records of this volume above `lsn` are void
    OP_LEARN = 12         # map incomplete from here: stream starts after `lsn`, base `lba`
    OP_JOINED = 13        # map complete again
    OP_COPY_BAD = 14      # resync: a block that no copy could give; `source` and `request` are its map entry
    OP_BAD = 15           # the cleaner: a block that no copy could give; counts only if still at `source`
    OP_SESSION = 16       # resync: bits `lba` of the session window from `request` on, up to request `lsn`


cdef enum segment_state_t:
    SEGMENT_FREE = 0      # may be entered by the log (it stands in the checkpoint's plan)
    SEGMENT_OPEN = 1
    SEGMENT_SEALED = 2
    SEGMENT_EMPTY = 3     # no live block left; free after the next checkpoint


cdef enum segment_class_t:
    CLASS_USER = 0
    CLASS_CLEANER = 1
    SEGMENT_CLASSES = 2


cdef enum frame_type_t:
    FRAME_HELLO = 1
    FRAME_APPEND = 2
    FRAME_ACK = 3
    FRAME_COMMIT = 4
    FRAME_FLUSH = 5
    FRAME_PING = 6
    FRAME_PONG = 7
    FRAME_SEAL = 8
    FRAME_SEALED = 9
    FRAME_PULL = 10
    FRAME_TAIL = 11
    FRAME_LEARN = 12
    FRAME_COPY = 13
    FRAME_COPIED = 14
    FRAME_REQUEST = 15
    FRAME_REPLY = 16
    FRAME_WANT = 17
    FRAME_REJECT = 18
    FRAME_FETCH = 19
    FRAME_FETCHED = 20
    FRAME_VERIFY = 21


# Bits of frame_header_t.flags, by frame type.
cdef enum frame_flag_t:
    DURABLE_FLAG = 1      # APPEND: acknowledge when flushed
    JOIN_FLAG = 2         # FLUSH, ACK: the flush that a join waits for
    DIVERGED_FLAG = 8     # REJECT: the logs differ
    LEARNING_FLAG = 16    # WANT, SEALED, FETCH: the map is incomplete
    GRANT_FLAG = 32       # PING: you are being served
    LAST_FLAG = 64        # TAIL, COPY: the end of what was asked for
    ANY_FLAG = 128        # FETCH: the checksum is not known


# What a FETCHED frame says, in its session field.
cdef enum fetch_status_t:
    FETCH_DATA = 0        # the block is the body, its checksum in `extra`
    FETCH_ZEROS = 1       # hole, or allocated zero
    FETCH_LATER = 2       # not now: ask again
    FETCH_NONE = 3        # this copy does not have it


cdef packed struct superblock_t:
    uint32_t magic
    uint32_t crc                  # of the whole 4 KiB block with this field zero: torn, rotten
    uint16_t format_major         # newer than ours: refused
    uint16_t format_minor
    uint32_t copy_number          # misdirected copy
    uint64_t feature_compat
    uint64_t feature_ro_compat
    uint64_t feature_incompat     # an unknown bit: refused
    uint8_t store_uuid[16]        # another store's block
    uint64_t sequence             # stale copy: highest one that a quorum agrees on wins
    uint32_t parent_crc           # checksum of the superblock before this one
    uint32_t clean                # 1 only after a clean close
    uint64_t life_id              # random per open: batches of other lives are void
    uint8_t boot_id[16]           # kernel boot: another one means power may have been lost
    uint64_t total_blocks
    uint32_t segment_blocks       # power of two
    uint32_t segment_count
    uint32_t root_blocks          # size of each of the two root areas
    uint32_t page_slots           # pages of shadow-paged metadata; each has two blocks
    uint32_t root_area            # 0 or 1: which root is current
    uint32_t root_bytes
    uint32_t root_crc
    uint32_t reserved


cdef packed struct root_header_t:
    uint32_t magic
    uint32_t version
    uint64_t batch_sequence       # the log after this batch is replayed
    uint32_t batch_crc            # header checksum of that batch: start of the chain
    uint32_t segment_count
    uint32_t plan_count           # segments the log may enter, in this order
    uint32_t volume_count
    uint32_t root_bytes
    uint32_t reserved0
    uint64_t reserved1[3]
    # followed by segment_entry_t[segment_count], uint32_t plan[plan_count],
    # then volume_count times a volume_entry_t with its own tail


cdef packed struct segment_entry_t:
    uint32_t generation           # grows with every reuse: a stale batch is recognised
    uint32_t live                 # blocks referenced by the maps
    uint8_t state
    uint8_t segment_class
    uint16_t written_blocks       # of an open one: the log goes on behind them; 0: not known
    uint32_t age                  # checkpoint number when sealed: cost-benefit input


cdef packed struct page_reference_t:
    uint32_t slot                 # block of the page area; 0: no page
    uint32_t crc                  # of the 4 KiB page
    uint64_t max_lsn              # newest change below this page


cdef packed struct tree_entry_t:
    uint64_t base_lsn             # change bitmaps: holds every block changed after it
    uint32_t directory_count
    uint32_t reserved
    # followed by page_reference_t[directory_count]


cdef packed struct lineage_t:
    uint32_t epoch
    uint32_t reserved
    uint64_t first_lsn            # first LSN this epoch assigned


cdef packed struct volume_entry_t:
    uint8_t uuid[16]
    char name[64]
    uint64_t size_blocks
    uint32_t index                # cluster-wide number
    uint32_t epoch                # newest epoch this copy took part in
    uint32_t sealed_epoch
    uint32_t flags                # VOLUME_*
    uint64_t last_lsn
    uint64_t commit_lsn
    uint64_t durable_lsn
    uint64_t chain                # running hash at commit_lsn
    uint64_t learn_base           # while learning: the map is right up to here; 0: nothing need be
    uint32_t session
    uint32_t lineage_count
    uint64_t session_floor
    uint64_t session_window[64]
    lineage_t lineage[64]
    uint32_t pending_count        # records above commit_lsn that follow
    uint32_t pending_crcs
    uint32_t tree_count           # map first, then change bitmaps
    uint32_t reserved
    # followed by pending_t[pending_count], uint32_t crc[pending_crcs],
    # then tree_count times tree_entry_t with its references


cdef enum:
    VOLUME_LEARNING = 1           # map incomplete: may neither lead nor count


cdef packed struct pending_t:
    uint64_t lsn
    uint64_t lba
    uint32_t blocks
    uint32_t location
    uint32_t epoch
    uint32_t session
    uint64_t request
    uint64_t chain                # running hash after this record
    uint8_t operation
    uint8_t flags
    uint16_t reserved0
    uint32_t reserved1


cdef packed struct extent_t:
    uint32_t location
    uint32_t crc


cdef packed struct batch_header_t:
    uint32_t magic
    uint32_t crc                  # of the 4 KiB header block with this field zero
    uint16_t version
    uint16_t flags
    uint16_t descriptor_count
    uint16_t payload_blocks
    uint64_t store_id             # first half of the store uuid: another store's batch
    uint64_t life_id              # an older life's batch
    uint64_t sequence             # place in the chain
    uint64_t flushed_sequence     # batches up to here were durable: a hole below is corruption
    uint64_t completed_sequence   # batches up to here were acknowledged
    uint32_t previous_crc         # header checksum of batch sequence - 1: the hash chain
    uint32_t segment              # misdirected write
    uint32_t generation           # an older use of this segment
    uint32_t offset_blocks        # place in the segment: misdirected write
    uint32_t segment_class
    uint32_t reserved0
    uint64_t reserved1[6]


cdef packed struct descriptor_t:
    uint32_t volume               # cluster-wide index
    uint32_t epoch                # of LSN assignment
    uint64_t lsn                  # of the first block; a record covers [lsn, lsn + blocks)
    uint64_t lba                  # in blocks
    uint64_t request              # the session's request number: re-sends are recognised
    uint32_t blocks
    uint32_t source               # OP_MOVE, OP_BAD: where the first block was; OP_COPY_BAD: BAD or LOST
    uint32_t session
    uint8_t operation
    uint8_t flags
    uint16_t stored               # reserved for compression


cdef packed struct frame_header_t:
    uint32_t magic
    uint32_t crc                  # of header (this field zero) and meta
    uint8_t type
    uint8_t flags
    uint16_t version
    uint32_t meta_bytes           # follows the header
    uint32_t body_bytes           # follows meta; its checksums are in meta
    uint32_t volume
    uint32_t epoch
    uint32_t session
    uint64_t lsn
    uint64_t commit
    uint64_t chain
    uint64_t extra


cdef packed struct request_meta_t:
    uint8_t kind                  # RS_* of frontend.h
    uint8_t flags
    uint16_t reserved
    uint32_t crc                  # of the whole payload, taken where the client is
    uint64_t offset               # bytes
    uint64_t length


cdef packed struct reply_meta_t:
    int32_t error                 # 0 or a positive errno
    uint32_t crc                  # of the whole body


cdef packed struct hello_meta_t:
    uint8_t boot_id[16]
    uint8_t store_uuid[16]
    uint64_t life_id
    uint32_t node
    uint32_t reserved
