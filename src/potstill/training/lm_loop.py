"""The training loop of language models, the decoder's and the student's."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from potstill.data.batching import Batch, collate, length_batches
from potstill.ops.parameters import trainable_parameters
from potstill.settings import TrainSettings
from potstill.training.checkpoint import Record, Trained, TrainingState
from potstill.training.distributed import process
from potstill.training.optim import adamw, seed_epoch, set_lr, update


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
    trainable = trainable_parameters(model)
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
