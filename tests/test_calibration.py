"""Calibration against plain formulas, scipy and scikit-learn."""

import time

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from sklearn.calibration import calibration_curve

from potstill.calibration import (
    BINS,
    TopTwo,
    calibration_error,
    fit_temperature,
    prevalence_bias,
    probabilities,
    reliability,
)
from tests.test_metrics import answers


def draw(n: int, classes: int, seed: int, sharpness: float) -> tuple[np.ndarray, np.ndarray]:
    """Logits `sharpness` times those that the labels were drawn with."""
    rng = np.random.default_rng(seed)
    true_logits = rng.normal(size=(n, classes)) * 2
    drawn = [rng.choice(classes, p=p) for p in softmax(true_logits, axis=1)]
    return sharpness * true_logits, np.array(drawn)


def test_probabilities_are_the_softmax():
    logits = np.random.default_rng(0).normal(size=(20, 5)) * 300
    assert probabilities(logits) == pytest.approx(softmax(logits, axis=1))


@pytest.mark.parametrize("classes", [2, 5])
def test_reliability_is_scikit_learns_curve(classes):
    logits, labels = draw(2000, classes, 1, 1.5)
    bins = reliability(logits, labels)
    right = logits.argmax(1) == labels
    accuracy, confidence = calibration_curve(right, softmax(logits, axis=1).max(1), n_bins=BINS)
    filled = bins.counts > 0
    assert bins.counts.sum() == 2000
    assert bins.accuracy[filled] == pytest.approx(accuracy)
    assert bins.confidence[filled] == pytest.approx(confidence)
    error = sum(bins.counts[filled] / 2000 * abs(accuracy - confidence))
    assert calibration_error(bins) == pytest.approx(error)


def test_the_calibration_error_by_hand():
    """Two sentences at 0.9 of which one is right, two at 0.6 that are: (2·0.4 + 2·0.4) / 4."""
    logits = np.log([[0.9, 0.1], [0.1, 0.9], [0.6, 0.4], [0.4, 0.6]])
    assert calibration_error(reliability(logits, [0, 0, 0, 1])) == pytest.approx(0.4)


def test_a_bin_holds_its_upper_end():
    assert reliability(np.zeros((1, 3)), [0]).counts[4] == 1  # 1/3 = 5/15
    assert reliability(np.array([[900.0, 0]]), [0]).counts[14] == 1


@pytest.mark.parametrize("sharpness", [0.4, 1, 3])
@pytest.mark.parametrize("classes", [2, 6])
def test_temperature_is_the_minimum_of_the_cross_entropy(classes, sharpness):
    logits, labels = draw(4000, classes, 2, sharpness)

    def loss(temperature: float) -> float:
        wrong = 1 / (len(labels) + 2)
        targets = np.full(logits.shape, wrong / (classes - 1))
        targets[np.arange(len(labels)), labels] = 1 - wrong
        return float(-(targets * log_softmax(logits / temperature, axis=1)).sum(1).mean())

    temperature = fit_temperature(logits, labels)
    best = minimize_scalar(loss, bounds=(0.05, 20), options={"xatol": 1e-8})
    assert temperature == pytest.approx(best.x, rel=1e-4)
    assert temperature == pytest.approx(sharpness, rel=0.1)  # what the labels were drawn with
    before, after = (
        calibration_error(reliability(z, labels)) for z in (logits, logits / temperature)
    )
    assert after < 0.03
    assert sharpness == 1 or after < before / 3


def test_temperature_of_a_classifier_that_is_always_right_is_finite():
    temperature = fit_temperature(
        np.array([[3.0, -3]] * 50 + [[-3.0, 3]] * 50), [0] * 50 + [1] * 50
    )
    assert probabilities(np.array([[3.0, -3]]) / temperature)[0, 0] == pytest.approx(1 - 1 / 102)
    assert 0.05 <= fit_temperature(np.zeros((4, 2)), [0, 1, 0, 1]) <= 20


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


def plain_prevalence_bias(logits, labels, rounds=100):
    """The formula, looking at every class of every sentence each time."""
    target = np.bincount(np.asarray(labels, int), minlength=logits.shape[1])
    bias = np.zeros(logits.shape[1])
    for _ in range(rounds):
        for label in range(1, len(bias)):
            if not 0 < target[label] < len(logits):
                continue
            others = np.delete(logits + bias, label, axis=1).max(1)
            thresholds = np.sort(others - logits[:, label])
            low, high = thresholds[target[label] - 1 : target[label] + 1]
            if not low < bias[label] < high:
                bias[label] = (low + high) / 2
        if (np.bincount((logits + bias).argmax(1), minlength=len(bias)) == target).all():
            break
    return bias


@pytest.mark.parametrize("classes", [2, 3, 12])
def test_the_bias_is_that_of_the_plain_formula(classes):
    for seed in range(4):
        labels, _ = answers(classes, 150, seed)
        logits = np.random.default_rng(seed).normal(size=(150, classes)).round(1)  # with ties
        logits += np.eye(classes)[labels]
        assert np.array_equal(
            prevalence_bias(logits, labels), plain_prevalence_bias(logits, labels)
        )


def test_the_greatest_without_a_column_after_changes():
    rng = np.random.default_rng(1)
    matrix = rng.normal(size=(40, 6)).round(1)
    shifted = TopTwo(matrix)
    for _ in range(60):
        column = int(rng.integers(6))
        matrix[:, column] = rng.normal(size=40).round(1)
        shifted.replace(column, matrix[:, column])
        for other in range(6):
            expected = np.delete(matrix, other, axis=1).max(1)
            assert np.array_equal(shifted.greatest_without(other), expected)


def test_the_bias_of_300_classes_takes_seconds():
    labels = np.repeat(np.arange(300), 9)
    logits = np.random.default_rng(0).normal(size=(len(labels), 300)) + 2 * np.eye(300)[labels]
    started = time.perf_counter()
    bias = prevalence_bias(logits, labels)
    seconds = time.perf_counter() - started
    off = np.bincount((logits + bias).argmax(1), minlength=300) - 9
    assert np.abs(off).max() <= 3
    assert seconds < 30  # it was 186
