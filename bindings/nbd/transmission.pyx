"""The transmission: commands are checked, cut to the engine's size, asked, and answered.

Rules:
1. A command is checked whole before any part of it is asked of the engine. One that is
   refused still has its payload consumed, or the stream would lose its step.
2. Big reads and writes are cut at BLOCK_BYTES boundaries so that no part touches more
   than RS_REQUEST_BYTES_MAX of blocks. One answer when all parts are done; the first error wins.
   Zeroes of a part of a block are written: the engine zeroes whole blocks.
3. At most one operation is partly asked: `current`. It goes on before a new header is read,
   so the engine sees the parts in the order of the wire.
4. A read in chunks leaves part by part. One that must leave in one piece (no structured
   replies, or DF) is gathered in a buffer of ours, and each part is given back at once: were
   the parts held instead, two such reads could starve each other of the engine's requests.
5. After a call that may answer (request_submit, send) the operation may be gone, and the
   connection too if it is mute: whatever is needed later is read before.
"""
from libc.errno cimport (
    EACCES, EDQUOT, EFBIG, EINVAL, EIO, ENOMEM, ENOSPC, EOPNOTSUPP, EOVERFLOW, EPERM, EROFS, ESHUTDOWN)
from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t, uintptr_t
from libc.stdlib cimport malloc
from libc.string cimport memcpy

from repstore_nbd.connection cimport (
    ALLOCATION_CONTEXT_ID, BLOCK_BYTES, OUTSTANDING_BYTES_MAX, PAYLOAD_BYTES_MAX, PHASE_DRAINING,
    TOKEN_OPERATION, TOKEN_REQUEST, connection_close, connection_t, operation_let_go, operation_t,
    operation_take)
from repstore_nbd.frontend_api cimport (
    RS_BLOCK_STATUS, RS_EXTENT_HOLE, RS_EXTENT_ZERO, RS_FLUSH, RS_FUA, RS_NO_HOLE, RS_READ,
    RS_REQUEST_BYTES_MAX, RS_TRIM, RS_WRITE, RS_WRITE_ZEROES, rs_extent, rs_request)
from repstore_nbd.protocol cimport (
    NBD_CHUNK_BLOCK_STATUS, NBD_CHUNK_ERROR, NBD_CHUNK_FLAG_DONE, NBD_CHUNK_MAGIC,
    NBD_CHUNK_OFFSET_DATA, NBD_CMD_BLOCK_STATUS, NBD_CMD_DISC, NBD_CMD_FLAG_DF,
    NBD_CMD_FLAG_FAST_ZERO, NBD_CMD_FLAG_FUA, NBD_CMD_FLAG_NO_HOLE, NBD_CMD_FLAG_REQ_ONE,
    NBD_CMD_FLUSH, NBD_CMD_READ, NBD_CMD_TRIM, NBD_CMD_WRITE, NBD_CMD_WRITE_ZEROES, NBD_EINVAL,
    NBD_EIO, NBD_ENOMEM, NBD_ENOSPC, NBD_ENOTSUP, NBD_EOVERFLOW, NBD_EPERM, NBD_ESHUTDOWN,
    NBD_REQUEST_MAGIC, NBD_SIMPLE_REPLY_MAGIC, be16toh, be32toh, be64toh, htobe16, htobe32, htobe64,
    nbd_chunk_t, nbd_data_chunk_t, nbd_error_chunk_t, nbd_request_t, nbd_simple_reply_t,
    nbd_status_chunk_t)


cdef enum:
    READS_AT_ONCE = 8

cdef uint8_t[4096] ZEROES              # BLOCK_BYTES, for the edges of write-zeroes


# ---- in: from bytes to requests -----------------------------------------------------------

