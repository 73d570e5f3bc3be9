"""What one engine knows: the structs that the rooms of the data plane share.

    engine_t    one node (or a client without a store): requests, exports, links
      store_t   the local log-structured store: segments, log, checkpoint, cleaner
      volume_t  one copy of a volume: LSNs, pending records, extent map, change bitmaps
        member_t  the primary's view of one other copy
      export_t  a volume as frontends of this engine see it, wherever its primary is

The verbs live in the rooms, which call only downwards:
    engine > exports > replication (primary, replica) > cleaner, checkpoint > service > records, volume > log

Invariants (engine check_invariants; numbered here, asserted in `checks`):
  E1 commit_lsn <= local_lsn of every volume, and local_lsn <= last_lsn unless a LEARN record is
     being written; the pending records cover exactly (commit_lsn, local_lsn] without a gap
  E2 live of a segment = extents that point into it, over all maps in memory
  E3 completed_sequence <= submitted sequence; flushed_sequence <= completed_sequence
  E4 no segment of the plan that is still ahead has live or pending blocks
  E5 a primary's commit_lsn is not above what any in-sync member acknowledged
  E6 emptied = sealed segments in which nothing lives or is pending
  E7 coming_records and coming_blocks = all records that are logged and not committed, and their payload
  E8 a replica follows no primary of an epoch below its seal
  E9 the requests in use are those that the volumes hold; what each holds beyond REQUESTS_OWN is shared_requests
"""
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from repstore._fast.backend cimport backend_t
from repstore._fast.bad_blocks cimport repairs_t, scrub_t
from repstore._fast.frontend cimport rs_frontend, rs_request
from repstore._fast.layout cimport (
    SEGMENT_CLASSES, extent_t, lineage_t, pending_t, superblock_t,
)
from repstore._fast.page_tree cimport capture_list_t, directory_t, page_t, page_tree_t, slots_t
from repstore._fast.patience cimport page_patience_t, patience_t
from repstore._fast.verify_state cimport verify_t


# ---------------------------------------------------------------- limits of the data plane
cdef enum:
    REQUESTS_MAX = 4096            # client requests under way in one engine
    REQUESTS_OWN = 4               # of these, kept for each volume that is exported or led here (Q1)
    REQUESTS_SHARED = 2048         # the rest: REQUESTS_MAX - REQUESTS_OWN * (EXPORTS_MAX + VOLUMES_MAX)
    REQUEST_BLOCKS = 65            # 256 KiB at any alignment
    RECORD_BLOCKS = 15             # payload of a record: fits the smallest segment that a copy can have
    BATCHES = 12                   # batch buffers
    LANES = 4                      # writes of pages under way
    LANE_PAGES = 32
    BATCHES_FLYING = 4             # batches being written: few fat ones beat many thin ones
    PENDING_RECORDS = 1024         # records of a volume that are not committed yet
    CONTROL_RECORDS = 64           # of them, those that begin an epoch
    ROOT_CONTROL_RECORDS = 8       # of a volume: those for which a root always has room
    PENDING_CRCS = 4096            # their payload blocks (16 MiB)
    VOLUMES_MAX = 256              # copies one store holds
    VOLUME_INDEX_MAX = 65536       # cluster-wide numbers
    EXPORTS_MAX = 256
    EXPORT_GENERATIONS = 8388608   # an id has place and generation in 31 bits
    NODES_MAX = 16
    CLIENT_NODE = 0xFFFF           # what an engine without a store says it is
    LINKS_MAX = 1024
    EVENTS_MAX = 4096
    TRIM_BLOCKS = 131072           # 512 MiB: longest range of one record
    RESYNC_FLYING = 16             # copies under way to one learner; a run that is cut up counts in pieces
    CHANGES_KEPT = 2               # change bitmaps: one that reaches back far enough, one younger
    PAGE_LOADS = 64                # metadata pages being read at once
    VERIFY_PAGES = 64              # pages that a verification looks at exactly

cdef extern from "<stdint.h>":
    const uint64_t UNTOLD "UINT64_MAX"         # for told_*_lsn: say it in any case, whatever was said before


