/* Sums of products of bytes: 16 outputs of each of 3 gates, for up to 16 rows of x.

   Every variant gives the same sums: tiles (AMX) or dot products of four bytes (VNNI) on newer Intel
   and AMD CPUs, products of two bytes on those with AVX2, a plain loop elsewhere.

   Weights are stored in blocks of 16 outputs: (inputs / 4, 16, 4), so that 64 inputs are a tile.
   Bytes of x are stored with 128 added, as VNNI takes unsigned ones; there the sums are of what is
   stored (SHIFT), elsewhere the 128 is taken off first. */

#pragma once

#include <stdint.h>
#include <string.h>

#if defined(__AVX512VNNI__) || defined(__AVX2__)
#include <immintrin.h>
#endif
#if defined(__AVX512VNNI__) && defined(__AMX_INT8__) && defined(__linux__)
#define TILES
#endif

#define W 16       /* outputs of a block of weights; sentences computed together */
#define GATES 3    /* update, reset, new: the blocks of 16 units */
#define INLINE static inline __attribute__((always_inline))

typedef float vec __attribute__((vector_size(4 * W)));
typedef int32_t ints __attribute__((vector_size(4 * W)));
typedef int8_t bytes __attribute__((vector_size(W)));

#ifdef TILES

static long tiles; /* the kernel of the system has permitted tiles */

/* Tiles 0 to 2: sums. 3: rows of x. 4 to 6: weights. Each has 16 rows of 64 bytes. */
static void configure(void)
{
    struct { uint8_t palette, start, zero[14]; uint16_t width[16]; uint8_t rows[16]; } c;
    memset(&c, 0, sizeof c);
    c.palette = 1;
    for (int i = 0; i < 7; i++) c.width[i] = 64, c.rows[i] = 16;
    _tile_loadconfig(&c);
}

INLINE void tile_products(const uint8_t *x, long stride, const int8_t *w, long inputs,
                          int32_t *sums)
{
    const int8_t *w1 = w + W * inputs, *w2 = w1 + W * inputs;
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    for (long k = 0; k < inputs; k += 64) {
        _tile_loadd(3, x + k, stride);
        _tile_loadd(4, w + W * k, 64);
        _tile_dpbusd(0, 3, 4);
        _tile_loadd(5, w1 + W * k, 64);
        _tile_dpbusd(1, 3, 5);
        _tile_loadd(6, w2 + W * k, 64);
        _tile_dpbusd(2, 3, 6);
    }
    _tile_stored(0, sums, 64);
    _tile_stored(1, sums + W * W, 64);
    _tile_stored(2, sums + 2 * W * W, 64);
}

#endif

#if defined(__AVX512VNNI__)

#define SHIFT 128

INLINE void some_products(int rows, const uint8_t *x, long stride, const int8_t *w, long inputs,
                          int32_t *sums)
{
    __m512i sum[8][GATES] = {};
    for (long k = 0; k < inputs; k += 4) {
        __m512i weights[GATES];
        for (int g = 0; g < GATES; g++)
            weights[g] = _mm512_loadu_si512(w + g * W * inputs + W * k);
        for (int row = 0; row < rows; row++) {
            int32_t four;
            memcpy(&four, x + row * stride + k, 4);
            for (int g = 0; g < GATES; g++)
                sum[row][g] =
                    _mm512_dpbusd_epi32(sum[row][g], _mm512_set1_epi32(four), weights[g]);
        }
    }
    for (int row = 0; row < rows; row++)
        for (int g = 0; g < GATES; g++)
            _mm512_storeu_si512(sums + (g * W + row) * W, sum[row][g]);
}

#elif defined(__AVX2__)

#define SHIFT 0

