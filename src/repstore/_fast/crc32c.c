/* CRC32C kernels.
 *
 * The crc32 instruction takes 8 bytes a cycle but answers only after three, so every fast
 * path keeps three independent sums in flight: three lanes of one range (merged at the end
 * by a carry-less multiplication that moves a sum over the bytes behind it), or three
 * different blocks of a batch (nothing to merge). Where the CPU multiplies carry-less on 512
 * bits, folding four such registers beats the instruction.
 *
 * 1. All kernels give the same number for the same bytes.
 * 2. Inside a kernel a sum is in its inverted form; `range` takes and gives the plain one.
 */
#include "crc32c.h"

#include <string.h>

#define BLOCK RS_CRC32C_BLOCK_BYTES
#define POLYNOMIAL 0x82F63B78u /* Castagnoli, bits reversed */
#define KERNELS_MAX 3

static uint32_t table[8][256];
static rs_crc32c_kernel kernels[KERNELS_MAX];
static size_t kernel_count;

static inline uint64_t load_8(const uint8_t *from)
{
    uint64_t word;
    memcpy(&word, from, sizeof word);
    return word;
}

/* ---- tables: slice by eight, any CPU ------------------------------------------------ */

static void build_tables(void)
{
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint32_t sum = byte;
        for (int bit = 0; bit < 8; bit++)
            sum = (sum >> 1) ^ ((sum & 1) ? POLYNOMIAL : 0);
        table[0][byte] = sum;
    }
    for (uint32_t byte = 0; byte < 256; byte++)
        for (int slice = 1; slice < 8; slice++) {
            uint32_t before = table[slice - 1][byte];
            table[slice][byte] = (before >> 8) ^ table[0][before & 255];
        }
}

static uint32_t table_range(uint32_t crc, const void *data, size_t size_bytes)
{
    const uint8_t *from = data;
    uint32_t sum = ~crc;
    for (; size_bytes >= 8; size_bytes -= 8, from += 8) {
        uint32_t low = sum ^ ((uint32_t)from[0] | (uint32_t)from[1] << 8 | (uint32_t)from[2] << 16 |
                              (uint32_t)from[3] << 24);
        sum = table[7][low & 255] ^ table[6][low >> 8 & 255] ^ table[5][low >> 16 & 255] ^
              table[4][low >> 24] ^ table[3][from[4]] ^ table[2][from[5]] ^ table[1][from[6]] ^
              table[0][from[7]];
    }
    for (; size_bytes; size_bytes--, from++)
        sum = (sum >> 8) ^ table[0][(sum ^ *from) & 255];
    return ~sum;
}

static void table_blocks(const uint8_t *data, size_t blocks, uint32_t *out)
{
    for (size_t i = 0; i < blocks; i++)
        out[i] = table_range(0, data + i * BLOCK, BLOCK);
}

static uint32_t table_copy_block(void *to, const void *from)
{
    memcpy(to, from, BLOCK);
    return table_range(0, to, BLOCK);
}

static const rs_crc32c_kernel table_kernel = {"table", table_range, table_blocks, table_copy_block};

#if defined(__x86_64__)
/* ---- SSE4.2 crc32 + PCLMUL ----------------------------------------------------------- */
#include <immintrin.h>

#define SSE42 __attribute__((target("sse4.2,pclmul")))
#define LANE_BYTES 1360u /* three lanes and 16 bytes are a block */
#define SHORT_LANE_BYTES 168u

static uint32_t over_lane, over_two_lanes, over_short_lane, over_two_short_lanes;

static uint32_t x_to_the(uint32_t power) /* mod P */
{
    uint32_t factor = 0x80000000u; /* x^0 */
    for (; power; power--)
        factor = (factor >> 1) ^ ((factor & 1) ? POLYNOMIAL : 0);
    return factor;
}

/* The factor that moves a sum over n bytes. The 33 is what one carry-less multiplication
 * and the reducing crc32 instruction add by themselves. */
static uint32_t factor_over(uint32_t bytes)
{
    return x_to_the(8 * bytes - 33);
}

