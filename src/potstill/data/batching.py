"""Batches of like length.

Most of the cost of a plain loader is padding: CoLA's sentences have 10.5 tokens on average and 47
at most. Here a batch holds sentences of (nearly) one length. What little padding is left stands on
the right, where no causal or packed model lets a real token see it, so no mask is needed.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """Some sentences of a split.

    index: (B,) their places in it; input_ids: (B, L) tokens, 0 beyond the end; lengths: (B,).
    """

    index: Tensor
    input_ids: Tensor
    lengths: Tensor

    def to(self, device: torch.device) -> "Batch":
        return Batch(self.index, self.input_ids.to(device), self.lengths.to(device))


def collate(tokens: Sequence[Sequence[int]], index: Sequence[int]) -> Batch:
    """The sentences `index` of `tokens` as one batch."""
    lengths = [len(tokens[i]) for i in index]
    input_ids = np.zeros((len(index), max(lengths)), dtype=np.int64)
    for row, i in enumerate(index):
        input_ids[row, : lengths[row]] = tokens[i]
    return Batch(torch.tensor(index), torch.from_numpy(input_ids), torch.tensor(lengths))


def length_batches(
    lengths: Sequence[int],
    batch_size: int,
    seed: int,
    epoch: int,
    rank: int = 0,
    world_size: int = 1,
) -> list[np.ndarray]:
    """Indices of one epoch's batches, every sentence exactly once.

    Sentences are shuffled, sorted by length (so that which of like length meet is chance), cut,
    and the batches shuffled; `seed` and `epoch` settle both. `batch_size` counts over all
    `world_size` processes: each gets every world_size-th sentence of a batch, so that together
    they do the same steps as one process would, where they divide it evenly. A batch too small to
    go round is dealt out again from its start, so that no process waits for another.
    """
    rng = np.random.default_rng([seed, epoch])
    order = rng.permutation(len(lengths))
    order = order[np.argsort(np.asarray(lengths)[order], kind="stable")]
    batches = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
    rng.shuffle(batches)
    if world_size == 1:
        return batches
    return [np.resize(batch, max(len(batch), world_size))[rank::world_size] for batch in batches]
