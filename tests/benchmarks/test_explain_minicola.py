"""Where explain_minicola.py says that a sentence is wrong, and what it counts."""

import numpy as np
import pytest
from explain_minicola import (
    PHENOMENA,
    decisive_words,
    draw_pairs,
    hit_rate,
    steepest_words,
    wrong_word,
)

from potstill.data.corpus import load_corpus
from potstill.inference.explain import Explanation, word_spans


@pytest.mark.parametrize(
    ("good", "bad", "index"),
    [
        ("The keys are old.", "The keys is old.", 2),
        ("She saw the dog.", "Her saw the dog.", 0),
        ("He left two days ago.", "He left ago two days.", 2),
        ("They devoured the pie.", "They devoured.", 1),
        ("They devoured", "They devoured it", 2),
    ],
)
def test_the_wrong_word_is_the_first_that_differs(good: str, bad: str, index: int) -> None:
    assert wrong_word(good, bad) == index


@pytest.mark.parametrize("split", PHENOMENA)
def test_fresh_pairs_are_in_no_file_of_minicola(split: str) -> None:
    pairs = draw_pairs(split, 300)
    assert 60 < len(pairs) < 120
    seen = {s for part in load_corpus("minicola").splits.values() for s in part.sentences}
    assert not seen.intersection(bad for _, _, bad in pairs)
    for phenomenon, good, bad in pairs:
        assert phenomenon in PHENOMENA[split]
        assert good != bad
        assert 0 <= wrong_word(good, bad) < len(bad.split())


def test_words_are_found_for_the_class_asked_for_whatever_the_verdict() -> None:
    scores = np.array([0.3, 0.9, 0.2, 0.7, 0.8, 0.9])
    rows = np.stack([scores, 1 - scores], 1)
    text = "a b c d e f"
    whole = np.array([0.1, 0.9])
    found = Explanation(text, ("bad", "good"), "good", whole, word_spans(text), rows)
    assert decisive_words([found], 0).tolist() == [3]
    assert steepest_words([found], 0).tolist() == [1]


def test_hits_are_counted() -> None:
    rate, error = hit_rate(np.array([1, 2, 3, 4]), np.array([1, 3, 3, 9]))
    assert rate == 0.5
    assert error == pytest.approx(0.25)
    assert hit_rate(np.array([1, 2, 3, 4]), np.array([1, 3, 3, 9]), off_by=1)[0] == 0.75
