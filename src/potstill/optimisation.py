"""Steps of the optimizer: schedule and AdamW, and the plain loop around them."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from potstill.batching import Batch, collate, length_batches
from potstill.processes import process
from potstill.settings import TrainSettings
from potstill.state import Record, Trained, TrainingState


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


def set_lr(optimizer: Any, settings: TrainSettings, step: int, steps: int) -> None:
    """Sets the learning rate of step number `step` of `steps`."""
    lr = settings.lr * lr_factor(step, steps, settings.warmup)
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(lr)
        else:
            group["lr"] = lr


def update(optimizer: Any, parameters: Iterable[Tensor], clip: float) -> None:
    """Clips the gradients to the norm `clip`, takes a step, and drops the gradients."""
    # foreach: else several operations from Python for each of hundreds of tensors
    nn.utils.clip_grad_norm_(parameters, clip, foreach=True)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def seed_epoch(seed: int, epoch: int) -> None:
    """Settles an epoch's random numbers, whether or not the ones before it ran in this process."""
    torch.manual_seed(seed * 1_000_003 + epoch)


def descend(
    model: nn.Module,
    tokens: list[list[int]],
    batch_loss: Callable[[Batch], Tensor],
    settings: TrainSettings,
    epochs: int,
    seed: int,
    show: Callable[[int, str], None],
    state: TrainingState | None = None,
) -> float:
    """Trains a language model on the sentences `tokens`, by the mean loss of each batch; gives the
    mean of the last epoch.

    state: keeps what it takes to go on after the last finished epoch, as `settings.resume` asks;
    every process must call then, where without it one may do so alone.
    """
    lengths = [len(t) for t in tokens]
    trainable: dict[str, Tensor] = {n: p for n, p in model.named_parameters() if p.requires_grad}
    device = next(iter(trainable.values())).device
    optimizer = adamw(model, settings)
    steps = epochs * math.ceil(len(tokens) / settings.batch_size)
    records: list[Record] = []
    if state:
        if settings.resume:
            records = state.load(trainable, optimizer).records
        process().wait_for_everyone()  # all have looked before any writes
    step, done = steps // epochs * len(records), len(tokens) * len(records)
    for epoch in range(len(records) + 1, epochs + 1):
        seed_epoch(seed, epoch)
        losses: list[Tensor] = []
        for index in length_batches(lengths, settings.batch_size, seed, epoch):
            loss = batch_loss(collate(tokens, index.tolist()).to(device))
            loss.backward()
            set_lr(optimizer, settings, step, steps)
            update(optimizer, trainable.values(), settings.clip)
            losses.append(loss.detach())
            step, done = step + 1, done + len(index)
            show(done, "language model")
        records.append({"epoch": epoch, "loss": float(torch.stack(losses).mean())})
        if state and process().is_main_process:
            state.save(Trained(records, {}), trainable, optimizer)
    return records[-1]["loss"]
