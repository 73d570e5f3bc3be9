"""Requests and their buffers: taken, queued, finished, given back.

The requests of an engine are one pool. A volume that waits, for copies or a primary, keeps those it has.

Rules
  Q1 a volume that holds fewer than REQUESTS_OWN may always take another one: so many are kept for each
     volume that can be exported or led here
  Q2 beyond them it takes of the REQUESTS_SHARED no more than it leaves: of one volume that waits the others
     notice little, of many that each keeps its own. A volume alone gets half of them
"""
from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t

from repstore._fast.state cimport engine_t, request_queue_t, request_t


cdef inline void queue_push(request_queue_t* queue, request_t* request) noexcept nogil:
    request.next = NULL
    if queue.tail == NULL:
        queue.head = request
    else:
        queue.tail.next = request
    queue.tail = request
    queue.count += 1


cdef inline void queue_push_front(request_queue_t* queue, request_t* request) noexcept nogil:
    request.next = queue.head
    queue.head = request
    if queue.tail == NULL:
        queue.tail = request
    queue.count += 1


cdef inline request_t* queue_pop(request_queue_t* queue) noexcept nogil:
    cdef request_t* request = queue.head
    if request != NULL:
        queue.head = request.next
        if queue.head == NULL:
            queue.tail = NULL
        queue.count -= 1
        request.next = NULL
    return request


cdef int requests_init(engine_t* engine) noexcept nogil
cdef void requests_free(engine_t* engine) noexcept nogil
cdef bint request_left(const engine_t* engine, uint32_t holder) noexcept nogil
cdef request_t* request_new(engine_t* engine, uint32_t holder) noexcept nogil
cdef void request_finish(request_t* request, int32_t error) noexcept nogil
cdef void request_release(engine_t* engine, request_t* request) noexcept nogil
cdef void queue_remove(request_queue_t* queue, request_t* request) noexcept nogil
cdef uint8_t* buffer_get(engine_t* engine, uint32_t blocks) noexcept nogil
cdef void buffer_put(engine_t* engine, void* buffer, uint32_t blocks) noexcept nogil
cdef int request_keep_payload(engine_t* engine, request_t* request) noexcept nogil
