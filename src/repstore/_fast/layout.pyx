"""The byte format as Python sees it: every constant and struct of `layout.pxd`.

1. Each struct has the size the format says, checked at import: a build that packs
   differently cannot open a store.
2. What must fit a 4 KiB block, or fill one exactly, does.
3. Constants keep their names; a struct becomes the numpy dtype of the same name. Its fields
   are checked against `layout.pxd` by the tests, its size at every import.
"""
import sys

import numpy


globals().update(dict(
    BLOCK_SIZE=BLOCK_SIZE, BLOCK_SHIFT=BLOCK_SHIFT,
    SUPERBLOCK_COPIES=SUPERBLOCK_COPIES, SUPERBLOCK_WRITE_QUORUM=SUPERBLOCK_WRITE_QUORUM,
    SUPERBLOCK_READ_QUORUM=SUPERBLOCK_READ_QUORUM,
    FORMAT_MAJOR=FORMAT_MAJOR, FORMAT_MINOR=FORMAT_MINOR, WIRE_VERSION=WIRE_VERSION,
    SUPERBLOCK_MAGIC=SUPERBLOCK_MAGIC,
    ROOT_MAGIC=ROOT_MAGIC,
    BATCH_MAGIC=BATCH_MAGIC,
    FRAME_MAGIC=FRAME_MAGIC,
    BATCH_HEADER_BYTES=BATCH_HEADER_BYTES,
    DESCRIPTOR_BYTES=DESCRIPTOR_BYTES,
    BATCH_PAYLOAD_BLOCKS=BATCH_PAYLOAD_BLOCKS, BATCH_BLOCKS=BATCH_BLOCKS,
    BATCH_AREA_BYTES=BATCH_AREA_BYTES,
    PAGE_ENTRIES=PAGE_ENTRIES, PAGE_BITS=PAGE_BITS, DIRECTORY_ENTRIES=DIRECTORY_ENTRIES,
    LOCATION_HOLE=LOCATION_HOLE, LOCATION_ZERO=LOCATION_ZERO,
    LOCATION_BAD=LOCATION_BAD, LOCATION_LOST=LOCATION_LOST,
    VOLUME_NAME_BYTES=VOLUME_NAME_BYTES,
    LINEAGE_ENTRIES=LINEAGE_ENTRIES, MEMBERS_MAX=MEMBERS_MAX, GENERATIONS_MAX=GENERATIONS_MAX,
    SESSION_WINDOW=SESSION_WINDOW, SESSION_WINDOW_WORDS=SESSION_WINDOW_WORDS,
    FRAME_HEADER_BYTES=FRAME_HEADER_BYTES, FRAME_META_MAX=FRAME_META_MAX, FRAME_BODY_MAX=FRAME_BODY_MAX,
    OP_NONE=OP_NONE, OP_WRITE=OP_WRITE, OP_ZERO=OP_ZERO, OP_TRIM=OP_TRIM, OP_MOVE=OP_MOVE,
    OP_COPY=OP_COPY, OP_COPY_ZERO=OP_COPY_ZERO, OP_COPY_HOLE=OP_COPY_HOLE, OP_COMMIT=OP_COMMIT,
    OP_SEAL=OP_SEAL, OP_EPOCH=OP_EPOCH, OP_TRUNCATE=OP_TRUNCATE, OP_LEARN=OP_LEARN, OP_JOINED=OP_JOINED,
    OP_COPY_BAD=OP_COPY_BAD, OP_BAD=OP_BAD, OP_SESSION=OP_SESSION,
    SEGMENT_FREE=SEGMENT_FREE, SEGMENT_OPEN=SEGMENT_OPEN, SEGMENT_SEALED=SEGMENT_SEALED,
    SEGMENT_EMPTY=SEGMENT_EMPTY,
    CLASS_USER=CLASS_USER, CLASS_CLEANER=CLASS_CLEANER,
    SEGMENT_CLASSES=SEGMENT_CLASSES,
    FRAME_HELLO=FRAME_HELLO, FRAME_APPEND=FRAME_APPEND, FRAME_ACK=FRAME_ACK, FRAME_COMMIT=FRAME_COMMIT,
    FRAME_FLUSH=FRAME_FLUSH, FRAME_PING=FRAME_PING, FRAME_PONG=FRAME_PONG, FRAME_SEAL=FRAME_SEAL,
    FRAME_SEALED=FRAME_SEALED, FRAME_PULL=FRAME_PULL, FRAME_TAIL=FRAME_TAIL, FRAME_LEARN=FRAME_LEARN,
    FRAME_COPY=FRAME_COPY, FRAME_COPIED=FRAME_COPIED, FRAME_REQUEST=FRAME_REQUEST,
    FRAME_REPLY=FRAME_REPLY, FRAME_WANT=FRAME_WANT, FRAME_REJECT=FRAME_REJECT,
    FRAME_FETCH=FRAME_FETCH, FRAME_FETCHED=FRAME_FETCHED, FRAME_VERIFY=FRAME_VERIFY,
    VOLUME_LEARNING=VOLUME_LEARNING,
    DURABLE_FLAG=DURABLE_FLAG, JOIN_FLAG=JOIN_FLAG, DIVERGED_FLAG=DIVERGED_FLAG,
    LEARNING_FLAG=LEARNING_FLAG, GRANT_FLAG=GRANT_FLAG, LAST_FLAG=LAST_FLAG, ANY_FLAG=ANY_FLAG,
    FETCH_DATA=FETCH_DATA, FETCH_ZEROS=FETCH_ZEROS, FETCH_LATER=FETCH_LATER, FETCH_NONE=FETCH_NONE,
))