# --------------------------------------------------------------------- completion tokens
cdef enum token_kind_t:
    TOKEN_BATCH = 1                # index of the batch
    TOKEN_FLUSH = 2
    TOKEN_READ = 3                 # index of the request, first block and count of the run
    TOKEN_PAGE = 4                 # index of the page load
    TOKEN_CLEANER = 5
    TOKEN_CHECKPOINT = 6           # step-specific
    TOKEN_TRANSFER = 7             # index of the transfer
    TOKEN_SCRUB = 8                # which block of a page


# What was lent to a send, in its token.
cdef enum sent_kind_t:
    SENT_REPLY = 1                 # index of the request
    SENT_BATCH = 2                 # index of the batch
    SENT_TRANSFER = 3              # index of the transfer


cdef inline uint64_t token(int kind, uint64_t value) noexcept nogil:
    return <uint64_t>kind << 56 | value


cdef struct engine_t
cdef struct export_t
cdef struct volume_t


# ----------------------------------------------------------------------------- requests
cdef enum request_state_t:
    REQUEST_FREE = 0
    REQUEST_NEW = 1
    REQUEST_HELD = 2               # waits in its export for a primary
    REQUEST_REMOTE = 3             # sent to the primary's node
    REQUEST_PARKED = 4             # local: waits for room, a page, a lock or a lease
    REQUEST_READING = 5
    REQUEST_LOGGED = 6             # waits for its LSN
    REQUEST_FLUSHING = 7
    REQUEST_DONE = 8


cdef enum request_flag_t:
    REQUEST_FOREIGN = 1            # came in a frame: its frontend sits on another node
    REQUEST_MERGE = 2              # read-modify-write: reading the edges
    REQUEST_TARGET = 4             # buffer is the caller's own memory
    REQUEST_DURABLE = 8            # done only when durable on every member
    REQUEST_AGAIN = 16             # met a bad block: starts again when that is repaired


cdef struct request_t:
    rs_request front               # must be first: frontends hold a pointer to it
    engine_t* engine
    request_t* next                # in the one queue it waits in
    request_t* older               # in its export's list, in order of number
    request_t* newer
    export_t* export
    volume_t* volume
    uint8_t* buffer                # aligned: what is read, or the payload to keep
    uint8_t* edges                 # MERGE: first and last block as they were
    uint32_t buffer_blocks
    uint32_t index
    uint32_t flags
    uint32_t link                  # FOREIGN: where the reply goes
    uint8_t state
    uint8_t reserved
    uint16_t outstanding           # reads under way
    uint32_t session
    uint64_t number                # request number in its session
    uint64_t lba
    uint64_t lsn                   # last LSN it took
    uint64_t submitted_ns
    uint32_t blocks
    uint32_t logged_blocks         # of a write that takes several records: how far they have come
    uint32_t link_generation       # FOREIGN: the link may have died and come back
    uint32_t holder                # cluster-wide index of the volume whose share it is of
    extent_t extents[65]


cdef struct request_queue_t:
    request_t* head
    request_t* tail
    uint32_t count


# -------------------------------------------------------------------------------- store
cdef struct segment_t:
    uint32_t generation
    uint32_t live                  # blocks the maps point to
    uint32_t pending               # blocks of uncommitted records, and batches being written
    uint32_t pins                  # reads under way
    uint32_t age                   # checkpoint number when sealed
    uint8_t state
    uint8_t segment_class
    patience_t patience            # of the cleaner, with blocks that could not be read


cdef enum batch_state_t:
    BATCH_FREE = 0
    BATCH_OPEN = 1
    BATCH_FLYING = 2
    BATCH_WRITTEN = 3
    BATCH_APPLIED = 4              # only lent payload keeps it


cdef struct log_batch_t:
    uint8_t* buffer
    uint64_t sequence
    uint32_t index
    uint64_t number                # counts opened batches
    uint32_t lent                  # sends that still read its payload
    uint32_t segment
    uint32_t offset
    uint8_t state
    uint8_t segment_class
    bint announced                 # its records went to the members


