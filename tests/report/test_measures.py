"""Reliability, label errors and paired tests, against other ways to compute them."""

import numpy as np
import pytest
from scipy.stats import binom
from sklearn.calibration import calibration_curve
from sklearn.metrics import matthews_corrcoef

from potstill.report import paired
from potstill.report.measures import (
    confident_mistakes,
    likely_label_errors,
    reliability_of_predictions,
)
from potstill.report.paired import compare
from potstill.report.predictions import Prediction
from potstill.report.svg import Line, line_chart, nice_ticks


def predictions_of(probabilities: np.ndarray, labels: list[int]) -> list[Prediction]:
    return [
        Prediction(
            f"t{i}",
            str(label),
            str(int(row.argmax())),
            {str(c): float(p) for c, p in enumerate(row)},
        )
        for i, (row, label) in enumerate(zip(probabilities, labels, strict=True))
    ]


def test_reliability_is_scikit_learn_s_calibration_curve() -> None:
    generator = np.random.default_rng(0)
    first = generator.uniform(0, 1, 500)
    labels = (generator.uniform(0, 1, 500) < first**2).astype(int)
    probabilities = np.stack([1 - first, first], 1)
    bins = reliability_of_predictions(predictions_of(probabilities, labels.tolist()))
    right = probabilities.argmax(1) == labels
    accuracy, confidence = calibration_curve(right, probabilities.max(1), n_bins=15)
    full = bins.counts > 0
    np.testing.assert_allclose(bins.accuracy[full], accuracy)
    np.testing.assert_allclose(bins.confidence[full], confidence)


def test_the_surest_mistakes_come_first() -> None:
    probabilities = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.95, 0.05]])
    mistakes = confident_mistakes(predictions_of(probabilities, [1, 1, 1, 0]), 5)
    assert [p.text for p in mistakes] == ["t0", "t1"]


def test_swapped_labels_are_found() -> None:
    generator = np.random.default_rng(1)
    truth = generator.integers(0, 3, 300)
    logits = generator.normal(size=(300, 3))
    logits[np.arange(300), truth] += 5
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    swapped = {int(i): int(truth[i] + 1) % 3 for i in generator.permutation(300)[:15]}
    labels = [swapped.get(i, int(label)) for i, label in enumerate(truth)]
    found = likely_label_errors(predictions_of(probabilities, labels))[:15]
    hits = sum(int(e.prediction.text[1:]) in swapped for e in found)
    assert hits >= 13
    assert all(e.suggested == str(truth[int(e.prediction.text[1:])]) for e in found)


def test_confident_learning_by_hand() -> None:
    # Thresholds: class 0 (0.9 + 0.4) / 2 = 0.65, class 1 (0.8 + 0.3) / 2 = 0.55.
    probabilities = np.array([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.7, 0.3]])
    errors = likely_label_errors(predictions_of(probabilities, [0, 0, 1, 1]))
    assert [(e.prediction.text, e.suggested) for e in errors] == [("t3", "0"), ("t1", "1")]


def test_mcnemar_is_the_binomial_test() -> None:
    truth = [0] * 40
    a = [0] * 30 + [1] * 10
    b = [1] * 3 + [0] * 37
    found = compare(truth, a, b, 2)
    assert (found.only_a, found.only_b) == (3, 10)
    assert found.mcnemar_p == pytest.approx(2 * binom.cdf(3, 13, 0.5))
    assert found.accuracy[0] == pytest.approx(7 / 40)


def test_equal_models_do_not_differ() -> None:
    found = compare([0, 1, 1, 0], [0, 1, 0, 0], [0, 1, 0, 0], 2)
    assert found.mcnemar_p == 1
    assert found.accuracy == found.mcc == (0, 0, 0)


@pytest.mark.parametrize("classes", [2, 5])
def test_the_paired_bootstrap_is_that_of_a_plain_loop(
    classes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = np.random.default_rng(2)
    truth = generator.integers(0, classes, 150)
    a, b = (
        np.where(generator.uniform(size=150) < right, truth, generator.integers(0, classes, 150))
        for right in (0.5, 0.7)
    )
    found = compare(truth.tolist(), a.tolist(), b.tolist(), classes)
    differences = []
    for _ in range(300):
        i = generator.integers(0, 150, 150)
        scores = [matthews_corrcoef(truth[i], answers[i]) for answers in (a, b)]
        differences.append(scores[1] - scores[0])
    np.testing.assert_allclose(found.mcc[1:], np.percentile(differences, [2.5, 97.5]), atol=0.05)
    expected = matthews_corrcoef(truth, b) - matthews_corrcoef(truth, a)
    assert found.mcc[0] == pytest.approx(expected)
    # In chunks, as with many classes, the distribution is the same.
    monkeypatch.setattr(paired, "NUMBERS_AT_ONCE", 5000)
    chunked = compare(truth.tolist(), a.tolist(), b.tolist(), classes)
    np.testing.assert_allclose(chunked.mcc, found.mcc, atol=0.02)


@pytest.mark.parametrize(
    ("low", "high"), [(0, 1), (0.58, 0.65), (-0.02, 0.03), (3, 3), (0, 12345), (1, 20), (-7, -2)]
)
def test_ticks_are_round_and_enclose(low: float, high: float) -> None:
    ticks = nice_ticks(low, high)
    assert ticks[0] <= low and ticks[-1] >= high
    assert 3 <= len(ticks) <= 12
    assert all(len(f"{t:g}") <= 7 for t in ticks)


def test_a_chart_of_one_epoch_can_be_drawn() -> None:
    chart = line_chart([Line("dev", [(1, 0.5)])], title="<t>", marked_x=1)
    assert "nan" not in chart and 'aria-label="&lt;t&gt;"' in chart
