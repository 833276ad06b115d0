"""Class weights, calibration and thresholds: what is trained, saved, exported and answered."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from scipy.special import softmax
from sklearn.metrics import matthews_corrcoef
from sklearn.utils.class_weight import compute_class_weight
from torch.nn import functional as F
from transformers import pipeline

from potstill import (
    Corpus,
    DataSettings,
    DecisionSettings,
    DistilRNNClassifier,
    StudentSettings,
    TrainSettings,
    UsageError,
    UserError,
    distil,
    finetune,
    load,
    load_corpus,
    train_baseline,
)
from potstill.calibration import fit_temperature
from potstill.data.batching import LabelledDataset
from potstill.data.corpus import hold_out
from potstill.data.splits import Split
from potstill.recipes import _student
from potstill.training.losses import balanced_weights, classification_loss
from tests.cli.conftest import write_toy
from tests.toy_texts import LABELS, SMALL, TEXTS

STUDENT = StudentSettings(hidden_size=8, embedding_size=8, vocab_size=300)
TRAIN = TrainSettings(batch_size=16, epochs=4, lr=0.01)
DATA = DataSettings(holdout=0.5)
SENTENCES = ["The cats is old.", "The dogs are old.", "The book number 7 is old.", "Old."]


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(logging.getLogger("potstill"), "handlers", [])
    return tmp_path


@pytest.fixture
def corpus(empty_folder: Path) -> Corpus:
    return load_corpus(str(write_toy(empty_folder / "toy", train=120)))


def trained(corpus: Corpus, output: str = "student", **decisions: Any) -> Any:
    return train_baseline(
        corpus,
        seed=1,
        student=STUDENT,
        train=TRAIN,
        data_settings=DATA,
        decisions=DecisionSettings(**decisions),
        output=output,
    )


def read_json(file: str) -> Any:
    return json.loads(Path(file).read_text())


def test_balanced_weights_are_scikit_learns() -> None:
    labels = [0] * 7 + [2] * 21 + [1] * 2
    expected = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    weights = balanced_weights(labels, 3)
    assert weights.tolist() == pytest.approx(expected.tolist())
    assert weights[labels].mean() == pytest.approx(1)


def test_the_weighted_loss_is_torchs_and_that_of_its_parts() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(9, 3, generator=generator)
    dataset = LabelledDataset([[1]] * 9, [0, 1, 2, 2, 2, 1, 0, 2, 2])
    weights = balanced_weights(dataset.labels, 3)
    whole = classification_loss(logits, dataset.batch(range(9)), weights)
    labels = torch.tensor(dataset.labels)
    # Over all sentences the weights have mean 1, where torch's mean is the same.
    assert whole == pytest.approx(F.cross_entropy(logits, labels, weights).item())
    parts = [range(4), range(4, 9)]
    losses = [classification_loss(logits[list(p)], dataset.batch(p), weights) for p in parts]
    assert (4 * losses[0] + 5 * losses[1]) / 9 == pytest.approx(whole.item())


def test_class_weights_make_the_rare_class_as_likely(corpus: Corpus) -> None:
    rare = [i for i, label in enumerate(corpus.splits["train"].labels) if label == 0][:12]
    other = [i for i, label in enumerate(corpus.splits["train"].labels) if label == 1]
    train = corpus.splits["train"].take(sorted(rare + other))
    unbalanced = Corpus(
        "toy", corpus.labels, corpus.splits | {"train": train}, corpus.path, corpus.sha256
    )
    mean = {}
    for kind in ("none", "balanced"):
        student = StudentSettings(
            hidden_size=8, embedding_size=8, vocab_size=300, match_prevalence=False
        )
        model = train_baseline(
            unbalanced,
            seed=1,
            student=student,
            train=TRAIN,
            data_settings=DataSettings(holdout=0),
            decisions=DecisionSettings(class_weight=kind),
            output=kind,
        )
        mean[kind] = model.predict_proba(unbalanced.splits["dev"].sentences)[:, 0].mean()
    assert mean["none"] < 0.35  # 12 of 69 in train
    assert mean["balanced"] == pytest.approx(0.5, abs=0.1)
    assert read_json("balanced/config.json")["settings"]["class_weight"] == "balanced"


@pytest.fixture
def always_matched(monkeypatch: pytest.MonkeyPatch) -> None:
    """The class frequencies are matched whatever that does to held-out sentences."""
    monkeypatch.setattr(_student, "score", lambda logits, labels: {"mcc": 0.0})


@pytest.mark.usefixtures("always_matched")
def test_class_weights_are_not_undone_by_matching_the_class_frequencies(corpus: Corpus) -> None:
    trained(corpus, "plain")
    trained(corpus, "balanced", class_weight="balanced")
    assert any(read_json("plain/results.json")["bias"])
    assert not any(read_json("balanced/results.json")["bias"])


@pytest.mark.usefixtures("always_matched")
def test_the_temperature_is_that_of_the_held_out_sentences(corpus: Corpus) -> None:
    """It is fitted after the shift of the biases, divides all logits, and never sees dev."""
    plain = trained(corpus, "plain", calibrate=False)
    calibrated = trained(corpus, "calibrated")
    _, held = hold_out(corpus.splits["train"], 0.5, 1)
    temperature = fit_temperature(plain.logits(held.sentences), held.labels)
    assert temperature != pytest.approx(1, abs=0.01)
    about = {"temperature": pytest.approx(temperature, rel=1e-4), "sentences": len(held)}
    assert calibrated.config["calibration"] == about
    assert any(read_json("calibrated/results.json")["bias"])
    expected = plain.logits(SENTENCES) / temperature
    np.testing.assert_allclose(calibrated.logits(SENTENCES), expected, rtol=1e-3, atol=1e-5)
    np.testing.assert_array_equal(calibrated.predict(SENTENCES), plain.predict(SENTENCES))
    assert "calibration" not in plain.config

    dev = corpus.splits["dev"]
    wrong = Split(dev.sentences, [1 - label for label in dev.labels], dev.sources)
    other = Corpus("toy", corpus.labels, corpus.splits | {"dev": wrong}, "toy", corpus.sha256)
    assert trained(other, "other").config["calibration"] == about


def test_results_have_the_reliability_before_and_after(corpus: Corpus) -> None:
    plain, calibrated = trained(corpus, "plain", calibrate=False), trained(corpus, "calibrated")
    splits = read_json("calibrated/results.json")["calibration"]["splits"]
    assert set(splits) == {"holdout", "dev", "ood"}
    for name in ("dev", "ood"):
        before, after = (m.evaluate(corpus)[name]["ece"] for m in (plain, calibrated))
        assert splits[name]["before"]["ece"] == pytest.approx(before, abs=1e-4)
        assert splits[name]["after"]["ece"] == pytest.approx(after, abs=1e-4)
        assert sum(splits[name]["after"]["counts"]) == len(corpus.splits[name])


@pytest.mark.parametrize("int8", [False, True])
def test_the_exported_graph_is_calibrated(corpus: Corpus, int8: bool) -> None:
    """Whoever runs it with onnxruntime alone gets the calibrated probabilities."""
    student = trained(corpus)
    student.export_onnx("exported", int8=int8)
    session = onnxruntime.InferenceSession("exported/model.onnx")
    tokens = student.tokenizer.encode(SENTENCES[0]).ids
    inputs = {"input_ids": np.array([tokens]), "lengths": np.array([len(tokens)], np.int32)}
    (logits,) = session.run(["logits"], inputs)
    expected = student.predict_proba(SENTENCES[:1])
    tolerance = 0.05 if int8 else 1e-4
    np.testing.assert_allclose(softmax(logits, axis=1), expected, atol=tolerance)
    exported = load("exported")
    assert exported.config["calibration"] == student.config["calibration"]
    np.testing.assert_allclose(
        exported.predict_proba(SENTENCES), student.predict_proba(SENTENCES), atol=tolerance
    )


def test_an_adapter_keeps_its_logits_and_calibrates_its_probabilities(
    tiny_gpt2: Path, corpus: Corpus
) -> None:
    settings: dict[str, Any] = {"seed": 4, "train": TrainSettings(epochs=2, lr=0.05)}
    settings |= {"data_settings": DATA}
    plain = finetune(
        str(tiny_gpt2),
        corpus,
        output="plain",
        decisions=DecisionSettings(calibrate=False),
        **settings,
    )
    calibrated = finetune(str(tiny_gpt2), corpus, output="calibrated", **settings)
    np.testing.assert_array_equal(plain.logits(SENTENCES), calibrated.logits(SENTENCES))
    temperature = calibrated.config["calibration"]["temperature"]
    assert temperature != pytest.approx(1, abs=0.01)
    expected = softmax(plain.logits(SENTENCES) / temperature, axis=1)
    np.testing.assert_allclose(calibrated.predict_proba(SENTENCES), expected, rtol=1e-5)
    saved = read_json("calibrated/results.json")["chosen"]["dev"]
    assert calibrated.evaluate(corpus)["dev"]["loss"] == pytest.approx(saved["loss"], abs=1e-4)
    assert calibrated.sha256 == plain.sha256
    calibrated.export_merged("merged")
    classify = pipeline("text-classification", "merged", top_k=None)
    merged = {row["label"]: row["score"] for row in classify(SENTENCES[:1])[0]}
    assert [merged[name] for name in calibrated.classes_] == pytest.approx(expected[0], abs=1e-4)
    student = distil(
        calibrated, corpus, seed=1, student=STUDENT, train=TRAIN, data_settings=DATA, output="s"
    )
    of_teacher = student.config["teacher"]["scores"]["dev"]["loss"]
    assert of_teacher == pytest.approx(saved["loss"], abs=1e-4)


def test_from_too_few_sentences_no_temperature_is_taken(
    corpus: Corpus, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "potstill")
    student = train_baseline(
        corpus,
        seed=1,
        student=STUDENT,
        train=TRAIN,
        data_settings=DataSettings(holdout=0),
        output="s",
    )
    assert "not calibrated: that takes 20 held-out sentences, not 0" in caplog.text
    assert "calibration" not in student.config


@pytest.mark.parametrize("goal", ["mcc", "macro_f1", "recall@0.9:unacceptable"])
def test_the_goals_offsets_decide_in_every_form(goal: str, corpus: Corpus) -> None:
    student = trained(corpus, goal=goal)
    decision = student.config["decision"]
    assert (decision["goal"], decision["sentences"]) == (goal, 60)
    plain = trained(corpus, "plain")
    np.testing.assert_array_equal(student.logits(SENTENCES), plain.logits(SENTENCES))
    dev = corpus.splits["dev"]
    proba = student.predict_proba(dev.sentences)
    indices = (np.log(proba) + decision["offsets"]).argmax(1)
    expected = student.classes_[indices]
    np.testing.assert_array_equal(student.predict(dev.sentences), expected)
    exported = student.export_onnx("exported")
    np.testing.assert_array_equal(exported.predict(dev.sentences), expected)
    scores = student.evaluate(corpus)["dev"]
    truth = [corpus.labels[label] for label in dev.labels]
    assert scores["mcc"] == pytest.approx(matthews_corrcoef(truth, expected))
    saved = read_json("student/results.json")["chosen"]["dev"]
    assert scores["confusion"] == saved["confusion"]


def test_the_goals_threshold_leaves_the_rest_unsure(corpus: Corpus) -> None:
    student = trained(corpus, goal="recall@0.8")
    _, held = hold_out(corpus.splits["train"], 0.5, 1)
    threshold = student.config["decision"]["threshold"]
    confidence = student.predict_proba(held.sentences).max(1)
    answers = student.predict(held.sentences, threshold="goal")
    np.testing.assert_array_equal(answers == "unsure", confidence < threshold)
    assert "unsure" not in student.predict(held.sentences)
    answered = student.evaluate(corpus)["dev"]["answered"]
    assert answered["threshold"] == threshold
    dev = corpus.splits["dev"]
    unsure = student.predict(dev.sentences, threshold="goal") == "unsure"
    assert answered["fraction"] == pytest.approx(1 - unsure.mean())


def test_a_threshold_of_ones_own(corpus: Corpus) -> None:
    student = trained(corpus)
    confidence = float(student.predict_proba(SENTENCES[0]).max())
    assert student.predict(SENTENCES[0], threshold=confidence + 1e-6) == "unsure"
    assert student.predict(SENTENCES[0], threshold=confidence) == student.predict(SENTENCES[0])
    with pytest.raises(UsageError, match=r"`threshold` 1\.5 is out of range"):
        student.predict(SENTENCES, threshold=1.5)
    with pytest.raises(UserError, match="`threshold` goal: the model was trained without"):
        student.predict(SENTENCES, threshold="goal")
    student.classes_ = np.array(["unsure", "sure"])
    with pytest.raises(UserError, match="has a class 'unsure'"):
        student.predict(SENTENCES, threshold=0.5)


def test_goals_that_can_not_be_pursued_are_refused_before_training(corpus: Corpus) -> None:
    with pytest.raises(UserError, match="there is no class 'spam' among unacceptable, acceptable"):
        trained(corpus, goal="recall@0.9:spam")
    with pytest.raises(UsageError, match="`goal` needs held-out sentences: set `holdout` above 0"):
        train_baseline(
            corpus,
            seed=1,
            data_settings=DataSettings(holdout=0),
            decisions=DecisionSettings(goal="mcc"),
            output="s",
        )
    with pytest.raises(UsageError, match="`class_weight` auto is out of range"):
        DecisionSettings(class_weight="auto")  # type: ignore[arg-type]
    assert not Path("student").exists()


def test_the_estimator_decides_for_its_goal() -> None:
    y = np.where(LABELS == "good", 1, 0)
    estimator = DistilRNNClassifier(
        **SMALL, holdout=0.5, class_weight="balanced", goal="recall@1:1"
    ).fit(TEXTS, y)
    assert estimator.student_.config["decision"]["goal"] == "recall@1:1"
    names = estimator.student_.predict(TEXTS)
    np.testing.assert_array_equal(estimator.predict(TEXTS), names.astype(int))