# Where one class of data is being written.
cdef struct log_head_t:
    uint32_t segment
    uint32_t cursor                # next free block of the segment
    log_batch_t* batch
    bint opened
    bint control                   # of the cleaner's reserve: for records that bring a volume on (L6)


cdef struct log_t:
    log_head_t heads[2]
    log_batch_t batches[12]
    log_batch_t* chain[12]         # submitted, in order of sequence (ring)
    uint32_t chain_head
    uint32_t chain_count
    uint64_t next_sequence
    uint64_t completed_sequence
    uint64_t flushed_sequence
    uint64_t flushing_sequence
    uint64_t flushed_ns            # when the last flush was answered
    uint64_t told_sequence         # flushed_sequence as the newest batch has it
    uint64_t filled_sequence       # the newest batch with records
    uint32_t last_crc
    bint flush_flying
    bint flush_wanted
    bint held                      # a checkpoint begins: nothing new enters
    uint64_t opened                # batches opened so far
    uint64_t blocks_since_checkpoint


cdef enum checkpoint_step_t:
    CHECKPOINT_IDLE = 0
    CHECKPOINT_SETTLE = 1          # of a life's first one: what it was opened with is flushed
    CHECKPOINT_DRAIN = 2           # hold the log until all batches are applied
    CHECKPOINT_PAGES = 3
    CHECKPOINT_ROOT = 4
    CHECKPOINT_FLUSH = 5
    CHECKPOINT_SUPER_A = 6
    CHECKPOINT_FLUSH_A = 7
    CHECKPOINT_SUPER_B = 8
    CHECKPOINT_FLUSH_B = 9
    CHECKPOINT_MIRROR = 10         # it is durable: the root goes to the other area too
    CHECKPOINT_FLUSH_MIRROR = 11   # of a clean close: no other flush follows


# Pages on their way to slots that lie side by side.
cdef struct checkpoint_lane_t:
    uint8_t* pages                 # LANE_PAGES
    uint32_t first_slot
    uint32_t count
    uint32_t flying                # writes: each page has two blocks


cdef struct checkpoint_t:
    uint8_t step
    uint8_t wanted
    uint8_t closing                # the next one closes the store
    uint8_t clean                  # this one does: nothing follows it
    uint64_t number                # checkpoints finished since open
    uint64_t begun
    capture_list_t captures
    directory_t** directories      # to be written, with their captured content
    uint32_t directory_count
    uint32_t directory_capacity
    uint32_t directories_taken
    uint32_t flying
    checkpoint_lane_t lanes[4]
    uint8_t* root
    uint32_t root_bytes
    uint32_t root_written
    uint8_t* superblocks           # four blocks
    uint8_t superblock_order[4]    # two are written, then the other two; those that lag come first
    uint32_t emptied               # segments that the new plan adds
    uint64_t batch_sequence
    uint32_t batch_crc


cdef struct cleaner_t:
    int64_t victim                 # segment, or -1
    uint64_t idle_ns               # active_ns of the idle time in which no victim was worth it
    uint32_t cursor                # next block of the victim to read
    uint8_t* buffer                # CLEANER_READ_BLOCKS
    uint32_t have                  # blocks in buffer
    uint32_t parse                 # next header in buffer
    uint32_t record                # next record of that batch
    uint32_t block                 # next block of that record
    uint32_t payload               # payload index of that record
    bint by_map                    # a header is damaged: what still lives is found through the maps
    uint32_t volume                # place of the volume whose map is looked through
    uint64_t lba                   # next block of it
    extent_t extent                # of that block, when it was read
    uint32_t reread                # location of the bad block that was read once more
    bint unread                    # the block that was read by itself last could not be
    bint giving_up                 # blocks of this victim have been tried for long enough
    uint32_t skipped               # those that will be tried again
    bint took_room                 # something was moved out of it
    uint64_t aside_ns              # when the first victim that was set aside is looked at again; 0: none is
    bint aside_last                # the last victim had been set aside: others have their turn
    int64_t unfinished             # took the last room and did not end empty; -1: none
    uint64_t rested_ns             # when no room was wanted last
    bint reading
    bint one                       # a single block of the buffer
    bint singly                    # the piece could not be read at once: block by block
    uint32_t single
    uint64_t moved_blocks
    uint64_t cleaned_segments


