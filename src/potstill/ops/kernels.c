/* The small operations of a decoder's blocks on a CPU, each in one pass over its data.

   At ten tokens per sentence, PyTorch's versions take a third of a training step: every operation
   reads and writes all of its input, and these are chains of operations on little data. Matrices
   are row-major; activations are bf16, factors and sums fp32; every width is a multiple of 16. The
   plain formula of each is beside its use (attention.py, fused.py, cross_entropy.py; for LoRA
   decoder/fused_linear.py). */

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

/* ---- three products with one low-rank side, in tiles that stay in registers ---- */

INLINE void dots_tile(const bf16 *x, long x_step, const float *u, long K, float scale, float *t,
                      long t_step, const int rows, const int ranks)
{
    vec sums[TILE][TILE] = {};
    for (long k = 0; k < K; k += W)
        for (int n = 0; n < rows; n++) {
            vec v = widen(x + n * x_step + k);
            for (int r = 0; r < ranks; r++) sums[n][r] += v * load(u + r * K + k);
        }
    for (int n = 0; n < rows; n++)
        for (int r = 0; r < ranks; r++) t[n * t_step + r] = scale * total(sums[n][r]);
}

/* t (N, R) = scale * x (N, K) u^T, u (R, K) */
static void dots(const bf16 *x, long x_step, const float *u, long N, long K, long R, float scale,
                 float *t, long t_step)
{
    for (long n = 0; n < N; n += TILE)
        for (long r = 0; r < R; r += TILE)
            if (N - n >= TILE && R - r >= TILE)
                dots_tile(x + n * x_step, x_step, u + r * K, K, scale, t + n * t_step + r, t_step,
                          TILE, TILE);
            else
                for (long i = n; i < N && i < n + TILE; i++)
                    for (long j = r; j < R && j < r + TILE; j++)
                        dots_tile(x + i * x_step, x_step, u + j * K, K, scale,
                                  t + i * t_step + j, t_step, 1, 1);
}

INLINE void expand_tile(bf16 *y, long y_step, const float *t, long t_step, const float *v, long C,
                        long R, const bf16 *mask, const int rows)
{
    for (long c = 0; c < C; c += W) {
        vec sums[TILE] = {};
        for (long r = 0; r < R; r++) {
            vec column = load(v + r * C + c);
            for (int n = 0; n < rows; n++) sums[n] += t[n * t_step + r] * column;
        }
        for (int n = 0; n < rows; n++) {
            if (mask) sums[n] *= widen(mask + n * C + c);
            narrow(y + n * y_step + c, widen(y + n * y_step + c) + sums[n]);
        }
    }
}

/* y (N, C) += t (N, R) v, v (R, C); if mask (N, C) is given, mask * (t v) is added */
static void expand(bf16 *y, long y_step, const float *t, long t_step, const float *v, long N,
                   long C, long R, const bf16 *mask)
{
    long n = 0;
    for (; n + TILE <= N; n += TILE)
        expand_tile(y + n * y_step, y_step, t + n * t_step, t_step, v, C, R,
                    mask ? mask + n * C : 0, TILE);
    for (; n < N; n++)
        expand_tile(y + n * y_step, y_step, t + n * t_step, t_step, v, C, R,
                    mask ? mask + n * C : 0, 1);
}

INLINE void outer_tile(float *g, long C, const float *t, long t_step, const bf16 *x, long x_step,
                       long N, const int ranks, const int chunks)
{
    vec sums[TILE][TILE] = {};
    for (long n = 0; n < N; n++)
        for (int c = 0; c < chunks; c++) {
            vec v = widen(x + n * x_step + c * W);
            for (int r = 0; r < ranks; r++) sums[r][c] += t[n * t_step + r] * v;
        }
    for (int r = 0; r < ranks; r++)
        for (int c = 0; c < chunks; c++) store(g + r * C + c * W, sums[r][c]);
}

