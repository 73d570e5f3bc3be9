"""Routing of requests to the primary, here or on another node; see exports.pxd."""
from libc.errno cimport EAGAIN, EINVAL, EIO, ENOENT, ENOSPC, ESHUTDOWN, ESTALE
from libc.string cimport memcpy, memset, strncmp, strncpy

from repstore._fast.checksum cimport crc32c
from repstore._fast.events cimport EVENT_ATTACH, EVENT_DESCRIBE, event_push
from repstore._fast.frames cimport frame_begin, frame_send
from repstore._fast.frontend cimport (
    REPSTORE_FRONTEND_VERSION, RS_BLOCK_STATUS, RS_FLUSH, RS_READ, RS_REQUEST_BYTES_MAX, RS_WRITE,
    rs_engine, rs_export, rs_request,
)
from repstore._fast.layout cimport (
    BLOCK_SHIFT, BLOCK_SIZE, FRAME_REPLY, FRAME_REQUEST, SESSION_WINDOW, VOLUME_NAME_BYTES, reply_meta_t,
    request_meta_t,
)
from repstore._fast.requests cimport (
    request_finish, request_keep_payload, request_left, request_new, request_release,
)
from repstore._fast.service cimport service_submit
from repstore._fast.state cimport (
    EXPORT_GENERATIONS, EXPORTS_MAX, LINKS_MAX, REQUEST_FOREIGN, REQUEST_HELD, REQUEST_NEW, REQUEST_READING,
    REQUEST_REMOTE, REQUESTS_MAX, ROLE_PRIMARY, SENT_REPLY, VOLUME_INDEX_MAX, due, link_t, token, volume_t,
)


cdef enum:
    RESEND_NS = 50000000           # a primary that answered "not now" is asked again,
    RESEND_ALL = REQUESTS_MAX
    RESEND_MORE = 2                # or as soon as it answers: so many for each request that it has room for
    ASKED_BYTES_MAX = 33554432     # a link queues this, one request of each export, and other frames (X5)
    REFUSED_NS = 200000000         # what was sent back is here again by then, or its session is over


cdef rs_engine_api API
API.version = REPSTORE_FRONTEND_VERSION
API.request_new = api_request_new
API.request_submit = api_request_submit
API.request_release = api_request_release
API.send = api_send
API.close = api_close
API.export_open = api_export_open
API.export_close = api_export_close
API.export_name = api_export_name
API.resume = api_resume
API.export_describe = api_export_describe


cdef const rs_engine_api* engine_api() noexcept nogil:
    return &API


# ---------------------------------------------------------------------- the table of exports

cdef export_t* export_find(engine_t* engine, uint32_t index) noexcept nogil:
    cdef uint32_t i
    for i in range(engine.export_count):
        if engine.exports[i].used and engine.exports[i].index == index:
            return &engine.exports[i]
    return NULL


cdef void refresh_volume(engine_t* engine, export_t* export) noexcept nogil:
    export.volume = engine.by_index[export.index]


cdef int64_t export_install(engine_t* engine, uint32_t index, const char* name, uint64_t size_bytes,
                            uint32_t session) noexcept nogil:
    """A volume is attached here under this session: answer the connections that wait for it.
    Returns the export's id, which is that of before if the session is, or -1 when there are too many."""
    cdef export_t* export = export_find(engine, index)
    cdef uint32_t i
    if export == NULL:
        export = place_for_another(engine)
        if export == NULL:
            return -1
        export.used = True
        export.index = index
        export.primary = -1
        strncpy(export.name, name, 63)
    elif export.revoked or export.session != session:
        end_session(export)
    if export.session != session:
        export.session = session
        export.next_number = 0
    export.revoked = False
    export.size_bytes = size_bytes
    refresh_volume(engine, export)
    for i in range(LINKS_MAX):
        if engine.links[i].opening and strncmp(engine.links[i].name, name, 63) == 0:
            answer_open(engine, i, export)
    return export_id_of(engine, export)


