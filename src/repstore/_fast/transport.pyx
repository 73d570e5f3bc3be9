"""Links over sockets, sans the kernel: see transport.pxd for the rules."""
from libc.errno cimport EMFILE, ENOMEM
from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcpy, memmove, memset
from posix.fcntl cimport F_GETFL, F_SETFL, O_NONBLOCK, fcntl

from repstore._fast.aio cimport aio_t, iovec
from repstore._fast.checksum cimport crc32c
from repstore._fast.layout cimport (
    FRAME_BODY_MAX, FRAME_HEADER_BYTES, FRAME_MAGIC, FRAME_META_MAX, WIRE_VERSION, frame_header_t,
)


cdef extern from "<sys/socket.h>" nogil:
    int SHUT_RDWR
    int SOL_SOCKET
    int SO_SNDBUF
    int SO_SNDBUFFORCE
    int shutdown(int fd, int how)
    int setsockopt(int fd, int level, int name, const void* value, unsigned int length)


cdef extern from "<netinet/in.h>" nogil:
    int IPPROTO_TCP


cdef extern from "<netinet/tcp.h>" nogil:
    int TCP_NODELAY


cdef enum:
    SOCKET_BUFFER_BYTES = 1048576


# ---- the table -------------------------------------------------------------------------


cdef transport_t* transport_new(aio_t* aio, uint64_t receive_tag, uint64_t send_tag) noexcept nogil:
    cdef transport_t* self = <transport_t*>calloc(1, sizeof(transport_t))
    cdef uint32_t i
    if self == NULL:
        return NULL
    self.aio = aio
    self.receive_tag = receive_tag
    self.send_tag = send_tag
    for i in range(LINKS_MAX):
        clear(&self.links[i])
        # the highest first: the list is taken from its end
        self.free.links[i] = LINKS_MAX - 1 - i
    self.free.count = LINKS_MAX
    return self


cdef void transport_destroy(transport_t* self) noexcept nogil:
    """Only with nothing under way in the kernel."""
    cdef uint32_t i
    for i in range(LINKS_MAX):
        if self.links[i].state != STATE_FREE:
            discard_queue(&self.links[i])
            release(self, i)
    free(self.lost)
    free(self)


cdef void enlist(link_list_t* links, uint32_t link) noexcept nogil:
    links.links[links.count] = link
    links.count += 1


cdef void want_attention(transport_t* self, uint32_t number) noexcept nogil:
    if not self.links[number].in_attention:
        self.links[number].in_attention = True
        enlist(&self.attention, number)


cdef void want_send(transport_t* self, uint32_t number) noexcept nogil:
    if not self.links[number].in_dirty:
        self.links[number].in_dirty = True
        enlist(&self.dirty, number)


cdef void tune(int fd) noexcept nogil:
    """Best effort: a socket that refuses an option works without it."""
    cdef int on = 1
    cdef int buffer_bytes = SOCKET_BUFFER_BYTES
    # blocking: a driver that must not block says so in every call
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL, 0) & ~O_NONBLOCK)
    if setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) < 0:
        # not TCP, which sizes its buffers by itself
        if setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &buffer_bytes, sizeof(buffer_bytes)) < 0:
            setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &buffer_bytes, sizeof(buffer_bytes))


cdef void clear(wire_link_t* link) noexcept nogil:
    """As new; but for its places on the lists, which its last life may have left it."""
    cdef bint in_attention = link.in_attention
    cdef bint in_dirty = link.in_dirty
    memset(link, 0, sizeof(wire_link_t))
    link.fd = -1
    link.in_attention = in_attention
    link.in_dirty = in_dirty


cdef int32_t transport_add(transport_t* self, int fd, int kind) noexcept nogil:
    """A new link, which then owns `fd`; or a negative errno, and `fd` stays the caller's."""
    cdef uint32_t number
    cdef wire_link_t* link
    if self.free.count <= <uint32_t>(LINKS_RESERVED if kind == LINK_BYTES_ACCEPTED else 0):
        return -EMFILE
    number = self.free.links[self.free.count - 1]
    link = &self.links[number]
    clear(link)
    link.buffer = <uint8_t*>malloc(LINK_BUFFER_BYTES)
    link.vectors = <iovec*>malloc(SEND_VECTORS * sizeof(iovec))
    if link.buffer == NULL or link.vectors == NULL:
        free(link.buffer)
        free(link.vectors)
        clear(link)
        return -ENOMEM
    self.free.count -= 1
    self.used += 1
    tune(fd)
    link.fd = fd
    link.kind = kind
    link.state = STATE_NEW
    want_attention(self, number)
    return <int32_t>number


