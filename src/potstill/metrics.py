"""Accuracy, Matthews correlation (MCC), the majority baseline and their uncertainty."""

from collections.abc import Sequence
from typing import Any

import numpy as np


def confusion_counts(labels: Sequence[int], predictions: Sequence[int], classes: int) -> np.ndarray:
    """How often class i was called class j: (classes, classes) counts, rows the truth."""
    counts = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(counts, (np.asarray(labels, int), np.asarray(predictions, int)), 1)
    return counts


def accuracy(counts: np.ndarray) -> Any:
    """Share on the diagonal of (…, classes, classes) confusion counts."""
    return np.trace(counts, axis1=-2, axis2=-1) / counts.sum((-2, -1))


def mcc(counts: np.ndarray) -> Any:
    """Matthews correlation of (…, classes, classes) confusion counts.

    Gorodkin 2004, *Comparing two K-category assignments by a K-category correlation
    coefficient*, eq. 8; 0 where the truth or the prediction has one class only.
    """
    counts = counts.astype(np.float64)
    truth, called = counts.sum(-1), counts.sum(-2)
    total = counts.sum((-2, -1))
    covariance = np.trace(counts, axis1=-2, axis2=-1) * total - (truth * called).sum(-1)
    spread = (total**2 - (truth**2).sum(-1)) * (total**2 - (called**2).sum(-1))
    return np.where(spread > 0, covariance / np.sqrt(np.where(spread > 0, spread, 1)), 0.0)


def mcc_interval(counts: np.ndarray, seed: int = 0, resamples: int = 10_000) -> tuple[float, float]:
    """95 % percentile bootstrap interval of the MCC.

    Efron and Tibshirani 1993, *An Introduction to the Bootstrap*, section 13.3.
    """
    low, high = np.percentile(_resampled_mcc(counts, seed, resamples), [2.5, 97.5])
    return float(low), float(high)


def mcc_standard_error(counts: np.ndarray, seed: int = 0, resamples: int = 1_000) -> float:
    """Standard error of the MCC by the bootstrap (Efron and Tibshirani 1993, section 6.2)."""
    return float(_resampled_mcc(counts, seed, resamples).std(ddof=1))


def _resampled_mcc(counts: np.ndarray, seed: int, resamples: int) -> np.ndarray:
    # Drawing sentences with replacement draws the counts from a multinomial, so that is drawn.
    total = counts.sum()
    drawn = np.random.default_rng(seed).multinomial(total, (counts / total).ravel(), resamples)
    return mcc(drawn.reshape(-1, *counts.shape))


def majority_share(labels: Sequence[int]) -> float:
    """Accuracy of always answering the most frequent class; its MCC is 0."""
    return float(np.bincount(np.asarray(labels, int)).max() / len(labels))


def score(logits: np.ndarray, labels: Sequence[int]) -> dict[str, float]:
    """Mean cross-entropy (nats), accuracy and MCC of (N, classes) logits."""
    logits = np.asarray(logits, np.float64)
    picked = logits[np.arange(len(labels)), labels]
    counts = confusion_counts(labels, logits.argmax(1), logits.shape[1])
    return {
        "loss": float((np.logaddexp.reduce(logits, axis=1) - picked).mean()),
        "accuracy": float(accuracy(counts)),
        "mcc": float(mcc(counts)),
    }


def prevalence_bias(logits: np.ndarray, labels: Sequence[int], rounds: int = 100) -> np.ndarray:
    """(classes,) numbers to add to (N, classes) logits so that each class is the largest as often
    as it is a label.

    For two classes the criterion "PredPrev=Obs" of Freeman and Moisen 2008, *A comparison of the
    performance of threshold criteria for binary classification in terms of predicted prevalence
    and kappa*; for more, class by class, at most `rounds` times, which may leave some a few off.
    """
    logits = np.asarray(logits, np.float64)
    wanted = np.bincount(np.asarray(labels, int), minlength=logits.shape[1])
    bias = np.zeros(logits.shape[1])
    for _ in range(rounds):
        for one in range(1, len(bias)):
            if not 0 < wanted[one] < len(logits):
                continue
            others = np.delete(logits + bias, one, axis=1).max(1)
            # From which bias on each sentence is called `one`.
            needed = np.sort(others - logits[:, one])
            low, high = needed[wanted[one] - 1 : wanted[one] + 1]
            if not low < bias[one] < high:
                bias[one] = (low + high) / 2
        if (np.bincount((logits + bias).argmax(1), minlength=len(bias)) == wanted).all():
            break
    return bias


def evaluation(
    logits: np.ndarray, labels: Sequence[int], sources: Sequence[str] = ()
) -> dict[str, Any]:
    """All that is said of one split: `score`, the MCC's interval under "mcc_95", the number of
    sentences, the majority baseline, confusion counts, and accuracy by source under "groups"."""
    predictions = np.asarray(logits).argmax(1)
    counts = confusion_counts(labels, predictions, np.asarray(logits).shape[1])
    groups = {}
    for name in sorted(set(sources)):
        mine = [i for i, source in enumerate(sources) if source == name]
        right = sum(int(predictions[i]) == labels[i] for i in mine)
        groups[name] = {
            "sentences": len(mine),
            "accuracy": right / len(mine),
            "majority": majority_share([labels[i] for i in mine]),
        }
    return {
        "sentences": len(labels),
        **score(logits, labels),
        "mcc_95": list(mcc_interval(counts)),
        "majority": majority_share(labels),
        "confusion": counts.tolist(),
        "groups": groups,
    }
