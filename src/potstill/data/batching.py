"""Tokenised sentences, and batches of sentences of similar length.

Most of the cost of a plain loader is padding: CoLA's sentences have 10.5 tokens on average and 47
at most. Here all sentences of a batch have (nearly) the same length. The little padding that
remains is on the right, where a causal or packed model lets no real token see it: there is no mask.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Self

import numpy as np
import torch
from torch import Tensor

from potstill.data.token_array import TokenArray, Tokens

UNLABELLED = -100  # in place of a label


@dataclass(frozen=True)
class Batch:
    """A batch of sentences.

    Args:
        indices: (B,) their indices in the dataset.
        input_ids: (B, L) tokens, padded with 0 on the right.
        lengths: (B,) numbers of tokens.
    """

    indices: Tensor
    input_ids: Tensor
    lengths: Tensor

    def __len__(self) -> int:
        return len(self.lengths)

    def to(self, device: torch.device | str, *, copy: bool = False) -> Self:
        """Return the batch with its tensors on `device`; `indices` stay on the CPU."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "indices"}
        moved = {k: v.to(device, copy=copy) for k, v in values.items() if v is not None}
        return replace(self, **moved)


@dataclass(frozen=True)
class LabelledBatch(Batch):
    """A batch with labels.

    Args:
        labels: (B,) classes, UNLABELLED if a sentence has none.
    """

    labels: Tensor


@dataclass(frozen=True)
class TokenDataset:
    """Tokenised sentences."""

    tokens: Tokens

    @cached_property
    def lengths(self) -> np.ndarray:
        """(N,) tokens of each sentence."""
        if isinstance(self.tokens, TokenArray):
            return self.tokens.lengths
        return np.fromiter(map(len, self.tokens), np.int64, len(self.tokens))

    def __len__(self) -> int:
        return len(self.tokens)

    def batch(self, indices: Sequence[int]) -> Batch:
        """Return the sentences at `indices` as a batch."""
        return collate(self.tokens, indices)


@dataclass(frozen=True)
class LabelledDataset(TokenDataset):
    """Tokenised sentences and their labels."""

    labels: Sequence[int] | np.ndarray

    def batch(self, indices: Sequence[int]) -> LabelledBatch:
        """Return the sentences at `indices` as a batch."""
        labels = torch.tensor([self.labels[i] for i in indices])
        return LabelledBatch(**vars(super().batch(indices)), labels=labels)


def collate(tokens: Tokens, indices: Sequence[int]) -> Batch:
    """Return the sentences of `tokens` at `indices` as one batch."""
    lengths = [len(tokens[i]) for i in indices]
    input_ids = np.zeros((len(indices), max(lengths)), dtype=np.int64)
    for row, i in enumerate(indices):
        input_ids[row, : lengths[row]] = tokens[i]
    return Batch(torch.tensor(indices), torch.from_numpy(input_ids), torch.tensor(lengths))


def length_batches(
    lengths: Sequence[int] | np.ndarray,
    batch_size: int,
    *,
    seed: int,
    epoch: int,
    part: int = 0,
    one_length: bool = False,
) -> list[np.ndarray]:
    """Return the indices of one epoch's batches; every sentence occurs exactly once.

    Sentences are shuffled, sorted by length (so that it is random which ones of a length share a
    batch) and cut into batches, which are shuffled.

    Args:
        lengths: number of tokens of each sentence.
        batch_size: sentences per batch.
        seed: determines, with `epoch`, both shuffles.
        epoch: number of the epoch.
        part: number of the part of the epoch that `lengths` are of, if it has several.
        one_length: no batch has sentences of two lengths.
    """
    rng = np.random.default_rng([seed, epoch, part] if part else [seed, epoch])
    order = rng.permutation(len(lengths))
    order = order[np.argsort(np.asarray(lengths)[order], kind="stable")]
    parts = [order]
    if one_length:
        parts = np.split(order, np.flatnonzero(np.diff(np.asarray(lengths)[order])) + 1)
    batches = [part[i : i + batch_size] for part in parts for i in range(0, len(part), batch_size)]
    rng.shuffle(batches)
    return batches
