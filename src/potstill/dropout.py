"""Dropout that threads can share the work of a batch under, and still be repeatable."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

_thread = threading.local()


class Dropout(nn.Dropout):
    """`nn.Dropout`, which draws from the thread's own generator where it has one: from the common
    one, numbers would come to the threads in another order each time."""

    def forward(self, x: Tensor) -> Tensor:
        generator = getattr(_thread, "generator", None)
        if generator is None or not self.training or not self.p:
            return super().forward(x)
        kept = torch.empty_like(x).bernoulli_(1 - self.p, generator=generator)
        return x * kept.div_(1 - self.p)


@contextmanager
def own_generator(seed: int) -> Iterator[None]:
    """For a while, this thread's dropout draws from a generator of its own on the CPU."""
    _thread.generator = torch.Generator().manual_seed(seed)
    try:
        yield
    finally:
        _thread.generator = None
