/* Norm and activations. */

#include "vectors.h"

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