SSE42 static inline uint64_t moved_over(uint64_t sum, uint32_t factor)
{
    __m128i product =
        _mm_clmulepi64_si128(_mm_cvtsi64_si128((int64_t)sum), _mm_cvtsi32_si128((int)factor), 0);
    return _mm_crc32_u64(0, (uint64_t)_mm_cvtsi128_si64(product));
}

/* One stretch of three lanes. Always inlined, so that `lane` is a constant. */
SSE42 static inline __attribute__((always_inline)) uint64_t
three_lanes(uint64_t sum, const uint8_t *from, uint32_t lane, uint32_t over_one, uint32_t over_two)
{
    uint64_t first = sum, second = 0, third = 0;
    for (uint32_t at = 0; at < lane; at += 8) {
        first = _mm_crc32_u64(first, load_8(from + at));
        second = _mm_crc32_u64(second, load_8(from + lane + at));
        third = _mm_crc32_u64(third, load_8(from + 2 * lane + at));
    }
    return moved_over(first, over_two) ^ moved_over(second, over_one) ^ third;
}

SSE42 static uint32_t sse42_range(uint32_t crc, const void *data, size_t size_bytes)
{
    const uint8_t *from = data;
    uint64_t sum = ~crc;
    for (; size_bytes >= 3 * LANE_BYTES; size_bytes -= 3 * LANE_BYTES, from += 3 * LANE_BYTES)
        sum = three_lanes(sum, from, LANE_BYTES, over_lane, over_two_lanes);
    for (; size_bytes >= 3 * SHORT_LANE_BYTES;
         size_bytes -= 3 * SHORT_LANE_BYTES, from += 3 * SHORT_LANE_BYTES)
        sum = three_lanes(sum, from, SHORT_LANE_BYTES, over_short_lane, over_two_short_lanes);
    for (; size_bytes >= 8; size_bytes -= 8, from += 8)
        sum = _mm_crc32_u64(sum, load_8(from));
    for (; size_bytes; size_bytes--, from++)
        sum = _mm_crc32_u8((uint32_t)sum, *from);
    return ~(uint32_t)sum;
}

SSE42 static void sse42_blocks(const uint8_t *data, size_t blocks, uint32_t *out)
{
    for (; blocks >= 3; blocks -= 3, data += 3 * BLOCK, out += 3) {
        uint64_t first = 0xFFFFFFFFu, second = 0xFFFFFFFFu, third = 0xFFFFFFFFu;
        for (uint32_t at = 0; at < BLOCK; at += 8) {
            first = _mm_crc32_u64(first, load_8(data + at));
            second = _mm_crc32_u64(second, load_8(data + BLOCK + at));
            third = _mm_crc32_u64(third, load_8(data + 2 * BLOCK + at));
        }
        out[0] = ~(uint32_t)first;
        out[1] = ~(uint32_t)second;
        out[2] = ~(uint32_t)third;
    }
    for (; blocks; blocks--, data += BLOCK, out++)
        *out = sse42_range(0, data, BLOCK);
}

SSE42 static inline uint64_t copied_8(uint64_t sum, uint8_t *to, const uint8_t *from)
{
    uint64_t word = load_8(from);
    memcpy(to, &word, sizeof word);
    return _mm_crc32_u64(sum, word);
}

SSE42 static uint32_t sse42_copy_block(void *to_block, const void *from_block)
{
    uint8_t *to = to_block;
    const uint8_t *from = from_block;
    uint64_t first = 0xFFFFFFFFu, second = 0, third = 0;
    for (uint32_t at = 0; at < LANE_BYTES; at += 8) {
        first = copied_8(first, to + at, from + at);
        second = copied_8(second, to + LANE_BYTES + at, from + LANE_BYTES + at);
        third = copied_8(third, to + 2 * LANE_BYTES + at, from + 2 * LANE_BYTES + at);
    }
    uint64_t sum = moved_over(first, over_two_lanes) ^ moved_over(second, over_lane) ^ third;
    for (uint32_t at = 3 * LANE_BYTES; at < BLOCK; at += 8)
        sum = copied_8(sum, to + at, from + at);
    return ~(uint32_t)sum;
}

