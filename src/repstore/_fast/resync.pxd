"""Which blocks a learner is still to be told of, and in which order.

A delta is of the blocks that changed since the two logs parted, by a change bitmap; a full copy of all.
Each is walked twice: first holes and zeros, for what they replace at the learner is room for the data;
then the data. The copies themselves are transfers, RESYNC_FLYING of them under way at once.
"""
from libc.stdint cimport uint64_t

from repstore._fast.state cimport engine_t, member_t, volume_t


cdef bint resync_copies(engine_t* engine, volume_t* volume, member_t* member) noexcept nogil


cdef inline uint64_t copies_flying(const member_t* member) noexcept nogil:
    """Copies that the learner has not said to have taken."""
    return member.copies_read + member.copies_sent - member.copies_told
