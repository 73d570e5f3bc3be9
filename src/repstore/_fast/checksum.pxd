"""CRC32C for the data plane: three calls, no Python object, callable without the GIL.

`crc` is the plain previous value, 0 to start. The C file behind them is compiled into
this one extension; other extensions cimport these functions.
"""
from libc.stdint cimport uint8_t, uint32_t


cdef uint32_t crc32c(uint32_t crc, const void* data, size_t size_bytes) noexcept nogil
cdef void crc32c_blocks(const uint8_t* data, size_t blocks, uint32_t* out) noexcept nogil
cdef uint32_t crc32c_copy_block(void* to, const void* source) noexcept nogil
