"""The sides of benchmarks/train_speed.py that need no decoder."""

from pathlib import Path

import sides


def test_the_students_side_trains_one_of_the_default_shape() -> None:
    work = sides.student_side(Path())
    work([[1, 2, 3], [4, 5, 6], [7_000, 8]])
