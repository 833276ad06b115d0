"""The compiled kernels against the plain formulas, in fp32, on the same rounded numbers."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from potstill.ops import cross_entropy, kernels
from potstill.ops.attention import PlainAttention, attention
from potstill.ops.fused import RMSNorm, SwiGLU, gelu
from tests.ops.conftest import FusedLayers, bf16, check, needed


@needed
@pytest.mark.parametrize("rows", [(1,), (3, 5), (2, 2, 3), (16, 11)])
def test_rms_norm(rows: tuple[int, ...]) -> None:
    x, weight = bf16(*rows, 48), torch.rand(48) + 0.5

    def plain(x: Tensor, weight: Tensor) -> Tensor:
        return x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() * weight

    check(lambda x, w: RMSNorm.apply(x, w, 1e-5), plain, bf16(*rows, 48), x, weight)


@needed
@pytest.mark.parametrize("rows", [(1,), (3, 5), (16, 11)])
def test_swiglu(rows: tuple[int, ...]) -> None:
    def plain(x: Tensor) -> Tensor:
        gate, up = x.chunk(2, dim=-1)
        return F.silu(gate) * up

    check(SwiGLU.apply, plain, bf16(*rows, 32), bf16(*rows, 64, scale=4.0))


@needed
def test_swiglu_at_the_ends_of_exp() -> None:
    gate = torch.tensor([-1e4, -120, -88, -87, -1, 0, 1, 87, 88, 89, 120, 1e4, 0, 0, 0, 0])
    x = torch.cat([gate, torch.ones(16)]).bfloat16()
    y = kernels.swiglu(x[None])[0].float()
    torch.testing.assert_close(y, F.silu(x[:16].float()), rtol=2**-8, atol=1e-30)


@needed
@pytest.mark.parametrize("rows", [(1,), (3, 5), (16, 11)])
def test_gelu(rows: tuple[int, ...]) -> None:
    def plain(x: Tensor) -> Tensor:
        inner = (2 / torch.pi) ** 0.5 * (x + 0.044715 * x**3)
        return 0.5 * x * (1 + inner.tanh())

    check(gelu, plain, bf16(*rows, 48), bf16(*rows, 48, scale=3.0))


@needed
def test_gelu_far_from_zero() -> None:
    x = torch.tensor([-1e9, -1e4, -100, -20, -9, -5, -1, 0, 1, 5, 9, 20, 100, 1e4, 1e9, 3e38])
    x = x.bfloat16()
    expected = F.gelu(x.double(), approximate="tanh").float()
    torch.testing.assert_close(kernels.gelu(x).float(), expected, rtol=2**-8, atol=1e-6)
    slopes = kernels.gelu_backward(x, torch.ones_like(x)).float()
    expected_slopes = torch.ops.aten.gelu_backward(
        torch.ones(16).double(), x.double(), approximate="tanh"
    )
    torch.testing.assert_close(slopes[:-1], expected_slopes.float()[:-1], rtol=2**-7, atol=1e-6)


@needed
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("rotated", [False, True])
@pytest.mark.parametrize(("heads", "kv_heads", "size"), [(4, 4, 16), (6, 2, 32), (3, 1, 64)])
@pytest.mark.parametrize("L", [1, 5, 16, 17, 40])
def test_attention(L: int, heads: int, kv_heads: int, size: int, rotated: bool, last: bool) -> None:
    B = 3
    angles = torch.rand(L, size // 2)
    sines = torch.cat([-angles.sin(), angles.sin()], dim=1)
    rotary = (torch.cat([angles.cos(), angles.cos()], dim=1), sines) if rotated else None
    positions = torch.randint(0, L, (B,)) if last else None
    qkv = bf16(B, L, (heads + 2 * kv_heads) * size)
    weights = bf16(B, 1 if last else L, heads * size)
    check(
        lambda qkv: attention(qkv, heads, kv_heads, rotary=rotary, last=positions),
        lambda qkv: PlainAttention.apply(qkv, heads, kv_heads, rotary, positions),
        weights,
        qkv,
    )


@needed
def test_attention_that_takes_one_key() -> None:
    """Scores of thousands: the weight of the best key is 1, and nothing overflows."""
    qkv = bf16(2, 7, 3 * 16, scale=100.0)
    y = kernels.attention(qkv, 1, 1, rotary=None, last=None)
    plain = PlainAttention.apply(qkv.float(), 1, 1, None, None)
    torch.testing.assert_close(y.float(), plain, rtol=2**-7, atol=1e-3)


@needed
@pytest.mark.parametrize("rows", [(1,), (3,), (2, 4), (5, 11)])
@pytest.mark.parametrize("ranks", [(4,), (1, 3), (4, 4, 4), (5, 8)])
def test_lora(ranks: tuple[int, ...], rows: tuple[int, ...]) -> None:
    FusedLayers(ranks).check(bf16(*rows, 48))
    FusedLayers(ranks, inputs=112).check(bf16(*rows, 112))


@needed
def test_lora_with_dropout(monkeypatch: pytest.MonkeyPatch) -> None:
    fused = FusedLayers((4, 2), dropout=0.5)
    mask = 2 * torch.randint(0, 2, (3, 5, 48)).bfloat16()
    monkeypatch.setattr(type(fused.product.dropout), "mask", lambda self, x: mask)
    fused.product.dropout.train()
    fused.check(bf16(3, 5, 48), mask.float())


@needed
def test_lora_whose_input_needs_no_gradient() -> None:
    fused = FusedLayers((4, 4))
    x, factors = bf16(3, 48), fused.product.factors
    grads = torch.autograd.grad(fused.product(x).float().sum(), factors)
    plain = torch.autograd.grad(fused.plain(x.float()).sum(), factors)
    torch.testing.assert_close(grads, plain, rtol=2**-6, atol=2**-4)


@needed
@pytest.mark.parametrize(("rows", "classes", "targets"), [(1, 16, 1), (5, 320, 1), (7, 48, 33)])
def test_cross_entropy(
    rows: int, classes: int, targets: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    logits, bias = bf16(rows, classes, scale=5.0), torch.randn(classes)
    token_ids = torch.randint(0, classes, (rows, targets))  # some of them twice
    probs = torch.rand(rows, targets)
    leaf, leaf_bias = logits.float().requires_grad_(), bias.clone().requires_grad_()
    loss = -((leaf + leaf_bias).log_softmax(1).gather(1, token_ids) * probs).sum()
    loss.backward()
    for compiled in (True, False):
        if not compiled:
            monkeypatch.setattr(kernels, "load_library", lambda: None)
        gradient, grad_bias = logits.clone(), torch.zeros(classes)
        total = cross_entropy.cross_entropy_(gradient, bias, token_ids, probs, grad_bias=grad_bias)
        assert total == pytest.approx(loss.item(), rel=1e-5)
        assert leaf.grad is not None and leaf_bias.grad is not None
        torch.testing.assert_close(gradient.float(), leaf.grad, rtol=2**-8, atol=1e-6)
        torch.testing.assert_close(grad_bias, leaf_bias.grad, rtol=1e-4, atol=1e-4)


@needed
def test_nan_stays_nan() -> None:
    """A run that diverges must show it."""
    x = bf16(2, 48)
    x[1, 3] = torch.nan
    y, _ = kernels.rms_norm(x, torch.ones(48), 1e-5)
    assert y[0].isfinite().all() and y[1].isnan().all()
    assert kernels.swiglu(x[:, :32].contiguous())[1, 3].isnan()
    assert kernels.gelu(x)[1, 3].isnan()
    assert kernels.attention(x[None], 1, 1, rotary=None, last=None)[0, 1].isnan().any()
    fused = FusedLayers((4,))
    assert fused.product(x)[1].isnan().all()
    logits = bf16(1, 16)
    logits[0, 2] = torch.nan
    token_ids, probs = torch.zeros(1, 1, dtype=torch.long), torch.ones(1, 1)
    loss = kernels.cross_entropy(
        logits, torch.zeros(16), token_ids, probs, grad_bias=torch.zeros(16)
    )
    assert loss != loss


@needed
def test_supports_bf16_on_the_cpu_of_fitting_width(monkeypatch: pytest.MonkeyPatch) -> None:
    assert kernels.supports(bf16(2, 48), 48)
    assert not kernels.supports(bf16(2, 24), 24)
    assert not kernels.supports(torch.randn(2, 48), 48)
    assert not kernels.supports(torch.empty(2, 48, dtype=torch.bfloat16, device="meta"), 48)