cdef uint32_t transmission_received(connection_t* connection, const uint8_t* data,
                                    uint32_t count) noexcept nogil:
    """Take as many commands as are here and may be in flight; how many bytes were consumed.

    After a few reads the disk's answers are looked at before more are taken: client, server and
    disk would take turns otherwise, two of the three standing still."""
    cdef const nbd_request_t* header
    cdef uint32_t consumed = 0, reads = 0
    while True:
        if connection.current != NULL:
            consumed += go_on(connection, data + consumed, count - consumed)
            if connection.current != NULL:
                return consumed
        if reads == READS_AT_ONCE:
            connection.api.resume(connection.engine, connection.link)
            return consumed
        if count - consumed < sizeof(nbd_request_t):
            return consumed
        header = <const nbd_request_t*>(data + consumed)
        if be32toh(header.magic) != NBD_REQUEST_MAGIC:
            connection_close(connection)
            return count
        if be16toh(header.command) == NBD_CMD_DISC:
            # answers under way are still owed: the last one to be sent hangs up
            connection.phase = PHASE_DRAINING
            if connection.references == 1:
                connection_close(connection)
            return count
        if not has_room(connection, header):
            connection.stalled = 1
            return consumed
        start(connection, header)
        consumed += sizeof(nbd_request_t)
        reads += be16toh(header.command) == NBD_CMD_READ


cdef void transmission_writable(connection_t* connection) noexcept nogil:
    """The engine has requests again. A write waits for `received`, which brings its payload."""
    if connection.current != NULL and connection.current.kind != RS_WRITE:
        go_on(connection, NULL, 0)


cdef void transmission_abandon(connection_t* connection) noexcept nogil:
    """The link is gone: what is not asked yet never will be."""
    cdef operation_t* operation = connection.current
    if operation == NULL:
        return
    connection.current = NULL
    operation.unasked = 0
    if operation.under_way == 0:
        answer(operation)


cdef bint carries_bytes(uint16_t command, uint32_t length) noexcept nogil:
    """Whether the command keeps payload in memory while it runs."""
    return (command == NBD_CMD_READ or command == NBD_CMD_WRITE) and length <= PAYLOAD_BYTES_MAX


cdef bint has_room(const connection_t* connection, const nbd_request_t* header) noexcept nogil:
    cdef uint32_t length = be32toh(header.length_bytes)
    if connection.free_operations == NULL:
        return False
    return (connection.outstanding_bytes == 0
            or not carries_bytes(be16toh(header.command), length)
            or connection.outstanding_bytes + length <= OUTSTANDING_BYTES_MAX)


cdef uint8_t kind_of(uint16_t command) noexcept nogil:
    """RS_* of a command, 0 for one we do not know."""
    if command == NBD_CMD_READ:
        return RS_READ
    if command == NBD_CMD_WRITE:
        return RS_WRITE
    if command == NBD_CMD_FLUSH:
        return RS_FLUSH
    if command == NBD_CMD_TRIM:
        return RS_TRIM
    if command == NBD_CMD_WRITE_ZEROES:
        return RS_WRITE_ZEROES
    if command == NBD_CMD_BLOCK_STATUS:
        return RS_BLOCK_STATUS
    return 0


cdef uint16_t flags_allowed(const connection_t* connection, uint8_t kind) noexcept nogil:
    """Flags that mean something; FUA may stand on any command."""
    if kind == RS_READ and connection.structured:
        return NBD_CMD_FLAG_FUA | NBD_CMD_FLAG_DF
    if kind == RS_WRITE_ZEROES:
        return NBD_CMD_FLAG_FUA | NBD_CMD_FLAG_NO_HOLE
    if kind == RS_BLOCK_STATUS:
        return NBD_CMD_FLAG_FUA | NBD_CMD_FLAG_REQ_ONE
    return NBD_CMD_FLAG_FUA


cdef int32_t refusal(const connection_t* connection, uint8_t kind, uint16_t flags, uint64_t offset,
                     uint32_t length) noexcept nogil:
    """The errno a command is refused with before the engine hears of it, or 0."""
    cdef bint growing = kind == RS_WRITE or kind == RS_WRITE_ZEROES
    if kind == 0:
        return EINVAL
    if kind == RS_WRITE_ZEROES and flags & NBD_CMD_FLAG_FAST_ZERO:
        return EOPNOTSUPP
    if flags & ~flags_allowed(connection, kind):
        return EINVAL
    if kind == RS_FLUSH:
        return EINVAL if offset != 0 or length != 0 else 0
    if length == 0:
        return EINVAL
    if connection.read_only and (growing or kind == RS_TRIM):
        return EPERM
    if offset > connection.size_bytes or length > connection.size_bytes - offset:
        return ENOSPC if growing else EINVAL
    if (kind == RS_READ or kind == RS_WRITE) and length > PAYLOAD_BYTES_MAX:
        return EINVAL
    if kind == RS_BLOCK_STATUS and not connection.context_chosen:
        return EINVAL
    return 0


