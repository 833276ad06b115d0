"""Causal attention over short sentences on a GPU, one Triton kernel: rotary embedding, scores,
softmax and output without a pass through memory in between; forward passes only.

The plain formulas stand in `attention.py`.
"""

import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def _decode_attention(
    qkv, keys, values, positions, cos, sin, out, max_seq_len,
    HEADS: tl.constexpr, KV_HEADS: tl.constexpr, SIZE: tl.constexpr, GROUP: tl.constexpr,
    ROTARY: tl.constexpr, STEP: tl.constexpr,
):  # fmt: skip
    sentence = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1)
    position = tl.load(positions + sentence)
    at = tl.arange(0, SIZE)
    swapped = (at + SIZE // 2) % SIZE
    group = tl.arange(0, GROUP)
    real = group < HEADS // KV_HEADS
    row = qkv + sentence * (HEADS + 2 * KV_HEADS) * SIZE
    heads = head * (HEADS // KV_HEADS) + group
    q = tl.load(row + heads[:, None] * SIZE + at[None, :], mask=real[:, None], other=0.0)
    k = tl.load(row + (HEADS + head) * SIZE + at)
    v = tl.load(row + (HEADS + KV_HEADS + head) * SIZE + at)
    kind = k.dtype
    if ROTARY:
        c = tl.load(cos + position * SIZE + at)
        s = tl.load(sin + position * SIZE + at)
        other_q = tl.load(
            row + heads[:, None] * SIZE + swapped[None, :], mask=real[:, None], other=0.0
        )
        other_k = tl.load(row + (HEADS + head) * SIZE + swapped)
        q = (q.to(tl.float32) * c[None, :] + other_q.to(tl.float32) * s[None, :]).to(kind)
        k = (k.to(tl.float32) * c + other_k.to(tl.float32) * s).to(kind)
    base = (sentence * KV_HEADS + head) * max_seq_len * SIZE
    tl.store(keys + base + position * SIZE + at, k)
    tl.store(values + base + position * SIZE + at, v)
    # This token's own key and value are at hand; those before are in the cache.
    q = q.to(tl.float32) * (SIZE**-0.5)
    best = tl.sum(q * k.to(tl.float32)[None, :], 1)
    total = tl.full((GROUP,), 1.0, tl.float32)
    attended = tl.zeros((GROUP, SIZE), tl.float32) + v.to(tl.float32)[None, :]
    for start in range(0, position, STEP):
        rows = start + tl.arange(0, STEP)
        seen = rows < position
        place = base + rows[:, None] * SIZE + at[None, :]
        ks = tl.load(keys + place, mask=seen[:, None], other=0.0).to(tl.float32)
        vs = tl.load(values + place, mask=seen[:, None], other=0.0).to(tl.float32)
        scores = tl.sum(q[:, None, :] * ks[None, :, :], 2)
        scores = tl.where(seen[None, :], scores, -float("inf"))
        larger = tl.maximum(best, tl.max(scores, 1))
        weights = tl.exp(scores - larger[:, None])
        shrink = tl.exp(best - larger)
        total = total * shrink + tl.sum(weights, 1)
        attended = attended * shrink[:, None] + tl.sum(weights[:, :, None] * vs[None, :, :], 1)
        best = larger
    attended = attended / total[:, None]
    target = out + sentence * HEADS * SIZE + heads[:, None] * SIZE + at[None, :]
    tl.store(target, attended.to(out.dtype.element_ty), mask=real[:, None])


def decode_attention(
    qkv: Tensor,
    keys: Tensor,
    values: Tensor,
    positions: Tensor,
    rotary: tuple[Tensor, Tensor] | None,
) -> Tensor:
    """Return `attention.cached_attention`; of the cache only what stands before each token is read.

    Args:
        qkv: (B, (heads + 2 kv_heads) · size).
        keys: (B, kv_heads, max_seq_len, size); the new tokens' are stored in it.
        values: like `keys`.
        positions: (B,) of the new tokens, int64.
        rotary: cosines and signed sines, (max_seq_len, size), or None.

    Returns:
        (B, heads · size)
    """
    B, kv_heads, max_seq_len, size = keys.shape
    heads = qkv.shape[1] // size - 2 * kv_heads
    out = qkv.new_empty(B, heads * size)
    cos, sin = (x.float().contiguous() for x in rotary) if rotary else (positions, positions)
    _decode_attention[(B, kv_heads)](
        qkv.contiguous(), keys, values, positions, cos, sin, out, max_seq_len,
        HEADS=heads, KV_HEADS=kv_heads, SIZE=size,
        GROUP=triton.next_power_of_2(heads // kv_heads), ROTARY=rotary is not None, STEP=16,
        num_warps=1,
    )  # fmt: skip
    return out


@triton.jit
def _short_attention(
    qkv, cos, sin, out, length,
    HEADS: tl.constexpr, KV_HEADS: tl.constexpr, SIZE: tl.constexpr,
    ROTARY: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    sentence = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1)
    group: tl.constexpr = HEADS // KV_HEADS
    width: tl.constexpr = (HEADS + 2 * KV_HEADS) * SIZE
    at = tl.arange(0, SIZE)
    swapped = (at + SIZE // 2) % SIZE
    base = qkv + sentence * length * width
    # Rows: token by token the queries that share this key.
    row = tl.arange(0, ROWS)
    token, query = row // group, head * group + row % group
    real = token < length
    place = token[:, None] * width + query[:, None] * SIZE
    q = tl.load(base + place + at[None, :], mask=real[:, None], other=0.0)
    column = tl.arange(0, COLUMNS)
    there = column < length
    key_place = column[:, None] * width + (HEADS + head) * SIZE
    k = tl.load(base + key_place + at[None, :], mask=there[:, None], other=0.0)
    v = tl.load(base + key_place + KV_HEADS * SIZE + at[None, :], mask=there[:, None], other=0.0)
    kind = k.dtype
    if ROTARY:
        c = tl.load(cos + token[:, None] * SIZE + at[None, :], mask=real[:, None], other=0.0)
        s = tl.load(sin + token[:, None] * SIZE + at[None, :], mask=real[:, None], other=0.0)
        other = tl.load(base + place + swapped[None, :], mask=real[:, None], other=0.0)
        q = (q.to(tl.float32) * c + other.to(tl.float32) * s).to(kind)
        c = tl.load(cos + column[:, None] * SIZE + at[None, :], mask=there[:, None], other=0.0)
        s = tl.load(sin + column[:, None] * SIZE + at[None, :], mask=there[:, None], other=0.0)
        other = tl.load(base + key_place + swapped[None, :], mask=there[:, None], other=0.0)
        k = (k.to(tl.float32) * c + other.to(tl.float32) * s).to(kind)
    scores = tl.dot(q, tl.trans(k), input_precision="ieee") * (SIZE**-0.5)
    seen = (column[None, :] <= token[:, None]) & there[None, :]
    scores = tl.where(seen, scores, -1e30)
    weights = tl.exp(scores - tl.max(scores, 1)[:, None])
    weights = weights / tl.sum(weights, 1)[:, None]
    attended = tl.dot(weights.to(kind), v, input_precision="ieee")
    target = out + (sentence * length + token[:, None]) * HEADS * SIZE + query[:, None] * SIZE
    tl.store(target + at[None, :], attended.to(out.dtype.element_ty), mask=real[:, None])


SHORT = 64  # longest sentence of `short_attention`, in tokens


def short_attention(
    qkv: Tensor, heads: int, kv_heads: int, rotary: tuple[Tensor, Tensor] | None
) -> Tensor:
    """Return `attention.attention` over sentences of at most SHORT tokens, (B, L, heads · size).

    Args:
        qkv: (B, L, (heads + 2 kv_heads) · size).
        heads: number of query heads.
        kv_heads: number of key and value heads.
        rotary: cosines and signed sines, (L, size), or None.
    """
    B, L, width = qkv.shape
    size = width // (heads + 2 * kv_heads)
    out = qkv.new_empty(B, L, heads * size)
    cos, sin = (x.float().contiguous() for x in rotary) if rotary else (qkv, qkv)
    rows = max(16, triton.next_power_of_2(L * (heads // kv_heads)))
    _short_attention[(B, kv_heads)](
        qkv.contiguous(), cos, sin, out, L,
        HEADS=heads, KV_HEADS=kv_heads, SIZE=size, ROTARY=rotary is not None,
        ROWS=rows, COLUMNS=max(16, triton.next_power_of_2(L)), num_warps=2 if rows <= 64 else 4,
    )  # fmt: skip
    return out
