/* LoRA on layers that share their input. */

#include "vectors.h"

/* three products with one low-rank side, in tiles that stay in registers */

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
