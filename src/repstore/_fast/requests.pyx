"""The bounded pool of requests and the pools of aligned buffers."""
from libc.errno cimport ENOMEM
from libc.stdint cimport uint16_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from repstore._fast.layout cimport BLOCK_SIZE
from repstore._fast.state cimport (
    REQUEST_BLOCKS, REQUEST_DONE, REQUEST_FREE, REQUEST_NEW, REQUEST_TARGET, REQUESTS_MAX,
    REQUESTS_OWN, REQUESTS_SHARED, VOLUME_INDEX_MAX,
)


cdef extern from "stdlib.h" nogil:
    int posix_memalign(void** out, size_t alignment, size_t size)


cdef enum:
    POOL_KEEP = 512                # free buffers of a size kept for the next request


cdef inline int pool_class(uint32_t blocks) noexcept nogil:
    return 0 if blocks <= 1 else 1 if blocks <= 4 else 2 if blocks <= 16 else 3


cdef inline uint32_t class_blocks(int pool) noexcept nogil:
    return 1 if pool == 0 else 4 if pool == 1 else 16 if pool == 2 else REQUEST_BLOCKS


cdef uint8_t* buffer_get(engine_t* engine, uint32_t blocks) noexcept nogil:
    """An aligned buffer for up to 65 blocks. NULL: memory is short."""
    cdef int pool = pool_class(blocks)
    cdef void* buffer = engine.pool.free_lists[pool]
    if buffer != NULL:
        engine.pool.free_lists[pool] = (<void**>buffer)[0]
        engine.pool.counts[pool] -= 1
        return <uint8_t*>buffer
    if posix_memalign(&buffer, BLOCK_SIZE, class_blocks(pool) * <size_t>BLOCK_SIZE) != 0:
        return NULL
    return <uint8_t*>buffer


cdef void buffer_put(engine_t* engine, void* buffer, uint32_t blocks) noexcept nogil:
    cdef int pool = pool_class(blocks)
    if buffer == NULL:
        return
    if engine.pool.counts[pool] >= POOL_KEEP:
        free(buffer)
        return
    (<void**>buffer)[0] = engine.pool.free_lists[pool]
    engine.pool.free_lists[pool] = buffer
    engine.pool.counts[pool] += 1


cdef int requests_init(engine_t* engine) noexcept nogil:
    cdef uint32_t i
    engine.requests = <request_t*>calloc(REQUESTS_MAX, sizeof(request_t))
    engine.requests_held = <uint16_t*>calloc(VOLUME_INDEX_MAX, sizeof(uint16_t))
    if engine.requests == NULL or engine.requests_held == NULL:
        return -1
    for i in range(REQUESTS_MAX):
        engine.requests[i].engine = engine
        engine.requests[i].index = i
        engine.requests[i].next = engine.free_requests
        engine.free_requests = &engine.requests[i]
    return 0


cdef void requests_free(engine_t* engine) noexcept nogil:
    cdef int pool
    cdef uint32_t i
    cdef void* buffer
    for i in range(REQUESTS_MAX if engine.requests != NULL else 0):
        if engine.requests[i].state != REQUEST_FREE:
            request_release(engine, &engine.requests[i])
    free(engine.requests)
    free(engine.requests_held)
    engine.requests = NULL
    engine.requests_held = NULL
    for pool in range(4):
        while engine.pool.free_lists[pool] != NULL:
            buffer = engine.pool.free_lists[pool]
            engine.pool.free_lists[pool] = (<void**>buffer)[0]
            free(buffer)


cdef bint request_left(const engine_t* engine, uint32_t holder) noexcept nogil:
    """May this volume take another one (Q1, Q2)?"""
    cdef uint32_t held = engine.requests_held[holder]
    return held < REQUESTS_OWN or held - REQUESTS_OWN < REQUESTS_SHARED - engine.shared_requests


cdef request_t* request_new(engine_t* engine, uint32_t holder) noexcept nogil:
    """A fresh request for a volume, by its cluster-wide index. NULL: it holds its share already."""
    cdef request_t* request = engine.free_requests
    if request == NULL or not request_left(engine, holder):
        return NULL
    engine.free_requests = request.next
    engine.requests_used += 1
    engine.shared_requests += engine.requests_held[holder] >= REQUESTS_OWN
    engine.requests_held[holder] += 1
    request.holder = holder
    memset(&request.front, 0, sizeof(request.front))
    request.next = NULL
    request.older = NULL
    request.newer = NULL
    request.export = NULL
    request.volume = NULL
    request.buffer = NULL
    request.edges = NULL
    request.flags = 0
    request.outstanding = 0
    request.session = 0
    request.number = 0
    request.lsn = 0
    request.logged_blocks = 0
    request.state = REQUEST_NEW
    return request


cdef void request_finish(request_t* request, int32_t error) noexcept nogil:
    """The answer is known: leave the export and tell whoever asked, exactly once."""
    request.state = REQUEST_DONE
    request.front.error = error
    if request.export != NULL:
        if request.older != NULL:
            request.older.newer = request.newer
        else:
            request.export.oldest = request.newer
        if request.newer != NULL:
            request.newer.older = request.older
        else:
            request.export.newest = request.older
        request.export.count -= 1
        request.export = NULL
    request.front.done(&request.front)


cdef void request_release(engine_t* engine, request_t* request) noexcept nogil:
    if request.buffer != NULL and not request.flags & REQUEST_TARGET:
        buffer_put(engine, request.buffer, request.buffer_blocks)
    if request.edges != NULL:
        buffer_put(engine, request.edges, 4)
    request.buffer = NULL
    request.edges = NULL
    request.state = REQUEST_FREE
    request.next = engine.free_requests
    engine.free_requests = request
    engine.requests_used -= 1
    engine.requests_held[request.holder] -= 1
    engine.shared_requests -= engine.requests_held[request.holder] >= REQUESTS_OWN


cdef void queue_remove(request_queue_t* queue, request_t* request) noexcept nogil:
    cdef request_t* before = NULL
    cdef request_t* here = queue.head
    while here != NULL and here != request:
        before = here
        here = here.next
    if here == NULL:
        return
    if before == NULL:
        queue.head = here.next
    else:
        before.next = here.next
    if queue.tail == here:
        queue.tail = before
    queue.count -= 1
    here.next = NULL


cdef int request_keep_payload(engine_t* engine, request_t* request) noexcept nogil:
    """Copy a write's payload, which its sender lends only during submit, to where it will lie
    in its blocks. Returns 0 or an errno."""
    cdef uint64_t inside = request.front.offset % BLOCK_SIZE
    if request.buffer != NULL:
        return 0
    request.buffer = buffer_get(engine, request.blocks)
    if request.buffer == NULL:
        return ENOMEM
    request.buffer_blocks = request.blocks
    memcpy(request.buffer + inside, request.front.data, request.front.length)
    return 0
