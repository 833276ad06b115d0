"""One pass over a dataset."""

import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from potstill.data.batching import length_batches
from potstill.settings import ResolvedTrainSettings
from potstill.training.checkpoint import EpochProgress
from potstill.training.finite import DivergedError, NonFiniteError
from potstill.training.optim import current_lr, seed_epoch, set_lr

STEPS_BETWEEN_CHECKS = 50  # of what a GPU has computed: asking makes it wait


class Dataset(Protocol):
    """Tokenised sentences.

    lengths: (N,) tokens of each.
    """

    @property
    def lengths(self) -> np.ndarray: ...

    def __len__(self) -> int: ...


@runtime_checkable
class Streamed(Protocol):
    """Sentences that are not all in memory, and so say themselves which share a batch."""

    def __len__(self) -> int: ...

    def epoch_batches(self, batch_size: int, *, seed: int, epoch: int) -> list[np.ndarray]: ...


def epoch_batches(
    dataset: Dataset | Streamed, batch_size: int, *, one_length: bool = False, **order: int
) -> list[np.ndarray]:
    """Return the indices of one epoch's batches, as `length_batches` does."""
    if isinstance(dataset, Streamed):
        return dataset.epoch_batches(batch_size, **order)
    return length_batches(dataset.lengths, batch_size, one_length=one_length, **order)


def run_epoch(
    step: Callable[[Any, np.ndarray], Sequence[tuple[Tensor, ...]]],
    dataset: Dataset | Streamed,
    optimizer: Any,
    settings: ResolvedTrainSettings,
    *,
    epoch: int,
    epochs: int,
    seed: int,
    show: Callable[[int, str], None],
    description: str,
    one_length: bool = False,
    cuts: Sequence[tuple[int, int]] = (),
    begun: EpochProgress = EpochProgress(),
    after_step: Callable[[EpochProgress], None] | None = None,
) -> EpochProgress:
    """Take a step for every batch of an epoch, at its learning rate.

    Args:
        step: Is called with the dataset and the indices of a batch.
        epoch: From 1. It and `seed` determine the batches and all random numbers.
        show: Is called with the sentences done, in all epochs so far, and `description`.
        one_length: No batch has sentences of two lengths.
        cuts: After which epochs there were to be how many in all, other than `epochs`.
        begun: How far the epoch is already.
        after_step: Is called with how far it is after each step.

    Returns:
        The whole epoch: its steps, the seconds, and what the steps returned.

    Raises:
        DivergedError: The loss or a gradient is not finite.
    """
    seed_epoch(seed, epoch)
    if begun.steps:
        begun.restore_random_numbers()
    batches = epoch_batches(
        dataset, settings.batch_size, seed=seed, epoch=epoch, one_length=one_length
    )
    first_step, steps = (epoch - 1) * len(batches), epochs * len(batches)
    step_cuts = [(at * len(batches), last * len(batches)) for at, last in cuts]
    done = (epoch - 1) * len(dataset) + sum(map(len, batches[: begun.steps]))
    results = list(begun.results)
    started = time.perf_counter() - begun.seconds
    checked, first_unchecked = begun.steps, len(results)
    for number, indices in enumerate(batches[begun.steps :], begun.steps):
        set_lr(optimizer, settings, first_step + number, steps, cuts=step_cuts)
        try:
            results += step(dataset, indices)
        except NonFiniteError as error:
            lr = current_lr(optimizer)
            raise DivergedError(epoch, number + 1, lr, indices.tolist()) from error
        done += len(indices)
        if number + 1 - checked == STEPS_BETWEEN_CHECKS or number + 1 == len(batches):
            if not _are_finite(results[first_unchecked:]):
                raise DivergedError(epoch, number + 1, current_lr(optimizer))
            checked, first_unchecked = number + 1, len(results)
        if after_step:
            after_step(EpochProgress(number + 1, time.perf_counter() - started, results))
        show(done, description)
    torch_results = EpochProgress(len(batches), 0.0, results).columns()
    seconds = time.perf_counter() - started  # now that a GPU has finished, too
    return EpochProgress(len(batches), seconds, [tuple(torch_results)] if torch_results else [])


def _are_finite(results: list[tuple[Tensor, ...]]) -> bool:
    """Return whether all numbers are finite."""
    columns = [torch.cat(column) for column in zip(*results, strict=True)]
    return all(bool(c.isfinite().all()) for c in columns if c.is_floating_point())