/* g (R, C) = t^T x, t (N, R), x (N, C) */
static void outer(float *g, const float *t, long t_step, const bf16 *x, long x_step, long N,
                  long C, long R)
{
    for (long c = 0; c < C; c += TILE * W)
        for (long r = 0; r < R; r += TILE) {
            if (C - c >= TILE * W && R - r >= TILE) {
                outer_tile(g + r * C + c, C, t + r, t_step, x + c, x_step, N, TILE, TILE);
                continue;
            }
            for (long i = r; i < R && i < r + TILE; i++)
                for (long j = c; j < C && j < c + TILE * W; j += W)
                    outer_tile(g + i * C + j, C, t + i, t_step, x + j, x_step, N, 1, 1);
        }
}

/* ---- LoRA on layers that share their input ---- */

typedef struct {
    const float *U, *V;          /* (rank, inputs), (outputs, rank) */
    long rank, first, outputs;   /* first: its first output among those of all the layers */
    float scaling;
} adapter;

static void transpose(float *to, const float *from, long rows, long columns)
{
    for (long i = 0; i < rows; i++)
        for (long j = 0; j < columns; j++) to[j * rows + i] = from[i * columns + j];
}

/* low_rank (N, R) = scaling x U^T, and y (N, outputs) += low_rank V^T: each adapter in its own
   columns of low_rank and of y */
EXPORT void lora_forward(const adapter *adapters, long count, const bf16 *x, bf16 *y,
                         float *low_rank, long N, long inputs, long outputs, long R)
{
    float *VT = malloc(sizeof(float) * R * outputs);
    long column = 0;
    for (const adapter *a = adapters; a < adapters + count; column += a->rank, a++) {
        dots(x, inputs, a->U, N, inputs, a->rank, a->scaling, low_rank + column, R);
        transpose(VT, a->V, a->outputs, a->rank);
        expand(y + a->first, outputs, low_rank + column, R, VT, N, a->outputs, a->rank, 0);
    }
    free(VT);
}

/* From grad (N, outputs): grads, for each adapter the gradient of U and then that of V, in their
   layouts; and, unless it is NULL, grad_x (N, inputs) += the gradient through the updates, times
   the dropout mask if there is one. */
EXPORT void lora_backward(const adapter *adapters, long count, const bf16 *grad, const bf16 *x,
                          const float *low_rank, const bf16 *mask, float *grads, bf16 *grad_x,
                          long N, long inputs, long outputs, long R)
{
    float *VT = malloc(sizeof(float) * R * outputs), *sums = malloc(sizeof(float) * N * R);
    float *all = malloc(sizeof(float) * R * inputs);
    long column = 0;
    for (const adapter *a = adapters; a < adapters + count; column += a->rank, a++) {
        long V = a->outputs * a->rank, U = inputs * a->rank;
        transpose(VT, a->V, a->outputs, a->rank);
        dots(grad + a->first, outputs, VT, N, a->outputs, a->rank, a->scaling, sums + column,
             R);
        outer(grads, sums + column, R, x, inputs, N, inputs, a->rank);
        outer(VT, low_rank + column, R, grad + a->first, outputs, N, a->outputs, a->rank);
        transpose(grads + U, VT, a->rank, a->outputs);
        memcpy(all + column * inputs, a->U, sizeof(float) * U);
        grads += U + V;
    }
    if (grad_x) expand(grad_x, inputs, sums, R, all, N, inputs, R, mask);
    free(VT);
    free(sums);
    free(all);
}

/* ---- norm and activation ---- */

/* y = x / rms(x) * weight; scale (N,) = 1 / rms(x) */
EXPORT void rms_norm_forward(const bf16 *x, const float *weight, float eps, bf16 *y, float *scale,
                             long N, long D)
{
    for (long n = 0; n < N; n++, x += D, y += D) {
        vec squares = {};
        for (long d = 0; d < D; d += W) { vec v = widen(x + d); squares += v * v; }
        scale[n] = 1 / sqrtf(total(squares) / D + eps);
        for (long d = 0; d < D; d += W) narrow(y + d, scale[n] * widen(x + d) * load(weight + d));
    }
}

/* grad_weight (D,) must be zero on entry */
EXPORT void rms_norm_backward(const bf16 *x, const float *weight, const float *scale,
                              const bf16 *grad, bf16 *grad_x, float *grad_weight, long N, long D)
{
    for (long n = 0; n < N; n++, x += D, grad += D, grad_x += D) {
        vec products = {};
        for (long d = 0; d < D; d += W) {
            vec unit = scale[n] * widen(x + d), g = widen(grad + d);
            store(grad_weight + d, load(grad_weight + d) + g * unit);
            products += g * load(weight + d) * unit;
        }
        float mean = total(products) / D;
        for (long d = 0; d < D; d += W) {
            vec unit = scale[n] * widen(x + d);
            narrow(grad_x + d, scale[n] * (widen(grad + d) * load(weight + d) - mean * unit));
        }
    }
}

