"""Dropout that is cheap on CPUs, and reproducible where threads share the work of a batch."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

_thread = threading.local()


class Dropout(nn.Dropout):
    """Dropout (Srivastava et al. 2014, *Dropout*, section 4) as `nn.Dropout` computes it.

    Random numbers come from the thread's own generator if it has one (`own_generator`): drawn from
    the global one, they would reach the threads in a different order each time.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return `x` with a fraction `p` of its elements zeroed and the rest scaled by 1/(1 − p).

        In evaluation mode, return `x`.
        """
        return x * self.mask(x) if self.training and self.p else x

    def mask(self, x: Tensor) -> Tensor:
        """Return the mask that training multiplies `x` by: 0, or 1/(1 − p) where it is kept."""
        generator = getattr(_thread, "generator", None)
        if not x.is_cpu:
            return torch.empty_like(x).bernoulli_(1 - self.p, generator=generator).div_(1 - self.p)
        # 16 random bits per element: PyTorch's bernoulli_ takes four times as long.
        bits = torch.empty(-(-x.numel() // 4), dtype=torch.int64)
        bits = bits.random_(-(2**63), None, generator=generator).view(torch.int16)
        threshold = min(round(self.p * 2**16), 2**16 - 1)
        kept = bits[: x.numel()].view(x.shape) >= threshold - 2**15
        return kept.to(x.dtype).mul_(2**16 / (2**16 - threshold))


@contextmanager
def own_generator(seed: int) -> Iterator[None]:
    """Let this thread's dropout draw from a CPU generator of its own inside the context."""
    _thread.generator = torch.Generator().manual_seed(seed)
    try:
        yield
    finally:
        _thread.generator = None
