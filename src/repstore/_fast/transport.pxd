"""Links over sockets: bytes in, whole frames or a byte window up; sends queued and gathered.

A link is a number below LINKS_MAX, used again only after its `link_down`.

1. `transport_work` alone calls up. The verbs (add, send, close, hold) only change the link's
   state and put it on a list, so they may be called from inside a call up, and from any
   thread that holds the engine's lock.
2. Sends of a link leave and are answered in order. One sendmsg is under way a link at most,
   and it carries whatever is queued.
3. Every link gets one `link_up`, then one `link_down`, and every token exactly one answer:
   before the `link_down` of its link, or later when it was sent after that.
4. Nothing a peer says is used before it is checked: magic, version, lengths, then the
   checksum of header and meta. A link that talks garbage is cut.
5. A link buffers LINK_WINDOW_BYTES unread and LINK_QUEUE_BYTES unsent; it is not read beyond
   the first and cut beyond the second.
6. The last LINKS_RESERVED links are for frames: clients that connect and stay keep no peer out.
"""
from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t

from repstore._fast.aio cimport aio_t, iovec, msghdr
from repstore._fast.layout cimport frame_header_t


cdef enum:
    LINKS_MAX = 1024
    LINKS_RESERVED = 64
    LINK_WINDOW_BYTES = 1048576      # RS_STREAM_WINDOW of frontend.h
    LINK_BUFFER_BYTES = 2097152      # twice the window: unread bytes move once per window
    LINK_QUEUE_BYTES = 134217728
    LINK_ENTRY_BYTES = 64            # what an empty send counts for in the queue
    LINK_LINGER_NS = 1000000000      # a closed link may still send what was queued
    HEAD_PAGE_BYTES = 32768
    SEND_VECTORS = 256
    SEND_BYTES = 1048576             # one sendmsg gathers about this much


cdef enum transport_kind_t:
    LINK_FRAMES_ACCEPTED = 1
    LINK_BYTES_ACCEPTED = 2
    LINK_FRAMES_CONNECTED = 3


cdef enum transport_state_t:
    STATE_FREE = 0
    STATE_NEW = 1                    # has a socket, link_up not told yet
    STATE_UP = 2
    STATE_LINGERING = 3              # closed: sends what is queued, reads nothing
    STATE_CUT = 4                    # shut down: waits for what is under way in the kernel


# Who is told. The engine's side of the loop's table.
ctypedef struct transport_listener_t:
    void* engine
    void (*sent)(void* engine, uint32_t link, uint64_t token) noexcept nogil
    void (*link_up)(void* engine, uint32_t link, int kind) noexcept nogil
    void (*link_down)(void* engine, uint32_t link) noexcept nogil
    void (*frame)(void* engine, uint32_t link, const frame_header_t* header, const uint8_t* meta,
                  const uint8_t* body) noexcept nogil
    uint32_t (*stream)(void* engine, uint32_t link, const uint8_t* bytes, uint32_t count) noexcept nogil


# Copied heads live in pages that never move: the kernel may be reading them.
ctypedef struct head_page_t:
    uint32_t capacity
    uint32_t used
    uint32_t live                    # queued sends whose head is in here


ctypedef struct send_entry_t:
    const uint8_t* head
    const uint8_t* body
    head_page_t* page
    uint32_t head_bytes
    uint32_t body_bytes
    uint64_t token


ctypedef struct wire_link_t:
    int fd
    int kind
    int state
    bint receiving                   # in the kernel's hands
    bint sending
    bint held
    bint told                        # link_up was told
    bint in_attention
    bint in_dirty
    uint64_t linger_until_ns
    # received and not yet consumed: [start, end)
    uint8_t* buffer
    uint32_t start
    uint32_t end
    # queued sends: a ring whose capacity is a power of two
    send_entry_t* entries
    uint32_t first
    uint32_t count
    uint32_t capacity
    uint64_t queued_bytes
    uint64_t first_sent_bytes        # of the first entry, already gone
    head_page_t* page                # where the next head goes
    iovec* vectors
    msghdr message


ctypedef struct link_list_t:
    uint32_t links[1024]
    uint32_t count


ctypedef struct lost_answer_t:
    uint32_t link
    uint64_t token


ctypedef struct transport_t:
    aio_t* aio
    transport_listener_t listener
    uint64_t receive_tag             # ored with the link's number into tokens of aio
    uint64_t send_tag
    uint64_t now_ns
    uint64_t linger_check_ns         # when the next closed link runs out of time; 0: none
    uint32_t used
    wire_link_t links[1024]
    link_list_t free
    link_list_t attention            # wants a call up: up, deliver, settle
    link_list_t dirty                # has something to send
    # tokens of sends on links that were down already
    lost_answer_t* lost
    uint32_t lost_count
    uint32_t lost_capacity


cdef transport_t* transport_new(aio_t* aio, uint64_t receive_tag, uint64_t send_tag) noexcept nogil
cdef void transport_destroy(transport_t* self) noexcept nogil

# verbs
cdef int32_t transport_add(transport_t* self, int fd, int kind) noexcept nogil
cdef void transport_send(transport_t* self, uint32_t link, const void* head, uint32_t head_bytes,
                         const void* body, uint32_t body_bytes, uint64_t token) noexcept nogil
cdef void transport_close(transport_t* self, uint32_t link) noexcept nogil
# resuming also offers again what the engine left unconsumed
cdef void transport_hold(transport_t* self, uint32_t link, int stopped) noexcept nogil
cdef void transport_cut_all(transport_t* self) noexcept nogil

# rule 4, for whoever else hands frames to an engine; the first bounds what the second reads
cdef bint is_plausible(const frame_header_t* header) noexcept nogil
cdef uint32_t frame_crc(const frame_header_t* header, const uint8_t* meta) noexcept nogil

# the loop's side
cdef void transport_received(transport_t* self, uint32_t link, int32_t result) noexcept nogil
cdef void transport_sent(transport_t* self, uint32_t link, int32_t result) noexcept nogil
cdef void transport_work(transport_t* self, uint64_t now_ns) noexcept nogil
cdef void transport_flush(transport_t* self) noexcept nogil
cdef bint transport_has_work(const transport_t* self) noexcept nogil
