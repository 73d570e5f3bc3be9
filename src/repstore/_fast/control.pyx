"""What control code may ask of an engine: quick, thread-safe calls; answers come as events.

Every call takes the engine's lock without the GIL, touches native state, and lets the loop
know. What waits is a `waiting.Call`. Errors are built-in exceptions; the rooms above
translate them.
"""
import os
from collections import namedtuple

from repstore._fast.events import decode_event

from cpython.pycapsule cimport PyCapsule_GetPointer
from libc.errno cimport EIO, ENOSPC
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset, strncpy

from repstore._fast.backend cimport backend_t
from repstore._fast.calls cimport call_begin
from repstore._fast.checkpoint cimport checkpoint_order_superblocks
from repstore._fast.checks cimport first_broken
from repstore._fast.engine cimport (
    engine_begin, engine_disk_done, engine_frame, engine_free, engine_link_down, engine_link_up, engine_new,
    engine_sent, engine_stream, engine_turn,
)
from repstore._fast.exports cimport (
    export_awaited, export_describe, export_install, export_refuse, export_revoke, export_set_primary,
)
from repstore._fast.frontend cimport rs_frontend
from repstore._fast.layout cimport (
    BATCH_PAYLOAD_BLOCKS, BLOCK_SHIFT, DIRECTORY_ENTRIES, PAGE_BITS, PAGE_ENTRIES, pending_t,
)
from repstore._fast.loading cimport (
    LOAD_BAD_BATCH, LOAD_BAD_DIRECTORY, LOAD_BAD_GEOMETRY, LOAD_BAD_PAGE, LOAD_BAD_ROOT, LOAD_NO_MEMORY, LOAD_UNREAD,
    LOAD_OK, store_begin_life, store_load, store_replay,
)
from repstore._fast.loop cimport (
    engine_vtable_t, loop_attach, loop_backend, loop_lock, loop_unlock, loop_wake,
)
from repstore._fast.page_tree cimport tree_retire
from repstore._fast.pages cimport retries_forget
from repstore._fast.patience cimport READ_PATIENCE_NS
from repstore._fast.primary cimport (
    primary_add_member, primary_join, primary_lead, primary_learner, primary_resume,
    primary_session, primary_set_members, primary_stop,
)
from repstore._fast.replica cimport replica_follow, replica_pull, replica_seal
from repstore._fast.frames cimport frame_begin, frame_send_node
from repstore._fast.layout cimport FRAME_SEAL, LOCATION_HOLE, frame_header_t
from repstore._fast.segments cimport segments_free
from repstore._fast.state cimport (
    CHANGES_KEPT, CHECKPOINT_DRAIN, CHECKPOINT_IDLE, CLIENT_NODE, EVENTS_MAX, NODES_MAX, REQUESTS_MAX, REQUEST_FREE,
    ROLE_PRIMARY, VOLUMES_MAX, VOLUME_INDEX_MAX, event_ring_t, event_t,
)
from repstore._fast.transfer cimport transfers_forget
from repstore._fast.volume cimport (
    LOOKUP_OK, is_incomplete, volume_attach, volume_detach, volume_free, volume_incomplete, volume_new,
    volume_root_bytes, volume_set_range,
    volume_truncate,
)
from repstore._fast.waiting cimport Call, call_new


VolumeState = namedtuple("VolumeState", (
    "index", "name", "uuid", "size_blocks", "role", "epoch", "sealed_epoch", "incarnation", "last_lsn",
    "commit_lsn", "durable_lsn", "chain", "learning", "learn_base", "last_grant_s", "in_sync",
    "learners", "attaching", "resync_done_blocks", "resync_total_blocks", "pending", "lineage", "session"))

ROLES = ("none", "primary", "replica", "learner")

FAULTS = {
    LOAD_NO_MEMORY: "memory is short",
    LOAD_BAD_GEOMETRY: "the superblock's geometry is impossible",
    LOAD_BAD_ROOT: "the checkpoint root contradicts itself",
    LOAD_BAD_DIRECTORY: "a map directory cannot be read or its checksum is wrong",
    LOAD_BAD_BATCH: "a log batch is not what recovery found",
    LOAD_BAD_PAGE: "a map page cannot be read or its checksum is wrong",
}

