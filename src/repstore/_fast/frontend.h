/* The published C API for frontends that live inside the loop (NBD today).
 *
 * A frontend is bytes in, bytes out for one connection. All calls happen in the loop
 * thread, under the engine's lock; none may block. The engine never reads the wire
 * format of a frontend and a frontend never sees segments, LSNs or members.
 */
#ifndef REPSTORE_FRONTEND_H
#define REPSTORE_FRONTEND_H
#include <stdint.h>

#define REPSTORE_FRONTEND_VERSION 2

enum {                       /* rs_request.kind */
    RS_READ = 1,
    RS_WRITE = 2,
    RS_TRIM = 3,
    RS_WRITE_ZEROES = 4,
    RS_FLUSH = 5,
    RS_BLOCK_STATUS = 6      /* answers rs_extent[] in data */
};
enum {                       /* rs_request.flags */
    RS_FUA = 1,              /* durable on every in-sync member before done */
    RS_NO_HOLE = 2           /* write-zeroes must leave the range allocated */
};
enum {                       /* rs_extent.state, the bits of NBD base:allocation */
    RS_EXTENT_HOLE = 1,
    RS_EXTENT_ZERO = 2
};

typedef struct rs_extent {
    uint32_t length;         /* bytes */
    uint32_t state;
} rs_extent;

/* One client request. Bytes, any alignment. length <= RS_REQUEST_BYTES_MAX for a read; a
 * write must lie in RS_REQUEST_BYTES_MAX of whole blocks, or it is refused (EINVAL); trim,
 * write-zeroes and block status may span up to 4 GiB - 1. */
#define RS_REQUEST_BYTES_MAX 262144u

typedef struct rs_request {
    uint8_t kind;
    uint8_t flags;
    uint16_t reserved;
    uint32_t export_id;
    uint64_t offset;
    uint64_t length;
    void *data;              /* write: the payload, read only during submit.
                              * read/status: filled by the engine, valid until release */
    uint32_t data_bytes;     /* of data at completion (status: n extents * 8) */
    int32_t error;           /* at completion: 0 or a positive errno */
    void (*done)(struct rs_request *request);  /* exactly once; may run inside submit */
    void *owner;             /* the frontend's own */
    uint64_t cookie;         /* the frontend's own */
    uint64_t cookie2;
} rs_request;

typedef struct rs_export {
    uint32_t export_id;      /* of one session: when that is over, requests that name it are refused,
                              * also where the volume is exported here again */
    uint32_t read_only;
    uint64_t size_bytes;
} rs_export;

typedef struct rs_engine rs_engine;

typedef struct rs_engine_api {
    uint32_t version;
    /* For the volume that this link opened last. NULL when it has as many under way as it
     * may: stop consuming and return; `writable` of the connection is called when it may again */
    rs_request *(*request_new)(rs_engine *engine, uint32_t link);
    void (*request_submit)(rs_engine *engine, rs_request *request);
    void (*request_release)(rs_engine *engine, rs_request *request);
    /* `head` is copied, `body` is lent until frontend->sent(conn, token); token 0: no answer */
    void (*send)(rs_engine *engine, uint32_t link, const void *head, uint32_t head_bytes,
                 const void *body, uint32_t body_bytes, uint64_t token);
    void (*close)(rs_engine *engine, uint32_t link);
    /* Asks for an export by name (may need an attach in the coordination store);
     * answered by frontend->opened_export, possibly inside this call */
    void (*export_open)(rs_engine *engine, uint32_t link, const char *name, uint32_t name_bytes);
    void (*export_close)(rs_engine *engine, uint32_t link, uint32_t export_id);
    /* the i-th export name: its length, or -1 past the end; copies at most `room` bytes */
    int32_t (*export_name)(rs_engine *engine, uint32_t i, char *name, uint32_t room);
    /* the frontend had stopped consuming by its own limits, or waited for its export, and
     * can go on: `received` follows with what was left, later, never inside this call */
    void (*resume)(rs_engine *engine, uint32_t link);
    /* Asks what an export is without opening it: whoever uses it goes on. Answered like
     * export_open, but there is nothing to close and export_id means nothing */
    void (*export_describe)(rs_engine *engine, uint32_t link, const char *name, uint32_t name_bytes);
} rs_engine_api;

typedef struct rs_frontend {
    uint32_t version;
    const char *name;
    /* a connection came up; returns its state, or NULL to refuse it */
    void *(*connected)(const rs_engine_api *api, rs_engine *engine, uint32_t link);
    /* all unconsumed bytes so far; returns how many were consumed. Called again with the
     * rest when more arrive. The buffer holds at least RS_STREAM_WINDOW bytes. */
    uint32_t (*received)(void *connection, const uint8_t *bytes, uint32_t count);
    void (*sent)(void *connection, uint64_t token);
    void (*opened_export)(void *connection, int32_t error, const rs_export *info);
    /* requests are free again: `received` follows with what was left */
    void (*writable)(void *connection);
    /* the link is gone: free the state. Requests still under way keep their `done`; the
     * frontend must keep what they need until they finish */
    void (*disconnected)(void *connection);
} rs_frontend;

#define RS_STREAM_WINDOW (1u << 20)

#endif