def _check(bint holds, str otherwise):
    # not an assert: python -O must not skip it
    if not holds:
        raise ImportError(f"repstore was built with another byte format: {otherwise}")


_superblock_t = numpy.dtype([
    ("magic", "<u4"), ("crc", "<u4"), ("format_major", "<u2"), ("format_minor", "<u2"),
    ("copy_number", "<u4"), ("feature_compat", "<u8"), ("feature_ro_compat", "<u8"),
    ("feature_incompat", "<u8"), ("store_uuid", "u1", 16), ("sequence", "<u8"), ("parent_crc", "<u4"),
    ("clean", "<u4"), ("life_id", "<u8"), ("boot_id", "u1", 16), ("total_blocks", "<u8"),
    ("segment_blocks", "<u4"), ("segment_count", "<u4"), ("root_blocks", "<u4"), ("page_slots", "<u4"),
    ("root_area", "<u4"), ("root_bytes", "<u4"), ("root_crc", "<u4"), ("reserved", "<u4"),
])
_root_header_t = numpy.dtype([
    ("magic", "<u4"), ("version", "<u4"), ("batch_sequence", "<u8"), ("batch_crc", "<u4"),
    ("segment_count", "<u4"), ("plan_count", "<u4"), ("volume_count", "<u4"), ("root_bytes", "<u4"),
    ("reserved0", "<u4"), ("reserved1", "<u8", 3),
])
_segment_entry_t = numpy.dtype([
    ("generation", "<u4"), ("live", "<u4"), ("state", "u1"), ("segment_class", "u1"),
    ("written_blocks", "<u2"), ("age", "<u4"),
])
_page_reference_t = numpy.dtype([
    ("slot", "<u4"), ("crc", "<u4"), ("max_lsn", "<u8"),
])
_tree_entry_t = numpy.dtype([
    ("base_lsn", "<u8"), ("directory_count", "<u4"), ("reserved", "<u4"),
])
_lineage_t = numpy.dtype([
    ("epoch", "<u4"), ("reserved", "<u4"), ("first_lsn", "<u8"),
])
_pending_t = numpy.dtype([
    ("lsn", "<u8"), ("lba", "<u8"), ("blocks", "<u4"), ("location", "<u4"), ("epoch", "<u4"),
    ("session", "<u4"), ("request", "<u8"), ("chain", "<u8"), ("operation", "u1"), ("flags", "u1"),
    ("reserved0", "<u2"), ("reserved1", "<u4"),
])
_extent_t = numpy.dtype([
    ("location", "<u4"), ("crc", "<u4"),
])
_batch_header_t = numpy.dtype([
    ("magic", "<u4"), ("crc", "<u4"), ("version", "<u2"), ("flags", "<u2"), ("descriptor_count", "<u2"),
    ("payload_blocks", "<u2"), ("store_id", "<u8"), ("life_id", "<u8"), ("sequence", "<u8"),
    ("flushed_sequence", "<u8"), ("completed_sequence", "<u8"), ("previous_crc", "<u4"),
    ("segment", "<u4"), ("generation", "<u4"), ("offset_blocks", "<u4"), ("segment_class", "<u4"),
    ("reserved0", "<u4"), ("reserved1", "<u8", 6),
])
_descriptor_t = numpy.dtype([
    ("volume", "<u4"), ("epoch", "<u4"), ("lsn", "<u8"), ("lba", "<u8"), ("request", "<u8"),
    ("blocks", "<u4"), ("source", "<u4"), ("session", "<u4"), ("operation", "u1"), ("flags", "u1"),
    ("stored", "<u2"),
])
_frame_header_t = numpy.dtype([
    ("magic", "<u4"), ("crc", "<u4"), ("type", "u1"), ("flags", "u1"), ("version", "<u2"),
    ("meta_bytes", "<u4"), ("body_bytes", "<u4"), ("volume", "<u4"), ("epoch", "<u4"),
    ("session", "<u4"), ("lsn", "<u8"), ("commit", "<u8"), ("chain", "<u8"), ("extra", "<u8"),
])
_request_meta_t = numpy.dtype([
    ("kind", "u1"), ("flags", "u1"), ("reserved", "<u2"), ("crc", "<u4"), ("offset", "<u8"),
    ("length", "<u8"),
])
_reply_meta_t = numpy.dtype([
    ("error", "<i4"), ("crc", "<u4"),
])
_hello_meta_t = numpy.dtype([
    ("boot_id", "u1", 16), ("store_uuid", "u1", 16), ("life_id", "<u8"), ("node", "<u4"),
    ("reserved", "<u4"),
])
_volume_entry_t = numpy.dtype([
    ("uuid", "u1", 16), ("name", "S64"), ("size_blocks", "<u8"), ("index", "<u4"), ("epoch", "<u4"),
    ("sealed_epoch", "<u4"), ("flags", "<u4"), ("last_lsn", "<u8"), ("commit_lsn", "<u8"),
    ("durable_lsn", "<u8"), ("chain", "<u8"), ("learn_base", "<u8"), ("session", "<u4"),
    ("lineage_count", "<u4"), ("session_floor", "<u8"), ("session_window", "<u8", 64),
    ("lineage", _lineage_t, 64), ("pending_count", "<u4"), ("pending_crcs", "<u4"),
    ("tree_count", "<u4"), ("reserved", "<u4"),
])

