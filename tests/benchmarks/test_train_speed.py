"""The sides of benchmarks/train_speed.py that need no decoder."""

from pathlib import Path

import train_speed_workers


def test_the_students_side_trains_one_of_the_default_shape() -> None:
    work = train_speed_workers.student_side(Path())
    work([[1, 2, 3], [4, 5, 6], [7_000, 8]])
