"""Cython's view of `frontend.h`, the published C API: all that NBD knows of the engine."""
from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t

cdef extern from "frontend.h" nogil:
    const uint32_t REPSTORE_FRONTEND_VERSION
    const uint32_t RS_REQUEST_BYTES_MAX
    const uint32_t RS_STREAM_WINDOW

    enum:
        RS_READ
        RS_WRITE
        RS_TRIM
        RS_WRITE_ZEROES
        RS_FLUSH
        RS_BLOCK_STATUS
        RS_FUA
        RS_NO_HOLE
        RS_EXTENT_HOLE
        RS_EXTENT_ZERO

    struct rs_extent:
        uint32_t length
        uint32_t state

    struct rs_request:
        uint8_t kind
        uint8_t flags
        uint16_t reserved
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

    struct rs_export:
        uint32_t export_id
        uint32_t read_only
        uint64_t size_bytes

    struct rs_engine:
        pass

    struct rs_engine_api:
        uint32_t version
        rs_request* (*request_new)(rs_engine* engine, uint32_t link) noexcept nogil
        void (*request_submit)(rs_engine* engine, rs_request* request) noexcept nogil
        void (*request_release)(rs_engine* engine, rs_request* request) noexcept nogil
        void (*send)(rs_engine* engine, uint32_t link, const void* head, uint32_t head_bytes,
                     const void* body, uint32_t body_bytes, uint64_t token) noexcept nogil
        void (*close)(rs_engine* engine, uint32_t link) noexcept nogil
        void (*export_open)(rs_engine* engine, uint32_t link, const char* name,
                            uint32_t name_bytes) noexcept nogil
        void (*export_close)(rs_engine* engine, uint32_t link, uint32_t export_id) noexcept nogil
        int32_t (*export_name)(rs_engine* engine, uint32_t i, char* name, uint32_t room) noexcept nogil
        void (*resume)(rs_engine* engine, uint32_t link) noexcept nogil
        void (*export_describe)(rs_engine* engine, uint32_t link, const char* name,
                                uint32_t name_bytes) noexcept nogil

    struct rs_frontend:
        uint32_t version
        const char* name
        void* (*connected)(const rs_engine_api* api, rs_engine* engine, uint32_t link) noexcept nogil
        uint32_t (*received)(void* connection, const uint8_t* data, uint32_t count) noexcept nogil
        void (*sent)(void* connection, uint64_t token) noexcept nogil
        void (*opened_export)(void* connection, int32_t error, const rs_export* info) noexcept nogil
        void (*writable)(void* connection) noexcept nogil
        void (*disconnected)(void* connection) noexcept nogil
