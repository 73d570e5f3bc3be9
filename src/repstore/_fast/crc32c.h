/* CRC32C (Castagnoli) of byte ranges and of 4 KiB blocks, by the fastest way this CPU has. */
#ifndef REPSTORE_CRC32C_H
#define REPSTORE_CRC32C_H
#include <stddef.h>
#include <stdint.h>

#define RS_CRC32C_BLOCK_BYTES 4096u

/* One way of computing it. All ways give the same numbers. */
typedef struct rs_crc32c_kernel {
    const char *name;
    uint32_t (*range)(uint32_t crc, const void *data, size_t size_bytes);
    void (*blocks)(const uint8_t *data, size_t blocks, uint32_t *out);
    uint32_t (*copy_block)(void *to, const void *from);
} rs_crc32c_kernel;

/* Builds the tables and looks at the CPU. Call once, before anything else here. */
void rs_crc32c_init(void);

/* The i-th kernel this CPU can run, best first; NULL past the last. */
const rs_crc32c_kernel *rs_crc32c_kernel_at(size_t i);

/* The same three calls on the best kernel. `crc` is the plain previous value, 0 to start. */
uint32_t rs_crc32c(uint32_t crc, const void *data, size_t size_bytes);
void rs_crc32c_blocks(const uint8_t *data, size_t blocks, uint32_t *out);
/* Copies one block and returns the CRC of what was copied: the bytes are loaded once. */
uint32_t rs_crc32c_copy_block(void *to, const void *from);

#endif
