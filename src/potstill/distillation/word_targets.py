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

from potstill.data.token_array import TokenArray


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
    flat = TokenArray.of(positions)
    counts = np.fromiter(map(len, logits), np.int64, len(logits))
    return ragged_word_targets(flat.values, flat.lengths, np.concatenate(logits), counts)


def ragged_word_targets(
    positions: np.ndarray, position_counts: np.ndarray, logits: np.ndarray, counts: np.ndarray
) -> WordTargets:
    """Return the targets of N sentences as `word_targets` does.

    Args:
        positions: Of all words, one sentence's after the other's.
        position_counts: (N,) how many each sentence has.
        logits: (words, classes) after all words.
        counts: (N,) how many each sentence has.
    """
    common = np.minimum(position_counts, counts)
    return WordTargets(
        torch.from_numpy(_first_of_each(positions, position_counts, common).astype(np.int64)),
        torch.from_numpy(_first_of_each(logits, counts, common).astype(np.float32)),
        _offsets(torch.from_numpy(common)),
    )


def _first_of_each(values: np.ndarray, counts: np.ndarray, fewer: np.ndarray) -> np.ndarray:
    """Return, of items of `counts` values each, the first `fewer`."""
    within = np.arange(len(values)) - np.repeat(np.cumsum(counts) - counts, counts)
    return values[within < np.repeat(fewer, counts)]


def _offsets(counts: Tensor) -> Tensor:
    return torch.cat([torch.zeros(1, dtype=torch.long), counts.cumsum(0)])
