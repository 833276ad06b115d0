"""The words of a sentence, and where they end."""

import re
from bisect import bisect_right
from collections.abc import Sequence

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
