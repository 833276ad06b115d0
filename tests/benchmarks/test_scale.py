"""benchmarks/scale.py on a tiny decoder."""

from pathlib import Path

import pytest
import scale

from tests.conftest import GraphCaptures


def test_every_part_is_measured(tiny_gpt2: Path) -> None:
    figures = scale.measure(str(tiny_gpt2), sentences=400, labelled=5, learnt=5, rounds=1)
    assert len(figures) >= 3
    assert all(figure["rate"] > 0 for figure in figures.values())


@pytest.mark.parametrize("language_model", [True, False])
def test_a_student_learns(language_model: bool, graph_captures: GraphCaptures) -> None:
    dataset = scale.random_dataset(40, scale.VOCAB_SIZE)
    assert len(dataset) == 40
    assert scale.learn(dataset, language_model=language_model)(0) == 40