INLINE void some_products(int rows, const uint8_t *x, long stride, const int8_t *w, long inputs,
                          int32_t *sums)
{
    const __m256i ones = _mm256_set1_epi16(1), flip = _mm256_set1_epi8(-128);
    for (int g = 0; g < GATES; g++)
        for (int half = 0; half < 2; half++) {
            const int8_t *block = w + g * W * inputs + 32 * half;
            __m256i sum[8] = {};
            for (long k = 0; k < inputs; k += 4) {
                __m256i weights = _mm256_loadu_si256((const __m256i *)(block + W * k));
                for (int row = 0; row < rows; row++) {
                    int32_t four;
                    memcpy(&four, x + row * stride + k, 4);
                    /* |x| * (w with the sign of x), as one factor has to be unsigned; two such
                       products, 127 * 127 at most each, fit into 16 bits. */
                    __m256i value = _mm256_xor_si256(_mm256_set1_epi32(four), flip);
                    __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(value),
                                                         _mm256_sign_epi8(weights, value));
                    sum[row] = _mm256_add_epi32(sum[row], _mm256_madd_epi16(pairs, ones));
                }
            }
            for (int row = 0; row < rows; row++)
                _mm256_storeu_si256((__m256i *)(sums + (g * W + row) * W + 8 * half), sum[row]);
        }
}

#else

#define SHIFT 0

INLINE void some_products(int rows, const uint8_t *x, long stride, const int8_t *w, long inputs,
                          int32_t *sums)
{
    for (int g = 0; g < GATES; g++)
        for (int row = 0; row < rows; row++) {
            int32_t sum[W] = {0};
            for (long k = 0; k < inputs; k += 4) {
                const int8_t *four = w + (g * inputs + k) * W;
                for (int j = 0; j < W; j++)
                    for (int i = 0; i < 4; i++)
                        sum[j] += (x[row * stride + k + i] - 128) * four[4 * j + i];
            }
            memcpy(sums + (g * W + row) * W, sum, sizeof sum);
        }
}

#endif

#if defined(__AVX512VNNI__)

/* One row: its 12 chains of sums hide what one dot product takes. Tiles would compute 16 rows. */
static void row_products(const uint8_t *x, const int8_t *w, long inputs, int32_t *sums)
{
    __m512i sum[4][GATES] = {};
    for (long k = 0; k < inputs; k += 16)
        for (int i = 0; i < 4; i++) {
            int32_t four;
            memcpy(&four, x + k + 4 * i, 4);
            __m512i value = _mm512_set1_epi32(four);
            for (int g = 0; g < GATES; g++) {
                const int8_t *weights = w + g * W * inputs + W * (k + 4 * i);
                sum[i][g] = _mm512_dpbusd_epi32(sum[i][g], value, _mm512_loadu_si512(weights));
            }
        }
    for (int g = 0; g < GATES; g++) {
        __m512i a = _mm512_add_epi32(sum[0][g], sum[1][g]);
        __m512i b = _mm512_add_epi32(sum[2][g], sum[3][g]);
        _mm512_storeu_si512(sums + g * W * W, _mm512_add_epi32(a, b));
    }
}

#endif

/* sums is (3, 16 rows, 16 outputs); rows past the last one of x are left as they are, or arbitrary.
   Tiles read 16 rows of x in any case. */
static void products(const uint8_t *x, long stride, long rows, const int8_t *w, long inputs,
                     int32_t *sums)
{
#if defined(__AVX512VNNI__)
    if (rows == 1) {
        row_products(x, w, inputs, sums);
        return;
    }
#endif
#ifdef TILES
    if (tiles) {
        tile_products(x, stride, w, inputs, sums);
        return;
    }
#endif
    for (; rows >= 4; rows -= 4, x += 4 * stride, sums += 4 * W)
        some_products(4, x, stride, w, inputs, sums);
    if (rows == 1) some_products(1, x, stride, w, inputs, sums);
    if (rows == 2) some_products(2, x, stride, w, inputs, sums);
    if (rows == 3) some_products(3, x, stride, w, inputs, sums);
}