cdef void end_session(export_t* export) noexcept nogil:
    """Its id names nothing any more (X3): not what is asked by it from now on, nor what still waits, nor a close."""
    export.generation = (export.generation + 1) % EXPORT_GENERATIONS
    export.opens = 0
    fail_all(export, ESHUTDOWN)


cdef export_t* place_for_another(engine_t* engine) noexcept nogil:
    """An empty one, or that of an export that is over (X7). NULL: all are in use."""
    cdef export_t* export
    cdef uint32_t i, generation
    if engine.export_count < EXPORTS_MAX:
        engine.export_count += 1
        return &engine.exports[engine.export_count - 1]
    for i in range(EXPORTS_MAX):
        export = &engine.exports[i]
        # an answer that a client has not taken yet is held for its volume, and counted there (E9)
        if export.revoked and export.opens == 0 and export.count == 0 and engine.requests_held[export.index] == 0:
            generation = (export.generation + 1) % EXPORT_GENERATIONS
            memset(export, 0, sizeof(export_t))
            export.generation = generation
            return export
    return NULL


cdef void answer_open(engine_t* engine, uint32_t link, export_t* export) noexcept nogil:
    cdef rs_export info
    engine.links[link].opening = False
    engine.links[link].volume_index = <int32_t>export.index
    export.opens += 1
    info.export_id = export_id_of(engine, export)
    info.read_only = 0
    info.size_bytes = export.size_bytes
    engine.frontend.opened_export(engine.links[link].connection, 0, &info)


cdef bint export_awaited(const engine_t* engine, const char* name) noexcept nogil:
    """Does a connection wait for this volume (X8)?"""
    cdef uint32_t i
    for i in range(LINKS_MAX):
        if engine.links[i].opening and strncmp(engine.links[i].name, name, 63) == 0:
            return True
    return False


cdef void export_refuse(engine_t* engine, const char* name, int32_t error) noexcept nogil:
    cdef uint32_t i
    cdef rs_export info
    memset(&info, 0, sizeof(info))
    for i in range(LINKS_MAX):
        if engine.links[i].opening and strncmp(engine.links[i].name, name, 63) == 0:
            engine.links[i].opening = False
            engine.frontend.opened_export(engine.links[i].connection, error, &info)


cdef void export_describe(engine_t* engine, const char* name, uint64_t size_bytes, int32_t error) noexcept nogil:
    """Answer the connections that only ask what it is."""
    cdef uint32_t i
    cdef rs_export info
    memset(&info, 0, sizeof(info))
    info.size_bytes = size_bytes
    for i in range(LINKS_MAX):
        if engine.links[i].describing and strncmp(engine.links[i].name, name, 63) == 0:
            engine.links[i].describing = False
            engine.frontend.opened_export(engine.links[i].connection, error, &info)


cdef void fail_all(export_t* export, int32_t error) noexcept nogil:
    """Answer every request that is not in the hands of the local log or disk."""
    cdef request_t* request = export.oldest
    cdef request_t* newer
    while request != NULL:
        newer = request.newer
        if request.state == REQUEST_REMOTE:
            ended_there(export, request)
        if request.state == REQUEST_HELD:
            request_finish(request, error)
        request = newer


cdef void export_revoke(engine_t* engine, uint32_t index, int32_t error) noexcept nogil:
    """Another attach took over, or the volume is gone: this session ends with an error (X3)."""
    cdef export_t* export = export_find(engine, index)
    if export == NULL:
        return
    export.revoked = True
    export.revoke_error = error
    fail_all(export, error)


cdef void export_set_primary(engine_t* engine, uint32_t index, int32_t node, uint32_t epoch) noexcept nogil:
    """Requests of this volume go to `node` from now on (-1: wait); those unanswered go again."""
    cdef export_t* export = export_find(engine, index)
    if export == NULL:
        return
    if export.primary != node or export.epoch != epoch:
        hold_remote(export)
    export.primary = node
    export.epoch = epoch
    refresh_volume(engine, export)
    resend(engine, export, RESEND_ALL)