cdef void release(transport_t* self, uint32_t number) noexcept nogil:
    cdef wire_link_t* link = &self.links[number]
    self.aio.close(self.aio.context, link.fd)
    free(link.buffer)
    free(link.entries)
    free(link.vectors)
    free(link.page)
    clear(link)
    self.used -= 1
    # at the far end of the free list: a number comes back as late as it can
    memmove(&self.free.links[1], &self.free.links[0], self.free.count * sizeof(uint32_t))
    self.free.links[0] = number
    self.free.count += 1


# ---- sending ---------------------------------------------------------------------------


cdef void cut(transport_t* self, uint32_t number) noexcept nogil:
    """Ends what is under way on the link; the rest follows when the kernel has let go."""
    cdef wire_link_t* link = &self.links[number]
    if link.state != STATE_CUT:
        link.state = STATE_CUT
        shutdown(link.fd, SHUT_RDWR)
    want_attention(self, number)


cdef send_entry_t* new_entry(wire_link_t* link) noexcept nogil:
    """The next entry of the queue, zeroed; NULL without memory."""
    cdef send_entry_t* grown
    cdef send_entry_t* entry
    cdef uint32_t capacity, i
    if link.count == link.capacity:
        capacity = 2 * link.capacity if link.capacity else 64
        grown = <send_entry_t*>malloc(capacity * sizeof(send_entry_t))
        if grown == NULL:
            return NULL
        for i in range(link.count):
            grown[i] = link.entries[(link.first + i) & (link.capacity - 1)]
        free(link.entries)
        link.entries = grown
        link.first = 0
        link.capacity = capacity
    entry = &link.entries[(link.first + link.count) & (link.capacity - 1)]
    memset(entry, 0, sizeof(send_entry_t))
    link.count += 1
    link.queued_bytes += LINK_ENTRY_BYTES
    return entry


cdef bint keep_head(wire_link_t* link, send_entry_t* entry, const void* head,
                    uint32_t head_bytes) noexcept nogil:
    """Copies a head into a page that stays where it is until the head has gone out."""
    cdef head_page_t* page = link.page
    cdef uint32_t capacity
    if page == NULL or page.capacity - page.used < head_bytes:
        capacity = head_bytes if head_bytes > HEAD_PAGE_BYTES else HEAD_PAGE_BYTES
        page = <head_page_t*>malloc(sizeof(head_page_t) + capacity)
        if page == NULL:
            return False
        page.capacity = capacity
        page.used = 0
        page.live = 0
        if link.page != NULL and link.page.live == 0:
            free(link.page)
        link.page = page
    entry.head = <const uint8_t*>(page + 1) + page.used
    memcpy(<void*>entry.head, head, head_bytes)
    entry.head_bytes = head_bytes
    entry.page = page
    page.used += head_bytes
    page.live += 1
    return True


cdef void drop_head(wire_link_t* link, head_page_t* page) noexcept nogil:
    page.live -= 1
    if page.live:
        return
    if page == link.page:
        page.used = 0
    else:
        free(page)


cdef void answer_later(transport_t* self, uint32_t number, uint64_t token) noexcept nogil:
    """A send on a link that is gone: swallowed, but answered."""
    cdef lost_answer_t* grown
    if token == 0:
        return
    if self.lost_count == self.lost_capacity:
        grown = <lost_answer_t*>realloc(self.lost, (2 * self.lost_capacity + 64) * sizeof(lost_answer_t))
        if grown == NULL:
            return
        self.lost = grown
        self.lost_capacity = 2 * self.lost_capacity + 64
    self.lost[self.lost_count].link = number
    self.lost[self.lost_count].token = token
    self.lost_count += 1


