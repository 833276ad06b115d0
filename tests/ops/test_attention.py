"""Which attention serves: the formulas of the GPU's kernels are compared in test_triton_kernels."""

from types import SimpleNamespace

import pytest
import torch

from potstill.ops import gpu
from potstill.ops.attention import attention, cached_attention


class CalledError(Exception):
    """A kernel was."""


def kernel(*arguments: object) -> torch.Tensor:
    raise CalledError


@pytest.mark.parametrize(
    ("size", "serves"), [(8, False), (16, True), (64, True), (100, False), (128, True)]
)
def test_kernels_of_a_gpu_take_heads_of_some_sizes(size, serves, monkeypatch):
    """OpenLLaMA-3B has heads of 100, and Triton would refuse them when it compiles."""
    stand_in = SimpleNamespace(SHORT=64, short_attention=kernel, decode_attention=kernel)
    qkv = torch.randn(2, 3, 3 * size)
    expected = attention(qkv, 1, 1)
    monkeypatch.setattr(gpu, "inference_kernels", lambda x: stand_in)
    keys, values = torch.zeros(2, 2, 1, 3, size).unbind()
    if serves:
        with pytest.raises(CalledError):
            attention(qkv, 1, 1)
        with pytest.raises(CalledError):
            cached_attention(qkv[:, 0], keys, values, torch.zeros(2, dtype=torch.long))
        return
    torch.testing.assert_close(attention(qkv, 1, 1), expected)
    steps = [
        cached_attention(qkv[:, position], keys, values, torch.full((2,), position))
        for position in range(3)
    ]
    torch.testing.assert_close(torch.stack(steps, 1), expected, rtol=1e-4, atol=1e-5)
