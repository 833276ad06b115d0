"""The blocks of GPT-2 and Llama decoders, written out for short sentences.

They compute what transformers' modules compute, from the same parameters, in fewer and cheaper
passes. At ten tokens a sentence most of the time outside the matrix products is overhead: a
flash-attention kernel made for thousands of tokens, norms in five kernels, three thin LoRA
products where one would do. And of the last block only the last token's output is ever read.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import GPT2Model, LlamaModel

from potstill.lora import JoinedLinear, linear_names

# Up to here the plain product of all pairs of tokens beats PyTorch's CPU flash attention.
PLAIN_ATTENTION_TOKENS = 256


@dataclass(frozen=True)
class Block:
    """One block: two norms and four products; `qkv` and `up` join layers that share an input."""

    norm1: Callable[[Tensor], Tensor]
    qkv: JoinedLinear
    out: JoinedLinear
    norm2: Callable[[Tensor], Tensor]
    up: JoinedLinear
    down: JoinedLinear


@dataclass(frozen=True)
class Blocks:
    """A decoder taken apart.

    embed: (B, L) tokens to (B, L, width); activation: what stands between `up` and `down`; heads,
    kv_heads: of queries and of keys; rotary: L to the cosines and signed sines of Su et al. 2021
    (*RoFormer*, section 3.2.2), each (L, head size), or to None where positions are embedded.
    """

    embed: Callable[[Tensor], Tensor]
    blocks: Sequence[Block]
    norm: Callable[[Tensor], Tensor]
    activation: Callable[[Tensor], Tensor]
    heads: int
    kv_heads: int
    rotary: Callable[[int], tuple[Tensor, Tensor] | None]

    def last_hidden(self, input_ids: Tensor, lengths: Tensor) -> Tensor:
        """(B, L) tokens padded on the right, (B,) lengths: (B, width) states of the last ones."""
        x = self.embed(input_ids)
        rotary = self.rotary(input_ids.shape[1])
        last = lengths - 1
        for number, block in enumerate(self.blocks, 1):
            qkv = block.qkv(block.norm1(x))
            only = None
            if number == len(self.blocks):
                only = last
                x = x[torch.arange(len(last), device=x.device), last].unsqueeze(1)
            x = x + block.out(attention(qkv, self.heads, self.kv_heads, rotary, only))
            x = x + block.down(self.activation(block.up(block.norm2(x))))
        return self.norm(x).squeeze(1)


def take_apart(base: Any) -> Blocks | None:
    """The blocks of a decoder of transformers; None where it is none of those written out here.

    What they hold of the frozen weights is a snapshot: take apart anew after changing them. Linear
    layers that are trained whole get no gradient here, so a base that has some is left together.
    """
    if any(base.get_submodule(name).weight.requires_grad for name in linear_names(base)):
        return None
    config = base.config
    if type(base) is GPT2Model:
        usual = config.activation_function in ("gelu_new", "gelu_pytorch_tanh")
        usual &= config.scale_attn_weights and not config.scale_attn_by_inverse_layer_idx
        usual &= not config.add_cross_attention
        return _gpt2(base) if usual else None
    if type(base) is LlamaModel:
        return _llama(base) if config.hidden_act == "silu" else None
    return None


def _gpt2(base: Any) -> Blocks:
    def embed(input_ids: Tensor) -> Tensor:
        return base.wte(input_ids) + base.wpe.weight[: input_ids.shape[1]]

    blocks = [
        Block(
            _layer_norm(block.ln_1),
            JoinedLinear([block.attn.c_attn]),
            JoinedLinear([block.attn.c_proj]),
            _layer_norm(block.ln_2),
            JoinedLinear([block.mlp.c_fc]),
            JoinedLinear([block.mlp.c_proj]),
        )
        for block in base.h
    ]
    heads = base.config.n_head
    return Blocks(embed, blocks, _layer_norm(base.ln_f), _gelu, heads, heads, lambda L: None)


def _llama(base: Any) -> Blocks:
    def rotary(L: int) -> tuple[Tensor, Tensor]:
        positions = torch.arange(L, device=base.device)
        # Asked for in fp32 whatever the weights are.
        cos, sin = base.rotary_emb(torch.empty(0, device=base.device), positions[None])
        minus, plus = sin[0].chunk(2, dim=-1)
        return cos[0], torch.cat([-minus, plus], dim=-1)

    blocks = [
        Block(
            _rms_norm(block.input_layernorm),
            JoinedLinear([block.self_attn.q_proj, block.self_attn.k_proj, block.self_attn.v_proj]),
            JoinedLinear([block.self_attn.o_proj]),
            _rms_norm(block.post_attention_layernorm),
            JoinedLinear([block.mlp.gate_proj, block.mlp.up_proj]),
            JoinedLinear([block.mlp.down_proj]),
        )
        for block in base.layers
    ]
    config = base.config
    heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
    norm = _rms_norm(base.norm)
    return Blocks(base.embed_tokens, blocks, norm, SwiGLU.apply, heads, kv_heads, rotary)


def _gelu(x: Tensor) -> Tensor:
    """GPT-2's "gelu_new" in one kernel (Hendrycks and Gimpel 2016, section 2)."""
    return F.gelu(x, approximate="tanh")


