"""The blocks of GPT-2 and Llama decoders, written out for short sentences.

They compute what transformers' modules compute, from the same parameters, in fewer and cheaper
passes. Of the last block only the last token's output is ever read, so no other is computed.
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
from potstill.ops.fused import SwiGLU, gelu, layer_norm, rms_norm


@dataclass(frozen=True)
class FusedBlock:
    """One block: two norms and four products; `qkv` and `up` join layers that share an input."""

    norm1: Callable[[Tensor], Tensor]
    qkv: FusedLinear
    out: FusedLinear
    norm2: Callable[[Tensor], Tensor]
    up: FusedLinear
    down: FusedLinear


@dataclass(frozen=True)
class FusedDecoder:
    """A decoder taken apart.

    embed: (B, L) tokens and their places, (L,) or (B, L), to (B, L, width); activation: what stands
    between `up` and `down`; heads, kv_heads: of queries and of keys; rotary: L to the cosines and
    signed sines of Su et al. 2021 (*RoFormer*, section 3.2.2), each (L, head size), or to None
    where positions are embedded.
    """

    embed: Callable[[Tensor, Tensor], Tensor]
    blocks: Sequence[FusedBlock]
    norm: Callable[[Tensor], Tensor]
    activation: Callable[[Tensor], Tensor]
    heads: int
    kv_heads: int
    rotary: Callable[[int], tuple[Tensor, Tensor] | None]

    def last_hidden(self, input_ids: Tensor, lengths: Tensor) -> Tensor:
        """(B, L) tokens padded on the right, (B,) lengths: (B, width) states of the last ones."""
        return self.hidden(input_ids, lengths - 1).squeeze(1)

    def hidden(self, input_ids: Tensor, last: Tensor | None = None) -> Tensor:
        """(B, L) tokens to (B, L, width) states; given (B,) places, to (B, 1, width) there."""
        L = input_ids.shape[1]
        x = self.embed(input_ids, torch.arange(L, device=input_ids.device))
        rotary = self.rotary(L)
        for number, block in enumerate(self.blocks, 1):
            qkv = block.qkv(block.norm1(x))
            only = None
            if last is not None and number == len(self.blocks):
                only = last
                x = x[torch.arange(len(last), device=x.device), last].unsqueeze(1)
            x = x + block.out(attention(qkv, self.heads, self.kv_heads, rotary, only))
            x = x + block.down(self.activation(block.up(block.norm2(x))))
        return self.norm(x)

    def step(self, tokens: Tensor, places: Tensor, cache: "KeyValueCache") -> Tensor:
        """(B,) next tokens and their places in their sentences to their (B, width) states.

        `cache` holds the keys and values of the tokens before, and gets those of this one.
        """
        x = self.embed(tokens[:, None], places[:, None]).squeeze(1)
        for block, keys, values in zip(self.blocks, cache.keys, cache.values, strict=True):
            qkv = block.qkv(block.norm1(x))
            x = x + block.out(cached_attention(qkv, keys, values, places, cache.rotary))
            x = x + block.down(self.activation(block.up(block.norm2(x))))
        return self.norm(x)

    def new_cache(self, sentences: int, room: int) -> "KeyValueCache":
        """Empty, for as many sentences of up to `room` tokens."""
        width = self.blocks[0].qkv.outputs
        like = self.blocks[0].qkv.frozen.like
        shape = (sentences, self.kv_heads, room, width // (self.heads + 2 * self.kv_heads))
        keys, values = ([like.new_zeros(shape) for _ in self.blocks] for _ in range(2))
        return KeyValueCache(keys, values, self.rotary(room))


@dataclass(frozen=True)
class KeyValueCache:
    """Keys and values of every block, each (B, kv heads, room, head size), and the angles of
    their places (see FusedDecoder.rotary)."""

    keys: list[Tensor]
    values: list[Tensor]
    rotary: tuple[Tensor, Tensor] | None

    def filter_batch_items(self, rows: Tensor) -> "KeyValueCache":
        """Of these sentences alone."""
        keys, values = ([x[rows] for x in part] for part in (self.keys, self.values))
        return KeyValueCache(keys, values, self.rotary)


def fuse_decoder(base: Any) -> FusedDecoder | None:
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


def _gpt2(base: Any) -> FusedDecoder:
    def embed(input_ids: Tensor, places: Tensor) -> Tensor:
        return base.wte(input_ids) + base.wpe(places)

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
        # Asked for in fp32 whatever the weights are.
        cos, sin = base.rotary_emb(torch.empty(0, device=base.device), positions[None])
        minus, plus = sin[0].chunk(2, dim=-1)
        return cos[0], torch.cat([-minus, plus], dim=-1)

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

    def embed(input_ids: Tensor, places: Tensor) -> Tensor:
        return base.embed_tokens(input_ids)

    return FusedDecoder(embed, blocks, norm, SwiGLU.apply, heads, kv_heads, rotary)
