"""The training loop of language models, the decoder's and the student's."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from potstill.ops.parameters import trainable_parameters
from potstill.progress import Progress, no_progress
from potstill.settings import TrainSettings
from potstill.training.checkpoint import Checkpoint, EpochMetrics, TrainResult
from potstill.training.distributed import process
from potstill.training.epoch import Dataset, run_epoch
from potstill.training.optim import adamw, update


def fit_language_model(
    model: nn.Module,
    dataset: Dataset,
    loss_function: Callable[[Any, Any], Tensor],
    settings: TrainSettings,
    *,
    epochs: int,
    seed: int,
    checkpoint: Checkpoint | None = None,
    progress: Progress = no_progress,
) -> float:
    """Train the parameters of a language model that require gradients.

    Args:
        loss_function: Maps the model and a batch to the mean loss over its tokens.
        checkpoint: Keeps what it takes to continue after the last finished epoch, as
            `settings.resume` asks; every process must call then, where without it one may do so
            alone.

    Returns:
        The mean loss over the batches of the last epoch.
    """
    trainable = trainable_parameters(model)
    step = _Step(model, loss_function, adamw(model, settings), settings.clip, trainable)
    history: list[EpochMetrics] = []
    if checkpoint:
        if settings.resume:
            history = checkpoint.load(trainable, step.optimizer).history
        process().wait_for_everyone()  # all have looked before any writes
    with progress(epochs * len(dataset.tokens)) as show:
        for epoch in range(len(history) + 1, epochs + 1):
            losses = run_epoch(
                step,
                dataset,
                step.optimizer,
                settings,
                epoch=epoch,
                epochs=epochs,
                seed=seed,
                show=show,
                description="language model",
            )
            history.append({"epoch": epoch, "loss": float(torch.stack(losses).mean())})
            if checkpoint and process().is_main_process:
                checkpoint.save(TrainResult(history, {}), trainable, step.optimizer)
    return history[-1]["loss"]


@dataclass(frozen=True)
class _Step:
    model: nn.Module
    loss_function: Callable[[Any, Any], Tensor]
    optimizer: torch.optim.Optimizer
    clip: float
    trainable: dict[str, Tensor]

    def __call__(self, dataset: Dataset, indices: np.ndarray) -> Tensor:
        """Take a step by the batch at `indices`; return its loss."""
        device = next(iter(self.trainable.values())).device
        loss = self.loss_function(self.model, dataset.batch(indices.tolist()).to(device))
        loss.backward()
        update(self.optimizer, self.trainable.values(), self.clip)
        return loss.detach()
