"""Dropout that is cheap on CPUs, and repeatable where threads share the work of a batch."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

_thread = threading.local()


class Dropout(nn.Dropout):
    """Srivastava et al. 2014, *Dropout*, section 4, as `nn.Dropout` computes it, with random
    numbers of the thread's own generator where it has one: from the common one, they would come to
    the threads in another order each time."""

    def forward(self, x: Tensor) -> Tensor:
        """x with a share `p` of its elements set to 0 and the others scaled up; x in evaluation."""
        return x * self.mask(x) if self.training and self.p else x

    def mask(self, x: Tensor) -> Tensor:
        """What training multiplies each element of `x` by: 0, or for those that stay 1/(1 − p)."""
        generator = getattr(_thread, "generator", None)
        if not x.is_cpu:
            return torch.empty_like(x).bernoulli_(1 - self.p, generator=generator).div_(1 - self.p)
        # PyTorch's bernoulli_ takes four times as long as this, 16 bits of an integer for each.
        drawn = torch.empty(-(-x.numel() // 4), dtype=torch.int64)
        drawn = drawn.random_(-(2**63), None, generator=generator).view(torch.int16)
        dropped = min(round(self.p * 2**16), 2**16 - 1)
        stays = drawn[: x.numel()].view(x.shape) >= dropped - 2**15
        return stays.to(x.dtype).mul_(2**16 / (2**16 - dropped))


@contextmanager
def own_generator(seed: int) -> Iterator[None]:
    """For a while, this thread's dropout draws from a generator of its own on the CPU."""
    _thread.generator = torch.Generator().manual_seed(seed)
    try:
        yield
    finally:
        _thread.generator = None