cdef enum load_step_t:
    LOAD_FIRST = 0                 # the first block of the page,
    LOAD_SECOND = 1                # the second, for the first was bad,
    LOAD_OTHER = 2                 # or another one of the store: does the disk give anything (W4)?


cdef struct page_load_t:
    volume_t* volume
    bint is_map                    # of its map, or of the change bitmap with this base
    uint64_t base_lsn
    uint32_t number
    uint8_t* buffer
    uint32_t step                  # load_step_t
    bint unread                    # one of the two could not be read
    page_patience_t patience
    bint busy


# Pages that could not be read and wait to be tried again. They hold no load, or others would wait with them.
cdef struct page_retries_t:
    page_load_t* items
    uint32_t count
    uint32_t capacity
    uint64_t next_ns               # when the first of them is due


cdef struct store_counters_t:
    uint64_t user_blocks           # payload written for clients and replication
    uint64_t moved_blocks          # payload rewritten by the cleaner
    uint64_t batches
    uint64_t flushes
    uint64_t reads
    uint64_t read_blocks
    uint64_t bad_blocks            # blocks, pages and headers that were not what was written
    uint64_t mended_blocks         # of the blocks: written anew with what another copy gave
    uint64_t checkpoints
    uint64_t pages_written


cdef struct store_t:
    superblock_t superblock        # as last written
    uint64_t store_id
    uint64_t life_id
    uint64_t total_blocks
    uint32_t segment_blocks
    uint32_t segment_shift
    uint32_t segment_count
    uint32_t half                  # segments below it stand before superblock copy 2
    uint64_t segment_base
    uint64_t page_base
    uint32_t root_blocks
    uint32_t reserve               # segments only the cleaner and trims may take
    uint32_t low                   # free and emptied segments below which the cleaner works
    uint32_t high                  # below which it does while nobody else wants the disk
    uint64_t active_ns             # when somebody last did
    uint64_t capacity_blocks       # what clients may fill
    uint64_t live_blocks
    uint64_t coming_records        # logged and not committed
    uint64_t coming_blocks         # their payload
    int64_t root_room              # bytes of a root for them: what the volumes themselves take is left out
    segment_t* segments
    uint32_t* plan                 # segments the log may enter, in order
    uint32_t plan_count
    uint32_t plan_next
    uint32_t emptied               # sealed segments in which nothing lives or is pending
    slots_t slots
    log_t log
    checkpoint_t checkpoint
    cleaner_t cleaner
    page_load_t loads[64]
    uint32_t loads_flying
    page_retries_t retries
    uint64_t flush_ns              # when the last flush was issued
    int32_t failed                 # errno of the fault that fenced the store
    bint recovering                # pages are read at once, nothing is acknowledged
    bint recount                   # a map page was lost: `live` of the segments is too high
    bint closed
    store_counters_t counters
    uint64_t patience_ns           # how long what cannot be read is tried again
    # recovery reads at once: a file descriptor, or memory
    int descriptor
    uint8_t* memory
    bint impatient                 # a page was given up, and none that could not be read came since (G3)
    uint64_t unread_block          # what could not be read while the disk was silent, and so the store not (W4)


# ------------------------------------------------------------------------------ volumes
cdef enum role_t:
    ROLE_NONE = 0
    ROLE_PRIMARY = 1
    ROLE_REPLICA = 2
    ROLE_LEARNER = 3


cdef enum member_state_t:
    MEMBER_NONE = 0
    MEMBER_IN_SYNC = 1             # counts for every acknowledgement
    MEMBER_JOINING = 2             # counts already; its join is being decided
    MEMBER_LEARNER = 3             # gets the stream and copies, counts for nothing


