"""Building frames; transport cuts and checks what arrives."""
from libc.string cimport memcpy, memset

from repstore._fast.checksum cimport crc32c
from repstore._fast.layout cimport (
    FRAME_HEADER_BYTES, FRAME_MAGIC, WIRE_VERSION,
)


cdef void frame_begin(engine_t* engine, frame_header_t* header, int frame_type, uint32_t volume,
                      uint32_t epoch) noexcept nogil:
    memset(header, 0, sizeof(frame_header_t))
    header.type = <uint8_t>frame_type
    header.volume = volume
    header.epoch = epoch


cdef void frame_send(engine_t* engine, uint32_t link, frame_header_t* header, const void* meta,
                     uint32_t meta_bytes, const void* body, uint32_t body_bytes, uint64_t token) noexcept nogil:
    """Seal a header and send it with its meta; `body` is lent until the token comes back."""
    cdef uint8_t[8256] head                    # FRAME_HEADER_BYTES + FRAME_META_MAX
    cdef frame_header_t* sealed = <frame_header_t*>head
    memcpy(head, header, FRAME_HEADER_BYTES)
    if meta_bytes:
        memcpy(head + FRAME_HEADER_BYTES, meta, meta_bytes)
    sealed.magic = FRAME_MAGIC
    sealed.version = WIRE_VERSION
    sealed.meta_bytes = meta_bytes
    sealed.body_bytes = body_bytes
    sealed.crc = 0
    sealed.crc = crc32c(0, head, FRAME_HEADER_BYTES + meta_bytes)
    if token:
        if engine.links[link].lent == 0:
            engine.links[link].lent_ns = engine.now_ns
        engine.links[link].lent += 1
        engine.lent += 1
    engine.backend.send(engine.backend.context, link, head, FRAME_HEADER_BYTES + meta_bytes, body, body_bytes, token)


cdef void frame_send_node(engine_t* engine, uint32_t node, frame_header_t* header, const void* meta,
                          uint32_t meta_bytes, const void* body, uint32_t body_bytes,
                          uint64_t token) noexcept nogil:
    """To a node, if there is a link to it; what cannot be sent is resent by whoever needs it."""
    if engine.nodes[node].link >= 0:
        frame_send(engine, <uint32_t>engine.nodes[node].link, header, meta, meta_bytes, body, body_bytes, token)
