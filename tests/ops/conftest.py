"""Random bf16 numbers, layers with adapters, and comparing kernels with plain formulas."""

import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from potstill.decoder.fused_linear import FusedLinear
from potstill.decoder.lora import LoRALinear
from potstill.ops import kernels

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
