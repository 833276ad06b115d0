/* Layers of a GRU in 8-bit integers, for prediction: every sentence of a call through every layer.

   The plain formula is in ops/gru_int8.py, and the tests compare the two. A state lies between -1
   and 1 and is rounded to 1/127; a row of a weight matrix has a scale of its own.

   All the weights of a layer, 0.4 to 1.2 MB, stay in the second-level cache, and each is read once
   for 16 sentences. Outputs are ordered by direction, 16 units, gate (update, reset, new, as in
   ONNX), unit; their weights are stored as int8_products.h says. Where SHIFT is not 0, it adds
   SHIFT times the sum of a row of weights to a sum; the caller takes that off in the biases of the
   recurrent products, and names it for the products of the input. */

#include "int8_products.h"

#ifdef TILES
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#define TOKENS 512 /* tokens computed together, unless one sentence has more */
#define EXPORT __attribute__((visibility("default")))

struct layer {
    long inputs;                /* bytes of a row of x: a multiple of 64 */
    const int8_t *input;        /* (directions * units / 16 * 3, inputs / 4, 16, 4) */
    const int8_t *recurrent;    /* the same with units as inputs */
    const int32_t *input_shift; /* to be subtracted from the sums */
    const float *input_scale, *recurrent_scale; /* of each output */
    const float *input_bias;
    const float *reset_bias; /* (directions * units / 16, 16): added within the reset */
};

struct network {
    long layers, directions, units; /* units of a direction: a multiple of 64 */
    const uint8_t *embedding;       /* (tokens, inputs of layer 0) */
    const float *embedding_scale;   /* (tokens) */
    const struct layer *layer;
};

INLINE vec load(const float *p) { vec v; memcpy(&v, p, sizeof v); return v; }
INLINE ints load_ints(const int32_t *p) { ints v; memcpy(&v, p, sizeof v); return v; }
INLINE void store(float *p, vec v) { memcpy(p, &v, sizeof v); }
INLINE vec number(ints v) { return __builtin_convertvector(v, vec); }
INLINE vec product(const int32_t *p) { return number(load_ints(p)); }

/* ---- the gates ---- */

#if defined(__AVX512VNNI__)

INLINE vec lesser(vec a, float b) { return (vec)_mm512_min_ps((__m512)a, _mm512_set1_ps(b)); }
INLINE vec nearest(vec x) { return (vec)_mm512_roundscale_ps((__m512)x, 0); }
INLINE vec times_power(vec x, vec n) { return (vec)_mm512_scalef_ps((__m512)x, (__m512)n); }
INLINE vec inverse(vec x) /* relative error 4e-9 and rounding */
{
    vec y = (vec)_mm512_rcp14_ps((__m512)x);
    return y * (2.0f - x * y);
}

#else

INLINE vec lesser(vec a, float b)
{
    ints more = a > b;
    return (vec)(((ints)a & ~more) | ((ints)((vec){} + b) & more));
}
INLINE vec nearest(vec x) { return (x + 12582912.0f) - 12582912.0f; } /* below 2^22 */
INLINE vec times_power(vec x, vec n)
{
    ints power = __builtin_convertvector(n, ints), small = power < -126;
    return (vec)(((ints)x + (power << 23)) & ~small);
}
INLINE vec inverse(vec x) { return 1.0f / x; }

#endif

INLINE vec exponential(vec x) /* relative error 3e-7; x is 80 or less */
{
    vec t = x * 1.44269504f, whole = nearest(t), r = t - whole;
    vec p = (vec){} + 1.3276472e-3f;
    p = p * r + 9.6704487e-3f;
    p = p * r + 5.5507133e-2f;
    p = p * r + 2.4022246e-1f;
    p = p * r + 6.9314720e-1f;
    p = p * r + 1.0f;
    return times_power(p, whole);
}

INLINE vec sigmoid(vec x) { return inverse(1.0f + exponential(lesser(-x, 80.0f))); }
INLINE vec hyperbolic_tangent(vec x) { return 2.0f * sigmoid(2.0f * x) - 1.0f; }

INLINE void round_state(uint8_t *p, vec h) /* to steps of 1/127, and 128 added */
{
    ints v = __builtin_convertvector(h * 127.0f + 128.5f, ints);
#if defined(__AVX512VNNI__)
    __m128i b = _mm512_cvtepi32_epi8((__m512i)v);
#else
    bytes b = __builtin_convertvector(v, bytes);
#endif
    memcpy(p, &b, sizeof b);
}