cdef void hold_remote(export_t* export) noexcept nogil:
    cdef request_t* request = export.oldest
    while request != NULL:
        if request.state == REQUEST_REMOTE:
            ended_there(export, request)
        request = request.newer
    export.retry = True


cdef void exports_link_down(engine_t* engine, uint32_t node) noexcept nogil:
    """What was sent over a lost link may or may not have arrived: it is held, to go again."""
    cdef uint32_t i
    for i in range(engine.export_count):
        if engine.exports[i].primary == <int32_t>node:
            hold_remote(&engine.exports[i])


cdef void resend(engine_t* engine, export_t* export, uint32_t most) noexcept nogil:
    """The held requests in order of their numbers (X2), or the first of them."""
    cdef request_t* request = export.oldest
    cdef request_t* newer
    export.retry = False
    while request != NULL:
        newer = request.newer
        if request.state == REQUEST_HELD:
            if most:
                route(engine, export, request)
                most -= 1
            if request.state == REQUEST_HELD and request.export == export:
                export.retry = True
                return
        request = newer


cdef bint exports_retry(engine_t* engine) noexcept nogil:
    """Now and then, try the held requests again."""
    cdef uint32_t i
    cdef bint waiting = False
    if engine.now_ns < engine.resend_ns:
        return False
    for i in range(engine.export_count):
        if engine.exports[i].retry and engine.exports[i].oldest != NULL:
            resend(engine, &engine.exports[i], RESEND_ALL)
            waiting |= engine.exports[i].retry
    engine.resend_ns = engine.now_ns + RESEND_NS
    return waiting


cdef void exports_deadline(engine_t* engine) noexcept nogil:
    """Held requests are tried again in time, though nothing else may happen here."""
    cdef uint32_t i
    for i in range(engine.export_count):
        if engine.exports[i].retry and engine.exports[i].oldest != NULL:
            due(engine, engine.resend_ns)


# ---------------------------------------------------------------------- requests of our clients

cdef int32_t check_request(export_t* export, request_t* request) noexcept nogil:
    """Bad input is refused before anything changes. Returns 0 or an errno."""
    cdef rs_request* front = &request.front
    if front.kind < RS_READ or front.kind > RS_BLOCK_STATUS:
        return EINVAL
    if front.kind == RS_FLUSH:
        front.offset = 0
        front.length = 0
        return 0
    if front.length == 0 or front.length >= <uint64_t>1 << 32:
        return EINVAL
    if front.offset > export.size_bytes or front.length > export.size_bytes - front.offset:
        return ENOSPC if front.kind != RS_READ and front.kind != RS_BLOCK_STATUS else EINVAL
    if (front.kind == RS_READ or front.kind == RS_WRITE) and front.length > RS_REQUEST_BYTES_MAX:
        return EINVAL
    if front.kind == RS_WRITE and front.offset % BLOCK_SIZE + front.length > RS_REQUEST_BYTES_MAX:
        return EINVAL                          # its blocks must fit into one batch
    return 0


cdef void set_blocks(request_t* request) noexcept nogil:
    request.lba = request.front.offset >> BLOCK_SHIFT
    request.blocks = <uint32_t>(((request.front.offset + request.front.length + BLOCK_SIZE - 1) >> BLOCK_SHIFT) - request.lba)


cdef void export_submit(engine_t* engine, request_t* request) noexcept nogil:
    """A request of a frontend of ours; `done` may be called before this returns."""
    cdef export_t* export = export_by_id(engine, request.front.export_id)
    cdef int32_t error
    if export == NULL:
        request_finish(request, ESHUTDOWN)
        return
    error = export.revoke_error if export.revoked else check_request(export, request)
    if error or engine.closing:
        request_finish(request, error if error else ESHUTDOWN)
        return
    set_blocks(request)
    export.next_number += 1
    request.number = export.next_number
    request.session = export.session
    request.submitted_ns = engine.now_ns
    request.export = export
    request.older = export.newest
    request.newer = NULL
    if export.newest != NULL:
        export.newest.newer = request
    else:
        export.oldest = request
    export.newest = request
    export.count += 1
    route(engine, export, request)


