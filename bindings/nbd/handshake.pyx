"""The fixed newstyle handshake, as a step machine over what has arrived.

Rules:
1. An option is handled when all of it is here; until then nothing of it is consumed, and
   nothing is remembered of it but the bytes in the window.
2. Every length in an option is held against the option's own length before it is used.
3. An option we do not know, or cannot make sense of, is refused and the next one is read.
   What is not an option at all, is too long to skip, or is one too many closes the link.
4. One export at a time is being opened or described; meanwhile nothing is consumed.
5. INFO opens nothing: who has the export keeps it.
"""
from libc.errno cimport EACCES, EBUSY, ENOENT, EPERM, EROFS, ESHUTDOWN
from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset, strlen

from repstore_nbd.connection cimport (
    ALLOCATION_CONTEXT_ID, BLOCK_BYTES, EXPORT_NAME_BYTES_MAX, EXPORTS_LISTED_MAX, OPTION_BYTES_MAX,
    OPTION_SKIP_BYTES_MAX, OPTIONS_MAX, PAYLOAD_BYTES_MAX, PHASE_CLIENT_FLAGS, PHASE_DRAINING,
    PHASE_OPENING, PHASE_OPTIONS, PHASE_SKIPPING_OPTION, PHASE_TRANSMISSION, TOKEN_FAREWELL,
    connection_close, connection_t, operations_allocate)
from repstore_nbd.frontend_api cimport rs_export
from repstore_nbd.protocol cimport (
    NBD_FLAG_CAN_MULTI_CONN, NBD_FLAG_FIXED_NEWSTYLE, NBD_FLAG_HAS_FLAGS, NBD_FLAG_NO_ZEROES,
    NBD_FLAG_READ_ONLY, NBD_FLAG_SEND_DF, NBD_FLAG_SEND_FLUSH, NBD_FLAG_SEND_FUA, NBD_FLAG_SEND_TRIM,
    NBD_FLAG_SEND_WRITE_ZEROES, NBD_GREETING_MAGIC, NBD_INFO_BLOCK_SIZE, NBD_INFO_EXPORT,
    NBD_OPT_ABORT, NBD_OPT_EXPORT_NAME, NBD_OPT_GO, NBD_OPT_INFO, NBD_OPT_LIST,
    NBD_OPT_LIST_META_CONTEXT, NBD_OPT_SET_META_CONTEXT, NBD_OPT_STRUCTURED_REPLY, NBD_OPTION_MAGIC,
    NBD_OPTION_REPLY_MAGIC, NBD_REP_ACK, NBD_REP_ERR_INVALID, NBD_REP_ERR_PLATFORM,
    NBD_REP_ERR_POLICY, NBD_REP_ERR_SHUTDOWN, NBD_REP_ERR_TOO_BIG, NBD_REP_ERR_UNKNOWN,
    NBD_REP_ERR_UNSUP, NBD_REP_INFO, NBD_REP_META_CONTEXT, NBD_REP_SERVER, NBD_REPLY_IS_ERROR,
    be32toh, be64toh, htobe16, htobe32, htobe64, nbd_export_t, nbd_greeting_t, nbd_info_block_size_t,
    nbd_info_export_t, nbd_option_reply_t, nbd_option_t)


cdef enum:
    OPTION_REPLY_BYTES = 20              # sizeof(nbd_option_reply_t)
    REPLY_DATA_BYTES_MAX = 512           # of the longest option reply we send

cdef const char* ALLOCATION_CONTEXT = b"base:allocation"
cdef const char* ALLOCATION_NAMESPACE = b"base:"


cdef void handshake_greet(connection_t* connection) noexcept nogil:
    """The server speaks first."""
    cdef nbd_greeting_t greeting
    greeting.greeting_magic = htobe64(NBD_GREETING_MAGIC)
    greeting.option_magic = htobe64(NBD_OPTION_MAGIC)
    greeting.flags = htobe16(NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES)
    connection.phase = PHASE_CLIENT_FLAGS
    connection.api.send(connection.engine, connection.link, &greeting, sizeof(greeting), NULL, 0, 0)


cdef uint32_t handshake_received(connection_t* connection, const uint8_t* data,
                                 uint32_t count) noexcept nogil:
    """One step: how many bytes it consumed, 0 if it needs more of them."""
    if connection.phase == PHASE_CLIENT_FLAGS:
        return client_flags_received(connection, data, count)
    if connection.phase == PHASE_SKIPPING_OPTION:
        return option_skipped(connection, count)
    return option_received(connection, data, count)


