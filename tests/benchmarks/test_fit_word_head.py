"""What fit_word_head.py rebuilds, fits and writes."""

import shutil
import sys
from pathlib import Path

import fit_word_head
import numpy as np
import pytest
import torch
from fit_word_head import check_same, fit, nearness, read_words, rebuild
from sklearn.linear_model import LogisticRegression
from tokenizers import Tokenizer

from potstill import load
from potstill.files import STUDENT_ONNX, STUDENT_TOKENIZER, STUDENT_WEIGHTS, write_json
from potstill.inference.onnx import OnnxClassifier
from potstill.inference.student import StudentClassifier
from potstill.pretrained import COLA
from potstill.student.model import DistilRNN, StudentConfig
from potstill.student.onnx import write_onnx
from potstill.student.onnx_file import read_onnx
from potstill.transfer.sentences import LabelledSentence, Origin, SourceKind
from tests.inference.conftest import LABELS, SENTENCES, write_student
from tests.transfer.sets import describe, write_set


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_a_rebuilt_network_is_written_as_it_was(
    tmp_path: Path, cell: str, bidirectional: bool
) -> None:
    torch.manual_seed(3)
    config = StudentConfig(
        cell=cell,  # type: ignore[arg-type]
        embedding_size=7,
        hidden_size=5,
        layers=2,
        bidirectional=bidirectional,
        vocab_size=40,
        classes=3,
    )
    write_onnx(DistilRNN(config).eval(), tmp_path / STUDENT_ONNX, int8=True)
    write_json(tmp_path / "config.json", {"student": vars(config)})
    write_onnx(rebuild(tmp_path), tmp_path / "again.onnx", int8=True)
    before, after = (
        read_onnx((tmp_path / name).read_bytes()).tensors for name in (STUDENT_ONNX, "again.onnx")
    )
    assert before.keys() < after.keys()
    for name, tensor in before.items():
        np.testing.assert_array_equal(tensor, after[name], name)


def test_the_fit_is_the_maximum_of_the_likelihood() -> None:
    """Of scikit-learn's logistic regression, to which a soft label is two weighted hard ones."""
    rng = np.random.default_rng(0)
    states = rng.normal(size=(400, 3))
    margins = states @ [1.0, -2.0, 0.5] + 0.3 + rng.normal(size=400)
    counts = rng.integers(1, 9, 400)
    head = torch.nn.Linear(3, 2)
    loss = fit(
        head,
        torch.tensor(states, dtype=torch.float32),
        torch.tensor(np.stack([-margins / 2, margins / 2], 1), dtype=torch.float32),
        torch.tensor(counts),
    )
    p = 1 / (1 + np.exp(-margins))
    weights = np.concatenate([(1 - p) / counts, p / counts])
    reference = LogisticRegression(C=np.inf, tol=1e-8).fit(
        np.concatenate([states, states]), np.repeat([0, 1], 400), weights
    )
    slope = (head.weight[1] - head.weight[0]).tolist()
    np.testing.assert_allclose(slope, reference.coef_[0], atol=2e-3)
    assert (head.bias[1] - head.bias[0]).item() == pytest.approx(reference.intercept_[0], abs=2e-3)
    q = reference.predict_proba(states)
    divergence = (p * np.log(p / q[:, 1]) + (1 - p) * np.log((1 - p) / q[:, 0])) / counts
    assert loss == pytest.approx(divergence.sum() / (1 / counts).sum(), abs=1e-5)


def rows_of(student: StudentClassifier, sentences: list[str]) -> list[LabelledSentence]:
    """Return sentences with what `student` says after each word for a teacher's logits."""
    rows = []
    for sentence, values in zip(sentences, student.word_logits(sentences), strict=True):
        *word_logits, logits = values.tolist()
        rows.append(LabelledSentence(sentence, Origin(SourceKind.SAMPLED), "", logits, word_logits))
    return rows


@pytest.fixture
def teacher(tmp_path: Path) -> StudentClassifier:
    """A student whose word layer says this of one word and that of another."""
    teacher = StudentClassifier(write_student(tmp_path / "teacher", max_length=64))
    head = teacher.model.word_score
    assert head is not None
    with torch.no_grad():
        head.weight *= 10
        logits = np.concatenate([rows[:-1] for rows in teacher.word_logits(SENTENCES)])
        head.bias -= torch.from_numpy(np.median(logits, 0))
    return teacher