cdef void route(engine_t* engine, export_t* export, request_t* request) noexcept nogil:
    """To the local primary, to the primary's node, or hold it. The payload is kept until the
    answer, unless this is the only copy: nobody else could ever take the request over."""
    cdef volume_t* volume = export.volume
    cdef bint local = export.primary == <int32_t>engine.node and volume != NULL
    if local and volume.role == ROLE_PRIMARY and not (export.retry and request.state == REQUEST_NEW):
        if request.front.kind == RS_WRITE and volume.copies > 1 and not keep(engine, request):
            return
        request.volume = volume
        request.state = REQUEST_NEW
        service_submit(engine, request)
        return
    if request.front.kind == RS_WRITE and not keep(engine, request):
        return
    if (local or export.primary < 0 or engine.nodes[export.primary].link < 0 or not may_ask(engine, export, request)
            or outruns(export, request) or (export.retry and request.state == REQUEST_NEW)):
        request.state = REQUEST_HELD
        export.retry = True
        return
    send_request(engine, export, request)


cdef bint outruns(const export_t* export, const request_t* request) noexcept nogil:
    """Does our disk still read for an older write of its session, which goes to the next primary when that is done,
    and would be taken for logged there if this one came first (X4)?"""
    cdef const request_t* older = export.oldest
    while older != request:
        if older.session == request.session:
            if older.number + SESSION_WINDOW > request.number:
                return False
            if older.state == REQUEST_READING and older.front.kind == RS_WRITE:
                return True
        older = older.newer
    return False


cdef bint keep(engine_t* engine, request_t* request) noexcept nogil:
    cdef int32_t error = request_keep_payload(engine, request)
    if error:
        request_finish(request, error)
    return error == 0


cdef inline uint64_t payload_bytes(const request_t* request) noexcept nogil:
    """Of the request or of its answer."""
    return request.front.length if request.front.kind == RS_READ or request.front.kind == RS_WRITE else 0


cdef bint may_ask(const engine_t* engine, const export_t* export, const request_t* request) noexcept nogil:
    """Has a link room for it (X5)?"""
    cdef uint64_t wanted = payload_bytes(request)
    return export.asked_bytes == 0 or export.asked_bytes + engine.asked_bytes + 2 * wanted <= ASKED_BYTES_MAX


cdef void ended_there(export_t* export, request_t* request) noexcept nogil:
    """Another node was asked and has answered, or will not: it is only held now."""
    export.asked_bytes -= payload_bytes(request)
    request.engine.asked_bytes -= payload_bytes(request)
    request.state = REQUEST_HELD


cdef void send_request(engine_t* engine, export_t* export, request_t* request) noexcept nogil:
    """The payload is lent to the link until it is answered, so it goes without a token: the
    link copies nothing, and an answer can only come after it was sent."""
    cdef frame_header_t header
    cdef request_meta_t meta
    cdef const uint8_t* body = NULL
    cdef uint32_t body_bytes = 0
    frame_begin(engine, &header, FRAME_REQUEST, export.index, export.epoch)
    header.session = export.session
    header.lsn = request.number
    memset(&meta, 0, sizeof(meta))
    meta.kind = request.front.kind
    meta.flags = request.front.flags
    meta.offset = request.front.offset
    meta.length = request.front.length
    if request.front.kind == RS_WRITE:
        body = request.buffer + request.front.offset % BLOCK_SIZE
        body_bytes = <uint32_t>request.front.length
        meta.crc = crc32c(0, body, body_bytes)
    request.state = REQUEST_REMOTE
    export.asked_bytes += payload_bytes(request)
    engine.asked_bytes += payload_bytes(request)
    frame_send(engine, <uint32_t>engine.nodes[export.primary].link, &header, &meta, sizeof(meta), body, body_bytes, 0)