def _layer_norm(norm: nn.LayerNorm) -> Callable[[Tensor], Tensor]:
    def apply(x: Tensor) -> Tensor:
        if x.is_cpu:  # this kernel takes bf16 with fp32 weights
            return F.layer_norm(x, norm.normalized_shape, norm.weight, norm.bias, norm.eps)
        whole = F.layer_norm(x.float(), norm.normalized_shape, norm.weight, norm.bias, norm.eps)
        return whole.to(x.dtype)

    return apply


def _rms_norm(norm: Any) -> Callable[[Tensor], Tensor]:
    return lambda x: RMSNorm.apply(x, norm.weight, norm.variance_epsilon)


class RMSNorm(torch.autograd.Function):
    """x / rms(x) · weight, computed in fp32 (Zhang and Sennrich 2019, equation 4)."""

    @staticmethod
    def forward(ctx, x, weight, eps):
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        scale = (wide.square().mean(-1, keepdim=True) + eps).rsqrt_()
        ctx.save_for_backward(x, weight, scale)
        return (wide * scale).mul_(weight).to(x.dtype)

    @staticmethod
    def backward(ctx, grad):
        x, weight, scale = ctx.saved_tensors
        unit = x * scale  # fp32, by promotion
        grad = grad.to(unit.dtype)
        grad_weight = (grad * unit).flatten(0, -2).sum(0)
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad = grad * weight
            shared = (grad * unit).mean(-1, keepdim=True)
            grad_x = grad.sub_(unit.mul_(shared)).mul_(scale).to(x.dtype)
        return grad_x, grad_weight.to(weight.dtype), None


class SwiGLU(torch.autograd.Function):
    """silu(gate) · up of both side by side, (…, 2 N) to (…, N) (Shazeer 2020, equation 6)."""

    @staticmethod
    def forward(ctx, gate_up):
        gate, up = gate_up.chunk(2, dim=-1)
        active = F.silu(gate)
        ctx.save_for_backward(gate_up, active)
        return active * up

    @staticmethod
    def backward(ctx, grad):
        gate_up, active = ctx.saved_tensors
        gate, up = gate_up.chunk(2, dim=-1)
        grad_gate_up = torch.empty_like(gate_up)
        grad_gate, grad_up = grad_gate_up.chunk(2, dim=-1)
        torch.mul(grad, active, out=grad_up)
        grad_gate.copy_(torch.ops.aten.silu_backward(grad * up, gate))
        return grad_gate_up


def attention(
    qkv: Tensor,
    heads: int,
    kv_heads: int,
    rotary: tuple[Tensor, Tensor] | None = None,
    last: Tensor | None = None,
) -> Tensor:
    """Causal attention (Vaswani et al. 2017, section 3.2).

    Args:
        qkv: (B, L, (heads + 2 kv_heads) · size): queries, keys and values side by side. Each key
            and value serves heads / kv_heads queries (Ainslie et al. 2023, section 2.2).
        rotary: cosines and signed sines, (L, size), that queries and keys are turned by.
        last: (B,) places of the only tokens to be answered for.

    Returns:
        (B, L, heads · size), or (B, 1, heads · size) with `last`.
    """
    if qkv.is_cpu and qkv.shape[1] <= PLAIN_ATTENTION_TOKENS:
        return PlainAttention.apply(qkv, heads, kv_heads, rotary, last)
    B, L, _ = qkv.shape
    q, k, v = qkv.view(B, L, heads + 2 * kv_heads, -1).split([heads, kv_heads, kv_heads], dim=2)
    if rotary:
        q, k = (_turn(x, *(r[:, None] for r in rotary)).to(v.dtype) for x in (q, k))
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