cdef void transport_send(transport_t* self, uint32_t number, const void* head, uint32_t head_bytes,
                         const void* body, uint32_t body_bytes, uint64_t token) noexcept nogil:
    cdef wire_link_t* link
    cdef send_entry_t* entry
    if number >= LINKS_MAX or self.links[number].state == STATE_FREE:
        answer_later(self, number, token)
        return
    link = &self.links[number]
    entry = new_entry(link)
    if entry == NULL:
        answer_later(self, number, token)
        cut(self, number)
        return
    entry.token = token
    if link.state != STATE_UP and link.state != STATE_NEW:
        # nothing more goes out, but the token keeps its place in the order
        want_attention(self, number)
        return
    if head_bytes and not keep_head(link, entry, head, head_bytes):
        cut(self, number)
        return
    entry.body = <const uint8_t*>body
    entry.body_bytes = body_bytes
    link.queued_bytes += <uint64_t>head_bytes + body_bytes
    if link.queued_bytes > LINK_QUEUE_BYTES:
        cut(self, number)
        return
    want_send(self, number)


cdef uint32_t gather(wire_link_t* link) noexcept nogil:
    """Points the vectors at what is queued; gives how many are used."""
    cdef uint64_t skip = link.first_sent_bytes
    cdef uint64_t total = 0
    cdef uint32_t used = 0
    cdef uint32_t i
    cdef send_entry_t* entry
    for i in range(link.count):
        if used + 2 > SEND_VECTORS or total >= SEND_BYTES:
            break
        entry = &link.entries[(link.first + i) & (link.capacity - 1)]
        used = add_vector(link, used, entry.head, entry.head_bytes, &skip, &total)
        used = add_vector(link, used, entry.body, entry.body_bytes, &skip, &total)
    return used


cdef uint32_t add_vector(wire_link_t* link, uint32_t used, const uint8_t* bytes, uint32_t count,
                         uint64_t* skip, uint64_t* total) noexcept nogil:
    cdef iovec* last
    if skip[0] >= count:
        skip[0] -= count
        return used
    bytes += skip[0]
    count -= <uint32_t>skip[0]
    skip[0] = 0
    total[0] += count
    if used:
        last = &link.vectors[used - 1]
        if <const uint8_t*>last.iov_base + last.iov_len == bytes:
            # replies without a body lie side by side in their page
            last.iov_len += count
            return used
    link.vectors[used].iov_base = <void*>bytes
    link.vectors[used].iov_len = count
    return used + 1


cdef void start_send(transport_t* self, uint32_t number) noexcept nogil:
    cdef wire_link_t* link = &self.links[number]
    cdef uint32_t used
    if link.sending or link.count == 0 or link.state not in (STATE_UP, STATE_LINGERING):
        return
    used = gather(link)
    if used == 0:
        # only empty sends: answered by the next round of work
        want_attention(self, number)
        return
    link.sending = True
    link.message.msg_iov = link.vectors
    link.message.msg_iovlen = used
    self.aio.send(self.aio.context, link.fd, &link.message, self.send_tag | number)


cdef void forget_first(wire_link_t* link) noexcept nogil:
    cdef send_entry_t* entry = &link.entries[link.first]
    link.queued_bytes -= LINK_ENTRY_BYTES + <uint64_t>entry.head_bytes + entry.body_bytes
    if entry.page != NULL:
        drop_head(link, entry.page)
    link.first = (link.first + 1) & (link.capacity - 1)
    link.count -= 1
    link.first_sent_bytes = 0


cdef void discard_queue(wire_link_t* link) noexcept nogil:
    while link.count:
        forget_first(link)


cdef void answer_sent(transport_t* self, uint32_t number, uint64_t sent_bytes) noexcept nogil:
    """Takes what has gone out off the queue, in order, and answers its tokens."""
    cdef wire_link_t* link = &self.links[number]
    cdef uint64_t token, left
    cdef send_entry_t* entry
    sent_bytes += link.first_sent_bytes
    link.first_sent_bytes = 0
    while link.count:
        entry = &link.entries[link.first]
        left = <uint64_t>entry.head_bytes + entry.body_bytes
        if left > sent_bytes:
            link.first_sent_bytes = sent_bytes
            break
        sent_bytes -= left
        token = entry.token
        forget_first(link)
        if token:
            # may queue more on this very link, or close it
            self.listener.sent(self.listener.engine, number, token)


cdef void transport_sent(transport_t* self, uint32_t number, int32_t result) noexcept nogil:
    cdef wire_link_t* link = &self.links[number]
    link.sending = False
    if result <= 0:
        cut(self, number)
        return
    answer_sent(self, number, <uint64_t>result)
    if link.state == STATE_LINGERING and link.count == 0:
        cut(self, number)
    elif link.count:
        want_send(self, number)
    if link.state == STATE_CUT:
        want_attention(self, number)