/* y (N, D) = silu(gate) * up; x (N, 2 D) holds gate and up side by side */
EXPORT void swiglu_forward(const bf16 *x, bf16 *y, long N, long D)
{
    for (long n = 0; n < N; n++, x += 2 * D, y += D)
        for (long d = 0; d < D; d += W) {
            vec gate = widen(x + d);
            narrow(y + d, gate / (1.0f + exponential(-gate)) * widen(x + D + d));
        }
}

EXPORT void swiglu_backward(const bf16 *x, const bf16 *grad, bf16 *grad_x, long N, long D)
{
    for (long n = 0; n < N; n++, x += 2 * D, grad += D, grad_x += 2 * D)
        for (long d = 0; d < D; d += W) {
            vec gate = widen(x + d), up = widen(x + D + d), g = widen(grad + d);
            vec s = 1.0f / (1.0f + exponential(-gate));
            narrow(grad_x + d, g * up * s * (1.0f + gate * (1.0f - s)));
            narrow(grad_x + D + d, g * gate * s);
        }
}

/* the tanh approximation of GELU is x times the logistic function of this */
INLINE vec gelu_inner(vec x) { return 1.5957691216f * (x + 0.044715f * x * x * x); }

/* y = gelu(x); count is a multiple of 16 */
EXPORT void gelu_forward(const bf16 *x, bf16 *y, long count)
{
    for (long i = 0; i < count; i += W) {
        vec v = widen(x + i);
        narrow(y + i, v / (1.0f + exponential(-gelu_inner(v))));
    }
}

EXPORT void gelu_backward(const bf16 *x, const bf16 *grad, bf16 *grad_x, long count)
{
    for (long i = 0; i < count; i += W) {
        vec v = widen(x + i), s = 1.0f / (1.0f + exponential(-gelu_inner(v)));
        vec slope = 1.5957691216f * (1.0f + 3 * 0.044715f * v * v);
        narrow(grad_x + i, widen(grad + i) * s * (1.0f + v * (1.0f - s) * slope));
    }
}

/* ---- causal attention; per token `heads` queries, and `kv` keys and values, `size` wide ---- */

/* to = x rotated by the angles of its position (rotary embedding); if cos is NULL, a copy */
INLINE void rotate(float *to, const float *x, const float *cos, const float *sin, float sign,
                   long size)
{
    long half = size / 2;
    if (!cos) {
        memcpy(to, x, sizeof(float) * size);
        return;
    }
    for (long d = 0; d < half; d++) to[d] = x[d] * cos[d] + sign * sin[d] * x[d + half];
    for (long d = half; d < size; d++) to[d] = x[d] * cos[d] + sign * sin[d] * x[d - half];
}

INLINE void widen_row(float *to, const bf16 *x, long size)
{
    for (long d = 0; d < size; d += W) store(to + d, widen(x + d));
}

/* One head's slice of a token is too short for the processor to predict the next address. */
INLINE void prefetch(const bf16 *x, long numbers)
{
    for (long i = 0; i < numbers; i += 32) __builtin_prefetch(x + i);
}

/* Reads the L keys or values of one head, rotated, into rows (L, size) and into columns
   (size, padded), which are 0 past L. */
static void read_head(float *rows, float *columns, const bf16 *x, long stride, const float *cos,
                      const float *sin, long L, long padded, long size)
{
    float wide[size];
    if (columns) memset(columns, 0, sizeof(float) * size * padded);
    for (long j = 0; j < L; j++) {
        widen_row(wide, x + j * stride, size);
        rotate(rows + j * size, wide, cos ? cos + j * size : 0, sin ? sin + j * size : 0, 1, size);
        if (columns)
            for (long d = 0; d < size; d++) columns[d * padded + j] = rows[j * size + d];
    }
}

