"""Metrics against scikit-learn, torch and plain resampling."""

import tracemalloc

import numpy as np
import pytest
import torch
from sklearn.metrics import (
    accuracy_score,
    confusion_matrix,
    f1_score,
    matthews_corrcoef,
    precision_recall_fscore_support,
)

from potstill import metrics
from potstill.metrics import (
    accuracy,
    class_scores,
    confusion_counts,
    evaluation,
    macro_f1,
    majority_share,
    mcc,
    mcc_interval,
    mcc_standard_error,
    score,
)


def answers(classes: int, sentences: int, seed: int, right: float = 0.6) -> tuple[list, list]:
    """Random labels of uneven frequency, and predictions that are often right."""
    rng = np.random.default_rng(seed)
    frequencies = np.arange(1, classes + 1) / np.arange(1, classes + 1).sum()
    labels = rng.choice(classes, sentences, p=frequencies)
    guesses = rng.choice(classes, sentences)
    predictions = np.where(rng.random(sentences) < right, labels, guesses)
    return labels.tolist(), predictions.tolist()


@pytest.mark.parametrize("classes", [2, 3, 7])
@pytest.mark.parametrize("sentences", [5, 527])
def test_counts_accuracy_and_mcc_are_scikit_learns(classes, sentences):
    for seed in range(5):
        labels, predictions = answers(classes, sentences, seed)
        counts = confusion_counts(labels, predictions, classes)
        expected = confusion_matrix(labels, predictions, labels=range(classes))
        assert np.array_equal(counts, expected)
        assert accuracy(counts) == pytest.approx(accuracy_score(labels, predictions))
        assert mcc(counts) == pytest.approx(matthews_corrcoef(labels, predictions), abs=1e-12)


@pytest.mark.filterwarnings("ignore:A single label was found")
@pytest.mark.parametrize(
    ("labels", "predictions"),
    [
        ([0, 1, 1, 1], [1, 1, 1, 1]),
        ([1, 1, 1], [0, 1, 1]),
        ([0, 0], [0, 0]),
        ([0], [1]),
    ],
)
def test_mcc_is_zero_where_one_class_is_all_there_is(labels, predictions):
    assert mcc(confusion_counts(labels, predictions, 2)) == 0
    assert matthews_corrcoef(labels, predictions) == 0


@pytest.mark.parametrize(("flip", "expected"), [(False, 1), (True, -1)])
def test_mcc_at_its_ends(flip, expected):
    labels = [0, 1, 1, 0, 1]
    predictions = [1 - label for label in labels] if flip else labels
    assert mcc(confusion_counts(labels, predictions, 2)) == pytest.approx(expected)


def test_mcc_takes_many_counts_at_once():
    counts = np.stack([confusion_counts(*answers(3, 40, seed), 3) for seed in range(6)])
    assert mcc(counts) == pytest.approx([float(mcc(matrix)) for matrix in counts])


@pytest.mark.parametrize("classes", [2, 3])
def test_interval_is_that_of_resampled_sentences(classes):
    labels, predictions = map(np.array, answers(classes, 300, 1))
    rng = np.random.default_rng(2)
    drawn = rng.integers(0, len(labels), (2000, len(labels)))
    resampled = [mcc(confusion_counts(labels[i], predictions[i], classes)) for i in drawn]
    counts = confusion_counts(labels, predictions, classes)
    low, high = mcc_interval(counts)
    assert [low, high] == pytest.approx(np.percentile(resampled, [2.5, 97.5]).tolist(), abs=0.02)
    assert low < mcc(counts) < high
    assert (low, high) == mcc_interval(counts)
    assert mcc_standard_error(counts) == pytest.approx(np.std(resampled), rel=0.1)


def test_interval_covers_the_true_value_about_95_times_in_100():
    truth = np.array([[0.20, 0.11], [0.09, 0.60]])
    samples = np.random.default_rng(3).multinomial(400, truth.ravel(), 300).reshape(-1, 2, 2)
    bounds = np.array([mcc_interval(counts, resamples=500) for counts in samples])
    covered = np.mean((bounds[:, 0] <= mcc(truth)) & (mcc(truth) <= bounds[:, 1]))
    assert 0.91 <= covered <= 0.985


