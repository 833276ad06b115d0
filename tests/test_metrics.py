"""Metrics against scikit-learn, torch and plain resampling."""

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, confusion_matrix, matthews_corrcoef

from potstill.metrics import (
    accuracy,
    confusion_counts,
    evaluation,
    majority_share,
    mcc,
    mcc_interval,
    mcc_standard_error,
    prevalence_bias,
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
def test_with_the_bias_each_class_is_predicted_as_often_as_it_occurs(classes):
    """For classifiers that predict the rare classes too seldom."""
    for seed in range(5):
        labels, _ = answers(classes, 600, seed)
        logits = np.random.default_rng(seed).normal(size=(600, classes))
        logits += np.eye(classes)[labels] + np.log(np.bincount(labels, minlength=classes))
        target = np.bincount(labels)
        assert np.abs(np.bincount(logits.argmax(1), minlength=classes) - target).max() > 9
        bias = prevalence_bias(logits, labels)
        assert bias.shape == (classes,) and bias[0] == 0
        left = np.bincount((logits + bias).argmax(1), minlength=classes) - target
        assert np.abs(left).max() <= (2 if classes > 3 else 0)


def test_the_bias_of_two_classes_by_hand():
    """Margins -1, 0.5, 1, 2, 4 and two of the second class: between 1 and 2."""
    logits = np.array([[0, -1], [0, 0.5], [0, 1], [0, 2], [0, 4.0]])
    assert prevalence_bias(logits, [0, 1, 0, 0, 1]).tolist() == [0, -1.5]
    assert prevalence_bias(logits + 7, [0, 1, 0, 0, 1]).tolist() == [0, -1.5]


def test_no_bias_where_none_is_needed():
    logits = np.array([[3.0, -9], [-1, 1], [0, 2]])
    assert prevalence_bias(logits, [0, 1, 1]).tolist() == [0, 0]  # as often, if not the same ones
    assert prevalence_bias(logits, [1, 1, 1]).tolist() == [0, 0]  # one class alone
    assert prevalence_bias(np.zeros((3, 2)), [0, 1, 1]).tolist() == [0, 0]  # all alike
