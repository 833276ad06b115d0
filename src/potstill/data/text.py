"""Where the words of a sentence end."""

import re
from collections.abc import Sequence

import numpy as np


def word_ends(sentence: str, ends: Sequence[int]) -> list[int]:
    """Places of the last token of each word of `sentence`, words being what stands between spaces.

    ends: the character of it that each token ends at. Words that its tokens do not reach are left
    out.
    """
    words = np.array([match.end() for match in re.finditer(r"\S+", sentence)], dtype=int)
    words = words[words <= max(ends, default=0)]
    return np.maximum(np.searchsorted(ends, words, side="right") - 1, 0).tolist()