cdef engine_vtable_t VTABLE
VTABLE.begin = engine_begin
VTABLE.disk_done = engine_disk_done
VTABLE.sent = engine_sent
VTABLE.link_up = engine_link_up
VTABLE.link_down = engine_link_down
VTABLE.frame = engine_frame
VTABLE.stream = engine_stream
VTABLE.turn = engine_turn


cdef class Engine:
    """One engine: a node with a store, or a client without one. Thread-safe."""

    def __cinit__(self, int node_id, bytes boot_id not None):
        if not 0 <= node_id < NODES_MAX and node_id != CLIENT_NODE:
            raise ValueError(f"node {node_id}: must be 0 to {NODES_MAX - 1}, or {CLIENT_NODE} for a client")
        if len(boot_id) != 16:
            raise ValueError(f"boot id of {len(boot_id)} bytes: must be 16")
        self.event_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.engine = engine_new(node_id)
        self.calls = set()
        if self.engine == NULL:
            raise MemoryError("an engine could not be allocated")
        memcpy(self.engine.boot_id, <const char*>boot_id, 16)
        self.engine.events.descriptor = self.event_fd

    def __dealloc__(self):
        if self.engine != NULL:
            engine_free(self.engine)
            os.close(self.event_fd)

    cdef void lock(self) noexcept:
        if self.lock_owner != NULL:
            with nogil:
                loop_lock(self.lock_owner)

    cdef void unlock(self, bint wake) noexcept:
        if self.lock_owner != NULL:
            if wake:
                loop_wake(self.lock_owner)
            loop_unlock(self.lock_owner)
        else:
            self.woken |= wake

    cdef volume_t* volume(self, index) except NULL:
        cdef uint64_t number = index
        if number >= VOLUME_INDEX_MAX or self.engine.by_index[number] == NULL:
            raise LookupError(f"no copy of volume {index} here")
        return self.engine.by_index[number]

    # ------------------------------------------------------------------ store, loop, frontend

    def load(self, const unsigned char[::1] superblock not None, const unsigned char[::1] root not None,
             batches not None, int descriptor=-1, unsigned char[::1] memory=None, lagging=(),
             unsigned long long patience_ns=<uint64_t>READ_PATIENCE_NS):
        """Take over a store: its checkpoint, then the log batches (segment, offset) in order.

        `lagging` are the superblock copies that do not have this state. Reads come from `descriptor`, or from `memory`. Blocks,
        without the GIL; call it before the loop runs. What cannot be read is tried again for `patience_ns`.
        Raises ValueError naming what is wrong with the store, OSError when nothing of it can be read: try again later.
        """
        cdef int fault
        cdef uint32_t segment, offset
        cdef const uint8_t* superblock_bytes
        cdef const uint8_t* root_bytes
        cdef uint64_t root_room = root.shape[0]
        if superblock.shape[0] != 4096:
            raise ValueError(f"superblock of {superblock.shape[0]} bytes: must be 4096")
        superblock_bytes = &superblock[0]
        root_bytes = &root[0]
        self.engine.store.descriptor = descriptor
        self.engine.store.patience_ns = patience_ns
        if memory is not None:
            self.memory = memory
            self.engine.store.memory = &memory[0]
        with nogil:
            fault = store_load(self.engine, superblock_bytes, root_bytes, root_room)
        if fault != LOAD_OK:
            raise _refusal(self.engine, fault, "store cannot be loaded")
        checkpoint_order_superblocks(self.engine, sum([1 << copy for copy in lagging]))
        for segment, offset in batches:
            with nogil:
                fault = store_replay(self.engine, segment, offset)
            if fault != LOAD_OK:
                raise _refusal(self.engine, fault, f"batch in segment {segment} at block {offset} cannot be replayed")

    def mark_incomplete(self):
        """Recovery had to cut durable writes off: no copy here may lead or count before it has
        learned from the others what came after its last committed LSN."""
        cdef uint32_t i
        for i in range(self.engine.volume_count):
            volume_incomplete(self.engine, self.engine.volumes[i])

    def begin_life(self, unsigned long long life_id):
        """Recovery is over: the loop's first turn puts the new life on disk."""
        store_begin_life(self.engine, life_id)

    def attach_loop(self, Loop loop not None):
        """Bind to the loop that will drive this engine; once, before it runs."""
        self.loop = loop
        self.lock_owner = loop.loop
        self.engine.backend = loop_backend(loop)
        loop_attach(loop, self.engine, &VTABLE)

    cdef void attach_backend(self, object owner, backend_t* backend) noexcept:
        """Bind to a backend without a loop, whose owner turns the engine: one thread, no lock."""
        self.backend_owner = owner
        self.engine.backend = backend

    def use_frontend(self, capsule not None):
        """Serve stream connections with this frontend (a capsule named "repstore.frontend")."""
        self.engine.frontend = <rs_frontend*>PyCapsule_GetPointer(capsule, "repstore.frontend")
        self.frontend_capsule = capsule

    def connect_peer(self, int node_id, int socket_fd):
        """Take over a connected socket to another node; `link_up` follows when it said hello."""
        try:
            self.loop.add_socket(socket_fd, 3)
        finally:
            os.close(socket_fd)                # the loop has its own descriptor

    def linked(self, uint32_t node_id):
        """Is there a link to this node that said hello?"""
        return node_id < NODES_MAX and self.engine.nodes[node_id].link >= 0

    def events(self):
        """All waiting events, oldest first, as tuples whose first item is the kind."""
        cdef event_t event
        cdef event_ring_t* ring = &self.engine.events
        try:
            os.eventfd_read(self.event_fd)
        except BlockingIOError:
            pass
        self.lock()
        raw = []
        while ring.count:
            event = ring.items[ring.head]
            raw.append((event.kind, event.volume, event.node, event.epoch, event.a, event.b, event.c, event.d,
                        event.text[:64]))
            ring.head = (ring.head + 1) % EVENTS_MAX
            ring.count -= 1
        self.unlock(False)
        return [decode_event(*item) for item in raw]

    # --------------------------------------------------------------------------------- calls

    def start(self, unsigned char[::1] ios not None, unsigned char[::1] buffer, unsigned int depth):
        """Begin the operations of an IO_FIELDS array, `depth` of them at a time, over `buffer`.

        Raises ValueError, before anything begins, if one reaches outside the buffer.
        """
        cdef Call call = call_new(self, self.calls, self.engine, self.lock_owner, ios, buffer, depth)
        self.lock()
        call_begin(self.engine, &call.call)
        self.unlock(True)
        return call

    # -------------------------------------------------------------------------- local copies

    def volume_indexes(self):
        """Cluster-wide numbers of the copies here."""
        self.lock()
        found = sorted(self.engine.volumes[i].index for i in range(self.engine.volume_count))
        self.unlock(False)
        return found

    def volume_state(self, index):
        """What this copy is and how far it has come."""
        cdef volume_t* volume = self.volume(index)
        self.lock()
        members = [volume.members[i] for i in range(volume.member_count)]
        # those that are being copied to; with none, what was copied to those that joined
        copying = [m for m in members if m["state"] != 1] or members
        state = VolumeState(
            volume.index, volume.name.decode(), bytes(volume.uuid[:16]).hex(), volume.size_blocks, ROLES[volume.role],
            volume.epoch, volume.sealed_epoch, volume.incarnation, volume.local_lsn, volume.commit_lsn,
            volume.durable_lsn, volume.chain_local, bool(is_incomplete(volume)), volume.learn_base,
            volume.last_grant_ns / 1e9,
            tuple(sorted(m["node"] for m in members if m["state"] == 1)),
            tuple(sorted(m["node"] for m in members if m["state"] != 1)),
            tuple(sorted(m["node"] for m in members if m["attaching"])),
            sum(m["copied_blocks"] for m in copying),
            sum(m["copy_total"] for m in copying),
            volume.pending_count,
            tuple((volume.lineage[i].epoch, volume.lineage[i].first_lsn) for i in range(volume.lineage_count)),
            volume.session)
        self.unlock(False)
        return state

    def volume_create(self, index, uuid, name, size_blocks):
        """Add an empty copy. Not durable before the next `checkpoint` is.

        Raises ValueError for a size or number out of range, OSError(ENOSPC) when the store's
        metadata has no room for it, BlockingIOError while a checkpoint runs.
        """
        cdef volume_t* volume
        cdef bytes name_bytes = name.encode()
        cdef bytes uuid_bytes = bytes.fromhex(uuid.replace("-", ""))
        cdef uint64_t size = size_blocks
        cdef uint64_t number = index
        if not self.engine.has_store:
            raise ValueError("this engine has no store")
        if not 0 < len(name_bytes) < 64 or len(uuid_bytes) != 16:
            raise ValueError(f"volume name {name!r} or uuid {uuid!r}: 1 to 63 bytes and 16 bytes")
        if number >= VOLUME_INDEX_MAX:
            raise ValueError(f"volume number {number}: must be below {VOLUME_INDEX_MAX}")
        if size == 0 or size > self.engine.store.capacity_blocks:
            raise ValueError(f"volume of {size << BLOCK_SHIFT} bytes: this store can hold "
                             f"{self.engine.store.capacity_blocks << BLOCK_SHIFT}")
        self.lock()
        try:
            if self.engine.store.checkpoint.step != CHECKPOINT_IDLE:
                raise BlockingIOError("a checkpoint is being written")
            if self.engine.volume_count == VOLUMES_MAX or self.engine.by_index[number] != NULL:
                raise ValueError(f"volume {number} exists here, or there are {VOLUMES_MAX} already")
            if not _has_metadata_room(self.engine, size):
                raise OSError(ENOSPC, f"no metadata room for a volume of {size << BLOCK_SHIFT} bytes")
            volume = volume_new(self.engine, number, <const uint8_t*><const char*>uuid_bytes, name_bytes, size)
            if volume == NULL:
                raise MemoryError("a volume could not be allocated")
            volume_attach(self.engine, volume)
        finally:
            self.unlock(False)

    def volume_delete(self, index):
        """Drop a copy that has no role. Not durable before the next `checkpoint` is.

        Raises BlockingIOError while it is in use, its map is being read, or a checkpoint runs.
        """
        cdef volume_t* volume = self.volume(index)
        cdef int state
        cdef uint32_t i
        self.lock()
        try:
            if (self.engine.store.checkpoint.step != CHECKPOINT_IDLE or volume.unapplied_records
                    or self.engine.store.loads_flying or _in_use(self.engine, volume)):
                raise BlockingIOError("the copy is in use, or a checkpoint is being written")
            primary_stop(self.engine, volume, 5)
            # records that nobody commits any more (it was led for a moment, or by too few)
            volume_truncate(self.engine, volume, volume.commit_lsn)
            state = volume_set_range(self.engine, volume, 0, <uint32_t>volume.size_blocks, LOCATION_HOLE, NULL, 0, 0)
            if state != LOOKUP_OK:
                raise BlockingIOError("the copy's map is being read")
            transfers_forget(self.engine, volume)
            retries_forget(self.engine, volume)
            tree_retire(&volume.map, &self.engine.store.slots)
            for i in range(volume.change_count):
                tree_retire(&volume.changes[i], &self.engine.store.slots)
            for i in range(self.engine.export_count):
                if self.engine.exports[i].volume == volume:
                    self.engine.exports[i].volume = NULL
            volume_detach(self.engine, volume)
            volume_free(volume)
        finally:
            self.unlock(True)

    def checkpoint(self, bint clean=False):
        """Ask for a checkpoint; returns the count that `checkpoints` will reach when it is durable."""
        self.lock()
        # one that has taken its snapshot says nothing of what came since: the next one does
        number = self.engine.store.checkpoint.number + 1 + (self.engine.store.checkpoint.step > CHECKPOINT_DRAIN)
        self.engine.store.checkpoint.wanted = 1
        if clean:
            self.engine.closing = True
            self.engine.store.checkpoint.closing = 1
        self.unlock(True)
        return number

    def check_invariants(self):
        """Raise AssertionError naming the first numbered invariant of `state.pxd` that is broken."""
        self.lock()
        broken = first_broken(self.engine)
        self.unlock(False)
        if broken:
            raise AssertionError(f"invariant {(<bytes>broken).decode()}")

    @property
    def checkpoints(self):
        """Checkpoints made durable since the store was opened."""
        self.lock()
        number = self.engine.store.checkpoint.number
        self.unlock(False)
        return number

    @property
    def failed(self):
        """The errno that fenced the store, or 0."""
        self.lock()
        failed = self.engine.store.failed
        self.unlock(False)
        return failed

    def stats(self):
        """Counters and space, as a dict; blocks are 4 KiB."""
        self.lock()
        store = &self.engine.store
        counters = dict(store.counters)
        counters.update(
            segments=store.segment_count, segments_free=segments_free(store), segment_blocks=store.segment_blocks,
            live_blocks=store.live_blocks, capacity_blocks=store.capacity_blocks, requests=self.engine.requests_used,
            completed_sequence=store.log.completed_sequence, flushed_sequence=store.log.flushed_sequence,
            cleaned_segments=store.cleaner.cleaned_segments, events_lost=self.engine.events.lost,
            lost_blocks=self.engine.repairs.lost_count, repairs=self.engine.repairs.count)
        self.unlock(False)
        return counters

    # ---------------------------------------------------------------------------- replication

    def seal(self, index, unsigned int epoch):
        """Refuse lower epochs; `sealed` follows when that is durable."""
        cdef volume_t* volume = self.volume(index)
        self.lock()
        replica_seal(self.engine, volume, epoch, self.engine.node)
        self.unlock(True)

    def seal_peer(self, index, unsigned int epoch, unsigned int node_id):
        """Ask another copy to; `sealed` follows if it hears us."""
        cdef frame_header_t header
        self.lock()
        frame_begin(self.engine, &header, FRAME_SEAL, index, epoch)
        frame_send_node(self.engine, node_id, &header, NULL, 0, NULL, 0, 0)
        self.unlock(True)

    def pull(self, index, unsigned int node_id):
        """Fetch the records that member has beyond ours; `pulled` follows."""
        cdef volume_t* volume = self.volume(index)
        self.lock()
        replica_pull(self.engine, volume, node_id)
        self.unlock(True)

    def lead(self, index, unsigned int epoch, unsigned int incarnation, members, unsigned int copies,
             unsigned int min_copies, bint durable, unsigned int session):
        """Be primary with these (node, last LSN); they get the tail they lack, then we serve."""
        cdef volume_t* volume = self.volume(index)
        members = [(int(node), int(last)) for node, last in members]
        self.lock()
        primary_lead(self.engine, volume, epoch, incarnation, copies, min_copies, durable, session)
        for node, last in members:
            primary_add_member(self.engine, volume, node, last)
        self.unlock(True)

    def follow(self, index, unsigned int epoch, unsigned int primary_node_id, bint member):
        """Follow that primary, as in-sync member or as one that wants to be."""
        cdef volume_t* volume = self.volume(index)
        self.lock()
        replica_follow(self.engine, volume, epoch, primary_node_id, member)
        self.unlock(True)

    def step_down(self, index):
        """Lead no more; requests wait for the next primary."""
        cdef volume_t* volume = self.volume(index)
        self.lock()
        primary_stop(self.engine, volume, 11)
        self.unlock(True)

    def set_members(self, index, members):
        """The in-sync set besides us, as the config has it now."""
        cdef volume_t* volume = self.volume(index)
        cdef uint32_t[8] nodes
        cdef uint32_t count = 0
        for node in members:
            nodes[count] = node
            count += 1
        self.lock()
        if volume.role == ROLE_PRIMARY:
            primary_set_members(self.engine, volume, nodes, count)
        self.unlock(True)

    def resume_member(self, index, unsigned int node_id, unsigned long long last_lsn):
        """Serve a member again whose session was lost; its log ends at last_lsn."""
        cdef volume_t* volume = self.volume(index)
        self.lock()
        primary_resume(self.engine, volume, node_id, last_lsn)
        self.unlock(True)

    def learner_start(self, index, unsigned int node_id, unsigned long long serial, unsigned long long common_lsn,
                      bint full):
        """Bring a copy back that shares our log up to common_lsn. `learner_caught_up` and `join_ready` name
        the serial, which grows."""
        cdef volume_t* volume = self.volume(index)
        self.lock()
        primary_learner(self.engine, volume, node_id, serial, common_lsn, full)
        self.unlock(True)

    def join_begin(self, index, unsigned int node_id):
        """Acknowledgements need this learner too from now on; `join_ready` follows."""
        cdef volume_t* volume = self.volume(index)
        self.lock()
        primary_join(self.engine, volume, node_id, True)
        self.unlock(True)

    def join_abort(self, index, unsigned int node_id):
        """The join was not decided: a learner again."""
        cdef volume_t* volume = self.volume(index)
        self.lock()
        primary_join(self.engine, volume, node_id, False)
        self.unlock(True)

    def set_session(self, index, unsigned int session):
        """Admit requests of this attach and refuse older ones."""
        cdef volume_t* volume = self.volume(index)
        self.lock()
        primary_session(volume, session)
        self.unlock(True)

    # -------------------------------------------------------------------------------- exports

    def export_install(self, index, name, unsigned long long size_bytes, unsigned int session):
        """A volume is attached through this engine under `session`. Returns the export's id."""
        cdef bytes name_bytes = name.encode()
        cdef int64_t export_id
        self.lock()
        export_id = export_install(self.engine, index, name_bytes, size_bytes, session)
        self.unlock(True)
        if export_id < 0:
            raise OSError(ENOSPC, "too many volumes are attached through this engine")
        return export_id

    def export_awaited(self, name):
        """Does anybody wait for this volume still?"""
        cdef bytes name_bytes = name.encode()
        self.lock()
        awaited = export_awaited(self.engine, name_bytes)
        self.unlock(False)
        return bool(awaited)

    def export_refuse(self, name, int errno):
        """Whoever waits for this volume gets an error."""
        cdef bytes name_bytes = name.encode()
        self.lock()
        export_refuse(self.engine, name_bytes, errno)
        self.unlock(True)

    def export_describe(self, name, unsigned long long size_bytes, int errno=0):
        """Whoever only asks what this volume is gets its size, or an error."""
        cdef bytes name_bytes = name.encode()
        self.lock()
        export_describe(self.engine, name_bytes, size_bytes, errno)
        self.unlock(True)

    def export_revoke(self, index, int errno):
        """Another attach took over: requests of the old session end with this errno."""
        self.lock()
        export_revoke(self.engine, index, errno)
        self.unlock(True)

    def set_primary(self, index, int node_id, unsigned int epoch):
        """Where requests of this volume go from here; -1: they wait for a primary."""
        self.lock()
        export_set_primary(self.engine, index, node_id, epoch)
        self.unlock(True)

    def set_export_names(self, names):
        """What frontends list."""
        cdef uint32_t i = 0
        cdef bytes name_bytes
        encoded = [name.encode()[:63] for name in names][:256]
        self.lock()
        for name_bytes in encoded:
            memset(self.engine.names[i], 0, 64)
            strncpy(self.engine.names[i], name_bytes, 63)
            i += 1
        self.engine.name_count = i
        self.unlock(False)