# the plain names are the C structs in this file and the dtypes outside of it
globals().update(dict(
    superblock_t=_superblock_t, root_header_t=_root_header_t, segment_entry_t=_segment_entry_t,
    page_reference_t=_page_reference_t, tree_entry_t=_tree_entry_t, lineage_t=_lineage_t,
    volume_entry_t=_volume_entry_t, pending_t=_pending_t, extent_t=_extent_t,
    batch_header_t=_batch_header_t, descriptor_t=_descriptor_t, frame_header_t=_frame_header_t,
    request_meta_t=_request_meta_t, reply_meta_t=_reply_meta_t, hello_meta_t=_hello_meta_t,
))


def _check_format():
    _check(sys.byteorder == "little", "the format is little-endian and this machine is not")
    for name, found, wanted in (
        ("segment_entry_t", sizeof(segment_entry_t), 16),
        ("page_reference_t", sizeof(page_reference_t), 16),
        ("tree_entry_t", sizeof(tree_entry_t), 16),
        ("lineage_t", sizeof(lineage_t), 16),
        ("pending_t", sizeof(pending_t), 56),
        ("extent_t", sizeof(extent_t), 8),
        ("batch_header_t", sizeof(batch_header_t), BATCH_HEADER_BYTES),
        ("descriptor_t", sizeof(descriptor_t), DESCRIPTOR_BYTES),
        ("frame_header_t", sizeof(frame_header_t), FRAME_HEADER_BYTES),
    ):
        _check(found == wanted, f"{name} has {found} bytes, the format says {wanted}")
    for dtype, found in (
        (_superblock_t, sizeof(superblock_t)),
        (_root_header_t, sizeof(root_header_t)),
        (_segment_entry_t, sizeof(segment_entry_t)),
        (_page_reference_t, sizeof(page_reference_t)),
        (_tree_entry_t, sizeof(tree_entry_t)),
        (_lineage_t, sizeof(lineage_t)),
        (_volume_entry_t, sizeof(volume_entry_t)),
        (_pending_t, sizeof(pending_t)),
        (_extent_t, sizeof(extent_t)),
        (_batch_header_t, sizeof(batch_header_t)),
        (_descriptor_t, sizeof(descriptor_t)),
        (_frame_header_t, sizeof(frame_header_t)),
        (_request_meta_t, sizeof(request_meta_t)),
        (_reply_meta_t, sizeof(reply_meta_t)),
        (_hello_meta_t, sizeof(hello_meta_t)),
    ):
        _check(dtype.itemsize == found, f"{dtype} is not the struct of {found} bytes")
    _check(sizeof(superblock_t) <= BLOCK_SIZE, f"superblock_t has {sizeof(superblock_t)} bytes")
    _check(BLOCK_SIZE == 1 << BLOCK_SHIFT, "BLOCK_SHIFT does not give BLOCK_SIZE")
    _check(BATCH_BLOCKS == BATCH_PAYLOAD_BLOCKS + 1, "a batch is its header block and its payload")
    _check(BATCH_HEADER_BYTES + BATCH_AREA_BYTES == BLOCK_SIZE, "a batch header fills one block")
    _check(PAGE_ENTRIES * sizeof(extent_t) == BLOCK_SIZE, "a map leaf fills one block")
    _check(PAGE_BITS == 8 * BLOCK_SIZE, "a bitmap page fills one block")
    _check(DIRECTORY_ENTRIES * sizeof(page_reference_t) == BLOCK_SIZE, "a directory fills one block")
    _check(SESSION_WINDOW == 64 * SESSION_WINDOW_WORDS, "the session window is a bit a request")
    _check(SUPERBLOCK_READ_QUORUM + SUPERBLOCK_WRITE_QUORUM > SUPERBLOCK_COPIES, "quorums do not meet")


_check_format()
