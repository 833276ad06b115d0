"""The optimizer: AdamW, its schedule, clipped gradients."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from potstill.settings import ResolvedTrainSettings
from potstill.training.finite import NonFiniteError


def lr_factor(step: int, steps: int, warmup: float) -> float:
    """Return the fraction of the peak learning rate at `step` of `steps`: linear up, then down
    to 0."""
    rise = math.ceil(warmup * steps)
    if step < rise:
        return (step + 1) / rise
    return max(0.0, (steps - step) / max(1, steps - rise))


def shortened_lr_factor(
    step: int, steps: int, warmup: float, cuts: Sequence[tuple[int, int]]
) -> float:
    """Return the `lr_factor` at `step` of a schedule that was shortened, or lengthened, on its way.

    Args:
        step: From 0.
        steps: How many were planned at first.
        warmup: As in `lr_factor`.
        cuts: Each a step, in their order, and how many steps there are to be in all from then on:
            the factor falls from what it is there to 0 in a line.
    """
    factor = lr_factor(min([step, *(at for at, _ in cuts)]), steps, warmup)
    ends = [at for at, _ in cuts[1:]] + [step]
    for (at, last), end in zip(cuts, ends, strict=False):
        if step > at:
            factor *= (last - min(step, end)) / (last - at)
    return factor


def adamw(model: nn.Module, settings: ResolvedTrainSettings) -> torch.optim.Optimizer:
    """Return AdamW (Loshchilov and Hutter 2019) for the parameters that require gradients.

    Biases and norms are not decayed.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=settings.lr, fused=True)


def set_lr(
    optimizer: Any,
    settings: ResolvedTrainSettings,
    step: int,
    steps: int,
    *,
    cuts: Sequence[tuple[int, int]] = (),
) -> None:
    """Set the learning rate of step number `step` of `steps`; `cuts` are as in
    `shortened_lr_factor`."""
    lr = settings.lr * shortened_lr_factor(step, steps, settings.warmup, cuts)
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(lr)
        else:
            group["lr"] = lr


def current_lr(optimizer: Any) -> float:
    """Return the learning rate that the next step takes, or the latest took."""
    return float(optimizer.param_groups[0]["lr"])


def update(optimizer: Any, parameters: Iterable[Tensor], clip: float) -> None:
    """Clip the gradients to the norm `clip`, take a step, and drop the gradients.

    Raises:
        NonFiniteError: The norm is not finite, on a CPU; a GPU is not asked, as it would wait.
    """
    parameters = list(parameters)
    gradients = [p.grad for p in parameters if p.grad is not None]
    # foreach: else several operations from Python for each of hundreds of tensors
    norm = nn.utils.get_total_norm(gradients, foreach=True)
    on_cpu = norm.device.type == "cpu"
    if on_cpu and not math.isfinite(norm):
        raise NonFiniteError
    # Below `clip`, gradients would be multiplied with 1; to ask a GPU would be to wait for it.
    if not on_cpu or norm + 1e-6 > clip:
        nn.utils.clip_grads_with_norm_(parameters, clip, norm, foreach=True)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def epoch_seed(seed: int, epoch: int) -> int:
    """Return the seed of an epoch's random numbers."""
    return seed * 1_000_003 + epoch


def seed_epoch(seed: int, epoch: int) -> None:
    """Seed an epoch's random numbers, whether or not the ones before it ran in this process."""
    torch.manual_seed(epoch_seed(seed, epoch))
