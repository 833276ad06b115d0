"""Cross-entropy over a vocabulary, its gradients made along with the loss."""

import torch
from torch import Tensor

from potstill.ops import kernels

ROWS = 128  # tokens whose probabilities are computed at once; they stay in the cache


class TiedCrossEntropy(torch.autograd.Function):
    """Mean cross-entropy of softmax(hidden · weightᵀ + bias) with (N, K) `places` of (N, K)
    `shares` each, the products in `dtype`.

    The gradients are made with the loss, a few rows at a time: all probabilities at once would go
    through memory several times over.
    """

    @staticmethod
    def forward(ctx, hidden, weight, bias, places, shares, dtype):
        rows, matrix = hidden.to(dtype), weight.to(dtype)
        of_logits = rows.new_empty(len(rows), len(matrix))
        of_bias, total = torch.zeros_like(bias), 0.0
        for start in range(0, len(rows), ROWS):
            part = slice(start, start + ROWS)
            logits = torch.mm(rows[part], matrix.T, out=of_logits[part])
            total += cross_entropy_(logits, bias, places[part], shares[part], of_bias)
        ctx.save_for_backward(
            (of_logits @ matrix).to(hidden.dtype), (of_logits.T @ rows).to(weight.dtype), of_bias
        )
        return hidden.new_tensor(total / len(rows))

    @staticmethod
    def backward(ctx, grad):
        hidden, weight, bias = ctx.saved_tensors
        share = grad / len(hidden)
        return hidden * share, weight * share, bias * share, None, None, None


def cross_entropy_(
    logits: Tensor, bias: Tensor, places: Tensor, shares: Tensor, of_bias: Tensor
) -> float:
    """The sum over rows of −Σ share · log softmax(logits + bias)[place]; puts its gradient in the
    place of the (N, V) `logits` and adds that of the bias to `of_bias`."""
    if kernels.supports(logits, logits.shape[1]) and bias.dtype == torch.float32:
        return kernels.cross_entropy(logits, bias, places, shares, of_bias)
    wide = logits.to(bias.dtype).add_(bias)
    wide.sub_(wide.amax(1, keepdim=True))
    mass = shares.sum(1, keepdim=True)
    total = -(wide.gather(1, places) * shares).sum()
    wide.exp_()
    sums = wide.sum(1, keepdim=True)
    total += (sums.log() * mass).sum()
    wide.mul_(mass / sums).scatter_add_(1, places, -shares)
    of_bias += wide.sum(0)
    logits.copy_(wide)
    return float(total)
