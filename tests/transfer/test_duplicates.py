"""Sentences seen before, against Python's own sets."""

import numpy as np

from potstill.transfer.duplicates import SeenSentences, normal_hashes
from potstill.transfer.sentences import normal


def test_seen_sentences_are_those_of_a_set_of_normal_forms() -> None:
    rng = np.random.default_rng(0)
    seen, expected = SeenSentences(), set()
    for size in (1, 0, 50, 3, 700, 20, 400, 1, 2000):
        sentences = [f"The {n} CATS."[: 20 - n % 2] for n in rng.integers(0, 1500, size)]
        known = seen.contain(normal_hashes(sentences)).tolist()
        assert known == [normal(s) in expected for s in sentences]
        mask = []
        for sentence in sentences:
            mask.append(normal(sentence) not in expected)
            expected.add(normal(sentence))
        assert seen.add(normal_hashes(sentences)).tolist() == mask
        assert len(seen) == len(expected)


def test_hashes_are_of_the_normal_form() -> None:
    one, other, third = normal_hashes(["It RAINS.", "it  rains", "it rained"])
    assert one == other != third
    assert normal_hashes([]).shape == (0,)
