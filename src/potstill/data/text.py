"""Where the words of a sentence end."""

import re
from collections.abc import Sequence

import numpy as np


def word_ends(sentence: str, ends: Sequence[int]) -> list[int]:
    """Return the position of the last token of each word of `sentence`.

    Args:
        sentence: the sentence; its words are separated by white space.
        ends: for each token, the offset in `sentence` of the character after its last.

    Returns:
        Positions of the words that the tokens reach; later words are left out.
    """
    words = np.array([match.end() for match in re.finditer(r"\S+", sentence)], dtype=int)
    words = words[words <= max(ends, default=0)]
    return np.maximum(np.searchsorted(ends, words, side="right") - 1, 0).tolist()
