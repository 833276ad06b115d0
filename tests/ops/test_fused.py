"""The operations between a decoder's products against PyTorch's own."""

import pytest
import torch
from torch.nn import functional as F

from potstill.ops.fused import RMSNorm, SwiGLU


def swiglu(x):
    gate, up = x.chunk(2, dim=-1)
    return F.silu(gate) * up


SIZE = 6
WEIGHT = torch.linspace(0.5, 1.5, SIZE)
OPERATIONS = pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (SwiGLU.apply, swiglu),
        (
            lambda x: RMSNorm.apply(x, WEIGHT.to(x.dtype), 1e-5),
            lambda x: F.rms_norm(x, (SIZE,), WEIGHT.to(x.dtype), 1e-5),
        ),
    ],
    ids=["swiglu", "rms_norm"],
)


@OPERATIONS
def test_values_and_gradients(ours, theirs):
    torch.manual_seed(0)
    scales = torch.tensor([0.1, 1, 5, 200]).double()  # far into both tails
    x = (torch.randn(4, SIZE).double() * scales[:, None]).requires_grad_()
    before = x.detach().clone()
    results = []
    for function in (ours, theirs):
        out = function(x)
        results.append((out, *torch.autograd.grad(out.sin().sum(), x)))
    for actual, expected in zip(*results, strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-9)
    assert torch.equal(x, before)  # the input is not changed


@OPERATIONS
def test_bf16_is_rounded_once_or_twice(ours, theirs):
    torch.manual_seed(0)
    x = (3 * torch.randn(64, SIZE)).bfloat16().requires_grad_()
    wide = x.detach().float().requires_grad_()
    out, exact = ours(x), theirs(wide)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), exact, rtol=2**-7, atol=1e-3)
    out.sum().backward()
    exact.sum().backward()
    torch.testing.assert_close(x.grad.float(), wide.grad, rtol=2**-6, atol=1e-2)
