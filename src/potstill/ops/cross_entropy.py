"""Cross-entropy over a vocabulary, whose gradients are computed together with the loss."""

import torch
from torch import Tensor

from potstill.ops import gpu, kernels

ROWS = 128  # tokens whose probabilities are computed at once, so that they stay in the cache


class TiedCrossEntropy(torch.autograd.Function):
    """Mean cross-entropy, in nats, of softmax(hidden · weightᵀ + bias) with K target tokens a row.

    The gradients are computed with the loss, a few rows at a time: all probabilities at once would
    pass through memory several times.

    Args:
        hidden: (N, D) states.
        weight: (V, D), the embedding matrix that the output layer shares.
        bias: (V,).
        token_ids: (N, K) targets of each row.
        probs: (N, K) probabilities of the targets.
        dtype: dtype of the matrix products.
    """

    @staticmethod
    def forward(ctx, hidden, weight, bias, token_ids, probs, dtype):
        rows, matrix = hidden.to(dtype), weight.to(dtype)
        if rows.is_cuda:
            return _forward_on_gpu(ctx, hidden, rows, weight, matrix, bias, token_ids, probs)
        grad_logits = rows.new_empty(len(rows), len(matrix))
        grad_bias, total = torch.zeros_like(bias), 0.0
        for start in range(0, len(rows), ROWS):
            part = slice(start, start + ROWS)
            logits = torch.mm(rows[part], matrix.T, out=grad_logits[part])
            total += cross_entropy_(logits, bias, token_ids[part], probs[part], grad_bias=grad_bias)
        grad_hidden = (grad_logits @ matrix).to(hidden.dtype)
        grad_weight = (grad_logits.T @ rows).to(weight.dtype)
        ctx.save_for_backward(grad_hidden, grad_weight, grad_bias)
        return hidden.new_tensor(total / len(rows))

    @staticmethod
    def backward(ctx, grad):
        grad_hidden, grad_weight, grad_bias = ctx.saved_tensors
        scale = grad / len(grad_hidden)
        return grad_hidden * scale, grad_weight * scale, grad_bias * scale, None, None, None


def _forward_on_gpu(ctx, hidden, rows, weight, matrix, bias, token_ids, probs):
    """All rows at once, without waiting for the GPU; see `TiedCrossEntropy`."""
    logits = rows @ matrix.T
    if fused := gpu.load_kernels():
        losses = fused.cross_entropy_(logits, bias, token_ids, probs)
        logits.scatter_add_(1, token_ids, -probs.to(logits.dtype))
    else:
        wide = logits.to(bias.dtype) + bias
        log_probs = wide.log_softmax(1)
        losses = -(log_probs.gather(1, token_ids) * probs).sum(1)
        grad = log_probs.exp_().mul_(probs.sum(1, keepdim=True))
        logits = grad.scatter_add_(1, token_ids, -probs).to(rows.dtype)
    ctx.save_for_backward(
        (logits @ matrix).to(hidden.dtype),
        (logits.T @ rows).to(weight.dtype),
        logits.sum(0, dtype=bias.dtype),
    )
    return losses.mean().to(hidden.dtype)


def cross_entropy_(
    logits: Tensor, bias: Tensor, token_ids: Tensor, probs: Tensor, *, grad_bias: Tensor
) -> float:
    """Return −Σ probs · log softmax(logits + bias)[token_ids], summed over rows, in nats.

    Args:
        logits: (N, V); replaced by their gradient.
        bias: (V,).
        token_ids: (N, K) targets of each row.
        probs: (N, K) probabilities of the targets.
        grad_bias: (V,); the gradient of the bias is added to it.
    """
    if kernels.supports(logits, logits.shape[1]) and bias.dtype == torch.float32:
        return kernels.cross_entropy(logits, bias, token_ids, probs, grad_bias=grad_bias)
    wide = logits.to(bias.dtype).add_(bias)
    wide.sub_(wide.amax(1, keepdim=True))
    mass = probs.sum(1, keepdim=True)
    total = -(wide.gather(1, token_ids) * probs).sum()
    wide.exp_()
    sums = wide.sum(1, keepdim=True)
    total += (sums.log() * mass).sum()
    wide.mul_(mass / sums).scatter_add_(1, token_ids, -probs)
    grad_bias += wide.sum(0)
    logits.copy_(wide)
    return float(total)
