"""Which of how many processes this is, under torchrun or accelerate launch."""

import torch
from accelerate import PartialState


def process() -> PartialState:
    """This process among all; alone unless a launcher started several.

    Accelerate must be told where there is no accelerator: it would let processes launched on CPUs
    each run by itself.
    """
    return PartialState(cpu=not torch.accelerator.is_available())
