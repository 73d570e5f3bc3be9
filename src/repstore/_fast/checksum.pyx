"""CRC32C of buffers and of batches of 4 KiB blocks.

The kernel (SSE4.2 + PCLMUL, ARMv8 CRC, or tables) is chosen once, at import. The Python
functions release the GIL and take any contiguous buffer.
"""
from libc.stdint cimport uint8_t, uint32_t
from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer

import numpy


cdef extern from "crc32c.h" nogil:
    ctypedef struct rs_crc32c_kernel:
        const char* name
        uint32_t (*range)(uint32_t crc, const void* data, size_t size_bytes) noexcept nogil
        void (*blocks)(const uint8_t* data, size_t blocks, uint32_t* out) noexcept nogil
        uint32_t (*copy_block)(void* to, const void* source) noexcept nogil
    enum:
        RS_CRC32C_BLOCK_BYTES
    void rs_crc32c_init()
    const rs_crc32c_kernel* rs_crc32c_kernel_at(size_t i)
    uint32_t rs_crc32c(uint32_t crc, const void* data, size_t size_bytes)
    void rs_crc32c_blocks(const uint8_t* data, size_t blocks, uint32_t* out)
    uint32_t rs_crc32c_copy_block(void* to, const void* source)


rs_crc32c_init()


cdef uint32_t crc32c(uint32_t crc, const void* data, size_t size_bytes) noexcept nogil:
    return rs_crc32c(crc, data, size_bytes)


cdef void crc32c_blocks(const uint8_t* data, size_t blocks, uint32_t* out) noexcept nogil:
    rs_crc32c_blocks(data, blocks, out)


cdef uint32_t crc32c_copy_block(void* to, const void* source) noexcept nogil:
    return rs_crc32c_copy_block(to, source)


cdef const rs_crc32c_kernel* kernel_named(str implementation) except NULL:
    """The best kernel, or the one asked for by name."""
    cdef size_t i = 0
    cdef const rs_crc32c_kernel* kernel = rs_crc32c_kernel_at(0)
    if implementation is None:
        return kernel
    while kernel != NULL:
        if kernel.name.decode() == implementation:
            return kernel
        i += 1
        kernel = rs_crc32c_kernel_at(i)
    raise ValueError(f"no CRC32C implementation {implementation!r} here, only {implementations()}")


def implementations() -> tuple[str, ...]:
    """The implementations this CPU can run, best first."""
    names = []
    cdef size_t i = 0
    while rs_crc32c_kernel_at(i) != NULL:
        names.append(rs_crc32c_kernel_at(i).name.decode())
        i += 1
    return tuple(names)


def implementation() -> str:
    """The implementation in use."""
    return implementations()[0]


def _crc32c(data, value=0, *, implementation=None):
    """CRC32C of a buffer, going on from `value` (0 to start)."""
    cdef const rs_crc32c_kernel* kernel = kernel_named(implementation)
    cdef uint32_t crc = value
    cdef Py_buffer view
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    with nogil:
        crc = kernel.range(crc, view.buf, <size_t>view.len)
    PyBuffer_Release(&view)
    return crc


def _crc32c_blocks(data, out=None, *, implementation=None):
    """CRC32C of every 4 KiB block of a buffer, as an array of uint32 (`out`, if given)."""
    cdef const rs_crc32c_kernel* kernel = kernel_named(implementation)
    cdef Py_buffer blocks
    cdef Py_buffer sums
    cdef size_t count
    PyObject_GetBuffer(data, &blocks, PyBUF_SIMPLE)
    try:
        if blocks.len % RS_CRC32C_BLOCK_BYTES:
            raise ValueError(f"{blocks.len} bytes are not whole blocks of {RS_CRC32C_BLOCK_BYTES}")
        count = <size_t>blocks.len // RS_CRC32C_BLOCK_BYTES
        if out is None:
            out = numpy.empty(count, dtype=numpy.uint32)
        PyObject_GetBuffer(out, &sums, PyBUF_WRITABLE)
        try:
            if <size_t>sums.len != count * sizeof(uint32_t):
                raise ValueError(f"out has {sums.len} bytes, {count} sums need {count * sizeof(uint32_t)}")
            with nogil:
                kernel.blocks(<const uint8_t*>blocks.buf, count, <uint32_t*>sums.buf)
        finally:
            PyBuffer_Release(&sums)
    finally:
        PyBuffer_Release(&blocks)
    return out


def _crc32c_copy_block(to, source, *, implementation=None):
    """Copies one 4 KiB block and returns the CRC32C of what was copied."""
    cdef const rs_crc32c_kernel* kernel = kernel_named(implementation)
    cdef Py_buffer target
    cdef Py_buffer origin
    cdef uint32_t crc
    PyObject_GetBuffer(source, &origin, PyBUF_SIMPLE)
    try:
        PyObject_GetBuffer(to, &target, PyBUF_WRITABLE)
        try:
            if origin.len != RS_CRC32C_BLOCK_BYTES or target.len != RS_CRC32C_BLOCK_BYTES:
                raise ValueError(
                    f"a block has {RS_CRC32C_BLOCK_BYTES} bytes, not {origin.len} and {target.len}"
                )
            with nogil:
                crc = kernel.copy_block(target.buf, origin.buf)
        finally:
            PyBuffer_Release(&target)
    finally:
        PyBuffer_Release(&origin)
    return crc


# In this file the plain names belong to the native functions that other extensions call;
# Python sees its own functions under the same names.
globals().update(crc32c=_crc32c, crc32c_blocks=_crc32c_blocks, crc32c_copy_block=_crc32c_copy_block)