# Blocks read from our disk for another node: one pending record (a tail), or a run of committed
# blocks (a resync). Lent to sends until all of them are through.
cdef struct transfer_t:
    volume_t* volume
    uint8_t* buffer
    uint32_t node
    uint8_t kind                   # FRAME_APPEND, FRAME_TAIL or FRAME_COPY
    bint busy
    uint32_t outstanding           # reads, then sends
    bint stalled                   # waits for repairs, or for its time, then reads again
    uint64_t bad                   # blocks that are bad here, as bits
    bint unread                    # some of them could not be read
    patience_t patience            # with these
    uint32_t blocks
    uint64_t lba
    uint64_t lsn                   # of the record; 0: the end of a tail
    uint64_t learn_serial          # of the learner's session it belongs to
    uint64_t serial                # records leave in the order they were asked for
    bint ready                     # read, waits for those before it
    bint lent                      # handed to the link
    extent_t extents[64]


cdef struct member_t:
    uint32_t node
    uint8_t state
    bint streaming                 # gets every new batch as it is closed
    bint tailing                   # gets the pending records it lacks; the volume is held
    bint attaching                 # learner: waits until nothing is pending
    bint silent_told
    bint join_asked
    bint join_told
    uint64_t learn_serial          # of this session as learner; its answers carry it
    bint asks                      # on this link, to go on; and nobody has answered that yet
    uint64_t asks_lsn              # behind this LSN
    bint linked                    # this session's answers count: its log is a prefix of ours (P6)
    bint claimed                   # it answered, and that cannot be told yet
    uint64_t claim_lsn             # so far
    uint64_t claim_durable_lsn
    uint64_t claim_chain           # with this running hash
    uint64_t acked_lsn
    uint64_t durable_lsn
    uint64_t tail_next
    uint64_t asked_durable_lsn
    uint64_t lease_until_ns
    uint64_t progress_ns           # when it last acknowledged something new, or had nothing to
    uint64_t ping_ns
    uint64_t free_blocks           # it told, without what is on its way to it
    uint64_t free_lsn              # when it had committed this
    # resync
    bint copying
    bint copy_full
    bint copy_data                 # second pass: blocks that take room; before it those that give it back
    bint caught_up_told
    int32_t copy_tree              # change bitmap that is walked
    uint32_t copies_read           # runs that are being read
    uint64_t copies_sent           # frames, numbered from 1 on in each session as learner
    uint64_t copies_told           # it has all frames up to here
    uint64_t common_lsn
    uint64_t copy_next             # next lba to look at
    uint64_t copied_blocks
    uint64_t copy_total


cdef enum missing_t:               # bits
    MISSING_RECORDS = 1
    MISSING_COPIES = 2


cdef enum:                         # kinds of barriers
    BARRIER_SEAL = 0
    BARRIER_JOIN = 1
    BARRIERS = 2


cdef enum barrier_state_t:
    BARRIER_IDLE = 0
    BARRIER_WANTED = 1             # its record is to be logged
    BARRIER_LOGGED = 2
    BARRIER_APPLIED = 3            # written; needs a flush issued from now on
    BARRIER_FLUSHING = 4
    BARRIER_DONE = 5               # durable


cdef struct parked_frame_t:
    parked_frame_t* next
    uint32_t bytes                 # header + meta + body follow
    uint32_t reserved


