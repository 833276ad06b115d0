"""The teacher's judgement word by word: a target at every word, where a sentence has but one.

A decoder reads forwards, so its head can be asked after any word what it makes of the sentence so
far, at hardly any cost. Where that changes shows the student which words decide, as the states of
the teacher's layers do for Sun et al. 2019, *Patient Knowledge Distillation for BERT Model
Compression*, section 3.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class WordTargets:
    """Where the words of N sentences end and the teacher's logits there, one sentence's words after
    the other's.

    places: (words,) tokens of their sentences; logits: (words, classes); begins: (N + 1,).
    """

    places: Tensor
    logits: Tensor
    begins: Tensor

    def of(self, index: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Of the words of some sentences: each one's place in `index`, its place in its sentence,
        its logits and how many words its sentence has."""
        begins = self.begins[index]
        counts = self.begins[index + 1] - begins
        rows = torch.repeat_interleave(torch.arange(len(index)), counts)
        words = torch.arange(len(rows)) + (begins - (counts.cumsum(0) - counts))[rows]
        return rows, self.places[words], self.logits[words], counts[rows]


def word_targets(places: list[list[int]], logits: list[np.ndarray]) -> WordTargets:
    """places, logits: of each sentence's words; those that only one has are left out."""
    counts = [min(len(p), len(each)) for p, each in zip(places, logits, strict=True)]
    flat = [place for p, n in zip(places, counts, strict=True) for place in p[:n]]
    rows = np.concatenate([each[:n] for each, n in zip(logits, counts, strict=True)])
    begins = torch.tensor([0, *np.cumsum(counts).tolist()])
    return WordTargets(torch.tensor(flat, dtype=torch.long), torch.from_numpy(rows), begins)
