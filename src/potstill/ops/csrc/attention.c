/* Causal attention; per token `heads` queries, and `kv` keys and values, `size` wide. */

#include "vectors.h"

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
