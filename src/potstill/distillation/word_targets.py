"""The teacher's judgement word by word: a target at every word, where a sentence has but one.

A decoder reads forwards, so its head can be asked after any word what it makes of the sentence so
far, at hardly any cost. Where that changes shows the student which words decide, as the states of
the teacher's layers do for Sun et al. 2019, *Patient Knowledge Distillation for BERT Model
Compression*, section 3.
"""

from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class WordBatch:
    """The W words of a batch's sentences.

    rows: (W,) each word's sentence in the batch; positions: (W,) its last token in the sentence;
    teacher_logits: (W, classes) the teacher's after it; counts: (W,) the words of its sentence.
    """

    rows: Tensor
    positions: Tensor
    teacher_logits: Tensor
    counts: Tensor

    def to(self, device: torch.device | str, *, copy: bool = False) -> "WordBatch":
        return WordBatch(*(getattr(self, f.name).to(device, copy=copy) for f in fields(self)))


@dataclass(frozen=True)
class WordTargets:
    """Where the words of N sentences end and the teacher's logits there, one sentence's words after
    the other's.

    positions: (words,) tokens of their sentences; logits: (words, classes); offsets: (N + 1,).
    """

    positions: Tensor
    logits: Tensor
    offsets: Tensor

    def batch(self, indices: Tensor) -> WordBatch:
        """Return the words of the sentences at `indices`."""
        words, rows, counts = self._words(indices)
        return WordBatch(rows, self.positions[words], self.logits[words], counts[rows])

    def take(self, indices: Tensor) -> "WordTargets":
        """Return the targets of the sentences at `indices`, in that order."""
        words, _, counts = self._words(indices)
        return WordTargets(self.positions[words], self.logits[words], _offsets(counts))

    def concat(self, other: "WordTargets") -> "WordTargets":
        """Return the targets of these sentences and of `other`'s."""
        return WordTargets(
            torch.cat([self.positions, other.positions]),
            torch.cat([self.logits, other.logits]),
            torch.cat([self.offsets, self.offsets[-1] + other.offsets[1:]]),
        )

    def _words(self, indices: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the words of the sentences at `indices`, each one's row among these, and the
        number of words of each sentence."""
        offsets = self.offsets[indices]
        counts = self.offsets[indices + 1] - offsets
        rows = torch.repeat_interleave(torch.arange(len(indices)), counts)
        words = torch.arange(len(rows)) + (offsets - (counts.cumsum(0) - counts))[rows]
        return words, rows, counts


def word_targets(positions: list[list[int]], logits: list[np.ndarray]) -> WordTargets:
    """Return the targets of sentences from the positions of each one's words and the (words,
    classes) logits after them; words that only one of the two has are left out."""
    counts = [min(len(p), len(rows)) for p, rows in zip(positions, logits, strict=True)]
    flat = [position for p, n in zip(positions, counts, strict=True) for position in p[:n]]
    rows = np.concatenate([each[:n] for each, n in zip(logits, counts, strict=True)])
    return WordTargets(
        torch.tensor(flat, dtype=torch.long), torch.from_numpy(rows), _offsets(torch.tensor(counts))
    )


def _offsets(counts: Tensor) -> Tensor:
    return torch.cat([torch.zeros(1, dtype=torch.long), counts.cumsum(0)])
