"""One pass over a dataset."""

from collections.abc import Callable
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np

from potstill.data.batching import length_batches
from potstill.settings import TrainSettings
from potstill.training.optim import seed_epoch, set_lr

Result = TypeVar("Result")


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

    def epoch_batches(
        self, batch_size: int, *, seed: int, epoch: int, rank: int, world_size: int
    ) -> list[np.ndarray]: ...


def epoch_batches(
    dataset: Dataset | Streamed, batch_size: int, *, one_length: bool = False, **order: int
) -> list[np.ndarray]:
    """Return the indices of one epoch's batches, as `length_batches` does."""
    if isinstance(dataset, Streamed):
        return dataset.epoch_batches(batch_size, **order)
    return length_batches(dataset.lengths, batch_size, one_length=one_length, **order)


def run_epoch(
    step: Callable[[Any, np.ndarray], Result],
    dataset: Dataset | Streamed,
    optimizer: Any,
    settings: TrainSettings,
    *,
    epoch: int,
    epochs: int,
    seed: int,
    show: Callable[[int, str], None],
    description: str,
    rank: int = 0,
    world_size: int = 1,
    one_length: bool = False,
) -> list[Result]:
    """Take a step for every batch of an epoch, at its learning rate; return what the steps return.

    Args:
        step: Is called with the dataset and the indices of a batch.
        epoch: From 1. It and `seed` determine the batches and all random numbers.
        show: Is called with the sentences done, in all epochs so far, and `description`.
        one_length: No batch has sentences of two lengths.
    """
    seed_epoch(seed, epoch)
    batches = epoch_batches(
        dataset,
        settings.batch_size,
        seed=seed,
        epoch=epoch,
        rank=rank,
        world_size=world_size,
        one_length=one_length,
    )
    done_before = (epoch - 1) * len(dataset)
    results, done = [], 0
    for number, indices in enumerate(batches):
        step_number = (epoch - 1) * len(batches) + number
        set_lr(optimizer, settings, step_number, epochs * len(batches))
        results.append(step(dataset, indices))
        done = min(done + len(indices) * world_size, len(dataset))
        show(done_before + done, description)
    return results