/* The sums of the gates from x, (T, directions, units / 16, 3, 16), biases included. */
static void input_gates(const struct layer *l, const uint8_t *x, const float *x_scale, long T,
                        long blocks, float *gates)
{
    int32_t sums[GATES * W * W] __attribute__((aligned(64)));
    for (long b = 0; b < blocks; b++)
        for (long row = 0; row < T; row += W) {
            long o = b * GATES * W, rows = T - row < W ? T - row : W;
            products(x + row * l->inputs, l->inputs, rows, l->input + o * l->inputs, l->inputs,
                     sums);
            for (int g = 0; g < GATES; g++, o += W) {
                vec scale = load(l->input_scale + o), bias = load(l->input_bias + o);
                ints shift = load_ints(l->input_shift + o);
                for (long i = 0; i < rows; i++) {
                    ints sum = load_ints(sums + (g * W + i) * W) - shift;
                    float *to = gates + ((row + i) * blocks + b) * GATES * W + g * W;
                    store(to, number(sum) * (scale * x_scale[row + i]) + bias);
                }
            }
        }
}

/* What a group of sentences is computed in. */
struct room {
    float *gates;       /* (T, directions * 3 * units) */
    uint8_t *x, *y;     /* (T, width): input and output of a layer */
    float *x_scale;     /* (T) */
    float *state;       /* (directions, W, units) */
    uint8_t *rounded;   /* (2, directions, W, units): before and after a step */
};

static void *part(char **free, long size)
{
    void *p = *free;
    *free += (size + 63) / 64 * 64;
    return p;
}

/* Lay out the room for groups of T tokens in `memory`; return how many bytes it takes. */
static long lay_out(struct room *r, const struct network *net, long T, char *memory)
{
    long E = net->layer[0].inputs, out = net->directions * net->units;
    long width = E > out ? E : out;
    char *start = memory = (char *)(((uintptr_t)memory + 63) / 64 * 64);
    T += W; /* a tile has 16 rows, even where fewer are left */
    r->gates = part(&memory, T * GATES * out * sizeof(float));
    r->x = part(&memory, T * width);
    r->y = part(&memory, T * width);
    r->x_scale = part(&memory, T * sizeof(float));
    r->state = part(&memory, W * out * sizeof(float));
    r->rounded = part(&memory, 2 * W * out);
    return memory - start + 63;
}

/* One layer of B sentences, from the longest to the shortest. Sentence i has the tokens
   start[i] to start[i + 1] and row[i] of `features` (…, 2, directions * units). These and `states`
   (T, directions * units) are written if they are not null. */
static void recur(const struct network *net, const struct layer *l, struct room *r,
                  const long *start, const long *row, long B, float *features, float *states)
{
    long H = net->units, D = net->directions, blocks = D * H / W, half = D * W * H;
    int32_t sums[GATES * W * W] __attribute__((aligned(64)));
    memset(r->state, 0, half * sizeof *r->state);
    memset(r->rounded, 128, half);
    long active = B;
    for (long t = 0;; t++) {
        while (active && start[active] - start[active - 1] <= t) active--;
        if (!active) break;
        const uint8_t *before = r->rounded + (t & 1) * half;
        uint8_t *after = r->rounded + (1 - (t & 1)) * half;
        for (long b = 0; b < blocks; b++) {
            long d = b * W / H, unit = b * W - d * H, o = b * GATES * W;
            const float *scale = l->recurrent_scale + o;
            vec update_scale = load(scale), reset_scale = load(scale + W);
            vec new_scale = load(scale + 2 * W), bias = load(l->reset_bias + b * W);
            products(before + d * W * H, H, active, l->recurrent + o * H, H, sums);
            for (long s = 0; s < active; s++) {
                long at = (d * W + s) * H + unit;
                long token = (d ? start[s + 1] - 1 - t : start[s] + t) - start[0];
                const float *gates = r->gates + (token * blocks + b) * GATES * W;
                const int32_t *p = sums + s * W;
                vec update = sigmoid(load(gates) + update_scale * product(p));
                vec reset = sigmoid(load(gates + W) + reset_scale * product(p + W * W));
                vec inner = bias + new_scale * product(p + 2 * W * W);
                vec new = hyperbolic_tangent(load(gates + 2 * W) + reset * inner);
                vec h = new + update * (load(r->state + at) - new);
                store(r->state + at, h);
                round_state(after + at, h);
                memcpy(r->y + token * D * H + b * W, after + at, W);
                if (states) store(states + token * D * H + b * W, h);
                if (!features) continue;
                float *last = features + row[s] * 2 * D * H + b * W, *most = last + D * H;
                vec m = load(most);
                ints more = h > m;
                store(most, t ? (vec)(((ints)h & more) | ((ints)m & ~more)) : h);
                if (t == start[s + 1] - start[s] - 1) store(last, h);
            }
        }
    }
}

