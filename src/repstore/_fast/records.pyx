"""Records enter the open batch; see records.pxd."""
from libc.stdint cimport uint8_t

from repstore._fast.batch cimport batch_add
from repstore._fast.layout cimport CLASS_USER, OP_COMMIT, OP_WRITE
from repstore._fast.log cimport log_reserve, log_reserve_control
from repstore._fast.root cimport root_has_room
from repstore._fast.state cimport CONTROL_RECORDS, PENDING_CRCS, PENDING_RECORDS


cdef log_batch_t* reserve_record(engine_t* engine, volume_t* volume, uint32_t records, uint32_t payload_blocks,
                                 bint control) noexcept nogil:
    """Room in the open batch for records of a volume, and in what it may hold uncommitted. With
    `control` for one without payload that brings the volume on (L6): the last CONTROL_RECORDS are
    for these, since what is uncommitted when a primary dies is committed behind the next one's.
    The first record of a volume in a batch is preceded by its COMMIT mark, so that replay
    commits as we did (V2)."""
    cdef log_batch_t* batch
    cdef descriptor_t* mark
    cdef uint32_t records_most = PENDING_RECORDS - (0 if control else CONTROL_RECORDS)
    if (volume.pending_count + volume.unapplied_records + records > records_most
            or volume.crc_count + volume.unapplied_blocks + payload_blocks > PENDING_CRCS
            or not (control or root_has_room(engine, volume, records, payload_blocks))):
        return NULL
    if control:
        batch = log_reserve_control(engine, records + 1)
    else:
        batch = log_reserve(engine, CLASS_USER, records + 1, payload_blocks)
    if batch == NULL:
        return NULL
    if volume.marked_batch != batch.number:
        volume.marked_batch = batch.number
        mark = batch_add(batch.buffer)
        mark.volume = volume.index
        mark.operation = OP_COMMIT
        mark.lsn = volume.commit_lsn
        mark.epoch = volume.epoch
    return batch


cdef descriptor_t* add_record(volume_t* volume, log_batch_t* batch, int operation, uint64_t lba,
                              uint32_t blocks) noexcept nogil:
    """The volume's next record: takes its LSNs now. The caller has reserved the room."""
    cdef descriptor_t* record = batch_add(batch.buffer)
    record.volume = volume.index
    record.epoch = volume.epoch
    record.lsn = volume.last_lsn + 1
    record.lba = lba
    record.blocks = blocks
    record.operation = <uint8_t>operation
    volume.last_lsn += blocks
    volume.unapplied_records += 1
    volume.engine.store.coming_records += 1
    if operation == OP_WRITE:
        volume.unapplied_blocks += blocks
        volume.engine.store.coming_blocks += blocks
    return record
