/* The plainest writer there is: random 4 KiB O_DIRECT writes in place, with exactly one
 * fdatasync per so many writes. Two ways to do it, because neither is always the faster one:
 *
 *   stream   a flush is one more request among the `depth` under way, as a client would send it
 *   barrier  `depth` writes, wait for all of them, one fdatasync of our own thread
 *
 *   inplace PATH SIZE_BYTES SECONDS DEPTH WRITES_PER_FLUSH stream|barrier
 *
 * Prints: writes flushes nanoseconds
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { BLOCK_BYTES = 4096, DEPTH_MAX = 1024 };
static const uint64_t FLUSH = UINT64_MAX;

struct writer {
    struct io_uring ring;
    int fd;
    unsigned depth, writes_per_flush;
    uint64_t blocks, random, writes, flushes, deadline_ns;
    uint8_t *buffers;
    unsigned free_slots[DEPTH_MAX], free_count;
};

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void fail(const char *what, int error)
{
    fprintf(stderr, "inplace: %s: %s\n", what, strerror(error));
    exit(1);
}

static uint64_t next_random(struct writer *w)
{
    w->random ^= w->random << 13;
    w->random ^= w->random >> 7;
    w->random ^= w->random << 17;
    return w->random;
}

static void queue_write(struct writer *w)
{
    struct io_uring_sqe *entry = io_uring_get_sqe(&w->ring);
    unsigned slot = w->free_slots[--w->free_count];
    uint64_t block = next_random(w) % w->blocks;
    io_uring_prep_write(entry, w->fd, w->buffers + (size_t)slot * BLOCK_BYTES, BLOCK_BYTES, block * BLOCK_BYTES);
    io_uring_sqe_set_data64(entry, slot);
    w->writes++;
}

static void queue_flush(struct writer *w)
{
    struct io_uring_sqe *entry = io_uring_get_sqe(&w->ring);
    io_uring_prep_fsync(entry, w->fd, IORING_FSYNC_DATASYNC);
    io_uring_sqe_set_data64(entry, FLUSH);
    w->flushes++;
}

/* Submit what is queued, wait for at least `count`, take all that are done. Returns how many. */
static unsigned reap(struct writer *w, unsigned count)
{
    struct io_uring_cqe *done[DEPTH_MAX];
    unsigned taken, i;
    int result = io_uring_submit_and_wait(&w->ring, count);
    if (result < 0 && result != -EINTR)
        fail("submit", -result);
    taken = io_uring_peek_batch_cqe(&w->ring, done, DEPTH_MAX);
    for (i = 0; i < taken; i++) {
        if (done[i]->user_data == FLUSH) {
            if (done[i]->res < 0)
                fail("fdatasync", -done[i]->res);
            continue;
        }
        if (done[i]->res != BLOCK_BYTES)
            fail("write", done[i]->res < 0 ? -done[i]->res : EIO);
        w->free_slots[w->free_count++] = (unsigned)done[i]->user_data;
    }
    io_uring_cq_advance(&w->ring, taken);
    return taken;
}

static void run_stream(struct writer *w)
{
    unsigned flying = 0, since_flush = 0;
    while (now_ns() < w->deadline_ns) {
        while (flying < w->depth && (since_flush == w->writes_per_flush || w->free_count)) {
            if (since_flush == w->writes_per_flush) {
                queue_flush(w);
                since_flush = 0;
            } else {
                queue_write(w);
                since_flush++;
            }
            flying++;
        }
        flying -= reap(w, 1);
    }
    while (flying)
        flying -= reap(w, 1);
}

static void run_barrier(struct writer *w)
{
    unsigned flying, since_flush = 0;
    while (now_ns() < w->deadline_ns) {
        for (flying = 0; flying < w->depth && since_flush < w->writes_per_flush; flying++, since_flush++)
            queue_write(w);
        while (flying)
            flying -= reap(w, flying);
        if (since_flush == w->writes_per_flush) {
            if (fdatasync(w->fd) != 0)
                fail("fdatasync", errno);
            w->flushes++;
            since_flush = 0;
        }
    }
}

static void prepare(struct writer *w)
{
    struct io_uring_params parameters = {
        .flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_COOP_TASKRUN};
    int result = io_uring_queue_init_params(w->depth + 1, &w->ring, &parameters);
    size_t bytes = (size_t)w->depth * BLOCK_BYTES, i;
    if (result < 0)
        result = io_uring_queue_init(w->depth + 1, &w->ring, 0);
    if (result < 0)
        fail("io_uring", -result);
    if (posix_memalign((void **)&w->buffers, BLOCK_BYTES, bytes) != 0)
        fail("memory", ENOMEM);
    for (i = 0; i < bytes; i += sizeof(uint64_t))
        *(uint64_t *)(w->buffers + i) = next_random(w);
    while (w->free_count < w->depth) {
        w->free_slots[w->free_count] = w->free_count;
        w->free_count++;
    }
}

int main(int argc, char **argv)
{
    static struct writer w;
    uint64_t begun_ns;
    if (argc != 7 || strtoul(argv[4], NULL, 10) - 1 >= DEPTH_MAX) {
        fprintf(stderr, "usage: inplace PATH SIZE_BYTES SECONDS DEPTH WRITES_PER_FLUSH stream|barrier\n");
        return 64;
    }
    w.fd = open(argv[1], O_RDWR | O_DIRECT | O_CLOEXEC);
    if (w.fd < 0)
        fail(argv[1], errno);
    w.blocks = strtoull(argv[2], NULL, 10) / BLOCK_BYTES;
    w.depth = (unsigned)strtoul(argv[4], NULL, 10);
    w.writes_per_flush = (unsigned)strtoul(argv[5], NULL, 10);
    w.random = now_ns() | 1;
    prepare(&w);
    begun_ns = now_ns();
    w.deadline_ns = begun_ns + (uint64_t)(atof(argv[3]) * 1e9);
    if (strcmp(argv[6], "stream") == 0)
        run_stream(&w);
    else
        run_barrier(&w);
    printf("%llu %llu %llu\n", (unsigned long long)w.writes, (unsigned long long)w.flushes,
           (unsigned long long)(now_ns() - begun_ns));
    return 0;
}
