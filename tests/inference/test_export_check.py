"""What export compares a student on: sentences of its own data, many of them."""

import logging
from pathlib import Path

import numpy as np
import pytest
import torch

from potstill.cli import main
from potstill.data.corpus import load_corpus
from potstill.files import read_json, write_json
from potstill.inference import student as student_module
from potstill.inference.student import StudentClassifier, spread
from tests.inference.conftest import LABELS


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A file of 700 sentences in another language."""
    file = tmp_path / "data.csv"
    rows = [f"Das Haus Nummer {i} ist alt.,{LABELS[i % 2]}" for i in range(700)]
    file.write_text("\n".join(["sentence,label", *rows]) + "\n")
    return file


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The texts that exported students are compared on."""
    seen: list[list[str]] = []
    compare = StudentClassifier._compare

    def spy(
        self: StudentClassifier, exported: object, texts: list[str]
    ) -> tuple[float, float, int]:
        seen.append(texts)
        return compare(self, exported, texts)  # type: ignore[arg-type]

    monkeypatch.setattr(StudentClassifier, "_compare", spy)
    return seen


def test_data_that_is_named_is_compared(
    student: Path, data: Path, compared: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    main(args=["export", "--model_path", str(student), "--int8", "--data", str(data)])
    (texts,) = compared
    assert len(set(texts)) == 700 and texts[0] == "Das Haus Nummer 0 ist alt."
    assert "of 700 texts" in capsys.readouterr().out


def test_the_data_that_it_was_trained_on_is_compared(
    student: Path, data: Path, compared: list[list[str]]
) -> None:
    corpus = load_corpus(str(data))
    about = {"name": corpus.name, "path": str(data), "sha256": corpus.sha256, "sentences": {}}
    settings = {"text_column": None, "label_column": None}
    config = read_json(student / "config.json")
    write_json(student / "config.json", config | {"data": about, "settings": settings})
    main(args=["export", "--model_path", str(student), "--int8"])
    (texts,) = compared
    assert len(texts) >= 500 and all(text.startswith("Das Haus") for text in texts)


def test_without_its_data_it_says_what_is_compared(
    student: Path, compared: list[list[str]], capfd: pytest.CaptureFixture[str]
) -> None:
    main(args=["export", "--model_path", str(student)])
    out, err = capfd.readouterr()
    assert "compared on MiniCoLA's sentences" in out + err and "--data" in out + err
    (texts,) = compared
    assert len(texts) >= 500


def test_many_labels_that_differ_are_told(
    student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(student_module, "MAX_FLIPPED", -1)
    with caplog.at_level(logging.INFO, "potstill"):
        StudentClassifier(student).export_onnx(tmp_path / "out", int8=True)
    assert "many labels differ" in caplog.text


def test_large_logits_may_be_rounded_by_more(
    student: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As of 77 classes: none gets another label for it."""
    classifier = StudentClassifier(student)
    with torch.no_grad():
        for layer in (classifier.model.score, classifier.model.word_score):
            assert layer
            layer.weight.mul_(300)
    exported = classifier.export_onnx(tmp_path / "out", int8=True)
    texts = load_corpus("minicola").splits["dev"].sentences
    difference = np.abs(exported.logits(texts) - classifier.logits(texts)).max()
    assert difference > student_module.MAX_LOGIT_ERROR[True]


def test_flips_and_differences_are_counted(student: Path) -> None:
    classifier = StudentClassifier(student)

    class Exported:
        def word_logits(self, texts: list[str]) -> list[np.ndarray]:
            logits = classifier.word_logits(texts)
            logits[2] = logits[2].copy()
            logits[2][-1] = logits[2][-1, ::-1]
            return logits

    texts = ["One.", "Two books.", "A third one that is long.", "Four."]
    logits = classifier.logits(texts)
    difference, largest, flipped = classifier._compare(Exported(), texts)  # type: ignore[arg-type]
    assert flipped == 1
    assert largest == pytest.approx(max(np.abs(e).max() for e in classifier.word_logits(texts)))
    assert difference == pytest.approx(abs(logits[2, 0] - logits[2, 1]))


def test_texts_are_spread_evenly() -> None:
    assert spread([str(i) for i in range(10)], 5) == ["0", "2", "4", "6", "8"]
    assert spread(["a", "b"], 5) == ["a", "b"]
