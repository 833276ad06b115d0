"""The commands on a GPU."""

from pathlib import Path

import numpy as np
import pytest

from potstill.inference.decoder import DecoderClassifier
from potstill.transfer.dataset import read_transfer_set
from tests.cli.conftest import ToyTask, read_json, run_ok

pytestmark = pytest.mark.gpu


def test_a_set_is_labelled_as_by_a_processor(transfer_set: Path, toy_task: ToyTask) -> None:
    """After every word, but for the rounding of bf16."""
    rows = list(read_transfer_set(transfer_set).rows())
    assert {row.origin.kind for row in rows} == {"own", "sampled", "edited"}
    teacher = DecoderClassifier(toy_task.teacher, gpt_variant=str(toy_task.base), precision="fp32")
    teacher.model.cpu()
    for row, expected in zip(rows, teacher.word_logits([r.sentence for r in rows]), strict=True):
        found = np.array([*row.word_logits, row.logits])
        np.testing.assert_allclose(found, expected, rtol=0.05, atol=0.05)


def test_a_student_learns_from_a_set(transfer_set: Path, toy_task: ToyTask) -> None:
    run_ok(*toy_task.args("distil", 2, "student", "--transfer_set", transfer_set))
    assert read_json("student/results.json")["chosen"]["dev"]["accuracy"] >= 0.5
