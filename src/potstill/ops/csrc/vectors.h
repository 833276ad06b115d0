/* Vectors of 16 numbers, shared by the kernels of this folder.

   The kernels are the small operations of a decoder's blocks on a CPU, each in one pass over its
   data. At ten tokens per sentence, PyTorch's versions take a third of a training step: every
   operation reads and writes all of its input, and these are chains of operations on little data.
   Matrices are row-major; activations are bf16, factors and sums fp32; every width is a multiple of
   16. The plain formula of each is beside its use (attention.py, fused.py, cross_entropy.py; for
   LoRA decoder/fused_linear.py). */

#pragma once

#include <immintrin.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define W 16   /* numbers in a vector */
#define TILE 4 /* rows (and columns) of a tile, so that what they share is read once */
typedef float vec __attribute__((vector_size(4 * W)));
typedef int32_t ints __attribute__((vector_size(4 * W)));
typedef uint16_t bf16;

#define INLINE static inline __attribute__((always_inline))
#define EXPORT __attribute__((visibility("default")))

INLINE vec load(const float *p) { vec v; memcpy(&v, p, sizeof v); return v; }
INLINE void store(float *p, vec v) { memcpy(p, &v, sizeof v); }

INLINE vec widen(const bf16 *p)
{
    return (vec)_mm512_slli_epi32(
        _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p)), 16);
}

INLINE void narrow(bf16 *p, vec v) /* round to nearest */
{
    __m256bh h = _mm512_cvtneps_pbh((__m512)v);
    memcpy(p, &h, sizeof h);
}

INLINE float total(vec v) { return _mm512_reduce_add_ps((__m512)v); }
INLINE float largest(vec v) { return _mm512_reduce_max_ps((__m512)v); }
INLINE vec larger(vec a, vec b) { return (vec)_mm512_max_ps((__m512)a, (__m512)b); }
INLINE vec blend(ints mask, vec a, vec b) { return (vec)(((ints)a & mask) | ((ints)b & ~mask)); }

INLINE vec exponential(vec x) /* relative error 2e-7; 0 below -87 */
{
    ints below = x < -87.0f;
    x = blend(below, (vec){}, blend(x > 88.0f, (vec){} + 88.0f, x));
    vec t = x * 1.44269504f;
    vec whole = (vec)_mm512_roundscale_ps((__m512)t, _MM_FROUND_TO_NEAREST_INT);
    ints n = (ints)_mm512_cvtps_epi32((__m512)whole);
    vec r = x - whole * 0.693359375f + whole * 2.12194440e-4f;
    vec p = (vec){} + 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    return (vec)((ints)(p * (vec)((n + 127) << 23)) & ~below);
}
