"""Small operations on a GPU, one Triton kernel each: norm, activation, drawing tokens,
cross-entropy; and those of `triton_attention.py`.

In PyTorch each takes five to ten passes through memory; over short sentences these took most of the
time, not the matrix products. All but cross-entropy are forward passes only. The plain formulas
stand in `fused.py`, `attention.py` and `cross_entropy.py`, and the tests compare these with them.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from potstill.ops.triton_attention import SHORT, decode_attention, short_attention

__all__ = [
    "SHORT",
    "cross_entropy_",
    "decode_attention",
    "draw",
    "rms_norm",
    "short_attention",
    "swiglu",
]


@triton.jit
def _rms_norm(x, weight, out, width, eps, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, BLOCK)
    inside = at < width
    values = tl.load(x + row * width + at, mask=inside, other=0.0).to(tl.float32)
    scale = tl.rsqrt(tl.sum(values * values, 0) / width + eps)
    factors = tl.load(weight + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(
        out + row * width + at, (values * scale * factors).to(out.dtype.element_ty), mask=inside
    )


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Return x / rms(x) · weight of (…, D), computed in fp32; see `fused.RMSNorm`."""
    x = x.contiguous()
    out = torch.empty_like(x)
    width = x.shape[-1]
    rows = x.numel() // width
    if rows:
        _rms_norm[(rows,)](
            x, weight, out, width, eps, BLOCK=triton.next_power_of_2(width), num_warps=4
        )
    return out


@triton.jit
def _swiglu(gate_up, out, width, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = at < width
    gate = tl.load(gate_up + row * 2 * width + at, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(gate_up + row * 2 * width + width + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(
        out + row * width + at, (gate * tl.sigmoid(gate) * up).to(out.dtype.element_ty), mask=inside
    )


def swiglu(gate_up: Tensor) -> Tensor:
    """Return silu(gate) · up, (…, N), of both side by side, (…, 2 N); see `fused.SwiGLU`."""
    gate_up = gate_up.contiguous()
    width = gate_up.shape[-1] // 2
    out = gate_up.new_empty(*gate_up.shape[:-1], width)
    rows = out.numel() // width
    if rows:
        _swiglu[(rows, triton.cdiv(width, 1024))](gate_up, out, width, BLOCK=1024, num_warps=4)
    return out


@triton.jit
def _draw(logits, out, width, scale, seed, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    best = tl.full((BLOCK,), -float("inf"), tl.float32)
    place = tl.zeros((BLOCK,), tl.int32)
    for start in range(0, width, BLOCK):
        at = start + tl.arange(0, BLOCK)
        inside = at < width
        values = tl.load(logits + row * width + at, mask=inside, other=-float("inf")).to(tl.float32)
        uniform = tl.rand(seed, (row * width + at).to(tl.int32))
        noise = -tl.log(-tl.log(tl.maximum(uniform, 1e-10)))
        values = values * scale + noise
        values = tl.where(inside, values, -float("inf"))
        better = values > best
        best = tl.where(better, values, best)
        place = tl.where(better, at, place)
    winner = tl.argmax(best, 0)
    tl.store(out + row, tl.sum(tl.where(tl.arange(0, BLOCK) == winner, place, 0), 0).to(tl.int64))


def draw(logits: Tensor, temperature: float, seed: int) -> Tensor:
    """Draw a class, (B,), from the softmax of each row of (B, V) logits at `temperature`.

    The class with the largest logit / temperature + Gumbel noise (Maddison, Tarlow and Minka 2014,
    *A* Sampling*, section 2), in one pass; `seed` settles the noise.
    """
    logits = logits.contiguous()
    out = torch.empty(len(logits), dtype=torch.long, device=logits.device)
    if len(logits):
        _draw[(len(logits),)](
            logits, out, logits.shape[1], 1 / temperature, seed, BLOCK=2048, num_warps=4
        )
    return out


@triton.jit
def _cross_entropy(
    logits, bias, token_ids, probs, losses, width,
    TARGETS: tl.constexpr, PADDED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    base = logits + row * width
    target = tl.arange(0, PADDED)
    real = target < TARGETS
    ids = tl.load(token_ids + row * TARGETS + target, mask=real, other=0).to(tl.int64)
    weights = tl.load(probs + row * TARGETS + target, mask=real, other=0.0).to(tl.float32)
    mass = tl.sum(weights, 0)
    wanted = tl.load(base + ids, mask=real, other=0.0).to(tl.float32)
    wanted += tl.load(bias + ids, mask=real, other=0.0).to(tl.float32)
    best = tl.full((BLOCK,), -1e30, tl.float32)
    total = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, width, BLOCK):
        at = start + tl.arange(0, BLOCK)
        inside = at < width
        values = tl.load(base + at, mask=inside, other=-1e30).to(tl.float32)
        values += tl.load(bias + at, mask=inside, other=0.0).to(tl.float32)
        larger = tl.maximum(best, values)
        total = total * tl.exp(best - larger) + tl.exp(values - larger)
        best = larger
    most = tl.max(best, 0)
    log_total = most + tl.log(tl.sum(total * tl.exp(best - most), 0))
    tl.store(losses + row, mass * log_total - tl.sum(wanted * weights, 0))
    for start in range(0, width, BLOCK):
        at = start + tl.arange(0, BLOCK)
        inside = at < width
        values = tl.load(base + at, mask=inside, other=-1e30).to(tl.float32)
        values += tl.load(bias + at, mask=inside, other=0.0).to(tl.float32)
        grad = mass * tl.exp(values - log_total)
        tl.store(base + at, grad.to(logits.dtype.element_ty), mask=inside)


def cross_entropy_(logits: Tensor, bias: Tensor, token_ids: Tensor, probs: Tensor) -> Tensor:
    """Return the loss of each row, (N,), −Σ probs · log softmax(logits + bias)[token_ids], in nats.

    Args:
        logits: (N, V); replaced by Σ probs · softmax(logits + bias), the dense part of their
            gradient. From it `probs` is yet to be subtracted at `token_ids`.
        bias: (V,).
        token_ids: (N, K) targets of each row.
        probs: (N, K) probabilities of the targets.
    """
    losses = torch.empty(len(logits), device=logits.device)
    if len(logits):
        _cross_entropy[(len(logits),)](
            logits, bias, token_ids.contiguous(), probs.contiguous(), losses, logits.shape[1],
            TARGETS=token_ids.shape[1], PADDED=triton.next_power_of_2(token_ids.shape[1]),
            BLOCK=2048, num_warps=4,
        )  # fmt: skip
    return losses
