"""The GPU's kernels against the plain formulas.

They run on a GPU, or anywhere in Triton's interpreter: TRITON_INTERPRET=1, with triton installed.
"""

import os

import pytest
import torch
from torch.nn import functional as F

from potstill.ops.attention import apply_rope

pytest.importorskip("triton", reason="triton comes with PyTorch's CUDA builds")
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
if not torch.cuda.is_available() and not INTERPRETED:
    pytest.skip("needs a GPU or TRITON_INTERPRET=1", allow_module_level=True)

from potstill.ops import triton_kernels as kernels  # noqa: E402

pytestmark = pytest.mark.gpu
DEVICE = "cpu" if INTERPRETED else "cuda"
# The widths of SmolLM2-135M, of GPT-2's kind, and an odd one.
SHAPES = pytest.mark.parametrize(
    ("heads", "kv_heads", "size"), [(9, 3, 64), (4, 4, 16), (6, 1, 32)]
)


def reference(qkv, heads, kv_heads, rotary):
    B, L, _ = qkv.shape
    q, k, v = qkv.view(B, L, heads + 2 * kv_heads, -1).split([heads, kv_heads, kv_heads], 2)
    if rotary:
        q, k = (apply_rope(x, *(r[:L, None] for r in rotary)) for x in (q, k))
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    out = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=heads != kv_heads)
    return out.transpose(1, 2).flatten(2)


def make(*shape: int) -> torch.Tensor:
    return torch.randn(*shape).to(DEVICE)


@SHAPES
@pytest.mark.parametrize("length", [1, 5, 20])
@pytest.mark.parametrize("with_rotary", [False, True])
def test_attention(heads, kv_heads, size, length, with_rotary):
    """Of whole sentences, and token by token with a cache; what the cache holds elsewhere, even
    NaN, is not read."""
    torch.manual_seed(0)
    qkv = make(3, length, (heads + 2 * kv_heads) * size)
    rotary = (make(length + 4, size), make(length + 4, size)) if with_rotary else None
    expected = reference(qkv, heads, kv_heads, rotary)
    actual = kernels.short_attention(qkv, heads, kv_heads, rotary)
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)
    keys = torch.full((3, kv_heads, length + 4, size), torch.nan, device=DEVICE)
    values = keys.clone()
    steps = []
    for position in range(length):
        positions = torch.full((3,), position, device=DEVICE)
        steps.append(kernels.decode_attention(qkv[:, position], keys, values, positions, rotary))
    torch.testing.assert_close(torch.stack(steps, 1), expected, rtol=1e-4, atol=1e-5)


def test_each_sentence_has_a_position_of_its_own():
    torch.manual_seed(0)
    heads, kv_heads, size, lengths = 6, 2, 16, [4, 19, 1]
    qkv = make(3, 19, (heads + 2 * kv_heads) * size)
    expected = reference(qkv, heads, kv_heads, None)
    keys, values = (torch.zeros(3, kv_heads, 24, size, device=DEVICE) for _ in range(2))
    _, k, v = qkv.view(3, 19, -1, size).split([heads, kv_heads, kv_heads], 2)
    keys[:, :, :19], values[:, :, :19] = k.transpose(1, 2), v.transpose(1, 2)
    positions = torch.tensor(lengths, device=DEVICE) - 1
    rows = torch.arange(3, device=DEVICE)
    actual = kernels.decode_attention(qkv[rows, positions], keys, values, positions, None)
    torch.testing.assert_close(actual, expected[rows, positions], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("width", [8, 576])
def test_rms_norm(width):
    torch.manual_seed(0)
    x, weight = make(3, 5, width), make(width)
    expected = F.rms_norm(x, (width,), weight, 1e-5)
    torch.testing.assert_close(kernels.rms_norm(x, weight, 1e-5), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("width", [8, 1536])
def test_swiglu(width):
    torch.manual_seed(0)
    gate_up = make(3, 5, 2 * width)
    gate, up = gate_up.chunk(2, -1)
    torch.testing.assert_close(kernels.swiglu(gate_up), F.silu(gate) * up, rtol=1e-5, atol=1e-6)


def test_draws_follow_the_softmax():
    torch.manual_seed(0)
    draws, temperature = 600 if INTERPRETED else 40_000, 0.7
    logits = 2 * make(1, 3000)
    drawn = kernels.draw(logits.expand(draws, -1), temperature, 5)
    probs = (logits[0] / temperature).softmax(0)
    top = probs.topk(8).indices
    counts = torch.bincount(drawn, minlength=3000)[top]
    expected = draws * probs[top]
    assert ((counts - expected).abs() < 4.5 * expected.sqrt()).all()
    assert not torch.equal(drawn, kernels.draw(logits.expand(draws, -1), temperature, 6))


@pytest.mark.parametrize("targets", [1, 33])
def test_cross_entropy(targets):
    torch.manual_seed(0)
    logits, bias = 3 * make(6, 3000), make(3000)
    token_ids = torch.randint(0, 3000, (6, targets)).to(DEVICE)
    probs = torch.rand(6, targets).to(DEVICE) / targets
    log_probs = (logits + bias).log_softmax(1)
    losses = -(log_probs.gather(1, token_ids) * probs).sum(1)
    dense = log_probs.exp() * probs.sum(1, keepdim=True)
    torch.testing.assert_close(
        kernels.cross_entropy_(logits, bias, token_ids, probs), losses, rtol=1e-5, atol=1e-5
    )
    torch.testing.assert_close(logits, dense, rtol=1e-5, atol=1e-7)
