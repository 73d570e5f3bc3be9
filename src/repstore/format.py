"""The byte format told once, as Python sees it: constants and dtypes of `_fast.layout`.

A store is one file or block device of 4 KiB blocks:

    superblock 0 | root A | root B | page slots | superblock 1 | segments, first half
    | superblock 2 | segments, second half | (unused) | superblock 3

Validity, rule by rule (`repstore.store` and `_fast.batch` enforce them):
  F1 integers are little-endian; a block is 4096 bytes; a location counts blocks from 0
  F2 a superblock counts if its checksum (field taken as zero), magic and copy number are
     right; the state of the store is what two copies of four agree on with the highest sequence
  F3 a greater major version, or an unknown incompatible feature, is refused, never guessed
  F4 the root counts if magic, length and the checksum in the superblock fit, and each count
     in it fits its length; every segment of the plan stands in it once
  F5 a batch counts if its header checksum, store, life, segment, generation and offset are
     right, the counts fit, and every payload block has the checksum the header names
  F6 the log is the chain of batches after the root's `batch_sequence`: each names the header
     checksum of the one before it
  F7 reserved fields are written as zero and not looked at
"""
from repstore._fast.layout import (
    BATCH_AREA_BYTES,
    BATCH_BLOCKS,
    BATCH_HEADER_BYTES,
    BATCH_MAGIC,
    BATCH_PAYLOAD_BLOCKS,
    BLOCK_SHIFT,
    BLOCK_SIZE,
    CLASS_CLEANER,
    CLASS_USER,
    DESCRIPTOR_BYTES,
    DIRECTORY_ENTRIES,
    FORMAT_MAJOR,
    FORMAT_MINOR,
    GENERATIONS_MAX,
    LINEAGE_ENTRIES,
    LOCATION_BAD,
    LOCATION_HOLE,
    LOCATION_LOST,
    LOCATION_ZERO,
    MEMBERS_MAX,
    OP_COMMIT,
    OP_COPY,
    OP_COPY_BAD,
    OP_COPY_HOLE,
    OP_COPY_ZERO,
    OP_EPOCH,
    OP_JOINED,
    OP_LEARN,
    OP_MOVE,
    OP_SEAL,
    OP_TRIM,
    OP_TRUNCATE,
    OP_WRITE,
    OP_ZERO,
    PAGE_BITS,
    PAGE_ENTRIES,
    ROOT_MAGIC,
    SEGMENT_CLASSES,
    SEGMENT_EMPTY,
    SEGMENT_FREE,
    SEGMENT_OPEN,
    SEGMENT_SEALED,
    SESSION_WINDOW_WORDS,
    SUPERBLOCK_COPIES,
    SUPERBLOCK_MAGIC,
    SUPERBLOCK_READ_QUORUM,
    SUPERBLOCK_WRITE_QUORUM,
    VOLUME_LEARNING,
    VOLUME_NAME_BYTES,
    batch_header_t,
    descriptor_t,
    extent_t,
    lineage_t,
    page_reference_t,
    pending_t,
    root_header_t,
    segment_entry_t,
    superblock_t,
    tree_entry_t,
    volume_entry_t,
)

ROOT_VERSION = 1

# Feature bits this code knows. An unknown incompatible bit refuses the store, an unknown
# read-only-compatible one refuses to write it; the others may be ignored.
FEATURES_INCOMPAT = 0
FEATURES_RO_COMPAT = 0

__all__ = [
    "BATCH_AREA_BYTES", "BATCH_BLOCKS", "BATCH_HEADER_BYTES", "BATCH_MAGIC", "BATCH_PAYLOAD_BLOCKS",
    "BLOCK_SHIFT", "BLOCK_SIZE", "CLASS_CLEANER", "CLASS_USER", "DESCRIPTOR_BYTES",
    "DIRECTORY_ENTRIES", "FEATURES_INCOMPAT", "FEATURES_RO_COMPAT", "FORMAT_MAJOR", "FORMAT_MINOR",
    "GENERATIONS_MAX", "LINEAGE_ENTRIES", "LOCATION_BAD", "LOCATION_HOLE", "LOCATION_LOST",
    "LOCATION_ZERO", "MEMBERS_MAX", "OP_COMMIT", "OP_COPY", "OP_COPY_BAD", "OP_COPY_HOLE",
    "OP_COPY_ZERO", "OP_EPOCH", "OP_JOINED", "OP_LEARN", "OP_MOVE", "OP_SEAL", "OP_TRIM",
    "OP_TRUNCATE", "OP_WRITE", "OP_ZERO", "PAGE_BITS", "PAGE_ENTRIES", "ROOT_MAGIC",
    "ROOT_VERSION", "SEGMENT_CLASSES", "SEGMENT_EMPTY", "SEGMENT_FREE", "SEGMENT_OPEN",
    "SEGMENT_SEALED", "SESSION_WINDOW_WORDS", "SUPERBLOCK_COPIES",
    "SUPERBLOCK_MAGIC", "SUPERBLOCK_READ_QUORUM", "SUPERBLOCK_WRITE_QUORUM", "VOLUME_LEARNING",
    "VOLUME_NAME_BYTES", "batch_header_t", "descriptor_t", "extent_t", "lineage_t",
    "page_reference_t", "pending_t", "root_header_t", "segment_entry_t", "superblock_t",
    "tree_entry_t", "volume_entry_t",
]