cdef void start(connection_t* connection, const nbd_request_t* header) noexcept nogil:
    """Make an operation of a header: `current`, with nothing asked yet."""
    cdef operation_t* operation = operation_take(connection)
    cdef uint16_t flags = be16toh(header.flags)
    cdef uint16_t command = be16toh(header.command)
    cdef uint32_t length = be32toh(header.length_bytes)
    connection.current = operation
    operation.cookie = header.cookie     # opaque: it goes back in the order it came
    operation.kind = kind_of(command)
    operation.offset = be64toh(header.offset)
    operation.length = length
    operation.position = 0
    operation.charged_bytes = length if carries_bytes(command, length) else 0
    operation.under_way = 0
    operation.held = 0
    operation.flags = ((RS_FUA if flags & NBD_CMD_FLAG_FUA else 0)
                       | (RS_NO_HOLE if flags & NBD_CMD_FLAG_NO_HOLE else 0))
    operation.structured = connection.structured and (
        operation.kind == RS_READ or operation.kind == RS_BLOCK_STATUS)
    operation.one_extent = (flags & NBD_CMD_FLAG_REQ_ONE) != 0
    operation.unasked = 1
    operation.answered = 0
    operation.error = refusal(connection, operation.kind, flags, operation.offset, length)
    connection.outstanding_bytes += operation.charged_bytes
    if (operation.error == 0 and operation.kind == RS_READ and part_length(operation) < length
            and (not operation.structured or flags & NBD_CMD_FLAG_DF)):
        operation.gathered = <uint8_t*>malloc(length)
        if operation.gathered == NULL:
            operation.error = ENOMEM


cdef uint32_t part_length(const operation_t* operation) noexcept nogil:
    """Bytes of the next request of this operation (rule 2)."""
    cdef uint64_t begin = operation.offset + operation.position
    cdef uint64_t rest = operation.length - operation.position
    cdef uint64_t boundary
    if operation.kind == RS_WRITE_ZEROES:
        if begin % BLOCK_BYTES or rest < BLOCK_BYTES:
            return <uint32_t>min(rest, BLOCK_BYTES - begin % BLOCK_BYTES)
        return <uint32_t>(rest - rest % BLOCK_BYTES)
    if operation.kind != RS_READ and operation.kind != RS_WRITE:
        return <uint32_t>rest
    boundary = (begin + RS_REQUEST_BYTES_MAX) & ~(<uint64_t>BLOCK_BYTES - 1)
    return <uint32_t>min(rest, boundary - begin)


cdef uint32_t go_on(connection_t* connection, const uint8_t* data, uint32_t count) noexcept nogil:
    """Ask the engine for more of `current`, as far as payload and requests are there.

    Returns the bytes consumed, which are payload. `current` is NULL when all is asked.
    """
    cdef operation_t* operation = connection.current
    cdef bint has_payload = operation.kind == RS_WRITE
    cdef rs_request* request
    cdef uint32_t length
    cdef uint32_t consumed = 0
    while connection.current != NULL:
        if operation.error != 0:
            return consumed + skip_rest(connection, count - consumed)
        length = part_length(operation)
        if has_payload and count - consumed < length:
            return consumed
        request = connection.api.request_new(connection.engine, connection.link)
        if request == NULL:
            return consumed
        fill(request, operation, length)
        if has_payload:
            request.data = <void*>(data + consumed)
            request.data_bytes = length
            consumed += length
        operation.position += length
        operation.under_way += 1
        operation.held += 1
        if operation.position == operation.length:
            operation.unasked = 0
            connection.current = NULL
        connection.api.request_submit(connection.engine, request)
    return consumed


cdef uint32_t skip_rest(connection_t* connection, uint32_t count) noexcept nogil:
    """Ask for no more of a failed operation; the payload of a write must pass all the same."""
    cdef operation_t* operation = connection.current
    cdef uint32_t skipped = 0
    if operation.kind == RS_WRITE:
        skipped = <uint32_t>min(<uint64_t>count, operation.length - operation.position)
        operation.position += skipped
        if operation.position < operation.length:
            return skipped
    connection.current = NULL
    operation.unasked = 0
    if operation.under_way == 0:
        answer(operation)
    return skipped