/* out (rows, padded) = a (rows, size) columns, columns (size, padded); the first `count` columns */
INLINE void product(float *out, const float *a, const float *columns, long count, long padded,
                    long size, const int rows)
{
    for (long j = 0; j < count; j += W) {
        vec sums[TILE] = {};
        for (long d = 0; d < size; d++) {
            vec column = load(columns + d * padded + j);
            for (int r = 0; r < rows; r++) sums[r] += a[r * size + d] * column;
        }
        for (int r = 0; r < rows; r++) store(out + r * padded + j, sums[r]);
    }
}

INLINE void mix_chunks(float *out, const float *p, const float *from, long count, long padded,
                       long size, const int rows, const int chunks)
{
    vec sums[TILE][TILE] = {};
    for (long j = 0; j < count; j++)
        for (int c = 0; c < chunks; c++) {
            vec v = load(from + j * size + c * W);
            for (int r = 0; r < rows; r++) sums[r][c] += p[r * padded + j] * v;
        }
    for (int r = 0; r < rows; r++)
        for (int c = 0; c < chunks; c++) store(out + r * size + c * W, sums[r][c]);
}

/* out (rows, size) = p (rows, padded) from, from (count, size) */
INLINE void mix(float *out, const float *p, const float *from, long count, long padded, long size,
                const int rows)
{
    long d = 0;
    for (; d + TILE * W <= size; d += TILE * W)
        mix_chunks(out + d, p, from + d, count, padded, size, rows, TILE);
    for (; d < size; d += W) mix_chunks(out + d, p, from + d, count, padded, size, rows, 1);
}

/* p (rows, padded) = softmax(q k / sqrt(size)), q (rows, size), k (size, padded). Row r is over its
   first counts[r] keys; after these it is 0, up to the count of the last row. */
INLINE void attend(float *p, const float *q, const float *k, const long *counts, long padded,
                   long size, const int rows)
{
    const ints lanes = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    long count = counts[rows - 1];
    product(p, q, k, count, padded, size, rows);
    float scale = 1 / sqrtf(size);
    for (int r = 0; r < rows; r++, p += padded) {
        vec peak = (vec){} - INFINITY, sum = {};
        for (long j = 0; j < count; j += W) {
            vec z = blend(lanes + (int)j < (int)counts[r], load(p + j), (vec){} - INFINITY);
            peak = larger(peak, z);
            store(p + j, z);
        }
        float top = largest(peak);
        for (long j = 0; j < count; j += W) {
            vec e = exponential(scale * (load(p + j) - top));
            sum += e;
            store(p + j, e);
        }
        float inverse = 1 / total(sum);
        for (long j = 0; j < count; j += W) store(p + j, inverse * load(p + j));
    }
}

typedef struct {
    const float *cos, *sin; /* (L, size) or NULL */
    const int64_t *last;    /* (B,) position of the only query of each sentence, or NULL for all */
    long L, heads, kv, size, stride, group, outputs, padded;
} shape;

static shape make_shape(const float *cos, const float *sin, const int64_t *last, long L,
                        long heads, long kv, long size)
{
    return (shape){cos, sin, last, L, heads, kv, size, (heads + 2 * kv) * size, heads / kv,
                   last ? 1 : L, (L + W - 1) / W * W};
}

/* Reads query t of those that share key head g into q and its head into *head; returns its
   position. */
INLINE long read_query(const shape *s, float *q, const bf16 *tokens, long b, long g, long t,
                       long *head)
{
    float wide[s->size];
    long i = s->last ? s->last[b] : t / s->group, at = i * s->size;
    *head = g * s->group + t % s->group;
    widen_row(wide, tokens + i * s->stride + *head * s->size, s->size);
    rotate(q, wide, s->cos ? s->cos + at : 0, s->sin ? s->sin + at : 0, 1, s->size);
    return i;
}

INLINE void tile_forward(const shape *s, bf16 *y, const bf16 *tokens, const float *k,
                         const float *v, float *scratch, long b, long g, long t, const int rows)
{
    float *q = scratch, *out = q + rows * s->size, *p = out + rows * s->size;
    long counts[TILE], heads[TILE];
    for (int r = 0; r < rows; r++)
        counts[r] = 1 + read_query(s, q + r * s->size, tokens, b, g, t + r, heads + r);
    attend(p, q, k, counts, s->padded, s->size, rows);
    mix(out, p, v, counts[rows - 1], s->padded, s->size, rows);
    for (int r = 0; r < rows; r++) {
        bf16 *to = y + ((b * s->outputs + (t + r) / s->group) * s->heads + heads[r]) * s->size;
        for (long d = 0; d < s->size; d += W) narrow(to + d, load(out + r * s->size + d));
    }
}

