"""Who must have a record before it is acknowledged: pure arithmetic over a primary's members."""
from libc.stdint cimport uint32_t, uint64_t

from repstore._fast.state cimport MEMBER_IN_SYNC, MEMBER_JOINING, member_t, volume_t


cdef inline bint member_counts(const member_t* member) noexcept nogil:
    """In-sync members count, and so does one whose join is being decided (R-join)."""
    return member.state == MEMBER_IN_SYNC or member.state == MEMBER_JOINING


cdef inline uint64_t acknowledged_by_all(const volume_t* volume) noexcept nogil:
    """The newest LSN that this copy and every counting member have written."""
    cdef uint64_t lsn = volume.local_lsn
    cdef uint32_t i
    for i in range(volume.member_count):
        if member_counts(&volume.members[i]) and volume.members[i].acked_lsn < lsn:
            lsn = volume.members[i].acked_lsn
    return lsn


cdef inline uint64_t durable_on_all(const volume_t* volume) noexcept nogil:
    """The newest LSN that this copy and every counting member have flushed."""
    cdef uint64_t lsn = volume.durable_lsn
    cdef uint32_t i
    for i in range(volume.member_count):
        if member_counts(&volume.members[i]) and volume.members[i].durable_lsn < lsn:
            lsn = volume.members[i].durable_lsn
    return lsn


cdef inline uint32_t copies_in_sync(const volume_t* volume) noexcept nogil:
    """This copy and the members of the installed in-sync set."""
    cdef uint32_t i, copies = 1
    for i in range(volume.member_count):
        copies += volume.members[i].state == MEMBER_IN_SYNC
    return copies


cdef inline bint lease_valid(const volume_t* volume, uint64_t now_ns) noexcept nogil:
    """May the primary read alone? Only while the grant of every member holds that may lead next:
    one whose join is being decided may be in the set already."""
    cdef uint32_t i
    for i in range(volume.member_count):
        if member_counts(&volume.members[i]) and volume.members[i].lease_until_ns <= now_ns:
            return False
    return True
