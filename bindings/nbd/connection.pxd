"""What one NBD connection remembers, and the limits it keeps.

Rules of life and death:
1. A connection is kept by references: one of the link, one of each operation, one of a
   farewell that is still to be sent. It is freed with the last, so it outlives its link
   until the engine has answered everything.
2. An operation lives from its request header until the engine has its last request back
   and its answer is sent. So OPERATIONS_MAX bounds a client that asks and never reads.
3. Once `mute`, nothing is sent and the link is not named any more: its number may already
   be somebody else's.
"""
from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t

from repstore_nbd.frontend_api cimport rs_engine, rs_engine_api


cdef enum:
    OPERATIONS_MAX = 1024                # in flight on one connection
    # payload in flight on one connection; a lone request may be bigger. With one request of
    # PAYLOAD_BYTES_MAX on top it stays below what the send queue of a link may hold (64 MiB)
    OUTSTANDING_BYTES_MAX = 50331648     # 48 MiB
    PAYLOAD_BYTES_MAX = 33554432         # 32 MiB: of one read or write
    OPTION_BYTES_MAX = 8192              # a longer option is skipped and refused,
    OPTION_SKIP_BYTES_MAX = 1048576      # and beyond this the connection is closed
    OPTIONS_MAX = 1024                   # on one connection
    EXPORT_NAME_BYTES_MAX = 255          # no export has a longer name
    EXPORTS_LISTED_MAX = 65536
    BLOCK_BYTES = 4096                   # the engine's unit: preferred, and where requests are cut
    ALLOCATION_CONTEXT_ID = 1            # our number of base:allocation


cdef enum phase_t:
    PHASE_CLIENT_FLAGS = 0
    PHASE_OPTIONS = 1
    PHASE_SKIPPING_OPTION = 2            # too long to be looked at
    PHASE_OPENING = 3                    # the engine is asked for the export
    PHASE_TRANSMISSION = 4
    PHASE_DRAINING = 5                   # the client said goodbye; answers are still due
    PHASE_CLOSED = 6


cdef enum token_t:                       # low bits of a send token: what its pointer is
    TOKEN_REQUEST = 0                    # rs_request whose data was lent
    TOKEN_OPERATION = 1                  # operation_t whose answer this was
    TOKEN_FAREWELL = 2                   # no pointer: last words before the close
    TOKEN_KINDS = 7


cdef struct operation_t:
    connection_t* connection
    operation_t* next_free
    uint64_t cookie
    uint64_t offset
    uint64_t length
    uint64_t position                    # of it asked of the engine, or skipped
    uint8_t* gathered                    # read that must leave in one piece
    uint32_t charged_bytes               # of OUTSTANDING_BYTES_MAX
    uint32_t under_way                   # requests the engine has not answered
    uint32_t held                        # requests not given back, and an answer not sent
    int32_t error                        # the first one wins
    uint8_t kind                         # RS_*
    uint8_t flags                        # of the requests
    uint8_t structured                   # answered in chunks
    uint8_t one_extent
    uint8_t unasked                      # not everything was asked of the engine yet
    uint8_t answered


cdef struct connection_t:
    const rs_engine_api* api
    rs_engine* engine
    uint32_t link
    uint32_t references
    uint8_t phase
    uint8_t mute
    uint8_t receiving                    # inside `received`: the parser goes on by itself
    uint8_t stalled                      # by our own limits: `resume` when there is room
    # the handshake
    uint8_t no_zeroes
    uint8_t structured
    uint8_t context_name_bytes
    uint8_t context_chosen               # base:allocation, for the export of that name
    uint8_t wants_block_size
    uint8_t opened                       # the engine counts us as a user of `export_id`
    uint32_t options_seen
    uint32_t option                      # being skipped, or waiting for its export
    uint32_t skip_bytes
    uint8_t context_name[EXPORT_NAME_BYTES_MAX]
    # the transmission
    uint8_t read_only
    uint32_t export_id
    uint64_t size_bytes
    uint64_t outstanding_bytes
    operation_t* current                 # still to be asked of the engine in part
    operation_t* free_operations
    operation_t* operations              # the slab


cdef connection_t* connection_new(const rs_engine_api* api, rs_engine* engine,
                                  uint32_t link) noexcept nogil
cdef void connection_close(connection_t* connection) noexcept nogil
cdef void reference_drop(connection_t* connection) noexcept nogil
cdef bint operations_allocate(connection_t* connection) noexcept nogil
cdef operation_t* operation_take(connection_t* connection) noexcept nogil
cdef void operation_let_go(operation_t* operation) noexcept nogil
