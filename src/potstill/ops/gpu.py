"""Whether the GPU's own kernels serve.

They are written in Triton, which PyTorch's CUDA builds bring. Where it is missing, and on other
devices, PyTorch's operations do the same more slowly.
"""

import importlib.util
from functools import cache
from types import ModuleType

import torch
from torch import Tensor


@cache
def load_kernels() -> ModuleType | None:
    """Return the module `triton_kernels`; None if Triton is not installed."""
    if importlib.util.find_spec("triton") is None:
        return None
    from potstill.ops import triton_kernels

    return triton_kernels


def inference_kernels(x: Tensor) -> ModuleType | None:
    """Return `triton_kernels` if its forward passes serve `x`: on a GPU, without gradients."""
    if not x.is_cuda or torch.is_grad_enabled():
        return None
    return load_kernels()


def attention_kernels(x: Tensor, size: int) -> ModuleType | None:
    """Return `triton_kernels` if its attention serves `x` with heads of `size`: Triton takes powers
    of two, and its products at least 16."""
    return inference_kernels(x) if size >= 16 and size & (size - 1) == 0 else None
