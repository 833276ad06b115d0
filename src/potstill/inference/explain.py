"""Where a model makes up its mind about a text: its probabilities after each word."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from potstill.data.text import WORD
from potstill.html import html_table


@dataclass(frozen=True)
class Explanation:
    """What a model says of a text, and after each of its words.

    Attributes:
        text: The text.
        classes: Names of the K classes.
        label: The class of the whole text, as `predict` gives it.
        probabilities: (K,) of the whole text, as `predict_proba` gives them.
        spans: Start and end of each of the W words in `text`. A word is what is between spaces;
            those beyond the model's maximum length are left out.
        word_probabilities: (W, K) what the classes would be if the text ended after the word.
    """

    text: str
    classes: tuple[str, ...]
    label: str
    probabilities: np.ndarray
    spans: list[tuple[int, int]]
    word_probabilities: np.ndarray

    @property
    def words(self) -> list[str]:
        """The W words."""
        return [self.text[start:end] for start, end in self.spans]

    @property
    def scores(self) -> np.ndarray:
        """(W,) probabilities of `label` after each word."""
        return self.word_probabilities[:, self.classes.index(self.label)]

    def _repr_html_(self) -> str:
        """Return a table of the probabilities after each word, as notebooks show it."""
        rows = [
            (word, *(f"{100 * p:.1f} %" for p in row))
            for word, row in zip(self.words, self.word_probabilities.tolist(), strict=True)
        ]
        rows.append(("(whole text)", *(f"{100 * p:.1f} %" for p in self.probabilities.tolist())))
        return html_table(("until", *self.classes), rows)

    @property
    def decisive(self) -> int | None:
        """Index of the word from which on `label` is held; None without words.

        It is where the scores are best cut in two, a lower and a higher level: the least-squares
        change point (Page 1955, *A Test for a Change in a Parameter Occurring at an Unknown
        Point*). The steepest rise from one word to the next is right less often, as a sentence
        that is not complete yet can be unacceptable for that reason alone.
        """
        if len(self.spans) < 2:
            return 0 if self.spans else None
        sums = self.scores.cumsum()
        n_before = np.arange(1, len(sums))
        n_after = n_before[::-1]
        rises = (sums[-1] - sums[:-1]) / n_after - sums[:-1] / n_before
        return 1 + int((rises * np.sqrt(n_before * n_after)).argmax())


def word_spans(text: str) -> list[tuple[int, int]]:
    """Return start and end of each word of `text`: of what is between white space, or of a Chinese
    or Japanese character."""
    return [match.span() for match in WORD.finditer(text)]


def logits_of_beginnings(
    logits: Callable[[list[str]], np.ndarray], texts: list[str], counts: list[int]
) -> list[np.ndarray]:
    """Return what `Classifier.word_logits` does, by reading each text once for each of its first
    words.

    Args:
        logits: Returns the (N, classes) logits of N texts.
        texts: The texts.
        counts: How many words of each are within the maximum length.
    """
    if not texts:
        return []
    beginnings = [
        [*(text[:end] for _, end in word_spans(text)[:count]), text]
        for text, count in zip(texts, counts, strict=True)
    ]
    flat = logits([part for parts in beginnings for part in parts])
    return np.split(flat, np.cumsum([len(parts) for parts in beginnings])[:-1])


def explanation_json(explanation: Explanation) -> dict[str, Any]:
    """Return the words of a sentence, each with its place and probabilities, and the index of the
    decisive one."""
    words = zip(
        explanation.words,
        explanation.spans,
        explanation.word_probabilities.tolist(),
        strict=True,
    )
    return {
        "words": [
            {
                "word": word,
                "start": start,
                "end": end,
                "probabilities": by_label(explanation.classes, row),
            }
            for word, (start, end), row in words
        ],
        "decisive": explanation.decisive,
    }


def by_label(labels: Sequence[str], row: Sequence[float]) -> dict[str, float]:
    """Return the probabilities of the classes by their names, rounded."""
    return dict(zip(labels, (round(p, 4) for p in row), strict=True))
