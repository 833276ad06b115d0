"""Causal self-attention; on CPUs, for short sentences, by one product over all pairs of tokens.

PyTorch's flash attention for CPUs is made for thousands of tokens; at ten tokens its backward pass
alone took a quarter of a training step.
"""

from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

from potstill.ops import gpu, kernels

# Up to this length the plain product is faster than PyTorch's attention.
PLAIN_ATTENTION_TOKENS = 256


def attention(
    qkv: Tensor,
    heads: int,
    kv_heads: int,
    *,
    rotary: tuple[Tensor, Tensor] | None = None,
    last: Tensor | None = None,
) -> Tensor:
    """Return causal attention (Vaswani et al. 2017, *Attention Is All You Need*, section 3.2).

    Args:
        qkv: (B, L, (heads + 2 kv_heads) · size): queries, keys and values side by side. Each key
            and value serves heads / kv_heads queries (Ainslie et al. 2023, *GQA*, section 2.2).
        rotary: cosines and signed sines, (L, size), that queries and keys are rotated by; see
            `apply_rope`.
        last: (B,) positions of the only tokens whose output is computed; None for all.

    Returns:
        (B, L, heads · size), or (B, 1, heads · size) with `last`.
    """
    size = qkv.shape[2] // (heads + 2 * kv_heads)
    fused = gpu.attention_kernels(qkv, size)
    if fused and last is None and qkv.shape[1] <= fused.SHORT:
        return fused.short_attention(qkv, heads, kv_heads, rotary)
    if qkv.shape[1] <= PLAIN_ATTENTION_TOKENS and kernels.supports(qkv, size):
        return CompiledAttention.apply(qkv, heads, kv_heads, rotary, last)
    if qkv.is_cpu and qkv.shape[1] <= PLAIN_ATTENTION_TOKENS:
        return PlainAttention.apply(qkv, heads, kv_heads, rotary, last)
    B, L, _ = qkv.shape
    q, k, v = qkv.view(B, L, heads + 2 * kv_heads, -1).split([heads, kv_heads, kv_heads], dim=2)
    if rotary:
        q, k = (apply_rope(x, *(r[:, None] for r in rotary)).to(v.dtype) for x in (q, k))
    mask = None
    if last is not None:
        q = q[torch.arange(B, device=q.device), last].unsqueeze(1)
        mask = (torch.arange(L, device=q.device) <= last[:, None])[:, None, None]
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    grouped = kv_heads != heads
    out = F.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, is_causal=mask is None, enable_gqa=grouped
    )
    return out.transpose(1, 2).flatten(2)


