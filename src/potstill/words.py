"""The teacher's judgement word by word: a target at every word, where a sentence has but one.

A decoder reads forwards, so its head can be asked after any word what it makes of the sentence so
far, at hardly any cost. Where that changes shows the student which words decide, as the states of
the teacher's layers do for Sun et al. 2019, *Patient Knowledge Distillation for BERT Model
Compression*, section 3.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


def word_ends(sentence: str, ends: Sequence[int]) -> list[int]:
    """Places of the last token of each word of `sentence`, words being what stands between spaces.

    ends: the character of it that each token ends at. Words that its tokens do not reach are left
    out.
    """
    words = np.array([match.end() for match in re.finditer(r"\S+", sentence)], dtype=int)
    words = words[words <= max(ends, default=0)]
    return np.maximum(np.searchsorted(ends, words, side="right") - 1, 0).tolist()


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


class WordByWord(nn.Module):
    """A DistilRNN in training, with a linear layer that tells what it makes of each word."""

    def __init__(self, student: Any):
        super().__init__()
        config = student.config
        self.student = student
        self.word_score = nn.Linear(config.hidden_size * student.directions, config.classes)

    def forward(self, input_ids: Tensor, lengths: Tensor) -> Any:
        """As the student; in training besides (B, L, classes), the logits of each token."""
        states = self.student.states(input_ids, lengths)
        logits = self.student.classify(states, lengths)
        if not self.training:
            return logits
        return logits, self.word_score(self.student.dropout(states))


def with_words(
    loss: Callable[[Tensor, Tensor], Tensor],
    targets: WordTargets,
    word_loss: Callable[[Tensor, Tensor], Tensor],
) -> Callable[[tuple[Tensor, Tensor], Tensor], Tensor]:
    """The `loss` of whole sentences plus `word_loss` of student and teacher at each word, as the
    mean over a sentence's words and over the sentences, so that several processes agree on it."""

    def both(output: tuple[Tensor, Tensor], index: Tensor) -> Tensor:
        logits, at_tokens = output
        rows, places, wanted, counts = (x.to(at_tokens.device) for x in targets.of(index))
        of_words = word_loss(at_tokens[rows, places], wanted) / counts
        return loss(logits, index) + of_words.sum() / len(index)

    return both
