"""The compiled kernels against the plain formulas, in fp32, on the same rounded numbers."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from potstill.decoder.fused_linear import FusedLinear
from potstill.decoder.lora import LoRALinear
from potstill.ops import cross_entropy, kernels
from potstill.ops.attention import PlainAttention, attention
from potstill.ops.fused import RMSNorm, SwiGLU, gelu

# Rounding to bf16 has a relative error of 2^-9; the sums here add a few of these.
ROUNDED = {"rtol": 2**-7, "atol": 2**-7}

RUNNABLE = torch.cpu._is_avx512_bf16_supported() and sys.platform == "linux"

needed = pytest.mark.skipif(
    kernels.load_library() is None, reason="no C compiler, or a CPU without bf16"
)


def outcome(function: Any, weights: Tensor, *inputs: Tensor) -> list[Tensor]:
    """The output, and the gradients of `inputs` under a weighted sum of it, all in fp32."""
    leaves = [x.detach().clone().requires_grad_() for x in inputs]
    y = function(*leaves)
    grads = torch.autograd.grad(y, leaves, weights.to(y.dtype))
    return [x.detach().float() for x in (y, *grads)]


def check(ours: Any, plain: Any, weights: Tensor, *inputs: Tensor) -> None:
    actual = outcome(ours, weights, *inputs)
    expected = outcome(plain, weights, *(x.float() for x in inputs))
    for our, theirs in zip(actual, expected, strict=True):
        scale = float(theirs.abs().max()) or 1.0
        torch.testing.assert_close(our / scale, theirs / scale, **ROUNDED)


def bf16(*shape: int, scale: float = 1.0) -> Tensor:
    """Random bf16 numbers."""
    return (scale * torch.randn(shape)).bfloat16()


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


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


class FusedLayers:
    """Adapters of several ranks on layers that share their input, one layer without."""

    def __init__(self, ranks: tuple[int, ...], inputs: int = 48, dropout: float = 0.0):
        self.layers: list[Any] = [nn.Linear(inputs, 16, bias=False).requires_grad_(False)]
        for i, rank in enumerate(ranks):
            layer = LoRALinear(nn.Linear(inputs, 32 + 16 * i), rank, 3.0 + i, dropout)
            nn.init.normal_(layer.V)
            self.layers.insert(i, layer)
        for layer in self.layers:
            (layer.base if isinstance(layer, LoRALinear) else layer).bfloat16()
        self.product = FusedLinear(self.layers)

    def plain(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """LoRALinear's formula, layer by layer."""
        outputs = []
        for layer in self.layers:
            base = layer.base if isinstance(layer, LoRALinear) else layer
            bias = None if base.bias is None else base.bias.float()
            y = F.linear(x, base.weight.float(), bias)
            if isinstance(layer, LoRALinear):
                dropped = x if mask is None else x * mask
                y = y + layer.scaling * (dropped @ layer.U.T @ layer.V.T)
            outputs.append(y)
        return torch.cat(outputs, dim=-1)

    def check(self, x: Tensor, mask: Tensor | None = None) -> None:
        assert self.product.adapters
        weights = bf16(*x.shape[:-1], self.product.outputs)
        x, wide = x.clone().requires_grad_(), x.float().requires_grad_()
        y = self.product(x)
        reference = self.plain(wide, mask)
        factors = self.product.factors
        actual = [y, *torch.autograd.grad(y, [x, *factors], weights)]
        grads = torch.autograd.grad(reference, [wide, *factors], weights.float())
        for ours, theirs in zip(actual, [reference, *grads], strict=True):
            assert ours.shape == theirs.shape
            scale = float(theirs.detach().abs().max())
            torch.testing.assert_close(ours.float() / scale, theirs / scale, **ROUNDED)


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


@pytest.fixture
def fresh_kernel_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """A cache folder of its own, with nothing compiled yet."""
    monkeypatch.setenv("POTSTILL_CACHE", str(tmp_path / "cache"))
    kernels.load_library.cache_clear()
    yield tmp_path
    kernels.load_library.cache_clear()


@needed
def test_kernels_are_compiled_once(
    fresh_kernel_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert kernels.load_library() and not kernels.compiler_missing()
    (file,) = (fresh_kernel_cache / "cache").iterdir()
    assert file.name.startswith("kernels-") and file.suffix == ".so"
    kernels.load_library.cache_clear()
    monkeypatch.setattr(kernels.subprocess, "run", None)
    assert kernels.load_library()


@pytest.mark.parametrize("fault", ["no compiler", "it fails", "no room", "no bf16"])
def test_without_kernels_pytorchs_operations_are_used(
    fault: str, fresh_kernel_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if fault == "no compiler":
        monkeypatch.setenv("CC", "no-such-compiler --flag")
    elif fault == "it fails":
        monkeypatch.setenv("CC", "false")
    elif fault == "no room":
        (fresh_kernel_cache / "cache").write_text("a file where the folder should be")
    else:
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    assert kernels.load_library() is None
    assert kernels.compiler_missing() == (fault != "no bf16" and RUNNABLE)
    assert (
        fault == "no room"
        or not (fresh_kernel_cache / "cache").exists()
        or not any(fresh_kernel_cache.glob("cache/*"))
    )
    fused = FusedLayers((4, 4))
    assert not fused.product.adapters
    x = bf16(3, 5, 48)
    torch.testing.assert_close(
        fused.product(x).float(), fused.plain(x.float()), rtol=2**-5, atol=2**-4
    )
    assert SwiGLU.apply(bf16(2, 64)).shape == (2, 32)
    assert RMSNorm.apply(bf16(2, 48), torch.ones(48), 1e-5).shape == (2, 48)
    assert gelu(bf16(2, 48)).shape == (2, 48)
    assert attention(bf16(1, 3, 48), 1, 1).shape == (1, 3, 16)
