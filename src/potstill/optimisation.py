"""Steps of the optimizer: schedule and AdamW, and the plain loop around them."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from potstill.batching import Batch, collate, length_batches
from potstill.settings import TrainSettings


def lr_factor(step: int, steps: int, warmup: float) -> float:
    """Share of the peak learning rate at `step` of `steps`: linear up, then linear down to 0."""
    rise = math.ceil(warmup * steps)
    if step < rise:
        return (step + 1) / rise
    return max(0.0, (steps - step) / max(1, steps - rise))


def adamw(model: nn.Module, settings: TrainSettings) -> torch.optim.Optimizer:
    """AdamW (Loshchilov and Hutter 2019); biases and norms are not decayed."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=settings.lr, fused=True)


def update(
    optimizer: Any, parameters: Iterable[Tensor], settings: TrainSettings, step: int, steps: int
) -> None:
    """Clips the gradients, takes step number `step` of `steps`, and drops the gradients."""
    for group in optimizer.param_groups:
        group["lr"] = settings.lr * lr_factor(step, steps, settings.warmup)
    # foreach: else several operations from Python for each of hundreds of tensors
    nn.utils.clip_grad_norm_(parameters, settings.clip, foreach=True)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def descend(
    model: nn.Module,
    tokens: list[list[int]],
    batch_loss: Callable[[Batch], Tensor],
    settings: TrainSettings,
    epochs: int,
    seed: int,
    show: Callable[[int, str], None],
) -> float:
    """Trains a language model on the sentences `tokens`, by the mean loss of each batch; gives the
    mean of the last epoch."""
    lengths = [len(t) for t in tokens]
    parameters = [p for p in model.parameters() if p.requires_grad]
    device = parameters[0].device
    optimizer = adamw(model, settings)
    steps = epochs * math.ceil(len(tokens) / settings.batch_size)
    step = done = 0
    for epoch in range(1, epochs + 1):
        losses: list[Tensor] = []
        for index in length_batches(lengths, settings.batch_size, seed, epoch):
            loss = batch_loss(collate(tokens, index.tolist()).to(device))
            loss.backward()
            update(optimizer, parameters, settings, step, steps)
            losses.append(loss.detach())
            step, done = step + 1, done + len(index)
            show(done, "language model")
    return float(torch.stack(losses).mean())
