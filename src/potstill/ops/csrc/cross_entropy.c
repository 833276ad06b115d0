/* Cross-entropy over a vocabulary. */

#include "vectors.h"

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
