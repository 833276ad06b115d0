"""What a model says word by word."""

from pathlib import Path

import numpy as np
import pytest

from potstill import UserError, load
from potstill.calibration import probabilities as softmax
from potstill.inference.explain import Explanation, word_spans
from potstill.inference.onnx import OnnxClassifier
from potstill.inference.student import StudentClassifier
from tests.inference.conftest import LABELS, SENTENCES

TEXTS = [*SENTENCES[:20], "  Naïve «birds»\u00a0sing,\tdon't 👩‍👩‍👧 they?\n", "It"]


@pytest.fixture(params=["adapter", "student", "exported"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A saved model of each kind in turn."""
    if request.param != "exported":
        return request.getfixturevalue(request.param)
    exported = tmp_path / "exported"
    StudentClassifier(request.getfixturevalue("student")).export_onnx(exported)
    return exported


def test_each_word_has_its_place_and_a_probability_of_each_class(folder: Path) -> None:
    classifier = load(folder)
    for text, explanation in zip(TEXTS, classifier.explain(TEXTS), strict=True):
        words = text.split()
        n = len(explanation.words)
        assert explanation.text == text
        assert explanation.words == words[:n]
        assert 1 <= n <= len(words)  # what is beyond the maximum length is left out
        assert n == len(words) or len(text) > 20
        assert explanation.word_probabilities.shape == (n, 2)
        np.testing.assert_allclose(explanation.word_probabilities.sum(1), 1)
        alone = classifier.explain(text)  # whatever stands beside it in the batch
        np.testing.assert_allclose(
            alone.word_probabilities, explanation.word_probabilities, atol=1e-5
        )


def test_the_verdict_is_that_of_predict(folder: Path) -> None:
    classifier = load(folder)
    explanations = classifier.explain(TEXTS)
    expected = classifier.predict_proba(TEXTS)
    np.testing.assert_allclose([e.probabilities for e in explanations], expected, atol=1e-5)
    assert [e.label for e in explanations] == classifier.predict(TEXTS).tolist()
    assert {e.classes for e in explanations} == {tuple(LABELS)}


def test_an_exported_student_explains_as_the_student(student: Path, tmp_path: Path) -> None:
    classifier = StudentClassifier(student)
    for int8 in (False, True):
        exported = classifier.export_onnx(tmp_path / str(int8), int8=int8)
        for one, other in zip(exported.explain(TEXTS), classifier.explain(TEXTS), strict=True):
            close = 0.05 if int8 else 1e-5
            np.testing.assert_allclose(one.word_probabilities, other.word_probabilities, atol=close)


def test_a_student_reads_its_word_layer_at_the_last_token_of_each_word(student: Path) -> None:
    """Token by token, from the states."""
    import torch

    classifier = StudentClassifier(student)
    assert classifier.model.word_score is not None
    for text, found in zip(TEXTS, classifier.word_logits(TEXTS), strict=True):
        encoding = classifier.tokenizer.encode(text)
        ids = encoding.ids[:16]
        states = classifier.model.states(torch.tensor([ids]), torch.tensor([len(ids)]))[0]
        rows = []
        for _, end in word_spans(text):
            inside = [i for i, (_, stop) in enumerate(encoding.offsets[:16]) if stop <= end]
            # A word that the cut-off leaves out is not reached by the tokens.
            if end <= encoding.offsets[len(ids) - 1][1]:
                rows.append(classifier.model.word_score(states[max(inside)]).tolist())
        np.testing.assert_allclose(found[:-1], np.array(rows).reshape(-1, 2), atol=1e-5)


def test_one_text_gives_one_explanation_and_none_an_empty_list(folder: Path) -> None:
    classifier = load(folder)
    assert isinstance(classifier.explain("One two."), Explanation)
    assert classifier.explain([]) == []
    with pytest.raises(UserError, match="text 2 of 2 is empty"):
        classifier.explain(["One.", " "])


@pytest.mark.parametrize("student", [False], indirect=True)
def test_a_student_without_a_word_layer_reads_the_text_up_to_each_word(
    student: Path, tmp_path: Path
) -> None:
    classifier = StudentClassifier(student)
    exported = classifier.export_onnx(tmp_path / "exported")
    assert isinstance(exported, OnnxClassifier)
    long = " ".join(["word"] * 40)
    for each in (classifier, exported):
        one, two, cut = each.explain(["The birds  sing.", "本は", long])
        assert (one.words, two.words) == (["The", "birds", "sing."], ["本", "は"])
        for text, row in zip(["The", "The birds", one.text], one.word_probabilities, strict=True):
            np.testing.assert_allclose(row, each.predict_proba([text])[0], atol=1e-6)
        np.testing.assert_allclose(one.probabilities, each.predict_proba([one.text])[0], atol=1e-6)
        assert one.label == each.predict(one.text)
        # Words beyond the maximum length are left out.
        assert 0 < len(cut.words) < 40 == len(long.split())
        assert each.explain([]) == []
    for ours, theirs in zip(
        classifier.word_logits([long]), exported.word_logits([long]), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)


def explanation(*scores: float, whole: float = 0.2) -> Explanation:
    """Of words w0, w1, … with these probabilities of "good"."""
    text = " ".join(f"w{i}" for i in range(len(scores)))
    probabilities = np.array([[1 - p, p] for p in scores]).reshape(-1, 2)
    label = "good" if whole > 0.5 else "bad"
    both = np.array([1 - whole, whole])
    return Explanation(text, ("bad", "good"), label, both, word_spans(text), probabilities)


def test_the_label_is_that_of_the_goal_a_model_was_trained_for(student: Path) -> None:
    classifier = StudentClassifier(student)
    for offsets, label in (([9.0, 0.0], "bad"), ([0.0, 9.0], "good")):
        classifier.config["decision"] = {"offsets": offsets}
        for found in classifier.explain(TEXTS):
            assert found.label == label == classifier.predict(found.text)
            column = LABELS.index(label)
            np.testing.assert_array_equal(found.scores, found.word_probabilities[:, column])


def test_the_decisive_word_is_where_the_label_begins_to_be_held() -> None:
    found = explanation(0.6, 0.7, 0.1, 0.0)
    assert (found.label, found.decisive, found.words[2]) == ("bad", 2, "w2")
    np.testing.assert_allclose(found.scores, [0.4, 0.3, 0.9, 1.0])
    found = explanation(0.6, 0.7, 0.1, 0.9, whole=0.8)
    assert (found.label, found.decisive) == ("good", 3)
    # The steepest rise is the second word's, but what it brings does not last.
    assert explanation(0.9, 0.1, 0.9, 0.8, 0.2, 0.1, 0.0).decisive == 4
    assert explanation(0.05).decisive == 0
    assert explanation().decisive is None


def test_the_decisive_word_cuts_the_scores_with_the_least_squared_error() -> None:
    """Among the cuts after which the label is more probable."""
    rng = np.random.default_rng(0)
    for n in (2, 3, 5, 9):
        for _ in range(20):
            found = explanation(*rng.random(n))
            scores, errors = found.scores, {}
            for i in range(1, n):
                before, after = scores[:i], scores[i:]
                if after.mean() > before.mean():
                    errors[i] = before.var() * i + after.var() * (n - i)
            if errors:
                assert found.decisive == min(errors, key=lambda i: errors[i])


def test_the_scores_are_the_softmax_of_the_word_logits(folder: Path) -> None:
    classifier = load(folder)
    logits = classifier.word_logits(TEXTS[:3])
    for each, found in zip(logits, classifier.explain(TEXTS[:3]), strict=True):
        np.testing.assert_allclose(found.word_probabilities, softmax(each)[:-1])
