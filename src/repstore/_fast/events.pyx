"""The bounded ring between the engine and its control side; see events.pxd."""
from libc.string cimport memset, strncpy

from repstore._fast.state cimport EVENTS_MAX, event_ring_t, event_t


cdef extern from "unistd.h" nogil:
    ssize_t write(int descriptor, const void* bytes, size_t count)


cdef void event_push(engine_t* engine, uint32_t kind, uint32_t volume, uint32_t node, uint32_t epoch,
                     uint64_t a, uint64_t b, uint64_t c, uint64_t d, const char* text) noexcept nogil:
    cdef event_ring_t* ring = &engine.events
    cdef event_t* event
    cdef uint64_t one = 1
    if ring.count == EVENTS_MAX:
        ring.lost += 1
        return
    event = &ring.items[(ring.head + ring.count) % EVENTS_MAX]
    event.kind = kind
    event.volume = volume
    event.node = node
    event.epoch = epoch
    event.a = a
    event.b = b
    event.c = c
    event.d = d
    memset(event.text, 0, 64)
    if text != NULL:
        strncpy(event.text, text, 63)
    ring.count += 1
    if ring.descriptor >= 0:
        write(ring.descriptor, &one, 8)