cdef object _refusal(engine_t* engine, int fault, str what):
    """What to raise when a store cannot be loaded."""
    if fault == LOAD_UNREAD:
        return OSError(EIO, f"{what}: block {engine.store.unread_block} cannot be read, and nothing else either")
    return ValueError(f"{what}: {FAULTS[fault]}")


cdef bint _in_use(engine_t* engine, const volume_t* volume):
    """Is a request for this copy under way?"""
    cdef uint32_t i
    for i in range(REQUESTS_MAX):
        if engine.requests[i].state != REQUEST_FREE and engine.requests[i].volume == volume:
            return True
    return False


cdef bint _has_metadata_room(engine_t* engine, uint64_t size_blocks):
    """Could every page of every volume, the new one too, be written anew while its old slot is kept,
    and the root hold them all, and what clients write meanwhile?"""
    cdef int64_t writing_bytes = 16 * sizeof(pending_t) + BATCH_PAYLOAD_BLOCKS * 4
    cdef uint64_t page_count = 0
    cdef uint32_t i
    sizes = [engine.volumes[i].size_blocks for i in range(engine.volume_count)] + [size_blocks]
    for size in sizes:
        for per_page, trees in ((PAGE_ENTRIES, 1), (PAGE_BITS, CHANGES_KEPT)):
            pages = -(-size // per_page)
            directories = -(-pages // DIRECTORY_ENTRIES)
            page_count += trees * (pages + directories)
    return (2 * page_count < engine.store.slots.count
            and engine.store.root_room - volume_root_bytes(size_blocks) >= writing_bytes)
