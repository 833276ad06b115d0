"""The training loop of language models, the decoder's and the student's."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from potstill.ops.parameters import trainable_parameters
from potstill.progress import Progress, no_progress
from potstill.settings import ResolvedTrainSettings
from potstill.training.checkpoint import Checkpoint, EpochProgress
from potstill.training.epoch import run_epoch
from potstill.training.history import TrainResult
from potstill.training.optim import adamw, update
from potstill.training.resident import Resident, ResidentStep, layered_language_model


def fit_language_model(
    model: nn.Module,
    dataset: Any,
    loss_function: Callable[[Any, Any], Tensor],
    settings: ResolvedTrainSettings,
    *,
    epochs: int,
    seed: int,
    checkpoint: Checkpoint | None = None,
    progress: Progress = no_progress,
) -> float:
    """Train the parameters of a language model that require gradients.

    Args:
        dataset: What has the attributes of `TokenDataset` or of `Resident`.
        loss_function: Maps the model and a batch to the mean loss over its tokens; a `Resident`
            dataset needs none, as the model is a student's `NextTokenHead`.
        checkpoint: Keeps what it takes to continue; where it has a state, training goes on from it.

    Returns:
        The mean loss over the batches of the last epoch.

    Raises:
        DivergedError: The loss or a gradient is not finite.
        UserError: The checkpoint is damaged, or of other settings.
    """
    trainable = trainable_parameters(model)
    optimizer = adamw(model, settings)
    result, begun = TrainResult([], {}), EpochProgress()
    if checkpoint:
        if checkpoint.exists():
            result, begun = checkpoint.load(trainable, optimizer)
        checkpoint.wait_for_everyone()  # all have looked before any writes
    if isinstance(dataset, Resident):
        resident_step = ResidentStep(
            layered_language_model(model),
            lambda loss, batch: loss,
            optimizer,
            settings.clip,
            parameters=list(trainable.values()),
            batch_size=settings.batch_size,
        )

        def step(dataset: Any, indices: np.ndarray) -> Sequence[tuple[Tensor, ...]]:
            return [(resident_step(dataset, indices)[0][1].reshape(1),)]
    else:
        step = _Step(model, loss_function, optimizer, settings.clip, trainable)
    with progress(epochs * len(dataset)) as show:
        for epoch in range(len(result.history) + 1, epochs + 1):
            save = None
            if checkpoint:
                save = partial(checkpoint.after_step, result, trainable, optimizer)
            whole = run_epoch(
                step,
                dataset,
                optimizer,
                settings,
                epoch=epoch,
                epochs=epochs,
                seed=seed,
                show=show,
                description="language model",
                one_length=isinstance(dataset, Resident),
                begun=begun,
                after_step=save,
            )
            begun = EpochProgress()
            (losses,) = whole.columns()
            metrics = {"epoch": epoch, "loss": float(losses.mean())}
            result = TrainResult([*result.history, metrics], {})
            if checkpoint:
                checkpoint.save(result, trainable, optimizer)
                checkpoint.end_if_asked()
    return result.history[-1]["loss"]


@dataclass(frozen=True)
class _Step:
    model: nn.Module
    loss_function: Callable[[Any, Any], Tensor]
    optimizer: torch.optim.Optimizer
    clip: float
    trainable: dict[str, Tensor]

    def __call__(self, dataset: Any, indices: np.ndarray) -> list[tuple[Tensor, ...]]:
        """Take a step by the batch at `indices`; return its loss, (1,)."""
        device = next(iter(self.trainable.values())).device
        loss = self.loss_function(self.model, dataset.batch(indices.tolist()).to(device))
        loss.backward()
        update(self.optimizer, self.trainable.values(), self.clip)
        return [(loss.detach()[None],)]
