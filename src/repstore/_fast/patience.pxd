"""How long what cannot be read is tried again before it is given up.

Rules
  W1 what was read and has the wrong checksum is rot. It is dealt with at once: to read it again and
     again would give the same
  W2 what could not be read may be readable in a moment: a path that fails over, a controller that is
     reset. It is tried again, with pauses that grow, until READ_PATIENCE_NS have passed since its first
     error, and TRIES_LEAST times: a process that stood still meanwhile has seen nothing
  W3 what stays unreadable for longer is a defect of the medium, and dealt with like rot
  W4 the next checkpoint makes the loss of a page of metadata durable. So of its errors only those count
     beside which the disk gave another block, one of the superblocks: a disk that gives nothing at all
     says nothing of a page. When it has been silent for as long, nothing is given up. Whoever reads is
     told (EIO), the page is asked for until it comes, and a store that is being opened is refused: that
     can be repeated. If commits wait for the page, or other copies can go on, the store is fenced
"""
from libc.stdint cimport uint32_t, uint64_t


cdef enum:
    READ_PATIENCE_NS = 10000000000 # a bad path is given up by the kernel, or mended, by then
    TRIES_LEAST = 3
    PAUSE_LEAST_NS = 20000000
    PAUSE_MOST_NS = 1000000000


cdef struct patience_t:
    uint64_t since_ns              # of the first error
    uint64_t again_ns              # to be tried again then
    uint32_t tries                 # that failed; 0: none did


# With a page of metadata (W4).
cdef struct page_patience_t:
    patience_t medium              # errors beside which the disk gave another block
    patience_t disk                # since it last gave one: errors beside which it did not
    uint32_t tries                 # of both kinds
    uint64_t again_ns              # to be tried again then


cdef enum page_fault_t:
    FAULT_PASSES = 0               # perhaps: try again at `again_ns` (W2)
    FAULT_MEDIUM = 1               # give it up (W3)
    FAULT_DISK = 2                 # not the page's: the disk is silent (W4)


cdef inline uint64_t pause_ns(uint64_t waited_ns) noexcept nogil:
    """Half as long as it has lasted: a short hiccup costs little, a long one few reads."""
    return min(<uint64_t>PAUSE_MOST_NS, max(<uint64_t>PAUSE_LEAST_NS, waited_ns // 2))


cdef inline bint patience_ended(const patience_t* patience, uint64_t now_ns, uint64_t limit_ns) noexcept nogil:
    return patience.tries >= <uint32_t>TRIES_LEAST and now_ns - patience.since_ns >= limit_ns


cdef inline bint patience_lasts(patience_t* patience, uint64_t now_ns, uint64_t limit_ns) noexcept nogil:
    """It could not be read, once more. True: try again at `again_ns` (W2); False: give it up (W3)."""
    if patience.tries == 0:
        patience.since_ns = now_ns
    patience.tries += 1
    patience.again_ns = now_ns + pause_ns(now_ns - patience.since_ns)
    return not patience_ended(patience, now_ns, limit_ns)


cdef inline int page_fault(page_patience_t* patience, bint disk_answers, uint64_t now_ns, uint64_t limit_ns,
                           uint64_t silence_ns) noexcept nogil:
    """A page could not be read, once more, and the disk gave another block beside it, or did not."""
    cdef patience_t* counted = &patience.medium if disk_answers else &patience.disk
    cdef bint lasts = patience_lasts(counted, now_ns, limit_ns if disk_answers else silence_ns)
    patience.tries += 1
    patience.again_ns = counted.again_ns
    if disk_answers:
        patience.disk.tries = 0
    return FAULT_PASSES if lasts else FAULT_MEDIUM if disk_answers else FAULT_DISK
