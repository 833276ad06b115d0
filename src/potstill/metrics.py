"""Accuracy, Matthews correlation (MCC), the majority baseline and their uncertainty."""

from collections.abc import Sequence
from typing import Any

import numpy as np


def confusion_counts(labels: Sequence[int], predictions: Sequence[int], classes: int) -> np.ndarray:
    """Return (classes, classes) counts: how often class i (row) was predicted as j (column)."""
    counts = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(counts, (np.asarray(labels, int), np.asarray(predictions, int)), 1)
    return counts


def accuracy(counts: np.ndarray) -> Any:
    """Return the accuracy from (…, classes, classes) confusion counts."""
    return np.trace(counts, axis1=-2, axis2=-1) / counts.sum((-2, -1))


def mcc(counts: np.ndarray) -> Any:
    """Return the Matthews correlation (MCC) from (…, classes, classes) confusion counts.

    Gorodkin 2004, *Comparing two K-category assignments by a K-category correlation
    coefficient*, eq. 8; 0 if all labels or all predictions are of one class.
    """
    counts = counts.astype(np.float64)
    actual, predicted = counts.sum(-1), counts.sum(-2)
    total = counts.sum((-2, -1))
    covariance = np.trace(counts, axis1=-2, axis2=-1) * total - (actual * predicted).sum(-1)
    spread = (total**2 - (actual**2).sum(-1)) * (total**2 - (predicted**2).sum(-1))
    return np.where(spread > 0, covariance / np.sqrt(np.where(spread > 0, spread, 1)), 0.0)


def mcc_interval(counts: np.ndarray, seed: int = 0, resamples: int = 10_000) -> tuple[float, float]:
    """Return the 95 % percentile bootstrap interval of the MCC.

    Efron and Tibshirani 1993, *An Introduction to the Bootstrap*, section 13.3.
    """
    low, high = np.percentile(_resampled_mcc(counts, seed, resamples), [2.5, 97.5])
    return float(low), float(high)


def mcc_standard_error(counts: np.ndarray, seed: int = 0, resamples: int = 1_000) -> float:
    """Return the bootstrap standard error of the MCC (Efron and Tibshirani 1993, section 6.2)."""
    return float(_resampled_mcc(counts, seed, resamples).std(ddof=1))


def _resampled_mcc(counts: np.ndarray, seed: int, resamples: int) -> np.ndarray:
    # The counts of sentences drawn with replacement are multinomial, so the counts are drawn.
    total = counts.sum()
    drawn = np.random.default_rng(seed).multinomial(total, (counts / total).ravel(), resamples)
    return mcc(drawn.reshape(-1, *counts.shape))


def majority_share(labels: Sequence[int]) -> float:
    """Return the accuracy of always predicting the most frequent class; its MCC is 0."""
    return float(np.bincount(np.asarray(labels, int)).max() / len(labels))


def score(logits: np.ndarray, labels: Sequence[int]) -> dict[str, float]:
    """Return mean cross-entropy ("loss", nats), accuracy and MCC of (N, classes) logits."""
    logits = np.asarray(logits, np.float64)
    picked = logits[np.arange(len(labels)), labels]
    counts = confusion_counts(labels, logits.argmax(1), logits.shape[1])
    return {
        "loss": float((np.logaddexp.reduce(logits, axis=1) - picked).mean()),
        "accuracy": float(accuracy(counts)),
        "mcc": float(mcc(counts)),
    }


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
    for _ in range(rounds):
        for label in range(1, len(bias)):
            if not 0 < target[label] < len(logits):
                continue
            others = np.delete(logits + bias, label, axis=1).max(1)
            # The biases above which each sentence is predicted as `label`.
            thresholds = np.sort(others - logits[:, label])
            low, high = thresholds[target[label] - 1 : target[label] + 1]
            if not low < bias[label] < high:
                bias[label] = (low + high) / 2
        if (np.bincount((logits + bias).argmax(1), minlength=len(bias)) == target).all():
            break
    return bias


def evaluation(
    logits: np.ndarray, labels: Sequence[int], sources: Sequence[str] = ()
) -> dict[str, Any]:
    """Return all measures of one split: what results.json holds.

    Args:
        logits: (N, classes).
        labels: N class indices.
        sources: N names of groups, or empty.

    Returns:
        "loss", "accuracy" and "mcc" as in `score`; "mcc_95", its interval; "sentences", their
        number; "majority", the baseline's accuracy; "confusion", counts; and "groups": for each
        source its sentences, accuracy and majority baseline.
    """
    predictions = np.asarray(logits).argmax(1)
    counts = confusion_counts(labels, predictions, np.asarray(logits).shape[1])
    groups = {}
    for name in sorted(set(sources)):
        indices = [i for i, source in enumerate(sources) if source == name]
        correct = sum(int(predictions[i]) == labels[i] for i in indices)
        groups[name] = {
            "sentences": len(indices),
            "accuracy": correct / len(indices),
            "majority": majority_share([labels[i] for i in indices]),
        }
    return {
        "sentences": len(labels),
        **score(logits, labels),
        "mcc_95": list(mcc_interval(counts)),
        "majority": majority_share(labels),
        "confusion": counts.tolist(),
        "groups": groups,
    }