/* Tokens that are computed together, for sentences from the longest to the shortest. */
static long group_size(const long *start, long B)
{
    long all = start[B] - start[0], longest = B ? start[1] - start[0] : 0;
    long most = longest > TOKENS ? longest : TOKENS;
    return all < most ? all : most;
}

/* How many bytes of memory `gru_int8` needs for these sentences. */
EXPORT long gru_int8_room(const struct network *net, const long *start, long B)
{
    struct room r;
    return lay_out(&r, net, group_size(start, B), NULL);
}

/* Features of B sentences, from the longest to the shortest: (B, 2, directions * units), the last
   state of each direction and the largest of each unit. Sentence i has the tokens start[i] to
   start[i + 1] of `tokens` and row[i] of `features`; each has one token or more, and each token is
   below the size of the embedding. `states` is (tokens, directions * units), or null if they are
   not asked for. `memory` has the bytes that `gru_int8_room` names. */
EXPORT void gru_int8(const struct network *net, const int32_t *tokens, const long *start,
                     const long *row, long B, float *features, float *states, char *memory)
{
    long E = net->layer[0].inputs, out = net->directions * net->units;
    struct room r;
    lay_out(&r, net, group_size(start, B), memory);
#ifdef TILES
    if (tiles) configure();
#endif
    for (long first = 0, many; first < B; first += many) {
        const long *from = start + first;
        for (many = 1; many < W && first + many < B && from[many + 1] - *from <= TOKENS;)
            many++;
        long n = from[many] - *from;
        for (long i = 0; i < n; i++) {
            long token = tokens[*from + i];
            memcpy(r.x + i * E, net->embedding + token * E, E);
            r.x_scale[i] = net->embedding_scale[token];
        }
        for (long k = 0; k < net->layers; k++) {
            const struct layer *l = net->layer + k;
            int top = k == net->layers - 1;
            input_gates(l, r.x, r.x_scale, n, out / W, r.gates);
            recur(net, l, &r, from, row + first, many, top ? features : NULL,
                  top && states ? states + *from * out : NULL);
            uint8_t *x = r.x;
            r.x = r.y, r.y = x;
            for (long i = 0; i < n; i++) r.x_scale[i] = 1.0f / 127;
        }
    }
#ifdef TILES
    if (tiles) _tile_release();
#endif
}

/* y = x w + bias for (rows, width) x, (classes, width) w and (rows, classes) y, in this thread. */
EXPORT void linear(const float *x, long rows, long width, const float *w, const float *bias,
                   long classes, float *y)
{
    for (long row = 0; row < rows; row++, x += width, y += classes)
        for (long c = 0; c < classes; c++) {
            const float *weights = w + c * width;
            vec sums[2] = {};
            long k = 0;
            for (; k + 2 * W <= width; k += 2 * W)
                for (int i = 0; i < 2; i++)
                    sums[i] += load(x + k + i * W) * load(weights + k + i * W);
            sums[0] += sums[1];
            float sum = bias[c];
            for (int i = 0; i < W; i++) sum += sums[0][i];
            for (; k < width; k++) sum += x[k] * weights[k];
            y[c] = sum;
        }
}

/* Ask for tiles, where CPU and system have them; to be called once, before `gru_int8`. */
EXPORT void gru_int8_prepare(long use_tiles)
{
#ifdef TILES
    unsigned a, b, c, d;
    int has = __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d >> 24 & 3) == 3;
    tiles = use_tiles && has && !syscall(SYS_arch_prctl, 0x1023 /* request */, 18 /* tile data */);
#else
    (void)use_tiles;
#endif
}

/* What the sums have added to the bytes of x. */
EXPORT long gru_int8_shift(void) { return SHIFT; }
