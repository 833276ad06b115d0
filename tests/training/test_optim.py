"""The learning rate's schedule."""

import pytest

from potstill.training.optim import lr_factor


@pytest.mark.parametrize(
    ("steps", "warmup", "expected"),
    [
        (4, 0.0, [1, 3 / 4, 2 / 4, 1 / 4]),
        (5, 0.2, [1, 1, 3 / 4, 2 / 4, 1 / 4]),
        (8, 0.5, [1 / 4, 2 / 4, 3 / 4, 1, 1, 3 / 4, 2 / 4, 1 / 4]),
        (3, 1.0, [1 / 3, 2 / 3, 1]),
        (1, 0.06, [1]),
    ],
)
def test_learning_rate_schedule_by_hand(steps, warmup, expected):
    found = [lr_factor(step, steps, warmup) for step in range(steps)]
    assert found == pytest.approx(expected)