@pytest.fixture
def wordless(tmp_path: Path) -> Path:
    """The same student exported in 8 bits, without the layer."""
    folder = write_student(tmp_path / "wordless", max_length=64)
    with_layer = StudentClassifier(folder)
    config = {**with_layer.config["student"], "word_head": False}
    torch.manual_seed(0)
    model = DistilRNN(StudentConfig(**config))
    model.load_state_dict(with_layer.model.state_dict(), strict=False)
    (folder / STUDENT_WEIGHTS).unlink()
    write_json(folder / "config.json", with_layer.config | {"student": config})
    write_onnx(model.eval(), folder / STUDENT_ONNX, int8=True)
    return folder


def test_the_layer_of_a_student_is_found_again(
    teacher: StudentClassifier, wordless: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not OnnxClassifier(wordless).engine.judges_words
    description = describe(own=0, sampled=120, edited=0) | {"labels": LABELS}
    folder, output = tmp_path / "set", tmp_path / "output"
    folder.mkdir()
    write_set(folder, description, {SourceKind.SAMPLED: rows_of(teacher, SENTENCES[:120])})
    args = ["--transfer_set", folder, "--output", output, "--model_path", wordless]
    monkeypatch.setattr(sys, "argv", ["fit_word_head.py", *map(str, args), "--held_out", "20"])
    fit_word_head.main()

    fitted, before = load(output), load(wordless)
    np.testing.assert_array_equal(fitted.logits(SENTENCES), before.logits(SENTENCES))
    assert fitted.config["student"]["word_head"] is True
    assert fitted.n_parameters == teacher.n_parameters
    for one, other in zip(
        fitted.explain(SENTENCES[120:]), teacher.explain(SENTENCES[120:]), strict=True
    ):
        np.testing.assert_allclose(one.word_probabilities, other.word_probabilities, atol=0.02)
    near = nearness(fitted, rows_of(teacher, SENTENCES[120:]))
    assert near["layer"][0] > 0.99 and near["layer"][1] < 0.01
    assert near["sentence cut"][0] < 0.8
    assert near["one for all words"][0] == 0.5 and near["one for all words"][1] > 0.05


def test_states_are_those_after_each_word(teacher: StudentClassifier, wordless: Path) -> None:
    """The layer makes the logits of them; the counts add up to the sentences."""
    rows = rows_of(teacher, SENTENCES[:30])
    tokenizer = Tokenizer.from_file(str(wordless / STUDENT_TOKENIZER))
    states, logits, counts = read_words(teacher.model, tokenizer, rows, 64)
    assert teacher.model.word_score is not None
    np.testing.assert_allclose(teacher.model.word_score(states).detach(), logits, atol=1e-5)
    assert len(states) == sum(len(row.word_logits) for row in rows)
    assert float((1 / counts).sum()) == pytest.approx(30, abs=1e-4)


def test_another_student_is_not_the_same(wordless: Path, tmp_path: Path) -> None:
    shutil.copytree(wordless, tmp_path / "changed")
    check_same(wordless, tmp_path / "changed", SENTENCES[:5])
    model = rebuild(wordless)
    with torch.no_grad():
        model.score.bias += 1e-3
    write_onnx(model, tmp_path / "changed" / STUDENT_ONNX, int8=True)
    with pytest.raises(RuntimeError, match=r"changed: \['bias'\]; logits differ by 0.0"):
        check_same(wordless, tmp_path / "changed", SENTENCES[:5])


def test_the_bundled_student_has_the_layer() -> None:
    """What the script wrote for it finds the words that are wrong."""
    student = load()
    assert student.config["student"]["word_head"] is True
    assert student.n_parameters == sum(p.numel() for p in rebuild(COLA).parameters())
    for text, word in (
        ("The books is on the table.", "is"),
        ("She has gone to school yesterday the.", "the."),
    ):
        explanation = student.explain(text)
        assert explanation.label == "unacceptable"
        assert explanation.decisive is not None
        assert explanation.words[explanation.decisive] == word
