"""Probabilities one can trust: reliability, temperature, biases that match class frequencies."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

BINS = 15
TEMPERATURES = 0.05, 20.0  # the least and the greatest that is fitted


@dataclass(frozen=True)
class Reliability:
    """How often a classifier is right, by how sure it is: (bins,) arrays over 0 to 1.

    Args:
        counts: Sentences whose highest probability is in the bin.
        confidence: Mean of their highest probabilities; 0 in an empty bin.
        accuracy: Fraction of them where the most probable class is right; 0 in an empty bin.
    """

    counts: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray


def probabilities(logits: np.ndarray) -> np.ndarray:
    """Return (N, classes) probabilities of (N, classes) logits, fp64: their softmax."""
    logits = np.asarray(logits, np.float64)
    exponentials = np.exp(logits - logits.max(1, keepdims=True))
    return exponentials / exponentials.sum(1, keepdims=True)


def reliability(logits: np.ndarray, labels: Sequence[int], bins: int = BINS) -> Reliability:
    """Return the reliability of (N, classes) logits with N labels."""
    right = np.asarray(logits).argmax(1) == np.asarray(labels, int)
    return reliability_of(probabilities(logits).max(1), right, bins)


def reliability_of(confidence: np.ndarray, right: np.ndarray, bins: int = BINS) -> Reliability:
    """Return the reliability of N answers: how probable each was held, and whether it was right.

    Guo et al. 2017, *On Calibration of Modern Neural Networks*, section 2; a bin holds its upper
    end.
    """
    indices = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    counts = np.bincount(indices, minlength=bins)
    divisor = np.maximum(counts, 1)
    return Reliability(
        counts,
        np.bincount(indices, confidence, minlength=bins) / divisor,
        np.bincount(indices, right, minlength=bins) / divisor,
    )


def calibration_error(bins: Reliability) -> float:
    """Return the expected calibration error (ECE; Guo et al. 2017, equation 3)."""
    gaps = np.abs(bins.accuracy - bins.confidence)
    return float((bins.counts * gaps).sum() / bins.counts.sum())


def fit_temperature(logits: np.ndarray, labels: Sequence[int] | np.ndarray) -> float:
    """Return the temperature by which to divide (N, classes) logits so that their cross-entropy is
    least (Guo et al. 2017, section 4.2).

    One wrong label more is assumed, spread over all sentences: without it, sentences that are all
    classified correctly would ask for probabilities of 1 (Platt 1999, *Probabilistic Outputs for
    Support Vector Machines*, section 2.2).
    """
    logits = np.asarray(logits, np.float64)
    n, classes = logits.shape
    wrong = 1 / (n + 2)
    targets = np.full((n, classes), wrong / (classes - 1))
    targets[np.arange(n), labels] = 1 - wrong
    wanted = (targets * logits).sum(1)

    def slope(temperature: float) -> float:
        # Of the cross-entropy by 1 / temperature, in which it is convex.
        return float(((probabilities(logits / temperature) * logits).sum(1) - wanted).mean())

    low, high = TEMPERATURES
    for _ in range(60):
        middle = float(np.sqrt(low * high))
        if slope(middle) > 0:
            low = middle
        else:
            high = middle
    return float(np.sqrt(low * high))


def prevalence_bias(logits: np.ndarray, labels: Sequence[int], rounds: int = 100) -> np.ndarray:
    """Return the (classes,) bias with which each class is predicted as often as it is a label.

    For two classes this is the criterion "PredPrev=Obs" of Freeman and Moisen 2008, *A comparison
    of the performance of threshold criteria for binary classification in terms of predicted
    prevalence and kappa*. For more, one class after another is adjusted, at most `rounds` times;
    some counts may remain a few off.

    Args:
        logits: (N, classes).
        labels: N class indices.
        rounds: the most passes over the classes.
    """
    logits = np.asarray(logits, np.float64)
    target = np.bincount(np.asarray(labels, int), minlength=logits.shape[1])
    bias = np.zeros(logits.shape[1])
    shifted = TopTwo(logits)
    for _ in range(rounds):
        changed = False
        for label in range(1, len(bias)):
            wanted = int(target[label])
            if not 0 < wanted < len(logits):
                continue
            # The biases above which each sentence is predicted as `label`.
            thresholds = shifted.greatest_without(label) - logits[:, label]
            low, high = np.partition(thresholds, (wanted - 1, wanted))[wanted - 1 : wanted + 1]
            if not low < bias[label] < high:
                bias[label] = (low + high) / 2
                shifted.replace(label, logits[:, label] + bias[label])
                changed = True
        predicted = np.bincount(shifted.values.argmax(1), minlength=len(bias))
        if not changed or (predicted == target).all():
            break
    return bias


class TopTwo:
    """The two greatest of each row of a matrix whose columns change one by one.

    So that what the greatest is without a column need not be looked for in the whole row.
    """

    def __init__(self, values: np.ndarray):
        self.values = np.array(values, np.float64)
        self._first = np.zeros(len(values), int)
        self._second = np.zeros(len(values), int)
        self._search(np.arange(len(values)))

    def greatest_without(self, column: int) -> np.ndarray:
        """Return (N,) the greatest value of each row outside `column`."""
        columns = self.arg_greatest_without(column)
        return self.values[np.arange(len(columns)), columns]

    def arg_greatest_without(self, column: int) -> np.ndarray:
        """Return (N,) the column of that value."""
        return np.where(self._first == column, self._second, self._first)

    def replace(self, column: int, values: np.ndarray) -> None:
        """Replace a column by (N,) `values`."""
        every = np.arange(len(values))
        second = self.values[every, self._second]
        is_top = (self._first == column) | (self._second == column)
        self.values[:, column] = values
        # The others keep their two, unless the column has risen above the second.
        self._search(np.flatnonzero(is_top | (values > second)))

    def _search(self, rows: np.ndarray) -> None:
        if not len(rows):
            return
        part = self.values[rows]
        self._first[rows] = part.argmax(1)
        part[np.arange(len(rows)), self._first[rows]] = -np.inf
        self._second[rows] = part.argmax(1)
