"""Scores of a model, part by part."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

import potstill
from potstill.inference import evaluation


def test_progress_counts_every_sentence_of_every_split(monkeypatch: pytest.MonkeyPatch) -> None:
    classifier, shown = potstill.load(), []
    expected = classifier.evaluate("minicola")
    totals = []

    @contextmanager
    def progress(total: int) -> Iterator[Callable[[int, str], None]]:
        totals.append(total)
        yield lambda done, description: shown.append((done, description))

    monkeypatch.setattr(evaluation, "SHOWN_TOGETHER", 200)
    scores = classifier.evaluate("minicola", progress=progress)
    assert totals == [1000]
    assert shown == [
        *((done, "scoring dev") for done in (0, 200, 400)),
        *((done, "scoring out of domain") for done in (500, 700, 900)),
    ]
    # In other batches the last digits may differ, the decisions do not.
    for name, split in expected.items():
        assert scores[name]["confusion"] == split["confusion"]
        assert scores[name]["loss"] == pytest.approx(split["loss"], abs=1e-5)
