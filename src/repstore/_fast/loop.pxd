"""The production loop: one thread that owns a driver, the links and one engine's turns.

1. The engine is entered only under the loop's lock; the loop holds it for each round of
   inputs and the turn that follows, and never while it waits.
2. A round: the time, taken when its answers of the kernel are there; these answers, then what
   the links have to say, then one turn, then everything queued is handed to the kernel in one go.
3. The loop sleeps only when nothing is left to do: the engine is not busy, no call up is due.
4. Other threads may use the backend and the calls below under the lock: what they ask is
   carried out by the loop thread, which is woken once a round.
5. Whoever waits for the lock gets it before the loop's next round.
6. While the kernel has READS_FLOWING reads, more of them wait for the next answer of a read, and
   then go all at once. Nothing else waits for them, and no read waits where none is under way.
   (A device that serves one by one, and interrupts only when it has nothing left, makes of
   reads that trickle in one convoy that is answered as a whole; of two gatherings, each is
   prepared while the other is served. J. Nagle, RFC 896, for the same reason.)
"""
from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t

from repstore._fast.aio cimport aio_answer_t, aio_t
from repstore._fast.backend cimport backend_t
from repstore._fast.layout cimport frame_header_t
from repstore._fast.transport cimport transport_t


cdef extern from "<pthread.h>" nogil:
    ctypedef struct pthread_mutex_t:
        pass


cdef enum:
    DISK_SLOTS = 65536               # disk verbs an engine may have asked for at once
    DISK_ISSUED_MAX = 2048           # of these, how many the kernel has
    READS_FLOWING = 8                # reads the kernel has, from which on more wait for an answer
    LISTENERS_MAX = 16
    ACCEPT_RETRY_NS = 100000000      # out of descriptors or links: look again after this


ctypedef struct engine_vtable_t:
    # first of a round: what is handed in from here on has happened by this time
    void (*begin)(void* engine, uint64_t now_ns) noexcept nogil
    void (*disk_done)(void* engine, uint64_t token, int32_t result) noexcept nogil
    void (*sent)(void* engine, uint32_t link, uint64_t token) noexcept nogil
    # kind: as given when the socket was added, or by its listener
    void (*link_up)(void* engine, uint32_t link, int kind) noexcept nogil
    void (*link_down)(void* engine, uint32_t link) noexcept nogil
    void (*frame)(void* engine, uint32_t link, const frame_header_t* header, const uint8_t* meta,
                  const uint8_t* body) noexcept nogil
    # gives how many bytes were consumed; hold(link, 0) offers the rest again
    uint32_t (*stream)(void* engine, uint32_t link, const uint8_t* bytes, uint32_t count) noexcept nogil
    # gives the next deadline (0: none); busy = 1: turn again before sleeping
    uint64_t (*turn)(void* engine, int* busy) noexcept nogil


ctypedef struct disk_slot_t:
    uint64_t token
    uint64_t offset
    void* buffer
    uint32_t length
    int32_t kind
    uint32_t next                    # in the free list, or in the list of those waiting


ctypedef struct slot_list_t:
    uint32_t first                   # through `next`; 0 ends it
    uint32_t last


ctypedef struct accepting_t:
    int fd
    int kind
    bint under_way
    uint64_t retry_ns


ctypedef struct loop_t:
    backend_t backend
    aio_t aio
    transport_t* transport
    pthread_mutex_t mutex            # the engine's lock
    pthread_mutex_t gate             # held while waiting for it
    void* engine
    engine_vtable_t vtable
    bint in_round                    # the lock is held by the loop thread
    bint woken
    bint stopping
    bint finished
    uint64_t now_ns
    disk_slot_t* slots
    uint32_t free_slot               # the first of those free, through `next`
    slot_list_t waiting              # writes and flushes that the kernel does not have yet
    slot_list_t waiting_reads
    uint32_t issued                  # disk verbs the kernel has
    uint32_t reads_issued            # the reads of them
    bint read_answered               # in this round
    accepting_t listeners[16]
    uint32_t listener_count


cdef class Loop:
    cdef loop_t* loop
    cdef readonly str backend
    cdef bint started


# Called once, before run(); the engine must outlive the loop's thread.
cdef void loop_attach(Loop loop, void* engine, const engine_vtable_t* vtable) noexcept
cdef backend_t* loop_backend(Loop loop) noexcept

# For the engine's own calls from other threads. Not recursive; take it without the GIL.
cdef void loop_lock(loop_t* loop) noexcept nogil
cdef void loop_unlock(loop_t* loop) noexcept nogil
# Under the lock:
cdef int32_t loop_add_socket(loop_t* loop, int fd, int kind) noexcept nogil
cdef void loop_wake(loop_t* loop) noexcept nogil
