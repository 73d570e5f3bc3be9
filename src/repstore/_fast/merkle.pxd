"""Digests of a volume's map as it was at one LSN, while it goes on changing.

    VERIFY_WAITING > commit reaches the LSN > VERIFY_CAPTURING > every page taken > VERIFY_DONE

A page is taken before its first change after the LSN, or when the walk comes to it. What counts is
content, not place: the checksum of each block, holes and zeros alike, so that copies whose cleaners
worked differently agree. A digest is 64 bits: the chain of a multiply-xorshift mix (SplitMix64) over
512 checksums. A second, exact look keeps the checksums of a few pages instead.
"""
from libc.stdint cimport uint32_t, uint64_t

from repstore._fast.state cimport engine_t, volume_t


cdef int merkle_prepare(engine_t* engine, const volume_t* volume, uint64_t lsn, uint64_t serial,
                        const uint32_t* wanted, uint32_t wanted_count) noexcept nogil
cdef void merkle_free(engine_t* engine) noexcept nogil
cdef void merkle_reach(engine_t* engine, const volume_t* volume) noexcept nogil
cdef void merkle_take(engine_t* engine, volume_t* volume, uint32_t number) noexcept nogil
cdef uint32_t crc_of_zeros() noexcept nogil
