"""Soft targets of a language model: the decoder's most probable next tokens.

A sampled sentence is a single draw from the decoder's distribution; a student that learns from the
probabilities themselves learns more from each sentence. Of a vocabulary of tens of thousands the
most probable few are enough (Kuncoro et al. 2019, *Scalable Syntax-Aware Language Models Using
Knowledge Distillation*, section 3).
"""

from dataclasses import dataclass

import numpy as np

TOP_K = 32  # next tokens per position whose probabilities are stored


@dataclass(frozen=True)
class TopKTargets:
    """The most probable next tokens after each token of a sentence but the last.

    The sentence has T + 1 tokens of the decoder's; positions 0 to T - 1 have targets.

    Attributes:
        offsets: (T,) character offsets at which the first T tokens end.
        token_ids: (T, TOP_K) the most probable next tokens, in descending order.
        probs: (T, TOP_K) their probabilities, given that the sentence does not end here.
        next_ids: (T,) the tokens that do follow.
    """

    offsets: np.ndarray
    token_ids: np.ndarray
    probs: np.ndarray
    next_ids: np.ndarray


EMPTY = TopKTargets(
    np.empty(0, np.uint16),
    np.empty((0, TOP_K), np.int32),
    np.empty((0, TOP_K), np.float16),
    np.empty(0, np.int32),
)