static const rs_crc32c_kernel sse42_kernel = {"sse4.2+pclmul", sse42_range, sse42_blocks,
                                              sse42_copy_block};

/* ---- AVX-512 carry-less folding ------------------------------------------------------- */

#define AVX512 __attribute__((target("avx512f,vpclmulqdq,pclmul,sse4.2")))
#define FOLD_BYTES 256u /* four registers of 64 bytes */

/* Factor pairs that move a 16-byte lane forward: over 256, 64 and 16 bytes. */
static uint64_t fold_256[2], fold_64[2], fold_16[2];

/* Low half of a lane: 8 bytes further from the end than the high half. */
static void fold_factors(uint64_t pair[2], uint32_t bytes)
{
    pair[0] = x_to_the(8 * bytes + 31);
    pair[1] = x_to_the(8 * bytes - 33);
}

AVX512 static inline __m512i wide(const uint64_t pair[2])
{
    return _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)pair));
}

AVX512 static inline __m512i folded(__m512i lanes, __m512i factors, __m512i next)
{
    return _mm512_ternarylogic_epi64(_mm512_clmulepi64_epi128(lanes, factors, 0x00),
                                     _mm512_clmulepi64_epi128(lanes, factors, 0x11), next, 0x96);
}

AVX512 static inline __m128i folded_16(__m128i lane, __m128i factors, __m128i next)
{
    return _mm_xor_si128(next, _mm_xor_si128(_mm_clmulepi64_si128(lane, factors, 0x00),
                                             _mm_clmulepi64_si128(lane, factors, 0x11)));
}

AVX512 static inline uint32_t reduced(const __m512i part[4])
{
    const __m512i over_64 = wide(fold_64);
    const __m128i over_16 = _mm_loadu_si128((const __m128i *)fold_16);
    __m512i lanes = folded(part[0], over_64, part[1]);
    lanes = folded(lanes, over_64, part[2]);
    lanes = folded(lanes, over_64, part[3]);
    __m128i lane = _mm512_extracti32x4_epi32(lanes, 0);
    lane = folded_16(lane, over_16, _mm512_extracti32x4_epi32(lanes, 1));
    lane = folded_16(lane, over_16, _mm512_extracti32x4_epi32(lanes, 2));
    lane = folded_16(lane, over_16, _mm512_extracti32x4_epi32(lanes, 3));
    uint64_t sum = _mm_crc32_u64(0, (uint64_t)_mm_cvtsi128_si64(lane));
    return (uint32_t)_mm_crc32_u64(sum, (uint64_t)_mm_extract_epi64(lane, 1));
}

/* The sum over `bytes`, a multiple of 256 and not 0; copies them to `to` unless it is NULL. */
AVX512 static inline __attribute__((always_inline)) uint32_t
folded_sum(uint32_t sum, uint8_t *to, const uint8_t *from, size_t bytes)
{
    const __m512i over_256 = wide(fold_256);
    __m512i part[4];
    for (int i = 0; i < 4; i++) {
        part[i] = _mm512_loadu_si512(from + 64 * i);
        if (to)
            _mm512_storeu_si512(to + 64 * i, part[i]);
    }
    part[0] = _mm512_xor_si512(part[0], _mm512_zextsi128_si512(_mm_cvtsi32_si128((int)sum)));
    for (size_t at = FOLD_BYTES; at < bytes; at += FOLD_BYTES)
        for (int i = 0; i < 4; i++) {
            __m512i next = _mm512_loadu_si512(from + at + 64 * i);
            if (to)
                _mm512_storeu_si512(to + at + 64 * i, next);
            part[i] = folded(part[i], over_256, next);
        }
    return reduced(part);
}

AVX512 static uint32_t avx512_range(uint32_t crc, const void *data, size_t size_bytes)
{
    size_t whole = size_bytes & ~(size_t)(FOLD_BYTES - 1);
    if (whole)
        crc = ~folded_sum(~crc, NULL, data, whole);
    return sse42_range(crc, (const uint8_t *)data + whole, size_bytes - whole);
}