cdef uint32_t client_flags_received(connection_t* connection, const uint8_t* data,
                                    uint32_t count) noexcept nogil:
    cdef uint32_t flags
    if count < sizeof(uint32_t):
        return 0
    memcpy(&flags, data, sizeof(uint32_t))
    flags = be32toh(flags)
    if flags & ~(<uint32_t>(NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES)):
        connection_close(connection)
        return 0
    connection.no_zeroes = (flags & NBD_FLAG_NO_ZEROES) != 0
    connection.phase = PHASE_OPTIONS
    return sizeof(uint32_t)


cdef uint32_t option_skipped(connection_t* connection, uint32_t count) noexcept nogil:
    cdef uint32_t skipped = min(count, connection.skip_bytes)
    connection.skip_bytes -= skipped
    if connection.skip_bytes == 0:
        connection.phase = PHASE_OPTIONS
        refuse(connection, NBD_REP_ERR_TOO_BIG, b"option longer than 8192 bytes")
    return skipped


cdef uint32_t option_received(connection_t* connection, const uint8_t* data,
                              uint32_t count) noexcept nogil:
    cdef const nbd_option_t* header = <const nbd_option_t*>data
    cdef uint32_t length
    if count < sizeof(nbd_option_t):
        return 0
    length = be32toh(header.length_bytes)
    connection.option = be32toh(header.option)
    if (be64toh(header.magic) != NBD_OPTION_MAGIC or length > OPTION_SKIP_BYTES_MAX
            or connection.options_seen == OPTIONS_MAX):
        connection_close(connection)
        return 0
    if length > OPTION_BYTES_MAX:
        connection.options_seen += 1
        connection.skip_bytes = length
        connection.phase = PHASE_SKIPPING_OPTION
        return sizeof(nbd_option_t)
    if count - sizeof(nbd_option_t) < length:
        return 0
    connection.options_seen += 1
    handle_option(connection, data + sizeof(nbd_option_t), length)
    return sizeof(nbd_option_t) + length


cdef void handle_option(connection_t* connection, const uint8_t* data, uint32_t length) noexcept nogil:
    cdef uint32_t option = connection.option
    if option == NBD_OPT_EXPORT_NAME:
        open_export(connection, data, length)
    elif option == NBD_OPT_GO or option == NBD_OPT_INFO:
        handle_go(connection, data, length)
    elif option == NBD_OPT_LIST_META_CONTEXT or option == NBD_OPT_SET_META_CONTEXT:
        handle_meta_context(connection, data, length)
    elif option == NBD_OPT_ABORT:
        # the last words are owed to the client: the link is closed when they are sent
        connection.references += 1
        connection.phase = PHASE_DRAINING
        reply(connection, NBD_REP_ACK, NULL, 0, TOKEN_FAREWELL)
    elif option != NBD_OPT_LIST and option != NBD_OPT_STRUCTURED_REPLY:
        refuse(connection, NBD_REP_ERR_UNSUP, b"option not supported")
    elif length != 0:
        refuse(connection, NBD_REP_ERR_INVALID, b"this option takes no data")
    elif option == NBD_OPT_LIST:
        handle_list(connection)
    else:
        connection.structured = 1
        acknowledge(connection)


cdef void reply(connection_t* connection, uint32_t type, const void* data, uint32_t data_bytes,
                uint64_t token) noexcept nogil:
    """Answer the option at hand; the data is copied and at most REPLY_DATA_BYTES_MAX."""
    cdef uint8_t head[OPTION_REPLY_BYTES + REPLY_DATA_BYTES_MAX]
    cdef nbd_option_reply_t* header = <nbd_option_reply_t*>head
    header.magic = htobe64(NBD_OPTION_REPLY_MAGIC)
    header.option = htobe32(connection.option)
    header.type = htobe32(type)
    header.length_bytes = htobe32(data_bytes)
    if data_bytes:
        memcpy(head + OPTION_REPLY_BYTES, data, data_bytes)
    connection.api.send(connection.engine, connection.link, head,
                        OPTION_REPLY_BYTES + data_bytes, NULL, 0, token)


cdef void acknowledge(connection_t* connection) noexcept nogil:
    reply(connection, NBD_REP_ACK, NULL, 0, 0)


cdef void refuse(connection_t* connection, uint32_t error, const char* message) noexcept nogil:
    """An error reply with words for the user; EXPORT_NAME knows none and is hung up on."""
    if connection.option == NBD_OPT_EXPORT_NAME:
        connection_close(connection)
    else:
        reply(connection, NBD_REPLY_IS_ERROR | error, message, <uint32_t>strlen(message), 0)


cdef uint32_t read_be32(const uint8_t* data) noexcept nogil:
    cdef uint32_t value
    memcpy(&value, data, sizeof(value))
    return be32toh(value)


cdef bint split_name(const uint8_t* data, uint32_t length, const uint8_t** name,
                     uint32_t* name_bytes) noexcept nogil:
    """The export name that GO, INFO and the contexts begin with; False: it does not fit."""
    if length < 4:
        return False
    name_bytes[0] = read_be32(data)
    name[0] = data + 4
    return name_bytes[0] <= length - 4