cdef void fill(rs_request* request, operation_t* operation, uint32_t length) noexcept nogil:
    request.kind = operation.kind
    request.flags = operation.flags
    request.reserved = 0
    request.export_id = operation.connection.export_id
    request.offset = operation.offset + operation.position
    request.length = length
    request.data = NULL
    request.data_bytes = 0
    request.error = 0
    request.done = request_done
    request.owner = operation
    request.cookie = operation.cookie
    request.cookie2 = 0
    if operation.kind == RS_WRITE_ZEROES and (request.offset % BLOCK_BYTES or length % BLOCK_BYTES):
        request.kind = RS_WRITE
        request.flags &= <uint8_t>~RS_NO_HOLE
        request.data = ZEROES
        request.data_bytes = length


# ---- out: from completions to replies -----------------------------------------------------

cdef void request_done(rs_request* request) noexcept nogil:
    """The engine is done with one part; may run inside `go_on`."""
    cdef operation_t* operation = <operation_t*>request.owner
    cdef bint last
    operation.under_way -= 1
    last = operation.under_way == 0 and not operation.unasked
    if request.error != 0 and operation.error == 0:
        operation.error = request.error
    if operation.error == 0 and not operation.connection.mute:
        if operation.gathered != NULL:
            gather(operation, request)
        elif operation.kind == RS_READ:
            if lend_data(operation, request, last):
                return
        elif operation.kind == RS_BLOCK_STATUS:
            if lend_extents(operation, request):
                return
    request_give_back(request)
    if last:
        answer(operation)


cdef void request_give_back(rs_request* request) noexcept nogil:
    cdef operation_t* operation = <operation_t*>request.owner
    operation.connection.api.request_release(operation.connection.engine, request)
    operation_let_go(operation)


cdef void request_lent_no_more(rs_request* request) noexcept nogil:
    """`sent` of a reply whose body was the engine's buffer."""
    request_give_back(request)


cdef void gather(operation_t* operation, const rs_request* request) noexcept nogil:
    if request.data_bytes != request.length:
        operation.error = EIO            # never send what was not read
        return
    memcpy(operation.gathered + (request.offset - operation.offset), request.data, request.data_bytes)


cdef bint lend_data(operation_t* operation, rs_request* request, bint last) noexcept nogil:
    """Send a part of a read with the engine's buffer as its body; False if it is not whole."""
    cdef connection_t* connection = operation.connection
    cdef nbd_simple_reply_t simple
    cdef nbd_data_chunk_t data
    if request.data_bytes != request.length:
        operation.error = EIO
        return False
    operation.answered = last
    if operation.structured:
        set_chunk(&data.chunk, operation, NBD_CHUNK_OFFSET_DATA,
                  <uint32_t>sizeof(data.offset) + request.data_bytes, last)
        data.offset = htobe64(request.offset)
        connection.api.send(connection.engine, connection.link, &data, sizeof(data),
                            request.data, request.data_bytes, token_of(request, TOKEN_REQUEST))
    else:
        set_simple(&simple, operation, 0)
        connection.api.send(connection.engine, connection.link, &simple, sizeof(simple),
                            request.data, request.data_bytes, token_of(request, TOKEN_REQUEST))
    return True


cdef uint32_t extents_to_wire(rs_extent* extents, uint32_t count, uint64_t length,
                              bint one_extent) noexcept nogil:
    """Turn extents to wire order in place, cut to `length` bytes; how many are left."""
    cdef uint32_t kept = 0
    cdef uint32_t i, extent_bytes
    for i in range(count):
        extent_bytes = <uint32_t>min(<uint64_t>extents[i].length, length)
        if extent_bytes == 0:
            continue
        length -= extent_bytes
        extents[kept].length = htobe32(extent_bytes)
        extents[kept].state = htobe32(extents[i].state & (RS_EXTENT_HOLE | RS_EXTENT_ZERO))
        kept += 1
        if length == 0 or one_extent:
            break
    return kept


cdef bint lend_extents(operation_t* operation, rs_request* request) noexcept nogil:
    """Send the block status out of the engine's buffer; False if there is none in it."""
    cdef connection_t* connection = operation.connection
    cdef nbd_status_chunk_t status
    cdef uint32_t extents = extents_to_wire(
        <rs_extent*>request.data, request.data_bytes // <uint32_t>sizeof(rs_extent), request.length,
        operation.one_extent)
    cdef uint32_t body_bytes = extents * <uint32_t>sizeof(rs_extent)
    if extents == 0:
        operation.error = EIO
        return False
    operation.answered = 1
    set_chunk(&status.chunk, operation, NBD_CHUNK_BLOCK_STATUS,
              <uint32_t>sizeof(status.context_id) + body_bytes, True)
    status.context_id = htobe32(ALLOCATION_CONTEXT_ID)
    connection.api.send(connection.engine, connection.link, &status, sizeof(status),
                        request.data, body_bytes, token_of(request, TOKEN_REQUEST))
    return True


