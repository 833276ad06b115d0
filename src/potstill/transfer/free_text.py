"""General text: how it is sampled, other than the sentences of a task."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class StatesToKeep:
    """Which of the decoder's states sampling keeps.

    Attributes:
        block: The number of the block that they leave, counted from 1.
        width: What is kept of a state.
        project: Maps (B, the decoder's width) states to (B, width).
    """

    block: int
    width: int
    project: Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class FreeText:
    """How general text is sampled, other than a task's sentences: from beginnings, without tokens
    from the tail, and also where it does not end.

    Attributes:
        start: The token before each text.
        beginnings: (P, T) the first tokens of texts, which each take one by chance; -1 behind the
            end of a shorter one.
        states: What to keep of the decoder's states.
    """

    start: int
    beginnings: Tensor
    states: StatesToKeep


class Beginnings:
    """Gives each text a beginning, by random numbers of its own."""

    def __init__(self, free_text: FreeText, max_tokens: int, seed: int, device: torch.device):
        self.generator = torch.Generator(device).manual_seed(seed)
        given = free_text.beginnings[:, :max_tokens].to(device)
        # Behind every beginning there is a -1, and a text can be as long as any.
        self.tokens = F.pad(given, (0, max_tokens + 1 - given.shape[1]), value=-1)

    def choose(self, texts: int) -> Tensor:
        """Return the rows of the beginnings of as many new texts, (texts,)."""
        shape, device = (texts,), self.tokens.device
        return torch.randint(len(self.tokens), shape, generator=self.generator, device=device)

    def force(self, drawn: Tensor, rows: Tensor, positions: Tensor) -> Tensor:
        """Return the tokens `drawn` for the `positions` of texts, or in their place those of the
        beginnings at `rows`; all (B,)."""
        given = self.tokens[rows, positions]
        return torch.where(given >= 0, given, drawn)