# ---- receiving -------------------------------------------------------------------------


cdef void start_receive(transport_t* self, uint32_t number) noexcept nogil:
    cdef wire_link_t* link = &self.links[number]
    cdef uint32_t unread, room
    if link.state != STATE_UP or link.receiving or link.held:
        return
    unread = link.end - link.start
    if unread == 0:
        link.start = link.end = 0
    elif LINK_BUFFER_BYTES - link.end < LINK_WINDOW_BYTES // 2:
        memmove(link.buffer, link.buffer + link.start, unread)
        link.start = 0
        link.end = unread
    room = min(<uint32_t>LINK_WINDOW_BYTES - unread, <uint32_t>LINK_BUFFER_BYTES - link.end)
    if room == 0:
        # a full window: reading goes on when the engine resumes the link
        return
    link.receiving = True
    self.aio.receive(self.aio.context, link.fd, link.buffer + link.end, room,
                     self.receive_tag | number)


cdef void transport_received(transport_t* self, uint32_t number, int32_t result) noexcept nogil:
    cdef wire_link_t* link = &self.links[number]
    link.receiving = False
    if link.state == STATE_CUT or (result <= 0 and link.state == STATE_LINGERING):
        cut(self, number)
        return
    if link.state == STATE_LINGERING:
        return
    if result <= 0:
        cut(self, number)
        return
    link.end += <uint32_t>result
    deliver(self, number)
    start_receive(self, number)


cdef void deliver(transport_t* self, uint32_t number) noexcept nogil:
    if self.links[number].kind == LINK_BYTES_ACCEPTED:
        deliver_bytes(self, number)
    else:
        deliver_frames(self, number)


cdef void deliver_bytes(transport_t* self, uint32_t number) noexcept nogil:
    cdef wire_link_t* link = &self.links[number]
    cdef uint32_t unread = link.end - link.start
    cdef uint32_t consumed
    if link.state != STATE_UP or link.held or unread == 0:
        return
    consumed = self.listener.stream(self.listener.engine, number, link.buffer + link.start, unread)
    if consumed > unread:
        cut(self, number)
        return
    link.start += consumed


cdef void deliver_frames(transport_t* self, uint32_t number) noexcept nogil:
    cdef wire_link_t* link = &self.links[number]
    cdef frame_header_t header
    cdef const uint8_t* meta
    cdef uint32_t length
    while link.state == STATE_UP and not link.held:
        if link.end - link.start < FRAME_HEADER_BYTES:
            return
        # copied out: frames follow each other at any alignment
        memcpy(&header, link.buffer + link.start, FRAME_HEADER_BYTES)
        if not is_plausible(&header):
            cut(self, number)
            return
        length = FRAME_HEADER_BYTES + header.meta_bytes + header.body_bytes
        if link.end - link.start < length:
            return
        meta = link.buffer + link.start + FRAME_HEADER_BYTES
        if header.crc != frame_crc(&header, meta):
            cut(self, number)
            return
        link.start += length
        self.listener.frame(self.listener.engine, number, &header, meta, meta + header.meta_bytes)


cdef bint is_plausible(const frame_header_t* header) noexcept nogil:
    """What can be known before the rest of the frame is here: it bounds what we wait for."""
    return (header.magic == FRAME_MAGIC
            and header.version == WIRE_VERSION
            and header.meta_bytes <= FRAME_META_MAX
            and header.body_bytes <= FRAME_BODY_MAX)


cdef uint32_t frame_crc(const frame_header_t* header, const uint8_t* meta) noexcept nogil:
    cdef frame_header_t bare = header[0]
    bare.crc = 0
    return crc32c(crc32c(0, &bare, sizeof(bare)), meta, header.meta_bytes)


# ---- closing, holding, and the rounds of work --------------------------------------------


cdef void transport_close(transport_t* self, uint32_t number) noexcept nogil:
    """Drops a link; what was queued before may still go out for LINK_LINGER_NS."""
    cdef wire_link_t* link
    if number >= LINKS_MAX:
        return
    link = &self.links[number]
    if link.state == STATE_UP and link.count:
        link.state = STATE_LINGERING
        link.linger_until_ns = self.now_ns + LINK_LINGER_NS
        if self.linger_check_ns == 0:
            self.linger_check_ns = link.linger_until_ns
        want_send(self, number)
    elif link.state == STATE_UP or link.state == STATE_NEW:
        cut(self, number)


