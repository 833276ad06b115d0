"""The learning rate's schedule."""

import pytest

from potstill.training.optim import lr_factor, shortened_lr_factor


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


@pytest.mark.parametrize(
    ("cuts", "expected"),
    [
        ([], [1, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1]),
        ([(4, 6)], [1, 0.9, 0.8, 0.7, 0.6, 0.3]),
        ([(2, 6), (4, 5)], [1, 0.9, 0.8, 0.6, 0.4]),
        ([(2, 4), (3, 5)], [1, 0.9, 0.8, 0.4, 0.2]),  # lengthened again
    ],
)
def test_shortened_schedule_by_hand(cuts, expected):
    found = [shortened_lr_factor(step, 10, 0.0, cuts) for step in range(len(expected))]
    assert found == pytest.approx(expected)
