"""benchmarks/train_speed.py: the competitor that needs no decoder, and the command line."""

import subprocess
import sys
from pathlib import Path

import train_speed_competitors


def test_a_student_of_the_default_shape_is_trained() -> None:
    work = train_speed_competitors.train_student(Path())
    work([[1, 2, 3], [4, 5, 6], [7_000, 8]])


def test_help_names_the_arguments() -> None:
    script = Path(train_speed_competitors.__file__).with_name("train_speed.py")
    command = [sys.executable, str(script), "--help"]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert all(name in output for name in ("models", "--rounds", "--competitors", "--output"))
