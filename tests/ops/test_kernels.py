"""The compiled functions against the plain formulas, in fp32, from the same rounded numbers."""

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

# Of a number rounded to bf16 once, 2^-9 of it; sums of such are near others'.
ROUNDED = {"rtol": 2**-7, "atol": 2**-7}

RUNNABLE = torch.cpu._is_avx512_bf16_supported() and sys.platform == "linux"

needed = pytest.mark.skipif(
    kernels.load_library() is None, reason="no C compiler, or no processor with bf16"
)


def outcome(function: Any, weights: Tensor, *inputs: Tensor) -> list[Tensor]:
    """The output, and the gradients of `inputs` under a weighted sum of it, all in fp32."""
    leaves = [x.detach().clone().requires_grad_() for x in inputs]
    y = function(*leaves)
    grads = torch.autograd.grad(y, leaves, weights.to(y.dtype))
    return [x.detach().float() for x in (y, *grads)]


def check(ours: Any, plain: Any, weights: Tensor, *inputs: Tensor) -> None:
    found = outcome(ours, weights, *inputs)
    expected = outcome(plain, weights, *(x.float() for x in inputs))
    for mine, reference in zip(found, expected, strict=True):
        scale = float(reference.abs().max()) or 1.0
        torch.testing.assert_close(mine / scale, reference / scale, **ROUNDED)


def half(*shape: int, scale: float = 1.0) -> Tensor:
    return (scale * torch.randn(shape)).bfloat16()


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


@needed
@pytest.mark.parametrize("rows", [(1,), (3, 5), (2, 2, 3), (16, 11)])
def test_rms_norm(rows: tuple[int, ...]) -> None:
    x, weight = half(*rows, 48), torch.rand(48) + 0.5

    def plain(x: Tensor, weight: Tensor) -> Tensor:
        return x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() * weight

    check(lambda x, w: RMSNorm.apply(x, w, 1e-5), plain, half(*rows, 48), x, weight)


@needed
@pytest.mark.parametrize("rows", [(1,), (3, 5), (16, 11)])
def test_swiglu(rows: tuple[int, ...]) -> None:
    def plain(x: Tensor) -> Tensor:
        gate, up = x.chunk(2, dim=-1)
        return F.silu(gate) * up

    check(SwiGLU.apply, plain, half(*rows, 32), half(*rows, 64, scale=4.0))


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

    check(gelu, plain, half(*rows, 48), half(*rows, 48, scale=3.0))


@needed
def test_gelu_far_from_zero() -> None:
    x = torch.tensor([-1e9, -1e4, -100, -20, -9, -5, -1, 0, 1, 5, 9, 20, 100, 1e4, 1e9, 3e38])
    x = x.bfloat16()
    expected = F.gelu(x.double(), approximate="tanh").float()
    torch.testing.assert_close(kernels.gelu(x).float(), expected, rtol=2**-8, atol=1e-6)
    slopes = kernels.gelu_backward(x, torch.ones_like(x)).float()
    wanted = torch.ops.aten.gelu_backward(torch.ones(16).double(), x.double(), approximate="tanh")
    torch.testing.assert_close(slopes[:-1], wanted.float()[:-1], rtol=2**-7, atol=1e-6)