cdef void exports_reply(engine_t* engine, const frame_header_t* header, const uint8_t* meta,
                        const uint8_t* body) noexcept nogil:
    """The primary answered one of our requests, or told us to try again."""
    cdef export_t* export = export_find(engine, header.volume)
    cdef const reply_meta_t* reply = <const reply_meta_t*>meta
    cdef request_t* request
    if export == NULL or header.session != export.session or header.meta_bytes != sizeof(reply_meta_t):
        return
    request = export.oldest
    while request != NULL and (request.number != header.lsn or request.session != header.session):
        request = request.newer                # of an older session our disk may still read for one
    if request == NULL or request.state != REQUEST_REMOTE:
        return                                 # answered already, or held for another primary
    ended_there(export, request)
    if reply.error == EAGAIN:
        export.retry = True
        return
    if reply.error == ESTALE:
        export.revoked = True
        export.revoke_error = ESHUTDOWN
        fail_all(export, ESHUTDOWN)
        return
    if reply.error == 0 and take_body(engine, request, header, reply, body) != 0:
        export.retry = True                    # damaged on the way: ask again
        return
    request_finish(request, reply.error)
    if export.retry:
        resend(engine, export, RESEND_MORE)


cdef int take_body(engine_t* engine, request_t* request, const frame_header_t* header,
                   const reply_meta_t* reply, const uint8_t* body) noexcept nogil:
    cdef bint is_read = request.front.kind == RS_READ
    if not is_read and request.front.kind != RS_BLOCK_STATUS:
        return 0
    if (is_read and header.body_bytes != request.front.length) or header.body_bytes > RS_REQUEST_BYTES_MAX:
        return -1
    if crc32c(0, body, header.body_bytes) != reply.crc:
        return -1
    if request.buffer == NULL:
        request.front.data = <void*>body
        if is_read and request_keep_payload(engine, request) != 0:
            return -1
        if not is_read and keep_status(engine, request, header.body_bytes) != 0:
            return -1
    elif is_read:
        memcpy(request.buffer + request.front.offset % BLOCK_SIZE, body, header.body_bytes)
    request.front.data = request.buffer + (request.front.offset % BLOCK_SIZE if is_read else 0)
    request.front.data_bytes = header.body_bytes
    return 0


cdef int keep_status(engine_t* engine, request_t* request, uint32_t count) noexcept nogil:
    cdef uint64_t offset = request.front.offset, length = request.front.length
    cdef uint32_t blocks = request.blocks
    cdef int error
    request.front.offset = 0
    request.front.length = count
    request.blocks = 1
    error = request_keep_payload(engine, request) if count <= BLOCK_SIZE else EIO
    request.front.offset = offset
    request.front.length = length
    request.blocks = blocks
    return error


# ------------------------------------------------------------- requests of other nodes' clients

cdef void foreign_done(rs_request* front) noexcept nogil:
    """A forwarded request is finished: answer its node, if it is still there."""
    cdef request_t* request = <request_t*>front
    cdef engine_t* engine = request.engine
    cdef bint has_body = front.error == 0 and (front.kind == RS_READ or front.kind == RS_BLOCK_STATUS)
    if engine.links[request.link].up and engine.links[request.link].generation == request.link_generation:
        send_reply(engine, request.link, request.volume.index if request.volume != NULL else front.export_id,
                   request.session, request.number, front.error,
                   front.data if has_body else NULL, front.data_bytes if has_body else 0, request)
        if has_body:
            return                             # released when the body is through
    request_release(engine, request)


cdef void send_reply(engine_t* engine, uint32_t link, uint32_t volume, uint32_t session, uint64_t number,
                     int32_t error, const void* body, uint32_t body_bytes, request_t* request) noexcept nogil:
    cdef frame_header_t header
    cdef reply_meta_t meta
    frame_begin(engine, &header, FRAME_REPLY, volume, 0)
    header.session = session
    header.lsn = number
    meta.error = error
    meta.crc = crc32c(0, body, body_bytes) if body_bytes else 0
    frame_send(engine, link, &header, &meta, sizeof(meta), body, body_bytes,
               token(SENT_REPLY, request.index) if body_bytes else 0)


