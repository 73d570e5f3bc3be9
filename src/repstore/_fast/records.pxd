"""A volume's next records in the open batch: their room, and the LSNs they take.

Whoever logs for a volume does it through here: the service its clients' requests, the primary the
beginning of an epoch, a member what it was sent (which brings its LSNs).
"""
from libc.stdint cimport uint32_t, uint64_t

from repstore._fast.layout cimport descriptor_t
from repstore._fast.state cimport engine_t, log_batch_t, volume_t


cdef log_batch_t* reserve_record(engine_t* engine, volume_t* volume, uint32_t records, uint32_t payload_blocks,
                                 bint control) noexcept nogil
cdef descriptor_t* add_record(volume_t* volume, log_batch_t* batch, int operation, uint64_t lba,
                              uint32_t blocks) noexcept nogil