@pytest.mark.parametrize(
    ("labels", "expected"), [([1] * 365 + [0] * 162, 365 / 527), ([0, 0, 2], 2 / 3), ([1], 1.0)]
)
def test_majority_share(labels, expected):
    assert majority_share(labels) == pytest.approx(expected)


@pytest.mark.parametrize("scale", [1, 500])
def test_score_is_torchs_cross_entropy_and_the_most_probable_class(scale):
    generator = torch.Generator().manual_seed(4)
    logits = scale * torch.randn(60, 3, generator=generator)
    labels = torch.randint(0, 3, (60,), generator=generator)
    scores = score(logits.numpy(), labels.tolist())
    loss = torch.nn.functional.cross_entropy(logits.double(), labels)
    assert scores["loss"] == pytest.approx(loss.item(), rel=1e-6)
    predicted = logits.argmax(1)
    assert scores["accuracy"] == pytest.approx(accuracy_score(labels, predicted))
    assert scores["mcc"] == pytest.approx(matthews_corrcoef(labels, predicted))


def test_evaluation_is_made_of_its_parts():
    logits = np.array([[2.0, 1], [0, 1], [3, 1], [0, 2], [1, 0]])
    labels, sources = [0, 1, 1, 1, 0], ["b", "a", "a", "b", "b"]
    scores = evaluation(logits, labels, sources)
    assert scores["sentences"] == 5
    assert scores["confusion"] == [[2, 0], [1, 2]]
    assert scores["accuracy"] == pytest.approx(0.8)
    assert scores["majority"] == pytest.approx(0.6)
    assert scores["mcc_95"] == list(mcc_interval(np.array(scores["confusion"])))
    assert scores["groups"] == {
        "a": {"sentences": 2, "accuracy": 0.5, "majority": 1.0},
        "b": {"sentences": 3, "accuracy": 1.0, "majority": 2 / 3},
    }


@pytest.mark.parametrize("classes", [2, 3, 7])
@pytest.mark.parametrize("sentences", [5, 527])
def test_f1_precision_recall_and_support_are_scikit_learns(classes, sentences):
    for seed in range(5):
        labels, predictions = answers(classes, sentences, seed)
        counts = confusion_counts(labels, predictions, classes)
        expected = precision_recall_fscore_support(
            labels, predictions, labels=range(classes), zero_division=0
        )
        scores = class_scores(counts)
        for name, values in zip(("precision", "recall", "f1", "support"), expected, strict=True):
            assert scores[name] == pytest.approx(values), name
        expected_f1 = f1_score(labels, predictions, average="macro", zero_division=0)
        assert macro_f1(counts) == pytest.approx(expected_f1)


def test_a_bootstrap_in_chunks_is_the_bootstrap(monkeypatch):
    """And the one of all cells at once, which took memory for every pair of classes."""
    counts = confusion_counts(*answers(5, 200, 4, right=0.9), 5)
    assert (counts == 0).any()
    drawn = np.random.default_rng(0).multinomial(200, (counts / 200).ravel(), 500)
    values = mcc(drawn.reshape(-1, 5, 5))
    expected = np.percentile(values, [2.5, 97.5])
    whole = mcc_interval(counts, resamples=500)
    assert whole == pytest.approx(expected, abs=0.01)
    monkeypatch.setattr(metrics, "RESAMPLED_NUMBERS", 100)
    assert mcc_interval(counts, resamples=500) == pytest.approx(whole, abs=1e-12)


def test_the_bootstrap_of_300_classes_takes_little_memory():
    counts = confusion_counts(*answers(300, 600, 5), 300)
    tracemalloc.start()
    try:
        low, high = mcc_interval(counts)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert low < mcc(counts) < high
    assert peak < 150e6  # of 10,000 × 300 × 300 numbers, 7.2 GB


def test_offsets_decide_on_the_class_and_leave_the_probabilities():
    logits = np.array([[2.0, 1], [0, 1], [3, 1], [0, 2], [1, 0]])
    labels = [0, 1, 1, 1, 0]
    plain = evaluation(logits, labels)
    shifted = evaluation(logits, labels, offsets=np.array([0, 2.5]))
    assert shifted["confusion"] == [[0, 2], [0, 3]]
    assert [shifted[key] for key in ("loss", "ece")] == [plain[key] for key in ("loss", "ece")]