cdef bint overtakes(engine_t* engine, volume_t* volume, const frame_header_t* header) noexcept nogil:
    """Is an older request of its session on its way back here (X4)? Not for ever: that one may have come
    twice, and be answered."""
    return (header.session == volume.refused_session and header.lsn > volume.refused_number
            and engine.now_ns < volume.refused_until_ns)


cdef void sent_back(engine_t* engine, volume_t* volume, const frame_header_t* header) noexcept nogil:
    """Those behind it wait for it; unless it waits for another one itself."""
    if header.session < volume.refused_session or overtakes(engine, volume, header):
        return
    volume.refused_session = header.session
    volume.refused_number = header.lsn
    volume.refused_until_ns = engine.now_ns + REFUSED_NS


cdef void foreign_request(engine_t* engine, uint32_t link, const frame_header_t* header,
                          const uint8_t* meta, const uint8_t* body) noexcept nogil:
    """A request from a frontend on another node. Hostile until checked."""
    cdef const request_meta_t* asked = <const request_meta_t*>meta
    cdef volume_t* volume = engine.by_index[header.volume] if header.volume < VOLUME_INDEX_MAX else NULL
    cdef request_t* request
    cdef export_t bounds
    cdef int32_t error
    if header.meta_bytes != sizeof(request_meta_t):
        engine.backend.close(engine.backend.context, link)
        return
    if volume == NULL or volume.role != ROLE_PRIMARY:
        send_reply(engine, link, header.volume, header.session, header.lsn, EAGAIN, NULL, 0, NULL)
        return
    request = NULL if overtakes(engine, volume, header) else request_new(engine, volume.index)
    if request == NULL:
        sent_back(engine, volume, header)
        send_reply(engine, link, header.volume, header.session, header.lsn, EAGAIN, NULL, 0, NULL)
        return
    if header.session == volume.refused_session and header.lsn == volume.refused_number:
        volume.refused_until_ns = 0            # it is here
    request.front.kind = asked.kind
    request.front.flags = asked.flags
    request.front.offset = asked.offset
    request.front.length = asked.length
    request.front.export_id = header.volume
    request.front.done = foreign_done
    request.front.data = <void*>body
    request.flags = REQUEST_FOREIGN
    request.link = link
    request.link_generation = engine.links[link].generation
    request.session = header.session
    request.number = header.lsn
    request.volume = volume
    bounds.size_bytes = volume.size_blocks << BLOCK_SHIFT
    error = check_request(&bounds, request)
    if error == 0 and asked.kind == RS_WRITE and (
            header.body_bytes != asked.length or crc32c(0, body, header.body_bytes) != asked.crc):
        error = EAGAIN                         # damaged on the way
        sent_back(engine, volume, header)
    if error:
        request_finish(request, error)
        return
    set_blocks(request)
    service_submit(engine, request)


# -------------------------------------------------------------------- the published C API

cdef rs_request* api_request_new(rs_engine* handle, uint32_t link) noexcept nogil:
    cdef engine_t* engine = <engine_t*>handle
    cdef link_t* connection = &engine.links[link]
    cdef request_t* request = NULL
    if connection.volume_index >= 0:           # its own volume's share, whoever has the export's place by now (X7)
        request = request_new(engine, <uint32_t>connection.volume_index)
    if request == NULL and not connection.starved:
        connection.starved = True
        engine.starved_links[engine.starved_count] = link
        engine.starved_count += 1
    return &request.front if request != NULL else NULL


cdef bint exports_feed(engine_t* engine) noexcept nogil:
    """Connections that ran out of requests go on, where their volume may take some again."""
    cdef uint32_t i, link, count = engine.starved_count
    cdef link_t* connection
    cdef bint moved = False
    engine.starved_count = 0                   # each of them comes back at most once, behind where we read
    for i in range(count):
        link = engine.starved_links[i]
        connection = &engine.links[link]
        connection.starved = False
        if not connection.up or connection.connection == NULL or connection.volume_index < 0:
            continue
        if not request_left(engine, <uint32_t>connection.volume_index):
            connection.starved = True
            engine.starved_links[engine.starved_count] = link
            engine.starved_count += 1
            continue
        moved = True
        engine.frontend.writable(connection.connection)
        engine.backend.hold(engine.backend.context, link, 0)
    return moved