def _turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding: pairs (i, i + size / 2) of (…, L, size) turned by their angles.

    sin: negative for the first of each pair.
    """
    return (x * cos).addcmul_(x.roll(x.shape[-1] // 2, dims=-1), sin)


class PlainAttention(torch.autograd.Function):
    """`attention` by batched products in fp32, forward and backward written out.

    The queries that share a key stand under each other, so that no key is repeated.
    """

    @staticmethod
    def forward(ctx, qkv, heads, kv_heads, rotary, last):
        B, L, width = qkv.shape
        shared, size = heads // kv_heads, width // (heads + 2 * kv_heads)
        wide = torch.promote_types(qkv.dtype, torch.float32)
        q, k, v = _views(qkv, heads, kv_heads)
        if last is not None:
            q = q[:, torch.arange(B), :, last].transpose(0, 1).unsqueeze(3)
        q, k, v = (_dense(x, wide) for x in (q, k, v))
        if rotary:
            cos, sin = rotary
            k = _turn(k, cos, sin)
            q = _turn(q, *_at(last, cos, sin))
        Lq = q.shape[3]
        q = q.reshape(kv_heads * B, shared * Lq, size)
        k, v = (x.reshape(kv_heads * B, L, size) for x in (k, v))
        if last is None:
            mask = _causal_mask(L, shared, wide)
        else:
            mask = torch.zeros(B, 1, L, dtype=wide)
            mask.masked_fill_(torch.arange(L) > last[:, None, None], -torch.inf)
            mask = mask.repeat(kv_heads, 1, 1)
        weights = torch.baddbmm(mask, q, k.transpose(1, 2), alpha=size**-0.5)
        # Softmax by hand: PyTorch's takes three times as long for rows of ten numbers.
        weights.sub_(weights.amax(-1, keepdim=True)).exp_()
        weights.div_(weights.sum(-1, keepdim=True))
        ctx.save_for_backward(q, k, v, weights, last)
        ctx.shape, ctx.dtype, ctx.rotary = (heads, kv_heads, B, L), qkv.dtype, rotary
        out = (weights @ v).view(kv_heads, B, shared, Lq, size).permute(1, 3, 0, 2, 4)
        return _dense(out, qkv.dtype).view(B, Lq, heads * size)

    @staticmethod
    def backward(ctx, grad):
        q, k, v, weights, last = ctx.saved_tensors
        heads, kv_heads, B, L = ctx.shape
        shared, size, Lq = heads // kv_heads, q.shape[2], grad.shape[1]
        grad = grad.view(B, Lq, kv_heads, shared, size).permute(2, 0, 3, 1, 4)
        grad = _dense(grad, q.dtype).view(kv_heads * B, shared * Lq, size)
        grad_v = weights.transpose(1, 2) @ grad
        grad_weights = grad @ v.transpose(1, 2)
        shift = (grad_weights * weights).sum(-1, keepdim=True)
        scores = grad_weights.sub_(shift).mul_(weights).mul_(size**-0.5)
        grad_q = (scores @ k).view(kv_heads, B, shared, Lq, size)
        grad_k = (scores.transpose(1, 2) @ q).view(kv_heads, B, L, size)
        if ctx.rotary:  # turned back by the same angles
            cos, sin = ctx.rotary
            grad_k = _turn(grad_k, cos, -sin)
            grad_q = _turn(grad_q, *_at(last, cos, -sin))
        grad_qkv = torch.empty(B, L, (heads + 2 * kv_heads) * size, dtype=ctx.dtype)
        to_q, to_k, to_v = _views(grad_qkv, heads, kv_heads)
        if last is None:
            to_q.copy_(grad_q)
        else:
            to_q.zero_()
            to_q[:, torch.arange(B), :, last] = grad_q.squeeze(3).transpose(0, 1).to(ctx.dtype)
        to_k.copy_(grad_k)
        to_v.copy_(grad_v.view(kv_heads, B, L, size))
        return grad_qkv, None, None, None, None


@cache
def _causal_mask(L: int, shared: int, dtype: torch.dtype) -> Tensor:
    """(shared · L, L): 0 up to a token's own place, -inf behind it."""
    return torch.full((L, L), -torch.inf, dtype=dtype).triu(1).repeat(shared, 1)


def _views(qkv: Tensor, heads: int, kv_heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """Queries (kv_heads, B, shared, L, size), keys and values (kv_heads, B, L, size) in `qkv`."""
    B, L, _ = qkv.shape
    q, k, v = qkv.view(B, L, heads + 2 * kv_heads, -1).split([heads, kv_heads, kv_heads], dim=2)
    q = q.unflatten(2, (kv_heads, heads // kv_heads)).permute(2, 0, 3, 1, 4)
    return q, k.permute(2, 0, 1, 3), v.permute(2, 0, 1, 3)


def _dense(x: Tensor, dtype: torch.dtype) -> Tensor:
    """A copy in another dtype and in the order of its dimensions, in one pass."""
    return torch.empty(x.shape, dtype=dtype).copy_(x)


def _at(last: Tensor | None, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    """Angles of all tokens, or of the last ones alone: (B, 1, 1, size)."""
    if last is None:
        return cos, sin
    return cos[last][:, None, None], sin[last][:, None, None]