AVX512 static void avx512_blocks(const uint8_t *data, size_t blocks, uint32_t *out)
{
    for (size_t i = 0; i < blocks; i++)
        out[i] = ~folded_sum(~0u, NULL, data + i * BLOCK, BLOCK);
}

AVX512 static uint32_t avx512_copy_block(void *to, const void *from)
{
    return ~folded_sum(~0u, to, from, BLOCK);
}

static const rs_crc32c_kernel avx512_kernel = {"avx512+vpclmulqdq", avx512_range, avx512_blocks,
                                               avx512_copy_block};

static void find_kernels(void)
{
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("sse4.2") || !__builtin_cpu_supports("pclmul"))
        return;
    over_lane = factor_over(LANE_BYTES);
    over_two_lanes = factor_over(2 * LANE_BYTES);
    over_short_lane = factor_over(SHORT_LANE_BYTES);
    over_two_short_lanes = factor_over(2 * SHORT_LANE_BYTES);
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("vpclmulqdq")) {
        fold_factors(fold_256, 256);
        fold_factors(fold_64, 64);
        fold_factors(fold_16, 16);
        kernels[kernel_count++] = avx512_kernel;
    }
    kernels[kernel_count++] = sse42_kernel;
}

#elif defined(__aarch64__)
/* ---- ARMv8 crc32c ------------------------------------------------------------------- */
#include <arm_acle.h>
#include <asm/hwcap.h>
#include <sys/auxv.h>

#define ARMV8 __attribute__((target("+crc")))

ARMV8 static uint32_t armv8_range(uint32_t crc, const void *data, size_t size_bytes)
{
    const uint8_t *from = data;
    uint32_t sum = ~crc;
    for (; size_bytes >= 8; size_bytes -= 8, from += 8)
        sum = __crc32cd(sum, load_8(from));
    for (; size_bytes; size_bytes--, from++)
        sum = __crc32cb(sum, *from);
    return ~sum;
}

ARMV8 static void armv8_blocks(const uint8_t *data, size_t blocks, uint32_t *out)
{
    for (; blocks >= 3; blocks -= 3, data += 3 * BLOCK, out += 3) {
        uint32_t first = ~0u, second = ~0u, third = ~0u;
        for (uint32_t at = 0; at < BLOCK; at += 8) {
            first = __crc32cd(first, load_8(data + at));
            second = __crc32cd(second, load_8(data + BLOCK + at));
            third = __crc32cd(third, load_8(data + 2 * BLOCK + at));
        }
        out[0] = ~first;
        out[1] = ~second;
        out[2] = ~third;
    }
    for (; blocks; blocks--, data += BLOCK, out++)
        *out = armv8_range(0, data, BLOCK);
}

static uint32_t armv8_copy_block(void *to, const void *from)
{
    memcpy(to, from, BLOCK);
    return armv8_range(0, to, BLOCK);
}

static const rs_crc32c_kernel armv8_kernel = {"armv8-crc", armv8_range, armv8_blocks,
                                              armv8_copy_block};

static void find_kernels(void)
{
    if (getauxval(AT_HWCAP) & HWCAP_CRC32)
        kernels[kernel_count++] = armv8_kernel;
}

#else
static void find_kernels(void) {}
#endif

/* ---- the best one ------------------------------------------------------------------- */

void rs_crc32c_init(void)
{
    if (kernel_count)
        return;
    build_tables();
    find_kernels();
    kernels[kernel_count++] = table_kernel;
}

const rs_crc32c_kernel *rs_crc32c_kernel_at(size_t i)
{
    return i < kernel_count ? &kernels[i] : NULL;
}

uint32_t rs_crc32c(uint32_t crc, const void *data, size_t size_bytes)
{
    return kernels[0].range(crc, data, size_bytes);
}

void rs_crc32c_blocks(const uint8_t *data, size_t blocks, uint32_t *out)
{
    kernels[0].blocks(data, blocks, out);
}

uint32_t rs_crc32c_copy_block(void *to, const void *from)
{
    return kernels[0].copy_block(to, from);
}
