"""Encode, check and scan log batches; the only code that knows how a batch lies in memory."""
from libc.string cimport memset

from repstore._fast.checksum cimport crc32c, crc32c_blocks
from repstore._fast.layout cimport (
    BATCH_AREA_BYTES, BATCH_MAGIC, BATCH_PAYLOAD_BLOCKS, FORMAT_MAJOR,
)

BATCH_INFO_FIELDS = (
    ("sequence", "<u8"), ("flushed_sequence", "<u8"), ("completed_sequence", "<u8"),
    ("crc", "<u4"), ("previous_crc", "<u4"), ("segment", "<u4"), ("offset_blocks", "<u4"),
    ("payload_blocks", "<u4"), ("fault", "<u4"),
)
assert sizeof(batch_info_t) == 48


cdef void batch_begin(void* block) noexcept nogil:
    memset(block, 0, BLOCK_SIZE)


cdef bint batch_fits(const void* block, uint32_t descriptors, uint32_t payload_blocks) noexcept nogil:
    cdef batch_header_t* header = batch_header(block)
    cdef uint32_t payload = header.payload_blocks + payload_blocks
    cdef uint32_t area = (header.descriptor_count + descriptors) * DESCRIPTOR_BYTES + payload * 4
    return area <= BATCH_AREA_BYTES and payload <= BATCH_PAYLOAD_BLOCKS


cdef descriptor_t* batch_add(void* block) noexcept nogil:
    cdef batch_header_t* header = batch_header(block)
    cdef descriptor_t* record = batch_descriptors(block) + header.descriptor_count
    header.descriptor_count += 1
    return record


cdef uint8_t* batch_next_payload(void* block, uint32_t payload_blocks) noexcept nogil:
    """Room for the next payload blocks; the caller fills them and their checksums."""
    cdef batch_header_t* header = batch_header(block)
    cdef uint8_t* place = <uint8_t*>block + (1 + header.payload_blocks) * <size_t>BLOCK_SIZE
    header.payload_blocks += payload_blocks
    return place


cdef uint32_t header_crc(const void* block) noexcept nogil:
    """Checksum of a header block with its own field taken as zero."""
    cdef uint32_t zero = 0
    cdef uint32_t crc = crc32c(0, block, 4)
    crc = crc32c(crc, &zero, 4)
    return crc32c(crc, <const uint8_t*>block + 8, BLOCK_SIZE - 8)


cdef uint32_t batch_finish(void* block) noexcept nogil:
    """Stamp magic, version and checksum on a filled header; returns the header checksum."""
    cdef batch_header_t* header = batch_header(block)
    header.magic = BATCH_MAGIC
    header.version = FORMAT_MAJOR
    header.crc = header_crc(block)
    return header.crc


cdef int batch_check(const void* block, uint64_t store_id, uint64_t life_id, uint32_t segment,
                     uint32_t generation, uint32_t offset_blocks) noexcept nogil:
    """Is this block the header of a batch that belongs exactly here? Bounds are checked first."""
    cdef batch_header_t* header = batch_header(block)
    cdef uint32_t i, payload = 0
    if header.magic != BATCH_MAGIC or header.version != FORMAT_MAJOR:
        return BATCH_NO_HEADER
    if header.crc != header_crc(block):
        return BATCH_NO_HEADER
    if (header.store_id != store_id or header.life_id != life_id or header.segment != segment
            or header.generation != generation or header.offset_blocks != offset_blocks):
        return BATCH_MISPLACED
    if header.payload_blocks > BATCH_PAYLOAD_BLOCKS or (
            header.descriptor_count * DESCRIPTOR_BYTES + header.payload_blocks * 4 > BATCH_AREA_BYTES):
        return BATCH_BAD_COUNTS
    for i in range(header.descriptor_count):
        if payload_of(batch_descriptors(block) + i) > BATCH_PAYLOAD_BLOCKS:
            return BATCH_BAD_COUNTS
        payload += payload_of(batch_descriptors(block) + i)
    return BATCH_OK if payload == header.payload_blocks else BATCH_BAD_COUNTS


cdef int batch_check_payload(const void* block, const uint8_t* payload) noexcept nogil:
    cdef uint32_t count = batch_header(block).payload_blocks
    cdef uint32_t[64] crcs
    cdef uint32_t i
    crc32c_blocks(payload, count, crcs)
    for i in range(count):
        if crcs[i] != batch_crc(block, i)[0]:
            return BATCH_BAD_PAYLOAD
    return BATCH_OK


cdef int64_t batch_scan(const uint8_t* segment_bytes, uint32_t segment_blocks, uint64_t store_id,
                        uint64_t life_id, uint32_t segment, uint32_t generation,
                        batch_info_t* found, uint32_t room) noexcept nogil:
    """List the batches of one segment use. Goes on block by block behind a damaged header, so
    that what was written later can prove whether the damage is a torn tail or corruption."""
    cdef uint32_t offset = 0, count = 0
    cdef const uint8_t* block
    cdef batch_header_t* header
    cdef batch_info_t* info
    while offset < segment_blocks and count < room:
        block = segment_bytes + <size_t>offset * BLOCK_SIZE
        header = batch_header(block)
        if (batch_check(block, store_id, life_id, segment, generation, offset) != BATCH_OK
                or header.payload_blocks >= segment_blocks - offset):
            offset += 1
            continue
        info = found + count
        info.sequence = header.sequence
        info.flushed_sequence = header.flushed_sequence
        info.completed_sequence = header.completed_sequence
        info.crc = header.crc
        info.previous_crc = header.previous_crc
        info.segment = segment
        info.offset_blocks = offset
        info.payload_blocks = header.payload_blocks
        info.fault = batch_check_payload(block, block + BLOCK_SIZE)
        count += 1
        # behind a bad payload the next header may stand anywhere: look at every block
        offset += 1 + (header.payload_blocks if info.fault == BATCH_OK else 0)
    return count


def scan_segment(const unsigned char[::1] segment_bytes not None, unsigned long long store_id,
                 unsigned long long life_id, unsigned int segment, unsigned int generation,
                 unsigned char[::1] out not None):
    """Batches of one segment, in the order they lie.

    `segment_bytes` is the whole segment; `out` receives `BATCH_INFO_FIELDS` records and must
    have room for one per block. Returns how many were found. Releases the GIL.
    """
    if segment_bytes.shape[0] == 0 or segment_bytes.shape[0] % BLOCK_SIZE:
        raise ValueError(f"segment of {segment_bytes.shape[0]} bytes is not a multiple of {BLOCK_SIZE}")
    cdef uint32_t blocks = <uint32_t>(segment_bytes.shape[0] // BLOCK_SIZE)
    if out.shape[0] < blocks * <Py_ssize_t>sizeof(batch_info_t):
        raise ValueError(f"room for {out.shape[0]} bytes, {blocks * sizeof(batch_info_t)} needed")
    cdef int64_t count
    with nogil:
        count = batch_scan(&segment_bytes[0], blocks, store_id, life_id, segment, generation,
                           <batch_info_t*>&out[0], blocks)
    return count
