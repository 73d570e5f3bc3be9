"""The backend seam: all an engine may ask of the world, and all it is told.

Production puts `loop` behind it (io_uring or a thread pool), the simulator and the
recorder put memory behind it. The engine behind the seam is the same compiled code.

Asked (the engine calls these inside a step; none may call back into the engine):
    disk   one read, write or flush of the store; answered by engine_disk_done(token)
    send   bytes on a link: `head` is copied, `body` is lent until engine_sent(token);
           token 0 asks for no answer. A link that is down swallows what it is given
           and still answers.
    close  drop a link; answered by engine_link_down(link) later
    hold   stop (1) or resume (0) reading from a link: backpressure

Told (the backend calls these under the engine's lock, never from two threads at once):
    engine_begin(now), first in a round: a lease is good or over at that time, and a process
    may have stood still since the last one; then its inputs, engine_disk_done, engine_sent,
    engine_link_up, engine_link_down, engine_frame and engine_stream; then engine_turn.
"""
from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t


cdef enum disk_kind_t:
    DISK_READ = 1
    DISK_WRITE = 2
    DISK_FLUSH = 3


ctypedef struct backend_t:
    void* context
    void (*disk)(void* context, int kind, uint64_t offset, void* buffer, uint32_t length,
                 uint64_t token) noexcept nogil
    void (*send)(void* context, uint32_t link, const void* head, uint32_t head_bytes,
                 const void* body, uint32_t body_bytes, uint64_t token) noexcept nogil
    void (*close)(void* context, uint32_t link) noexcept nogil
    void (*hold)(void* context, uint32_t link, int stopped) noexcept nogil
