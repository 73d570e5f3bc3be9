"""One log batch in memory: a header block, then up to 64 payload blocks.

    +--------------------------- header block, 4096 B ---------------------------+
    | batch_header_t 128 | descriptor_t 0, 1, 2 ...  >      <  ... crc 2, 1, 0   |
    +-----------------------------------------------------------------------------+
    | payload block 0 | payload block 1 | ...                                      |

Descriptors grow up, the checksums of the payload blocks grow down: a batch is built in
place and written as it lies. A batch counts as a whole or not at all.
"""
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from repstore._fast.layout cimport (
    BATCH_HEADER_BYTES, BLOCK_SIZE, DESCRIPTOR_BYTES, OP_COPY, OP_MOVE, OP_WRITE,
    batch_header_t, descriptor_t,
)


cdef enum batch_fault_t:
    BATCH_OK = 0
    BATCH_NO_HEADER = 1       # not a batch header, or a torn or rotten one
    BATCH_MISPLACED = 2       # another store, life, segment use or place
    BATCH_BAD_COUNTS = 3      # header checksum right, counts impossible
    BATCH_BAD_PAYLOAD = 4     # header right, a payload block is not what it names


cdef struct batch_info_t:
    uint64_t sequence
    uint64_t flushed_sequence
    uint64_t completed_sequence
    uint32_t crc              # of the header: what the next batch names as previous
    uint32_t previous_crc
    uint32_t segment
    uint32_t offset_blocks    # of the header block in the segment
    uint32_t payload_blocks
    uint32_t fault            # BATCH_OK or BATCH_BAD_PAYLOAD


cdef inline batch_header_t* batch_header(const void* block) noexcept nogil:
    return <batch_header_t*>block


cdef inline descriptor_t* batch_descriptors(const void* block) noexcept nogil:
    return <descriptor_t*>(<uint8_t*>block + BATCH_HEADER_BYTES)


cdef inline uint32_t* batch_crc(const void* block, uint32_t payload_index) noexcept nogil:
    """Where the checksum of a payload block stands: from the end of the header block."""
    return <uint32_t*>(<uint8_t*>block + BLOCK_SIZE) - 1 - payload_index


cdef inline uint32_t payload_of(const descriptor_t* record) noexcept nogil:
    """Payload blocks a record brings along."""
    if record.operation == OP_WRITE or record.operation == OP_MOVE or record.operation == OP_COPY:
        return record.blocks
    return 0


cdef void batch_begin(void* block) noexcept nogil
cdef bint batch_fits(const void* block, uint32_t descriptors, uint32_t payload_blocks) noexcept nogil
cdef descriptor_t* batch_add(void* block) noexcept nogil
cdef uint8_t* batch_next_payload(void* block, uint32_t payload_blocks) noexcept nogil
cdef uint32_t batch_finish(void* block) noexcept nogil
cdef int batch_check(const void* block, uint64_t store_id, uint64_t life_id, uint32_t segment,
                     uint32_t generation, uint32_t offset_blocks) noexcept nogil
cdef int batch_check_payload(const void* block, const uint8_t* payload) noexcept nogil
cdef int64_t batch_scan(const uint8_t* segment_bytes, uint32_t segment_blocks, uint64_t store_id,
                        uint64_t life_id, uint32_t segment, uint32_t generation,
                        batch_info_t* found, uint32_t room) noexcept nogil
