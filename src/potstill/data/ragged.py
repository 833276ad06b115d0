"""Texts of token ids as two tensors: a GPU makes batches of them without asking the processor."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class RaggedTokens:
    """N texts, one after the other.

    Attributes:
        values: (total,) token ids of all texts.
        offsets: (N + 1,) where each begins in `values`, and the end of the last; int64.
    """

    values: Tensor
    offsets: Tensor

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> Tensor:
        """(N,) tokens of each text."""
        return self.offsets.diff()

    def positions(self, indices: Tensor, length: int) -> Tensor:
        """Return the (B, length) positions in `values` of the texts at `indices`, (B,), each of
        which has `length` tokens."""
        return self.offsets[indices][:, None] + torch.arange(length, device=indices.device)


def offsets_of(lengths: Tensor) -> Tensor:
    """Return the (N + 1,) offsets of texts of (N,) lengths."""
    return F.pad(lengths.long().cumsum(0), (1, 0))


def concatenate(parts: Sequence[RaggedTokens]) -> RaggedTokens:
    """Return the texts of all `parts`, one part after the other."""
    lengths = torch.cat([part.lengths for part in parts])
    return RaggedTokens(torch.cat([part.values for part in parts]), offsets_of(lengths))


def equal_length_batches(
    lengths: Tensor, batch_size: int, generator: torch.Generator, *, shortest: int = 1
) -> list[tuple[Tensor, int]]:
    """Cut one epoch into batches of texts of exactly one length, every text once.

    No batch has padding, so that no recurrent network needs to pack and no attention needs a mask.

    Args:
        lengths: (N,) tokens of each text, on the device where the batches are wanted.
        batch_size: Texts of a batch; the last of each length may have fewer.
        generator: Shuffles the texts of a length and the batches; on the device of `lengths`.
        shortest: Texts of fewer tokens are left out.

    Returns:
        The indices of each batch, (B,), and their length.
    """
    order = torch.randperm(len(lengths), generator=generator, device=lengths.device)
    order = order[lengths[order].argsort(stable=True)]
    batches = []
    start = 0
    for length, count in enumerate(torch.bincount(lengths).tolist()):
        end = start + count
        if length >= shortest:
            batches += [
                (order[i : min(i + batch_size, end)], length) for i in range(start, end, batch_size)
            ]
        start = end
    shuffled = torch.randperm(len(batches), generator=generator, device=lengths.device).tolist()
    return [batches[i] for i in shuffled]
