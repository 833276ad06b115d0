"""What student_auc.py prints of a student and its teacher."""

import sys
from pathlib import Path

import numpy as np
import pytest
import student_auc
from student_auc import nearness

from potstill.inference.student import StudentClassifier
from potstill.transfer.sentences import LabelledSentence, Origin, SourceKind
from tests.inference.conftest import LABELS, SENTENCES, write_student
from tests.transfer.sets import describe, write_set


def test_by_pairs() -> None:
    """The AUC is the share of pairs of one of each class that are in order, ties counted half."""
    rng = np.random.default_rng(0)
    p, logits = rng.integers(0, 9, 50) / 9, rng.normal(size=(50, 2))
    positive = logits[:, 1] > logits[:, 0]
    ones, others = p[positive][:, None], p[~positive][None]
    auc, same = nearness(p, logits)
    assert auc == pytest.approx(((ones > others) + (ones == others) / 2).mean())
    assert same == pytest.approx(sum((a > 0.5) == b for a, b in zip(p, positive, strict=True)) / 50)


def test_a_student_is_its_own_best_teacher(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    student = StudentClassifier(write_student(tmp_path / "student", max_length=64))
    logits = student.logits(SENTENCES)
    logits -= np.median(logits, 0)
    words = [values[:-1] for values in student.word_logits(SENTENCES)]
    word_logits = [(values - np.median(np.concatenate(words), 0)).tolist() for values in words]
    for name, sentences in (("set", SENTENCES), ("learnt", SENTENCES[:7])):
        rows = [
            LabelledSentence(sentence, Origin(SourceKind.SAMPLED), "", row.tolist(), each)
            for sentence, row, each in zip(sentences, logits, word_logits, strict=False)
        ]
        (tmp_path / name).mkdir()
        description = describe(own=0, sampled=len(rows), edited=0) | {"labels": LABELS}
        write_set(tmp_path / name, description, {SourceKind.SAMPLED: rows})
    args = ["--transfer_set", tmp_path / "set", "--learnt", tmp_path / "learnt"]
    command = ["student_auc.py", str(tmp_path / "student"), *map(str, args)]
    monkeypatch.setattr(sys, "argv", command)
    student_auc.main()
    first, *lines = capsys.readouterr().out.splitlines()
    assert first.startswith(f"{len(set(SENTENCES)) - 7} sentences, ")
    assert len(lines) == 2
    assert "whole sentences: AUC 1.0000" in lines[0]
    assert "up to each word: AUC 1.0000" in lines[1]