def cached_attention(
    qkv: Tensor,
    keys: Tensor,
    values: Tensor,
    positions: Tensor,
    *,
    rotary: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """Return attention of one new token of each of B sentences over itself and those before it.

    Args:
        qkv: (B, (heads + 2 kv_heads) · size), as in `attention`.
        keys: (B, kv_heads, max_seq_len, size) of the earlier tokens; the new token's is stored in
            it.
        values: like `keys`.
        positions: (B,) positions of the new tokens in their sentences.
        rotary: cosines and signed sines, (max_seq_len, size).

    Returns:
        (B, heads · size)
    """
    B, kv_heads, _, size = keys.shape
    if fused := gpu.attention_kernels(qkv, size):
        return fused.decode_attention(qkv, keys, values, positions, rotary)
    heads = qkv.shape[1] // size - 2 * kv_heads
    q, k, v = qkv.view(B, -1, size).split([heads, kv_heads, kv_heads], dim=1)
    if rotary:
        cos, sin = (angles[positions][:, None] for angles in rotary)
        q, k = (apply_rope(x, cos, sin).to(v.dtype) for x in (q, k))
    rows = torch.arange(B, device=qkv.device)
    keys[rows, :, positions] = k
    values[rows, :, positions] = v
    L = int(positions.max()) + 1
    future = torch.arange(L, device=qkv.device) > positions[:, None, None, None]
    scores = q.reshape(B, kv_heads, -1, size) @ keys[:, :, :L].transpose(2, 3)
    weights = (size**-0.5 * scores.float()).masked_fill_(future, -torch.inf).softmax(-1)
    return (weights.to(v.dtype) @ values[:, :, :L]).reshape(B, -1)


def apply_rope(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate the pairs (i, i + size / 2) of (…, L, size) `x` by the angles of their positions.

    Rotary embedding (Su et al. 2021, *RoFormer*, section 3.2.2).

    Args:
        x: (…, L, size) queries or keys.
        cos: cosines, (L, size).
        sin: sines, (L, size), negated in the first half.
    """
    return (x * cos).addcmul_(x.roll(x.shape[-1] // 2, dims=-1), sin)


class CompiledAttention(torch.autograd.Function):
    """`attention` in bf16 by csrc/attention.c; only its input is saved for the backward pass."""

    @staticmethod
    def forward(ctx, qkv, heads, kv_heads, rotary, last):
        qkv = qkv.contiguous()
        ctx.save_for_backward(qkv, last)
        ctx.shape = heads, kv_heads, rotary
        return kernels.attention(qkv, heads, kv_heads, rotary=rotary, last=last)

    @staticmethod
    def backward(ctx, grad):
        qkv, last = ctx.saved_tensors
        heads, kv_heads, rotary = ctx.shape
        grad = grad.contiguous()
        grad_qkv = kernels.attention_backward(
            qkv, grad, heads=heads, kv_heads=kv_heads, rotary=rotary, last=last
        )
        return grad_qkv, None, None, None, None


class PlainAttention(torch.autograd.Function):
    """`attention` by batched products in fp32, forward and backward pass written out.

    The queries that share a key are stacked, so that no key is repeated.
    """

    @staticmethod
    def forward(ctx, qkv, heads, kv_heads, rotary, last):
        B, L, width = qkv.shape
        group, size = heads // kv_heads, width // (heads + 2 * kv_heads)
        wide = torch.promote_types(qkv.dtype, torch.float32)
        q, k, v = _views(qkv, heads, kv_heads)
        if last is not None:
            q = q[:, torch.arange(B), :, last].transpose(0, 1).unsqueeze(3)
        q, k, v = (_dense(x, wide) for x in (q, k, v))
        if rotary:
            cos, sin = rotary
            k = apply_rope(k, cos, sin)
            q = apply_rope(q, *_select_angles(last, cos, sin))
        Lq = q.shape[3]
        q = q.reshape(kv_heads * B, group * Lq, size)
        k, v = (x.reshape(kv_heads * B, L, size) for x in (k, v))
        if last is None:
            mask = _causal_mask(L, group, wide)
        else:
            mask = torch.zeros(B, 1, L, dtype=wide)
            mask.masked_fill_(torch.arange(L) > last[:, None, None], -torch.inf)
            mask = mask.repeat(kv_heads, 1, 1)
        weights = torch.baddbmm(mask, q, k.transpose(1, 2), alpha=size**-0.5)
        # Softmax by hand: PyTorch's takes three times as long on rows of ten numbers.
        weights.sub_(weights.amax(-1, keepdim=True)).exp_()
        weights.div_(weights.sum(-1, keepdim=True))
        ctx.save_for_backward(q, k, v, weights, last)
        ctx.shape, ctx.dtype, ctx.rotary = (heads, kv_heads, B, L), qkv.dtype, rotary
        out = (weights @ v).view(kv_heads, B, group, Lq, size).permute(1, 3, 0, 2, 4)
        return _dense(out, qkv.dtype).view(B, Lq, heads * size)

    @staticmethod
    def backward(ctx, grad):
        q, k, v, weights, last = ctx.saved_tensors
        heads, kv_heads, B, L = ctx.shape
        group, size, Lq = heads // kv_heads, q.shape[2], grad.shape[1]
        grad = grad.view(B, Lq, kv_heads, group, size).permute(2, 0, 3, 1, 4)
        grad = _dense(grad, q.dtype).view(kv_heads * B, group * Lq, size)
        grad_v = weights.transpose(1, 2) @ grad
        grad_weights = grad @ v.transpose(1, 2)
        shift = (grad_weights * weights).sum(-1, keepdim=True)
        scores = grad_weights.sub_(shift).mul_(weights).mul_(size**-0.5)
        grad_q = (scores @ k).view(kv_heads, B, group, Lq, size)
        grad_k = (scores.transpose(1, 2) @ q).view(kv_heads, B, L, size)
        if ctx.rotary:  # the gradient is rotated back
            cos, sin = ctx.rotary
            grad_k = apply_rope(grad_k, cos, -sin)
            grad_q = apply_rope(grad_q, *_select_angles(last, cos, -sin))
        grad_qkv = torch.empty(B, L, (heads + 2 * kv_heads) * size, dtype=ctx.dtype)
        out_q, out_k, out_v = _views(grad_qkv, heads, kv_heads)
        if last is None:
            out_q.copy_(grad_q)
        else:
            out_q.zero_()
            out_q[:, torch.arange(B), :, last] = grad_q.squeeze(3).transpose(0, 1).to(ctx.dtype)
        out_k.copy_(grad_k)
        out_v.copy_(grad_v.view(kv_heads, B, L, size))
        return grad_qkv, None, None, None, None


@cache
def _causal_mask(L: int, group: int, dtype: torch.dtype) -> Tensor:
    """Return (group · L, L): 0 up to a query's own position, -inf after it."""
    return torch.full((L, L), -torch.inf, dtype=dtype).triu(1).repeat(group, 1)


def _views(qkv: Tensor, heads: int, kv_heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return views of `qkv`: queries (kv_heads, B, group, L, size), keys and values
    (kv_heads, B, L, size)."""
    B, L, _ = qkv.shape
    q, k, v = qkv.view(B, L, heads + 2 * kv_heads, -1).split([heads, kv_heads, kv_heads], dim=2)
    q = q.unflatten(2, (kv_heads, heads // kv_heads)).permute(2, 0, 3, 1, 4)
    return q, k.permute(2, 0, 1, 3), v.permute(2, 0, 1, 3)


def _dense(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a contiguous copy of `x` in another dtype, in one pass."""
    return torch.empty(x.shape, dtype=dtype).copy_(x)


def _select_angles(last: Tensor | None, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    """Return the angles of all tokens, or those at the positions `last`: (B, 1, 1, size)."""
    if last is None:
        return cos, sin
    return cos[last][:, None, None], sin[last][:, None, None]
