"""What every saved model can do, whatever its kind."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, confusion_matrix, matthews_corrcoef

from potstill import UsageError, UserError, load, load_corpus
from potstill.data.corpus import Corpus
from potstill.data.splits import Split
from potstill.files import ADAPTER_WEIGHTS, MANIFEST, STUDENT_ONNX, STUDENT_WEIGHTS
from potstill.inference import student as student_module
from potstill.inference.classifier import Classifier
from potstill.inference.decoder import DecoderClassifier
from potstill.inference.onnx import OnnxClassifier
from potstill.inference.student import StudentClassifier
from potstill.manifest import find_damage
from potstill.model_card import CARD
from tests.inference.conftest import LABELS, SENTENCES

KINDS = {
    "adapter": DecoderClassifier,
    "student": StudentClassifier,
    "exported": OnnxClassifier,
}


@pytest.fixture
def exported(student: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "exported"
    StudentClassifier(student).export_onnx(folder)
    return folder


@pytest.fixture(params=KINDS)
def classifier(request: pytest.FixtureRequest) -> Classifier:
    """A model of each kind in turn."""
    classifier = load(request.getfixturevalue(request.param))
    assert type(classifier) is KINDS[request.param]
    return classifier


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_one_text_gives_a_label_and_a_sequence_an_array(classifier: Classifier) -> None:
    texts = SENTENCES[:5]
    labels = classifier.predict(texts)
    assert isinstance(labels, np.ndarray) and labels.shape == (5,)
    assert set(labels) <= set(LABELS)
    assert type(classifier.predict(texts[0])) is str
    assert [classifier.predict(text) for text in texts] == labels.tolist()
    for same in (tuple(texts), np.array(texts), np.array(texts, object), iter(texts)):
        np.testing.assert_array_equal(classifier.predict(same), labels)


def test_probabilities_have_a_row_per_text_and_a_column_per_class(classifier: Classifier) -> None:
    texts = SENTENCES[:7]
    probabilities = classifier.predict_proba(texts)
    assert classifier.classes_.tolist() == LABELS
    assert probabilities.shape == (7, 2)
    expected = torch.from_numpy(classifier.logits(texts)).softmax(1).numpy()
    np.testing.assert_allclose(probabilities, expected, rtol=1e-5)
    best = classifier.classes_[probabilities.argmax(1)]
    np.testing.assert_array_equal(best, classifier.predict(texts))
    assert classifier.predict_proba(texts[0]).shape == (1, 2)
    assert len({row.tobytes() for row in probabilities}) > 1  # texts do differ


def test_no_text_gives_no_row(classifier: Classifier) -> None:
    assert classifier.predict([]).shape == (0,)
    assert classifier.predict_proba([]).shape == (0, 2)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ("", "text 1 of 1 is empty; leave it out"),
        (["One.", " \n"], "text 2 of 2 is empty"),
        (["One.", None], "text 2 of 2 is None, of type NoneType; every text must be a string"),
        (["One.", math.nan], "text 2 of 2 is nan, of type float"),
        ([b"One."], "text 1 of 1 is b'One.', of type bytes"),
        (b"One.", "one string or a sequence of strings, not bytes"),
        (1, "one string or a sequence of strings, not int"),
        ({"text": "One."}, "not dict; of a table give the column with the text"),
        (np.array([["One."]]), "not ndarray; of a table give the column with the text"),
    ],
)
def test_what_is_no_text_is_refused(texts: Any, message: str, classifier: Classifier) -> None:
    for method in (classifier.predict, classifier.predict_proba, classifier.logits):
        with pytest.raises(UserError, match=message):
            method(texts)


def test_evaluate_scores_every_split_but_train(classifier: Classifier) -> None:
    texts = SENTENCES[:40]
    called = [LABELS.index(label) for label in classifier.predict(texts)]
    truth = [i % 3 % 2 for i in range(40)]
    splits = {"train": Split(["One."], [0]), "dev": Split(texts, truth)}
    # The labels of a corpus may be in another order than the model's classes.
    for labels, own in ((("bad", "good"), truth), (("good", "bad"), [1 - t for t in truth])):
        splits["dev"] = Split(texts, own)
        scores = classifier.evaluate(Corpus("toy", labels, splits, "nowhere", ""))
        assert set(scores) == {"dev"}
        assert scores["dev"]["sentences"] == 40
        assert scores["dev"]["accuracy"] == pytest.approx(accuracy_score(truth, called))
        assert scores["dev"]["mcc"] == pytest.approx(matthews_corrcoef(truth, called))
        assert scores["dev"]["confusion"] == confusion_matrix(truth, called).tolist()
        assert scores["dev"]["majority"] == pytest.approx(27 / 40)
        low, high = scores["dev"]["mcc_95"]
        assert low <= scores["dev"]["mcc"] <= high
    only_train = Corpus("toy", ("bad", "good"), {"train": Split(texts, truth)}, "nowhere", "")
    assert set(classifier.evaluate(only_train)) == {"train"}


def test_evaluate_reads_a_file(classifier: Classifier, tmp_path: Path) -> None:
    file = tmp_path / "reviews.csv"
    file.write_text("review,mark\nOne two.,good\nThree.,bad\n")
    scores = classifier.evaluate(file, text_column="review", label_column="mark")
    assert scores["reviews"]["sentences"] == 2
    file.write_text("text,label\nOne two.,great\n")
    with pytest.raises(UserError, match=r"reviews\.csv:2: label 'great' is none of bad, good"):
        classifier.evaluate(str(file))


def test_evaluate_refuses_a_corpus_of_other_labels(classifier: Classifier) -> None:
    with pytest.raises(UserError, match="has the label 'unacceptable', but the model's classes"):
        classifier.evaluate(load_corpus("minicola"))


@pytest.mark.parametrize("kind", ["adapter", "student"])
def test_save_pretrained_is_the_inverse_of_load(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    folder = request.getfixturevalue(kind)
    classifier = load(folder)
    for target in (tmp_path / "deep" / "copy", folder):  # a new folder, and its own
        classifier.save_pretrained(target)
        assert load(target).config == classifier.config
        weights = STUDENT_WEIGHTS if kind == "student" else ADAPTER_WEIGHTS
        assert (target / weights).read_bytes() == (folder / weights).read_bytes()
        expected = classifier.logits(SENTENCES[:9])
        np.testing.assert_array_equal(load(target).logits(SENTENCES[:9]), expected)
    if kind == "adapter":
        assert load(target).sha256 == classifier.sha256


@pytest.mark.parametrize("kind", ["adapter", "student"])
def test_save_pretrained_replaces_nothing_but_a_model(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    classifier = load(request.getfixturevalue(kind))
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "letter.txt").write_text("Dear all")
    with pytest.raises(UserError, match="foreign is not empty and not a run"):
        classifier.save_pretrained(foreign)
    assert contents(foreign) == {"letter.txt": b"Dear all"}
    with pytest.raises(UserError, match=r"letter\.txt is a file; name a folder"):
        classifier.save_pretrained(foreign / "letter.txt")


@pytest.mark.parametrize("kind", ["adapter", "student"])
def test_save_pretrained_leaves_nothing_behind_when_it_fails(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    classifier = load(request.getfixturevalue(kind))
    classifier.config = {"labels": object()}  # no JSON
    with pytest.raises(TypeError):
        classifier.save_pretrained(tmp_path / "out" / "copy")
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("int8", [False, True])
def test_export_onnx_gives_the_same_answers(student: Path, tmp_path: Path, int8: bool) -> None:
    classifier = StudentClassifier(student)
    returned = classifier.export_onnx(tmp_path / "out", int8=int8)
    exported = load(tmp_path / "out")
    assert type(exported) is OnnxClassifier
    np.testing.assert_array_equal(exported.logits(SENTENCES), returned.logits(SENTENCES))
    difference = abs(exported.logits(SENTENCES) - classifier.logits(SENTENCES)).max()
    assert difference < (0.05 if int8 else 1e-5)
    assert exported.classes_.tolist() == LABELS


def test_export_onnx_into_its_own_folder_keeps_what_is_there(student: Path) -> None:
    before = contents(student)
    StudentClassifier(student).export_onnx(student)
    after = contents(student)
    assert after.pop(STUDENT_ONNX)
    assert after.pop(CARD)
    assert find_damage(student) == ""
    listed = json.loads(after.pop(MANIFEST))["files"]
    before.pop(MANIFEST, None)
    assert STUDENT_ONNX in listed
    assert after == before
    assert type(load(student)) is StudentClassifier


def test_export_onnx_does_not_mix_two_models(student: Path, adapter: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    classifier = StudentClassifier(student)
    classifier.save_pretrained(other)
    classifier.config["max_length"] = 5
    for folder in (adapter, other):
        before = contents(folder)
        with pytest.raises(UserError, match="holds another model; name another folder"):
            classifier.export_onnx(folder)
        assert contents(folder) == before


def test_an_export_that_answers_otherwise_is_not_written(
    student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(student_module, "MAX_LOGIT_ERROR", {False: 0.0, True: 0.0})
    with pytest.raises(RuntimeError, match="the exported student answers otherwise"):
        StudentClassifier(student).export_onnx(tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_word_logits_are_the_logits_of_the_words_so_far(adapter: Path) -> None:
    classifier = load(adapter)
    assert isinstance(classifier, DecoderClassifier)
    (logits,) = classifier.word_logits("The books on the table")
    prefixes = ["The", "The books", "The books on", "The books on the", "The books on the table"]
    assert logits.shape == (6, 2)  # and the whole
    expected = classifier.logits([*prefixes, prefixes[-1]])
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)


def test_load_gives_the_bundled_student_by_default() -> None:
    classifier = load()
    assert type(classifier) is OnnxClassifier
    assert classifier.classes_.tolist() == ["unacceptable", "acceptable"]
    assert classifier.predict("The books is on the table.") == "unacceptable"
    assert 2e6 < classifier.n_parameters < 3e6


def test_an_unknown_precision_is_refused(adapter: Path) -> None:
    with pytest.raises(UsageError, match=r"`precision` fp16 .* takes auto, bf16 or fp32"):
        load(adapter, precision="fp16")


def test_load_says_what_is_wrong_with_a_folder(student: Path, tmp_path: Path) -> None:
    message = r"^`path` .*nowhere: there is no such folder.*There is .*student"
    with pytest.raises(UserError, match=message):
        load(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="empty holds neither an adapter"):
        load(str(tmp_path / "empty"))


def test_texts_that_are_cut_are_told_apart(classifier: Classifier) -> None:
    words = SENTENCES[0].split()
    texts = [" ".join((words * 40)[:n]) for n in range(1, 60)]
    cut = classifier.truncated(texts)
    assert cut.dtype == bool and not cut[0] and cut[-1]
    # More words change the answer exactly until the text is cut.
    logits = classifier.logits(texts)
    first = cut.tolist().index(True)
    assert cut[first:].all()
    np.testing.assert_allclose(logits[first + 2 :], logits[[-1]].repeat(57 - first, 0), atol=1e-5)
    assert not np.allclose(logits[first - 1], logits[first - 2], atol=1e-5)


def test_a_text_of_half_characters_is_named(classifier: Classifier) -> None:
    with pytest.raises(UserError, match=r"text 2 of 2 is not valid Unicode: its character 4 is"):
        classifier.predict(["Fine.", "Caf\udce9."])


def test_text_that_spells_a_special_token_is_text(classifier: Classifier) -> None:
    special = "<|endoftext|>" if isinstance(classifier, DecoderClassifier) else "<pad>"
    apart = [f"{special[:i]} {special[i:]}" for i in range(1, len(special))]
    tokenizer = getattr(classifier, "tokenizer", None)
    logits = classifier.logits([f"a {special}", f"a {special} b", *apart])
    assert len(np.unique(logits.round(5), axis=0)) == len(logits)
    if isinstance(classifier, DecoderClassifier):
        assert 0 not in tokenizer(f"a {special} b", add_special_tokens=False)["input_ids"]
