"""Log batches made in plain Python from the dtypes: the second opinion on `_fast.batch`."""
from dataclasses import dataclass, field

import numpy as np
from crc32c import crc32c

from repstore.format import (
    BATCH_AREA_BYTES,
    BATCH_HEADER_BYTES,
    BATCH_MAGIC,
    BATCH_PAYLOAD_BLOCKS,
    BLOCK_SIZE,
    FORMAT_MAJOR,
    OP_COPY,
    OP_MOVE,
    OP_WRITE,
    batch_header_t,
    descriptor_t,
)

CARRY_PAYLOAD = (OP_WRITE, OP_MOVE, OP_COPY)


@dataclass
class Batch:
    """What a test says about a batch; `data` has its bytes once it is built."""

    sequence: int
    previous_crc: int = 0
    flushed: int = 0
    completed: int = 0
    store_id: int = 11
    life_id: int = 22
    segment: int = 0
    generation: int = 1
    offset: int = 0
    records: list[tuple[int, int]] = field(default_factory=list)     # (operation, blocks)
    payload: bytes = b""
    descriptor_count: int | None = None      # say another number than there are
    payload_blocks: int | None = None
    segment_class: int = 0


def build(batch: Batch) -> bytes:
    """Header block and payload of a batch, checksums and all."""
    blocks = [batch.payload[at:at + BLOCK_SIZE] for at in range(0, len(batch.payload), BLOCK_SIZE)]
    header = np.zeros(1, batch_header_t)
    for name, value in (
            ("magic", BATCH_MAGIC), ("version", FORMAT_MAJOR), ("store_id", batch.store_id),
            ("life_id", batch.life_id), ("sequence", batch.sequence),
            ("flushed_sequence", batch.flushed), ("completed_sequence", batch.completed),
            ("previous_crc", batch.previous_crc), ("segment", batch.segment),
            ("generation", batch.generation), ("offset_blocks", batch.offset),
            ("segment_class", batch.segment_class),
            ("descriptor_count", len(batch.records) if batch.descriptor_count is None
             else batch.descriptor_count),
            ("payload_blocks", len(blocks) if batch.payload_blocks is None else batch.payload_blocks)):
        header[name] = value
    records = np.zeros(len(batch.records), descriptor_t)
    records["operation"] = [operation for operation, _ in batch.records]
    records["blocks"] = [count for _, count in batch.records]
    checksums = b"".join(crc32c(block).to_bytes(4, "little") for block in reversed(blocks))
    block = bytearray(BLOCK_SIZE)
    block[:BATCH_HEADER_BYTES] = header.tobytes()
    block[BATCH_HEADER_BYTES:BATCH_HEADER_BYTES + records.nbytes] = records.tobytes()
    block[BLOCK_SIZE - len(checksums):] = checksums
    return seal(block) + batch.payload


def seal(block: bytes | bytearray) -> bytes:
    """The header block with its checksum made right."""
    plain = bytearray(block)
    plain[4:8] = bytes(4)
    plain[4:8] = crc32c(bytes(plain)).to_bytes(4, "little")
    return bytes(plain)


def header_crc(data: bytes) -> int:
    return int.from_bytes(data[4:8], "little")


def scan(segment: bytes, store_id: int, life_id: int, number: int, generation: int) -> list[dict[str, int]]:
    """What `scan_segment` must find, written down once more as plainly as can be."""
    found: list[dict[str, int]] = []
    total = len(segment) // BLOCK_SIZE
    offset = 0
    while offset < total:
        block = segment[offset * BLOCK_SIZE:(offset + 1) * BLOCK_SIZE]
        header = np.frombuffer(block, batch_header_t, 1)[0]
        counts = int(header["payload_blocks"]), int(header["descriptor_count"])
        good = (header["magic"] == BATCH_MAGIC and header["version"] == FORMAT_MAJOR
                and seal(block) == block
                and (header["store_id"], header["life_id"], header["segment"], header["generation"],
                     header["offset_blocks"]) == (store_id, life_id, number, generation, offset)
                and counts[0] <= BATCH_PAYLOAD_BLOCKS
                and counts[1] * descriptor_t.itemsize + 4 * counts[0] <= BATCH_AREA_BYTES)
        if good:
            records = np.frombuffer(block, descriptor_t, counts[1], BATCH_HEADER_BYTES)
            carried = [int(record["blocks"]) for record in records if record["operation"] in CARRY_PAYLOAD]
            good = sum(carried) == counts[0] and offset + 1 + counts[0] <= total
        if not good:
            offset += 1
            continue
        payload = [segment[at * BLOCK_SIZE:(at + 1) * BLOCK_SIZE]
                   for at in range(offset + 1, offset + 1 + counts[0])]
        stored = [int.from_bytes(block[BLOCK_SIZE - 4 * (i + 1):BLOCK_SIZE - 4 * i], "little")
                  for i in range(counts[0])]
        whole = [crc32c(data) for data in payload] == stored
        found.append({name: int(header[name]) for name in (
            "sequence", "flushed_sequence", "completed_sequence", "crc", "previous_crc", "segment",
            "offset_blocks", "payload_blocks")} | {"whole": int(whole)})
        offset += 1 + (counts[0] if whole else 0)
    return found