cdef void transport_hold(transport_t* self, uint32_t number, int stopped) noexcept nogil:
    if number >= LINKS_MAX or self.links[number].state == STATE_FREE:
        return
    self.links[number].held = stopped != 0
    if not stopped:
        want_attention(self, number)


cdef void transport_cut_all(transport_t* self) noexcept nogil:
    cdef uint32_t i
    for i in range(LINKS_MAX):
        if self.links[i].state not in (STATE_FREE, STATE_CUT):
            cut(self, i)


cdef void settle(transport_t* self, uint32_t number) noexcept nogil:
    """The end of a cut link, once the kernel has let go: tokens, link_down, its memory."""
    cdef wire_link_t* link = &self.links[number]
    cdef uint64_t token
    if link.sending or link.receiving:
        return
    while link.count:
        token = link.entries[link.first].token
        forget_first(link)
        if token:
            self.listener.sent(self.listener.engine, number, token)
    self.listener.link_down(self.listener.engine, number)
    # what link_down itself asked to send
    while link.count:
        answer_later(self, number, link.entries[link.first].token)
        forget_first(link)
    release(self, number)


cdef void attend(transport_t* self, uint32_t number) noexcept nogil:
    cdef wire_link_t* link = &self.links[number]
    if not link.told:
        link.told = True
        if link.state == STATE_NEW:
            link.state = STATE_UP
        self.listener.link_up(self.listener.engine, number, link.kind)
    if link.state in (STATE_UP, STATE_LINGERING) and not link.sending:
        answer_sent(self, number, 0)
    if link.state == STATE_UP:
        deliver(self, number)
        start_receive(self, number)
    elif link.state == STATE_LINGERING and link.count == 0:
        cut(self, number)
    if link.state == STATE_CUT:
        settle(self, number)


cdef void end_lingering(transport_t* self) noexcept nogil:
    """Cuts closed links whose peers do not read; looks again at the next one's time."""
    cdef uint32_t i
    cdef uint64_t until_ns
    self.linger_check_ns = 0
    for i in range(LINKS_MAX):
        if self.links[i].state != STATE_LINGERING:
            continue
        until_ns = self.links[i].linger_until_ns
        if until_ns <= self.now_ns:
            cut(self, i)
        elif self.linger_check_ns == 0 or until_ns < self.linger_check_ns:
            self.linger_check_ns = until_ns


cdef void answer_lost(transport_t* self) noexcept nogil:
    cdef lost_answer_t* lost = self.lost
    cdef uint32_t count = self.lost_count
    cdef uint32_t i
    # the calls may add to a fresh list
    self.lost = NULL
    self.lost_count = self.lost_capacity = 0
    for i in range(count):
        self.listener.sent(self.listener.engine, lost[i].link, lost[i].token)
    free(lost)


cdef void transport_work(transport_t* self, uint64_t now_ns) noexcept nogil:
    """Everything that calls up, but for the answers of the kernel itself."""
    cdef link_list_t now
    cdef uint32_t i
    self.now_ns = now_ns
    if self.linger_check_ns and self.linger_check_ns <= now_ns:
        end_lingering(self)
    if self.lost_count:
        answer_lost(self)
    if self.attention.count == 0:
        return
    # the calls may put links on the list again: those are for the next round
    now.count = self.attention.count
    memcpy(now.links, self.attention.links, now.count * sizeof(uint32_t))
    self.attention.count = 0
    for i in range(now.count):
        self.links[now.links[i]].in_attention = False
        if self.links[now.links[i]].state != STATE_FREE:
            attend(self, now.links[i])


cdef void transport_flush(transport_t* self) noexcept nogil:
    """Hands what is queued to the kernel; calls nobody."""
    cdef uint32_t i
    for i in range(self.dirty.count):
        self.links[self.dirty.links[i]].in_dirty = False
        start_send(self, self.dirty.links[i])
    self.dirty.count = 0


cdef bint transport_has_work(const transport_t* self) noexcept nogil:
    return self.attention.count > 0 or self.lost_count > 0
