"""benchmarks/scale.py on a tiny decoder."""

from pathlib import Path

import scale


def test_every_part_is_measured(tiny_gpt2: Path) -> None:
    figures = scale.measure(str(tiny_gpt2), sentences=400, labelled=5, rounds=1)
    assert len(figures) == 3
    assert all(figure["rate"] > 0 for figure in figures.values())
