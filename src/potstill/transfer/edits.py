"""Minimal edits: sentences a step away from given ones, acceptable or not.

What an edit puts in comes from the given sentences themselves or from the closed classes of
English (`lexicon.py`); in another language those never match and the other edits remain.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from potstill.data.text import join_words, split_words
from potstill.transfer.lexicon import WORD, Lexicon, core
from potstill.transfer.sentences import LabelledSentence

Words = list[str]
Edit = Callable[[Words, Lexicon, np.random.Generator], Words | None]


def _choose(items: Sequence[str], rng: np.random.Generator) -> str:
    """Return what `rng.choice` returns, which first makes an array of all items."""
    return items[int(rng.integers(len(items)))]


def _replace(words: Words, position: int, new: str) -> Words:
    """Return `words` with `new` at `position`, in the punctuation of the word that was there."""
    head, _, tail = WORD.match(words[position]).groups()  # type: ignore[union-attr]
    return [*words[:position], f"{head}{new}{tail}", *words[position + 1 :]]


def _replace_any(
    words: Words, alternatives: dict[str, list[str]], rng: np.random.Generator
) -> Words | None:
    """Replace a word that has alternatives by one of them; None if no word has."""
    positions = [i for i, word in enumerate(words) if core(word) in alternatives]
    if not positions:
        return None
    position = positions[int(rng.integers(len(positions)))]
    return _replace(words, position, _choose(alternatives[core(words[position])], rng))


def change_form(words: Words, lexicon: Lexicon, rng: np.random.Generator) -> Words | None:
    """Replace a word by another form of it: walks for walked, book for books."""
    return _replace_any(words, lexicon.forms, rng)


def change_function_word(words: Words, lexicon: Lexicon, rng: np.random.Generator) -> Words | None:
    """Replace a function word by another of its class: him for he, of for to, has for is."""
    return _replace_any(words, lexicon.classes, rng)


def substitute(words: Words, lexicon: Lexicon, rng: np.random.Generator) -> Words | None:
    """Replace a word by one that was seen between the same neighbours, or else next to one."""
    position = int(rng.integers(len(words)))
    left = core(words[position - 1]) if position else ""
    right = core(words[position + 1]) if position + 1 < len(words) else ""
    after, before = lexicon.after.get(left, {}), lexicon.before.get(right, {})
    # Both are in alphabetical order, and some have tens of thousands of words.
    few, many = sorted((after, before), key=len)
    fitting = [word for word in few if word in many] or list(after or before)
    fitting = [word for word in fitting if word and word != core(words[position])]
    return _replace(words, position, _choose(fitting, rng)) if fitting else None


def delete(words: Words, lexicon: Lexicon, rng: np.random.Generator) -> Words | None:
    """Leave a word out; punctuation at the end of the sentence stays."""
    if len(words) < 3:
        return None
    position = int(rng.integers(len(words)))
    tail = WORD.match(words[position])[3]  # type: ignore[index]
    rest = words[:position] + words[position + 1 :]
    if position == len(words) - 1:
        rest[-1] += tail
    return rest


def insert(words: Words, lexicon: Lexicon, rng: np.random.Generator) -> Words | None:
    """Insert a word that was seen after the one before it."""
    position = int(rng.integers(len(words)))
    fitting = lexicon.after.get(core(words[position]), {})
    if not fitting or position == len(words) - 1:
        return None
    return [*words[: position + 1], _choose(list(fitting), rng), *words[position + 1 :]]


def swap(words: Words, lexicon: Lexicon, rng: np.random.Generator) -> Words | None:
    """Swap two neighbours."""
    if len(words) < 2:
        return None
    position = int(rng.integers(len(words) - 1))
    first, second = core(words[position]), core(words[position + 1])
    return _replace(_replace(words, position, second), position + 1, first)


def move(words: Words, lexicon: Lexicon, rng: np.random.Generator) -> Words | None:
    """Move one to three words in a row elsewhere."""
    if len(words) < 4:
        return None
    size = int(rng.integers(1, 4))
    start = int(rng.integers(len(words) - size + 1))
    cores = [core(word) for word in words]
    rest = cores[:start] + cores[start + size :]
    target = int(rng.integers(len(rest) + 1))
    moved = rest[:target] + cores[start : start + size] + rest[target:]
    return _replace([*moved[:-1], words[-1]], len(words) - 1, moved[-1])


def splice(words: Words, lexicon: Lexicon, rng: np.random.Generator) -> Words | None:
    """Join the beginning of this sentence to the end of another."""
    other = lexicon.sentences[int(rng.integers(len(lexicon.sentences)))]
    cut = int(rng.integers(1, max(2, len(words))))
    return [*words[:cut], *other[-max(1, len(other) - cut) :]]


EDITS: dict[str, Edit] = {
    edit.__name__: edit
    for edit in (
        change_form,
        change_function_word,
        substitute,
        delete,
        insert,
        swap,
        move,
        splice,
    )
}
_NAMES = list(EDITS)


def edit_sentence(
    sentence: str, name: str, lexicon: Lexicon, rng: np.random.Generator
) -> str | None:
    """Apply the edit called `name`; return None if it does not apply or changes nothing.

    A capital letter at the beginning stays at the beginning.
    """
    words = split_words(sentence)
    if not words:
        return None
    before = join_words(words)
    # A name at the beginning keeps its capital wherever it goes.
    first = words[0]
    if first.lower() in lexicon.after and first != "I":
        words[0] = first.lower()
    edited = EDITS[name](words, lexicon, rng)
    if not edited:
        return None
    if first[:1].isupper():
        edited = [edited[0][:1].upper() + edited[0][1:], *edited[1:]]
    text = join_words(edited)
    return text if text not in (sentence, before) and core(edited[0]) else None


@dataclass(frozen=True)
class EditStats:
    """How often the teacher gave each label to sentences that each edit had a part in.

    Attributes:
        counts: (edits, classes), edits in the order of `EDITS`.
    """

    counts: np.ndarray

    @classmethod
    def zero(cls, classes: int) -> "EditStats":
        return cls(np.zeros((len(EDITS), classes)))

    def add(self, rows: list[LabelledSentence]) -> "EditStats":
        """Return the statistics with these sentences counted too."""
        counts = self.counts.copy()
        index = {name: i for i, name in enumerate(EDITS)}
        for row in rows:
            for name in row.origin.edits:
                if name in index:
                    counts[index[name], int(np.argmax(row.logits))] += 1
        return EditStats(counts)

    @cached_property
    def probs(self) -> np.ndarray:
        """The probability to draw each edit, (edits,), proportional to how often the edit led to
        the label that is rare so far."""
        counts = self.counts + 1.0
        rates = counts[:, counts.sum(0).argmin()] / counts.sum(1)
        return rates / rates.sum()

    def draw(self, size: int, rng: np.random.Generator) -> list[str]:
        """Return the names of `size` edits, drawn with these probabilities as `rng.choice` does."""
        drawn = np.searchsorted(self._sums, rng.random(size), side="right")
        return [_NAMES[i] for i in drawn]

    @cached_property
    def _sums(self) -> np.ndarray:
        sums = self.probs.cumsum()
        return sums / sums[-1]
