"""Exports: a volume as the frontends of this engine see it, wherever its primary is.

Every request has a number in its export's session and stays in the export's list, with its
payload, until it is answered. When the primary changes, all of them are sent again in order;
the new primary knows by the numbers which ones its log already holds.

Rules
  X1 a request is answered exactly once; a lost primary is a pause, not an error
  X2 what is sent again keeps its number and its order
  X3 a session that another attach has replaced is refused, never continued. An export's id is of one session: a volume
     that is attached here again has another one. A client that slept meanwhile, with old data in its caches and
     writes that come of them, names the id of before and is refused for good
  X4 a request of another node that finds no room here is sent back, and waits in its export; those behind it
     do not overtake it. A copy remembers SESSION_WINDOW numbers: of a write that more had overtaken it
     would say that it is logged (S4)
  X5 what other nodes were asked for at once has less payload than a link may queue, for a link that
     has more is cut: an export takes of that no more than it leaves, but may always ask for one thing
  X6 a name that no volume can have is refused here, as it came: cut or decoded it might be another volume's
  X7 when all places are taken, that of an export which is over, whose last session nobody has open and that holds no
     request goes to the next volume. Its ids of before, which calls and connections may still name, are refused
  X8 a volume is taken from its client elsewhere only for a connection that still waits for it: the control side may have
     stood still, and whoever asked have gone elsewhere meanwhile. It asks between reading where the volume is and its swap
"""
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t

from repstore._fast.frontend cimport rs_engine_api
from repstore._fast.layout cimport frame_header_t
from repstore._fast.state cimport EXPORTS_MAX, engine_t, export_t, request_t


cdef inline uint32_t export_id_of(const engine_t* engine, const export_t* export) noexcept nogil:
    return export.generation * EXPORTS_MAX + <uint32_t>(export - engine.exports)


cdef inline export_t* export_by_id(engine_t* engine, uint32_t export_id) noexcept nogil:
    """NULL: there is none, or none any more (X3, X7)."""
    cdef export_t* export = &engine.exports[export_id % EXPORTS_MAX]
    return export if export.used and export.generation == export_id // EXPORTS_MAX else NULL


cdef export_t* export_find(engine_t* engine, uint32_t index) noexcept nogil
cdef int64_t export_install(engine_t* engine, uint32_t index, const char* name, uint64_t size_bytes,
                            uint32_t session) noexcept nogil
cdef bint export_awaited(const engine_t* engine, const char* name) noexcept nogil
cdef void export_refuse(engine_t* engine, const char* name, int32_t error) noexcept nogil
cdef void export_describe(engine_t* engine, const char* name, uint64_t size_bytes, int32_t error) noexcept nogil
cdef void export_set_primary(engine_t* engine, uint32_t index, int32_t node, uint32_t epoch) noexcept nogil
cdef void export_revoke(engine_t* engine, uint32_t index, int32_t error) noexcept nogil
cdef void export_submit(engine_t* engine, request_t* request) noexcept nogil
cdef void exports_link_down(engine_t* engine, uint32_t node) noexcept nogil
cdef void exports_deadline(engine_t* engine) noexcept nogil
cdef bint exports_retry(engine_t* engine) noexcept nogil
cdef bint exports_feed(engine_t* engine) noexcept nogil
cdef void exports_reply(engine_t* engine, const frame_header_t* header, const uint8_t* meta,
                        const uint8_t* body) noexcept nogil
cdef void foreign_request(engine_t* engine, uint32_t link, const frame_header_t* header,
                          const uint8_t* meta, const uint8_t* body) noexcept nogil
cdef const rs_engine_api* engine_api() noexcept nogil
