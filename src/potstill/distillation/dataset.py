"""What a student learns from: sentences with their labels and all that the teacher says of them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from potstill.data.batching import LabelledBatch, LabelledDataset
from potstill.data.token_array import TokenArray
from potstill.distillation.lm_targets import LMDataset, LMTargets, hard_targets
from potstill.distillation.word_targets import WordBatch, WordTargets, word_targets
from potstill.student.tokenizer import word_end_positions


@dataclass(frozen=True)
class DistillationBatch(LabelledBatch):
    """teacher_logits: (B, classes) of the whole sentences; words: the teacher's after each word."""

    teacher_logits: Tensor | None
    words: WordBatch | None


@dataclass(frozen=True)
class DistillationDataset(LabelledDataset):
    """N tokenised sentences, labelled or UNLABELLED.

    Args:
        is_text: Of each sentence, True if the language model learns from it.
        teacher_logits: (N, classes) of the whole sentences; None without a teacher.
        word_targets: The teacher's logits after each word.
        lm_targets: The decoder's probabilities of the next tokens; None for hard targets alone.
    """

    is_text: Sequence[bool] | np.ndarray
    teacher_logits: Tensor | None = None
    word_targets: WordTargets | None = None
    lm_targets: LMTargets | None = None

    def take(self, indices: Sequence[int] | np.ndarray) -> "DistillationDataset":
        """Return the sentences at `indices`, in that order."""
        rows = torch.as_tensor(indices, dtype=torch.long)
        return DistillationDataset(
            TokenArray.of(self.tokens).take(indices),
            np.asarray(self.labels)[indices],
            np.asarray(self.is_text)[indices],
            None if self.teacher_logits is None else self.teacher_logits[rows],
            self.word_targets.take(rows) if self.word_targets else None,
            self.lm_targets.take(indices) if self.lm_targets else None,
        )

    def concat(self, other: "DistillationDataset") -> "DistillationDataset":
        """Return these sentences and then `other`'s, which the same teacher has labelled."""
        if (self.teacher_logits is None) != (other.teacher_logits is None):
            raise ValueError("a dataset with a teacher's logits and one without can't be joined")
        if (self.word_targets is None) != (other.word_targets is None):
            raise ValueError("a dataset with word targets and one without can't be joined")
        return DistillationDataset(
            TokenArray.of(self.tokens).concat(TokenArray.of(other.tokens)),
            np.concatenate([self.labels, other.labels]),
            np.concatenate([self.is_text, other.is_text]),
            _cat(self.teacher_logits, other.teacher_logits),
            self.word_targets.concat(other.word_targets)
            if self.word_targets and other.word_targets
            else None,
            self._concat_lm_targets(other),
        )

    def _concat_lm_targets(self, other: "DistillationDataset") -> LMTargets | None:
        first, second = self.lm_targets, other.lm_targets
        if first:
            return first.concat(second or hard_targets(other.tokens, like=first))
        return hard_targets(self.tokens, like=second).concat(second) if second else None

    def batch(self, indices: Sequence[int]) -> DistillationBatch:
        """Return the sentences at `indices` as a batch."""
        labelled = super().batch(indices)
        rows = labelled.indices
        return DistillationBatch(
            **vars(labelled),
            teacher_logits=None if self.teacher_logits is None else self.teacher_logits[rows],
            words=self.word_targets.batch(rows) if self.word_targets else None,
        )

    def text(self) -> LMDataset:
        """Return what the language model learns from."""
        return LMDataset(self.tokens, self.lm_targets).take(np.flatnonzero(self.is_text))


def labelled_dataset(
    tokenizer: Tokenizer,
    sentences: list[str],
    labelled: LabelledDataset,
    *,
    teacher_logits: Tensor,
    word_logits: list[np.ndarray],
    max_length: int,
) -> DistillationDataset:
    """Return labelled `sentences` with the teacher's logits, of the whole and after each word."""
    targets = None
    if word_logits:
        positions = word_end_positions(tokenizer, sentences, max_length)
        targets = word_targets(positions, word_logits)
    return DistillationDataset(
        labelled.tokens,
        labelled.labels,
        is_text=np.ones(len(labelled), bool),
        teacher_logits=teacher_logits,
        word_targets=targets,
    )


def _cat(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    return None if first is None or second is None else torch.cat([first, second])