cdef void open_export(connection_t* connection, const uint8_t* name, uint32_t name_bytes) noexcept nogil:
    """Ask the engine for the export; `handshake_opened` goes on, perhaps inside this call."""
    if name_bytes > EXPORT_NAME_BYTES_MAX:
        refuse(connection, NBD_REP_ERR_UNKNOWN, b"no export has a name longer than 255 bytes")
        return
    if connection.context_chosen and (
            connection.context_name_bytes != name_bytes
            or memcmp(connection.context_name, name, name_bytes) != 0):
        connection.context_chosen = 0    # it was chosen for another export
    connection.phase = PHASE_OPENING
    if connection.option == NBD_OPT_INFO:
        connection.api.export_describe(connection.engine, connection.link, <const char*>name, name_bytes)
    else:
        connection.api.export_open(connection.engine, connection.link, <const char*>name, name_bytes)


cdef void handle_go(connection_t* connection, const uint8_t* data, uint32_t length) noexcept nogil:
    """GO and INFO: name, then how many 16-bit information requests, then these."""
    cdef const uint8_t* name = NULL
    cdef uint32_t name_bytes = 0
    cdef uint32_t position, requests, i
    if not split_name(data, length, &name, &name_bytes):
        refuse(connection, NBD_REP_ERR_INVALID, b"export name longer than the option")
        return
    position = 4 + name_bytes
    if length - position < 2:
        refuse(connection, NBD_REP_ERR_INVALID, b"number of information requests missing")
        return
    requests = (<uint32_t>data[position] << 8) | data[position + 1]
    position += 2
    if length - position != 2 * requests:
        refuse(connection, NBD_REP_ERR_INVALID, b"information requests do not fill the option")
        return
    connection.wants_block_size = 0
    for i in range(requests):
        if data[position + 2 * i] == 0 and data[position + 2 * i + 1] == NBD_INFO_BLOCK_SIZE:
            connection.wants_block_size = 1
    open_export(connection, name, name_bytes)


cdef uint16_t transmission_flags(const connection_t* connection) noexcept nogil:
    """What the export can do. A flush on one connection covers all: CAN_MULTI_CONN."""
    cdef uint16_t flags = NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH | NBD_FLAG_CAN_MULTI_CONN
    if connection.read_only:
        flags |= NBD_FLAG_READ_ONLY
    else:
        flags |= NBD_FLAG_SEND_FUA | NBD_FLAG_SEND_TRIM | NBD_FLAG_SEND_WRITE_ZEROES
    if connection.structured:
        flags |= NBD_FLAG_SEND_DF
    return flags


cdef void handshake_opened(connection_t* connection, int32_t error,
                           const rs_export* info) noexcept nogil:
    """The engine's answer to `export_open` or `export_describe`."""
    if connection.phase != PHASE_OPENING:
        return
    connection.phase = PHASE_OPTIONS
    if error != 0:
        refuse_export(connection, error)
        return
    connection.read_only = info.read_only != 0
    connection.size_bytes = info.size_bytes
    if connection.option == NBD_OPT_EXPORT_NAME:
        send_old_export(connection)
    else:
        send_export_information(connection)
    if connection.option == NBD_OPT_INFO:
        return
    connection.opened = 1
    connection.export_id = info.export_id
    if operations_allocate(connection):
        connection.phase = PHASE_TRANSMISSION
    else:
        connection_close(connection)


cdef void refuse_export(connection_t* connection, int32_t error) noexcept nogil:
    if error == ENOENT:
        refuse(connection, NBD_REP_ERR_UNKNOWN, b"no such export")
    elif error == ESHUTDOWN:
        refuse(connection, NBD_REP_ERR_SHUTDOWN, b"the export is shut down")
    elif error == EPERM or error == EACCES or error == EROFS or error == EBUSY:
        refuse(connection, NBD_REP_ERR_POLICY, b"the export may not be attached")
    else:
        refuse(connection, NBD_REP_ERR_PLATFORM, b"the export cannot be served now")


cdef void send_export_information(connection_t* connection) noexcept nogil:
    cdef nbd_info_export_t export
    cdef nbd_info_block_size_t block_size
    export.type = htobe16(NBD_INFO_EXPORT)
    export.size_bytes = htobe64(connection.size_bytes)
    export.flags = htobe16(transmission_flags(connection))
    reply(connection, NBD_REP_INFO, &export, sizeof(export), 0)
    if connection.wants_block_size:
        block_size.type = htobe16(NBD_INFO_BLOCK_SIZE)
        block_size.minimum_bytes = htobe32(1)
        block_size.preferred_bytes = htobe32(BLOCK_BYTES)
        block_size.maximum_bytes = htobe32(PAYLOAD_BYTES_MAX)
        reply(connection, NBD_REP_INFO, &block_size, sizeof(block_size), 0)
    acknowledge(connection)