cdef void api_request_submit(rs_engine* handle, rs_request* front) noexcept nogil:
    export_submit(<engine_t*>handle, <request_t*>front)


cdef void api_request_release(rs_engine* handle, rs_request* front) noexcept nogil:
    request_release(<engine_t*>handle, <request_t*>front)


cdef void api_send(rs_engine* handle, uint32_t link, const void* head, uint32_t head_bytes,
                   const void* body, uint32_t body_bytes, uint64_t sent_token) noexcept nogil:
    cdef engine_t* engine = <engine_t*>handle
    engine.backend.send(engine.backend.context, link, head, head_bytes, body, body_bytes, sent_token)


cdef void api_close(rs_engine* handle, uint32_t link) noexcept nogil:
    cdef engine_t* engine = <engine_t*>handle
    engine.backend.close(engine.backend.context, link)


cdef bint is_volume_name(const char* name, uint32_t count) noexcept nogil:
    """As config.NAME_PATTERN has it (X6)."""
    cdef uint32_t i
    cdef char byte
    if count == 0 or count >= VOLUME_NAME_BYTES:
        return False
    for i in range(count):
        byte = name[i]
        if b"A" <= byte <= b"Z" or b"a" <= byte <= b"z" or b"0" <= byte <= b"9":
            continue
        if i == 0 or (byte != b"." and byte != b"_" and byte != b"-"):
            return False
    return True


cdef bint keep_name(engine_t* engine, uint32_t link, const char* name, uint32_t name_bytes) noexcept nogil:
    """What a frontend asks for, until it is answered. False: it is, for there can be no such volume (X6)."""
    cdef link_t* connection = &engine.links[link]
    cdef rs_export info
    if not is_volume_name(name, name_bytes):
        memset(&info, 0, sizeof(info))
        engine.frontend.opened_export(connection.connection, ENOENT, &info)
        return False
    memset(connection.name, 0, VOLUME_NAME_BYTES)
    memcpy(connection.name, name, name_bytes)
    return True


cdef void api_export_open(rs_engine* handle, uint32_t link, const char* name, uint32_t name_bytes) noexcept nogil:
    """The control side is asked, also about a volume attached here: by now another node may have
    taken over, and whoever opens must not be given a session that is over."""
    cdef engine_t* engine = <engine_t*>handle
    if keep_name(engine, link, name, name_bytes):
        engine.links[link].opening = True
        event_push(engine, EVENT_ATTACH, 0, engine.node, 0, link, 0, 0, 0, engine.links[link].name)


cdef void api_export_describe(rs_engine* handle, uint32_t link, const char* name, uint32_t name_bytes) noexcept nogil:
    """The control side is asked here too, but attaches nothing: to look must not take a volume from its client."""
    cdef engine_t* engine = <engine_t*>handle
    if keep_name(engine, link, name, name_bytes):
        engine.links[link].describing = True
        event_push(engine, EVENT_DESCRIBE, 0, engine.node, 0, link, 0, 0, 0, engine.links[link].name)


cdef void api_resume(rs_engine* handle, uint32_t link) noexcept nogil:
    """The frontend can take more of what it left unconsumed: `received` follows later."""
    cdef engine_t* engine = <engine_t*>handle
    engine.backend.hold(engine.backend.context, link, 0)


cdef void api_export_close(rs_engine* handle, uint32_t link, uint32_t export_id) noexcept nogil:
    cdef export_t* export = export_by_id(<engine_t*>handle, export_id)
    if export != NULL and export.opens:
        export.opens -= 1


cdef int32_t api_export_name(rs_engine* handle, uint32_t i, char* name, uint32_t room) noexcept nogil:
    cdef engine_t* engine = <engine_t*>handle
    cdef uint32_t length = 0
    if i >= engine.name_count:
        return -1
    while length < 63 and engine.names[i][length]:
        length += 1
    memcpy(name, engine.names[i], min(length, room))
    return <int32_t>length
