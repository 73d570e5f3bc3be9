"""The cleaner: makes whole segments free by moving what still lives in them.

One victim at a time, read in order in large pieces. A block is moved only if the map still
points to it and its checksum is right; the move counts only if the map still points there
when the batch is written (OP_MOVE names the source).

Every victim ends empty, or rot would take the room that writes need:
  N1 a block that is bad is read once more, then left to repair, and waited for. When no copy has it
     it is given up (OP_BAD): it was an error and stays one, but takes no place
  N2 what lies behind a damaged header is found through the maps: each entry that points into the
     victim is followed
  N3 a victim to which no entry points, and which counts blocks that live, is counted wrongly: all
     are counted anew
  N4 a block that could not be read, and that no other copy gives, stays while patience lasts
     (patience.pxd). Its victim is set aside with nothing but such blocks in it, all of them together,
     and looked at again; others are cleaned meanwhile. To give a block up is to lose it for good
  N5 a victim that does not end empty gives nothing back for what was moved out of it. So one that took of
     the last room, and could not be read to its end, is the only one until it is empty
  N6 patience is for errors that go on. A victim whose time came while no room was wanted was not looked
     at: what it meets next is another error

It works when room is short, and ahead of that while nobody else wants the disk, so that a burst
of writes finds room: then only where a victim gives back a quarter at least.

Victims by cost and benefit, (1 - u) * age / (1 + u) (Rosenblum and Ousterhout 1992, section 3.4).
"""
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t

from repstore._fast.state cimport engine_t, store_t


cdef enum:
    CLEANER_READ_BLOCKS = 256      # 1 MiB at a time; at least one whole batch
    IDLE_AFTER_NS = 20000000       # nobody wants the disk when nobody did for so long

cdef inline bint store_idle(const store_t* store, uint64_t now_ns) noexcept nogil:
    """Does nobody but the cleaner want the disk?"""
    return now_ns >= store.active_ns + IDLE_AFTER_NS


cdef int cleaner_init(engine_t* engine) noexcept nogil
cdef void cleaner_free(engine_t* engine) noexcept nogil
cdef void cleaner_read_done(engine_t* engine, int32_t result) noexcept nogil
cdef bint cleaner_step(engine_t* engine) noexcept nogil
cdef void cleaner_due(engine_t* engine) noexcept nogil