/* qkv (B, L, (heads + 2 kv) size) to y (B, L, heads size) or, with last (B,), (B, 1, heads size);
   cos, sin (L, size) or NULL */
EXPORT void attention_forward(const bf16 *qkv, bf16 *y, const float *cos, const float *sin,
                              const int64_t *last, long B, long L, long heads, long kv, long size)
{
    shape s = make_shape(cos, sin, last, L, heads, kv, size);
    float *k = malloc(sizeof(float) *
                      (2 * L * size + size * s.padded + TILE * (2 * size + s.padded)));
    float *v = k + L * size, *columns = v + L * size, *scratch = columns + size * s.padded;
    for (long b = 0; b < B; b++)
        for (long g = 0; g < kv; g++) {
            const bf16 *tokens = qkv + b * L * s.stride;
            long t = 0, queries = s.outputs * s.group;
            read_head(k, columns, tokens + (heads + g) * size, s.stride, cos, sin, L, s.padded,
                      size);
            read_head(v, 0, tokens + (heads + kv + g) * size, s.stride, 0, 0, L, s.padded, size);
            for (; t + TILE <= queries; t += TILE)
                tile_forward(&s, y, tokens, columns, v, scratch, b, g, t, TILE);
            for (; t < queries; t++) tile_forward(&s, y, tokens, columns, v, scratch, b, g, t, 1);
        }
    free(k);
}

typedef struct {
    float *k, *v, *k_columns, *v_columns; /* keys and values, (L, size) and (size, padded) */
    float *grad_k, *grad_v, *scratch;
} head;

INLINE void tile_backward(const shape *s, const head *h, const bf16 *grad, bf16 *grad_tokens,
                          const bf16 *tokens, long b, long g, long t, const int rows)
{
    long size = s->size, padded = s->padded, counts[TILE], heads[TILE];
    float *q = h->scratch, *grad_out = q + rows * size, *grad_q = grad_out + rows * size;
    float *p = grad_q + rows * size, *grad_p = p + rows * padded, rotated[size];
    float scale = 1 / sqrtf(size);
    for (int r = 0; r < rows; r++) {
        counts[r] = 1 + read_query(s, q + r * size, tokens, b, g, t + r, heads + r);
        long at = ((b * s->outputs + (t + r) / s->group) * s->heads + heads[r]) * size;
        widen_row(grad_out + r * size, grad + at, size);
    }
    long count = counts[rows - 1];
    attend(p, q, h->k_columns, counts, padded, size, rows);
    product(grad_p, grad_out, h->v_columns, count, padded, size, rows);
    for (int r = 0; r < rows; r++) {
        float *p_row = p + r * padded, *grad_row = grad_p + r * padded;
        vec products = {};
        for (long j = 0; j < count; j += W) products += load(p_row + j) * load(grad_row + j);
        float shift = total(products);
        for (long j = 0; j < count; j += W)
            store(grad_row + j, scale * load(p_row + j) * (load(grad_row + j) - shift));
    }
    for (long j = 0; j < count; j++)
        for (long d = 0; d < size; d += W) {
            vec grad_k = load(h->grad_k + j * size + d), grad_v = load(h->grad_v + j * size + d);
            for (int r = 0; r < rows; r++) {
                grad_k += grad_p[r * padded + j] * load(q + r * size + d);
                grad_v += p[r * padded + j] * load(grad_out + r * size + d);
            }
            store(h->grad_k + j * size + d, grad_k);
            store(h->grad_v + j * size + d, grad_v);
        }
    mix(grad_q, grad_p, h->k, count, padded, size, rows);
    for (int r = 0; r < rows; r++) {
        long i = counts[r] - 1, at = i * size;
        /* the gradient is rotated back */
        rotate(rotated, grad_q + r * size, s->cos ? s->cos + at : 0, s->sin ? s->sin + at : 0, -1,
               size);
        for (long d = 0; d < size; d += W)
            narrow(grad_tokens + i * s->stride + heads[r] * size + d, load(rotated + d));
    }
}

