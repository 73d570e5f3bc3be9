"""The NBD protocol in bytes: constants and packed structs of the wire.

All integers are big-endian: a field read from the wire goes through be16toh, be32toh or
be64toh, one written to it through its opposite. `codec.pyx` asserts the sizes at import.
Names and numbers are those of the NBD specification (doc/proto.md).
"""
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

cdef extern from *:
    """
    #define NBD_GREETING_MAGIC 0x4e42444d41474943ULL
    #define NBD_OPTION_MAGIC 0x49484156454f5054ULL
    #define NBD_OPTION_REPLY_MAGIC 0x0003e889045565a9ULL
    #define NBD_REQUEST_MAGIC 0x25609513u
    #define NBD_SIMPLE_REPLY_MAGIC 0x67446698u
    #define NBD_CHUNK_MAGIC 0x668e33efu
    #define NBD_REPLY_IS_ERROR 0x80000000u
    """
    const uint64_t NBD_GREETING_MAGIC
    const uint64_t NBD_OPTION_MAGIC
    const uint64_t NBD_OPTION_REPLY_MAGIC
    const uint32_t NBD_REQUEST_MAGIC
    const uint32_t NBD_SIMPLE_REPLY_MAGIC
    const uint32_t NBD_CHUNK_MAGIC
    const uint32_t NBD_REPLY_IS_ERROR      # top bit of an option reply type: refused

cdef extern from "<endian.h>" nogil:
    uint16_t be16toh(uint16_t value)
    uint32_t be32toh(uint32_t value)
    uint64_t be64toh(uint64_t value)
    uint16_t htobe16(uint16_t value)
    uint32_t htobe32(uint32_t value)
    uint64_t htobe64(uint64_t value)


cdef enum:                       # handshake flags, of the server and of the client alike
    NBD_FLAG_FIXED_NEWSTYLE = 1
    NBD_FLAG_NO_ZEROES = 2


cdef enum:                       # options
    NBD_OPT_EXPORT_NAME = 1
    NBD_OPT_ABORT = 2
    NBD_OPT_LIST = 3
    NBD_OPT_INFO = 6
    NBD_OPT_GO = 7
    NBD_OPT_STRUCTURED_REPLY = 8
    NBD_OPT_LIST_META_CONTEXT = 9
    NBD_OPT_SET_META_CONTEXT = 10


cdef enum:                       # option replies; a refusal is also NBD_REPLY_IS_ERROR
    NBD_REP_ACK = 1
    NBD_REP_SERVER = 2
    NBD_REP_INFO = 3
    NBD_REP_META_CONTEXT = 4
    NBD_REP_ERR_UNSUP = 1
    NBD_REP_ERR_POLICY = 2
    NBD_REP_ERR_INVALID = 3
    NBD_REP_ERR_PLATFORM = 4
    NBD_REP_ERR_UNKNOWN = 6
    NBD_REP_ERR_SHUTDOWN = 7
    NBD_REP_ERR_TOO_BIG = 9


cdef enum:                       # kinds of information of INFO and GO
    NBD_INFO_EXPORT = 0
    NBD_INFO_BLOCK_SIZE = 3


cdef enum:                       # transmission flags
    NBD_FLAG_HAS_FLAGS = 1
    NBD_FLAG_READ_ONLY = 2
    NBD_FLAG_SEND_FLUSH = 4
    NBD_FLAG_SEND_FUA = 8
    NBD_FLAG_SEND_TRIM = 32
    NBD_FLAG_SEND_WRITE_ZEROES = 64
    NBD_FLAG_SEND_DF = 128
    NBD_FLAG_CAN_MULTI_CONN = 256


cdef enum:                       # commands
    NBD_CMD_READ = 0
    NBD_CMD_WRITE = 1
    NBD_CMD_DISC = 2
    NBD_CMD_FLUSH = 3
    NBD_CMD_TRIM = 4
    NBD_CMD_WRITE_ZEROES = 6
    NBD_CMD_BLOCK_STATUS = 7


cdef enum:                       # command flags
    NBD_CMD_FLAG_FUA = 1
    NBD_CMD_FLAG_NO_HOLE = 2
    NBD_CMD_FLAG_DF = 4
    NBD_CMD_FLAG_REQ_ONE = 8
    NBD_CMD_FLAG_FAST_ZERO = 16


cdef enum:                       # chunks of a structured reply
    NBD_CHUNK_FLAG_DONE = 1
    NBD_CHUNK_OFFSET_DATA = 1
    NBD_CHUNK_BLOCK_STATUS = 5
    NBD_CHUNK_ERROR = 0x8001


cdef enum:                       # errors of the wire; Linux happens to number them alike
    NBD_EPERM = 1
    NBD_EIO = 5
    NBD_ENOMEM = 12
    NBD_EINVAL = 22
    NBD_ENOSPC = 28
    NBD_EOVERFLOW = 75
    NBD_ENOTSUP = 95
    NBD_ESHUTDOWN = 108


cdef packed struct nbd_greeting_t:
    uint64_t greeting_magic
    uint64_t option_magic
    uint16_t flags


cdef packed struct nbd_option_t:
    uint64_t magic
    uint32_t option
    uint32_t length_bytes            # data of the option follows


cdef packed struct nbd_option_reply_t:
    uint64_t magic
    uint32_t option
    uint32_t type
    uint32_t length_bytes            # data of the reply follows


cdef packed struct nbd_info_export_t:
    uint16_t type
    uint64_t size_bytes
    uint16_t flags


cdef packed struct nbd_info_block_size_t:
    uint16_t type
    uint32_t minimum_bytes
    uint32_t preferred_bytes
    uint32_t maximum_bytes           # of the payload of one read or write


cdef packed struct nbd_export_t:     # answer to NBD_OPT_EXPORT_NAME
    uint64_t size_bytes
    uint16_t flags
    uint8_t zeroes[124]              # left out under NBD_FLAG_NO_ZEROES


cdef packed struct nbd_request_t:
    uint32_t magic
    uint16_t flags
    uint16_t command
    uint64_t cookie
    uint64_t offset
    uint32_t length_bytes            # data of a write follows


cdef packed struct nbd_simple_reply_t:
    uint32_t magic
    uint32_t error
    uint64_t cookie                  # data of a read follows, if error is 0


cdef packed struct nbd_chunk_t:
    uint32_t magic
    uint16_t flags
    uint16_t type
    uint64_t cookie
    uint32_t length_bytes            # of what follows


cdef packed struct nbd_data_chunk_t:
    nbd_chunk_t chunk
    uint64_t offset                  # data of the read follows


cdef packed struct nbd_status_chunk_t:
    nbd_chunk_t chunk
    uint32_t context_id              # extents follow: length and state, 32 bits each


cdef packed struct nbd_error_chunk_t:
    nbd_chunk_t chunk
    uint32_t error
    uint16_t message_bytes           # 0: the number says it all