cdef void answer(operation_t* operation) noexcept nogil:
    """The last words of an operation of which nothing is under way and nothing was answered."""
    cdef connection_t* connection = operation.connection
    operation.answered = 1
    operation.held += 1
    if connection.mute:
        operation_let_go(operation)
    elif operation.structured and operation.error != 0:
        answer_with_error_chunk(operation)
    elif operation.structured:
        answer_with_data_chunk(operation)
    else:
        answer_simply(operation)


cdef void answer_with_error_chunk(operation_t* operation) noexcept nogil:
    cdef connection_t* connection = operation.connection
    cdef nbd_error_chunk_t failure
    set_chunk(&failure.chunk, operation, NBD_CHUNK_ERROR,
              <uint32_t>(sizeof(nbd_error_chunk_t) - sizeof(nbd_chunk_t)), True)
    failure.error = htobe32(wire_error(operation.error))
    failure.message_bytes = 0
    connection.api.send(connection.engine, connection.link, &failure, sizeof(failure), NULL, 0,
                        token_of(operation, TOKEN_OPERATION))


cdef void answer_with_data_chunk(operation_t* operation) noexcept nogil:
    """All of a gathered read in one chunk: what DF asks for."""
    cdef connection_t* connection = operation.connection
    cdef nbd_data_chunk_t data
    cdef uint32_t body_bytes = <uint32_t>operation.length
    set_chunk(&data.chunk, operation, NBD_CHUNK_OFFSET_DATA,
              <uint32_t>sizeof(data.offset) + body_bytes, True)
    data.offset = htobe64(operation.offset)
    connection.api.send(connection.engine, connection.link, &data, sizeof(data),
                        operation.gathered, body_bytes, token_of(operation, TOKEN_OPERATION))


cdef void answer_simply(operation_t* operation) noexcept nogil:
    cdef connection_t* connection = operation.connection
    cdef nbd_simple_reply_t simple
    cdef bint has_body = operation.gathered != NULL and operation.error == 0
    set_simple(&simple, operation, wire_error(operation.error))
    connection.api.send(connection.engine, connection.link, &simple, sizeof(simple),
                        operation.gathered if has_body else NULL,
                        <uint32_t>operation.length if has_body else 0,
                        token_of(operation, TOKEN_OPERATION))


cdef uint64_t token_of(const void* pointer, uint64_t kind) noexcept nogil:
    return <uint64_t><uintptr_t>pointer | kind


cdef void set_simple(nbd_simple_reply_t* simple, const operation_t* operation,
                     uint32_t error) noexcept nogil:
    simple.magic = htobe32(NBD_SIMPLE_REPLY_MAGIC)
    simple.error = htobe32(error)
    simple.cookie = operation.cookie


cdef void set_chunk(nbd_chunk_t* chunk, const operation_t* operation, uint16_t type,
                    uint32_t length_bytes, bint last) noexcept nogil:
    chunk.magic = htobe32(NBD_CHUNK_MAGIC)
    chunk.flags = htobe16(NBD_CHUNK_FLAG_DONE if last else 0)
    chunk.type = htobe16(type)
    chunk.cookie = operation.cookie
    chunk.length_bytes = htobe32(length_bytes)


cdef uint32_t wire_error(int32_t error) noexcept nogil:
    """The protocol knows eight errors: the nearest one, and EIO for what has none."""
    if error == 0:
        return 0
    if error == EPERM or error == EACCES or error == EROFS:
        return NBD_EPERM
    if error == ENOMEM:
        return NBD_ENOMEM
    if error == EINVAL:
        return NBD_EINVAL
    if error == ENOSPC or error == EDQUOT or error == EFBIG:
        return NBD_ENOSPC
    if error == EOVERFLOW:
        return NBD_EOVERFLOW
    if error == EOPNOTSUPP:
        return NBD_ENOTSUP
    if error == ESHUTDOWN:
        return NBD_ESHUTDOWN
    return NBD_EIO
