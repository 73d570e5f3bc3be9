"""The bounded ring between the engine and its control side; see events.pxd."""
import os

from libc.string cimport memset, strncpy

from repstore._fast.state cimport EVENTS_MAX, event_ring_t, event_t


cdef extern from "unistd.h" nogil:
    ssize_t write(int descriptor, const void* bytes, size_t count)


cdef inline bint may_be_lost(uint32_t kind) noexcept nogil:
    """What it says is in the counters too, or comes again."""
    return (kind == EVENT_NO_SPACE or kind == EVENT_REQUEST_SESSION or kind == EVENT_BAD_BLOCK
            or kind == EVENT_MENDED_BLOCK or kind == EVENT_LOST_BLOCK)


cdef bint event_push(engine_t* engine, uint32_t kind, uint32_t volume, uint32_t node, uint32_t epoch,
                     uint64_t a, uint64_t b, uint64_t c, uint64_t d, const char* text) noexcept nogil:
    cdef event_ring_t* ring = &engine.events
    cdef event_t* event
    cdef uint64_t one = 1
    if ring.count == EVENTS_MAX or (ring.count >= EVENTS_MAX // 2 and may_be_lost(kind)):
        ring.lost += 1
        return False
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
    return True


def decode_event(kind, volume, node, epoch, a, b, c, d, text):
    """An event as the control side knows it."""
    if kind == EVENT_SEALED:
        return ("sealed", volume, node, epoch, a, b, c, bool(d))
    if kind == EVENT_WANT:
        return ("want", volume, node, epoch, a, b, bool(c), d)
    if kind == EVENT_PULLED:
        return ("pulled", volume, node, a)
    if kind == EVENT_LINK_UP:
        return ("link_up", node, text[:16].hex(), text[16:32].hex())
    if kind == EVENT_LINK_DOWN:
        return ("link_down", node)
    if kind == EVENT_JOIN_READY:
        return ("join_ready", volume, node, a)
    if kind == EVENT_LEARNER_CAUGHT_UP:
        return ("learner_caught_up", volume, node, a)
    if kind == EVENT_MEMBER_SILENT:
        return ("member_silent", volume, node)
    if kind == EVENT_DIVERGED:
        return ("diverged", volume, node)
    if kind == EVENT_UNREADABLE:
        return ("unreadable", volume, node)
    if kind == EVENT_STALE:
        return ("stale", volume, epoch)
    if kind == EVENT_REQUEST_SESSION:
        return ("request_session", volume, a)
    if kind == EVENT_FENCED:
        return ("fenced", a, os.strerror(a))
    if kind == EVENT_NO_SPACE:
        return ("no_space",)
    words = text.split(b"\0", 1)[0].decode(errors="replace")
    if kind == EVENT_RESYNC_FULL:
        return ("resync_full", volume, node, words)
    if kind == EVENT_ATTACH:
        return ("attach", a, words)
    if kind == EVENT_DESCRIBE:
        return ("describe", a, words)
    if kind == EVENT_BAD_BLOCK:
        return ("bad_block", volume, c, a, ("data", "page", "header")[b])
    if kind == EVENT_MENDED_BLOCK:
        return ("mended_block", volume, c)
    if kind == EVENT_LOST_BLOCK:
        return ("lost_block", volume, c)
    raise AssertionError(f"event kind {kind}")