cdef struct volume_t:
    engine_t* engine
    uint32_t index
    uint32_t flags                 # VOLUME_LEARNING
    uint32_t root_trees            # where its trees stand in the root being written,
    uint32_t root_tree_count       # and how many: one that is begun meanwhile is not in it
    uint8_t uuid[16]
    char name[64]
    uint64_t size_blocks
    uint8_t role
    bint held                      # no new record until a tail or attach is settled
    bint durable                   # acknowledgement level `durable`
    bint deleted
    uint32_t epoch
    uint32_t sealed_epoch
    uint32_t incarnation
    uint32_t primary_node
    # the log of this volume
    uint64_t last_lsn              # assigned, or accepted from the primary
    uint64_t local_lsn             # written here, in chain order
    uint64_t commit_lsn            # on every in-sync member
    uint64_t durable_lsn           # flushed here
    uint64_t flushing_lsn
    uint64_t learn_base
    uint64_t chain_last
    uint64_t chain_local
    uint64_t chain_commit
    uint64_t marked_batch          # number of the open batch that carries our COMMIT mark
    lineage_t lineage[64]
    uint32_t lineage_count
    # pending: written here, not committed; ring in LSN order
    pending_t* pending
    uint32_t* pending_crcs
    uint32_t pending_head
    uint32_t pending_count
    uint32_t crc_head
    uint32_t crc_count
    uint32_t unapplied_records     # appended to the log, not yet pending
    uint32_t unapplied_blocks
    # committed state
    page_tree_t map
    page_tree_t changes[8]         # blocks changed after base_lsn, oldest base first
    uint32_t change_count
    # requests
    request_queue_t waiting        # logged, in LSN order
    request_queue_t flushing
    request_queue_t parked         # order of arrival
    request_queue_t merging        # read-modify-writes under way
    uint32_t session
    uint64_t session_barrier       # a new session starts when this LSN is committed
    uint64_t session_highest
    uint64_t session_window[64]
    uint32_t refused_session       # of the request of another node that was sent back last,
    uint64_t refused_number        # for which those behind it wait until it comes again,
    uint64_t refused_until_ns      # or until then (X4)
    # replication
    uint32_t copies                # wanted; in sync may be fewer
    uint32_t min_copies            # with fewer in sync nothing is acknowledged
    member_t members[8]
    uint32_t member_count
    bint leading                   # tails are being sent, the EPOCH record is not out yet
    uint64_t chain_sent            # running hash after the last announced record
    uint64_t announced_ns          # when records last went out
    uint64_t known_commit          # replica: what the primary said is committed
    uint64_t floor_lsn             # durable on every copy when all were in sync
    uint8_t barriers[2]            # barrier_state_t by kind
    uint64_t unproved_lsn          # replica: our log up to here did not come in this primary's session
    uint64_t join_lsn              # where our log must end before we flush it to join
    uint32_t sealing_nodes         # who asked for the seal, as bits
    int32_t pulling                # node whose tail we fetch; -1: none
    bint pull_ended
    int32_t tail_node              # candidate that fetches our tail; -1: none
    uint64_t tail_next
    bint heard                     # the primary of this epoch talks to us on this link
    int missing                    # missing_t: but not about what we lack: ask, whatever else it says
    uint64_t heard_ns              # when it last did
    uint64_t want_ns               # when to ask the primary to serve us
    uint64_t last_grant_ns
    uint64_t unreadable_lsn        # of a pending record that our disk does not give back; 0: none is known
    uint64_t told_ack_lsn
    uint64_t told_durable_lsn
    uint64_t told_commit_lsn
    uint64_t ask_durable_lsn       # replica: the primary wants a flush up to here
    uint64_t learn_serial          # of our session as learner, 0: none
    uint32_t learn_epoch           # whose primary gave that number
    uint32_t copy_logged_blocks    # of the COPY frame at hand: how far its records have come
    bint learn_unapplied           # a LEARN record is on its way: last_lsn is the new log's already
    uint32_t copies_unapplied      # learner: copies logged that are not in the map yet
    uint64_t copies_commit_lsn     # the oldest of them is as of this commit, or of a later one
    uint64_t copies_taken          # learner: frames of copies up to here are in our log
    uint64_t copies_said           # and this much of it the primary was told
    parked_frame_t* inbox          # replica: frames that wait for room in the log
    parked_frame_t* inbox_tail
    uint64_t inbox_commit                      # what the parked frames say is committed (R4)
    uint64_t inbox_ns              # since when its first frame waits
    uint32_t inbox_bytes
    bint page_wait                 # a commit waits for a map page
    bint sweeping                  # lost map entries from sweep_next on are to be repaired
    uint64_t sweep_next


# ---------------------------------------------------------------------- exports, links
cdef struct export_t:
    bint used
    bint revoked
    uint32_t generation            # sessions that had its place before: in its ids (X3, X7)
    uint32_t index                 # of the volume, cluster-wide
    uint32_t session
    uint64_t size_bytes
    int32_t primary                # node number; -1: not known
    uint32_t epoch
    volume_t* volume               # the local copy, if there is one
    char name[64]
    request_t* oldest
    request_t* newest
    uint32_t count
    uint32_t opens                 # connections of this session
    uint64_t next_number
    int32_t revoke_error
    uint64_t asked_bytes           # payload of its reads and writes that another node has (X5)
    bint retry                     # some request is held and may be tried again


