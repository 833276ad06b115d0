"""GPT-2 and Llama decoders, fused for short sentences.

They compute what transformers' modules compute, from the same parameters, in fewer and cheaper
passes. A classifier reads only the last token's output, so the last block computes no other.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import GPT2Model, LlamaModel

from potstill.decoder.fused_linear import FusedLinear
from potstill.decoder.lora import linear_names
from potstill.ops.attention import attention, cached_attention
from potstill.ops.fused import gelu, layer_norm, rms_norm, swiglu


@dataclass(frozen=True)
class FusedBlock:
    """One block: two norms and four products; `qkv` and `up` fuse layers that share an input."""

    norm1: Callable[[Tensor], Tensor]
    qkv: FusedLinear
    out: FusedLinear
    norm2: Callable[[Tensor], Tensor]
    up: FusedLinear
    down: FusedLinear


@dataclass(frozen=True)
class FusedDecoder:
    """A decoder without its vocabulary head, as fused blocks.

    Args:
        embed: maps (B, L) tokens and their positions, (L,) or (B, L), to (B, L, width).
        blocks: the blocks in order.
        norm: the norm after the last block.
        activation: what is between `up` and `down`.
        heads: number of query heads.
        kv_heads: number of key and value heads.
        rotary: maps L to the cosines and signed sines of Su et al. 2021 (*RoFormer*, section
            3.2.2), each (L, head size), or to None if positions are embedded.
    """

    embed: Callable[[Tensor, Tensor], Tensor]
    blocks: Sequence[FusedBlock]
    norm: Callable[[Tensor], Tensor]
    activation: Callable[[Tensor], Tensor]
    heads: int
    kv_heads: int
    rotary: Callable[[int], tuple[Tensor, Tensor] | None]

    def last_hidden(self, input_ids: Tensor, lengths: Tensor) -> Tensor:
        """Return the (B, width) states of the last tokens.

        Args:
            input_ids: (B, L) tokens, padded on the right.
            lengths: (B,).
        """
        return self.hidden(input_ids, lengths - 1).squeeze(1)

    def hidden(self, input_ids: Tensor, last: Tensor | None = None) -> Tensor:
        """Return the (B, L, width) states of (B, L) tokens; with `last`, (B,) positions, only those
        at these positions, (B, 1, width)."""
        L = input_ids.shape[1]
        x = self.embed(input_ids, torch.arange(L, device=input_ids.device))
        rotary = self.rotary(L)
        for number, block in enumerate(self.blocks, 1):
            qkv = block.qkv(block.norm1(x))
            last_only = None
            if last is not None and number == len(self.blocks):
                last_only = last
                x = x[torch.arange(len(last), device=x.device), last].unsqueeze(1)
            x = x + block.out(
                attention(qkv, self.heads, self.kv_heads, rotary=rotary, last=last_only)
            )
            x = x + block.down(self.activation(block.up(block.norm2(x))))
        return self.norm(x)

    def step(self, tokens: Tensor, positions: Tensor, cache: "KeyValueCache") -> Tensor:
        """Return the (B, width) states of the next token of each of B sentences.

        Args:
            tokens: (B,) next tokens.
            positions: (B,) their positions.
            cache: keys and values of the earlier tokens; those of the new ones are added to it.
        """
        return self.step_to(tokens, positions, cache, len(self.blocks))[0]

    def step_to(
        self, tokens: Tensor, positions: Tensor, cache: "KeyValueCache", inner_block: int
    ) -> tuple[Tensor, Tensor]:
        """Return what `step` does, and the (B, width) states after the block number
        `inner_block`, counted from 1."""
        x = inner = self.embed(tokens[:, None], positions[:, None]).squeeze(1)
        for number, (block, keys, values) in enumerate(
            zip(self.blocks, cache.keys, cache.values, strict=True), 1
        ):
            qkv = block.qkv(block.norm1(x))
            x = x + block.out(cached_attention(qkv, keys, values, positions, rotary=cache.rotary))
            x = x + block.down(self.activation(block.up(block.norm2(x))))
            if number == inner_block:
                inner = x
        return self.norm(x), inner

    def new_cache(self, batch_size: int, max_seq_len: int) -> "KeyValueCache":
        """Return an empty cache for `batch_size` sentences of up to `max_seq_len` tokens."""
        width = self.blocks[0].qkv.outputs
        like = self.blocks[0].qkv.frozen.like
        head_size = width // (self.heads + 2 * self.kv_heads)
        shape = (batch_size, self.kv_heads, max_seq_len, head_size)
        keys, values = ([like.new_zeros(shape) for _ in self.blocks] for _ in range(2))
        return KeyValueCache(keys, values, self.rotary(max_seq_len))


@dataclass(frozen=True)
class KeyValueCache:
    """Keys and values of the tokens so far.

    Args:
        keys: for each block (B, kv_heads, max_seq_len, head size).
        values: like `keys`.
        rotary: what `FusedDecoder.rotary` returns for max_seq_len.
    """

    keys: list[Tensor]
    values: list[Tensor]
    rotary: tuple[Tensor, Tensor] | None

    def filter_batch_items(self, indices: Tensor) -> "KeyValueCache":
        """Return a cache of the sentences at `indices` of the batch, in that order."""
        keys, values = ([x[indices] for x in part] for part in (self.keys, self.values))
        return KeyValueCache(keys, values, self.rotary)


def fuse_decoder(base: Any) -> FusedDecoder | None:
    """Return a decoder of transformers as fused blocks; None if it is of another family.

    The blocks hold a snapshot of the frozen weights: fuse again after changing these. They give no
    gradient to linear layers that are trained whole, so a base with trainable ones is not fused.
    """
    if any(base.get_submodule(name).weight.requires_grad for name in linear_names(base)):
        return None
    config = base.config
    if type(base) is GPT2Model:
        supported = config.activation_function in ("gelu_new", "gelu_pytorch_tanh")
        supported &= config.scale_attn_weights and not config.scale_attn_by_inverse_layer_idx
        supported &= not config.add_cross_attention
        return _gpt2(base) if supported else None
    if type(base) is LlamaModel:
        return _llama(base) if config.hidden_act == "silu" else None
    return None


def _gpt2(base: Any) -> FusedDecoder:
    def embed(input_ids: Tensor, positions: Tensor) -> Tensor:
        return base.wte(input_ids) + base.wpe(positions)

    blocks = [
        FusedBlock(
            layer_norm(block.ln_1),
            FusedLinear([block.attn.c_attn]),
            FusedLinear([block.attn.c_proj]),
            layer_norm(block.ln_2),
            FusedLinear([block.mlp.c_fc]),
            FusedLinear([block.mlp.c_proj]),
        )
        for block in base.h
    ]
    heads = base.config.n_head
    return FusedDecoder(embed, blocks, layer_norm(base.ln_f), gelu, heads, heads, lambda L: None)


def _llama(base: Any) -> FusedDecoder:
    def rotary(L: int) -> tuple[Tensor, Tensor]:
        positions = torch.arange(L, device=base.device)
        # In fp32, whatever dtype the weights have.
        cos, sin = base.rotary_emb(torch.empty(0, device=base.device), positions[None])
        first, second = sin[0].chunk(2, dim=-1)
        return cos[0], torch.cat([-first, second], dim=-1)

    blocks = [
        FusedBlock(
            rms_norm(block.input_layernorm),
            FusedLinear([block.self_attn.q_proj, block.self_attn.k_proj, block.self_attn.v_proj]),
            FusedLinear([block.self_attn.o_proj]),
            rms_norm(block.post_attention_layernorm),
            FusedLinear([block.mlp.gate_proj, block.mlp.up_proj]),
            FusedLinear([block.mlp.down_proj]),
        )
        for block in base.layers
    ]
    config = base.config
    heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
    norm = rms_norm(base.norm)

    def embed(input_ids: Tensor, positions: Tensor) -> Tensor:
        return base.embed_tokens(input_ids)

    return FusedDecoder(embed, blocks, norm, swiglu, heads, kv_heads, rotary)
