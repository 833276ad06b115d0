"""The words of a sentence, and where they end."""

import re
from bisect import bisect_right
from collections.abc import Sequence
from functools import cache

import numpy as np

from potstill.data.token_array import TokenArray, offsets_of

# Chinese and Japanese have no space between words: there, each character counts as one.
ALONE = "\u3005-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003134f"
WORD = re.compile(rf"[{ALONE}]|[^\s{ALONE}]+")
STANDS_ALONE = re.compile(f"[{ALONE}]")
# Like WORD, but that punctuation stays with the character before it.
PUNCTUATED = re.compile(rf"[{ALONE}][^\w\s{ALONE}]*|[^\s{ALONE}]+")


def split_words(sentence: str) -> list[str]:
    """Return the words of a sentence, each with its punctuation; each Chinese or Japanese character
    is one."""
    return PUNCTUATED.findall(sentence)


def join_words(words: Sequence[str]) -> str:
    """Return a sentence of words: with spaces, but not next to Chinese or Japanese characters."""
    text = " ".join(words)
    if all(words) and not STANDS_ALONE.search(text):
        return text
    text = ""
    for before, word in zip(["", *words], words, strict=False):
        joined = STANDS_ALONE.match(before) or STANDS_ALONE.match(word)
        text += word if joined or not text else f" {word}"
    return text


def word_ends(sentence: str, ends: Sequence[int]) -> list[int]:
    """Return the position of the last token of each word of `sentence`.

    Args:
        sentence: the sentence; its words are separated by white space, but each Chinese or
            Japanese character is one.
        ends: for each token, the offset in `sentence` of the character after its last.

    Returns:
        Positions of the words that the tokens reach; later words are left out, but for the first:
        where that is cut off, the last token stands for its end, so that a text has a word.
    """
    last = max(ends, default=0)
    words = [match.end() for match in WORD.finditer(sentence)]
    reached = [max(bisect_right(ends, word) - 1, 0) for word in words if word <= last]
    return reached or [len(ends) - 1] * bool(words and ends)


def ragged_word_ends(sentences: Sequence[str], ends: TokenArray) -> TokenArray:
    """Return what `word_ends` returns, for N sentences at once.

    Args:
        sentences: The sentences.
        ends: Of each sentence, the `ends` of its tokens.
    """
    # A line break ends a sentence as a space ends a word.
    text = "".join(f"{sentence}\n" for sentence in sentences)
    characters = np.frombuffer(text.encode("utf-32-le"), np.uint32)
    begins = offsets_of(np.fromiter(map(len, sentences), np.int64, len(sentences)) + 1)
    spaces, alone = (table[np.minimum(characters, len(table) - 1)] for table in _tables())
    word_ends = np.flatnonzero(~spaces[:-1] & (alone[:-1] | spaces[1:] | alone[1:])) + 1
    of_word = np.searchsorted(begins, word_ends, side="right") - 1
    counts, first_token = ends.lengths, ends.offsets[:-1]
    token_ends = ends.values + np.repeat(begins[:-1], counts)
    last = begins[:-1].copy()
    last[counts > 0] = token_ends[ends.offsets[1:][counts > 0] - 1]
    reached = word_ends <= last[of_word]
    cut_off = np.bincount(of_word[reached], minlength=len(sentences)) == 0
    cut_off &= (np.bincount(of_word, minlength=len(sentences)) > 0) & (counts > 0)
    word_ends, of_word = word_ends[reached], of_word[reached]
    tokens = np.searchsorted(token_ends, word_ends, side="right") - 1 - first_token[of_word]
    owners = np.concatenate([of_word, np.flatnonzero(cut_off)])
    positions = np.concatenate([np.maximum(tokens, 0), counts[cut_off] - 1])
    order = np.argsort(owners, kind="stable")
    return TokenArray(positions[order], offsets_of(np.bincount(owners, minlength=len(sentences))))


@cache
def _tables() -> tuple[np.ndarray, np.ndarray]:
    """Return of every character, by its code, whether it is white space and whether it counts as a
    word; the last entry stands for all that follow."""
    spaces = np.array([chr(code).isspace() for code in range(0x3002)])
    alone = np.zeros(0x31351, bool)
    for first, last in re.findall("(.)-(.)", ALONE):
        alone[ord(first) : ord(last) + 1] = True
    return spaces, alone
