"""benchmarks/student_speed.py: rivals that need no other package, the table, the command line."""

import subprocess
import sys
from pathlib import Path

import pytest
import student_memory
import student_speed
import student_speed_rivals as rivals

from potstill.data.corpus import load_corpus

TRAIN = load_corpus("minicola").splits["train"]


def test_rivals_give_a_label_for_each_sentence(tmp_path: Path) -> None:
    sentences, labels = list(TRAIN.sentences[::10]), list(TRAIN.labels[::10])
    for rival in (rivals.student_onnxruntime, rivals.tf_idf):
        answers = rival(tmp_path, sentences, labels)(sentences[:40])
        assert len(answers) == 40 and set(answers) <= {0, 1, "acceptable", "unacceptable"}
    assert {name for name in student_speed.RIVALS if not hasattr(rivals, name)} == set()


def test_the_table_compares_with_the_student() -> None:
    results = {
        "student": {"title": "ours", "p50_ms": 0.2, "p99_ms": 0.3, "rate": 20_000.0},
        "teacher": {"title": "theirs", "p50_ms": 20.0, "p99_ms": 30.0, "rate": 200.0},
    }
    assert student_speed.table(results).splitlines()[2:] == [
        "| ours | 0.2 / 0.3 | 20,000 | 1.00× |",
        "| theirs | 20 / 30 | 200 | 100.00× |",
    ]


@pytest.mark.slow
def test_memory_is_measured() -> None:
    figures = student_memory.memory(["The books is old.", "The books are old."], total=100_000)
    assert len(figures["resident_mb"]) == 10 and min(figures["resident_mb"]) > 10


def test_help_names_the_arguments() -> None:
    script = Path(student_speed.__file__)
    command = [sys.executable, str(script), "--help"]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert all(name in output for name in ("--data", "--rounds", "--rivals", "--output"))
