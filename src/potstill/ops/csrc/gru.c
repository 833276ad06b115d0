/* What one direction of a GRU does at a step besides its products, forward and backward, for all
   sentences. The plain formula is in ops/gru.py.

   `rows` (B) names the token that each sentence reads at the step, among all tokens of the batch,
   whose vectors are `width` times as far apart as they are long; `ended` (B) is not 0 for sentences
   that have ended before, whose state stays. */

#include "vectors.h"

INLINE vec sigmoid(vec x) { return 1.0f / (1.0f + exponential(-x)); }

/* inputs (tokens, 3 H) and product (B, 3 H): the sums of reset, keep and new state, of x and of the
   state. bias (4 H): of reset, keep, new state, and of the new state within the reset. before, after
   (B, H): the states. rounded (B, H): after in bf16, or null. gates (B, 4, H): reset, keep, new
   state, and the recurrent part of the new state. out (tokens, H): the states. */
EXPORT void gru_forward_step(const bf16 *inputs, const bf16 *product, const float *bias,
                             const long *rows, const uint8_t *ended, const float *before,
                             float *after, bf16 *rounded, float *gates, float *out, long width,
                             long B, long H)
{
    for (long b = 0; b < B; b++, product += 3 * H, before += H, after += H, gates += 4 * H) {
        const bf16 *x = inputs + rows[b] * width * 3 * H;
        float *y = out + rows[b] * width * H;
        bf16 *next = rounded ? rounded + b * H : NULL;
        for (long j = 0; j < H; j += W) {
            vec r = widen(x + j) + widen(product + j) + load(bias + j);
            vec z = widen(x + H + j) + widen(product + H + j) + load(bias + H + j);
            vec inner = widen(product + 2 * H + j) + load(bias + 3 * H + j);
            r = sigmoid(r), z = sigmoid(z);
            vec n = widen(x + 2 * H + j) + load(bias + 2 * H + j) + r * inner;
            n = 2.0f * sigmoid(2.0f * n) - 1.0f;
            vec h = load(before + j);
            if (!ended[b]) h = n + z * (h - n);
            store(gates + j, r), store(gates + H + j, z);
            store(gates + 2 * H + j, n), store(gates + 3 * H + j, inner);
            store(after + j, h), store(y + j, h);
            if (next) narrow(next + j, h);
        }
    }
}

/* grad (tokens, H): the gradient of `out`. product (B, H): that of the state after the step, by the
   products of the step after; null at the last step. carry (B, H): the rest of it, replaced by that
   of the state before the step. Gradients of the sums are written to grad_input (tokens, 3 H) and
   grad_hidden (B, 3 H), and added to grad_bias (4 H). */
EXPORT void gru_backward_step(const float *grad, const long *rows, const uint8_t *ended,
                              const float *gates, const float *before, const bf16 *product,
                              float *carry, bf16 *grad_input, bf16 *grad_hidden,
                              float *grad_bias, long width, long B, long H)
{
    for (long b = 0; b < B; b++, before += H, carry += H, gates += 4 * H) {
        const float *y = grad + rows[b] * width * H;
        bf16 *to_x = grad_input + rows[b] * width * 3 * H, *to_h = grad_hidden + b * 3 * H;
        for (long j = 0; j < H; j += W) {
            vec g = load(carry + j) + load(y + j);
            if (product) g += widen(product + b * H + j);
            vec dr = {}, dz = {}, dn = {}, inner = {};
            if (!ended[b]) {
                vec r = load(gates + j), z = load(gates + H + j), n = load(gates + 2 * H + j);
                dn = g * (1.0f - z) * (1.0f - n * n);
                dz = g * (load(before + j) - n) * z * (1.0f - z);
                dr = dn * load(gates + 3 * H + j) * r * (1.0f - r);
                inner = dn * r;
                g *= z;
            }
            store(carry + j, g);
            narrow(to_x + j, dr), narrow(to_x + H + j, dz), narrow(to_x + 2 * H + j, dn);
            narrow(to_h + j, dr), narrow(to_h + H + j, dz), narrow(to_h + 2 * H + j, inner);
            float *s = grad_bias + j;
            store(s, load(s) + dr), store(s + H, load(s + H) + dz);
            store(s + 2 * H, load(s + 2 * H) + dn), store(s + 3 * H, load(s + 3 * H) + inner);
        }
    }
}