cdef void send_old_export(connection_t* connection) noexcept nogil:
    cdef nbd_export_t export
    memset(&export, 0, sizeof(export))
    export.size_bytes = htobe64(connection.size_bytes)
    export.flags = htobe16(transmission_flags(connection))
    connection.api.send(
        connection.engine, connection.link, &export,
        sizeof(export) - (sizeof(export.zeroes) if connection.no_zeroes else 0), NULL, 0, 0)


cdef void handle_list(connection_t* connection) noexcept nogil:
    cdef uint8_t entry[4 + EXPORT_NAME_BYTES_MAX]
    cdef uint32_t length
    cdef int32_t name_bytes
    cdef uint32_t i
    for i in range(<uint32_t>EXPORTS_LISTED_MAX):
        name_bytes = connection.api.export_name(connection.engine, i, <char*>entry + 4,
                                                EXPORT_NAME_BYTES_MAX)
        if name_bytes < 0:
            break
        if name_bytes > EXPORT_NAME_BYTES_MAX:
            continue                     # open_export would not take it either
        length = htobe32(<uint32_t>name_bytes)
        memcpy(entry, &length, sizeof(length))
        reply(connection, NBD_REP_SERVER, entry, 4 + <uint32_t>name_bytes, 0)
    acknowledge(connection)


cdef bint same_text(const uint8_t* text, uint32_t text_bytes, const char* wanted) noexcept nogil:
    return text_bytes == strlen(wanted) and memcmp(text, wanted, text_bytes) == 0


cdef int asks_for_allocation(const uint8_t* queries, uint32_t length, bint listing) noexcept nogil:
    """Whether one of the queries names base:allocation; -1 if they do not fill the option.

    None at all is every context for LIST and no context for SET, where a bare namespace
    means nothing either.
    """
    cdef uint32_t remaining, query_bytes, _query
    cdef int found
    if length < 4:
        return -1
    remaining = read_be32(queries)
    found = listing and remaining == 0
    queries += 4
    length -= 4
    for _query in range(remaining):
        if length < 4 or read_be32(queries) > length - 4:
            return -1                    # before `remaining`, a hostile number, counts
        query_bytes = read_be32(queries)
        if (same_text(queries + 4, query_bytes, ALLOCATION_CONTEXT)
                or (listing and same_text(queries + 4, query_bytes, ALLOCATION_NAMESPACE))):
            found = 1
        queries += 4 + query_bytes
        length -= 4 + query_bytes
    return found if length == 0 else -1


cdef void handle_meta_context(connection_t* connection, const uint8_t* data,
                              uint32_t length) noexcept nogil:
    """LIST and SET_META_CONTEXT: name, then how many queries, then these. We have one context."""
    cdef const uint8_t* name = NULL
    cdef uint32_t name_bytes = 0
    cdef bint listing = connection.option == NBD_OPT_LIST_META_CONTEXT
    cdef int found
    if not listing:
        connection.context_chosen = 0    # a SET replaces the last one, also when it fails
    if not connection.structured:
        refuse(connection, NBD_REP_ERR_INVALID, b"structured replies come first")
        return
    if not split_name(data, length, &name, &name_bytes):
        refuse(connection, NBD_REP_ERR_INVALID, b"export name longer than the option")
        return
    if name_bytes > EXPORT_NAME_BYTES_MAX:
        refuse(connection, NBD_REP_ERR_UNKNOWN, b"no export has a name longer than 255 bytes")
        return
    found = asks_for_allocation(name + name_bytes, length - 4 - name_bytes, listing)
    if found < 0:
        refuse(connection, NBD_REP_ERR_INVALID, b"queries do not fill the option")
        return
    if found:
        send_allocation_context(connection, listing)
        if not listing:
            connection.context_chosen = 1
            connection.context_name_bytes = <uint8_t>name_bytes
            memcpy(connection.context_name, name, name_bytes)
    acknowledge(connection)


cdef void send_allocation_context(connection_t* connection, bint listing) noexcept nogil:
    cdef uint8_t entry[32]
    cdef uint32_t context_id = htobe32(0 if listing else ALLOCATION_CONTEXT_ID)
    cdef uint32_t name_bytes = <uint32_t>strlen(ALLOCATION_CONTEXT)
    memcpy(entry, &context_id, sizeof(context_id))
    memcpy(entry + 4, ALLOCATION_CONTEXT, name_bytes)
    reply(connection, NBD_REP_META_CONTEXT, entry, 4 + name_bytes, 0)