@needed
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(("heads", "kv_heads", "size"), [(4, 4, 16), (6, 2, 32), (3, 1, 64)])
@pytest.mark.parametrize("L", [1, 5, 16, 17, 40])
def test_attention(L: int, heads: int, kv_heads: int, size: int, turned: bool, last: bool) -> None:
    B = 3
    angles = torch.rand(L, size // 2)
    sines = torch.cat([-angles.sin(), angles.sin()], dim=1)
    rotary = (torch.cat([angles.cos(), angles.cos()], dim=1), sines) if turned else None
    places = torch.randint(0, L, (B,)) if last else None
    qkv = half(B, L, (heads + 2 * kv_heads) * size)
    weights = half(B, 1 if last else L, heads * size)
    check(
        lambda qkv: attention(qkv, heads, kv_heads, rotary, places),
        lambda qkv: PlainAttention.apply(qkv, heads, kv_heads, rotary, places),
        weights,
        qkv,
    )


@needed
def test_attention_of_sure_weights() -> None:
    """Scores of thousands: the largest key takes all, and nothing overflows."""
    qkv = half(2, 7, 3 * 16, scale=100.0)
    y = kernels.attention(qkv, 1, 1, None, None)
    plain = PlainAttention.apply(qkv.float(), 1, 1, None, None)
    torch.testing.assert_close(y.float(), plain, rtol=2**-7, atol=1e-3)


class Joined:
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

    def plain(self, x: Tensor, kept: Tensor | None = None) -> Tensor:
        """LoRALinear's formula, layer by layer."""
        outputs = []
        for layer in self.layers:
            base = layer.base if isinstance(layer, LoRALinear) else layer
            bias = None if base.bias is None else base.bias.float()
            y = F.linear(x, base.weight.float(), bias)
            if isinstance(layer, LoRALinear):
                lost = x if kept is None else x * kept
                y = y + layer.scaling * (lost @ layer.U.T @ layer.V.T)
            outputs.append(y)
        return torch.cat(outputs, dim=-1)

    def check(self, x: Tensor, kept: Tensor | None = None) -> None:
        assert self.product.adapters
        weights = half(*x.shape[:-1], self.product.outputs)
        mine = x.clone().requires_grad_()
        y = self.product(mine)
        theirs = x.float().requires_grad_()
        reference = self.plain(theirs, kept)
        factors = self.product.factors
        found = [y, *torch.autograd.grad(y, [mine, *factors], weights)]
        grads = torch.autograd.grad(reference, [theirs, *factors], weights.float())
        for one, other in zip(found, [reference, *grads], strict=True):
            assert one.shape == other.shape
            scale = float(other.detach().abs().max())
            torch.testing.assert_close(one.float() / scale, other / scale, **ROUNDED)


@needed
@pytest.mark.parametrize("rows", [(1,), (3,), (2, 4), (5, 11)])
@pytest.mark.parametrize("ranks", [(4,), (1, 3), (4, 4, 4), (5, 8)])
def test_lora(ranks: tuple[int, ...], rows: tuple[int, ...]) -> None:
    Joined(ranks).check(half(*rows, 48))
    Joined(ranks, inputs=112).check(half(*rows, 112))


@needed
def test_lora_with_dropout(monkeypatch: pytest.MonkeyPatch) -> None:
    joined = Joined((4, 2), dropout=0.5)
    kept = 2 * torch.randint(0, 2, (3, 5, 48)).bfloat16()
    monkeypatch.setattr(type(joined.product.dropout), "mask", lambda self, x: kept)
    joined.product.dropout.train()
    joined.check(half(3, 5, 48), kept.float())


@needed
def test_lora_whose_input_needs_no_gradient() -> None:
    joined = Joined((4, 4))
    x, factors = half(3, 48), joined.product.factors
    grads = torch.autograd.grad(joined.product(x).float().sum(), factors)
    plain = torch.autograd.grad(joined.plain(x.float()).sum(), factors)
    torch.testing.assert_close(grads, plain, rtol=2**-6, atol=2**-4)


@needed
@pytest.mark.parametrize(("rows", "classes", "targets"), [(1, 16, 1), (5, 320, 1), (7, 48, 33)])
def test_cross_entropy(
    rows: int, classes: int, targets: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    logits, bias = half(rows, classes, scale=5.0), torch.randn(classes)
    places = torch.randint(0, classes, (rows, targets))  # some of them twice
    shares = torch.rand(rows, targets)
    leaf, leaf_bias = logits.float().requires_grad_(), bias.clone().requires_grad_()
    loss = -((leaf + leaf_bias).log_softmax(1).gather(1, places) * shares).sum()
    loss.backward()
    for compiled in (True, False):
        if not compiled:
            monkeypatch.setattr(kernels, "load_library", lambda: None)
        gradient, of_bias = logits.clone(), torch.zeros(classes)
        total = cross_entropy.cross_entropy_(gradient, bias, places, shares, of_bias)
        assert total == pytest.approx(loss.item(), rel=1e-5)
        assert leaf.grad is not None and leaf_bias.grad is not None
        torch.testing.assert_close(gradient.float(), leaf.grad, rtol=2**-8, atol=1e-6)
        torch.testing.assert_close(of_bias, leaf_bias.grad, rtol=1e-4, atol=1e-4)


@needed
def test_what_is_not_a_number_stays_so() -> None:
    """A run that has gone astray must show it."""
    x = half(2, 48)
    x[1, 3] = torch.nan
    y, _ = kernels.rms_norm(x, torch.ones(48), 1e-5)
    assert y[0].isfinite().all() and y[1].isnan().all()
    assert kernels.swiglu(x[:, :32].contiguous())[1, 3].isnan()
    assert kernels.gelu(x)[1, 3].isnan()
    assert kernels.attention(x[None], 1, 1, None, None)[0, 1].isnan().any()
    joined = Joined((4,))
    assert joined.product(x)[1].isnan().all()
    logits = half(1, 16)
    logits[0, 2] = torch.nan
    places, shares = torch.zeros(1, 1, dtype=torch.long), torch.ones(1, 1)
    loss = kernels.cross_entropy(logits, torch.zeros(16), places, shares, torch.zeros(16))
    assert loss != loss


@needed
def test_only_what_fits_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    assert kernels.supports(half(2, 48), 48)
    assert not kernels.supports(half(2, 24), 24)
    assert not kernels.supports(torch.randn(2, 48), 48)
    assert not kernels.supports(torch.empty(2, 48, dtype=torch.bfloat16, device="meta"), 48)


@pytest.fixture
def anew(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """Nothing compiled yet, in a cache folder of its own."""
    monkeypatch.setenv("POTSTILL_CACHE", str(tmp_path / "cache"))
    kernels.load_library.cache_clear()
    yield tmp_path
    kernels.load_library.cache_clear()


@needed
def test_compiled_once(anew: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert kernels.load_library() and not kernels.compiler_missing()
    (file,) = (anew / "cache").iterdir()
    assert file.name.startswith("kernels-") and file.suffix == ".so"
    kernels.load_library.cache_clear()
    monkeypatch.setattr(kernels.subprocess, "run", None)
    assert kernels.load_library()


@pytest.mark.parametrize("fault", ["no compiler", "it fails", "no room", "no bf16"])
def test_without_them_pytorchs_operations_serve(
    fault: str, anew: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if fault == "no compiler":
        monkeypatch.setenv("CC", "no-such-compiler --flag")
    elif fault == "it fails":
        monkeypatch.setenv("CC", "false")
    elif fault == "no room":
        (anew / "cache").write_text("a file where the folder should be")
    else:
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    assert kernels.load_library() is None
    assert kernels.compiler_missing() == (fault != "no bf16" and RUNNABLE)
    assert fault == "no room" or not (anew / "cache").exists() or not any(anew.glob("cache/*"))
    joined = Joined((4, 4))
    assert not joined.product.adapters
    x = half(3, 5, 48)
    torch.testing.assert_close(
        joined.product(x).float(), joined.plain(x.float()), rtol=2**-5, atol=2**-4
    )
    assert SwiGLU.apply(half(2, 64)).shape == (2, 32)
    assert RMSNorm.apply(half(2, 48), torch.ones(48), 1e-5).shape == (2, 48)
    assert gelu(half(2, 48)).shape == (2, 48)
    assert attention(half(1, 3, 48), 1, 1).shape == (1, 3, 16)