cdef enum link_kind_t:
    LINK_NONE = 0
    LINK_PEER_ACCEPTED = 1
    LINK_STREAM = 2
    LINK_PEER_CONNECTED = 3


cdef struct link_t:
    uint8_t kind
    bint up
    bint starved                   # its volume ran out of requests: among starved_links
    int32_t node                   # who is behind a peer link; -1: not said yet
    int32_t volume_index           # of the export that its frontend opened last; -1: none
    uint32_t lent                  # of a peer: sends that still read memory of ours
    uint64_t lent_ns               # when the last of them came back, or the first of them went
    bint opening                   # waits for an export,
    bint describing                # or to be told what one is
    uint32_t generation
    void* connection               # frontend state
    char name[64]                  # of the export it waits for


cdef struct node_t:
    int32_t link                   # -1: down
    uint8_t boot_id[16]
    uint8_t store_uuid[16]
    uint64_t life_id


cdef struct event_t:
    uint32_t kind
    uint32_t volume
    uint32_t node
    uint32_t epoch
    uint64_t a
    uint64_t b
    uint64_t c
    uint64_t d
    char text[64]


cdef struct event_ring_t:
    event_t* items
    uint32_t head
    uint32_t count
    uint64_t lost
    int descriptor                 # eventfd, or -1 (simulator)


cdef struct buffer_pool_t:
    void* free_lists[4]            # 1, 4, 16, 65 blocks
    uint32_t counts[4]


# One in-process call: an array of operations, so many of them under way at once.
cdef packed struct io_t:
    uint8_t kind                   # RS_*
    uint8_t flags
    uint16_t reserved
    uint32_t export_id
    uint64_t offset                # bytes, in the volume
    uint32_t length                # bytes
    int32_t error                  # result: 0 or a positive errno
    uint64_t buffer_offset         # bytes, in the call's buffer


cdef struct call_t:
    call_t* next
    io_t* ios
    uint8_t* buffer
    uint64_t buffer_bytes
    uint64_t count
    uint64_t started
    uint64_t finished
    uint64_t failed
    uint32_t depth
    bint starting                  # an operation is being handed over: it may finish at once
    void* waiter                   # condition to wake when all are finished


cdef struct engine_t:
    backend_t* backend
    uint64_t now_ns
    uint32_t node                  # our number
    uint8_t boot_id[16]
    bint has_store
    store_t store
    volume_t* volumes[256]         # by slot, dense up to volume_count
    uint32_t volume_count
    volume_t** by_index            # by cluster-wide index
    export_t exports[256]
    uint32_t export_count
    request_t* requests
    request_t* free_requests
    uint32_t requests_used
    uint16_t* requests_held        # by cluster-wide index
    uint32_t shared_requests       # of REQUESTS_SHARED, those in use
    buffer_pool_t pool
    link_t links[1024]
    uint32_t lent                  # sends to all peers that still read memory of ours
    uint64_t still_ns              # when one of them may have stood still for too long
    node_t nodes[16]
    transfer_t transfers[64]
    uint64_t transfer_serial
    repairs_t repairs
    scrub_t scrub
    verify_t verify
    uint32_t transfers_stalled     # wait for repairs
    rs_frontend* frontend
    event_ring_t events
    uint32_t starved_links[1024]   # whose frontend waits for a request
    uint32_t starved_count
    bint closing
    bint more                      # a room has work left: turn again before sleeping
    uint64_t deadline_ns
    uint64_t resend_ns             # when held requests are tried again
    uint64_t asked_bytes           # of all exports
    char names[256][64]            # volumes that frontends may list
    uint32_t name_count
    call_t* calls                  # in-process batch calls under way


cdef inline void due(engine_t* engine, uint64_t at_ns) noexcept nogil:
    """Turn again at that time. What is overdue waits for something else than time: a link, a
    disk; to turn for it at once, again and again, would only burn a core."""
    if at_ns > engine.now_ns and (engine.deadline_ns == 0 or at_ns < engine.deadline_ns):
        engine.deadline_ns = at_ns
