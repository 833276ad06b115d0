"""Accuracy, Matthews correlation (MCC), F1 by class, the majority baseline, and uncertainty."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from potstill.calibration import calibration_error, probabilities, reliability

RESAMPLED_NUMBERS = 2_000_000  # that a bootstrap holds at once, 16 MB


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
    return mcc_of_margins(np.trace(counts, axis1=-2, axis2=-1), counts.sum(-1), counts.sum(-2))


def mcc_of_margins(correct: np.ndarray, actual: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Return the MCC from (…) correct predictions, and (…, classes) labels and predictions."""
    actual, predicted = actual.astype(np.float64), predicted.astype(np.float64)
    total = actual.sum(-1)
    covariance = correct * total - (actual * predicted).sum(-1)
    spread = (total**2 - (actual**2).sum(-1)) * (total**2 - (predicted**2).sum(-1))
    return np.where(spread > 0, covariance / np.sqrt(np.where(spread > 0, spread, 1)), 0.0)


def class_scores(counts: np.ndarray) -> dict[str, list[float]]:
    """Return "precision", "recall", "f1" and "support" of every class; 0 where one is undefined.

    Args:
        counts: (classes, classes) confusion counts.
    """
    correct, actual, predicted = np.diag(counts), counts.sum(1), counts.sum(0)
    return {
        "precision": (correct / np.maximum(predicted, 1)).tolist(),
        "recall": (correct / np.maximum(actual, 1)).tolist(),
        "f1": (2 * correct / np.maximum(actual + predicted, 1)).tolist(),
        "support": actual.tolist(),
    }


def macro_f1(counts: np.ndarray) -> float:
    """Return the mean F1 of the classes that occur among the labels or the predictions."""
    occurs = counts.sum(0) + counts.sum(1) > 0
    return float(np.mean(np.asarray(class_scores(counts)["f1"])[occurs]))


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
    # The counts of sentences drawn with replacement are multinomial, so the counts are drawn: those
    # that are not zero, of which there are at most as many as sentences, however many the classes.
    rows, columns = np.nonzero(counts)
    observed = counts[rows, columns]
    total, on_diagonal = observed.sum(), rows == columns
    classes = np.union1d(rows, columns)
    chunk = max(1, RESAMPLED_NUMBERS // (len(observed) + 2 * len(classes)))
    generator, values = np.random.default_rng(seed), []
    for start in range(0, resamples, chunk):
        size = min(chunk, resamples - start)
        drawn = generator.multinomial(total, observed / total, size)
        margins = (_sums_by(cells, drawn, classes) for cells in (rows, columns))
        values.append(mcc_of_margins(drawn[:, on_diagonal].sum(1), *margins))
    return np.concatenate(values)


def _sums_by(cell_classes: np.ndarray, drawn: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Return (N, classes) sums of (N, cells) counts over the cells of each of `classes`."""
    order = np.argsort(cell_classes, kind="stable")
    present, starts = np.unique(cell_classes[order], return_index=True)
    sums = np.zeros((len(drawn), len(classes)))
    sums[:, np.searchsorted(classes, present)] = np.add.reduceat(drawn[:, order], starts, axis=1)
    return sums


def majority_share(labels: Sequence[int]) -> float:
    """Return the accuracy of always predicting the most frequent class; its MCC is 0."""
    return float(np.bincount(np.asarray(labels, int)).max() / len(labels))


def score(logits: np.ndarray, labels: Sequence[int]) -> dict[str, float]:
    """Return mean cross-entropy ("loss", nats), accuracy, MCC and macro F1 of (N, classes)
    logits."""
    logits = np.asarray(logits, np.float64)
    counts = confusion_counts(labels, logits.argmax(1), logits.shape[1])
    return {"loss": cross_entropy(logits, labels)} | _decision_scores(counts)


def cross_entropy(logits: np.ndarray, labels: Sequence[int]) -> float:
    """Return the mean cross-entropy of (N, classes) logits, in nats."""
    logits = np.asarray(logits, np.float64)
    picked = logits[np.arange(len(labels)), labels]
    return float((np.logaddexp.reduce(logits, axis=1) - picked).mean())


def _decision_scores(counts: np.ndarray) -> dict[str, float]:
    return {
        "accuracy": float(accuracy(counts)),
        "mcc": float(mcc(counts)),
        "macro_f1": macro_f1(counts),
    }


def evaluation(
    logits: np.ndarray,
    labels: Sequence[int],
    sources: Sequence[str] = (),
    *,
    offsets: np.ndarray | None = None,
    threshold: float = 0.0,
) -> dict[str, Any]:
    """Return all measures of one split: what results.json holds.

    Args:
        logits: (N, classes).
        labels: N class indices.
        sources: N names of groups, or empty.
        offsets: (classes,) added to the logits to decide on a class, but not for probabilities.
        threshold: The probability of its class from which a sentence counts as answered.

    Returns:
        "loss", "accuracy", "mcc" and "macro_f1" as in `score`; "mcc_95", its interval; "ece", the
        calibration error; "sentences", their number; "majority", the baseline's accuracy;
        "confusion", counts; "classes", as in `class_scores`; "groups": for each source its
        sentences, accuracy and majority baseline; and with a threshold "answered": the
        "threshold", the "fraction" that is answered, and its "accuracy".
    """
    logits = np.asarray(logits, np.float64)
    predictions = (logits if offsets is None else logits + offsets).argmax(1)
    counts = confusion_counts(labels, predictions, logits.shape[1])
    groups = {}
    for name in sorted(set(sources)):
        indices = [i for i, source in enumerate(sources) if source == name]
        correct = sum(int(predictions[i]) == labels[i] for i in indices)
        groups[name] = {
            "sentences": len(indices),
            "accuracy": correct / len(indices),
            "majority": majority_share([labels[i] for i in indices]),
        }
    scores = {
        "sentences": len(labels),
        "loss": cross_entropy(logits, labels),
        **_decision_scores(counts),
        "mcc_95": list(mcc_interval(counts)),
        "majority": majority_share(labels),
        "ece": calibration_error(reliability(logits, labels)),
        "confusion": counts.tolist(),
        "classes": class_scores(counts),
        "groups": groups,
    }
    if threshold > 0:
        answered = probabilities(logits)[np.arange(len(logits)), predictions] >= threshold
        right = (predictions == np.asarray(labels))[answered]
        scores["answered"] = {
            "threshold": threshold,
            "fraction": float(answered.mean()),
            "accuracy": float(right.mean()) if len(right) else None,
        }
    return scores