/* grad_qkv has the shape of qkv; with last it must be zero on entry */
EXPORT void attention_backward(const bf16 *qkv, const bf16 *grad, bf16 *grad_qkv, const float *cos,
                               const float *sin, const int64_t *last, long B, long L, long heads,
                               long kv, long size)
{
    shape s = make_shape(cos, sin, last, L, heads, kv, size);
    long all = L * size, columns = size * s.padded;
    float *k = malloc(sizeof(float) *
                      (4 * all + 2 * columns + TILE * (3 * size + 2 * s.padded))), wide[size];
    head h = {k, k + all, k + 4 * all, k + 4 * all + columns, k + 2 * all, k + 3 * all,
              k + 4 * all + 2 * columns};
    for (long b = 0; b < B; b++) {
        prefetch(qkv + b * L * s.stride, L * s.stride);
        prefetch(grad + b * s.outputs * heads * size, s.outputs * heads * size);
        prefetch(grad_qkv + b * L * s.stride, L * s.stride);
        for (long g = 0; g < kv; g++) {
            const bf16 *tokens = qkv + b * L * s.stride;
            bf16 *to = grad_qkv + b * L * s.stride;
            long t = 0, queries = s.outputs * s.group;
            read_head(h.k, h.k_columns, tokens + (heads + g) * size, s.stride, cos, sin, L,
                      s.padded, size);
            read_head(h.v, h.v_columns, tokens + (heads + kv + g) * size, s.stride, 0, 0, L,
                      s.padded, size);
            memset(h.grad_k, 0, sizeof(float) * 2 * all); /* and grad_v, which follows */
            for (; t + TILE <= queries; t += TILE)
                tile_backward(&s, &h, grad, to, tokens, b, g, t, TILE);
            for (; t < queries; t++) tile_backward(&s, &h, grad, to, tokens, b, g, t, 1);
            for (long j = 0; j < L; j++) {
                rotate(wide, h.grad_k + j * size, cos ? cos + j * size : 0,
                       sin ? sin + j * size : 0, -1, size);
                for (long d = 0; d < size; d += W) {
                    narrow(to + j * s.stride + (heads + g) * size + d, load(wide + d));
                    narrow(to + j * s.stride + (heads + kv + g) * size + d,
                           load(h.grad_v + j * size + d));
                }
            }
        }
    }
    free(k);
}

/* ---- cross-entropy over a vocabulary ---- */

/* Returns the loss: the sum over rows of the cross-entropy of softmax(logits + bias) with a target
   that gives each of K token ids a probability. Replaces logits (N, V) by their gradient and adds
   that of bias (V,) to grad_bias. */
EXPORT double cross_entropy(bf16 *logits, const float *bias, const int64_t *token_ids,
                            const float *probs, float *grad_bias, long N, long V, long K)
{
    float *row = malloc(sizeof(float) * V);
    double loss = 0;
    for (long n = 0; n < N; n++, logits += V, token_ids += K, probs += K) {
        vec peak = (vec){} - INFINITY;
        for (long v = 0; v < V; v += W) {
            vec z = widen(logits + v) + load(bias + v);
            peak = larger(peak, z);
            store(row + v, z);
        }
        float top = largest(peak), mass = 0;
        for (long k = 0; k < K; k++) {
            mass += probs[k];
            loss -= probs[k] * (row[token_ids[k]] - top);
        }
        vec sums[2] = {};
        for (long v = 0; v < V; v += W) {
            vec e = exponential(load(row + v) - top);
            sums[v / W % 2] += e;
            store(row + v, e);
        }
        float sum = total(sums[0] + sums[1]), scale = mass / sum;
        loss += mass * logf(sum);
        for (long v = 0; v < V; v += W) store(row + v, scale * load(row + v));
        for (long k = 0; k < K; k++) row[token_ids[k]] -= probs[k];
        for (long v = 0; v < V; v += W) {
            vec g = load(row + v);
            store(grad_bias + v, load(grad_bias + v) + g);
            narrow(logits + v, g);
        }
    }
    free(row);
    return loss;
}
