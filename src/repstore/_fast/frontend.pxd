"""The published C API for frontends, as `frontend.h` declares it."""
from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t


cdef extern from "frontend.h" nogil:
    ctypedef struct rs_request:
        uint8_t kind
        uint8_t flags
        uint32_t export_id
        uint64_t offset
        uint64_t length
        void* data
        uint32_t data_bytes
        int32_t error
        void (*done)(rs_request* request) noexcept nogil
        void* owner
        uint64_t cookie
        uint64_t cookie2
    ctypedef struct rs_extent:
        uint32_t length
        uint32_t state
    ctypedef struct rs_export:
        uint32_t export_id
        uint32_t read_only
        uint64_t size_bytes
    ctypedef struct rs_engine:
        pass
    ctypedef struct rs_engine_api:
        uint32_t version
        rs_request* (*request_new)(rs_engine*, uint32_t) noexcept nogil
        void (*request_submit)(rs_engine*, rs_request*) noexcept nogil
        void (*request_release)(rs_engine*, rs_request*) noexcept nogil
        void (*send)(rs_engine*, uint32_t, const void*, uint32_t, const void*, uint32_t,
                     uint64_t) noexcept nogil
        void (*close)(rs_engine*, uint32_t) noexcept nogil
        void (*export_open)(rs_engine*, uint32_t, const char*, uint32_t) noexcept nogil
        void (*export_close)(rs_engine*, uint32_t, uint32_t) noexcept nogil
        int32_t (*export_name)(rs_engine*, uint32_t, char*, uint32_t) noexcept nogil
        void (*resume)(rs_engine*, uint32_t) noexcept nogil
        void (*export_describe)(rs_engine*, uint32_t, const char*, uint32_t) noexcept nogil
    ctypedef struct rs_frontend:
        uint32_t version
        const char* name
        void* (*connected)(const rs_engine_api*, rs_engine*, uint32_t) noexcept nogil
        uint32_t (*received)(void*, const uint8_t*, uint32_t) noexcept nogil
        void (*sent)(void*, uint64_t) noexcept nogil
        void (*opened_export)(void*, int32_t, const rs_export*) noexcept nogil
        void (*writable)(void*) noexcept nogil
        void (*disconnected)(void*) noexcept nogil
    enum:
        RS_READ, RS_WRITE, RS_TRIM, RS_WRITE_ZEROES, RS_FLUSH, RS_BLOCK_STATUS
        RS_FUA, RS_NO_HOLE
        RS_EXTENT_HOLE, RS_EXTENT_ZERO
        RS_REQUEST_BYTES_MAX
        REPSTORE_FRONTEND_VERSION
